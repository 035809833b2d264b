"""Fluctuations of the score scale from one initialisation to the next, at finite width.

The forward pass of a batch through Gaussian weights is an exact Markov chain in its kernels: given the layer's
inputs h (fan_in × B), the rows of ``u = W h`` are independent N(0, σ_w² hᵀh/fan_in). One layer therefore costs
N·B numbers instead of N². The way back is a chain too once it is conditioned on the way forwards: knowing
``W h = u`` fixes W on the span of h and leaves it Gaussian on the complement, so

    Wᵀδ = h (hᵀh)⁻¹ uᵀδ + P⊥ W̃ᵀδ,       P⊥ = 1 − h (hᵀh)⁻¹ hᵀ,   W̃ an independent copy.

Dropping the first term and P⊥ is the usual gradient independence, exact at infinite width. At depth comparable
to width it is not: for ReLU networks of width and depth 50 it overstates the spread of log m^l by 30 to 40 %,
while the conditioned chain reproduces it (Euler's identity for homogeneous φ, Σ_i δ_i y_i the same in every
layer, is one consequence that only the conditioned chain keeps).

A batch of a hundred inputs fluctuates almost as a few of its inputs do, so the chain runs on a small subset and
is used for *differences* from the subset's own infinite-width kernels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import erf

from .architecture import Architecture, WeightLaw
from .data import DataSummary
from .propagation import Cotangent, covariance_root

Array = np.ndarray

#: Inputs the chain carries: enough for the spread (sampled: within 15 % of that of 100 inputs).
CHAIN_BATCH = 20
#: Networks advanced together; part of the stream of random numbers, so changing it changes results.
GROUP = 8
#: Double precision: deep in the ordered phase the inputs differ by less than single precision resolves.
DTYPE = np.float64
#: Relative ridge of Gram matrices in that precision.
JITTER = 1e-10


#: Grid of log-scores relative to a layer's root mean square gradient, for the quantiles of one network.
_STEP = 0.125
_BINS = 256
#: Tail probabilities P(score > t | score ≠ 0) at which a layer's law is compared between networks.
LEVELS = np.array(
    [0.998, 0.99, 0.97, 0.94, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-4]
)


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


def factor_statistics(delta: Array, h: Array, law: WeightLaw) -> tuple[Array, Array, Array]:
    """log_rms, quantiles and dead of W g, g = δᵀh, for rows δ (G, N_out, B), columns h (G, N_in, B) and Var W = 1.

    The pairs are not formed: g_ij² ≈ r_i c_j / m with row factors r_i = δ_i·H δ_i, column factors
    c_j = h_j·Γ h_j and m the mean of g². This is exact where the inputs are fully correlated, and serves only
    for differences between networks elsewhere.
    """
    gram_h = h.swapaxes(-1, -2) @ h / h.shape[-2]
    gram_d = delta.swapaxes(-1, -2) @ delta / delta.shape[-2]
    mean = np.maximum((gram_h * gram_d).sum(axis=(-2, -1)), np.finfo(delta.dtype).tiny)
    rows, dead_rows = _log_histogram(((delta @ gram_h) * delta).sum(axis=-1), mean)
    columns, dead_columns = _log_histogram(((h @ gram_d) * h).sum(axis=-1), mean)
    spectrum = np.fft.rfft(rows, 2 * _BINS) * np.fft.rfft(columns, 2 * _BINS)
    density = np.fft.irfft(spectrum * _weight_spectrum(law), 2 * _BINS)
    log_rms = 0.5 * np.log(mean.astype(float))
    alive = (1.0 - dead_rows) * (1.0 - dead_columns)
    return log_rms, log_rms[:, None] + _quantiles(density), 1.0 - alive


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
    """Values exceeded with the probabilities LEVELS, from histograms (G, 2·BINS) centred at BINS bins."""
    below = np.cumsum(density, axis=-1)
    result = np.empty((len(density), len(LEVELS)))
    rows = np.arange(len(density))
    for k, level in enumerate(LEVELS):
        index = np.clip((below < 1.0 - level).sum(axis=-1), 1, density.shape[-1] - 1)
        before, after = below[rows, index - 1], below[rows, index]
        part = (1.0 - level - before) / np.maximum(after - before, 1e-300)
        result[:, k] = (index + np.clip(part, 0.0, 1.0) - 0.5 - _BINS) * _STEP
    return result


def sample_scales(
    net: Architecture, batch: DataSummary, top: Cotangent, samples: int, seed: int, *, workers: int = 2
) -> ScaleStatistics:
    """`ScaleStatistics` of every layer in `samples` independent networks: arrays (samples, L), (samples, L, K).

    `batch` is used whole: pass a subset, and what is sent backwards for it. Time is about samples · L · N · B numbers drawn and activated twice.
    The networks advance in groups with a stream of random numbers each, so that the result does not depend on
    `workers`.
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
    size = batch.size
    outputs = [np.broadcast_to(batch.inputs.T.astype(DTYPE), (GROUP, batch.inputs.shape[1], size))]
    products: list[Array] = []
    slopes: list[Array] = []
    y = outputs[0]
    for layer in net.layers:
        h = outputs[-1]
        root = _root(h.swapaxes(-1, -2) @ h) * layer.weight_std
        u = rng.standard_normal((GROUP, layer.fan_out, size), dtype=DTYPE) @ root.swapaxes(-1, -2)
        y = u + layer.sigma_b * rng.standard_normal((GROUP, layer.fan_out, 1), dtype=DTYPE)
        products.append(u)
        if layer.activation is not None:
            outputs.append(np.asarray(layer.activation(y), dtype=DTYPE))
            slopes.append(np.asarray(layer.activation.derivative(1)(y), dtype=DTYPE))
    delta = top.of(y.swapaxes(-1, -2)).swapaxes(-1, -2)
    log_scale = np.zeros(GROUP)
    log_rms = np.empty((GROUP, net.depth))
    quantiles = np.empty((GROUP, net.depth, len(LEVELS)))
    dead = np.empty((GROUP, net.depth))
    for number in range(net.depth - 1, -1, -1):
        layer = net.layers[number]
        h = outputs[number]
        delta, scale = _unit_scale(delta)
        log_scale += np.log(scale)
        shift = log_scale + np.log(layer.weight_std)
        own_rms, own_quantiles, dead[:, number] = factor_statistics(delta, h, layer.law)
        log_rms[:, number] = own_rms + shift
        quantiles[:, number] = own_quantiles + shift[:, None]
        if number:
            delta = _back(rng, layer.weight_std, delta, h, products[number]) * slopes[number - 1]
    return log_rms, quantiles, dead


