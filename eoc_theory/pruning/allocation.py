"""From the laws of the scores to the global threshold and the fraction that each layer keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..criteria.distributions.gradients import ScoreLaws
from ..propagation.scale_statistics import LEVELS, ScaleStatistics
from ..propagation.score_grid import GRID, interpolate_grid

Array = np.ndarray

#: Bisection steps: the threshold to 1e-8 of the span of the scores' logarithms; to 1e-5 where that is wide.
_STEPS = 26
_ACCURACY = 1e-5


@dataclass(frozen=True)
class NetworkLaws:
    """Laws of the log-scores of S networks: one mean law a layer, displaced network by network.

    The law of layer l in network i is the mean law with its quantile u_lk moved to t_ilk, linear in between.

    Attributes:
        tail: P(log-score − log_rms > u | score ≠ 0) of the mean law on GRID, shape (L, U).
        max_cdf: P(largest log-score − log_rms ≤ u) on GRID, shape (L, U).
        u: quantiles of the mean law relative to its log_rms, shape (L, K), increasing.
        t: where they lie in each network, absolute, shape (S, L, K), increasing.
        nonzero: P(score ≠ 0), shape (S, L).
        weights: number of weights, shape (L,).
        largest: largest log-score of each layer in each network, absolute, shape (S, L); None where networks
            were not sampled to the last score.
    """

    tail: Array
    max_cdf: Array
    u: Array
    t: Array
    nonzero: Array
    weights: Array
    largest: Array | None = None

    def locate(self, log_t: Array) -> Array:
        """u of the mean law for thresholds (S, …) in every layer, shape (S, …, L)."""
        extra = log_t.ndim - 1
        target = log_t[..., None]
        t = self.t.reshape(self.t.shape[0], *[1] * extra, *self.t.shape[1:])
        right = np.clip((t < target[..., None]).sum(axis=-1), 1, t.shape[-1] - 1)
        flat = right.reshape(len(self.t), -1, t.shape[-2])
        network = np.arange(len(self.t))[:, None, None]
        layer = np.arange(t.shape[-2])[None, None, :]
        t0, t1 = self.t[network, layer, flat - 1], self.t[network, layer, flat]
        u0, u1 = self.u[layer, flat - 1], self.u[layer, flat]
        goal = np.broadcast_to(target, right.shape).reshape(flat.shape)
        # Beyond the outermost quantiles the law moves as a whole.
        # Quantiles of a layer without scores other than 0 are all the same.
        inside = u0 + (goal - t0) * (u1 - u0) / np.where(t1 > t0, t1 - t0, 1.0)
        result = np.where(goal < t0, u0 + goal - t0, np.where(goal > t1, u1 + goal - t1, inside))
        return result.reshape(right.shape)

    def kept(self, log_t: Array) -> Array:
        """P(score > t) in every layer for thresholds (S, …): shape (S, …, L)."""
        nonzero = self.nonzero.reshape(len(self.nonzero), *[1] * (log_t.ndim - 1), -1)
        return nonzero * interpolate_grid(self.tail, self.locate(log_t))

    def displace(self, u: Array) -> Array:
        """Absolute log-scores of mean-law values u, shapes (S, L)."""
        return _carried(u, np.broadcast_to(self.u, self.t.shape), self.t)

    def undisplace(self, log_score: Array) -> Array:
        """Mean-law values of absolute log-scores, shapes (S, L): what `displace` undoes."""
        return _carried(log_score, self.t, np.broadcast_to(self.u, self.t.shape))

    def undisplaced_maxima(self) -> Array:
        """Mean-law values of each network's largest scores, shape (S, L), where these are known.

        inf for a layer without scores: it is so in its own network, and says nothing of others.
        """
        assert self.largest is not None
        return np.where(self.nonzero == 0, np.inf, self.undisplace(self.largest))


def _carried(x: Array, source: Array, target: Array) -> Array:
    """x (S, L) by the piecewise linear map of knots `source` to `target`, (S, L, K); slope 1 beyond them."""
    right = np.clip((source < x[..., None]).sum(axis=-1), 1, source.shape[-1] - 1)

    def knots(of: Array) -> tuple[Array, Array]:
        left, here = (np.take_along_axis(of, at[..., None], axis=-1)[..., 0] for at in (right - 1, right))
        return left, here

    (x0, x1), (y0, y1) = knots(source), knots(target)
    with np.errstate(invalid="ignore"):
        # Quantiles of a layer of one weight are all the same.
        inside = y0 + (x - x0) * (y1 - y0) / np.where(x1 > x0, x1 - x0, 1.0)
    return np.where(x < x0, y0 + x - x0, np.where(x > x1, y1 + x - x1, inside))


def mean_network(laws: ScoreLaws, weights: Array) -> NetworkLaws:
    """The infinitely wide network alone, as a set of one."""
    u = quantiles_of(laws.tail)
    return NetworkLaws(
        laws.tail, laws.max_cdf, u, (laws.log_rms[:, None] + u)[None], laws.nonzero[None], np.asarray(weights)
    )


def sampled_networks(
    laws: ScoreLaws, base: ScaleStatistics, sampled: ScaleStatistics, weights: Array
) -> NetworkLaws:
    """The mean law displaced as sampled networks differ from the infinitely wide one.

    `base` and `sampled` belong to the chain's subset of the batch, `laws` to the whole batch.
    """
    u = quantiles_of(laws.tail)
    t = laws.log_rms[:, None] + u + (sampled.quantiles - base.quantiles)
    t = np.maximum.accumulate(t, axis=-1) + 1e-9 * np.arange(t.shape[-1])
    # A subset of the inputs leaves more units dead than the whole batch does: only the ratio carries over.
    dead = (1.0 - laws.nonzero) * np.where(base.dead > 0, sampled.dead / np.maximum(base.dead, 1e-300), 1.0)
    return NetworkLaws(laws.tail, laws.max_cdf, u, t, 1.0 - np.clip(dead, 0.0, 1.0), np.asarray(weights))


def quantiles_of(tail: Array) -> Array:
    """u on the grid where each layer's tail passes LEVELS, shape (L, K)."""
    falling = np.minimum.accumulate(tail, axis=1) - 1e-13 * np.arange(tail.shape[1])
    return np.stack([np.interp(-LEVELS, -row, GRID) for row in falling])


