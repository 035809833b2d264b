"""Uniform: every layer keeps the same fraction; which weights, by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..networks.layer_list import LayerList
from .criterion import Array, Criterion, register
from .distributions.densities import chance_scores


@register
@dataclass(frozen=True)
class Uniform(Criterion):
    """One density for all layers."""

    name = "uniform"
    needs = "nothing"

    def densities(self, net: LayerList) -> Array:
        return net.weights.astype(float)

    def chance_scores(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return chance_scores(shape, 1.0, rng)
