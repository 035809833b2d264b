"""Rank collapse: how fast tokens become alike, with and without skip connections."""

from __future__ import annotations

import numpy as np

from .claim import ATTENTION, Claim, Evidence, Finding, Verdict
from .picture import Picture, Series
from .transformers import Blocks, sample

TOKENS, SCALE = 16, 2.0
#: Similarities at the input, between which one layer's power is measured.
STARTS = (0.97, 0.99, 0.997, 0.999)


def one_layer(p: float, *, width: int, networks: int) -> tuple[float, float]:
    """log(1 − p) before and after one layer of attention without skip, 1 − p a mean over sampled networks.

    The kernels' corrections are of the order of T/width.
    """
    net = Blocks(width, width // 32, TOKENS, 1, SCALE, 1.0, skip=0.0, activation=None, similarity=p)
    gaps = np.array([sample(net, seed, gradients=False, double=True).gap for seed in range(networks)])
    before, after = np.log(gaps.mean(axis=0))
    return float(before), float(after)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    width, networks = (256, 8) if quick else (512, 20)
    steps = np.array([one_layer(p, width=width, networks=networks) for p in STARTS])
    power = float(np.polyfit(steps[:, 0], steps[:, 1], 1)[0])
    constant = float(np.exp((steps[:, 1] - 3.0 * steps[:, 0])[-1]))
    law = SCALE**2 * (1.0 - 1.0 / TOKENS) / TOKENS
    deep = Blocks(1, 1, TOKENS, 5, SCALE, 1.0, skip=0.0, activation=None).theory()
    changes = np.diff(np.log(deep.gap[:, 0]))
    growth = float(changes[-1] / changes[-2])
    evidence = [
        Evidence("power of 1 − p in one layer without skip, sampled", 3.0, power),
        Evidence(f"1 − p after the layer over (1 − p)³, p = {STARTS[-1]}, sampled", law, constant),
        Evidence("change of log(1 − p) in layer 5 over that in layer 4, kernels", 3.0, growth),
    ]
    good = abs(power - 3.0) < 0.1 and abs(constant / law - 1.0) < 0.15 and abs(growth - 3.0) < 0.05
    series: list[Series] = []
    for colour, (skip, act) in enumerate(((0.0, None), (0.0, "relu"), (1.0, None), (1.0, "relu"))):
        depth = 3 if skip == 0.0 else 16
        net = Blocks(width, width // 32, TOKENS, depth, SCALE, 1.0, "post", skip, act)
        gap = np.log([sample(net, seed, gradients=False, double=True).gap for seed in range(networks)])
        mean, error = np.exp(gap.mean(axis=0)), gap.std(axis=0, ddof=1) / np.sqrt(networks)
        expected = net.theory().gap[:, 0]
        name = f"{'skip' if skip else 'no skip'}, {act or 'no MLP'}"
        blocks = np.arange(depth + 1)
        series.append(Series(name, blocks, expected, colour=colour))
        series.append(Series("", blocks, mean, mean * error, points=True, colour=colour))
        if skip:
            half = depth // 2
            rate = float((np.log(expected)[-1] - np.log(expected)[half]) / (depth - half))
            sampled = (gap[:, -1] - gap[:, half]) / (depth - half)
            slip = float(sampled.std(ddof=1) / np.sqrt(networks))
            evidence.append(
                Evidence(f"{name}: growth of log(1 − p) in a block", rate, float(sampled.mean()), slip)
            )
            good &= abs(sampled.mean() - rate) < 4.0 * slip + 0.1 * abs(rate)
    conclusion = (
        f"A layer of attention without skip connection takes 1 − p to its power {power:.2f} (kernels: 3, "
        "times "
        "(σ_qσ_k)²(1 − 1/T)/T), with an MLP as without: doubly exponential, so that single precision cannot "
        "tell tokens apart after three or four layers. Skip connections in post-LN blocks make that an "
        "exponential decay at the rate the kernels give."
    )
    picture = Picture(
        f"1 − p by block, σ_qσ_k = {SCALE:g}, α = 1: kernels (lines), sampled networks (points).",
        "block",
        "1 − p",
        tuple(series),
        log_y=True,
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="rank-collapse",
    statement="Without skip connections self-attention loses rank doubly exponentially with depth: the part "
    "of the tokens that differs goes with its third power from layer to layer (Dong et al. 2021).",
    method="Plain-torch attention in double precision: 1 − p after a layer for four values before it; decay "
    "through post-LN blocks with skip connections; both against the kernels.",
    recorded=Verdict.HOLDS,
    check=check,
    group=ATTENTION,
)
