"""Layers that act on each entry separately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activations import Activation
from ..gaussian import moments
from ..signals.fields import Field, Gradient, Latent, Pairs, Signal
from .activation_tables import evaluate
from .layer import Array, Layer, Shape
from .position_duals import field_maps
from .random_numbers import Draw


@dataclass(frozen=True)
class Nonlinearity(Layer):
    """An activation."""

    activation: Activation

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def nonlinearity(self) -> Activation | None:
        return self.activation

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return float(moments(self.activation, inputs[0]).phi2.value)

    def variance_gain(self, mean_square: float) -> float:
        return float(moments(self.activation, mean_square).dphi2.value)

    def kernel_gain(self, memory: Any) -> float | None:
        slopes = [float(np.trace(s[0], dtype=float)) / s.shape[1] for s in memory]
        return float(np.mean(slopes))

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return value.positions**2

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        fields, slopes = [], []
        for field in signals[0]:
            mean, moment, slope = field_maps(self.activation, field.mean, field.covariance)
            latent = Latent(field, self.activation)
            fields.append(Field(field.channels, moment, mean, field.space, latent))
            slopes.append(slope)
        return tuple(fields), tuple(slopes)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        groups = [g * slope for g, slope in zip(gradient.groups, memory, strict=True)]
        if gradient.latent is None:
            return [Gradient(tuple(groups), None, gradient.log_scale, self.activation)]
        groups = [g + u for g, u in zip(groups, gradient.latent, strict=True)]
        return [Gradient(tuple(groups), None, gradient.log_scale)]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        slopes = self.activation.slopes
        if slopes is None:
            return evaluate(self.activation, x), x
        positive = x > 0
        if slopes == (0.0, 1.0):
            return np.maximum(x, 0), positive
        return x * np.where(positive, x.dtype.type(slopes[1]), x.dtype.type(slopes[0])), positive

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        slopes = self.activation.slopes
        if slopes is None:
            return [gradient * evaluate(self.activation, memory, 1)]
        if slopes == (0.0, 1.0):
            return [gradient * memory]
        dtype = gradient.dtype.type
        return [gradient * np.where(memory, dtype(slopes[1]), dtype(slopes[0]))]


@dataclass(frozen=True)
class Dropout(Layer):
    """Entries set to 0 with probability p and the others divided by 1 − p, in training mode alone.

    Attributes:
        p: probability.
        training: in evaluation mode the layer is the identity.
        channelwise: whole channels at once (Dropout1d, Dropout2d).
    """

    p: float
    training: bool = True
    channelwise: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.one(inputs)

    @property
    def mode(self) -> bool | None:
        return self.training

    @property
    def dropout(self) -> float:
        return self.p if self.training else 0.0

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        if not self.training:
            return inputs[0]
        return inputs[0] / (1 - self.p) if self.p < 1 else 0.0

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        if not self.training or self.p == 0:
            return signals[0], None
        return tuple(f.having(self._masked(f.moment), f.mean) for f in signals[0]), None

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        if not self.training or self.p == 0:
            return [gradient]
        return [Gradient(tuple(map(self._masked, gradient.groups)), None, gradient.log_scale)]

    @property
    def _shares_mask(self) -> bool:
        """Whether all positions of a channel are dropped together."""
        return self.channelwise

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the mask on values of a shape (channels, *space, batch)."""
        return (shape[0], *(1,) * (len(shape) - 2), shape[-1]) if self.channelwise else shape

    def _masked(self, kernel: Array) -> Array:
        """E[m m'] times the kernel: 1/(1 − p) where two entries share their mask, else 1."""
        result = kernel.copy()
        shared = result[0] if self._shares_mask else np.einsum("pp->p", result[0])
        shared *= result.dtype.type(1.0 / (1.0 - self.p))
        return result

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        x = inputs[0]
        if not self.training or self.p == 0.0:
            return x, None
        shape = self._mask_shape(x.shape)
        scale = 1.0 / (1.0 - self.p) if self.p < 1.0 else 0.0
        mask = (draw.uniform(shape) >= self.p) * x.dtype.type(scale)
        return x * mask, mask

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        return [gradient if memory is None else gradient * memory]


@dataclass(frozen=True)
class StochasticDepth(Dropout):
    """Whole inputs set to 0 with probability p, the others divided by 1 − p: a residual branch left out."""

    @property
    def _shares_mask(self) -> bool:
        return True

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*(1,) * (len(shape) - 1), shape[-1])
