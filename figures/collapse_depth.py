"""Critical sparsity against depth in the three phases under SNIP, with the paper's bound where it binds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import eoc_theory as eoc
from analysis import Network
from analysis.measures_collapse import levels
from analysis.studies.collapse import COLLAPSE_DEPTH
from eoc_theory.pruning.paper_bounds import snip_bound
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, MARKERS, new_figure, points, style

from .figure import Results, StudyFigure
from .stored import collapses

if TYPE_CHECKING:
    from analysis import Store

INITS = list(dict.fromkeys(network.init for network in COLLAPSE_DEPTH.networks))
DEPTHS = sorted({network.depth for network in COLLAPSE_DEPTH.networks})
#: Depths at which the bound is drawn: beyond those that are pruned, since it is void in most of these.
FURTHER = np.unique(np.geomspace(5, 640, 80).astype(int))
#: Initialisations by panel: from deep in a phase to the edge of chaos.
PANELS = {"ordered": INITS[: INITS.index("eoc") + 1], "chaotic": INITS[INITS.index("eoc") :][::-1]}


def reduce(store: Store) -> Results:
    """See `figures.stored.collapses`; a name is the initialisation's number and the depth."""
    names = {
        f"{INITS.index(network.init)}_{network.depth}": (network, "snip")
        for network in COLLAPSE_DEPTH.networks
    }
    return collapses(store, names)


def draw(results: Results, path: Path) -> None:
    """Two panels: towards order, and towards chaos."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ticks = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999)
    with style():
        figure = new_figure(7.0, 3.3)
        panels = figure.subplots(1, 2, sharey=True)
        for ax, inits in zip(panels, PANELS.values(), strict=True):
            for init in inits:
                at = INITS.index(init)
                _draw_phase(ax, results, at, _label(init))
            ax.set_yscale("logit")
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
            ax.set_ylim(0.004, 0.9995)
            ax.set_xscale("log")
            ticks_x = [*DEPTHS, 320, 640]
            ax.set_xticks(ticks_x, [str(depth) for depth in ticks_x])
            ax.minorticks_off()
            ax.set_xlabel("depth $L$, width 100")
            ax.legend(loc="lower left")
        panels[0].set_ylabel("critical sparsity $s_{cr}$ (logit axis)")
        for ax, name in zip(panels, PANELS, strict=True):
            ax.set_title(f"from the {name} phase to the edge of chaos")
        seeds = {len(v) for name, v in results.items() if name.endswith("_measured")}
        handles: list[Any] = [
            (Patch(color=GREY, alpha=0.25, linewidth=0), Line2D([], [], color=GREY)),
            Line2D([], [], color=GREY, marker="o", markersize=3.5, markerfacecolor="white", linestyle="none"),
            Line2D([], [], color=GREY, linestyle="--"),
        ]
        words = [
            "predicted: median, 10 to 90 %",
            f"measured: the same of {'–'.join(map(str, sorted(seeds)))} networks",
            "paper's bound on $E[s_{cr}]$, void left of its line",
        ]
        figure.legend(handles, words, loc="outside lower center", ncols=3)
        save(figure, path)


def _draw_phase(ax: Any, results: Results, at: int, label: str) -> None:
    colour = COLOURS[at]
    law = np.array(
        [
            np.interp((0.1, 0.5, 0.9), levels(len(quantiles)), quantiles)
            for quantiles in (results[f"{at}_{depth}_predicted"] for depth in DEPTHS)
        ]
    )
    seen = np.array([np.quantile(results[f"{at}_{depth}_measured"], (0.1, 0.5, 0.9)) for depth in DEPTHS])
    ax.fill_between(DEPTHS, law[:, 0], law[:, 2], color=colour, alpha=0.25, linewidth=0)
    ax.plot(DEPTHS, law[:, 1], color=colour)
    error = [seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 1]]
    points(ax, DEPTHS, seen[:, 1], error, colour=colour, marker=MARKERS[at], label=label)
    value = bound(INITS[at])
    ax.plot(FURTHER, np.where(value < 1.0, value, np.nan), color=colour, linestyle="--")


def bound(init: str | tuple[float, float]) -> np.ndarray:
    """The paper's bound on E[s_cr] at depths `FURTHER`; infinite on the edge of chaos."""
    sigma_w, sigma_b, chi = _point(init)
    if isinstance(init, str):
        return np.full(len(FURTHER), np.inf)
    nets = [eoc.mlp(int(depth), 100, activation="tanh", init=(sigma_w, sigma_b)) for depth in FURTHER]
    # N² of the theorem is the mean number of weights a layer, as in `predict_collapse`.
    return np.array([snip_bound(net.depth, np.sqrt(net.n_weights / net.depth), chi).value for net in nets])


def _label(init: str | tuple[float, float]) -> str:
    sigma_w, _, chi = _point(init)
    word = "critical, " if isinstance(init, str) else ""
    return f"{word}$\\sigma_w={sigma_w:.4g}$, $\\chi={chi:.2f}$"


def _point(init: str | tuple[float, float]) -> tuple[float, float, float]:
    """σ_w, σ_b and χ."""
    layer = Network(depth=3, activation="tanh", init=init).build((64,), 10).layers[1]
    return layer.sigma_w, layer.sigma_b, float(eoc.MeanField("tanh", layer.sigma_w, layer.sigma_b).chi())


FIGURE = StudyFigure(
    "collapse_depth",
    "Critical sparsity of tanh networks under SNIP against depth, in three phases, with the paper's bound.",
    COLLAPSE_DEPTH,
    reduce,
    draw,
)
