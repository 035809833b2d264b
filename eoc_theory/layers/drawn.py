"""The base class of layers whose kernels need more than the kernels of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from ..signals.fields import Gradient, Pairs, Signal
from .layer import Layer


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
