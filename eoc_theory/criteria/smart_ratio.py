"""Smart ratio: densities that fall with depth, and a fixed one for the last, fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base import checks
from .criterion import Criterion, register
from .distributions.densities import Densities, Extents, sizes


@register
@dataclass(frozen=True)
class SmartRatio(Criterion):
    """Density ∝ ((L−l+1)² + L−l+1)/l^`power` in layer l, `linear` in a last linear layer; which, by chance.

    Su et al. 2020 (Sanity-Checking Pruning Methods, section 4, and the authors' code): power 0 for ResNets,
    2 for VGGs, 0.3 of the classifier's weights whatever the sparsity. Theirs are convolutional networks with
    one linear layer, the last; other linear layers count among the l here. What full layers cannot take goes
    to all others in proportion; in the authors' code to the next one. Layers are counted in the order of the
    network, shortcuts among them; of a model that is measured, in the order in which it keeps its modules.
    """

    name = "smart-ratio"
    needs = "nothing"
    power: float = 0.0
    linear: float = 0.3

    def __post_init__(self) -> None:
        power = checks.non_negative(f"power of criterion {self.name!r}", self.power)
        linear = checks.fraction(f"linear of criterion {self.name!r}", self.linear)
        object.__setattr__(self, "power", float(power))
        object.__setattr__(self, "linear", float(linear))

    def densities(self, shapes: Sequence[Extents]) -> Densities:
        weights = sizes(shapes)
        to_go = np.arange(len(shapes), 0, -1, dtype=float)
        ratio = (to_go**2 + to_go) / to_go[::-1] ** self.power
        held = np.zeros_like(weights)
        if len(shapes) > 1 and len(shapes[-1]) == 2:
            held[-1] = max(1, int(self.linear * weights[-1]))
        return Densities(weights, weights * ratio, held)
