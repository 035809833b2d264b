"""The criteria "synflow" and "synflow-oneshot"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...networks.architecture import Architecture
from ..criterion import Criterion, checked_rounds, register
from ..distributions.independent import ScoreLaw
from .one_shot import synflow_scores


@register
@dataclass(frozen=True)
class SynFlow(Criterion):
    """|W| ∂R/∂|W|, R = 1ᵀ|W^L|…|W^1|1 over what is left (Tanaka et al. 2020, algorithm 1)."""

    name = "synflow"
    needs = "paths"
    is_product = True
    proportional = True
    rounds: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", checked_rounds(self.name, self.rounds))

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight) * derivative

    def law(self, net: Architecture) -> ScoreLaw | None:
        return synflow_scores(net) if self.rounds == 1 else None


@register
@dataclass(frozen=True)
class SynFlowOneShot(Criterion):
    """The same in one round."""

    name = "synflow-oneshot"
    needs = "paths"
    is_product = True
    proportional = True

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight) * derivative

    def law(self, net: Architecture) -> ScoreLaw:
        return synflow_scores(net)
