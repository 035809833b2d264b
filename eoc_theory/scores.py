"""The law of a criterion's scores inside one layer, on a logarithmic grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import erf, erfc

from .architecture import Architecture, WeightLaw
from .data import DataSummary
from .finite_width import factor_statistics
from .propagation import Propagation, covariance_root

Array = np.ndarray

#: Grid of u = log(score) − log(root mean square score of the layer). Products of Gaussians have P(|x| < ε) ~ ε log 1/ε,
#: so that the lower end holds all but 1e-10 of a law; the upper end lies beyond the largest of 10¹² scores.
STEP = 0.04
GRID = np.arange(-26.0, 8.0, STEP)
#: Rows δ_i and columns h_j drawn for a layer's law.
DRAWS = 512


@dataclass(frozen=True)
class ScoreLaws:
    """Laws of |score| of the layers.

    Attributes:
        log_rms: log of the root mean square score, shape (L,).
        quantiles: log-scores exceeded with the probabilities `LEVELS`, by the row-and-column formula of
            `factor_statistics`, shape (L, K): what sampled networks are compared with.
        nonzero: P(score ≠ 0), shape (L,).
        factor_dead: estimate of 1 − nonzero by the row-and-column formula, shape (L,).
        tail: P(log|score| − log_rms > u | score ≠ 0) for u in GRID, shape (L, U).
        max_cdf: P(every weight of the layer has log|score| − log_rms ≤ u), shape (L, U).
    """

    log_rms: Array
    quantiles: Array
    nonzero: Array
    factor_dead: Array
    tail: Array
    max_cdf: Array


def interpolate_grid(table: Array, u: Array, rows: Array | None = None) -> Array:
    """`table` (L, U) on GRID at u (…, L), constant beyond its ends."""
    position = np.clip((u - GRID[0]) / STEP, 0.0, len(GRID) - 1.000001)
    index = position.astype(np.int64)
    weight = position - index
    rows = np.arange(len(table)) if rows is None else rows
    return table[rows, index] * (1.0 - weight) + table[rows, index + 1] * weight


def law_layers(depth: int) -> Array:
    """Layers where the law's shape is sampled: all near both ends, where it changes fast, few in between."""
    near = np.array([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597])
    chosen = np.concatenate([near, depth - 1 - near, [depth // 2]])
    return np.unique(chosen[(chosen >= 0) & (chosen < depth)])


def snip_laws(net: Architecture, batch: DataSummary, kernels: Propagation, *, seed: int, draws: int = DRAWS) -> ScoreLaws:
    """Laws of |W_ij g_ij|, g_ij = Σ_b δ_ib h_jb, with δ and h drawn from their Gaussian laws.

    W is independent of g (gradient independence); rows δ_i = φ'(y_i) ∘ e_i share a row factor and columns a
    column factor, which the law of the layer's largest score keeps. The same draws serve every layer, so that
    the laws vary smoothly with depth; between the layers of `law_layers` the shapes are interpolated.
    """
    rng = np.random.default_rng([seed, 0x6C617773])
    size = batch.size
    normals = rng.standard_normal((3, draws, size))
    chosen = law_layers(net.depth)
    parts = [_layer_law(net, batch, kernels, int(layer), normals, seed) for layer in chosen]
    tables = [np.stack(rows) for rows in zip(*parts, strict=True)]
    where = np.arange(net.depth)
    quantiles, nonzero, dead, tail, max_cdf = (_interpolate_layers(chosen, table, where) for table in tables)
    log_rms = 0.5 * kernels.log_moment
    return ScoreLaws(log_rms, log_rms[:, None] + quantiles, nonzero, dead, tail, max_cdf)


def _interpolate_layers(chosen: Array, table: Array, where: Array) -> Array:
    """Linear interpolation between the chosen layers along the first axis."""
    if len(chosen) == 1:
        return np.repeat(table, len(where), axis=0)
    right = np.clip(np.searchsorted(chosen, where), 1, len(chosen) - 1)
    weight = (where - chosen[right - 1]) / (chosen[right] - chosen[right - 1])
    weight = weight.reshape(-1, *[1] * (table.ndim - 1))
    return table[right - 1] * (1 - weight) + table[right] * weight


def _layer_law(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, normals: Array, seed: int
) -> tuple[Array, Array, Array, Array, Array]:
    """quantiles, nonzero, factor_dead, tail and max_cdf of one layer, relative to its root mean square score."""
    delta = sample_rows(net, batch, kernels, layer, normals, seed)
    h = sample_columns(net, batch, kernels, layer, normals)
    spec = net.layers[layer]
    (log_rms,), (quantiles,), (dead,) = factor_statistics(delta[None], h[None], spec.law)
    g = np.abs(delta @ h.T)
    alive = g > 1e-14 * np.exp(log_rms)
    # Blocks as large as the layer, each a sample of its rows and columns, for the law of the largest score.
    rows, columns = min(spec.fan_out, len(g)), min(spec.fan_in, g.shape[1])
    logs = np.log(np.where(alive, g, 1.0)) - log_rms
    bins = np.clip(np.rint((logs - GRID[0]) / STEP), 0, len(GRID) - 1).astype(np.int64)
    histogram = np.bincount(bins[alive], minlength=len(GRID)).astype(float)
    nonzero = alive.mean()
    tail = weighted_tail(histogram / max(histogram.sum(), 1.0), spec.law)
    cdfs = []
    for block in range(min(len(g) // rows, g.shape[1] // columns)):
        part = (slice(block * rows, (block + 1) * rows), slice(block * columns, (block + 1) * columns))
        counts = np.bincount(bins[part][alive[part]], minlength=len(GRID)) * (spec.n_weights / (rows * columns))
        cdfs.append(max_cdf(counts, spec.law))
    return quantiles - log_rms, np.float64(nonzero), dead, tail, np.mean(cdfs, axis=0)


def sample_rows(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, normals: Array, seed: int
) -> Array:
    """Draws of δ^l_i over the batch, up to the layer's scale; shape (draws, B)."""
    if layer == net.depth - 1:
        delta = kernels.top.draw(-(-len(normals[0]) // batch.classes), seed + 1)
        return delta.transpose(0, 2, 1).reshape(-1, batch.size)
    y = normals[0] @ covariance_root(kernels.kernels[layer]).T
    e = normals[1] @ covariance_root(kernels.gradient_into(layer, net)).T
    act = net.layers[layer].activation
    assert act is not None
    return act.derivative(1)(y) * e


def sample_columns(net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, normals: Array) -> Array:
    """Draws of h^{l-1}_j over the batch, shape (draws, B); the inputs themselves for the first layer."""
    if layer == 0:
        return batch.inputs.T
    act = net.layers[layer - 1].activation
    assert act is not None
    return act(normals[2] @ covariance_root(kernels.kernels[layer - 1]).T)


def _log_weight_tail(law: WeightLaw) -> Array:
    """P(log|W|/σ > v) on v = −span … span in steps of the grid."""
    v = np.arange(-len(GRID) + 1, len(GRID)) * STEP
    size = np.exp(np.minimum(v, 50.0))
    if law == "normal":
        return erfc(size / np.sqrt(2.0))
    return np.maximum(1.0 - size / np.sqrt(3.0), 0.0)


def weighted_tail(histogram: Array, law: WeightLaw) -> Array:
    """P(log|W|/σ + log|g| > u) for u in GRID, from the histogram of log|g| on GRID and the law of W."""
    tail = fftconvolve(histogram, _log_weight_tail(law))[len(GRID) - 1 : 2 * len(GRID) - 1]
    return np.clip(tail, 0.0, 1.0)


def max_cdf(counts: Array, law: WeightLaw) -> Array:
    """P(max |W g| ≤ e^u) for u in GRID: the product of P(|W| ≤ e^u/|g|) over the weights, exact given g."""
    v = np.arange(-len(GRID) + 1, len(GRID)) * STEP
    size = np.exp(np.minimum(v, 50.0))
    inside = erf(size / np.sqrt(2.0)) if law == "normal" else np.minimum(size / np.sqrt(3.0), 1.0)
    log_inside = np.log(np.maximum(inside, 1e-12))
    total = fftconvolve(counts, log_inside)[len(GRID) - 1 : 2 * len(GRID) - 1]
    return np.exp(np.minimum(total, 0.0))
