"""ERK: a layer's density goes with the sum of its weight's extents over their product."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..networks.layer_list import LayerList
from .criterion import Array, Criterion, register
from .distributions.densities import chance_scores, erdos_renyi_kernel


@register
@dataclass(frozen=True)
class ERK(Criterion):
    """Erdős–Rényi-kernel densities (Evci et al. 2020, section 3); which weights, by chance."""

    name = "erk"
    needs = "nothing"

    def densities(self, net: LayerList) -> Array:
        return erdos_renyi_kernel(net)

    def chance_scores(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return chance_scores(shape, sum(shape) / math.prod(shape), rng)
