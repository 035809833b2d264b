"""A claim's numbers as a small picture: lines for what theory says, points for what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eoc_theory.reports.plots.style import COLOURS, MARKERS, canvas, points, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray


@dataclass(frozen=True)
class Series:
    """One line, or one set of points.

    Attributes:
        label: what the legend calls it; "" for what belongs to the series before.
        x, y: values, shape (n,).
        error: standard errors of y, shape (n,), or None.
        points: whether they are points, as measurements are.
        dashed: of a line.
        colour: number of the colour; a prediction and its measurement share one.
    """

    label: str
    x: Any
    y: Any
    error: Any = None
    points: bool = False
    dashed: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Picture:
    """Series over common axes, and what they show in a sentence."""

    caption: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


def draw(picture: Picture) -> Figure:
    """The picture, one column wide."""
    with style():
        figure, ax = canvas(None, 2.7)
        for series in picture.series:
            colour = COLOURS[series.colour]
            label = series.label or None
            if series.points:
                look = {"markerfacecolor": "none", "markeredgewidth": 1.0, "label": label}
                marker = MARKERS[series.colour]
                points(ax, series.x, series.y, series.error, colour=colour, marker=marker, **look)
            else:
                ax.plot(
                    series.x, series.y, color=colour, linestyle="--" if series.dashed else "-", label=label
                )
        if picture.log_x:
            ax.set_xscale("log")
        if picture.log_y:
            ax.set_yscale("log")
        ax.set_xlabel(picture.x)
        ax.set_ylabel(picture.y)
        # Above the axes it hides nothing.
        labels = ax.get_legend_handles_labels()[1]
        ncols = 1 if max(map(len, labels)) > 32 else 2
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=ncols, borderaxespad=0.2)
        return figure
