"""SNIP, in one shot or in rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .criterion import Criterion, checked_rounds, register


@register
@dataclass(frozen=True)
class Snip(Criterion):
    """|W g|, g the gradient of the mean loss (Lee et al. 2019, equation 6).

    With `rounds` the scores are computed anew on what is left after each (iterative SNIP: de Jorge et al.
    2021, section 4; exponential schedule).
    """

    name = "snip"
    needs = "gradient"
    is_product = True
    proportional = True
    rounds: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", checked_rounds(self.name, self.rounds))

    @property
    def has_kernel_law(self) -> bool:
        """In one shot."""
        return self.rounds == 1

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight * derivative)
