"""The largest of n scores: what carries the bounds on s_cr, for independent scores and for SNIP's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import erf, k0

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series

Array = np.ndarray
#: Numbers of scores in a layer.
SIZES = (10, 100, 1_000, 10_000, 100_000)
#: Units of a layer whose N² scores W δ h share their factors.
WIDTHS = (10, 30, 100, 300)


def normal_bound(n: int) -> float:
    """E[max |Z_i|] ≤ √(2 log 2n), for n normal numbers, independent or not."""
    return float(np.sqrt(2.0 * np.log(2.0 * n)))


def product_bound(n: int) -> float:
    """E[max |X_i Y_i|] ≤ inf_λ log(n · 2/√(1−λ²))/λ, 0 < λ < 1, for n products of normals, dependent or not.

    By Jensen's inequality and a sum in place of the maximum: exp(λ E max) ≤ E[exp(λ max)] ≤ n E[exp(λ|XY|)],
    and E[exp(λ|XY|)] ≤ 2 E[exp(λXY)] = 2/√(1−λ²).
    """

    def bound(rate: float) -> float:
        return float((np.log(2.0 * n) - 0.5 * np.log1p(-(rate**2))) / rate)

    return float(minimize_scalar(bound, bounds=(1e-6, 1.0 - 1e-9), method="bounded").fun)  # type: ignore[attr-defined]


def expected_largest(distribution: Callable[[Array], Array], n: int, top: float) -> float:
    """E of the largest of n independent numbers in [0, top] with that distribution function."""
    x = np.linspace(0.0, top, 200_001)
    return float(np.trapezoid(1.0 - distribution(x) ** n, x))


def product_distribution(x: Array) -> Array:
    """P(|XY| ≤ x) of independent standard normals: the density is (2/π) K₀."""
    grid = np.concatenate([[0.0], np.geomspace(1e-12, 60.0, 20_000)])
    density = np.concatenate([[0.0], 2.0 / np.pi * k0(grid[1:])])
    # K₀ goes with −log x at 0: its integral to the first point is x(1 − log(x/2) − γ).
    first = 2.0 / np.pi * grid[1] * (1.0 - np.log(grid[1] / 2.0) - np.euler_gamma)
    steps = np.diff(grid[1:]) * 0.5 * (density[1:-1] + density[2:])
    whole = np.concatenate([[0.0, first], first + np.cumsum(steps)])
    return np.interp(x, grid, whole / whole[-1])


def shared_largest(width: int, networks: int, seed: int) -> tuple[Array, Array]:
    """The largest |W δ h| of width² scores, (networks,): rows and columns share δ and h, or none do."""
    rng = np.random.default_rng([seed, width])
    shared, apart = np.empty(networks), np.empty(networks)
    for index in range(networks):
        w = np.abs(rng.standard_normal((width, width)))
        delta, h = np.abs(rng.standard_normal((2, width)))
        shared[index] = (w * delta[:, None] * h).max()
        apart[index] = np.abs(rng.standard_normal((3, width * width))).prod(axis=0).max()
    return shared, apart


def number_above(width: int, networks: int, seed: int) -> Array:
    """Scores of one layer above the largest of another one's, both with shared factors, (networks,).

    Of independent scores, n in each layer, it is n/(n + 1) in the mean.
    """
    rng = np.random.default_rng([seed, width, 1])
    found = np.empty(networks)
    for index in range(networks):
        layers = []
        for _ in range(2):
            delta, h = np.abs(rng.standard_normal((2, width)))
            layers.append(np.abs(rng.standard_normal((width, width))) * delta[:, None] * h)
        found[index] = (layers[0] > layers[1].max()).sum()
    return found


def _picture(table: dict[str, Array]) -> Picture:
    return Picture(
        "Mean of the largest of n scores: exact (lines) and bounds (dashed).",
        "n",
        "E max",
        tuple(
            one
            for colour, (name, rows) in enumerate(table.items())
            for one in (
                Series(name, SIZES, rows[:, 0], colour=colour),
                Series(f"{name}, bound", SIZES, rows[:, 1], dashed=True, colour=colour),
            )
        ),
        log_x=True,
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    scores = 3_000_000 if quick else 30_000_000
    evidence: list[Evidence] = []
    kinds = {
        "|Z|": (lambda x: erf(x / np.sqrt(2.0)), normal_bound),
        "|XY|": (product_distribution, product_bound),
    }
    table: dict[str, Array] = {}
    for name, (distribution, bound) in kinds.items():
        rows = [(expected_largest(distribution, n, 60.0), bound(n)) for n in SIZES]
        table[name] = np.array(rows)
        for n, (exact, limit) in zip(SIZES, rows, strict=True):
            evidence.append(Evidence(f"E of the largest of {n:,} {name}", f"≤ {limit:.4g}", exact))
    kernel = quad(lambda x: 2.0 / np.pi * k0(x), 0.0, 3.0)[0]
    evidence.append(
        Evidence("P(|XY| ≤ 3), table beside quadrature", kernel, float(product_distribution(np.array(3.0))))
    )
    shared_ratio, above, clear = [], [], []
    for width in WIDTHS:
        count = min(4_000, scores // width**2)
        shared, apart = shared_largest(width, count, 0)
        (mean, error), (other, other_error) = mean_and_error(shared), mean_and_error(apart)
        what = f"E of the largest of {width}² scores |W δ h|"
        evidence.append(Evidence(f"{what}, independent", None, other, other_error))
        evidence.append(Evidence(f"{what}, δ and h shared in rows and columns", other, mean, error))
        shared_ratio.append(mean / other)
        number, error = mean_and_error(number_above(width, count, 0))
        evidence.append(Evidence("    scores of another such layer above it, mean", 1.0, number, error))
        above.append(number)
        clear.append((number - 1.0) / error)
    exact = all((rows[:, 0] <= rows[:, 1]).all() for rows in table.values())
    ratios = {name: rows[:, 1] / rows[:, 0] for name, rows in table.items()}
    tight = max(float(r[-1]) for r in ratios.values()) < 1.5
    same = abs(evidence[2 * len(SIZES)].found - kernel) < 1e-4  # type: ignore[operator]
    verdict = Verdict.FAILS
    if exact and tight and same:
        verdict = Verdict.REFINED if max(clear) > 4.0 else Verdict.HOLDS
    conclusion = (
        f"√(2 log 2n) for |Z| lies {ratios['|Z|'][-1] - 1:.0%} above the exact mean at n = {SIZES[-1]:,}, "
        f"the bound for |XY| {ratios['|XY|'][-1] - 1:.0%}; neither asks for independence. Of independent "
        "scores, n in each of two layers, one of the one layer lies above the largest of the other in the "
        f"mean. N² scores that share 2N factors have a largest of {min(shared_ratio):.2f} to "
        f"{max(shared_ratio):.2f} times the independent ones', but {min(above):.1f} to {max(above):.1f} "
        "scores of another layer lie above it: large ones come in rows and columns. Bounds stay true, since "
        "more left above means a smaller s_cr; predictions of s_cr have to sample the factors."
    )
    picture = _picture(table)
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="extreme-values",
    statement="The largest of n scores of a layer is of the order √(2 log n) for normal scores and log n for "
    "products of two normals, and scores of a layer are as good as independent (Hayou et al. 2021, lemmas in "
    "the appendix, as far as the bounds on s_cr rest on them).",
    method="E of the largest from the exact distribution functions for n = 10 … 100,000 beside bounds by the "
    "exponential moment; products W δ h with δ and h shared in rows and columns, sampled, beside independent "
    "ones.",
    recorded=Verdict.REFINED,
    check=check,
)
