"""The style of all plots: one column wide, readable in print, safe for colour-blind readers."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...errors.text import name, shortened
from .figure import Figure as ShownFigure
from .files import save

Array = np.ndarray

_NUMBER = re.compile(r"\d+")

#: Width of a journal's column, inches.
COLUMN = 3.5

#: Okabe & Ito's colours, the dark ones first; each comes with its own marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#595959"
#: Characters of a name in a title or a legend.
LONGEST_LABEL = 40
#: Characters of a network's name in a title.
LONGEST_TITLE = 80
#: Characters of a title in an inch, and the height of one of its lines in inches.
CHARACTERS, TITLE_LINE = 16, 0.15
#: Names of layers under an axis one column wide, and characters of each.
MOST_NAMES, LONGEST_TICK = 24, 22

_STYLE: Any = {
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "savefig.dpi": 300,
    "figure.dpi": 150,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The house style for what is drawn inside, whatever the user's settings are; these are left alone."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure outside pyplot, size in inches, and higher by the lines of its title."""
    lines = textwrap.wrap(title, max(20, int(width * CHARACTERS)))
    figure = ShownFigure(
        figsize=(width, height + TITLE_LINE * len(lines)), layout="constrained", dpi=_STYLE["figure.dpi"]
    )
    if lines:
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=_STYLE["axes.titlesize"])
    return figure


def title_of(network: str, *more: str) -> str:
    """The name of a network, and what else there is to say, as a title."""
    return ", ".join(filter(None, (label(network, LONGEST_TITLE), *more)))


def label(text: str, longest: int = LONGEST_LABEL) -> str:
    """A name as it may stand in a picture: no formula, in characters that the font has."""
    return "".join(map(_glyph, shortened(name(text), longest))).replace("$", "\\$")


@lru_cache(maxsize=4096)
def _glyph(character: str) -> str:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if font.get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode("ascii")


def canvas(ax: Axes | None, height: float, title: str = "") -> tuple[Figure, Axes]:
    """The axes to draw in: those given, or the only ones of a new figure with that title."""
    if ax is None:
        figure = new_figure(COLUMN, height, title)
        return figure, figure.subplots()
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Write the figure where a path is given, and hand it back."""
    if path is not None:
        save(figure, path)
    return figure


def are_named(layers: Sequence[str]) -> bool:
    """Whether the names of layers say more than their places do: whether more than one number differs."""
    patterns = {_NUMBER.sub("#", layer) for layer in layers}
    return len(layers) > 1 and (len(patterns) > 1 or any(pattern.count("#") > 1 for pattern in patterns))


def name_height(layers: Sequence[str]) -> float:
    """Inches that the names of layers take under an axis."""
    longest = max((min(len(layer), LONGEST_TICK) for layer in layers), default=0)
    return 0.052 * longest if are_named(layers) else 0.0


def layer_axis(ax: Axes, layers: Sequence[str]) -> None:
    """Make x the axis of weight layers 1, 2, …; with their names, where these say more than the numbers."""
    count = len(layers)
    ax.set_xlim(0.4, count + max(0.6, 0.02 * count))
    if not are_named(layers):
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
        ax.set_xlabel("weight layer, from the input")
        return
    every = -(-count // MOST_NAMES)
    shown = range(0, count, every)
    ax.set_xticks([i + 1 for i in shown], [label(layers[i], LONGEST_TICK) for i in shown])
    ax.tick_params(axis="x", labelrotation=90, labelsize=5.5, pad=1.0, length=2.0)
    if every > 1:
        ax.set_xticks(range(1, count + 1), minor=True)
        ax.tick_params(axis="x", which="minor", length=1.0)
    ax.set_xlabel(
        "weight layer, in the order of the model" + (f" (every {every}th named)" if every > 1 else "")
    )


def off_path(layers: Sequence[str], shortcuts: Collection[str]) -> Array:
    """Which layers stand on a shortcut, so that no line may lead through them, shape (L,)."""
    return np.array([layer in shortcuts for layer in layers], dtype=bool)


def points(ax: Axes, x: Any, y: Any, error: Any, *, colour: Any, marker: str, **look: Any) -> None:
    """Measured values with error bars, as everywhere but for what `look` says (of ``Axes.errorbar``)."""
    usual = {"markersize": 3.5, "markerfacecolor": "white", "markeredgewidth": 0.8, "elinewidth": 0.8}
    ax.errorbar(x, y, yerr=error, fmt=marker, color=colour, **(usual | look))


def colours(n: int) -> list[Any]:
    """`n` colours that can be distinguished; beyond the palette, steps of viridis in order."""
    if n <= len(COLOURS):
        return list(COLOURS[:n])
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.0, 0.9, n)]


def sparsity_axis(ax: Axes, low: float, high: float) -> None:
    """Make x a sparsity axis from `low` to `high` that is logarithmic in what is kept, 1 − s."""
    floor = 1e-12

    def forward(s: Array) -> Array:
        return -np.log10(np.maximum(1.0 - np.asarray(s, dtype=float), floor))

    def inverse(u: Array) -> Array:
        return 1.0 - 10.0 ** -np.asarray(u, dtype=float)

    ax.set_xscale("function", functions=(forward, inverse))
    ax.set_xlim(low, high)
    if high > 0.8:
        ticks = _sparsity_ticks(float(forward(np.array(low))), float(forward(np.array(high))))
        ax.set_xticks([1.0 - kept for kept in ticks], [_sparsity_label(kept) for kept in ticks])
    else:
        # Round sparsities are the round numbers here.
        rounded = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
        ax.set_xticks(rounded, [f"{t:.6g}" for t in rounded])
    ax.minorticks_off()


def _sparsity_ticks(low: float, high: float) -> list[float]:
    """Fractions kept at which to write a sparsity, for −log10(kept) from `low` to `high`: four to seven."""
    exponents = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(range(1, 10))):
        kept = [m * 10.0**-k for k in exponents for m in steps]
        inside = [x for x in kept if low - 1e-9 <= -np.log10(x) <= high + 1e-9]
        if len(inside) >= 4:
            every = -(-len(inside) // 7)
            return sorted(inside, reverse=True)[::every]
    # Less than a decimal of 1 − s wide: evenly, to three digits of it.
    return [float(f"{10.0**-u:.2e}") for u in np.linspace(low, high, 4)]


def _sparsity_label(kept: float) -> str:
    """1 − kept in decimals, with no more digits than `kept` has."""
    digits = max(0, int(np.ceil(-np.log10(kept) - 1e-9)) + 1)
    return f"{1.0 - kept:.{digits}f}".rstrip("0").rstrip(".") or "0"
