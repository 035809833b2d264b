"""ERK: a layer's density goes with the sum of its weight's extents over their product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .criterion import Criterion, register
from .distributions.densities import Densities, Extents, erdos_renyi_kernel


@register
@dataclass(frozen=True)
class ERK(Criterion):
    """Erdős–Rényi-kernel densities (Evci et al. 2020, section 3); which weights, by chance."""

    name = "erk"
    needs = "nothing"

    def densities(self, shapes: Sequence[Extents]) -> Densities:
        return Densities.shared(shapes, erdos_renyi_kernel(shapes))
