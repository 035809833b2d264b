"""Accuracy of deep, sparse networks over depth, by what was done between pruning and training."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.studies.remedies import REMEDIES, REMEDIES_DIGITS, Remedy
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, MARKERS, new_figure, style

from .figure import Results, StudyFigure

if TYPE_CHECKING:
    from analysis import Store

ACTIVATIONS = {"tanh": "tanh", "relu": "ReLU"}


def reduce(store: Store) -> Results:
    """Mean accuracy and its standard error at the best learning rate for each depth, and that rate.

    Arrays over the depths, by activation, sparsity and remedy.
    """
    found: dict[tuple[str, float, Remedy], dict[int, dict[float, list[float]]]] = {}
    for row in store.rows("training"):
        asked, settings = row.asked, row.asked["settings"]
        line = (asked["network"]["activation"], asked["sparsities"][0], Remedy.of(settings))
        rates = found.setdefault(line, {}).setdefault(asked["network"]["depth"], {})
        rates.setdefault(settings["learning_rate"], []).append(row.found["accuracy"])
    results: dict[str, np.ndarray] = {}
    for (activation, sparsity, remedy), by_depth in found.items():
        name, depths = _name(activation, sparsity, remedy), sorted(by_depth)
        # The first of equal ones: the smallest.
        best = [
            max(sorted(by_depth[depth].items()), key=lambda one: float(np.mean(one[1]))) for depth in depths
        ]
        drawn = np.array([accuracies for _, accuracies in best])
        results[f"{name}_depths"], results[f"{name}_rates"] = np.array(depths), np.array([r for r, _ in best])
        results[name] = drawn.mean(axis=1)
        results[f"{name}_error"] = drawn.std(axis=1, ddof=1) / np.sqrt(drawn.shape[1])
    return results


def _name(activation: str, sparsity: float, remedy: Remedy) -> str:
    return f"{activation}_{sparsity:g}_{remedy.arrangement}_{remedy.rescale}"


def draw(results: Results, path: Path) -> None:
    """A panel for each activation and sparsity, a line for each remedy."""
    sparsities = sorted({float(name.split("_")[1]) for name in results})
    with style():
        figure = new_figure(
            5.6, 4.3, "Networks of width 100 on the edge of chaos after SNIP, trained on digits"
        )
        panels = figure.subplots(len(sparsities), len(ACTIVATIONS), sharex=True, sharey=True)
        for (i, sparsity), (j, activation) in product(enumerate(sparsities), enumerate(ACTIVATIONS)):
            ax = panels[i, j]
            for index, remedy in enumerate(REMEDIES):
                name = _name(activation, sparsity, remedy)
                if name not in results:
                    continue
                ax.errorbar(
                    # Apart from each other, since many are alike.
                    results[f"{name}_depths"] * 1.02 ** (index - 2.5),
                    results[name],
                    2.0 * results[f"{name}_error"],
                    color=COLOURS[index],
                    marker=MARKERS[index],
                    markersize=3.5,
                    elinewidth=0.8,
                    linewidth=1.0,
                    label=str(remedy),
                )
                depths = results[f"{name}_depths"]
            ax.axhline(0.1, color="0.6", linewidth=0.7, linestyle=":")
            ax.set_xscale("log")
            ax.set_xticks(depths, [str(depth) for depth in depths])
            ax.minorticks_off()
            ax.set_ylim(0.0, 1.03)
            ax.set_title(f"{ACTIVATIONS[activation]}, sparsity {sparsity:g}")
        for ax in panels[-1]:
            ax.set_xlabel("depth (weight layers)")
        for ax in panels[:, 0]:
            ax.set_ylabel("test accuracy")
        handles, labels = panels[0, -1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        save(figure, path)


FIGURE = StudyFigure(
    "remedies",
    "Test accuracy on digits of networks of width 100 on the edge of chaos after SNIP, by depth: as pruned, "
    "rescaled in three ways, and with other masks of the same size in each layer; mean of five seeds at the "
    "best of three learning rates, with twice the standard error.",
    REMEDIES_DIGITS,
    reduce,
    draw,
)
