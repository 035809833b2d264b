"""A diagnosis in four plots: kept, score moments, scales, and the probability of collapse."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots.style import (
    COLOURS,
    COLUMN,
    GREY,
    canvas,
    finish,
    layer_axis,
    name_height,
    new_figure,
    off_path,
    sparsity_axis,
    style,
    title_of,
)
from .signals import squared_norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .diagnosis import Diagnosis
    from .forecast import Outlook

Array = np.ndarray

FOUND, CURED = COLOURS[0], COLOURS[1]
#: Beyond this ratio of the largest to the smallest fraction kept an axis is logarithmic.
WIDE = 30.0
#: Smallest fraction kept that a logarithmic axis shows.
FLOOR = 1e-5


def plot_diagnosis(
    diagnosis: Diagnosis, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None
) -> Figure:
    """Kept per layer, score moments, σ_w beside the edge of chaos and P(collapse), before and after the cure.

    In given axes only what is kept is drawn.
    """
    with style():
        if ax is not None:
            figure, ax = canvas(ax, 2.5)
            draw_kept(ax, diagnosis)
            return finish(figure, path)
        title = title_of(diagnosis.network, f"{diagnosis.criterion} at s = {diagnosis.sparsity:g}")
        figure = new_figure(2 * COLUMN, 5.2 + 2.0 * name_height(diagnosis.layers), title)
        for one, (_, draw) in zip(figure.subplots(2, 2).flat, panels(diagnosis), strict=True):
            draw(one, diagnosis)
        return finish(figure, path)


def panels(diagnosis: Diagnosis) -> tuple[tuple[str, Callable[[Axes, Diagnosis], None]], ...]:
    """Title of each picture, and the function that draws it."""
    scales: tuple[str, Callable[[Axes, Diagnosis], None]] = ("Scale of the weights", draw_scales)
    if diagnosis.signals is not None:
        scales = ("Signals and gradients", draw_signals)
    return (
        ("What pruning keeps", draw_kept),
        ("Second moment of the scores", draw_moments),
        scales,
        ("Probability of collapse", draw_collapse),
    )


def plot_panel(
    diagnosis: Diagnosis, draw: Callable[[Axes, Diagnosis], None], path: str | None = None
) -> Figure:
    """One of the four, as a figure of its own."""
    with style():
        figure, ax = canvas(None, 2.5 + (name_height(diagnosis.layers) if draw is not draw_collapse else 0.0))
        draw(ax, diagnosis)
        return finish(figure, path)


def draw_kept(ax: Axes, diagnosis: Diagnosis) -> None:
    """Fraction kept in each layer, mean and standard deviation; a cross where a layer is likely empty."""
    outlooks = _outlooks(diagnosis)
    kept = np.concatenate([outlook.kept for outlook, _, _ in outlooks])
    top = float(max((outlook.kept + outlook.kept_std).max() for outlook, _, _ in outlooks))
    logarithmic = top > WIDE * max(float(kept.min()), FLOOR)
    # The bottom of the axis, where what is nothing is drawn.
    bottom = max(FLOOR, min(0.5 * float(kept[kept > FLOOR].min(initial=1.0)), 1e-3)) if logarithmic else 0.0
    x = np.arange(1, len(diagnosis.layers) + 1)
    main = ~off_path(diagnosis.layers, diagnosis.shortcuts)
    for outlook, colour, label in outlooks:
        low = np.clip(outlook.kept - outlook.kept_std, bottom, 1.0)
        high = np.clip(outlook.kept + outlook.kept_std, bottom, 1.0)
        ax.fill_between(x[main], low[main], high[main], color=colour, alpha=0.22, linewidth=0)
        mark = "o" if len(x) == 1 else None
        mean = np.maximum(outlook.kept, bottom)
        _line(ax, x, mean, main, color=colour, marker=mark, markersize=3.5, label=label)
        if len(outlook.emptied):
            size = float(np.clip(120.0 / len(x), 3.0, 6.0))
            at = np.full(len(outlook.emptied), bottom)
            ax.plot(
                x[outlook.emptied], at, "x" if colour == FOUND else "+", color=colour, markersize=size,
                clip_on=False, zorder=4, label="likely collapsed" if colour == FOUND else None,
            )  # fmt: skip
    ax.axhline(
        1.0 - diagnosis.sparsity, color=GREY, linestyle="--", linewidth=0.8, label="the same in each layer"
    )
    if logarithmic:
        ax.set_yscale("log")
        ax.set_ylim(bottom, 1.3)
    else:
        ax.set_ylim(0.0, min(1.03, 1.08 * max(top, 1.0 - diagnosis.sparsity)))
    ax.set_ylabel(f"fraction kept at s = {diagnosis.sparsity:g}")
    layer_axis(ax, diagnosis.layers)
    _legend(ax)


def draw_moments(ax: Axes, diagnosis: Diagnosis) -> None:
    """Decades between each layer's score moment and the last layer's."""
    x = np.arange(1, len(diagnosis.layers) + 1)
    main = ~off_path(diagnosis.layers, diagnosis.shortcuts)
    for outlook, colour, label in _outlooks(diagnosis):
        look: dict[str, Any] = {"color": colour, "marker": _dots(len(x)), "markersize": 2.5, "label": label}
        _line(ax, x, outlook.log10_moment, main, **look)
    ax.axhline(0.0, color=GREY, linestyle="--", linewidth=0.8)
    _finish_decades(ax, diagnosis, "log$_{10}$ $m^l/m^L$")


def draw_scales(ax: Axes, diagnosis: Diagnosis) -> None:
    """σ_w as found, and on the edge of chaos where an activation follows."""
    x = np.arange(1, len(diagnosis.layers) + 1)
    size = float(np.clip(150.0 / len(x), 2.0, 4.0))
    free = diagnosis.reading.normalised
    if (~free).any():
        ax.plot(x[~free], diagnosis.sigma_w[~free], "o", color=FOUND, markersize=size, label="as found")
    if free.any():
        ax.plot(
            x[free], diagnosis.sigma_w[free], "o", color=FOUND, markersize=size, markerfacecolor="none",
            markeredgewidth=0.7, label="no effect (normalised)",
        )  # fmt: skip
    edge = np.where(free, np.nan, diagnosis.sigma_w_edge)
    if np.isfinite(edge).any():
        ax.plot(
            x, edge, color=GREY, marker="_", markersize=1.6 * size, markeredgewidth=1.4, linestyle="none",
            label="edge of chaos",
        )  # fmt: skip
    shown = np.concatenate([diagnosis.sigma_w, edge[np.isfinite(edge)]])
    if shown.max() > WIDE * shown.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(0.0, 1.15 * float(shown.max()))
    ax.set_ylabel("$\\sigma_w$")
    layer_axis(ax, diagnosis.layers)
    _legend(ax)


def draw_signals(ax: Axes, diagnosis: Diagnosis) -> None:
    """Mean squares of each layer's output and, relative to the last one, of the gradient's norm."""
    after = diagnosis.signals_after
    for seen, colour, label in ((diagnosis.signals, FOUND, ""), (after, CURED, ", cured")):
        if seen is None:
            continue
        x = np.arange(1, len(diagnosis.layers) + 1)
        norm = squared_norm(seen)
        last = norm[seen.by_depth[-1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            signal, gradient = np.log10(seen.signal), np.log10(norm / last)
        marks = {"color": colour, "marker": _dots(len(x)), "markersize": 2.5}
        ax.plot(x, np.where(np.isfinite(signal), signal, np.nan), label=f"signal{label}", **marks)
        shown = np.where(np.isfinite(gradient), gradient, np.nan)
        ax.plot(x, shown, linestyle=":", label=f"gradient{label}", **marks)
    ax.axhline(0.0, color=GREY, linestyle="--", linewidth=0.8)
    _finish_decades(ax, diagnosis, "log$_{10}$ signal, gradient / last")


def _finish_decades(ax: Axes, diagnosis: Diagnosis, label: str) -> None:
    """Axes, label and legend of decades over layers, of which at least two are shown: fewer are no drama."""
    low, high = ax.get_ylim()
    if high - low < 2.0:
        ax.set_ylim((low + high) / 2 - 1.0, (low + high) / 2 + 1.0)
    ax.set_ylabel(label)
    layer_axis(ax, diagnosis.layers)
    _legend(ax)


def draw_collapse(ax: Axes, diagnosis: Diagnosis) -> None:
    """P(collapse) against sparsity, and the sparsity asked for."""
    outlooks = _outlooks(diagnosis)
    ends = np.concatenate([np.quantile(o.collapse.samples, (0.002, 0.998)) for o, _, _ in outlooks])
    logs = -np.log10(np.maximum(1.0 - np.append(ends, diagnosis.sparsity), 1e-9))
    margin = max(0.12 * float(np.ptp(logs)), 0.02)
    low = max(0.0, 1.0 - 10.0 ** -(logs.min() - margin))
    high = 1.0 - 10.0 ** -(logs.max() + margin)
    sparsity_axis(ax, low, high)
    kept = np.geomspace(1.0 - low, 1.0 - high, 500)
    for outlook, colour, label in outlooks:
        ax.plot(1.0 - kept, outlook.collapse.probability(1.0 - kept), color=colour, label=label)
    label = f"s = {diagnosis.sparsity:g}"
    ax.axvline(diagnosis.sparsity, color=GREY, linestyle="--", linewidth=0.8, label=label)
    ax.set_ylim(0.0, 1.03)
    ax.set_xlabel("sparsity $s$ (axis logarithmic in $1 - s$)")
    ax.set_ylabel("P(collapse)")
    _legend(ax)


def _outlooks(diagnosis: Diagnosis) -> list[tuple[Outlook, Any, str]]:
    """The predictions with their colours and names."""
    found: list[tuple[Outlook, Any, str]] = [(diagnosis.before, FOUND, "as found")]
    if diagnosis.after is not None:
        found.append((diagnosis.after, CURED, "after the cure"))
    return found


def _dots(layers: int) -> str | None:
    """Points where there are few."""
    return "o" if layers <= 40 else None


def _line(ax: Axes, x: Array, y: Array, main: Array, **look: Any) -> None:
    """A line through the layers of the main path; those on a shortcut are marks beside it."""
    ax.plot(x[main], y[main], **look)
    if not main.all():
        beside: dict[str, Any] = {
            "marker": "D",
            "markersize": 2.6,
            "markerfacecolor": "white",
            "linestyle": "none",
        }
        marks: dict[str, Any] = look | beside | {"label": None}
        ax.plot(x[~main], y[~main], **marks)


def _legend(ax: Axes) -> None:
    """Above the axes, where it hides nothing."""
    _, labels = ax.get_legend_handles_labels()
    fits = len(labels) < 4 and sum(map(len, labels)) < 36
    ax.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3 if fits else 2, columnspacing=1.0,
        borderaxespad=0.2,
    )  # fmt: skip
