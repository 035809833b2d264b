"""A fully connected layer on the channels at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..signals.fields import Gradient, Pairs, Signal
from ..signals.means import Magnitudes, Means
from .layer import Shape, Weighted, Width
from .weighted import Convolution, _resized


@dataclass(frozen=True)
class PositionwiseDense(Weighted):
    """torch's Linear on the last axis of images with channels last, or of tokens: the same matrix at every
    position, as a convolution with a kernel of one."""

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.one(inputs)
        if shape.channels != self.weight.fan_in or not shape.space:
            raise self.refuse(f"{self.weight.fan_in} channels at positions", shape)
        return Shape(self.weight.fan_out, shape.space)

    @property
    def kind(self) -> str:
        return "Linear"

    def _over(self, axes: int) -> Convolution:
        one = (1,) * axes
        return Convolution(self.name, replace(self.weight, kernel=one), one, ((0, 0),) * axes, one)

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return value.positions**2

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> PositionwiseDense:
        return replace(self, weight=_resized(self.weight, inputs[0].channels, width(self.weight.fan_out, 1)))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        return self._over(len(signals[0][0].space)).forward_kernel(signals, pairs)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        return self._over(len(memory.space)).backward_kernel(memory, gradient, pairs)

    def windows(self, space: tuple[int, ...]) -> np.ndarray:
        return self._over(len(space)).windows(space)

    def tap_shares(self, x: Means, sent: Means) -> np.ndarray:
        return self._over(x.profile.ndim).tap_shares(x, sent)

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        return self._over(inputs[0].profile.ndim).forward_means(inputs, magnitudes)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        return self._over(signal.profile.ndim).backward_means(memory, signal, magnitudes)
