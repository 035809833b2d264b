"""The plot of a design: what each layer keeps, before and after."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots.style import (
    COLOURS,
    GREY,
    canvas,
    finish,
    layer_axis,
    name_height,
    off_path,
    style,
    title_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .design import Design

Array = np.ndarray


def plot_design(
    design: Design, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure:
    """Numbers of weights kept in each layer on a logarithmic axis, as it is and under the design.

    Layers that are to keep less than a tenth of a weight lie on the lower edge.
    """
    with style():
        title = title_of(design.network, f"{design.criterion} at s = {design.sparsity:g}")
        figure, ax = canvas(ax, 2.6 + name_height(design.layers), title)
        depth = np.arange(1, len(design.layers) + 1)
        marks = len(depth) <= 40
        main = ~off_path(design.layers, design.shortcuts)
        floor = 0.1
        before = np.maximum(design.before.kept * design.weights, floor)
        kept = np.maximum(design.kept_weights, floor)
        looks: tuple[tuple[str, Array, dict[str, Any]], ...] = (
            ("all weights", design.weights, {"color": GREY, "linewidth": 0.8, "linestyle": ":"}),
            ("as it is, global ranking", before, {"color": COLOURS[1], "linestyle": "--", "marker": "s"}),
            ("design", kept, {"color": COLOURS[0], "marker": "o"}),
        )
        for said, values, look in looks:
            own: dict[str, Any] = look | ({} if marks else {"marker": None})
            ax.plot(depth[main], values[main], markersize=3, label=said, **own)
            if not main.all():
                # No line leads through layers on a shortcut.
                beside: dict[str, Any] = look | {"linestyle": "none", "marker": look.get("marker", "_")}
                ax.plot(depth[~main], values[~main], markersize=3, markerfacecolor="white", **beside)
        ax.set_yscale("log")
        ax.set_ylim(floor, 2.0 * float(design.weights.max()))
        ax.axhline(1.0, color=GREY, linewidth=0.6)
        ax.set_ylabel(f"weights kept at s = {design.sparsity:g}")
        layer_axis(ax, design.layers)
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.0, borderaxespad=0.2
        )
        return finish(figure, path)
