"""The constants of the edge of chaos that the authors' code uses for tanh and ELU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.activations import Activation

from .claim import Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

SIGMA_B = 0.2
#: σ_w and q at σ_b = 0.2 in the code published with Hayou et al. 2021.
PUBLISHED = {"tanh": (1.2981, 0.49), "elu": (1.22459, 1.01)}
#: Normals behind each mean of the Monte-Carlo iteration, anew in each step.
SAMPLES = 500_000
#: Steps after which the iteration has converged for any purpose, and tolerances on |Δq| that end it earlier.
STEPS = 200
TOLERANCES = (0.01, 0.003, 0.002, 0.001)


@dataclass(frozen=True)
class Iterated:
    """Where runs of the Monte-Carlo iteration end.

    Attributes:
        q, sigma_w: shape (runs,). steps: taken by each run, shape (runs,).
    """

    q: np.ndarray
    sigma_w: np.ndarray
    steps: np.ndarray


def iterate(act: Activation, tolerance: float, *, runs: int = 2000, seed: int = 0) -> Iterated:
    """q ← σ_b² + E[φ²]/E[φ'²] from q = 0 until |Δq| < tolerance.

    This is algorithm 1 of Hayou, Doucet & Rousseau 2019. Expectations are means over SAMPLES normals. So many
    samples make a mean normal: it is drawn from its own law, which lets thousands of runs be had.
    """
    z = np.linspace(-9.0, 9.0, 1201)
    weight = np.exp(-0.5 * z**2)
    weight /= weight.sum()
    q = np.concatenate([[0.0], np.geomspace(1e-3, 3.0, 300)])
    y = np.sqrt(q)[:, None] * z
    square, slope = act(y) ** 2, act.derivative(1)(y) ** 2
    a, b = square @ weight, slope @ weight
    var_a, var_b = square**2 @ weight - a**2, slope**2 @ weight - b**2
    cov = (square * slope) @ weight - a * b
    noise = var_a / b**2 + a**2 * var_b / b**4 - 2.0 * a * cov / b**3
    noise = np.sqrt(np.maximum(noise, 0.0) / SAMPLES)
    rng = np.random.default_rng([seed, 0x6D63])
    now, steps, live = np.zeros(runs), np.zeros(runs, dtype=int), np.ones(runs, dtype=bool)
    for _ in range(STEPS):
        drawn = np.interp(now, q, noise) * rng.standard_normal(runs)
        new = np.interp(now, q, SIGMA_B**2 + a / b) + drawn
        stop = np.abs(new - now) < tolerance
        now = np.where(live, new, now)
        steps += live
        live &= ~stop
    scatter = 0.5 * b**-1.5 * np.sqrt(np.maximum(var_b, 0.0) / SAMPLES)
    sigma_w = np.interp(now, q, b**-0.5) + np.interp(now, q, scatter) * rng.standard_normal(runs)
    return Iterated(now, sigma_w, steps)


def exact_point(name: str) -> tuple[float, float]:
    """(σ_w, q) at SIGMA_B by mpmath at 30 digits, from nothing but the definition of φ."""
    import mpmath as mp

    with mp.workdps(30):
        phi = {"tanh": mp.tanh, "elu": lambda y: y if y > 0 else mp.expm1(y)}[name]
        slope = {"tanh": lambda y: mp.sech(y) ** 2, "elu": lambda y: mp.mpf(1) if y > 0 else mp.exp(y)}[name]

        def mean(f: Any, q: Any) -> Any:
            root = mp.sqrt(q)
            return mp.quad(lambda t: f(root * t) ** 2 * mp.npdf(t), [-12, -6, -2, 0, 2, 6, 12])

        def excess(q: Any) -> Any:
            return q - mean(phi, q) / mean(slope, q) - mp.mpf(str(SIGMA_B)) ** 2

        q = mp.findroot(excess, (0.4, 0.6) if name == "tanh" else (1.0, 1.2), solver="anderson", tol=1e-25)
        return float(1 / mp.sqrt(mean(slope, q))), float(q)


def sampled_chi(
    act: Activation, points: list[tuple[float, float]], *, width: int, depth: int, seeds: int, batch: int = 48
) -> np.ndarray:
    """Growth per layer of ‖v‖² of tangents v in sampled networks at each (σ_w, q), shape (seeds, points).

    Each layer's growth is averaged over the weights that come next, E_W ‖W φ'(y)v‖² = σ_w² ‖φ'(y)v‖². Every
    point sees the same normal weights, inputs and tangents, so that differences are sharper than values.
    """
    slope = act.derivative(1)
    growth = np.empty((seeds, depth, len(points)))
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 0x636869])
        start = rng.standard_normal((2, width, batch), dtype=np.float32)
        states = [(np.float32(np.sqrt(q)) * start[0], start[1]) for _, q in points]
        for layer in range(depth):
            W = rng.standard_normal((width, width), dtype=np.float32) / np.float32(np.sqrt(width))
            bias = np.float32(SIGMA_B) * rng.standard_normal((width, 1), dtype=np.float32)
            pairs = [(act(y), slope(y) * v) for y, v in states]
            columns = np.concatenate([part for pair in pairs for part in pair], axis=1)
            moved = W @ columns.astype(np.float32)
            for index, (sigma_w, _) in enumerate(points):
                v = states[index][1]
                size = (pairs[index][1].astype(np.float64) ** 2).sum(axis=0)
                growth[seed, layer, index] = sigma_w**2 * np.mean(
                    size / (v.astype(np.float64) ** 2).sum(axis=0)
                )
                y, v = np.split(
                    np.float32(sigma_w) * moved[:, 2 * index * batch : 2 * (index + 1) * batch], 2, axis=1
                )
                states[index] = (y + bias, v)
    return growth.mean(axis=1)


def _monte_carlo(name: str, act: Activation, evidence: list[Evidence]) -> tuple[float, float]:
    """Mean and standard deviation of σ_w after all steps of the iteration; adds evidence."""
    for tolerance in TOLERANCES:
        run = iterate(act, tolerance)
        evidence.append(
            Evidence(
                f"{name}: Monte Carlo to |Δq| < {tolerance:g}: σ_w, q, steps",
                "{}, {}".format(*PUBLISHED[name]),
                f"{np.median(run.sigma_w):.4f} ± {run.sigma_w.std():.4f}, {np.median(run.q):.3f} ± "
                f"{run.q.std():.3f}, {np.median(run.steps):.0f}",
            )
        )
    full = iterate(act, 0.0).sigma_w
    mean, spread = float(full.mean()), float(full.std())
    what = f"{name}: Monte Carlo, {STEPS} steps: σ_w ± spread"
    evidence.append(Evidence(what, PUBLISHED[name][0], mean, spread))
    return mean, spread


def _slopes(
    name: str, ours: eoc.CriticalPoint, colour: int, distance: float, sampled: np.ndarray, error: np.ndarray
) -> list[Series]:
    """χ − 1 over σ_w less the critical one: as a curve, and sampled there and at a distance from it."""
    reach = np.linspace(-0.012, 0.004, 17)
    slopes = [float(eoc.MeanField(ours.activation, ours.sigma_w + d, SIGMA_B).chi()) - 1 for d in reach]
    places = [0.0, distance]
    return [
        Series(name, reach, slopes, colour=colour),
        Series(f"{name}, sampled", places, sampled, error, points=True, colour=colour),
    ]


def _picture(series: list[Series]) -> Picture:
    return Picture(
        "χ near the edge of chaos, where it is 1, and in sampled networks there (at 0) and at the published "
        "points (to the left).",
        "σ$_w$ − critical σ$_w$",
        "χ − 1",
        tuple(series),
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    evidence: list[Evidence] = []
    wrong, told = True, []
    series: list[Series] = []
    width, depth, seeds = (1000, 16, 8) if quick else (2000, 30, 16)
    for name, (sigma_w, q) in PUBLISHED.items():
        act = eoc.activation(name)
        ours = eoc.edge_of_chaos(act, sigma_b=SIGMA_B)
        exact_w, exact_q = exact_point(name)
        theirs = eoc.MeanField(act, sigma_w, SIGMA_B)
        points = [(ours.sigma_w, ours.q), (sigma_w, theirs.q_star)]
        chi = sampled_chi(act, points, width=width, depth=depth, seeds=seeds)
        mean, error = chi.mean(axis=0), chi.std(axis=0, ddof=1) / np.sqrt(seeds)
        gap = chi[:, 0] - chi[:, 1]
        gap_error = float(gap.std(ddof=1) / np.sqrt(seeds))
        chi_theirs, xi = float(theirs.chi()), theirs.depth_scales.xi_c
        evidence += [
            Evidence(f"{name}: critical σ_w", sigma_w, ours.sigma_w),
            Evidence(f"{name}: critical q", q, ours.q),
            Evidence(
                f"{name}: |ours − mpmath| in σ_w, q",
                None,
                f"{abs(ours.sigma_w - exact_w):.0e}, {abs(ours.q - exact_q):.0e}",
            ),
            Evidence(f"{name}: χ at the published σ_w", 1.0, chi_theirs),
            Evidence(f"{name}: depth scale there, layers", "inf", xi),
            Evidence(f"{name}: sampled χ at our point", 1.0, float(mean[0]), float(error[0])),
            Evidence(f"{name}: sampled χ at the published point", 1.0, float(mean[1]), float(error[1])),
            Evidence(
                f"{name}: sampled difference (ours: {1 - chi_theirs:.6f})", 0.0, float(gap.mean()), gap_error
            ),
        ]
        series += _slopes(name, ours, len(series) // 2, sigma_w - ours.sigma_w, mean - 1, error)
        full, spread = _monte_carlo(name, act, evidence)
        wrong &= (
            abs(ours.sigma_w - exact_w) < 1e-9
            and gap.mean() > 5 * gap_error
            and abs(mean[0] - 1) < 4 * error[0]
        )
        told.append(
            f"{name} {ours.sigma_w:.5f} (q = {ours.q:.5f}), not {sigma_w} (where χ = {chi_theirs:.4f}, "
            f"ξ_c = {xi:.0f} layers; {abs(sigma_w - full) / spread:.0f} standard deviations "
            "from the converged Monte-Carlo iteration)"
        )
    conclusion = (
        f"The edge of chaos at σ_b = {SIGMA_B} is {' and '.join(told)}. The published values are "
        "slightly ordered. They are where the iteration stands if it stops once q changes by less than 0.002 "
        "to 0.003 a step, which would explain both; it matters for networks as deep as those depth scales."
    )
    picture = _picture(series)
    return Finding(tuple(evidence), Verdict.REFINED if wrong else Verdict.HOLDS, conclusion, picture)


CLAIM = Claim(
    name="eoc-constants",
    statement="At σ_b = 0.2 the edge of chaos is σ_w = 1.2981 (q = 0.49) for tanh and 1.22459 (q = 1.01) "
    "for ELU: the constants of the code published with Hayou et al. 2021.",
    method="Our edge of chaos against 30-digit quadrature; growth of tangent vectors through wide sampled "
    "networks at both points (same weights); the iteration q ← σ_b² + E[φ²]/E[φ'²] from q = 0 (Hayou et al. "
    f"2019, algorithm 1) with {SAMPLES:,} Monte-Carlo samples a step, stopped at several "
    "tolerances, 2,000 runs each.",
    recorded=Verdict.REFINED,
    check=check,
    wording="the numbers are those in the authors' published code; the text was not compared",
)
