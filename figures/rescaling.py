"""Accuracy over depth × sparsity, rescaled or not (Hayou et al. 2021, figure 2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.studies.trained import RESCALING
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, MARKERS, new_figure, style

from .figure import Results, StudyFigure

if TYPE_CHECKING:
    from analysis import Store

ACTIVATIONS = {"tanh": "tanh", "relu": "ReLU"}
#: Whether networks are critical, and how they were rescaled.
ARMS = {
    (True, "signal"): "critical, rescaled\nby the signal",
    (True, "weights"): "critical, rescaled\nby the weights",
    (True, "no"): "critical,\nnot rescaled",
    (False, "no"): "ordered,\nnot rescaled",
}
#: Random pruning: how it was rescaled.
RANDOM = {"weights": "rescaled by\nthe weights", "no": "not rescaled"}


def reduce(store: Store) -> Results:
    """Mean accuracy over seeds and its standard error, depths × sparsities, by what was done."""
    found: dict[str, dict[tuple[int, float], list[float]]] = {}
    for row in store.rows("training"):
        asked = row.asked
        net, rescale = asked["network"], asked["settings"]["rescale"]
        name = _name(net["activation"], asked["criterion"], net["init"] == "eoc", rescale)
        cell = (net["depth"], asked["sparsities"][0])
        found.setdefault(name, {}).setdefault(cell, []).append(row.found["accuracy"])
    results: dict[str, np.ndarray] = {}
    for name, cells in found.items():
        depths, sparsities = (sorted(set(axis)) for axis in zip(*cells, strict=True))
        drawn = np.array([[cells[depth, sparsity] for sparsity in sparsities] for depth in depths])
        results[name] = drawn.mean(axis=2)
        results[f"{name}_error"] = drawn.std(axis=2, ddof=1) / np.sqrt(drawn.shape[2])
        results[f"{name}_depths"], results[f"{name}_sparsities"] = np.array(depths), np.array(sparsities)
    return results


def _name(activation: str, criterion: str, critical: bool, rescale: str) -> str:
    return f"{activation}_{criterion}_{'critical' if critical else 'ordered'}_{rescale}"


def draw(results: Results, path: Path) -> None:
    """A row an activation: a heat map an arm, and random pruning's accuracy by depth."""
    with style():
        figure = new_figure(6.6, 3.1)
        panels = figure.subplots(2, len(ARMS) + 1, width_ratios=[1.0] * len(ARMS) + [1.25])
        image = None
        for row, (activation, shown) in zip(panels, ACTIVATIONS.items(), strict=True):
            for ax, ((critical, rescale), title) in zip(row, ARMS.items(), strict=False):
                name = _name(activation, "snip", critical, rescale)
                depths, sparsities = results[f"{name}_depths"], results[f"{name}_sparsities"]
                # Deep and sparse at the top right, as in the paper.
                values = results[name]
                image = ax.pcolormesh(values, vmin=0.0, vmax=1.0, cmap="cividis")
                for (i, j), value in np.ndenumerate(values):
                    at, colour = (j + 0.5, i + 0.5), "white" if value < 0.6 else "black"
                    ax.text(*at, f"{value:.2f}"[-3:], ha="center", va="center", fontsize=6.0, color=colour)
                ax.set_xticks(np.arange(len(sparsities)) + 0.5, [f"{s:g}"[1:] for s in sparsities])
                ax.set_yticks(np.arange(len(depths)) + 0.5, [str(d) for d in depths])
                if activation == "tanh":
                    ax.set_title(title, fontsize=7.0)
                else:
                    ax.set_xlabel("sparsity")
            row[0].set_ylabel(f"{shown}: depth")
            ax = row[-1]
            for index, (rescale, label) in enumerate(RANDOM.items()):
                name = _name(activation, "random", True, rescale)
                depths = results[f"{name}_depths"]
                ax.errorbar(
                    depths,
                    results[name][:, 0],
                    2.0 * results[f"{name}_error"][:, 0],
                    color=COLOURS[index],
                    marker=MARKERS[index],
                    markersize=3.0,
                    elinewidth=0.8,
                    linewidth=0.8,
                    label=label,
                )
            ax.axhline(0.1, color="0.6", linewidth=0.7, linestyle=":")
            ax.set_ylim(0.0, 1.03)
            ax.set_xscale("log")
            depths = results[f"{_name(activation, 'random', True, 'no')}_depths"]
            ax.set_xticks(depths, [str(d) for d in depths])
            ax.minorticks_off()
            ax.yaxis.tick_right()
            ax.spines["right"].set_visible(True)
            ax.spines["left"].set_visible(False)
            if activation == "tanh":
                ax.set_title("critical, random\npruning, sparsity .9", fontsize=7.0)
                ax.legend(loc="center right", fontsize=6.5)
            else:
                ax.set_xlabel("depth")
        assert image is not None
        bar = figure.colorbar(image, ax=list(panels[:, : len(ARMS)].ravel()), location="left", pad=0.02)
        bar.set_label("test accuracy")
        save(figure, path)


FIGURE = StudyFigure(
    "rescaling",
    "Test accuracy on digits of networks of width 100 after SNIP, by depth and sparsity: rescaled by the "
    "signal, by the weights, not at all, and in the ordered phase; and after random pruning, with twice the "
    "standard error.",
    RESCALING,
    reduce,
    draw,
)
