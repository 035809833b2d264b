"""GraSP: what a weight does for the gradient flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base import checks
from .criterion import Criterion, register


@register
@dataclass(frozen=True)
class Grasp(Criterion):
    """W (H g), signed: H the loss's Hessian in all the weights (Wang et al. 2020, equation 8).

    `temperature` divides the logits; 1 is the paper's formula, 200 what its code and SynFlow's compute with.
    """

    name = "grasp"
    needs = "hessian_gradient"
    signed = True
    is_product = True
    proportional = True
    temperature: float = 1.0

    def __post_init__(self) -> None:
        number = checks.positive("temperature of criterion 'grasp'", self.temperature)
        object.__setattr__(self, "temperature", number)

    def score(self, weight: Any, derivative: Any) -> Any:
        return weight * derivative
