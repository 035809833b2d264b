"""FORCE: SNIP in rounds, in which removed weights may come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .criterion import Criterion, checked_rounds, register


@register
@dataclass(frozen=True)
class Force(Criterion):
    """|W g| with g the gradient at the pruned network, by all weights (de Jorge et al. 2021, equation 5).

    A weight that one round removed has a gradient still, and comes back where its score is among the largest.
    """

    name = "force"
    needs = "gradient"
    regrows = True
    proportional = True
    rounds: int = 60

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", checked_rounds(self.name, self.rounds))

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight * derivative)
