"""The base class of layers whose kernels need more than the kernels of their inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ModelError
from ..signals.fields import Gradient, Pairs, Signal
from .layer import Layer, Shape, Width


@dataclass(frozen=True)
class DrawnLayer(Layer):
    """A layer that the theory knows by what it does to channels drawn at infinite width.

    What it makes of a kind of pairs of inputs depends on single inputs: on which tokens coincide, or on what
    attends to what. So there is no kernel of kinds of pairs, and networks with such a layer are computed from
    drawn channels alone (`eoc_theory.propagation.gaussian_graph`).
    """

    @property
    def has_kernels(self) -> bool:
        return False

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        raise self._kernelless()

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        raise self._kernelless()

    def _kernelless(self) -> ModelError:
        return ModelError(
            f"layer {self.name!r} ({type(self).__name__}) has no kernel of kinds of pairs of inputs: "
            "its network is computed from drawn channels"
        )


class RandomRows(DrawnLayer):
    """A layer whose values are rows of a random table, whatever the input's own values are.

    Attributes:
        features: entries of a row.
        std: standard deviation of an entry.
    """

    features: int
    std: float

    @property
    def is_random(self) -> bool:
        return True

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return self.std**2

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> RandomRows:
        return replace(self, features=width(self.features, 1))
