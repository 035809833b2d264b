"""Phases of tanh networks, with the depth scales as contours and as maps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

import eoc_theory as eoc
from eoc_theory.mean_field.phase_diagram import PhaseDiagram
from eoc_theory.reports.plots import plot_phase_diagram
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.meanfield import BIAS_LABEL, WEIGHT_LABEL
from eoc_theory.reports.plots.style import new_figure, style

from .figure import FigureScript, Results

ACTIVATION = "tanh"
#: Layers between which the maps' colours run.
RANGE = (0.3, 100.0)


def compute() -> Results:
    """The diagram's arrays."""
    diagram = eoc.phase_diagram(
        ACTIVATION, sigma_w=np.linspace(0.5, 3.0, 126), sigma_b=np.linspace(0.0, 1.0, 81)
    )
    arrays = {name: getattr(diagram, name) for name in _ARRAYS}
    # A picture needs no more than single precision.
    return {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}


def draw(results: Results, path: Path) -> None:
    """The phases with contours, and a map of each depth scale."""
    from matplotlib.colors import LogNorm

    diagram = PhaseDiagram(
        eoc.activation(ACTIVATION), **{name: results[name] for name in _ARRAYS}, dropout=0.0
    )
    with style():
        figure = new_figure(7.0, 2.8)
        phases, *maps = figure.subplots(1, 3, sharey=True, width_ratios=(1.25, 1.0, 1.0))
        plot_phase_diagram(diagram, ax=phases)
        legend = phases.get_legend()
        assert legend is not None
        figure.legend(handles=legend.legend_handles, loc="outside upper left", ncols=3)
        legend.remove()
        phases.set_title("", loc="left")
        phases.set_title("phases, contours in layers")
        phases.set(xlabel="", ylabel=BIAS_LABEL)
        titles = (r"correlation depth scale $\xi_c$", r"variance depth scale $\xi_q$")
        for ax, title, values in zip(maps, titles, (diagram.xi_c, diagram.xi_q), strict=True):
            image = ax.pcolormesh(
                diagram.sigma_w,
                diagram.sigma_b,
                np.clip(values, *RANGE),
                norm=LogNorm(*RANGE),
                cmap="viridis",
                rasterized=True,
            )
            ax.contour(
                diagram.sigma_w, diagram.sigma_b, diagram.chi - 1.0, [0.0], colors="white", linewidths=0.8
            )
            ax.set_title(title)
        figure.supxlabel(WEIGHT_LABEL, fontsize=8)
        bar = figure.colorbar(image, ax=maps, extend="both", label="layers")
        bar.ax.minorticks_off()
        save(figure, path)


_ARRAYS = tuple(field.name for field in fields(PhaseDiagram) if field.name not in ("activation", "dropout"))

FIGURE = FigureScript("phase_diagram", "Phases of tanh networks and their depth scales.", compute, draw)
