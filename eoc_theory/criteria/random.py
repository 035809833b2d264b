"""Random: chance alone decides, over the whole network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..networks.layer_list import LayerList
from .criterion import Array, Criterion, register
from .distributions.independent import ScoreLaw, merged
from .distributions.magnitudes import Uniform


@register
@dataclass(frozen=True)
class Random(Criterion):
    """Independent uniform scores."""

    name = "random"
    needs = "nothing"

    def law(self, net: LayerList) -> ScoreLaw:
        return merged(net, [Uniform()] * len(net), np.ones(len(net)))

    def chance_scores(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.random(shape)
