"""Magnitude: the smallest weights go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..networks.layer_list import LayerList
from .criterion import Criterion, register
from .distributions.independent import ScoreLaw, merged
from .distributions.magnitudes import magnitude_law


@register
@dataclass(frozen=True)
class Magnitude(Criterion):
    """|W| (Hayou et al. 2021, section 2)."""

    name = "magnitude"
    needs = "weights"

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight)

    def law(self, net: LayerList) -> ScoreLaw:
        std = np.array([layer.weight_std for layer in net.layers])
        return merged(net, [magnitude_law(layer) for layer in net.layers], std)
