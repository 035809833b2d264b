"""The style of all plots: one column wide, readable in print, safe for colour-blind readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors.text import name, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

#: Width of a journal's column, inches.
COLUMN = 3.5

#: Okabe & Ito's colours, the dark ones first; each comes with its own marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#595959"
#: Characters of a name in a title or a legend.
LONGEST_LABEL = 40

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
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure outside pyplot, size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=_STYLE["figure.dpi"])


def label(text: str) -> str:
    """A name as it may stand in a picture: no formula, in characters that the font has."""
    return "".join(map(_glyph, shortened(name(text), LONGEST_LABEL))).replace("$", "\\$")


@lru_cache(maxsize=4096)
def _glyph(character: str) -> str:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if font.get_char_index(ord(character)):
        return character
    return character.encode("unicode_escape").decode("ascii")


def canvas(ax: Axes | None, height: float) -> tuple[Figure, Axes]:
    """The axes to draw in: those given, or the only ones of a new figure."""
    if ax is None:
        figure = new_figure(COLUMN, height)
        return figure, figure.subplots()
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Write the figure where a path is given, and hand it back."""
    if path is not None:
        from .files import save

        save(figure, path)
    return figure


def points(ax: Axes, x: Any, y: Any, error: Any, *, colour: Any, marker: str, **look: Any) -> None:
    """Measured values with error bars, as everywhere but for what `look` says (of ``Axes.errorbar``)."""
    usual = {"markersize": 3.5, "markerfacecolor": "white", "markeredgewidth": 0.8, "elinewidth": 0.8}
    ax.errorbar(x, y, yerr=error, fmt=marker, color=colour, **(usual | look))


def colours(n: int) -> list[Any]:
    """`n` colours that can be told apart; beyond the palette, steps of viridis in order."""
    if n <= len(COLOURS):
        return list(COLOURS[:n])
    import matplotlib

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
        from matplotlib.ticker import MaxNLocator

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
