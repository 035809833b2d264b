"""Fluctuations of the score scale from one initialisation to the next, at finite width.

The forward pass of a batch through Gaussian weights is an exact Markov chain in its kernels: given the
    layer's
inputs h (fan_in × B), the rows of ``u = W h`` are independent N(0, σ_w² hᵀh/fan_in). One layer therefore
costs N·B numbers instead of N². The way back is a chain too once it is conditioned on the way forwards:
knowing ``W h = u`` fixes W on the span of h and leaves it Gaussian on the complement, so

    Wᵀδ = h (hᵀh)⁻¹ uᵀδ + P⊥ W̃ᵀδ,       P⊥ = 1 − h (hᵀh)⁻¹ hᵀ,   W̃ an independent copy.

Dropping the first term and P⊥ is the usual gradient independence, exact at infinite width. At depth
comparable to width it is not: for ReLU networks of width and depth 50 it overstates how far the log m^l of
different layers move against each other by 40 %, while the conditioned chain reproduces it. (Euler's identity
for homogeneous φ, Σ_i δ_i y_i the same in every layer, is one consequence that only this chain keeps.)

A batch of a hundred inputs fluctuates almost as a few of its inputs do, so the chain runs on a small subset
and is used for *differences* from the subset's own infinite-width kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import erf

from .activations import Activation
from .architecture import Architecture, WeightLaw
from .data import DataSummary
from .propagation import Cotangent, covariance_root

Array = np.ndarray

#: Inputs the chain carries: enough for the spread (sampled: within 15 % of that of 100 inputs).
CHAIN_BATCH = 20
#: Networks advanced together; part of the stream of random numbers, so changing it changes results.
GROUP = 16
#: Precision of the chain, and the relative variance of the noise that it adds in every layer.
DTYPE = np.float32
JITTER = 1e-5


#: Grid of log-scores relative to a layer's root mean square gradient, for the quantiles of one network.
_STEP = 0.125
_BINS = 256
#: Tail probabilities P(score > t | score ≠ 0) at which a layer's law is compared between networks.
LEVELS = np.array([0.995, 0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 5e-3, 1e-3, 1e-4])


#: E log|Z| for a standard normal Z: −(γ + log 2)/2.
GAUSSIAN_MEAN_LOG = -0.5 * (np.euler_gamma + np.log(2.0))
#: How far each of LEVELS belongs to the middle of the law, which the number of directions in a gradient
#: moves.
MIDDLE = np.clip((LEVELS - 0.03) / 0.4, 0.0, 1.0)


@dataclass(frozen=True)
class ScaleStatistics:
    """Scale and shape of the scores of each layer, estimated from row and column factors.

    Attributes:
        log_rms: ½ log of the mean of (W g)², shape (…, L).
        quantiles: log-scores exceeded with the probabilities `LEVELS`, shape (…, L, K).
        dead: fraction of weights with g_ij = 0, shape (…, L).
    """

    log_rms: Array
    quantiles: Array
    dead: Array


def factor_statistics(
    delta: Array, h: Array, law: WeightLaw, gram_delta: Array, gram_h: Array
) -> tuple[Array, Array, Array]:
    """log_rms, quantiles, dead of W g: g = δᵀh, Var W = 1, rows δ (G, N_out, B), columns h (G, N_in, B).

    The pairs are not formed: g_ij² ≈ r_i c_j ξ²/m with row factors r_i = δ_i·H δ_i, column factors
    c_j = h_j·Γ h_j and m the mean of g². Where one direction of the batch carries all of g, ξ = 1; where many
    do, ξ is a standard normal and E log|ξ| falls to −(γ + log 2)/2. In between it is taken as that times
    1 − 1/n, n the `participation` of directions; this moves the middle of the law, not its upper tail. All
    serves for differences between networks only. `gram_delta` and `gram_h` are δᵀδ and hᵀh, shape (G, B, B).
    """
    mean = mean_square(delta, h, gram_delta, gram_h)
    rows = ((delta @ gram_h) * delta).sum(axis=-1) / h.shape[-2]
    columns = ((h @ gram_delta) * h).sum(axis=-1) / delta.shape[-2]
    row_histogram, dead_rows = _log_histogram(rows, mean)
    column_histogram, dead_columns = _log_histogram(columns, mean)
    spectrum = np.fft.rfft(row_histogram, 2 * _BINS) * np.fft.rfft(column_histogram, 2 * _BINS)
    density = np.fft.irfft(spectrum * _weight_spectrum(law), 2 * _BINS)
    log_rms = 0.5 * np.log(mean)
    alive = (1.0 - dead_rows) * (1.0 - dead_columns)
    middle = GAUSSIAN_MEAN_LOG * (1.0 - 1.0 / participation(gram_delta, gram_h))
    quantiles = log_rms[:, None] + _quantiles(density) + middle[:, None] * MIDDLE
    return log_rms, quantiles, 1.0 - alive


def participation(gram_delta: Array, gram_h: Array) -> Array:
    """(tr A)²/tr A² for A = δᵀδ hᵀh: how many directions of the batch a gradient sums over; (G,), ≥ 1."""
    product = gram_delta.astype(float) @ gram_h.astype(float)
    square = (product * product.swapaxes(-1, -2)).sum(axis=(-2, -1))
    trace = np.trace(product, axis1=-2, axis2=-1)
    return np.maximum(trace**2 / np.maximum(square, np.finfo(float).tiny), 1.0)


def mean_square(delta: Array, h: Array, gram_delta: Array, gram_h: Array) -> Array:
    """Mean of g² over the pairs, shape (G,)."""
    total = (gram_h * gram_delta).sum(axis=(-2, -1))
    return np.maximum(total / (h.shape[-2] * delta.shape[-2]), np.finfo(float).tiny)


def shape_layers(depth: int) -> Array:
    """Layers whose shape is measured in each network: all near the ends, every fourth between.

    The others take over the shape of the nearest, which fluctuates as much as their own.
    """
    layers = np.arange(depth)
    near_end = np.minimum(layers, depth - 1 - layers) < 6
    return layers[near_end | (layers % 4 == 0)]


def gram(vectors: Array) -> Array:
    """vᵀv over the rows of v, shape (…, N, B) to (…, B, B)."""
    return vectors.swapaxes(-1, -2) @ vectors


def _log_histogram(squares: Array, mean: Array) -> tuple[Array, Array]:
    """Normalised histograms of ½ log(squares/mean) along the last axis, and the fraction that vanishes."""
    groups, count = squares.shape
    ratio = squares / mean[:, None]
    alive = ratio > 1e-10
    logs = 0.5 * np.log(np.where(alive, ratio, 1.0))
    position = np.clip((logs / _STEP).astype(float) + _BINS // 2, 0, _BINS - 2)
    left = position.astype(np.int64)
    weight = position - left
    cell = left + _BINS * np.arange(groups)[:, None]
    size = groups * _BINS
    # Linear sharing between neighbouring bins keeps the mean of every sample exact.
    table = np.bincount(cell.ravel(), (alive * (1.0 - weight)).ravel(), size)
    table += np.bincount(cell.ravel() + 1, (alive * weight).ravel(), size)
    living = alive.sum(axis=1)
    return table.reshape(groups, _BINS) / np.maximum(living, 1)[:, None], 1.0 - living / count


@cache
def _weight_spectrum(law: WeightLaw) -> Array:
    """Spectrum of the histogram of log|W| for Var W = 1, wrapped so that sums stay on the grid."""
    edges = (np.arange(2 * _BINS + 1) - 1.5 * _BINS - 0.5) * _STEP
    size = np.exp(np.minimum(edges, 50.0))
    cdf = erf(size / np.sqrt(2.0)) if law == "normal" else np.minimum(size / np.sqrt(3.0), 1.0)
    # Bin k stands for k − 1.5 BINS steps, rows and columns start at −BINS/2: with this roll the circular
    # convolution of the three has its zero at bin BINS.
    return np.fft.rfft(np.roll(np.diff(cdf), _BINS // 2))


def _quantiles(density: Array) -> Array:
    """Values exceeded with the probabilities LEVELS, from histograms (G, 2·BINS) whose zero is bin BINS."""
    upper_edges = (np.arange(density.shape[-1]) + 0.5 - _BINS) * _STEP
    below = np.cumsum(density, axis=-1)
    # Bins that hold nothing but rounding errors would leave the cumulated sums unsorted.
    np.maximum.accumulate(below, axis=-1, out=below)
    return np.stack([np.interp(1.0 - LEVELS, row, upper_edges) for row in below])


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
        parts = list(pool.map(lambda index: _group(net, batch, top, seed, index), groups))
    joined = [np.concatenate(rows)[:samples] for rows in zip(*parts, strict=True)]
    return ScaleStatistics(*joined)


def _group(
    net: Architecture, batch: DataSummary, top: Cotangent, seed: int, index: int
) -> tuple[Array, Array, Array]:
    """One group of networks forwards and backwards."""
    rng = np.random.default_rng([seed, 0x636861696E, index])
    outputs = [np.broadcast_to(batch.inputs.T.astype(DTYPE), (GROUP, *batch.inputs.T.shape))]
    grams: list[Array] = []
    products: list[Array] = []
    slopes: list[Array] = []
    y = outputs[0]
    scale_free = _is_scale_free(net)
    log_inputs = np.zeros((net.depth, GROUP))
    for number, layer in enumerate(net.layers):
        if scale_free:
            # Without biases a homogeneous network's signal may leave the range of floats; its scale is
            # carried.
            size = np.sqrt(np.mean(outputs[-1] ** 2, axis=(1, 2)))
            size = np.where(size > 0, size, 1.0)
            outputs[-1] = outputs[-1] / size[:, None, None]
            log_inputs[number] = np.log(size) + (log_inputs[number - 1] if number else 0.0)
        grams.append(gram(outputs[-1]))
        root = covariance_root(grams[-1], JITTER).swapaxes(-1, -2) * layer.weight_std
        normals = rng.standard_normal((GROUP, layer.fan_out, batch.size), dtype=DTYPE)
        products.append(normals @ root.astype(DTYPE))
        y = products[-1] + DTYPE(layer.sigma_b) * rng.standard_normal((GROUP, layer.fan_out, 1), dtype=DTYPE)
        if layer.activation is not None:
            outputs.append(layer.activation(y).astype(DTYPE, copy=False))
            slopes.append(slope_table(layer.activation)(y))
    logits = y.astype(float) * np.exp(log_inputs[-1])[:, None, None]
    delta = top.of(logits.swapaxes(-1, -2)).swapaxes(-1, -2).astype(DTYPE)
    log_scale = np.zeros(GROUP)
    log_rms = np.empty((GROUP, net.depth))
    shapes = np.empty((GROUP, net.depth, len(LEVELS)))
    dead = np.empty((GROUP, net.depth))
    measured = shape_layers(net.depth)
    for number in range(net.depth - 1, -1, -1):
        layer = net.layers[number]
        # Deep gradients leave the range of floats: their scale is carried apart.
        gram_delta = gram(delta)
        scale = np.sqrt(np.trace(gram_delta, axis1=1, axis2=2) / delta[0].size)
        scale = np.where(scale > 0, scale, 1.0)
        delta = delta / scale[:, None, None].astype(DTYPE)
        gram_delta = gram_delta / (scale**2)[:, None, None]
        log_scale += np.log(scale)
        shift = log_scale + log_inputs[number] + np.log(layer.weight_std)
        h = outputs[number]
        if number in measured:
            own = factor_statistics(delta, h, layer.law, gram_delta, grams[number])
            log_rms[:, number] = own[0] + shift
            shapes[:, number] = own[1] - own[0][:, None]
            dead[:, number] = own[2]
        else:
            log_rms[:, number] = 0.5 * np.log(mean_square(delta, h, gram_delta, grams[number])) + shift
        if number:
            root = covariance_root(gram_delta, JITTER).swapaxes(-1, -2) * layer.weight_std
            normals = rng.standard_normal((GROUP, layer.fan_in + batch.size, batch.size), dtype=DTYPE)
            delta = _back(normals @ root.astype(DTYPE), delta, h, grams[number], products[number])
            delta *= slopes[number - 1]
    nearest = measured[np.abs(np.arange(net.depth)[:, None] - measured).argmin(axis=1)]
    return log_rms, log_rms[..., None] + shapes[:, nearest], dead[:, nearest]


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


@cache
def slope_table(act: Activation) -> Callable[[Array], Array]:
    """φ' by the nearest of 2¹⁶ points, in single precision: sampling evaluates it millions of times.

    Far out, where the table ends, φ' itself is evaluated.
    """
    reach, size = 16.0 * max(1.0, act.length_scale), 1 << 16
    slope: Callable[[Any], Any] = act.derivative(1)
    step = 2.0 * reach / size
    table = slope((np.arange(size) + 0.5) * step - reach).astype(DTYPE)

    def look_up(y: Array) -> Array:
        if y.size and (y.max() >= reach or y.min() < -reach):
            return slope(y).astype(DTYPE)
        # Rounded before the shift, so that the smallest negative y stay on their side of a kink at 0.
        return table[np.floor(y * DTYPE(1.0 / step)).astype(np.int64) + size // 2]

    return look_up
