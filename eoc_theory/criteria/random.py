"""Random: chance alone decides, over the whole network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..networks.layer_list import LayerList
from .criterion import Array, Criterion, register
from .distributions.densities import Extents
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

    def chance_scores(self, shapes: Sequence[Extents], rng: np.random.Generator) -> Iterator[Array]:
        return (rng.random(shape) for shape in shapes)
