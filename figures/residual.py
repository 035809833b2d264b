"""ResNet against Stable ResNet: score moments and what SNIP keeps, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.studies.collapse import RESIDUAL_LAYERS
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, MARKERS, new_figure, points, style

from .figure import Results, StudyFigure
from .stored import by_network

if TYPE_CHECKING:
    from analysis import Store

#: Columns of panels: kind of network and normalisation.
PANELS = (
    ("resnet", None, "ResNet"),
    ("stable-resnet", None, "Stable ResNet"),
    ("resnet", "batch", "ResNet, batch norm."),
    ("stable-resnet", "batch", "Stable ResNet, batch norm."),
)
DEPTHS = sorted({network.depth for network in RESIDUAL_LAYERS.networks})
SPARSITY = 0.9


def reduce(store: Store) -> Results:
    """By column and depth, of the layers on the main path (not the shortcuts' 1 × 1 convolutions).

    `…_moment` and `…_kept`: predicted mean and standard deviation, (2, layers); `…_limit`: log m^l/m^L at
    infinite width, (layers,); `…_moments` and `…_kepts`: measured, (seeds, layers). Logarithms are decimal.
    """
    predicted, measured = by_network(store, "predicted-layers"), by_network(store, "measured-layers")
    level = RESIDUAL_LAYERS.sparsities.index(SPARSITY)
    results: dict[str, np.ndarray] = {}
    for network in RESIDUAL_LAYERS.networks:
        (law,) = predicted[network, "snip"]
        main = np.array(["shortcut" not in name for name in law["layers"]])
        found = measured[network, "snip"]
        at = [(kind, norm) for kind, norm, _ in PANELS].index((network.kind, network.normalisation))
        name = f"{at}_{network.depth}"
        decades = 1.0 / np.log(10.0)
        moment = np.array([law["log_moment"], law["log_moment_std"]]) * decades
        results[f"{name}_moment"] = moment[:, main]
        results[f"{name}_limit"] = np.array(law["log_moment_limit"])[main] * decades
        results[f"{name}_moments"] = np.array([one["log_moment"] for one in found])[:, main] * decades
        results[f"{name}_kept"] = np.array([law["kept"][level], law["kept_std"][level]])[:, main]
        results[f"{name}_kepts"] = np.array([one["kept"][level] for one in found])[:, main]
    return results


def draw(results: Results, path: Path) -> None:
    """Moments above, kept below; a column for each kind of network."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    with style():
        figure = new_figure(7.0, 4.2)
        panels = figure.subplots(2, len(PANELS), sharex=True, sharey="row")
        for at, (_, _, words) in enumerate(PANELS):
            upper, lower = panels[:, at]
            for index, depth in enumerate(DEPTHS):
                name = f"{at}_{depth}"
                _draw(upper, index, results[f"{name}_moment"], results[f"{name}_moments"])
                layer = _position(results[f"{name}_limit"])
                upper.plot(
                    layer, results[f"{name}_limit"], color=COLOURS[index], linestyle=":", linewidth=0.9
                )
                _draw(lower, index, results[f"{name}_kept"], results[f"{name}_kepts"])
            upper.set_title(words)
            lower.set_xlabel("layer $l/L$")
            lower.set_ylim(0.0, 1.03)
        panels[0, 0].set_ylabel("$\\log_{10}\\, m^l/m^L$")
        panels[1, 0].set_ylabel(f"fraction kept, $s={SPARSITY:g}$")
        seeds = {len(v) for name, v in results.items() if name.endswith("_kepts")}
        marks = {"markersize": 3.0, "markerfacecolor": "white"}
        handles: list[Any] = [
            Line2D([], [], color=COLOURS[i], marker=MARKERS[i], **marks) for i in range(len(DEPTHS))
        ]
        handles += [
            (Patch(color=GREY, alpha=0.25, linewidth=0), Line2D([], [], color=GREY)),
            Line2D([], [], color=GREY, linestyle=":", linewidth=0.9),
            Line2D([], [], color=GREY, marker="o", linestyle="none", **marks),
        ]
        labels = [f"{depth} layers" for depth in DEPTHS]
        labels += [
            "predicted, mean ± s.d.",
            "infinite width",
            f"measured, mean ± s.d. of {'–'.join(map(str, sorted(seeds)))} networks",
        ]
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        save(figure, path)


def _position(values: np.ndarray) -> np.ndarray:
    return np.arange(1, len(values) + 1) / len(values)


def _draw(ax: Any, index: int, law: np.ndarray, seen: np.ndarray) -> None:
    colour = COLOURS[index]
    layer = _position(law[0])
    ax.fill_between(layer, law[0] - law[1], law[0] + law[1], color=colour, alpha=0.2, linewidth=0)
    ax.plot(layer, law[0], color=colour)
    # Some layers only, so that points can be told apart.
    shown = np.unique(np.linspace(0, len(layer) - 1, 12).astype(int))
    mean, spread = seen.mean(axis=0)[shown], seen.std(axis=0, ddof=1)[shown]
    look = {"markersize": 3.0, "markeredgewidth": 0.7, "elinewidth": 0.7}
    points(ax, layer[shown], mean, spread, colour=colour, marker=MARKERS[index], **look)


FIGURE = StudyFigure(
    "residual",
    "ResNet against Stable ResNet: score moments and fraction kept per layer, predicted and measured.",
    RESIDUAL_LAYERS,
    reduce,
    draw,
)
