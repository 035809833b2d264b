"""Plots of what pruning keeps: per layer, and the distribution of the critical sparsity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...errors import ArgumentError
from .style import (
    COLOURS,
    COLUMN,
    GREY,
    MARKERS,
    canvas,
    colours,
    finish,
    layer_axis,
    name_height,
    new_figure,
    off_path,
    points,
    sparsity_axis,
    style,
    title_of,
)

if TYPE_CHECKING:
    from ...pruning.collapse import CollapsePrediction
    from ...pruning.prediction import PruningPrediction
    from ...pytorch.measure.measure import PruningMeasurement
    from ..compare import Comparison

Path = str | os.PathLike[str] | None
Array = np.ndarray

PREDICTED, MEASURED = COLOURS[0], COLOURS[1]
#: How layers on a shortcut are marked, through which no line leads.
SHORTCUT: Any = {
    "fmt": "D", "markersize": 2.6, "markeredgewidth": 0.7, "elinewidth": 0.6, "markerfacecolor": "white",
}  # fmt: skip


def plot_prediction(prediction: PruningPrediction, path: Path = None, *, ax: Axes | None = None) -> Figure:
    """Fraction kept in each layer as a line, its standard deviation over initialisations as a band.

    Each sparsity is a line.
    """
    with style():
        height = 2.6 + name_height(prediction.layers)
        figure, ax = canvas(ax, height, title_of(prediction.network, prediction.criterion))
        _draw_kept(ax, prediction)
        return finish(figure, path)


def plot_measurement(measurement: PruningMeasurement, path: Path = None, *, ax: Axes | None = None) -> Figure:
    """Fraction kept in each layer of a network that was pruned, as points.

    Each sparsity has points of its own.
    """
    with style():
        layers = measurement.layers
        title = title_of(measurement.network, measurement.criterion, "measured")
        figure, ax = canvas(ax, 2.6 + name_height(layers), title)
        sparsity, kept = np.ravel(measurement.sparsity), np.atleast_2d(measurement.kept)
        depth = np.arange(1, len(layers) + 1)
        size = float(np.clip(90.0 / len(depth), 1.6, 3.5))
        for i, colour in enumerate(colours(len(sparsity))):
            ax.plot(
                depth, kept[i], color=colour, linestyle="none", marker=MARKERS[i % len(MARKERS)],
                markersize=size, markerfacecolor="white", markeredgewidth=0.8,
                label=f"sparsity {sparsity[i]:g}" if i < 12 else None,
            )  # fmt: skip
        ax.set_ylabel("fraction of weights kept")
        ax.set_ylim(0.0, min(1.03, 1.08 * float(kept.max())) or 1.0)
        layer_axis(ax, layers)
        _legend_above(ax, 3)
        return finish(figure, path)


def plot_comparison(comparison: Comparison, path: Path = None, *, ax: Axes | None = None) -> Figure:
    """Theory beside experiment: kept per layer above, the distribution of the critical sparsity below.

    In given axes only the upper part is drawn.
    """
    with style():
        if ax is not None:
            figure, ax = canvas(ax, 2.6)
            _draw_kept(ax, comparison.prediction, comparison)
            return finish(figure, path)
        title = title_of(comparison.network, comparison.criterion)
        names = name_height(comparison.layers)
        figure = new_figure(COLUMN, 5.0 + names, title)
        upper, lower = figure.subplots(2, 1, height_ratios=(2.8 + names, 2.2))
        _draw_kept(upper, comparison.prediction, comparison)
        _draw_collapse(lower, comparison.collapse, comparison.critical_sparsity)
        return finish(figure, path)


def plot_collapse(
    collapse: CollapsePrediction, path: Path = None, *, measured: Any = None, ax: Axes | None = None
) -> Figure:
    """Probability of collapse against sparsity, on an axis logarithmic in 1 − s.

    The paper's bound is marked where there is one. `measured`, critical sparsities of real networks, shape
    (S,), are drawn as a histogram; ArgumentError where they are no numbers in [0, 1].
    """
    with style():
        figure, ax = canvas(ax, 2.5, title_of(collapse.network, collapse.criterion))
        _draw_collapse(ax, collapse, measured)
        return finish(figure, path)


# --- kept per layer -----------------------------------------------------------------------------------------


def _draw_kept(ax: Axes, prediction: PruningPrediction, comparison: Comparison | None = None) -> None:
    sparsity = np.atleast_1d(prediction.sparsity)
    kept, std = np.atleast_2d(prediction.kept), np.atleast_2d(prediction.kept_std)
    depth = np.arange(1, kept.shape[1] + 1)
    beside = off_path(prediction.layers, prediction.shortcuts)
    shades = colours(len(sparsity))
    top = float((kept + std).max())
    for i, colour in enumerate(shades):
        draw_band(ax, depth, kept[i], std[i], colour, beside)
        if comparison is not None:
            mean = np.atleast_2d(comparison.measured_kept)[i]
            spread = np.nan_to_num(np.atleast_2d(comparison.measured_std)[i])
            top = max(top, float((mean + spread).max()))
            _points(ax, depth, mean, spread, colour, MARKERS[i % len(MARKERS)])
    ax.set_ylabel("fraction of weights kept")
    ax.set_ylim(0.0, min(1.03, 1.05 * top) if top > 0.0 else 1.0)
    layer_axis(ax, prediction.layers)
    said = prediction.criterion, prediction.method
    _legend_kept(ax, *said, sparsity, shades, comparison, bool(beside.any()))


def draw_band(ax: Axes, x: Array, mean: Array, std: Array, colour: Any, beside: Array, **line: Any) -> None:
    """A line with a band through the layers of the main path; layers on a shortcut as marks of their own."""
    low, high = np.clip(mean - std, 0.0, 1.0), np.clip(mean + std, 0.0, 1.0)
    main = ~beside
    ax.fill_between(x[main], low[main], high[main], color=colour, alpha=0.22, linewidth=0)
    # One layer is no line.
    ax.plot(x[main], mean[main], color=colour, marker="_" if main.sum() == 1 else None, **line)
    if beside.any():
        spread = [mean[beside] - low[beside], high[beside] - mean[beside]]
        ax.errorbar(x[beside], mean[beside], yerr=spread, color=colour, **SHORTCUT)


def _points(ax: Axes, x: Array, mean: Array, spread: Array, colour: Any, marker: str) -> None:
    """Means with error bars cut at 0; points shrink where there are many layers."""
    look: dict[str, Any] = {"markersize": float(np.clip(90.0 / len(x), 1.6, 3.5)), "elinewidth": 0.7}
    if len(x) > 40:
        look |= {"markerfacecolor": colour, "elinewidth": 0.5}
    points(ax, x, mean, [np.minimum(spread, mean), spread], colour=colour, marker=marker, zorder=3, **look)


#: A legend's place above the axes, where it hides nothing.
_ABOVE: dict[str, Any] = {"loc": "lower left", "borderaxespad": 0.2}


def _legend_kept(
    ax: Axes,
    criterion: str,
    method: str,
    sparsity: Array,
    shades: list[Any],
    comparison: Comparison | None,
    beside: bool = False,
) -> None:
    """Above the axes: the meaning of line and points, and each sparsity's colour."""
    one = shades[0] if len(shades) == 1 else GREY
    handles: list[Any] = [(Patch(color=one, alpha=0.22, linewidth=0), Line2D([], [], color=one))]
    labels = [f"{criterion}, {method}: mean ± s.d. over seeds"]
    if beside:
        handles.append(ax.errorbar([], [], yerr=[], color=one, **SHORTCUT))
        labels.append("the same, layers on a shortcut")
    if comparison is not None:
        seeds = len(comparison.seeds)
        look = {"fmt": MARKERS[0], "markersize": 3.5, "markerfacecolor": "white", "elinewidth": 0.7}
        handles.append(ax.errorbar([], [], yerr=[], color=one, **look))
        labels.append(f"measured: mean ± s.d., {seeds} seeds" if seeds > 1 else "measured, one seed")
    at = (0.0, 1.0 if len(shades) == 1 else 1.09)
    together = {tuple: HandlerTuple(ndivide=1)}
    meaning = ax.legend(handles, labels, bbox_to_anchor=at, handler_map=together, **_ABOVE)
    if len(shades) == 1:
        meaning.set_title(f"sparsity {sparsity[0]:g}")
        meaning.get_title().set_fontsize(7.0)
        meaning.set_alignment("left")
        return
    ax.add_artist(meaning)
    # add_artist clips to the axes, and the layout leaves no room for what it takes to be clipped away.
    meaning.set_clip_on(False)
    _legend_sparsities(ax, sparsity, shades, MARKERS if comparison is not None else ("",))


