"""How fast correlations approach 1 on the edge of chaos."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

import eoc_theory as eoc
from eoc_theory.signals.data import DataSummary

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .networks import forward
from .picture import Picture, Series

#: Activation, σ_b, and the exponent of the law.
CASES = (("tanh", 0.2, 1), ("erf", 0.2, 1), ("elu", 0.2, 1), ("relu", 0.0, 2), ("leaky_relu(0.1)", 0.0, 2))
START = 0.7


def iterated(name: str, sigma_b: float, depth: int) -> tuple[np.ndarray, eoc.CriticalPoint]:
    """1 − c of layers 0 to `depth` at constant variance, and the critical point."""
    point = eoc.edge_of_chaos(name, sigma_b=sigma_b)
    field = eoc.MeanField(name, point.sigma_w, sigma_b)
    return field.iterate_correlation(START, depth, q=point.q), point


def extrapolated_constant(gap: np.ndarray, exponent: int) -> float:
    """lim (1 − c^l) l^exponent, from x_l = (1 − c^l)^(−1/exponent) over the last three octaves.

    x_l is a constant times l plus a term in l^p, log l for smooth φ and p = ½ where φ'' jumps. Aitken's
    extrapolation of the mean increments of octaves removes the second term whatever p is.
    """
    x = gap ** (-1.0 / exponent)
    ends = [(len(gap) - 1) >> k for k in range(4)]
    new, middle, old = ((x[n] - x[m]) / (n - m) for n, m in pairwise(ends))
    step, before = new - middle, middle - old
    return float((new - step**2 / (step - before)) ** -exponent)


def sampled_gap(name: str, sigma_b: float, *, depth: int, width: int, networks: int) -> tuple[float, float]:
    """Mean over sampled networks of 1 − c at the last layer, from START at the first; its standard error."""
    point = eoc.edge_of_chaos(name, sigma_b=sigma_b)
    net = eoc.mlp(
        depth, width, activation=name, in_features=width, out_features=width, init=(point.sigma_w, sigma_b)
    )
    # The first layer turns inputs of variance v and covariance k into σ_b² + σ_w² v and σ_b² + σ_w² k.
    v = (point.q - sigma_b**2) / point.sigma_w**2
    k = (point.q * (1.0 - START) - sigma_b**2) / point.sigma_w**2
    a, b = np.linalg.qr(np.random.default_rng(0).standard_normal((width, 2)))[0].T * np.sqrt(width)
    inputs = np.stack([np.sqrt(v) * a, k / np.sqrt(v) * a + np.sqrt(v - k**2 / v) * b])
    sampled = forward(net, DataSummary(inputs, np.zeros(2, dtype=np.int64), width), networks, seed=2)
    y = sampled.preactivations[-1]
    norms = np.sqrt((y**2).sum(axis=1))
    unit = y / norms[:, None, :]
    # From the difference of the unit vectors, which keeps small gaps.
    gap = 0.5 * ((unit[:, :, 0] - unit[:, :, 1]) ** 2).sum(axis=1)
    return mean_and_error(gap)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    depth = 20_000 if quick else 100_000
    evidence, good, told = [], True, []
    series: list[Series] = []
    for name, sigma_b, exponent in CASES:
        gap, point = iterated(name, sigma_b, depth)
        law = point.convergence
        plain = float(gap[-1] * depth**exponent)
        found = extrapolated_constant(gap, exponent)
        form = "l" if exponent == 1 else "l²"
        evidence.append(Evidence(f"{name}: (1 − c)·{form} at layer {depth:,}", law.constant, plain))
        evidence.append(Evidence(f"{name}: extrapolated from there", law.constant, found))
        good &= law.exponent == exponent and abs(found / law.constant - 1) < 2e-3
        if name in ("tanh", "relu"):
            early = gap[100] * 100**exponent / law.constant
            layers = np.unique(np.geomspace(1, depth, 80).astype(int))
            colour, limit = len(series) // 2, law.constant / layers.astype(float) ** exponent
            series.append(Series(f"{name}: iterated map", layers, gap[layers], colour=colour))
            late = layers >= 10
            series.append(Series(f"{name}: law", layers[late], limit[late], dashed=True, colour=colour))
            told.append(f"{name} {law.constant:.4f} (at layer 100 still {early - 1:+.0%})")
    evidence.append(Evidence("relu: 9π²/2", 4.5 * np.pi**2, eoc.edge_of_chaos("relu").convergence.constant))
    layers, width, networks = 30, 500, 20 if quick else 80
    for name, sigma_b in (("tanh", 0.2), ("relu", 0.0)):
        mean, error = sampled_gap(name, sigma_b, depth=layers, width=width, networks=networks)
        expected = float(iterated(name, sigma_b, layers - 1)[0][-1])
        evidence.append(
            Evidence(f"{name}: 1 − c at layer {layers}, sampled, width {width}", expected, mean, error)
        )
        # Networks of that width differ from infinitely wide ones by about depth/width.
        good &= abs(mean - expected) < 4 * error + expected * layers / width
    conclusion = (
        f"Extrapolated from {depth:,} layers of iterating 1 − c itself, the constants agree to 0.2 %: "
        f"{', '.join(told)}. "
        "The laws are reached slowly, so at practical depths iterate the map instead."
    )
    picture = Picture(
        "How correlations approach 1 on the edge of chaos: like 1/l for tanh, like 1/l² for ReLU.",
        "layer l",
        "1 − c$^l$",
        tuple(series),
        log_x=True,
        log_y=True,
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="convergence-rates",
    statement="On the edge of chaos 1 − c^l ~ β/l with β = 2E[φ'²]/(q E[φ''²]) for smooth φ, and 9π²/(2l²) "
    "for ReLU (Hayou et al. 2019, propositions 3 and 4).",
    method="The correlation map iterated in 1 − c through thousands of layers from c = 0.3, and correlations "
    "in sampled networks of 30 layers of width 500.",
    recorded=Verdict.HOLDS,
    check=check,
)
