"""What dropout does to the edge of chaos."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc

from .claim import OWN, Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .picture import Picture, Series

Array = np.ndarray

SIGMA_B = 0.2
#: Layers that a network has run through before it is measured, and those that are.
SETTLE, MEASURED = 20, 12


def sampled(net: eoc.MeanField, width: int, networks: int, *, shared: bool = False) -> Array:
    """Sampled networks, two signals each: (networks, 3) of q, c and the mean log growth of squared gradients.

    Weights and masks are drawn for each layer; the same weights carry the gradient back.
    """
    found, slope = [], net.activation.derivative(1)
    for seed in range(networks):
        rng = np.random.default_rng([seed, width])
        common, own = rng.standard_normal((width, 1)), rng.standard_normal((width, 2))
        y = np.sqrt(net.q_star) * (np.sqrt(0.8) * common + np.sqrt(0.2) * own)
        seen, back = [], []
        for layer in range(SETTLE + MEASURED):
            masks = (rng.random((width, 2)) >= net.dropout) / (1.0 - net.dropout)
            if shared:
                masks[:, 1] = masks[:, 0]
            weights = rng.standard_normal((width, width)) * (net.sigma_w / np.sqrt(width))
            if layer >= SETTLE:
                back.append((weights, slope(y) * masks))
            y = weights @ (net.activation(y) * masks) + net.sigma_b * rng.standard_normal((width, 1))
            square = (y * y).sum(axis=0)
            seen.append([square.mean() / width, y[:, 0] @ y[:, 1] / np.sqrt(square.prod())])
        delta, first = rng.standard_normal((width, 2)), 0.0
        for number, (weights, gate) in enumerate(reversed(back)):
            if number == 1:
                # The first step back starts from a gradient that has not met a mask.
                first = float(np.log(np.mean(delta**2)))
            delta = gate * (weights.T @ delta)
        growth = (float(np.log(np.mean(delta**2))) - first) / (MEASURED - 1)
        found.append([*np.mean(seen[SETTLE:], axis=0), growth])
    return np.array(found)


def longest(point: eoc.CriticalPoint) -> float:
    """The largest ξ_c of any σ_w at the point's σ_b, over that of the point."""
    sigma_w = point.sigma_w * np.geomspace(0.25, 4.0, 400)
    found = eoc.phase_diagram(
        point.activation, sigma_w=sigma_w, sigma_b=[point.sigma_b], dropout=point.dropout
    )
    return float(found.xi_c.max() / point.depth_scale)