def _legend_sparsities(ax: Axes, sparsity: Array, shades: list[Any], marks: Sequence[str]) -> None:
    """Each sparsity's colour, with its marker where there are any."""
    lines = [
        Line2D([], [], color=c, marker=marks[i % len(marks)] or None, markersize=3.5, markerfacecolor="white")
        for i, c in enumerate(shades)
    ]
    names = [f"{s:g}" if i else f"sparsity {s:g}" for i, s in enumerate(sparsity)]
    columns = min(len(shades), 5)
    ax.legend(lines, names, bbox_to_anchor=(0.0, 1.0), ncols=columns, columnspacing=1.0, **_ABOVE)


# --- critical sparsity --------------------------------------------------------------------------------------


def _draw_collapse(ax: Axes, collapse: CollapsePrediction, measured: Any) -> None:
    drawn = np.sort(np.asarray(collapse.samples, dtype=float))
    seen = _measured(measured)
    low, high = _span(drawn, seen, collapse.bound)
    sparsity_axis(ax, low, high)
    kept = np.geomspace(1.0 - low, 1.0 - high, 400)
    ten, ninety = (float(x) for x in np.quantile(drawn, (0.1, 0.9)))
    ax.axvspan(ten, ninety, color=PREDICTED, alpha=0.15, linewidth=0, label=f"{collapse.method}: 80 % range")
    if seen is not None:
        bins = 1.0 - np.geomspace(1.0 - low, 1.0 - high, _bins(seen, low, high) + 1)
        share = np.histogram(seen, bins)[0] / len(seen)
        ax.stairs(share, bins, color=MEASURED, fill=True, alpha=0.35)
        seeds = f"{len(seen)} seeds" if len(seen) > 1 else "one seed"
        ax.stairs(share, bins, color=MEASURED, linewidth=0.8, label=f"measured $s_{{cr}}$, {seeds}")
    label = f"{collapse.method}: $P(s_{{cr}} \\leq s)$"
    ax.plot(1.0 - kept, collapse.probability(1.0 - kept), color=PREDICTED, label=label)
    if collapse.bound is not None and low <= collapse.bound <= high:
        ax.axvline(
            collapse.bound, color=GREY, linestyle="--", linewidth=1.0, label="paper's bound on $E[s_{cr}]$"
        )
    ax.set_ylim(0.0, 1.03)
    ax.set_xlabel("sparsity $s$ (axis logarithmic in $1 - s$)")
    ax.set_ylabel("probability" if seen is None else "probability,\nshare of seeds")
    _legend_above(ax)


