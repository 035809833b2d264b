"""Probability of collapse against sparsity, criteria side by side, and s_cr of real networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.measures_collapse import levels
from analysis.studies.collapse import COLLAPSE
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, MARKERS, new_figure, sparsity_axis, style

from .figure import Results, StudyFigure
from .stored import collapses

if TYPE_CHECKING:
    from analysis import Network, Store

CRITERIA = {
    "snip": "SNIP", "grasp": "GraSP", "magnitude": "magnitude", "synflow": "SynFlow, 100 rounds",
    "random": "random",
}  # fmt: skip


def reduce(store: Store) -> Results:
    """See `figures.stored.collapses`; a name is the panel's number and the criterion."""
    return collapses(
        store,
        {f"{at}_{one}": (net, one) for at, net in enumerate(COLLAPSE.networks) for one in CRITERIA},
    )


def title(network: Network) -> str:
    """A panel's head."""
    size = f"{network.depth} × {network.width}"
    name = "ReLU" if network.activation == "relu" else network.activation
    if isinstance(network.init, str):
        return f"{name}, critical, {size}"
    sigma_w, sigma_b = network.init
    return f"{name}, ordered ($\\sigma_w={sigma_w:g}$, $\\sigma_b={sigma_b:g}$), {size}"


def draw(results: Results, path: Path) -> None:
    """Four panels with one legend."""
    from matplotlib.lines import Line2D

    ends = np.concatenate([v for name, v in results.items() if not name.endswith("_bound")])
    logs = -np.log10(1.0 - ends)
    low, high = 1.0 - 10.0 ** -(0.95 * logs.min()), 1.0 - 10.0 ** -(logs.max() + 0.15)
    seeds, rounds = (len(results[f"0_{criterion}_measured"]) for criterion in ("snip", "synflow"))
    with style():
        figure = new_figure(7.0, 4.4)
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for at, (ax, network) in enumerate(zip(panels.flat, COLLAPSE.networks, strict=True)):
            sparsity_axis(ax, low, high)
            for criterion, colour, marker in zip(CRITERIA, COLOURS, MARKERS, strict=False):
                law = results[f"{at}_{criterion}_predicted"]
                drawn = results[f"{at}_{criterion}_measured"]
                ax.plot(law, levels(len(law)), color=colour)
                ax.plot(
                    drawn,
                    (np.arange(len(drawn)) + 0.5) / len(drawn),
                    linestyle="none",
                    marker=marker,
                    markersize=3.0,
                    markerfacecolor="white",
                    markeredgewidth=0.7,
                    color=colour,
                )
            ax.set_title(title(network))
            ax.set_ylim(0.0, 1.02)
        for ax in panels[-1]:
            ax.set_xlabel("sparsity $s$ (axis logarithmic in $1 - s$)")
        for ax in panels[:, 0]:
            ax.set_ylabel("$P(s_{cr} \\leq s)$")
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=3.0, markerfacecolor="white")
            for colour, marker in zip(COLOURS, MARKERS, strict=True)
        ][: len(CRITERIA)]
        handles += [
            Line2D([], [], color=GREY),
            Line2D([], [], color=GREY, marker="o", markersize=3.0, markerfacecolor="white", linestyle="none"),
        ]
        labels = [*CRITERIA.values(), "predicted", f"measured, {seeds} networks (SynFlow {rounds})"]
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        save(figure, path)


FIGURE = StudyFigure(
    "collapse",
    "Probability of collapse against sparsity under five criteria, and measured critical sparsities.",
    COLLAPSE,
    reduce,
    draw,
)
