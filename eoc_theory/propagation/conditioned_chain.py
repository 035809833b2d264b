"""How the scale of the scores fluctuates from one initialisation to the next, at finite width.

The forward pass of a batch through Gaussian weights is an exact Markov chain in its kernels: given the
layer's inputs h (fan_in × B), the rows of ``u = W h`` are independent N(0, σ_w² hᵀh/fan_in). One layer
therefore costs N·B numbers instead of N². The backward pass is a chain too once it is conditioned on the
forward pass: knowing ``W h = u`` fixes W on the span of h and leaves it Gaussian on the complement, so

    Wᵀδ = h (hᵀh)⁻¹ uᵀδ + P⊥ W̃ᵀδ,       P⊥ = 1 − h (hᵀh)⁻¹ hᵀ,   W̃ an independent copy.

Dropping the first term and P⊥ is the usual gradient independence, exact at infinite width. At depth
comparable to width it is not: for ReLU networks of width and depth 50 it overstates how far the log m^l of
different layers move against each other by 40 %, while the conditioned chain reproduces it. (Euler's identity
for homogeneous φ, Σ_i δ_i y_i the same in every layer, is one consequence that only this chain keeps.)

A batch of a hundred inputs fluctuates almost as a few of its inputs do, so the chain runs on a small subset
and is used for *differences* from the subset's own infinite-width kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activations import Activation
from ..base.progress import followed
from ..errors import ModelError
from ..layers import WeightLayer
from ..layers.activation_tables import slope_table
from ..networks.architecture import Architecture
from ..signals.covariance import covariance_root
from ..signals.data import DataSummary
from ..signals.limits import limit
from .chain_kernels import inputs_in_unit
from .infinite_width import Cotangent
from .scale_statistics import LEVELS, ScaleStatistics, factor_statistics, gram, mean_square, shape_layers

Array = np.ndarray

#: Inputs the chain carries: enough for the standard deviation (sampled: within 15 % of that of 100 inputs).
CHAIN_BATCH = 20
#: Networks advanced together; part of the stream of random numbers, so changing it changes results.
GROUP = 16
#: Precision of the chain, and the relative variance of the noise that it adds in every layer.
DTYPE = np.float32
JITTER = 1e-5
#: Bytes that a group of networks holds for the backward pass, where a stretch of a few layers needs no more.
HELD_BYTES = 32 << 20
#: Sizes of a signal in single precision whose squares are ordinary numbers, and powers of two of weights.
_ORDINARY = (1e-12, 1e12)
_PLAIN = 40
#: |log| of a signal's size from which an activation acts as its limit, and that double precision holds.
_FAR, _HELD = 96 * math.log(2.0), 600.0


def sample_scales(
    net: Architecture, batch: DataSummary, top: Cotangent, samples: int, seed: int, *, workers: int = 2
) -> ScaleStatistics:
    """`ScaleStatistics` of every layer in `samples` independent networks: (samples, L) and (samples, L, K).

    `batch` is used whole: pass a subset, and what is sent backwards for it. Time is about samples · L · N · B
    numbers drawn and activated twice. The networks advance in groups with a stream of random numbers each, so
    that the result does not depend on `workers`.
    """
    groups = range(-(-samples // GROUP))
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        made = pool.map(lambda index: _group(net, batch, top, seed, index), groups)
        parts = list(followed(made, f"sampled networks, {GROUP} at a time", len(groups)))
    joined = [np.concatenate(rows)[:samples] for rows in zip(*parts, strict=True)]
    return ScaleStatistics(*joined)


# Threads have an error state of their own.
@np.errstate(all="ignore")
def _group(
    net: Architecture, batch: DataSummary, top: Cotangent, seed: int, index: int
) -> tuple[Array, Array, Array]:
    """One group of networks forwards and backwards."""
    chain = _Chain(net, batch, np.random.default_rng([seed, 0x636861696E, index]))
    y, log_scale = chain.forwards()
    logits = y.astype(float) * np.exp(np.clip(log_scale, -_HELD, _HELD))[:, None, None]
    delta = top.of(logits.swapaxes(-1, -2), 0).swapaxes(-1, -2).astype(DTYPE)
    log_scale = np.zeros(GROUP)
    log_rms = np.empty((GROUP, net.depth))
    shapes = np.empty((GROUP, net.depth, len(LEVELS)))
    dead = np.empty((GROUP, net.depth))
    measured = shape_layers(net.depth)
    for number, state in chain.backwards():
        layer = net.layers[number]
        if state.slopes is not None:
            delta *= state.slopes
        # Deep gradients leave the range of floats: their scale is carried apart.
        gram_delta = gram(delta)
        scale = np.sqrt(np.trace(gram_delta, axis1=1, axis2=2) / delta[0].size)
        scale = np.where(scale > 0, scale, 1.0)
        delta = delta / scale[:, None, None].astype(DTYPE)
        gram_delta = gram_delta / (scale**2)[:, None, None]
        log_scale += np.log(scale)
        shift = log_scale + state.log_scale + np.log(layer.weight_std)
        h = state.inputs
        if number in measured:
            own = factor_statistics(delta, h, layer.law, gram_delta, state.gram)
            log_rms[:, number] = own[0] + shift
            shapes[:, number] = own[1] - own[0][:, None]
            dead[:, number] = own[2]
        else:
            log_rms[:, number] = 0.5 * np.log(mean_square(delta, h, gram_delta, state.gram)) + shift
        if number:
            std, log_std = _deviation(layer)
            root = covariance_root(gram_delta, JITTER).swapaxes(-1, -2) * std
            normals = chain.normals((GROUP, layer.fan_in + batch.size, batch.size))
            delta = _back(normals @ root.astype(DTYPE), delta, h, state.gram, state.products)
            log_scale += log_std
    nearest = measured[np.abs(np.arange(net.depth)[:, None] - measured).argmin(axis=1)]
    return log_rms, log_rms[..., None] + shapes[:, nearest], dead[:, nearest]


@dataclass(frozen=True)
class _LayerState:
    """What a layer's backward pass needs of the forward pass, in G networks.

    Attributes:
        inputs: h, (G, N_in, B), up to each network's factor exp(log_scale), (G,).
        gram: hᵀh, (G, B, B).
        products: W h, (G, N_out, B), up to the same factor.
        slopes: φ' behind the layer, (G, N_out, B); None behind the last.
    """

    inputs: Array
    log_scale: Array
    gram: Array
    products: Array
    slopes: Array | None


@dataclass(frozen=True)
class _Start:
    """Where a stretch of layers begins: its inputs, their scale and the state of the random numbers."""

    inputs: Array
    log_scale: Array
    random_state: Mapping[str, Any]


class _Chain:
    """A group of networks in their forward pass, and what the backward pass needs of it.

    Of a deep chain all but the last stretch of layers is computed anew in the backward pass, from the random
    numbers that it had, so that memory goes with the root of the depth at most.
    """

    def __init__(self, net: Architecture, batch: DataSummary, rng: np.random.Generator) -> None:
        self._net, self._rng, self._batch = net, rng, batch
        self._scale_free = _is_scale_free(net)
        widest = max(layer.fan_in + 2 * layer.fan_out for layer in net.layers)
        most = HELD_BYTES // (GROUP * batch.size * widest * np.dtype(DTYPE).itemsize)
        self._stretch = max(most, math.isqrt(net.depth) + 1)
        self._starts: dict[int, _Start] = {}
        self._last: list[_LayerState] = []

    def normals(self, shape: tuple[int, ...]) -> Array:
        """The next standard normals of the group."""
        return self._rng.standard_normal(shape, dtype=DTYPE)

    def forwards(self) -> tuple[Array, Array]:
        """The logits (G, classes, B) up to exp of the second, (G,)."""
        exponent = math.frexp(float(np.abs(self._batch.inputs).max()))[1]
        exponent = 0 if abs(exponent) <= _PLAIN else exponent
        inputs = inputs_in_unit(self._batch.inputs, exponent).T.astype(DTYPE)
        h: Array = np.broadcast_to(inputs, (GROUP, *inputs.shape))
        y, log_scale = h, np.full(GROUP, exponent * math.log(2.0))
        for number in range(self._net.depth):
            if number % self._stretch == 0:
                self._starts[number] = _Start(h, log_scale, self._rng.bit_generator.state)
                self._last = []
            state, y, h, log_scale = self._step(number, h, log_scale, self._rng)
            self._last.append(state)
        return y, log_scale

    def backwards(self) -> Iterator[tuple[int, _LayerState]]:
        """The layers' positions and states, last to first."""
        last = max(self._starts)
        for first in sorted(self._starts, reverse=True):
            states = self._last if first == last else self._again(first)
            while states:
                yield first + len(states) - 1, states.pop()

    def _again(self, first: int) -> list[_LayerState]:
        start = self._starts[first]
        rng = np.random.default_rng()
        rng.bit_generator.state = start.random_state
        h, log_scale, states = start.inputs, start.log_scale, []
        for number in range(first, first + self._stretch):
            state, _, h, log_scale = self._step(number, h, log_scale, rng)
            states.append(state)
        return states

    def _step(
        self, number: int, h: Array, log_scale: Array, rng: np.random.Generator
    ) -> tuple[_LayerState, Array, Array, Array]:
        """The layer's state, its pre-activations, its outputs, and the logarithm of both's scale."""
        layer = self._net.layers[number]
        if self._scale_free:
            # Without biases a homogeneous network's signal may leave the range of floats; its scale is
            # carried.
            size = np.sqrt(np.mean(h**2, axis=(1, 2)))
            size = np.where(size > 0, size, 1.0)
            h = h / size[:, None, None]
            log_scale = np.log(size) + log_scale
        own = gram(h)
        std, log_std = _deviation(layer)
        root = covariance_root(own, JITTER).swapaxes(-1, -2) * std
        normals = rng.standard_normal((GROUP, layer.fan_out, self._batch.size), dtype=DTYPE)
        products = normals @ root.astype(DTYPE)
        biases = rng.standard_normal((GROUP, layer.fan_out, 1), dtype=DTYPE)
        y, scale = _add_biases(products, log_scale + log_std, layer.sigma_b, biases)
        act = layer.activation
        if act is None:
            return _LayerState(h, log_scale, own, products, None), y, y, scale
        if self._scale_free or not (scale.any() or _out_of_range(y).any()):
            outputs, slopes = act(y).astype(DTYPE, copy=False), slope_table(act)(y)
        else:
            outputs, slopes, scale = _activate_far(act, layer.name, y, scale)
        return _LayerState(h, log_scale, own, products, slopes), y, outputs, scale


