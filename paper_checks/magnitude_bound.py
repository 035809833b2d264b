"""The bound on the critical sparsity of magnitude pruning where one layer has the smallest weights."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, erfinv

from eoc_theory.pruning.paper_bounds import magnitude_bound

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series

#: Layers L, width N, γ = α_l0/α of all other layers.
CASES = (
    (3, 60, 1.5),
    (3, 60, 4.0),
    (3, 60, 10.0),
    (3, 3000, 4.0),
    (10, 60, 2.0),
    (10, 60, 4.0),
    (10, 3000, 10.0),
    (100, 60, 2.0),
    (100, 100, 4.0),
    (100, 3000, 10.0),
)
#: Networks with more weights than this are sampled by the exact law of their largest weights alone.
SAMPLED = 150_000


def sampled_critical_sparsity(alphas: np.ndarray, width: int, networks: int, seed: int) -> np.ndarray:
    """s_cr of networks whose weights are sampled, sorted and removed; L layers of width² weights."""
    rng = np.random.default_rng([seed, width])
    found = np.empty(networks)
    for index in range(networks):
        weights = np.abs(rng.standard_normal((len(alphas), width**2))) / alphas[:, None]
        found[index] = np.mean(weights <= weights.max(axis=1).min())
    return found


def exact_critical_sparsity(alphas: np.ndarray, width: int, networks: int, seed: int) -> np.ndarray:
    """The same from the law of each layer's largest |W|, P(|Z| ≤ t)^n, and the mean that is lost below it."""
    rng = np.random.default_rng([seed, width])
    # P(|Z| ≤ t)^n = u: the largest of n by its quantile.
    uniform = rng.random((networks, len(alphas)))
    largest = np.sqrt(2.0) * erfinv(uniform ** (1.0 / width**2)) / alphas
    threshold = largest.min(axis=1)
    lost = erf(threshold[:, None] * alphas / np.sqrt(2.0))
    lost[np.arange(networks), largest.argmin(axis=1)] = 1.0
    return lost.mean(axis=1)


def picture(depth: int = 3, width: int = 60) -> Picture:
    """Bound, corrected bound and exact mean of s_cr against γ in the network where they differ most."""
    gammas = np.geomspace(1.05, 10.0, 19)
    bounds, means = [], []
    for gamma in gammas:
        alphas = np.ones(depth)
        alphas[depth // 2] = gamma
        bounds.append(magnitude_bound(alphas, np.ones(depth), width))
        means.append(exact_critical_sparsity(alphas, width, 1000, seed=1).mean())
    return Picture(
        f"Mean critical sparsity of {depth} layers of {width} × {width}, and the bounds.",
        "γ",
        "critical sparsity",
        (
            Series("bound as written", gammas, [bound.value for bound in bounds], dashed=True, colour=1),
            Series("with the layer's own weights", gammas, [bound.whole for bound in bounds], colour=2),
            Series("mean s$_{cr}$", gammas, means, points=True, colour=0),
        ),
        log_x=True,
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    evidence: list[Evidence] = []
    violated, kept, tightness, excesses = [], True, [], []
    for depth, width, gamma in CASES:
        alphas = np.ones(depth)
        alphas[depth // 2] = gamma
        bound = magnitude_bound(alphas, np.ones(depth), width)
        real = depth * width**2 <= SAMPLED
        if real:
            values = sampled_critical_sparsity(alphas, width, 40 if quick else 400, seed=0)
        else:
            values = exact_critical_sparsity(alphas, width, 4_000 if quick else 40_000, seed=0)
        mean, error = mean_and_error(values)
        what = f"L = {depth}, N = {width}, γ = {gamma:g}: mean s_cr ({'sampled' if real else 'exact law'})"
        limit = f"≤ {bound.value:.4f} + O({bound.remainder:.4f})"
        evidence.append(Evidence(what, limit, mean, error))
        evidence.append(
            Evidence("    with the collapsed layer's weights", f"≤ {bound.whole:.4f}", mean, error)
        )
        kept &= mean < bound.whole + 4 * error
        tightness.append(bound.whole - mean)
        if mean - 4 * error > bound.value + 3 * bound.remainder:
            violated.append((depth, width, gamma))
            excesses.append((mean - bound.value) / bound.remainder)
    verdict = Verdict.FAILS
    if kept:
        verdict = Verdict.REFINED if violated else Verdict.HOLDS
    conclusion = (
        f"As written the bound is exceeded in {len(violated)} of {len(CASES)} cases, by up to "
        f"{max(excesses, default=0):.0f} times 1/√(LN²), and a larger width makes it worse: it bounds the "
        "share that the other layers lose, and leaves out that the collapsed layer loses its own weights "
        "too, a share w of all (w = 1/L for equal layers). What holds is w + (1 − w) · bound, for every N "
        f"and without remainder; measured values lie {min(tightness):.3f} to {max(tightness):.3f} below it. "
        "With 100 layers and more the difference is no larger than what the bound leaves open anyway."
    )
    return Finding(tuple(evidence), verdict, conclusion, picture())


CLAIM = Claim(
    name="magnitude-bound",
    statement="Magnitude pruning where one layer l0 has the smallest weights, γ = min α_l0/α_l > 1: E[s_cr] "
    "≤ inf_ε { x_{ε,γ} + ζ_l0 N²/(1+γ^{2−ε}) (1−x_{ε,γ})^{1+γ^{2−ε}} } + O(1/√(LN²)) (Hayou et al. 2021, "
    "theorem on MBP).",
    method="s_cr of sampled Gaussian weights, and for wide networks from the exact law of each layer's "
    "largest weight, over depth, width and γ; beside the bound and beside w + (1 − w) · bound, w the share "
    "of the collapsed layer.",
    recorded=Verdict.REFINED,
    check=check,
)