def _depth_scales(evidence: list[Evidence]) -> tuple[list[Series], list[str], bool]:
    """Curves of ξ_c over σ_w, its values where χ = 1 in words, and whether all are finite; adds evidence."""
    good = True
    grid = np.linspace(0.3, 4.0, 300)
    series, told = [], []
    for colour, p in enumerate((0.01, 0.05, 0.1, 0.3)):
        found = eoc.phase_diagram("tanh", sigma_w=grid, sigma_b=[SIGMA_B], dropout=p)
        point = eoc.edge_of_chaos("tanh", sigma_b=SIGMA_B, dropout=p)
        good &= bool(np.all(found.c_star < 1.0 - 0.05 * p) and np.all(np.isfinite(found.xi_c)))
        evidence.append(Evidence(f"tanh, p = {p:g}: largest c* over σ_w", "< 1", float(found.c_star.max())))
        evidence.append(Evidence(f"tanh, p = {p:g}: largest ξ_c over σ_w", "finite", float(found.xi_c.max())))
        evidence.append(Evidence(f"tanh, p = {p:g}: ξ_c where χ = 1", None, point.depth_scale))
        told.append(f"{point.depth_scale:.1f} at p = {p:g}")
        label = f"p = {p:g} (point: χ = 1)"
        series += [
            Series(label, grid, found.xi_c[0], colour=colour),
            Series("", [point.sigma_w], [point.depth_scale], points=True, colour=colour),
        ]
    return series, told, good


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    width, networks = (400, 6) if quick else (1000, 16)
    evidence: list[Evidence] = []
    good = True
    for name, sigma_b in (("tanh", SIGMA_B), ("relu", 0.0)):
        for p in (0.1, 0.3):
            point = eoc.edge_of_chaos(name, sigma_b=sigma_b, dropout=p)
            for factor in (1.0, 1.3) if name == "tanh" else (1.0,):
                net = eoc.MeanField(name, factor * point.sigma_w, sigma_b, dropout=p)
                values = sampled(net, width, networks)
                mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(networks)
                what = f"{name}, p = {p:g}, σ_w = {net.sigma_w:.4g}: "
                evidence.append(Evidence(what + "c*", net.c_star, mean[1], error[1]))
                log_chi = round(float(np.log(net.chi())), 12) + 0.0
                evidence.append(
                    Evidence(what + "log growth of squared gradients", log_chi, mean[2], error[2])
                )
                # Networks of this width differ from infinitely wide ones by a few over the width.
                good &= abs(mean[1] - net.c_star) < 4 * error[1] + 5 / width
                good &= abs(mean[2] - log_chi) < 4 * error[2] + 10 / width
    tanh = eoc.edge_of_chaos("tanh", sigma_b=SIGMA_B, dropout=0.1)
    net = eoc.MeanField("tanh", 1.5 * tanh.sigma_w, SIGMA_B, dropout=0.1)
    alike = eoc.MeanField("tanh", net.sigma_w / np.sqrt(0.9), SIGMA_B)
    mean, error = mean_and_error(sampled(net, width, networks, shared=True)[:, 1])
    evidence.append(
        Evidence(
            "tanh, p = 0.1, one mask for both: c*, without dropout at σ_w/√0.9", alike.c_star, mean, error
        )
    )
    good &= abs(mean - alike.c_star) < 4 * error + 5 / width
    series, told, finite = _depth_scales(evidence)
    good &= finite
    ratios = {
        name: longest(eoc.edge_of_chaos(name, sigma_b=SIGMA_B, dropout=0.1))
        for name in ("tanh", "elu", "erf")
    }
    for name, ratio in ratios.items():
        evidence.append(Evidence(f"{name}, p = 0.1: largest ξ_c over that where χ = 1", "≥ 1", ratio))
        good &= 1.0 - 1e-6 <= ratio < 1.2
    relu = eoc.edge_of_chaos("relu", dropout=0.1)
    conclusion = (
        "With a mask of its own each signal ends at c* < 1 for every σ_w. The σ_w that keeps variances and "
        f"gradients, √(1−p) times the critical one, is also close to the one with the longest memory "
        f"(largest ξ_c over that at it: {', '.join(f'{n} {r:.3f}' for n, r in ratios.items())}), but that "
        f"is short: tanh at σ_b = {SIGMA_B} has ξ_c = {', '.join(told)}; ReLU at σ_w² = 2(1−p) has "
        f"{relu.depth_scale:.1f} at p = 0.1. Two signals under one mask keep their phases, at σ_w/√(1−p)."
    )
    picture = Picture(
        "With dropout the depth scale of correlations is finite for every σ_w (tanh, σ_b = 0.2).",
        "σ$_w$",
        "ξ$_c$ in layers",
        tuple(series),
        log_y=True,
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="dropout",
    statement="Beyond the paper, whose networks have no dropout (Hayou et al. 2021): with it there is no "
    "edge of chaos, c* < 1 and ξ_c is finite for every σ_w (Schoenholz et al. 2017, section 5), while "
    "squared gradients are multiplied by χ = σ_w² E[φ'²]/(1−p), which is 1 for ReLU at σ_w² = 2(1−p) "
    "(Pretorius et al. 2018).",
    method=f"Correlations and gradients in tanh and ReLU networks of {SETTLE + MEASURED} layers with sampled "
    "weights and masks, independent and shared; depth scales over σ_w from the theory.",
    recorded=Verdict.HOLDS,
    check=check,
    wording=OWN,
)
