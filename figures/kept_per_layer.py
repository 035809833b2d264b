"""Fraction kept per layer in the three phases: prediction as a line with its band, measurement as points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.studies.collapse import KEPT
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, new_figure, style

from .figure import Results, StudyFigure
from .phases import PHASES, title
from .stored import by_network

if TYPE_CHECKING:
    from analysis import Store


def reduce(store: Store) -> Results:
    """Fractions kept by phase: predicted with their deviation (layers,), measured (seeds, layers)."""
    predicted, measured = by_network(store, "predicted-layers"), by_network(store, "measured-layers")
    results: dict[str, np.ndarray] = {}
    for phase, net in PHASES.items():
        (law,) = predicted[net, "snip"]
        results[f"{phase}_predicted"] = np.array(law["kept"][0])
        results[f"{phase}_predicted_std"] = np.array(law["kept_std"][0])
        results[f"{phase}_kept"] = np.array([one["kept"][0] for one in measured[net, "snip"]])
    return results


def draw(results: Results, path: Path) -> None:
    """Three panels side by side with one legend."""
    with style():
        figure = new_figure(7.0, 2.5)
        panels = figure.subplots(1, len(PHASES), sharey=True)
        for ax, phase in zip(panels, PHASES, strict=True):
            kept, mean = results[f"{phase}_kept"], results[f"{phase}_predicted"]
            band = results[f"{phase}_predicted_std"]
            layer = np.arange(1, len(mean) + 1)
            low, high = np.clip(mean - band, 0.0, 1.0), np.clip(mean + band, 0.0, 1.0)
            ax.fill_between(
                layer, low, high, color=COLOURS[0], alpha=0.25, linewidth=0, label="predicted s.d. over seeds"
            )
            ax.plot(layer, mean, color=COLOURS[0], label="predicted mean")
            # Every third layer, so that points and bars can be told apart.
            shown = np.r_[0 : len(mean) - 1 : 3, len(mean) - 1]
            measured, spread = kept.mean(axis=0)[shown], kept.std(axis=0, ddof=1)[shown]
            ax.errorbar(
                layer[shown],
                measured,
                yerr=[np.minimum(spread, measured), np.minimum(spread, 1.0 - measured)],
                fmt="o",
                color=COLOURS[1],
                markersize=2.2,
                elinewidth=0.7,
                label=f"measured, mean ± s.d. of {len(kept)} seeds",
            )
            miss = np.abs(kept.mean(axis=0) - mean).mean()
            ax.set_title(f"{title(phase)}\nmean |error| {miss:.3f}")
            ax.set_xlabel("weight layer, from the input")
        panels[0].set_ylabel("fraction of weights kept")
        panels[0].set_ylim(0.0, 1.03)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        save(figure, path)


FIGURE = StudyFigure(
    "kept_per_layer",
    "Fraction kept per layer by SNIP at 70 % sparsity, predicted and measured, in three phases.",
    KEPT,
    reduce,
    draw,
)
