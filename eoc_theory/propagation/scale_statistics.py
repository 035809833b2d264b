"""Scale and shape of a layer's scores from the row and column factors of its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import erf

from ..networks.architecture import WeightLaw

Array = np.ndarray

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


@lru_cache(maxsize=4)
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
