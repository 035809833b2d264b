"""Normalisation over the channels at each position: LayerNorm on images with channels last, and on tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..signals.fields import Gradient, Pairs, Signal
from .layer import Array, Shape
from .normalisation import Normalisation, _scaled, _shift, _shifted, _standardised, _through_standardised
from .random_numbers import Draw


@dataclass(frozen=True)
class ChannelNorm(Normalisation):
    """The channels at each position to mean 0 and variance 1, then times γ, plus β (rms `gain`, `shift`).

    At infinite width K(p, p') becomes K(p, p')/√(K(p, p) K(p', p')).

    Attributes:
        centred: whether the mean is subtracted; else to mean square 1 (RMSNorm).
    """

    gain: float = 1.0
    shift: float = 0.0
    eps: float = 1e-5
    centred: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def normalises(self) -> str:
        return "layer"

    def kernel_gain(self, memory: Any) -> float | None:
        return float(np.mean(memory**2))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        total = sum(field.channels for field in signals[0])
        shares = [field.channels / total for field in signals[0]]
        mean = np.asarray(sum(s * field.mean for s, field in zip(shares, signals[0], strict=True)))
        mean = mean * float(self.centred)
        square = sum(s * np.diagonal(field.moment[0]) for s, field in zip(shares, signals[0], strict=True))
        factor = self.gain / np.sqrt(np.maximum(square - mean**2, 0.0) + self.eps)
        factor = factor.astype(signals[0][0].moment.dtype)
        outer = factor[:, None] * factor
        fields = []
        for field in signals[0]:
            centre = field.mean - mean.astype(factor.dtype)
            moment = field.covariance + centre[:, None] * centre
            fields.append(_shifted(field.having(moment * outer, centre * factor), self.shift))
        return tuple(fields), factor

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        # What is subtracted, the mean over all channels and the part along them, vanishes with the width.
        outer = memory[:, None] * memory
        return [Gradient(tuple(g * outer for g in gradient.groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        beta = _shift(draw, (len(x), *(1,) * (x.ndim - 1)), self.shift)
        if not self.centred:
            inverse = 1.0 / np.sqrt(np.mean(np.square(x), axis=0, keepdims=True) + x.dtype.type(self.eps))
            normal = x * inverse
            return _scaled(normal, self.gain, beta), (normal, inverse)
        normal, inverse = _standardised(x.reshape(1, len(x), -1), 1, self.eps)
        return _scaled(normal.reshape(x.shape), self.gain, beta), (normal, inverse)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        normal, inverse = memory
        if not self.centred:
            along = np.mean(gradient * normal, axis=0, keepdims=True)
            return [(gradient - normal * along) * (inverse * inverse.dtype.type(self.gain))]
        return [_through_standardised(normal, inverse, gradient, 1, self.gain)]
