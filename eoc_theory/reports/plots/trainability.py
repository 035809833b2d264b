"""Plot of a trainability: isometry layer by layer, and the neural tangent kernel's eigenvalues."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from .style import COLOURS, COLUMN, finish, layer_axis, name_height, new_figure, style, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...pruning.trainability import Trainability


def plot_trainability(
    found: Trainability, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure:
    """Mean squared singular value of each layer, and the eigenvalues of the neural tangent kernel.

    In given axes only the layers are drawn.
    """
    with style():
        if ax is not None:
            figure = ax.get_figure(root=True)
            assert figure is not None
            _draw_layers(ax, found)
            return finish(figure, path)
        title = title_of(found.network, *filter(None, (found.criterion, found.method)))
        figure = new_figure(2 * COLUMN, 2.4 + name_height(found.layers), title)
        left, right = figure.subplots(1, 2)
        _draw_layers(left, found)
        _draw_eigenvalues(right, found)
        return finish(figure, path)


def _draw_layers(ax: Axes, found: Trainability) -> None:
    places = np.arange(1, len(found.layers) + 1)
    look = "-" if found.method == "theory" else ":"
    rows = (
        (r"masked weights $W^l$", found.layer_gain, "o"),
        (r"$\partial y^l/\partial y^{l-1}$", found.chi, "s"),
    )
    for (name, values, marker), colour in zip(rows, COLOURS, strict=False):
        shown = np.where(values > 0.0, values, np.nan)
        if np.isfinite(shown).any():
            ax.plot(places, shown, look, marker=marker, markersize=3.5, color=colour, label=name)
    ax.axhline(1.0, color="0.6", linewidth=0.7)
    ax.set_yscale("log")
    ax.set_ylabel("mean squared singular value")
    layer_axis(ax, found.layers)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


def _draw_eigenvalues(ax: Axes, found: Trainability) -> None:
    values = found.eigenvalues
    shown = np.where(values > 0.0, values, np.nan)
    ax.plot(np.arange(1, len(values) + 1), shown, "o", markersize=3.0, color=COLOURS[2])
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue of the neural tangent kernel, by size")
    ax.set_ylabel("eigenvalue, over their mean")
