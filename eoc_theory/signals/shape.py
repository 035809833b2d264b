"""The shape of a value inside a network."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One value of the network: channels, and the extent of the positions, () for a vector."""

    channels: int
    space: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """Number of positions, 1 for a vector."""
        return math.prod(self.space)

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.channels * self.positions

    def __str__(self) -> str:
        return "x".join(str(n) for n in (self.channels, *self.space))
