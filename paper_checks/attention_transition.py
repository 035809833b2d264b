"""The transition of attention at many tokens, from finite numbers of them."""

from __future__ import annotations

import numpy as np

from eoc_theory.gaussian.softmax_moments import row_moments

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

#: Numbers of tokens, 16 to 4,096.
TOKENS = 2 ** np.arange(4, 13)
OVERLAPS = (0.0, 0.3, 0.6)
#: β beside β_c at which the freezing is read off.
ABOVE = 2.0


def square(tokens: int, beta: float, p: float) -> float:
    """E Σ A² for scores of variance β² log T among tokens of overlap p: what tokens share cancels."""
    return row_moments(tokens, beta * float(np.sqrt(np.log(tokens) * (1.0 - p)))).square


def extrapolated(values: np.ndarray) -> float:
    """The limit at infinite T of values at TOKENS: corrections are 1/log T and log log T/log T."""
    log_t = np.log(TOKENS)
    basis = np.stack([np.ones(len(TOKENS)), 1.0 / log_t, np.log(log_t) / log_t], axis=1)
    return float(np.linalg.lstsq(basis, values, rcond=None)[0][0])


def transition(p: float) -> float:
    """β_c: above it β(1 − E Σ A²) is β_c, since attention returns 1 − β_c/β of what tokens do not share."""
    beta = ABOVE * np.sqrt(2.0 / (1.0 - p))
    return extrapolated(np.array([beta * (1.0 - square(int(t), beta, p)) for t in TOKENS]))


def sampled_square(tokens: int, beta: float, p: float, rows: int) -> tuple[float, float]:
    """The same of sampled rows, from scores of covariance β² log T (p + (1 − p) δ); its standard error."""
    rng = np.random.default_rng([tokens, round(100 * p)])
    values = []
    for _ in range(rows):
        shared, own = rng.standard_normal(), rng.standard_normal(tokens)
        g = beta * np.sqrt(np.log(tokens)) * (np.sqrt(p) * shared + np.sqrt(1.0 - p) * own)
        a = np.exp(g - g.max())
        values.append(float(((a / a.sum()) ** 2).sum()))
    return float(np.mean(values)), float(np.std(values) / np.sqrt(rows))


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    evidence: list[Evidence] = []
    good, found = True, []
    for p in OVERLAPS:
        law, limit = float(np.sqrt(2.0 / (1.0 - p))), transition(p)
        found.append(limit / law - 1.0)
        evidence.append(Evidence(f"p = {p:g}: β_c extrapolated from T = 16 … 4,096", law, limit))
        good &= abs(limit / law - 1.0) < 0.05
        largest = int(TOKENS[-1])
        rows = 500 if quick else 5000
        mean, error = sampled_square(largest, 2.0 * law, p, rows)
        exact = square(largest, 2.0 * law, p)
        evidence.append(Evidence(f"  E Σ A² at T = {largest:,}, β = 2β_c, sampled", exact, mean, error))
        good &= abs(mean - exact) < 4.0 * error
    b = np.linspace(0.05, 3.0, 60)
    below = [square(int(t), 0.5 * float(np.sqrt(2.0)), 0.0) for t in TOKENS]
    evidence.append(
        Evidence("E Σ A² at β = β_c/2: T = 16, 4,096", "to 0", f"{below[0]:.3f}, {below[-1]:.5f}")
    )
    slope = float(np.polyfit(np.log(TOKENS[-3:]), np.log(below[-3:]), 1)[0])
    evidence.append(Evidence("  its power of T between 1,024 and 4,096", -0.5, slope))
    good &= abs(slope + 0.5) < 0.1
    series = [
        Series(f"T = {t:,}", b, np.array([square(int(t), float(x * np.sqrt(2.0)), 0.0) for x in b]), colour=i)
        for i, t in enumerate(TOKENS[[0, 4, 8]])
    ]
    limit = np.maximum(1.0 - 1.0 / b, 0.0)
    series.append(Series("T → ∞", b, limit, dashed=True, colour=3))
    conclusion = (
        f"From at most 4,096 tokens the extrapolated β_c is within {max(map(abs, found)):.1%} of "
        "√(2/(1−p)). The "
        "way there is slow, like log log T/log T: at 4,096 tokens the transition is still smeared out over "
        "the whole range, so that finite T needs its own moments."
    )
    picture = Picture(
        "What attention returns of the part that tokens do not share, p = 0, by β/β_c.",
        "β/β$_c$",
        "E Σ A²",
        tuple(series),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="attention-transition",
    statement="With scores of variance β² log T and token overlap p attention has a transition at "
    "β_c = √(2/(1−p)) as T → ∞: below it all tokens come out alike, above it with q = p + (1−p)(1 − β_c/β) "
    "(Giorlandino & Goldt 2026).",
    method="Exact softmax moments at T = 16 … 4,096, extrapolated in 1/log T and log log T/log T; sampled "
    "rows "
    "of 4,096 scores beside them.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