def _measured(values: Any) -> Array | None:
    if values is None:
        return None
    seen = np.ravel(np.asarray(values, dtype=float))
    if not len(seen) or not np.all((seen >= 0.0) & (seen <= 1.0)):
        raise ArgumentError(f"measured must hold numbers in [0, 1], got {str(values)[:60]}")
    # A network of a single layer loses it with its last weight, at s = 1, which a logarithm does not show.
    return np.minimum(seen, 1.0 - 1e-12)


def _span(drawn: Array, seen: Array | None, bound: float | None) -> tuple[float, float]:
    """Sparsities from where to where to draw: all measured and predicted ones, with a margin in 1 − s."""
    points = [*np.quantile(drawn, (0.001, 0.999))]
    if seen is not None:
        points += [seen.min(), seen.max()]
    if bound is not None and 0.0 <= bound < 1.0:
        points.append(bound)
    logs = -np.log10(np.maximum(1.0 - np.array(points), 1e-12))
    margin = max(0.12 * float(np.ptp(logs)), 0.01)
    return max(0.0, 1.0 - 10.0 ** -(logs.min() - margin)), 1.0 - 10.0 ** -(logs.max() + margin)


def _bins(seen: Array, low: float, high: float) -> int:
    """Bins over the axis: about 1.5 √n of them where the n values lie."""
    inside = np.ptp(np.log10(1.0 - seen)) / abs(np.log10((1.0 - low) / (1.0 - high)))
    return int(np.clip(np.sqrt(len(seen)) * 1.5 / max(inside, 0.05), 8, 60))


def _legend_above(ax: Axes, most: int = 2) -> None:
    handles, _ = ax.get_legend_handles_labels()
    columns = min(most, max(len(handles), 1))
    ax.legend(bbox_to_anchor=(-0.05, 1.0), ncols=columns, columnspacing=1.0, **_ABOVE)
