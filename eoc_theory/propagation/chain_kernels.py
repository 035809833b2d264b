"""Kernels of a batch layer by layer through a chain, at any scale and depth, without holding all of them.

A chain's signals shrink or grow by a factor a layer, so that after a few hundred layers no floating-point
format holds them. A kernel is therefore carried as values · 4^exponent: signals by a power of two, which
loses no digit. A positively homogeneous activation does not see the factor; any other acts as its limit
(`signal_limits`) once a signal has left the middle of the range.

The backward pass needs what every layer left in the forward pass. It is not kept but computed again, a
stretch of layers at a time, so that memory goes with the root of the depth at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..activations import Activation
from ..errors import ModelError
from ..gaussian.duals import covariance_maps
from ..layers import WeightLayer
from ..networks.architecture import Architecture
from ..signals.limits import acting, limit

Array = np.ndarray

#: Accuracy asked of the dual activations, relative to their scale: far under what a score's law can show.
KERNEL_TOLERANCE = 1e-5
#: Error from which the limit at large signals is taken instead.
_LEAST_ERROR = 2e-2
#: Bytes of kernels that a backward pass holds, where a stretch of a few layers does not need more.
HELD_BYTES = 24 << 20
#: Powers of two of σ_w and of inputs that are left in their numbers; their squares are within range.
_PLAIN = 100


@dataclass(frozen=True)
class Kernel:
    """values · 4^exponent, of shape (B, B)."""

    values: Array
    exponent: int = 0

    def shifted(self, power: int) -> Kernel:
        """The same kernel with its values multiplied by 4^−power."""
        if power == 0:
            return self
        return Kernel(np.ldexp(self.values, -2 * power), self.exponent + power)

    @property
    def power(self) -> float:
        """log₂ of its largest variance; −inf for none."""
        largest = float(np.diagonal(self.values).max())
        return math.log2(largest) + 2 * self.exponent if largest > 0 else -math.inf


@dataclass(frozen=True)
class LayerStep:
    """What a batch is in one layer.

    Attributes:
        kernel: K^l of the pre-activations.
        inputs: H^{l-1} of the layer's inputs.
        slopes: E[φ'φ'] behind the layer, None behind the last.
        activation: what acts behind it, φ itself or its limit; None behind the last.
        outputs: H^l, None behind the last.
    """

    kernel: Kernel
    inputs: Kernel
    slopes: Array | None
    activation: Activation | None
    outputs: Kernel | None


def input_kernel(inputs: Array) -> Kernel:
    """x_a·x_b / features of inputs (B, features)."""
    exponent = math.frexp(float(np.abs(inputs).max(initial=0.0)))[1]
    # 0 where squares are ordinary numbers.
    exponent = 0 if abs(exponent) <= _PLAIN else exponent
    scaled = inputs_in_unit(inputs, exponent)
    return Kernel(scaled @ scaled.T / scaled.shape[1], exponent)


def inputs_in_unit(inputs: Array, exponent: int) -> Array:
    """Inputs divided by 2^exponent."""
    return np.ldexp(inputs, -exponent) if exponent else inputs


def split(scale: float) -> tuple[float, int]:
    """A standard deviation as number · 2^exponent, the exponent 0 where its square is an ordinary number."""
    number, exponent = math.frexp(scale)
    return (float(scale), 0) if abs(exponent) <= _PLAIN else (number, exponent)


def forward_steps(net: Architecture, inputs: Kernel, first: int = 0) -> Iterator[LayerStep]:
    """Each layer from the one at `first` on, whose inputs have the kernel `inputs`.

    Raises ModelError where a signal leaves the range and the activation has no limit there.
    """
    for layer in net.layers[first:]:
        step = _step(layer, inputs)
        yield step
        if step.outputs is not None:
            inputs = step.outputs


def _step(layer: WeightLayer, inputs: Kernel) -> LayerStep:
    kernel = _weighted(layer, inputs)
    power = kernel.power
    # A batch without a signal has no scale.
    act = None if power == -math.inf else acting(layer.activation, power, layer.name)
    # Carried with variances near 1, or not at all.
    kernel = kernel.shifted((0 if act is None else math.floor(power / 2)) - kernel.exponent)
    if layer.activation is None:
        return LayerStep(kernel, inputs, None, None, None)
    act = act or layer.activation
    maps = covariance_maps(act, kernel.values, derivative=True, tolerance=KERNEL_TOLERANCE)
    found = limit(act, large=True) if maps.error > _LEAST_ERROR else None
    if found is not None:
        # For large signals that are almost alike the half lines are nearer than a series is.
        maps = covariance_maps(found, kernel.values, derivative=True, tolerance=KERNEL_TOLERANCE)
    if not maps.error < 1.0 or not np.isfinite(maps.phi.sum() + np.asarray(maps.dphi).sum()):
        raise ModelError(
            f"the kernels behind layer {layer.name} cannot be computed at a variance of 2^{power:.0f}, where "
            f"{act.name} is not a line: use another sigma_w or a smaller depth"
        )
    return LayerStep(kernel, inputs, maps.dphi, act, Kernel(maps.phi, kernel.exponent))


def _weighted(layer: WeightLayer, inputs: Kernel) -> Kernel:
    """σ_b² + σ_w² H."""
    sigma_w, exponent = split(layer.sigma_w)
    bias, own = split(layer.sigma_b)
    grown = inputs.exponent + exponent
    if bias == 0.0:
        return Kernel(sigma_w**2 * inputs.values, grown)
    if grown < own - 2 * _PLAIN:
        # The signal is nothing beside the biases.
        inputs, grown = inputs.shifted(own - grown), own
    return Kernel(math.ldexp(bias, max(own - grown, -500)) ** 2 + sigma_w**2 * inputs.values, grown)


class Pass:
    """A batch's way through a chain: forwards once, then back as often as wanted."""

    def __init__(self, net: Architecture, inputs: Kernel) -> None:
        self._net = net
        self._starts: dict[int, Kernel] = {}
        self._held: list[LayerStep] = []
        most = HELD_BYTES // (4 * inputs.values.nbytes)
        self._stretch = max(most, math.isqrt(net.depth) + 1)
        self._inputs = inputs

    def forwards(self) -> Iterator[LayerStep]:
        """All layers, first to last."""
        for index, step in enumerate(forward_steps(self._net, self._inputs)):
            if index % self._stretch == 0:
                self._starts[index], self._held = step.inputs, []
            self._held.append(step)
            yield step

    def backwards(self) -> Iterator[tuple[int, LayerStep]]:
        """All layers with their positions, last to first."""
        for first in sorted(self._starts, reverse=True):
            last = first == max(self._starts)
            steps = self._held if last else self._again(first)
            for offset in range(len(steps) - 1, -1, -1):
                yield first + offset, steps[offset]

    def _again(self, first: int) -> list[LayerStep]:
        steps = forward_steps(self._net, self._starts[first], first)
        return [step for step, _ in zip(steps, range(self._stretch), strict=False)]
