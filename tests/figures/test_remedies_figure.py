"""The figure of remedies: what it draws is what was stored, and deep, sparse networks train in it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from figures.remedies import FIGURE
from paper_checks.deep_sparse_training import TRAINS


@pytest.fixture(scope="module")
def stored():
    """Accuracies by activation, sparsity, masks, rescaling, depth and rate, read without the engine."""
    found: dict[tuple, dict[float, list[float]]] = {}
    with closing(sqlite3.connect(f"file:{FIGURE.data}?mode=ro", uri=True)) as file:
        for asked, result in file.execute("SELECT configuration, result FROM results"):
            asked, result = json.loads(asked), json.loads(result)
            net, settings = asked["network"], asked["settings"]
            way = (settings.get("arrangement", "no"), settings["rescale"])
            key = (net["activation"], asked["sparsities"][0], *way, net["depth"])
            rates = found.setdefault(key, {})
            rates.setdefault(settings["learning_rate"], []).append(result["accuracy"])
            assert result["revived"] == 0 and result["least_kept"] > 0
    return {key: {rate: np.array(drawn) for rate, drawn in rates.items()} for key, rates in found.items()}


def best(stored, *key):
    return max(stored[key].values(), key=np.mean)


def test_the_figure_shows_the_best_rate_of_each_cell(stored):
    results = FIGURE.results()
    seen = 0
    for name in [name for name in results if f"{name}_error" in results]:
        activation, sparsity, masks, way = name.split("_")
        for i, depth in enumerate(results[f"{name}_depths"]):
            rates = stored[activation, float(sparsity), masks, way, depth]
            assert len(rates) == 3 and {len(drawn) for drawn in rates.values()} == {5}
            drawn = rates[results[f"{name}_rates"][i]]
            assert drawn.mean() == pytest.approx(max(one.mean() for one in rates.values()))
            assert results[name][i] == pytest.approx(drawn.mean())
            assert results[f"{name}_error"][i] == pytest.approx(drawn.std(ddof=1) / np.sqrt(5))
            seen += 1
    assert seen == len(stored)


def test_deep_sparse_relu_networks_train_with_balanced_masks_and_not_with_snips_own(stored):
    for (depth, sparsity), bar in TRAINS.items():
        assert best(stored, "relu", sparsity, "balanced", "units", depth).mean() >= bar
    for way in ("no", "weights", "signal", "units"):
        assert best(stored, "relu", 0.95, "no", way, 40).mean() < TRAINS[40, 0.95]