def _deviation(layer: WeightLayer) -> tuple[float, float]:
    """Standard deviation of a weight, and the logarithm of a factor left out of it for single precision."""
    std = layer.weight_std
    return (std, 0.0) if abs(math.frexp(std)[1]) <= _PLAIN else (1.0, math.log(std))


def _add_biases(products: Array, log_scale: Array, sigma_b: float, normals: Array) -> tuple[Array, Array]:
    """W h + b up to exp of the second, from W h up to exp(log_scale), (G,), and standard normals."""
    if sigma_b == 0.0 or (not log_scale.any() and sigma_b > 1e-30):
        return products + DTYPE(sigma_b) * normals, log_scale
    # A unit in which neither overflows.
    unit = np.where(log_scale < 0, np.maximum(log_scale, min(math.log(sigma_b), 0.0)), log_scale)
    signal = products * np.exp(log_scale - unit)[:, None, None].astype(DTYPE)
    size = np.exp(math.log(sigma_b) - unit).astype(DTYPE)
    return signal + size[:, None, None] * normals, unit


def _out_of_range(y: Array) -> Array:
    """Of which networks a signal, if any, has no ordinary squares, (G,)."""
    size = np.sqrt(np.mean(y**2, axis=(1, 2)))
    return (size != 0.0) & ~((_ORDINARY[0] < size) & (size < _ORDINARY[1]))


