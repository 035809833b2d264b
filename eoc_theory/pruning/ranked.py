"""Global ranking of independent scores: kept per layer, its s.d., collapsed layers, critical sparsity.

Given the threshold t, the number of scores of layer l above it is binomial; where rows and columns share
factors it is mixed over a gamma law whose relative variance is `ScoreLaw.clumping` (a negative binomial
number). That exactly K weights are kept is a condition on the sum of these numbers, and is imposed through
their characteristic functions. For random scores this is exact (a multivariate hypergeometric law), for the
others up to O(1/K): t itself is random.
"""

from __future__ import annotations

import numpy as np

from ..criteria.distributions.independent import ScoreLaw

Array = np.ndarray

# Fourier nodes for the law of the number kept: |θ| up to 9 standard deviations of it.
_FOURIER = 161


def allocate(law: ScoreLaw, kept: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation and P(empty) per layer (n_s, L), P(collapse) (n_s,); `kept` are left."""
    kept = np.asarray(kept, dtype=float)
    n = float((law.weights * law.multiplicity).sum())
    inside = (kept > 0) & (kept < n)
    shape = (len(kept), len(law.weights))
    mean = np.where(kept[:, None] >= n, 1.0, 0.0) * np.ones(shape)
    std, empty = np.zeros(shape), 1.0 - mean
    collapse = np.where(kept >= n, 0.0, 1.0)
    if inside.any():
        t = law.threshold(kept[inside])[:, None]
        mean[inside] = law.tail(t)
        std[inside] = spread(law, t)
        empty[inside], collapse[inside] = emptiness(law, t, kept[inside])
    return mean[:, law.kind], std[:, law.kind], empty[:, law.kind], collapse


def spread(law: ScoreLaw, t: Array) -> Array:
    """Standard deviation of the kept fraction to first order in 1/√n, shape (n_s, T); t (n_s, 1).

    At a fixed t a layer's kept fraction fluctuates by the mean over its weights of A − p − g (B − 1), A =
    1{score > t}, p = E A, g = −dp/d log t and B the score over its mean: where the layer's total score is
    conserved, a larger sum means lower scores. The threshold moves so that the number kept stays what it is.
    """
    p, g = law.tail(t), law.pressure(t)
    variance = p * (1.0 - p)
    if law.conserved:
        variance = variance - 2.0 * g * (law.kept_score(t) - p) + g**2 * law.score_variance()
    variance = np.maximum(variance, 0.0) / law.weights
    lever = law.weights * g
    total = (lever * law.multiplicity).sum(axis=-1, keepdims=True)
    total = np.where(total > 0, total, 1.0)
    moved = (law.weights**2 * variance * law.multiplicity).sum(axis=-1, keepdims=True) / total**2
    return np.sqrt(np.maximum(variance * (1.0 - 2.0 * lever / total) + g**2 * moved, 0.0))


def emptiness(law: ScoreLaw, t: Array, kept: Array) -> tuple[Array, Array]:
    """P(a layer of a type is empty), (n_s, T), and P(some layer is), (n_s,); `kept` (n_s,) are left."""
    p, mixing = law.tail(t), law.clumping(t)
    variance = (law.weights * p * (1 - p) + mixing * (law.weights * p) ** 2) @ law.multiplicity
    reach = np.minimum(np.pi, 9.0 / np.sqrt(np.maximum(variance, 1e-12)))
    # Equal steps, one end left out: exact over a full period, and where both ends are negligible.
    theta = reach[:, None] * np.linspace(-1.0, 1.0, _FOURIER, endpoint=False)  # (n_s, Θ)
    log_cf = _log_generating(law.weights, p[:, None], mixing[:, None], np.expm1(1j * theta)[..., None])
    log_zero = _log_generating(law.weights, p, mixing, -1.0)
    whole = log_cf @ law.multiplicity - 1j * kept[:, None] * theta
    at_total = np.maximum(np.real(np.exp(whole)).sum(axis=-1), 1e-300)
    # One layer of the type empty, the others unrestricted; or none of them empty.
    relative = log_zero[:, None] - log_cf
    empty = np.real(np.exp(whole[..., None] + relative)).sum(axis=1) / at_total[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        filled = whole + np.log1p(-np.exp(relative)) @ law.multiplicity
        alive = np.real(np.nan_to_num(np.exp(filled))).sum(axis=-1) / at_total
    return np.clip(empty, 0.0, 1.0), np.clip(1.0 - alive, 0.0, 1.0)


def _log_generating(n: Array, p: Array, mixing: Array, shift: Array | float) -> Array:
    """log E[z^count], z = 1 + shift; count binomial (n, p), negative binomial where mixing > 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        binomial = n * np.log1p(p * shift)
        mixed = -np.log1p(-mixing * n * p * shift) / np.where(mixing > 0, mixing, 1.0)
    return np.where(mixing > 0, mixed, binomial)


def critical_samples(law: ScoreLaw, samples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws of s_cr (samples,) and the index of the layer that goes first (samples,).

    The largest score of each layer is drawn from its law; t* is the smallest of them. What the network keeps
    at t* is drawn layer by layer, given that every other layer still keeps at least one weight.
    """
    grid = law.grid()
    p = law.tail(grid[:, None])  # (G, T)
    mixing = law.clumping(grid[:, None])
    with np.errstate(divide="ignore"):
        # −log P(empty), falling in t, from ∞ to 0.
        exponent = np.log(-np.real(_log_generating(law.weights, p, mixing, -1.0)))
    drawn = np.log(rng.standard_exponential((samples, len(law.kind))))
    top = np.empty_like(drawn)
    for k in range(len(law.weights)):
        of_kind = law.kind == k
        finite = np.isfinite(exponent[:, k])
        top[:, of_kind] = np.interp(-drawn[:, of_kind], -exponent[finite, k], grid[finite])
    weakest = top.argmin(axis=1)
    t = top.min(axis=1)
    left = np.zeros(samples)
    for k in range(len(law.weights)):
        expected = np.exp(np.interp(t, grid, np.log(np.maximum(p[:, k], 1e-300))))
        shared = np.interp(t, grid, mixing[:, k])
        layers = np.flatnonzero(law.kind == k)
        counts = _counts_above_zero(law.weights[k], expected, shared, len(layers), rng)
        counts[weakest[:, None] == layers] = 0
        left += counts.sum(axis=1)
    return 1.0 - left / float((law.weights * law.multiplicity).sum()), weakest


def _counts_above_zero(n: float, p: Array, mixing: Array, layers: int, rng: np.random.Generator) -> Array:
    """Numbers (samples, layers) of scores above the threshold, given none is 0; p, mixing (samples,)."""
    p = np.repeat(p[:, None], layers, axis=1)
    mixing = np.repeat(mixing[:, None], layers, axis=1)
    counts = np.zeros(p.shape)
    todo = np.ones(p.shape, dtype=bool)
    for _ in range(60):
        q, v = p[todo], mixing[todo]
        if (v > 0).any():
            rate = n * q * rng.standard_gamma(1.0 / np.maximum(v, 1e-9)) * np.maximum(v, 1e-9)
            counts[todo] = np.minimum(rng.poisson(rate), n)
        else:
            counts[todo] = rng.binomial(int(n), q)
        todo = counts == 0
        if not todo.any():
            return counts
    counts[todo] = 1.0  # so improbable to hold any that it holds one
    return counts
