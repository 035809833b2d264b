"""The figure of rescaling: what it draws is what was stored, and what was stored is the paper's effect."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from figures.rescaling import FIGURE


@pytest.fixture(scope="module")
def stored():
    """Accuracies by activation, criterion, init, rescaling, depth and sparsity, read without the engine."""
    found: dict[tuple, list[float]] = {}
    with closing(sqlite3.connect(f"file:{FIGURE.data}?mode=ro", uri=True)) as file:
        for asked, result in file.execute("SELECT configuration, result FROM results"):
            asked, result = json.loads(asked), json.loads(result)
            net, way = asked["network"], asked["settings"]["rescale"]
            phase = "critical" if net["init"] == "eoc" else "ordered"
            key = (net["activation"], asked["criterion"], phase, way, net["depth"], asked["sparsities"][0])
            found.setdefault(key, []).append(result["accuracy"])
            assert result["revived"] == 0
            assert result["rescaled"] is (way != "no" and result["least_kept"] > 0)
    return {key: np.array(accuracies) for key, accuracies in found.items()}


def gain(stored, one, other):
    """By how many standard errors one's mean lies above the other's."""
    a, b = stored[one], stored[other]
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return (a.mean() - b.mean()) / error if error > 0 else np.sign(a.mean() - b.mean()) * np.inf


def test_the_figure_shows_what_is_stored(stored):
    results = FIGURE.results()
    seen = 0
    for name in [name for name in results if f"{name}_error" in results]:
        depths, sparsities = results[f"{name}_depths"], results[f"{name}_sparsities"]
        activation, criterion, phase, way = name.split("_")
        for (i, j), mean in np.ndenumerate(results[name]):
            drawn = stored[activation, criterion, phase, way, depths[i], sparsities[j]]
            assert len(drawn) >= 3 and mean == pytest.approx(drawn.mean())
            error = drawn.std(ddof=1) / np.sqrt(len(drawn))
            assert results[f"{name}_error"][i, j] == pytest.approx(error)
            seen += 1
    assert seen == len(stored)


@pytest.mark.parametrize("way", ["weights", "signal"])
def test_deep_sparse_tanh_networks_train_rescaled_and_not_without(stored, way):
    for depth, sparsity in ((10, 0.95), (20, 0.8), (20, 0.9), (20, 0.95), (40, 0.8), (40, 0.9)):
        here = ("tanh", "snip", "critical"), (depth, sparsity)
        rescaled, plain = (*here[0], way, *here[1]), (*here[0], "no", *here[1])
        assert gain(stored, rescaled, plain) > 3
        assert gain(stored, rescaled, ("tanh", "snip", "ordered", "no", *here[1])) > 3
        assert stored[rescaled].mean() > 0.5
    assert stored["tanh", "snip", "critical", "no", 20, 0.9].mean() < 0.15


def test_relu_networks_gain_after_random_pruning_and_lose_after_snip(stored):
    """By the weights: after SNIP it is the signal that helps."""
    for activation in ("tanh", "relu"):
        random = (activation, "random", "critical")
        assert gain(stored, (*random, "weights", 10, 0.9), (*random, "no", 10, 0.9)) > 3
    snip = ("relu", "snip", "critical")
    assert gain(stored, (*snip, "weights", 10, 0.9), (*snip, "no", 10, 0.9)) < -3
    assert gain(stored, (*snip, "signal", 5, 0.95), (*snip, "weights", 5, 0.95)) > 3
