"""The product of two values: gates, squeeze-and-excite, gated linear units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..signals.fields import Field, Gradient, Pairs, Signal, coarsen, refine
from ..signals.means import Magnitudes, Means
from .layer import Array, Layer, Shape
from .random_numbers import Draw
from .sampled_channels import Channels, Segment


@dataclass(frozen=True)
class Product(Layer):
    """Two values multiplied entry by entry; the second may be one number for all positions of a channel, or
    for all channels of a position.

    The two are taken as independent: what a gate depends on of its own channel vanishes with the width.
    """

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) != 2:
            raise self.refuse("two inputs", len(inputs))
        value, gate = inputs
        one_position = math.prod(gate.space) == 1 and len(gate.space) in (0, len(value.space))
        if gate.channels not in (1, value.channels) or not (gate.space == value.space or one_position):
            raise self.refuse(
                "inputs of one shape, or a factor for channels or positions", f"{value} and {gate}"
            )
        return value

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return inputs[0] * inputs[1]

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        return 2 * value.positions**2

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        return inputs[0] if shapes[1].channels == 1 else channels.added(list(inputs))

    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        value, gate = signals
        shared = sum(f.channels for f in gate) == 1 and len(gate) == 1
        if shared:
            gates: Signal = gate * len(value)
        else:
            value, gates = refine(signals)
        fields = tuple(
            Field(x.channels, x.moment * g.moment, x.mean * g.mean, x.space)
            for x, g in zip(value, gates, strict=True)
        )
        sizes = [[field.channels for field in signal] for signal in signals]
        return fields, (value, gates, sizes, shared)

    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        value, gates, sizes, shared = memory
        fine = [x.channels for x in value]
        to_value = [d * g.moment for d, g in zip(gradient.groups, gates, strict=True)]
        to_gate = []
        for d, x, g in zip(gradient.groups, value, gates, strict=True):
            sent = d * x.moment
            to_gate.append(sent if g.positions == x.positions else sent.sum(axis=(1, 2), keepdims=True))
        if shared:
            total = sum(n * sent for n, sent in zip(fine, to_gate, strict=True))
            gate_groups: tuple[Array, ...] = (np.asarray(total).astype(to_gate[0].dtype),)
        else:
            gate_groups = coarsen(to_gate, sizes[1], fine)
        return [
            Gradient(coarsen(to_value, sizes[0], fine), None, gradient.log_scale),
            Gradient(gate_groups, None, gradient.log_scale),
        ]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        value, gate = inputs
        wide = gate.reshape(len(gate), *(1,) * (value.ndim - gate.ndim), *gate.shape[1:])
        return value * wide, (value, wide, gate.shape)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        value, gate, shape = memory
        sent = gradient * value
        axes = tuple(
            i for i, (own, whole) in enumerate(zip(gate.shape, value.shape, strict=True)) if own != whole
        )
        return [gradient * gate, sent.sum(axis=axes, keepdims=True).reshape(shape)]

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        value, gate = inputs
        return _times(value, gate), (value, gate)

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        value, gate = memory
        sent = _times(signal, value)
        amplitude, profile, log_scale = sent.amplitude, sent.profile, sent.log_scale
        if len(gate.amplitude) < len(amplitude):
            amplitude, log_scale = np.ones(1), log_scale + math.log(len(amplitude))
        if gate.profile.size < profile.size:
            profile, log_scale = np.ones(gate.profile.shape), log_scale + math.log(profile.size)
        return [_times(signal, gate), Means.of(amplitude, profile, log_scale, sent.variance)]


def _times(a: Means, b: Means) -> Means:
    """The product of two signals, the second broadcast; −∞ where either has none."""
    profile = b.profile if b.profile.ndim == a.profile.ndim else b.profile.reshape((1,) * a.profile.ndim)
    return Means.of(
        a.amplitude * b.amplitude, a.profile * profile, a.log_scale + b.log_scale, a.variance + b.variance
    )
