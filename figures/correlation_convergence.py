"""How correlations approach 1 with depth: on the edge of chaos by power laws, off it exponentially."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import eoc_theory as eoc
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, MARKERS, new_figure, points, style

from .figure import FigureScript, Results
from .pairs import sampled_gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Activation and σ_b by panel; the last of a panel is drawn off the edge of chaos too.
PANELS = {
    "smooth: $1 - c^l$ falls like $1/l$": (("gelu", 1.0), ("elu", 0.2), ("tanh", 0.2)),
    "kinked: $1 - c^l$ falls like $1/l^2$": (("relu", 0.0), ("leaky_relu(0.3)", 0.0), ("hardtanh", 0.2)),
}
ORDERED, CHAOTIC = 0.85, 1.3
START, DEPTH, SAMPLED = 0.7, 3000, 200
WIDTH, NETWORKS = 10_000, 8
LAYERS = np.unique(np.geomspace(1, DEPTH, 160).astype(int))
POINTS = np.unique(np.geomspace(1, SAMPLED, 14).astype(int))


def networks() -> dict[str, eoc.MeanField]:
    """The networks by the names of their results."""
    found = {}
    for cases in PANELS.values():
        for name, sigma_b in cases:
            sigma_w = eoc.edge_of_chaos(name, sigma_b=sigma_b).sigma_w
            found[name] = eoc.MeanField(name, sigma_w, sigma_b)
        name, sigma_b = cases[-1]
        for factor in (ORDERED, CHAOTIC):
            found[f"{name} {factor:g}"] = eoc.MeanField(name, factor * found[name].sigma_w, sigma_b)
    return found


def compute() -> Results:
    """1 − c by layer, of the exact map and of sampled networks."""
    results: dict[str, np.ndarray] = {}
    for seed, (name, net) in enumerate(networks().items()):
        results[f"{name} map"] = net.iterate_correlation(START, DEPTH - 1)[LAYERS - 1]
        sampled = sampled_gaps(net, START, SAMPLED, width=WIDTH, networks=NETWORKS, seed=seed)
        results[f"{name} sampled"] = sampled[:, POINTS - 1]
    return results


def draw(results: Results, path: Path) -> None:
    """A panel for smooth and one for kinked activations."""
    with style():
        figure = new_figure(7.0, 3.3)
        panels = figure.subplots(1, 2, sharey=True)
        for ax, (title, cases) in zip(panels, PANELS.items(), strict=True):
            for number, (name, sigma_b) in enumerate(cases):
                colour, marker = COLOURS[number], MARKERS[number]
                label = name if sigma_b == 0.0 else rf"{name}, $\sigma_b = {sigma_b:g}$"
                ax.plot(LAYERS, results[f"{name} map"], color=colour, label=label)
                law = eoc.edge_of_chaos(name, sigma_b=sigma_b).convergence
                late = LAYERS[law(LAYERS) < 1.0]
                ax.plot(late, law(late), color=colour, linestyle=(0, (3, 2)), linewidth=0.9)
                _points(ax, results[f"{name} sampled"], colour, marker)
            name = cases[-1][0]
            for factor, word in ((ORDERED, "ordered"), (CHAOTIC, "chaotic")):
                ax.plot(LAYERS, results[f"{name} {factor:g} map"], color=GREY, linewidth=0.9)
                _points(ax, results[f"{name} {factor:g} sampled"], GREY, "x")
                _word(ax, results[f"{name} {factor:g} map"], f"{word} {name}")
            ax.set(xscale="log", yscale="log", xlabel="layer $l$", title=title)
            ax.set_ylim(2e-6, 2.0)
            ax.set_xlim(0.9, DEPTH)
            ax.plot([], [], color="0.3", linestyle=(0, (3, 2)), linewidth=0.9, label="asymptotic law")
            ax.plot(
                *([], []), "o", color="0.3", markersize=3, markerfacecolor="none",
                label=f"sampled, width {WIDTH:,}:\nmean ± s.d. of {NETWORKS}",
            )  # fmt: skip
            ax.legend(loc="lower left", fontsize=6.5)
        panels[0].set_ylabel(r"$1 - c^l$, two inputs")
        save(figure, path)


def _points(ax: Axes, sampled: np.ndarray, colour: str, marker: str) -> None:
    mean, spread = sampled.mean(axis=0), sampled.std(axis=0, ddof=1)
    shown = mean > 1e-6
    error = [np.minimum(spread, 0.9 * mean)[shown], spread[shown]]
    look = {"markersize": 3, "markerfacecolor": "none", "elinewidth": 0.7}
    points(ax, POINTS[shown], mean[shown], error, colour=colour, marker=marker, **look)


def _word(ax: Axes, values: np.ndarray, text: str) -> None:
    """Beside the line: where it leaves the picture, or at its end."""
    if values[-1] > 1e-2:
        ax.text(LAYERS[-1], 1.25 * values[-1], text, fontsize=6.5, color=GREY, ha="right")
    else:
        at = int(np.argmax(values < 1e-4))
        ax.text(1.15 * LAYERS[at], 1.2e-4, text, fontsize=6.5, color=GREY)


FIGURE = FigureScript(
    "correlation_convergence",
    "How correlations approach 1 with depth: smooth and kinked activations on the edge of chaos, and off it.",
    compute,
    draw,
)
