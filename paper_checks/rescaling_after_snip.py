"""Rescaling where the mask knows the signals: after SNIP."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc

from .claim import Claim, Evidence, Finding, Verdict
from .graph_networks import mean_and_error
from .pruned_networks import Batch, Chain, alignment, gradient_picture, gradient_series, masks_of

DEPTH, WIDTH = 60, 100
TITLES = (
    "pruned",
    "ρ with σ_w",
    "ρ with σ_w, mask shuffled within layers",
    "ρ with σ_w for each row",
    "ρ without σ_w for each row",
    "ρ by the signal",
    "alignment of the mask, log E[r c φ'²]/(E[r] E[c] E[φ'²])",
)
SIGNAL, ALIGNMENT = 5, 6


def networks(name: str, sparsity: float, width: int, seed: int, data: Batch) -> tuple[Chain, list[Chain]]:
    """A critical network, and what `TITLES` say of it but for the last."""
    net = eoc.mlp(DEPTH, width, activation=name)
    act = net.layers[0].activation
    assert act is not None
    model = net.to_torch(seed)
    full = Chain.of_model(model, act)
    masks = masks_of(model, sparsity, "snip", data, seed)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permuted(mask.reshape(-1)).reshape(mask.shape) for mask in masks]
    pruned = full.masked(masks)
    return full, [
        pruned,
        pruned.with_scale_of(full),
        full.masked(shuffled).with_scale_of(full),
        pruned.with_rows_of(net.layers[0].sigma_w),
        pruned.with_rows_of(1.0),
        pruned.with_signal_of(full, data[0]),
    ]


def exponents(name: str, sparsity: float, width: int, seed: int, data: Batch) -> list[float]:
    """What `TITLES` say of one network, in numbers."""
    full, chains = networks(name, sparsity, width, seed, data)
    return [*(chain.gradient_exponent(data) for chain in chains), alignment(full, chains[0], data)]


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 6 if quick else 30
    data = eoc.digits(100)
    evidence: list[Evidence] = []
    means: dict[tuple[str, float], np.ndarray] = {}
    for name in ("tanh", "relu"):
        for sparsity in (0.5, 0.9):
            table = np.array([exponents(name, sparsity, WIDTH, seed, data) for seed in range(seeds)])
            means[name, sparsity] = table.mean(axis=0)
            claimed = ("< 0", 0.0, None, 0.0, 0.0, None, None)
            for column, title in enumerate(TITLES):
                mean, error = mean_and_error(table[:, column])
                what = f"{name}, {sparsity:.0%} removed: {'' if column == ALIGNMENT else 'log χ, '}{title}"
                evidence.append(Evidence(what, claimed[column], mean, error))
    wide = np.array([exponents("relu", 0.9, 3 * WIDTH, seed, data) for seed in range(max(2, seeds // 3))])
    mean, error = mean_and_error(wide[:, 1])
    evidence.append(Evidence(f"relu, 90% removed, width {3 * WIDTH}: log χ, {TITLES[1]}", 0.0, mean, error))
    tanh, relu = means["tanh", 0.9], means["relu", 0.9]
    restored = all(abs(row[1]) < 0.06 for row in means.values())
    better = all(abs(row[1]) < 0.2 * abs(row[0]) for row in means.values())
    verdict = Verdict.HOLDS if restored else Verdict.REFINED if better else Verdict.FAILS
    conclusion = (
        f"At 90 % removed ρ^l takes tanh from {tanh[0]:.2f} to {tanh[1]:.2f}, which helps, and ReLU from "
        f"{relu[0]:.2f} to {relu[1]:+.2f} (at width {3 * WIDTH}: {wide[:, 1].mean():+.2f}): gradients "
        f"explode by e^{relu[1]:.1f} a layer, and the network was closer to critical before. With as many "
        f"weights kept in places drawn at random ρ^l is right ({tanh[2]:+.3f}, {relu[2]:+.3f}). SNIP keeps "
        "the rows with large gradients and the columns with large signals: in ReLU networks these are the "
        "same units, the active ones, and what is kept carries more than its mean square says; in tanh "
        "networks units with large signals have small slopes, and it carries less. This alignment of the "
        f"mask is {tanh[ALIGNMENT]:+.2f} and {relu[ALIGNMENT]:+.2f}, most of the deviation. A factor for "
        f"each row does not cure it ({tanh[3]:+.2f}, {relu[3]:+.2f}); leaving σ_w out then happens to bring "
        f"ReLU near ({relu[4]:+.2f}) and tanh further away ({tanh[4]:+.2f}). What works is one factor a "
        "layer set by the signal (`rescale_(model, by='signal')`), so that W h has the mean square it has in "
        "the unpruned network: "
        f"{tanh[SIGNAL]:+.3f} and {relu[SIGNAL]:+.3f}."
    )
    chosen = (0, 1, 2, SIGNAL)
    _, chains = networks("relu", 0.9, WIDTH, 0, data)
    caption = (
        f"Gradients of one critical ReLU network of {DEPTH} layers with 90 % of its weights removed by SNIP."
    )
    series = gradient_series([TITLES[i] for i in chosen], [chains[i] for i in chosen], data)
    return Finding(tuple(evidence), verdict, conclusion, gradient_picture(caption, series))


CLAIM = Claim(
    name="rescaling-after-snip",
    statement="Sensitivity-based pruning, which the rescaling trick is meant for: ρ^l (with σ_w) puts a "
    "network pruned by SNIP back on the edge of chaos (Hayou et al. 2021, proposition on the rescaling "
    "trick).",
    method=f"Critical networks of {DEPTH} layers of width {WIDTH} (torch's SNIP masks on 100 digits, several "
    "seeds): log χ as the slope of the logarithm of the mean squared gradient over the middle layers; with "
    "the mask shuffled within each layer for comparison, and with factors set by the signal instead of mean "
    "W².",
    recorded=Verdict.FAILS,
    check=check,
)
