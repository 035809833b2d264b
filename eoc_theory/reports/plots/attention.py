"""The plot of attention's phases."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .meanfield import check_grid, middle
from .style import COLOURS, canvas, finish, label, style

if TYPE_CHECKING:
    from ...mean_field.attention_phase import AttentionPhase

Path = str | os.PathLike[str] | None
Array = np.ndarray

SCALE_LABEL = r"score scale $\sigma_q\sigma_k$"
STRENGTH_LABEL = r"residual strength $\alpha$"
#: Fill of each phase, and what it is called in the picture.
FILLS = {
    "rank-collapsed": ("#d9e8f3", "rank collapse"),
    "entropy-collapsed": ("#fbe3cf", "entropy collapse"),
    "exploding": ("#f2d9e6", "gradients explode"),
    "vanishing": ("#dcdcdc", "gradients vanish"),
    "trainable": ("#ffffff", "trainable"),
}
#: Token similarities, and powers of ten of the gradient's growth through all blocks, that get a contour.
SIMILARITIES = (0.1, 0.25, 0.5, 0.75, 0.95)
GROWTHS = (-9, -6, -3, 3, 6, 9)
#: A phase with a smaller share of the picture is not named in it.
NAMED = 0.04


def plot_attention_phase(found: AttentionPhase, path: Path = None, *, ax: Axes | None = None) -> Figure:
    """The phases over σ_qσ_k and α, with contours of token similarity and of the growth of gradients.

    Raises ArgumentError for a grid under 2 × 2, and for axes that do not rise or fall.
    """
    axes = {axis: getattr(found, axis) for axis in ("score_scale", "residual_strength")}
    check_grid("the grid", found.similarity.shape, axes)
    with style():
        figure, ax = canvas(ax, 3.2)
        draw_phases(ax, found)
        handles = [
            _contours(ax, found, found.similarity, SIMILARITIES, COLOURS[0], "solid", "token similarity $p$"),
            _contours(
                ax,
                found,
                found.gradient_exponent * found.depth / np.log(10.0),
                GROWTHS,
                COLOURS[1],
                "dashed",
                r"gradient growth, $10^n$",
            ),
        ]
        _name_phases(ax, found)
        ax.legend(
            handles=[one for one in handles if one is not None],
            loc="lower left",
            bbox_to_anchor=(-0.03, 0.99),
            ncols=2,
            borderaxespad=0.1,
            columnspacing=1.0,
        )
        ax.set_title(_title(found), loc="left", pad=16)
        return finish(figure, path)


def draw_phases(ax: Axes, found: AttentionPhase) -> None:
    """The phases as areas, the axes and their labels."""
    number = np.select([found.phase == name for name in FILLS], range(len(FILLS)))
    ax.pcolormesh(
        found.score_scale,
        found.residual_strength,
        number,
        cmap=ListedColormap([colour for colour, _ in FILLS.values()]),
        vmin=-0.5,
        vmax=len(FILLS) - 0.5,
        rasterized=True,
    )
    for axis, values in (("x", found.score_scale), ("y", found.residual_strength)):
        if values.min() > 0.0 and values.max() / values.min() > 8.0:
            getattr(ax, f"set_{axis}scale")("log")
            _plain_ticks(getattr(ax, f"{axis}axis"), values)
        getattr(ax, f"set_{axis}lim")(values.min(), values.max())
    ax.set_xlabel(SCALE_LABEL)
    ax.set_ylabel(STRENGTH_LABEL)


def _title(found: AttentionPhase) -> str:
    mlp = "no MLP" if found.activation is None else f"{label(found.activation.name)} MLP"
    return f"{found.norm}-LN, {found.depth} blocks, {found.tokens} tokens, {mlp}"


def _plain_ticks(axis: Any, values: Array) -> None:
    """0.1, 1, 10 in place of powers."""
    decades = np.log10(values.max() / values.min())
    axis.set_major_locator(LogLocator(10.0, subs=(1.0,) if decades > 3.0 else (1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _contours(
    ax: Axes,
    found: AttentionPhase,
    values: Array,
    levels: tuple[float, ...],
    colour: str,
    linestyle: Any,
    name: str,
) -> Any:
    """Contours of finite values at the levels that they cross, and their legend entry."""
    finite = np.ma.masked_invalid(values)
    crossed = [level for level in levels if finite.min() < level < finite.max()]
    if not crossed:
        return None
    lines = ax.contour(
        found.score_scale,
        found.residual_strength,
        finite,
        crossed,
        colors=colour,
        linewidths=0.8,
        linestyles=linestyle,
    )
    ax.clabel(lines, fmt=lambda x: f"{x:g}", fontsize=6, inline_spacing=2)
    return Line2D([], [], color=colour, linewidth=0.8, linestyle=linestyle, label=name)


def _name_phases(ax: Axes, found: AttentionPhase) -> None:
    """The phases' names, each in the middle of its part of the grid."""
    for phase, (_, name) in FILLS.items():
        where = found.phase == phase
        if where.mean() < NAMED:
            continue
        row, column = middle(where)
        narrow = where.any(axis=0).mean() < 0.45
        ax.text(
            found.score_scale[column],
            found.residual_strength[row],
            name.replace(" ", "\n") if narrow else name,
            ha="center",
            va="center",
            fontsize=8,
            fontstyle="italic",
            color="0.2",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5},
        )