def threshold(networks: NetworkLaws, sparsity: Array) -> Array:
    """log t with Σ_l n_l P(score > t) = (1−s) Σ_l n_l, by bisection; −inf where the zeros alone exceed s.

    Shape (S, n_s) for sparsities (n_s,).
    """
    share = networks.weights / networks.weights.sum()
    target = 1.0 - np.asarray(sparsity, dtype=float)
    shape = (len(networks.t), len(target))
    low = np.broadcast_to((networks.t[:, :, 0].min(axis=1) + GRID[0])[:, None], shape)
    high = np.broadcast_to((networks.t[:, :, -1].max(axis=1) + GRID[-1])[:, None], shape)
    span = float((high - low).max())
    for _ in range(max(_STEPS, math.ceil(math.log2(span / _ACCURACY)) if span > 1e3 else 0)):
        middle = 0.5 * (low + high)
        above = networks.kept(middle) @ share
        low = np.where(above > target, middle, low)
        high = np.where(above > target, high, middle)
    # Where even all nonzero scores are fewer than what is to be kept, every one stays and ties decide.
    return np.where((networks.nonzero @ share)[:, None] <= target, -np.inf, 0.5 * (low + high))


def kept_fractions(networks: NetworkLaws, sparsity: Array, log_t: Array) -> Array:
    """Fraction each layer keeps at the thresholds (S, n_s), shape (S, n_s, L).

    Scores that are exactly zero are ties: where the threshold falls among them, every layer keeps the same
    fraction of its zeros, as the measured pruner does.
    """
    share = networks.weights / networks.weights.sum()
    finite = np.isfinite(log_t)
    kept = networks.kept(np.where(finite, log_t, 0.0))
    alive = (networks.nonzero @ share)[:, None]
    missing = 1.0 - np.asarray(sparsity, dtype=float) - alive
    of_zeros = np.clip(missing / np.maximum(1.0 - alive, 1e-300), 0.0, 1.0)
    nonzero = networks.nonzero[:, None]
    return np.where(finite[..., None], kept, nonzero + of_zeros[..., None] * (1.0 - nonzero))
