"""ReLU's edge of chaos is one point."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.errors import NoCriticalPointError
from eoc_theory.signals.data import DataSummary

from .claim import Claim, Evidence, Finding, Verdict
from .networks import forward
from .picture import Picture, Series


def has_critical_point(sigma_b: float) -> bool:
    """Whether ReLU has a critical point with that σ_b."""
    try:
        eoc.edge_of_chaos("relu", sigma_b=sigma_b)
    except NoCriticalPointError:
        return False
    return True


def sampled_variances(
    sigma_w: float, sigma_b: float, *, depth: int, width: int, networks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over networks and inputs of the squared pre-activations by layer, and its standard error; (L,)."""
    net = eoc.mlp(
        depth, width, activation="relu", in_features=width, out_features=width, init=(sigma_w, sigma_b)
    )
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4, width))
    inputs *= np.sqrt(width / (inputs**2).sum(axis=1, keepdims=True))
    sampled = forward(net, DataSummary(inputs, np.zeros(4, dtype=np.int64), width), networks, seed=1)
    q = np.array([np.mean(y**2, axis=(1, 2)) for y in sampled.preactivations])
    return q.mean(axis=1), q.std(axis=1, ddof=1) / np.sqrt(networks)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    point = eoc.edge_of_chaos("relu", sigma_b=0.0)
    with_bias = [b for b in (1e-3, 0.1, 0.2, 1.0) if has_critical_point(b)]
    depth, width = 20, 300
    networks = 40 if quick else 200
    evidence = [
        Evidence("critical σ_w at σ_b = 0", float(np.sqrt(2.0)), point.sigma_w),
        Evidence("critical points for σ_b = 0.001, 0.1, 0.2, 1", "none", f"{len(with_bias)} found"),
    ]
    good = abs(point.sigma_w - np.sqrt(2.0)) < 1e-12 and not with_bias
    cases = (
        (np.sqrt(2.0), 0.0, "variance kept"),
        (1.3, 0.0, "variance dies"),
        (1.5, 0.0, "variance explodes"),
        (np.sqrt(2.0), 0.2, "χ = 1, yet the variance grows by σ_b² a layer"),
    )
    layers = np.arange(1, depth + 1)
    series: list[Series] = []
    for colour, (sigma_w, sigma_b, what) in enumerate(cases):
        mean, error = sampled_variances(float(sigma_w), sigma_b, depth=depth, width=width, networks=networks)
        # The first layer sees inputs of mean square 1, every other one half of its q.
        step = sigma_w**2 / 2
        expected = sigma_w**2 * step ** (layers - 1) + sigma_b**2 * np.cumsum(step ** (layers - 1))
        name = f"({sigma_w:.4g}, {sigma_b:g})"
        found = (float(mean[-1]), float(error[-1]))
        evidence.append(Evidence(f"q at layer {depth}, {name}: {what}", float(expected[-1]), *found))
        good &= abs(found[0] - expected[-1]) < 4 * found[1]
        series += [
            Series(name, layers, expected, colour=colour),
            Series("", layers, mean, error, points=True, colour=colour),
        ]
    growing = eoc.MeanField("relu", float(np.sqrt(2.0)), 0.2)
    evidence.append(Evidence("q* at (√2, 0.2)", "inf", growing.q_star))
    evidence.append(Evidence("χ at (√2, 0.2)", 1.0, float(growing.chi(1.0))))
    conclusion = (
        f"(σ_w, σ_b) = ({point.sigma_w:.6f}, 0) is the only point where χ = 1 at a finite variance that "
        "stays. At σ_w = √2 with biases χ is 1 too, but the variance grows by σ_b² in every layer and has no "
        "limit."
    )
    picture = Picture(
        f"Variance through ReLU networks of width {width} at four (σ$_w$, σ$_b$): theory as lines, sampled "
        "networks as points.",
        "layer l",
        "variance q$^l$",
        tuple(series),
        log_y=True,
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="relu-point",
    statement="For ReLU the edge of chaos is the single point (σ_w, σ_b) = (√2, 0) (Hayou et al. 2019; "
    "Hayou et al. 2021, section 2).",
    method="edge_of_chaos with and without biases, and the variance at layer 20 of sampled networks of width "
    "300 at, below, above and beside the point.",
    recorded=Verdict.HOLDS,
    check=check,
)