def _activate_far(act: Activation, name: str, y: Array, log_scale: Array) -> tuple[Array, Array, Array]:
    """φ and φ' of y · exp(log_scale), and the logarithm of the outputs' scale; network by network."""
    outputs, slopes, scale = np.empty_like(y), np.empty_like(y), np.zeros(len(y))
    for index, (values, log) in enumerate(zip(y.astype(float), log_scale, strict=True)):
        size = math.sqrt(float(np.mean(values**2)))
        total = math.log(size) + log if size > 0 else 0.0
        found = limit(act, large=total > 0) if abs(total) > _FAR else None
        if found is None:
            if total > _HELD:
                raise ModelError(
                    f"the signal at layer {name} exceeds exp({_HELD:g}), where {act.name} is not a line: "
                    "use a smaller sigma_w or depth"
                )
            found, values, log = act, values * math.exp(min(log, _HELD)), 0.0
        one = found(values)
        slopes[index] = found.derivative(1)(values)
        size = math.sqrt(float(np.mean(one**2)))
        if size != 0.0 and not _ORDINARY[0] < size < _ORDINARY[1]:
            one, log = one / size, log + math.log(size)
        outputs[index], scale[index] = one, log
    return outputs, slopes, scale


def _is_scale_free(net: Architecture) -> bool:
    """Whether scaling the input scales every layer's output: no biases, homogeneous activations."""
    return all(
        layer.sigma_b == 0 and (layer.activation is None or layer.activation.is_homogeneous)
        for layer in net.layers
    )


def _back(fresh: Array, delta: Array, h: Array, gram_h: Array, u: Array) -> Array:
    """Wᵀδ given W h + noise = u: the part that u fixes, and the part of W̃ᵀδ orthogonal to h.

    `fresh` is W̃ᵀδ, shape (G, N_in, B), followed by B rows of the same law. Those stand for the noise of
    variance `ridge` that the forward pass adds to keep Cholesky's method going where inputs have become
    equal: with them the law is exact for the network with that noise (Matheron's rule), and no variance is
    lost over the layers.
    """
    fan_in = h.shape[-2]
    own, noise = fresh[:, :fan_in], fresh[:, fan_in:]
    ridge = _ridge(gram_h)
    regular = gram_h + ridge * np.eye(gram_h.shape[-1])
    known = u.swapaxes(-1, -2) @ delta - h.swapaxes(-1, -2) @ own - np.sqrt(ridge) * noise
    return own + h @ np.linalg.solve(regular, known).astype(DTYPE)


def _ridge(gram_h: Array) -> Array:
    """The jitter that `covariance_root` adds to the Gram matrix, shape (G, 1, 1)."""
    trace = np.trace(gram_h, axis1=-2, axis2=-1)[..., None, None]
    return np.maximum(JITTER * trace / gram_h.shape[-1], np.finfo(DTYPE).tiny)
