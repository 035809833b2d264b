"""Score moments of convolutional networks: χ^{L−l} off the edge of chaos, of one order on it."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import decay, inner_range, log_score_moments, mean_and_error
from .score_moments import moment_series, moments_picture

DEPTH, CHANNELS, INPUTS, MARGIN = 40, 64, 10, 12
SHAPE = (1, 8, 8)
#: Activation, σ_w, σ_b off the edge of chaos.
CASES = (("tanh", 1.0, 0.2), ("tanh", 2.0, 0.2), ("elu", 0.9, 0.2), ("relu", 1.2, 0.2))
DEPTHS = (30, 100, 300)


def network(depth: int, activation: str, init: tuple[float, float] | None = None) -> Architecture:
    """3×3 convolutions with periodic boundary, the mean over positions, a dense layer."""
    return eoc.cnn(
        depth, CHANNELS, activation=activation, input_shape=SHAPE, init="eoc" if init is None else init
    )


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    networks = 8 if quick else 60
    data = eoc.digits(INPUTS)
    evidence: list[Evidence] = []
    off_good, slopes, series = True, [], []
    for name, sigma_w, sigma_b in CASES:
        net = network(DEPTH, name, (sigma_w, sigma_b))
        batch = net.summarise(data)
        log_chi = float(np.log(eoc.MeanField(name, sigma_w, sigma_b).chi()))
        theory = float(decay(net.propagate(batch).log_moment, MARGIN))
        sampled = log_score_moments(net, batch, networks)
        mean, error = mean_and_error(decay(sampled, MARGIN))
        if name == "tanh":
            title = f"{name} ({sigma_w:g}, {sigma_b:g})"
            series += moment_series(title, net.propagate(batch).log_moment, sampled, len(series) // 2)
        what = f"{name} ({sigma_w:g}, {sigma_b:g}): −d log m/dl"
        evidence.append(Evidence(f"{what}, kernels over positions", log_chi, theory))
        evidence.append(Evidence(f"{what}, sampled", log_chi, mean, error))
        # Finite width shifts exponents by something of order 1/channels.
        off_good &= abs(theory - log_chi) < 0.02 and abs(mean - log_chi) < 4 * error + 3 / CHANNELS
        slopes.append(f"{mean:.2f} for log χ = {log_chi:.2f}")
    on_good, spans = True, []
    for name in ("tanh", "relu"):
        found = []
        for depth in DEPTHS:
            net = network(depth, name)
            found.append(inner_range(net.propagate(net.summarise(data)).log_moment))
            what = f"{name} critical: range of log m^l, kernels, L = {depth}"
            evidence.append(Evidence(what, "bounded" if depth > DEPTHS[0] else None, found[-1]))
        net = network(DEPTH, name)
        batch = net.summarise(data)
        sampled = log_score_moments(net, batch, networks)
        if name == "tanh":
            theory = net.propagate(batch).log_moment
            series += moment_series(f"{name} critical", theory, sampled, len(series) // 2)
        mean, error = mean_and_error(decay(sampled, MARGIN))
        evidence.append(Evidence(f"{name} critical: −d log m/dl, sampled, L = {DEPTH}", 0.0, mean, error))
        on_good &= found[2] - found[1] < 0.5 and abs(mean) < 0.15
        spans.append(f"{np.exp(found[2]):.0f} ({name})")
    verdict = Verdict.HOLDS if off_good and on_good else Verdict.FAILS
    conclusion = (
        f"Off the edge of chaos the measured exponents are {', '.join(slopes)}. On it all m^l stay within a "
        f"factor of {' and '.join(spans)} at depth {DEPTHS[2]}, where the range hardly grows any more: Θ(1), "
        "but with a larger constant than in fully connected networks, since the first layers' inputs differ "
        "between positions and the gradient, the mean over positions, does not."
    )
    caption = (
        "Score moments by layer beside that of the last convolution: kernels over positions (lines), sampled "
        "networks (points)."
    )
    return Finding(tuple(evidence), verdict, conclusion, moments_picture(caption, series))


CLAIM = Claim(
    name="score-moments-cnn",
    statement="Convolutional networks: m^l/m^L → χ^{L−l} off the edge of chaos (ill conditioned), and A ≤ "
    "m^l/m^L ≤ B for all l and L on it (Hayou et al. 2021, theorem 1).",
    method=f"Networks of {DEPTH} layers with {CHANNELS} channels, 3×3 kernels and periodic boundary on "
    f"{INPUTS} digits of 8×8, sampled with exact gradients; kernels over all pairs of positions at infinite "
    f"width, at depths {', '.join(map(str, DEPTHS))}.",
    recorded=Verdict.HOLDS,
    check=check,
)
