"""Convolutional residual networks: Θ((1 + σ_w²/2)^L) without a scale, Θ(1/L) with 1/√L."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import inner_range
from .picture import Picture, Series
from .residual_networks import Scaling, by_block, growth, residual_cnn

CHANNELS, INPUTS, SHAPE = 32, 10, (1, 8, 8)
SCALINGS: tuple[Scaling, ...] = ("none", "stable")
#: Blocks at which kernels say whether the range of m^l comes to an end, and how much it may still grow.
FAR, STILL = (200, 400), 1.12


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    short, long = (20, 60) if quick else (50, 200)
    networks = 6 if quick else 30
    data = eoc.digits_images(INPUTS, SHAPE)
    evidence: list[Evidence] = []
    series: list[Series] = []
    spans: dict[Scaling, list[float]] = {scaling: [] for scaling in SCALINGS}
    good = True
    for scaling in SCALINGS:
        for sigma_w in (1.0, float(np.sqrt(2.0))):

            def build(blocks: int, sigma_w: float = sigma_w, scaling: Scaling = scaling) -> Architecture:
                return residual_cnn(blocks, CHANNELS, sigma_w, SHAPE, scaling=scaling)

            found = growth(build, short, long, networks, data)
            rows, fits = found.evidence(CHANNELS, scaling, sigma_w)
            evidence += rows
            far = [
                float(np.exp(inner_range(net.propagate(net.summarise(data)).log_moment)))
                for net in map(build, FAR)
            ]
            what = f"{scaling}, σ_w = {sigma_w:.3g}: max m^l / min m^l, L = {FAR[0]}, {FAR[1]}, kernels"
            evidence.append(Evidence(what, "bounded", ", ".join(f"{span:.3g}" for span in far)))
            good &= fits and far[1] < STILL * far[0]
            spans[scaling] += far
            if sigma_w > 1:
                series += by_block(scaling, found, len(series) // 2)
    conclusion = (
        f"Convolutional residual networks go like fully connected ones: by (1 + σ_w²/2) per block without a "
        f"scale, like L^−1 with 1/√L. m^l stays within a factor of {max(spans['none']):.0f} over all blocks "
        f"without a scale (to which it comes after hundreds of blocks only) and of "
        f"{max(spans['stable']):.1f} with it, a larger constant than in fully connected ones: the first "
        "blocks' signals differ between positions, and the gradient, that of the mean over positions, does "
        "not."
    )
    picture = Picture(
        f"Score moments by block beside that of the last block, {long} convolutional blocks, σ_w = √2: "
        "kernels over positions (lines), sampled networks (points).",
        "block l",
        "log$_{10}$ m$^l$ / m$^L$",
        tuple(series),
        log_x=True,
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="residual-networks-cnn",
    statement="Convolutional ReLU residual networks y^l = y^{l−1} + W^l ∗ φ(y^{l−1}) are well conditioned "
    "for every σ_w, m^l = Θ((1+σ_w²/2)^L); Stable ones, with 1/√L before W^l, have m^l = Θ(1/L) (Hayou et "
    "al. 2021, section on residual networks).",
    method=f"Kernels over pairs of positions at infinite width and sampled networks of {CHANNELS} channels "
    f"({INPUTS} digits of 8×8, 3×3 kernels, periodic boundary, mean over positions) with 20 and 60 blocks "
    "(full: 50 and 200), σ_w = 1 and √2: growth of log m^l with depth; largest against smallest m^l, by "
    "kernels up to 400 blocks.",
    recorded=Verdict.HOLDS,
    check=check,
)
