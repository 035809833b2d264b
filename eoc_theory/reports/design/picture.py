"""The plot of a design: what each layer keeps, before and after."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..plots.pruning import integer_ticks
from ..plots.style import COLOURS, GREY, canvas, finish, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .design import Design


def plot_design(
    design: Design, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure:
    """Numbers of weights kept in each layer on a logarithmic axis, as it is and under the design.

    Layers that are to keep less than a tenth of a weight lie on the lower edge.

    Args:
        design: from `eoc_theory.design`.
        path: file to write (png, pdf or svg), or None.
        ax: axes to draw in; None makes a figure.

    Raises:
        ArgumentError: `path` cannot be written.
    """
    with style():
        figure, ax = canvas(ax, 2.6)
        depth = np.arange(1, len(design.layers) + 1)
        marks = len(depth) <= 40
        floor = 0.1
        before = np.maximum(design.before.kept * design.weights, floor)
        ax.plot(depth, design.weights, color=GREY, linewidth=0.8, linestyle=":", label="all weights")
        ax.plot(
            depth, before, color=COLOURS[1], linestyle="--", marker="s" if marks else None, markersize=3,
            label="as it is, global ranking",
        )  # fmt: skip
        ax.plot(
            depth, np.maximum(design.kept_weights, floor), color=COLOURS[0], marker="o" if marks else None,
            markersize=3, label="design",
        )  # fmt: skip
        ax.set_yscale("log")
        ax.set_ylim(floor, 2.0 * float(design.weights.max()))
        ax.axhline(1.0, color=GREY, linewidth=0.6)
        ax.set_xlabel("weight layer, from the input")
        ax.set_ylabel(f"weights kept at s = {design.sparsity:g}")
        integer_ticks(ax)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, columnspacing=1.0)
        return finish(figure, path)