def _unit_scale(delta: Array) -> tuple[Array, Array]:
    """δ over its root mean square, network by network: deep gradients leave the range of floats."""
    scale = np.sqrt(np.mean(delta.astype(float) ** 2, axis=(-2, -1)))
    scale = np.where(scale > 0, scale, 1.0)
    return (delta / scale[:, None, None]).astype(DTYPE), scale


def _root(gram: Array) -> Array:
    """Cholesky factor of a stack of Gram matrices, safe where inputs have become equal."""
    return covariance_root(gram, jitter=JITTER).astype(DTYPE)


def _back(rng: np.random.Generator, weight_std: float, delta: Array, h: Array, u: Array) -> Array:
    """Wᵀδ given W h = u: the part that u fixes, and a fresh Gaussian part orthogonal to h."""
    transposed = h.swapaxes(-1, -2)
    root = _root(delta.swapaxes(-1, -2) @ delta) * DTYPE(weight_std)
    fresh = rng.standard_normal(h.shape, dtype=DTYPE) @ root.swapaxes(-1, -2)
    gram = transposed @ h
    ridge = JITTER * np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / gram.shape[-1]
    gram = gram + np.maximum(ridge, np.finfo(DTYPE).tiny) * np.eye(gram.shape[-1], dtype=DTYPE)
    known = u.swapaxes(-1, -2) @ delta - transposed @ fresh
    return fresh + h @ np.linalg.solve(gram, known).astype(DTYPE)
