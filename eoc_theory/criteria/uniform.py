"""Uniform: every layer keeps the same fraction; which weights, by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .criterion import Criterion, register
from .distributions.densities import Densities, Extents, sizes


@register
@dataclass(frozen=True)
class Uniform(Criterion):
    """One density for all layers."""

    name = "uniform"
    needs = "nothing"

    def densities(self, shapes: Sequence[Extents]) -> Densities:
        return Densities.shared(shapes, sizes(shapes).astype(float))
