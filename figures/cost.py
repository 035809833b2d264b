"""What a prediction costs beside measuring: seconds against depth and against width."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.cost import TABLE
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, MARKERS, new_figure, style

from .figure import FigureScript, Results

SEEDS = 40
#: What is varied, what is held and at which value.
PANELS = (("depth", "width", 100, "depth (layers)"), ("width", "depth", 30, "width (units)"))


def compute() -> Results:
    """The kept table of benchmarks/cost.py: times are no two times the same, so they are not taken anew."""
    table = np.genfromtxt(TABLE, delimiter=",", names=True)
    assert table.dtype.names is not None
    return {name: table[name] for name in table.dtype.names}


def draw(results: Results, path: Path) -> None:
    """Times on top, the ratio below."""
    curves = (
        ("predict: kept and spread", results["predict"], COLOURS[0], "o", "-"),
        ("predict: critical sparsity", results["predict_collapse"], COLOURS[4], "v", "-"),
        ("measure 1 network", results["measure_seed"], COLOURS[1], "s", "--"),
        (f"measure {SEEDS} networks", SEEDS * results["measure_seed"], COLOURS[1], "D", "-"),
    )
    with style():
        figure = new_figure(7.0, 4.0)
        panels = figure.subplots(2, 2, sharey="row", sharex="col", height_ratios=(1.6, 1.0))
        for (varied, held, value, label), (upper, lower) in zip(PANELS, panels.T, strict=True):
            chosen = np.flatnonzero(results[held] == value)
            chosen = chosen[np.argsort(results[varied][chosen])]
            x = results[varied][chosen]
            for name, seconds, colour, marker, line in curves:
                upper.plot(
                    x, seconds[chosen], color=colour, marker=marker, linestyle=line, markersize=3.5,
                    markerfacecolor="white", label=name,
                )  # fmt: skip
            ratio = SEEDS * results["measure_seed"] / results["predict"]
            lower.plot(
                x, ratio[chosen], color=GREY, marker=MARKERS[5], markersize=3.5, markerfacecolor="white"
            )
            lower.axhline(1.0, color=GREY, linewidth=0.7, linestyle=":")
            upper.set_title(f"{held} {value}")
            lower.set_xlabel(label)
            for ax in (upper, lower):
                ax.set_xscale("log")
                ax.set_yscale("log")
            lower.set_xticks(x, [f"{tick:g}" for tick in x])
            lower.minorticks_off()
        for ax in panels[:, 0]:
            ax.yaxis.set_major_formatter("{x:g}")
        panels[0, 0].set_ylabel("seconds, one core")
        panels[1, 0].set_ylabel(f"measure {SEEDS}\n/ predict")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
        save(figure, path)


FIGURE = FigureScript(
    "cost",
    "Seconds to predict what SNIP keeps, and to measure it on one and on 40 networks, by depth and by width.",
    compute,
    draw,
)
