"""Residual networks: score moments of one order in all blocks for every σ_w; what a scale changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

import eoc_theory as eoc
from eoc_theory.activations import Activation
from eoc_theory.layers import (
    AdaptiveAveragePool,
    Convolution,
    Dense,
    Flatten,
    Layer,
    Nonlinearity,
    Shape,
    Sum,
    WeightLayer,
)
from eoc_theory.networks.architecture import Architecture
from eoc_theory.networks.graph import GraphBuilder

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import inner_range, log_score_moments, mean_and_error
from .picture import Picture, Series
from .pruned_networks import Batch

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

    def weight(name: str, inputs: int) -> Dense:
        return Dense(name, WeightLayer(name, inputs, width, sigma_w, 0.0, act))

    build = GraphBuilder(Shape(64))
    build.add(weight("first", 64))
    _blocks(build, blocks, act, scaling, lambda name: weight(name, width))
    build.add(Nonlinearity("act", act))
    build.add(Dense("last", WeightLayer("last", width, 10, sigma_w, 0.0)))
    return Architecture.from_graph(build.build())


def residual_cnn(
    blocks: int,
    channels: int,
    sigma_w: float,
    shape: tuple[int, int, int],
    *,
    scaling: Scaling = "none",
    activation: str = "relu",
) -> Architecture:
    """The same with 3×3 convolutions of periodic boundary, and the mean over positions before the last."""
    act = eoc.activation(activation)

    def weight(name: str, inputs: int) -> Convolution:
        layer = WeightLayer(name, 9 * inputs, channels, sigma_w, 0.0, act, "normal", (3, 3))
        return Convolution(name, layer, (1, 1), ((1, 1), (1, 1)), (1, 1), padding_mode="circular")

    build = GraphBuilder(Shape(shape[0], shape[1:]))
    build.add(weight("first", shape[0]))
    _blocks(build, blocks, act, scaling, lambda name: weight(name, channels))
    build.add(Nonlinearity("act", act))
    build.add(AdaptiveAveragePool("pool", (1, 1)))
    build.add(Flatten("flatten"))
    build.add(Dense("last", WeightLayer("last", channels, 10, sigma_w, 0.0)))
    return Architecture.from_graph(build.build())


def _blocks(
    build: GraphBuilder, blocks: int, act: Activation, scaling: Scaling, weight: Callable[[str], Layer]
) -> None:
    """Adds `blocks` residual blocks after the first weight layer, which is node 1."""
    here = 1
    for block in range(1, blocks + 1):
        name = f"blocks.{block}"
        branch = build.add(weight(name), build.add(Nonlinearity(f"{name}.act", act), here))
        here = build.add(Sum(f"{name}.add", (1.0, FACTORS[scaling](block, blocks))), here, branch)


@dataclass(frozen=True)
class Growth:
    """How log m^l of the residual blocks changes from few blocks to many.

    Attributes:
        blocks: how many they are, (few, many).
        kernels, sampled, error: the change of its mean over blocks, at infinite width and in networks.
        ranges, sampled_ranges: largest over smallest m^l for few and for many blocks; of sampled networks the
            geometric mean.
        moments, networks: log m^l of the many, (L,), and of each network, (networks, L).
    """

    blocks: tuple[int, int]
    kernels: float
    sampled: float
    error: float
    ranges: tuple[float, ...]
    sampled_ranges: tuple[float, ...]
    moments: np.ndarray
    networks: np.ndarray

    def evidence(self, width: int, scaling: Scaling, sigma_w: float) -> tuple[list[Evidence], bool]:
        """Rows of the table, and whether they are what the claim says of this width and scaling."""
        name = f"{scaling}, σ_w = {sigma_w:.3g}"
        few, many = self.blocks
        if scaling == "none":
            claimed, steps = float(np.log1p(sigma_w**2 / 2.0)), float(many - few)
            what, near = f"{name}: d log m/dL from L = {few} to {many}", 0.01
        else:
            claimed, steps = -1.0 if scaling == "stable" else None, float(np.log(many / few))
            what, near = f"{name}: power of L in mean log m", 0.07
        theory, sampled, error = self.kernels / steps, self.sampled / steps, self.error / steps
        rows = [
            Evidence(f"{what}, kernels", claimed, theory),
            Evidence(f"{what}, sampled", claimed, sampled, error),
        ]
        for title, ranges in (("kernels", self.ranges), ("sampled, geometric mean", self.sampled_ranges)):
            bounded = "bounded" if scaling != "decreasing" and title == "kernels" else None
            found = ", ".join(f"{span:.3g}" for span in ranges)
            what = f"{name}: max m^l / min m^l, L = {few}, {many}, {title}"
            rows.append(Evidence(what, bounded, found))
        return rows, claimed is None or (
            abs(theory - claimed) < near
            and abs(sampled - claimed) < 4.0 * error + (2.0 / width if scaling == "none" else 0.1 / steps)
        )


def growth(build: Callable[[int], Architecture], few: int, many: int, networks: int, data: Batch) -> Growth:
    """Kernels and sampled networks of few blocks beside many."""
    middle, ranges, real_ranges, moments, sampled = [], [], [], np.empty(0), np.empty(0)
    real_middle = []
    for blocks in (few, many):
        net = build(blocks)
        batch = net.summarise(data)
        moments = net.propagate(batch).log_moment
        sampled = log_score_moments(net, batch, networks)
        middle.append(float(moments[1:-1].mean()))
        ranges.append(float(np.exp(inner_range(moments))))
        real_ranges.append(float(np.exp(np.mean([inner_range(row) for row in sampled]))))
        real_middle.append(sampled[:, 1:-1].mean(axis=1))
    mean, error = mean_and_error(real_middle[1] - real_middle[0])
    return Growth(
        (few, many), middle[1] - middle[0], mean, error, tuple(ranges), tuple(real_ranges), moments, sampled
    )


def by_block(scaling: Scaling, found: Growth, colour: int) -> list[Series]:
    """log10 m^l less that of the last block."""
    theory, sampled = found.moments, found.networks
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

            def build(blocks: int, sigma_w: float = sigma_w, scaling: Scaling = scaling) -> Architecture:
                return residual_mlp(blocks, WIDTH, sigma_w, scaling=scaling)

            found = growth(build, short, long, networks, data)
            rows, fits = found.evidence(WIDTH, scaling, sigma_w)
            evidence += rows
            good &= fits
            if 1 < sigma_w < 2:
                series += by_block(scaling, found, len(series) // 2)
            spans[scaling] += found.ranges
            sampled_spans[scaling] += found.sampled_ranges
            if scaling != "decreasing":
                # With small σ_w the softmax saturates late: the range comes to its end only at some depth.
                good &= max(found.ranges) < LARGEST_RANGE
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
