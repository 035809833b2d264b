"""Which connections survive at 70 % sparsity: the paper's figure 1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

import eoc_theory as eoc

from .claim import Claim, Evidence, Finding, Verdict
from .picture import Picture, Series

DEPTH, WIDTH, SPARSITY = 100, 100, 0.7
#: The chaotic initialisation of the figure's right side; the paper does not name its own.
CHAOTIC = (2.0, 0.2)


@dataclass(frozen=True)
class Survivors:
    """What is left of one pruned network.

    Attributes:
        kept: fraction kept per layer, (L,).
        empty_layers: layers without a connection.
        cut_neurons: fraction of the hidden neurons that no incoming or no outgoing connection is left of.
        connected: fraction of the kept connections that lie on a path from an input to an output.
    """

    kept: np.ndarray
    empty_layers: int
    cut_neurons: float
    connected: float


def survivors(masks: dict[str, np.ndarray]) -> Survivors:
    """Counts what masks (fan_out, fan_in) leave, first layer to last."""
    layers = list(masks.values())
    kept = np.array([mask.mean() for mask in layers])
    cut = [~(a.any(axis=1) & b.any(axis=0)) for a, b in pairwise(layers)]
    reached = [np.ones(layers[0].shape[1], dtype=bool)]
    for mask in layers:
        reached.append(mask @ reached[-1])
    leads = [np.ones(layers[-1].shape[0], dtype=bool)]
    for mask in reversed(layers):
        leads.append(mask.T @ leads[-1])
    leads.reverse()
    on_path = sum(
        int((mask & leads[i + 1][:, None] & reached[i][None, :]).sum()) for i, mask in enumerate(layers)
    )
    total = sum(int(mask.sum()) for mask in layers)
    return Survivors(kept, int((kept == 0).sum()), float(np.concatenate(cut).mean()), on_path / max(total, 1))


def prune(init: object, seed: int) -> Survivors:
    """Prunes one tanh network of 100 × 100 with SNIP on 100 digits."""
    net = eoc.mlp(DEPTH, WIDTH, activation="tanh", init=init)  # pyright: ignore[reportArgumentType]
    measured = eoc.measure_pruning(net.to_torch(seed), SPARSITY, data=eoc.digits(100))
    assert isinstance(measured.masks, dict)
    return survivors(measured.masks)


def check(quick: bool) -> Finding:
    """Runs the check; see the claim's method."""
    seeds = 10 if quick else 40
    evidence, numbers = [], {}
    series: list[Series] = []
    for title, init, claimed in (("critical", "eoc", "none"), ("chaotic", CHAOTIC, "whole layers")):
        found = [prune(init, seed) for seed in range(seeds)]
        inner = np.array([one.kept[1:-1] for one in found])
        columns = {
            "layers that lose everything": [one.empty_layers for one in found],
            "hidden neurons cut off": [one.cut_neurons for one in found],
            "kept per layer: standard deviation over layers": inner.std(axis=1),
            "kept per layer: least": inner.min(axis=1),
            "kept per layer: most": inner.max(axis=1),
            "kept connections that join input to output": [one.connected for one in found],
        }
        for what, values in columns.items():
            mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(seeds))
            expected = claimed if what.startswith("layers") else None
            evidence.append(Evidence(f"{title}: {what}", expected, mean, error))
            numbers[title, what] = mean
        net = eoc.mlp(DEPTH, WIDTH, activation="tanh", init=init)  # pyright: ignore[reportArgumentType]
        predicted = eoc.predict_pruning(net, SPARSITY, data=eoc.digits(100))
        layers, colour = np.arange(1, DEPTH + 1), len(series) // 2
        series.append(Series(f"{title}, predicted", layers, np.asarray(predicted.kept), colour=colour))
        means = np.mean([one.kept for one in found], axis=0)
        series.append(Series("measured", layers[::4], means[::4], points=True, colour=colour))
        empty = float(np.sum(predicted.empty_probability))
        measured = float(np.mean(columns["layers that lose everything"]))
        evidence.append(Evidence(f"{title}: layers that lose everything, predicted", measured, empty))
        error = np.abs(np.asarray(predicted.kept) - np.mean([one.kept for one in found], axis=0)).mean()
        evidence.append(Evidence(f"{title}: |predicted − measured| kept per layer", None, float(error)))
    lost = {title: numbers[title, "layers that lose everything"] for title in ("critical", "chaotic")}
    spread = {
        title: numbers[title, "kept per layer: standard deviation over layers"]
        for title in ("critical", "chaotic")
    }
    connected = {
        title: numbers[title, "kept connections that join input to output"]
        for title in ("critical", "chaotic")
    }
    good = lost["critical"] < 0.5 and lost["chaotic"] > 5 and spread["critical"] < 0.3 * spread["chaotic"]
    conclusion = (
        f"Of {DEPTH} layers the critical network loses {lost['critical']:.1f} and the chaotic one "
        f"{lost['chaotic']:.1f}; kept per layer varies by {spread['critical']:.3f} and "
        f"{spread['chaotic']:.3f} over the layers, and {connected['critical']:.1%} and "
        f"{connected['chaotic']:.1%} of what is kept still joins input to output. The spread at criticality "
        f"is not uniform: rows differ, and layers from {numbers['critical', 'kept per layer: least']:.2f} to "
        f"{numbers['critical', 'kept per layer: most']:.2f}. The picture: python -m figures "
        "surviving_connections."
    )
    picture = Picture(
        f"Fraction of each layer's weights that stays at {SPARSITY:.0%} sparsity, mean over networks.",
        "layer",
        "fraction kept",
        tuple(series),
    )
    return Finding(tuple(evidence), Verdict.HOLDS if good else Verdict.FAILS, conclusion, picture)


CLAIM = Claim(
    name="surviving-connections",
    statement="At 70 % sparsity a tanh network of 100 layers of width 100 keeps connections spread over all "
    "its layers on the edge of chaos, and loses whole layers in the chaotic phase (Hayou et al. 2021, figure "
    "1).",
    method=f"SNIP masks of real networks (torch, 100 digits), critical at σ_b = 0.2 and chaotic at "
    f"(σ_w, σ_b) = {CHAOTIC}, several seeds: layers and neurons that lose everything, paths that remain.",
    recorded=Verdict.HOLDS,
    check=check,
)
