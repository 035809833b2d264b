"""Residual networks: score moments of one order in all blocks for every σ_w; what a scale changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

import eoc_theory as eoc
from eoc_theory.layers import Dense, Nonlinearity, Shape, Sum, WeightLayer
from eoc_theory.networks.architecture import Architecture
from eoc_theory.networks.graph import GraphBuilder

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import inner_range, log_score_moments, mean_and_error
from .picture import Picture, Series

WIDTH, INPUTS = 100, 20
#: m^l of one order: within this factor, whatever depth and σ_w.
LARGEST_RANGE = 12.0
Scaling = Literal["none", "stable", "decreasing"]

#: What a branch is multiplied by, from the block l = 1, 2, … and the number L of blocks.
FACTORS: dict[Scaling, Callable[[int, int], float]] = {
    "none": lambda block, blocks: 1.0,
    "stable": lambda block, blocks: blocks**-0.5,
    "decreasing": lambda block, blocks: 1.0 / (block**0.5 * float(np.log(block + 1))),
}


def residual_mlp(
    blocks: int, width: int, sigma_w: float, *, scaling: Scaling = "none", activation: str = "relu"
) -> Architecture:
    """y^l = y^{l−1} + c_l W^l φ(y^{l−1}) for `blocks` blocks, a dense layer before and one after them."""
    act = eoc.activation(activation)
    build = GraphBuilder(Shape(64))
    here = build.add(Dense("first", WeightLayer("first", 64, width, sigma_w, 0.0, act)))
    for block in range(1, blocks + 1):
        name = f"blocks.{block}"
        weight = WeightLayer(name, width, width, sigma_w, 0.0, act)
        h = build.add(Nonlinearity(f"{name}.act", act), here)
        branch = build.add(Dense(name, weight), h)
        here = build.add(Sum(f"{name}.add", (1.0, FACTORS[scaling](block, blocks))), here, branch)
    build.add(Nonlinearity("act", act), here)
    build.add(Dense("last", WeightLayer("last", width, 10, sigma_w, 0.0)))
    return Architecture.from_graph(build.build())


def _by_block(scaling: Scaling, theory: np.ndarray, sampled: np.ndarray, colour: int) -> list[Series]:
    """log10 m^l less that of the last block."""
    titles = {"none": "no scale", "stable": "1/√L", "decreasing": "1/(√l log(l + 1))"}
    block = np.arange(1, len(theory) - 1)
    line = (theory[1:-1] - theory[-2]) / np.log(10.0)
    points = ((sampled[:, 1:-1] - sampled[:, -2:-1]) / np.log(10.0)).mean(axis=0)
    some = np.unique(np.geomspace(1, len(block), 14).astype(int)) - 1
    return [
        Series(titles[scaling], block, line, colour=colour),
        Series("", block[some], points[some], points=True, colour=colour),
    ]


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    short, long = (50, 200) if quick else (100, 300)
    networks = 4 if quick else 20
    data = eoc.digits(INPUTS)
    evidence: list[Evidence] = []
    spans: dict[Scaling, list[float]] = {scaling: [] for scaling in FACTORS}
    sampled_spans: dict[Scaling, list[float]] = {scaling: [] for scaling in FACTORS}
    good = True
    series: list[Series] = []
    for scaling in FACTORS:
        for sigma_w in (0.5, float(np.sqrt(2.0)), 2.0):
            middle, ranges, real_middle, real_ranges = {}, {}, {}, {}
            for blocks in (short, long):
                net = residual_mlp(blocks, WIDTH, sigma_w, scaling=scaling)
                batch = net.summarise(data)
                moments = net.propagate(batch).log_moment
                middle[blocks], ranges[blocks] = float(moments[1:-1].mean()), inner_range(moments)
                sampled = log_score_moments(net, batch, networks)
                real_ranges[blocks] = float(np.exp(np.mean([inner_range(row) for row in sampled])))
                real_middle[blocks] = sampled[:, 1:-1].mean(axis=1)
                if blocks == long and 1 < sigma_w < 2:
                    series += _by_block(scaling, moments, sampled, len(series) // 2)
            mean, error = mean_and_error(real_middle[long] - real_middle[short])
            theory = middle[long] - middle[short]
            name = f"{scaling}, σ_w = {sigma_w:.3g}"
            if scaling == "none":
                claimed = float(np.log1p(sigma_w**2 / 2.0))
                steps = long - short
                what = f"{name}: d log m/dL from L = {short} to {long}"
                evidence.append(Evidence(f"{what}, kernels", claimed, theory / steps))
                evidence.append(Evidence(f"{what}, sampled", claimed, mean / steps, error / steps))
                good &= abs(theory / steps - claimed) < 0.005
                good &= abs(mean / steps - claimed) < 4 * error / steps + 2 / WIDTH
            else:
                ratio = float(np.log(long / short))
                claimed = -1.0 if scaling == "stable" else None
                what = f"{name}: power of L in mean log m"
                evidence.append(Evidence(f"{what}, kernels", claimed, theory / ratio))
                evidence.append(Evidence(f"{what}, sampled", claimed, mean / ratio, error / ratio))
                if claimed is not None:
                    good &= abs(theory / ratio - claimed) < 0.05
                    good &= abs(mean - claimed * ratio) < 4 * error + 0.1
            what = f"{name}: max m^l / min m^l, kernels, L = {short}, {long}"
            found = ", ".join(f"{np.exp(ranges[blocks]):.3g}" for blocks in (short, long))
            evidence.append(Evidence(what, None if scaling == "decreasing" else "bounded", found))
            what = f"{name}: the same in sampled networks, geometric mean"
            found = ", ".join(f"{real_ranges[blocks]:.3g}" for blocks in (short, long))
            evidence.append(Evidence(what, None, found))
            sampled_spans[scaling] += real_ranges.values()
            spans[scaling] += [float(np.exp(ranges[blocks])) for blocks in (short, long)]
            if scaling != "decreasing":
                # With small σ_w the softmax saturates late: the range comes to its end only at some depth.
                good &= max(ranges.values()) < np.log(LARGEST_RANGE)
    uneven = min(spans["decreasing"][1::2]) > 1000
    verdict = Verdict.FAILS
    if good:
        verdict = Verdict.REFINED if uneven else Verdict.HOLDS
    conclusion = (
        f"Without a scale m^l grows by (1 + σ_w²/2) per block and stays, at infinite width, within a factor "
        f"of {max(spans['none']):.0f} over all blocks for every σ_w; in one network of width {WIDTH} chance "
        f"moves it by up to {max(sampled_spans['none']):.0f} at {long} blocks. With 1/√L it falls like L^−1 "
        f"and stays within a factor of {max(spans['stable']):.1f} ({max(sampled_spans['stable']):.1f} in one "
        "network): there finite width hardly matters. The authors' decreasing scale 1/(√l log(l+1)) keeps "
        "signals and gradients bounded, but not the moments alike: m^l goes with the square of the block's "
        f"scale, 1/(l log²(l+1)), so that m^1/m^L = {min(spans['decreasing'][1::2]):.0f} to "
        f"{max(spans['decreasing'][1::2]):.0f} at L = {long} and grows like L log² L: by the paper's own "
        "definition it is ill conditioned, if only polynomially."
    )
    picture = Picture(
        f"Score moments by block beside that of the last block, {long} blocks, σ_w = √2: kernels (lines), "
        "sampled networks (points).",
        "block l",
        "log$_{10}$ m$^l$ / m$^L$",
        tuple(series),
        log_x=True,
    )
    return Finding(tuple(evidence), verdict, conclusion, picture)


CLAIM = Claim(
    name="residual-networks",
    statement="ReLU residual networks y^l = y^{l−1} + W^l φ(y^{l−1}) are well conditioned for every σ_w, m^l "
    "= Θ((1+σ_w²/2)^L); Stable ResNets, with 1/√L before W^l, have m^l = Θ(1/L) (Hayou et al. 2021, "
    "section on residual networks). The authors' code has a decreasing scale 1/(√l log(l+1)) beside it.",
    method=f"Kernels at infinite width and sampled networks of width {WIDTH} ({INPUTS} digits) with 50 and "
    "200 blocks (full: 100 and 300), σ_w = 0.5, √2 and 2: growth of log m^l with depth, and largest against "
    "smallest m^l.",
    recorded=Verdict.REFINED,
    check=check,
)
