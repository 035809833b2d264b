"""The law of a criterion's scores inside one layer, on a logarithmic grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import erf, erfc

from .architecture import Architecture, WeightLaw, WeightLayer
from .data import DataSummary
from .finite_width import factor_statistics, gram
from .propagation import Propagation, covariance_root

Array = np.ndarray

#: Grid of u = log(score) − log(root mean square score of the layer). Products of Gaussians have P(|x| < ε) ~
#: ε log 1/ε, so that the lower end holds all but 1e-10 of a law; the upper end lies beyond the largest of
#: 10¹² scores.
STEP = 0.04
GRID = np.arange(-26.0, 8.0, STEP)
#: Least and largest number of rows δ_i and columns h_j drawn for a layer's law; in between, four layers'
#: worth, so that sampling the law disturbs it less than the network's own finite width does.
DRAWS = (512, 2048)
#: The same where the largest scores matter: several layers' worth of rows and columns.
COLLAPSE_DRAWS = 4096
#: Least side of the tiles of pairs (i, j) that are formed, and how many of them.
TILE, TILES = 256, 16


@dataclass(frozen=True)
class FactorLaws:
    """What sampled networks are compared with: scales by the row-and-column formula of `factor_statistics`.

    Attributes:
        log_rms: log of the root mean square score, shape (L,).
        quantiles: log-scores exceeded with the probabilities `LEVELS`, shape (L, K).
        dead: estimated P(score = 0), shape (L,).
    """

    log_rms: Array
    quantiles: Array
    dead: Array


@dataclass(frozen=True)
class ScoreLaws:
    """Laws of |score| of the layers.

    Attributes:
        log_rms: log of the root mean square score, shape (L,).
        nonzero: P(score ≠ 0), shape (L,).
        tail: P(log|score| − log_rms > u | score ≠ 0) for u in GRID, shape (L, U).
        max_cdf: P(every weight of the layer has log|score| − log_rms ≤ u), shape (L, U).
    """

    log_rms: Array
    nonzero: Array
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
    near = np.array([0, 1, 3, 8, 20, 50, 125, 300, 750])
    chosen = np.concatenate([near, depth - 1 - near])
    return np.unique(chosen[(chosen >= 0) & (chosen < depth)])


def law_draws(net: Architecture) -> int:
    """Number of rows and columns that the laws of `net` are drawn from."""
    width = max((layer.fan_out for layer in net.layers[:-1]), default=1)
    return int(np.clip(4 * width, *DRAWS)) // 2 * 2


def snip_laws(
    net: Architecture, batch: DataSummary, kernels: Propagation, *, seed: int, draws: int | None = None
) -> ScoreLaws:
    """Laws of |W_ij g_ij|, g_ij = Σ_b δ_ib h_jb, with δ and h drawn from their Gaussian laws.

    W is independent of g (gradient independence); rows δ_i = φ'(y_i) ∘ e_i share a row factor and columns a
    column factor, which the law of the layer's largest score keeps. The same draws serve every layer, so that
    the laws vary smoothly with depth; between the layers of `law_layers` the shapes are interpolated.
    """
    factors = _factors(net, batch, kernels, seed, draws)
    tables = [_layer_law(net.layers[layer], delta, h) for layer, delta, h in factors]
    nonzero, tail, max_cdf = _interpolate_layers(net.depth, tables)
    return ScoreLaws(0.5 * kernels.log_moment, nonzero, tail, max_cdf)


def factor_laws(
    net: Architecture, batch: DataSummary, kernels: Propagation, *, seed: int, draws: int | None = None
) -> FactorLaws:
    """`factor_statistics` of infinitely wide layers: `draws` rows and columns from their Gaussian laws."""
    tables = []
    for layer, delta, h in _factors(net, batch, kernels, seed, draws):
        grams = gram(delta[None]), gram(h[None])
        (log_rms,), (quantiles,), (dead,) = factor_statistics(
            delta[None], h[None], net.layers[layer].law, *grams
        )
        tables.append((quantiles - log_rms, dead))
    quantiles, dead = _interpolate_layers(net.depth, tables)
    log_rms = 0.5 * kernels.log_moment
    return FactorLaws(log_rms, log_rms[:, None] + quantiles, dead)


def _factors(
    net: Architecture, batch: DataSummary, kernels: Propagation, seed: int, draws: int | None
) -> Iterator[tuple[int, Array, Array]]:
    """Layer, rows δ_i and columns h_j for the layers of `law_layers`, from one set of normal draws."""
    draws = law_draws(net) if draws is None else draws
    half = np.random.default_rng([seed, 0x6C617773]).standard_normal((3, draws // 2, batch.size))
    # Antithetic rows and columns: with inputs alike, exactly half of the gates φ' and of the units are open.
    normals = np.concatenate([half, -half], axis=1)
    normals[1] = np.random.default_rng([seed, 0x65]).standard_normal((draws, batch.size))
    for layer in law_layers(net.depth):
        delta = sample_rows(net, batch, kernels, int(layer), normals, seed)
        yield int(layer), delta, sample_columns(net, batch, kernels, int(layer), normals)


def _interpolate_layers(depth: int, tables: list[tuple[Array, ...]]) -> list[Array]:
    """Linear interpolation of each quantity between the layers of `law_layers`, along the first axis."""
    chosen, where = law_layers(depth), np.arange(depth)
    right = np.clip(np.searchsorted(chosen, where), 1, max(len(chosen) - 1, 1))
    left = right - 1
    if len(chosen) == 1:
        right = left
    weight = (where - chosen[left]) / np.maximum(chosen[right] - chosen[left], 1)
    columns = [np.stack(rows) for rows in zip(*tables, strict=True)]
    shaped = [weight.reshape(-1, *[1] * (table.ndim - 1)) for table in columns]
    return [t[left] * (1 - w) + t[right] * w for t, w in zip(columns, shaped, strict=True)]


def _layer_law(spec: WeightLayer, delta: Array, h: Array) -> tuple[Array, Array, Array]:
    """nonzero, tail and max_cdf of one layer from draws of its rows and columns.

    Scores are taken relative to the root mean square of the draws, which is that of the layer but for
    sampling: so the noise of the scale drops out.
    """
    gram = (delta.T @ delta / len(delta)) * (h.T @ h / len(h))
    log_rms = 0.5 * np.log(max(float(gram.sum()), np.finfo(float).tiny))
    delta = (delta * np.exp(-log_rms)).astype(np.float32)
    h = h.astype(np.float32)
    rows, columns = (
        max(TILE, min(n, draws)) for n, draws in ((spec.fan_out, len(delta)), (spec.fan_in, len(h)))
    )
    counts, pairs = np.zeros(len(GRID)), 0
    cdfs: list[Array] = []
    for index in range(max(1, min(len(delta) // rows, TILES))):
        g = np.abs(_tile(delta, index, rows) @ _tile(h, index, columns).T)
        living = g > 1e-12
        position = (np.log(np.where(living, g, 1.0)) - GRID[0]) / STEP + 0.5
        bins = np.where(living, np.clip(position, 0, len(GRID) - 1), len(GRID)).astype(np.int64)
        counts += np.bincount(bins.ravel(), minlength=len(GRID) + 1)[:-1]
        pairs += g.size
        cdfs += _largest(spec, bins)
    tail = weighted_tail(counts / max(counts.sum(), 1.0), spec.law)
    return np.asarray(counts.sum() / pairs), tail, np.mean(cdfs, axis=0)


def _tile(vectors: Array, index: int, size: int) -> Array:
    """The index-th run of `size` vectors; from the start again where there are no more (the inputs)."""
    start = index * size if (index + 1) * size <= len(vectors) else 0
    return vectors[start : start + size]


def _largest(spec: WeightLayer, bins: Array) -> list[Array]:
    """P(max |W g| ≤ e^u) for blocks of pairs as large as the layer, or all there are."""
    rows, columns = min(spec.fan_out, len(bins)), min(spec.fan_in, bins.shape[1])
    laws = []
    for index in range(min(len(bins) // rows, TILES)):
        # Blocks have rows of their own, and columns as far as there are any.
        first = (index * columns) % (bins.shape[1] - columns + 1)
        block = bins[index * rows : (index + 1) * rows, first : first + columns]
        counts = np.bincount(block.ravel(), minlength=len(GRID) + 1)[:-1]
        laws.append(max_cdf(counts * (spec.n_weights / block.size), spec.law))
    return laws


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


def sample_columns(
    net: Architecture, batch: DataSummary, kernels: Propagation, layer: int, normals: Array
) -> Array:
    """Draws of h^{l-1}_j over the batch, shape (draws, B); the inputs themselves for the first layer."""
    if layer == 0:
        return batch.inputs.T
    act = net.layers[layer - 1].activation
    assert act is not None
    return act(normals[2] @ covariance_root(kernels.kernels[layer - 1]).T)


@cache
def _weight_tail(law: WeightLaw) -> Array:
    """P(log|W|/σ > v) on v = −span … span in steps of the grid."""
    v = np.arange(-len(GRID) + 1, len(GRID)) * STEP
    size = np.exp(np.minimum(v, 50.0))
    if law == "normal":
        return erfc(size / np.sqrt(2.0))
    return np.maximum(1.0 - size / np.sqrt(3.0), 0.0)


def weighted_tail(histogram: Array, law: WeightLaw) -> Array:
    """P(log|W|/σ + log|g| > u) for u in GRID, from the histogram of log|g| on GRID and the law of W."""
    tail = fftconvolve(histogram, _weight_tail(law))[len(GRID) - 1 : 2 * len(GRID) - 1]
    return np.clip(tail, 0.0, 1.0)


@cache
def _log_inside(law: WeightLaw) -> Array:
    """log P(log|W|/σ ≤ v) on v = −span … span in steps of the grid; bounded below to stay finite."""
    v = np.arange(-len(GRID) + 1, len(GRID)) * STEP
    size = np.exp(np.minimum(v, 50.0))
    inside = erf(size / np.sqrt(2.0)) if law == "normal" else np.minimum(size / np.sqrt(3.0), 1.0)
    return np.log(np.maximum(inside, 1e-12))


def max_cdf(counts: Array, law: WeightLaw) -> Array:
    """P(max |W g| ≤ e^u) for u in GRID: the product of P(|W| ≤ e^u/|g|) over the weights, exact given g."""
    total = fftconvolve(counts, _log_inside(law))[len(GRID) - 1 : 2 * len(GRID) - 1]
    return np.exp(np.minimum(total, 0.0))
