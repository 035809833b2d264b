"""Plots of the mean-field theory: the edge of chaos as a curve, and the phases around it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import binary_dilation, distance_transform_edt

from ...errors import ArgumentError
from ...mean_field.maps import DROPOUT_PHASES, PHASES
from .style import COLOURS, canvas, colours, finish, label, style

if TYPE_CHECKING:
    from ...mean_field.edge_of_chaos import CriticalCurve
    from ...mean_field.phase_diagram import PhaseDiagram

Path = str | os.PathLike[str] | None
Array = np.ndarray

WEIGHT_LABEL = r"weight scale $\sigma_w$ (s.d. of a weight $\times \sqrt{\mathrm{fan\ in}}$)"
BIAS_LABEL = r"bias scale $\sigma_b$ (s.d. of a bias)"
#: Depth scales that get a contour, in layers.
DEPTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
#: Share of the picture that must lie between a contour and the critical line for it to be drawn.
CROWDED = 0.015
ORDERED, CHAOTIC = "#d9e8f3", "#fbe3cf"


def plot_critical_curve(
    curve: CriticalCurve | Sequence[CriticalCurve], path: Path = None, *, ax: Axes | None = None
) -> Figure:
    """The critical σ_w against σ_b; dashed where the variance map does not stay at its fixed point.

    `curve` may be several to compare.
    """
    curves = list(curve) if isinstance(curve, Sequence) else [curve]
    with style():
        title = ", ".join(dict.fromkeys(label(one.activation.name) for one in curves[:3]))
        figure, ax = canvas(ax, 2.6, f"{title}{', …' if len(curves) > 3 else ''}: edge of chaos")
        unstable = False
        for one, colour in zip(curves, colours(len(curves)), strict=True):
            unstable |= _draw_curve(ax, one, colour)
        if unstable:
            ax.plot([], [], color="0.3", linestyle=(0, (2, 1.5)), label="unstable")
        ax.set_xlabel(BIAS_LABEL)
        ax.set_ylabel(r"critical weight scale $\sigma_w$")
        ax.margins(x=0.03, y=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6))
        low = min(float(np.min(one.sigma_b)) for one in curves)
        high = max(float(np.max(one.sigma_b)) for one in curves)
        if high > low:
            ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.03, 1.0), ncols=3, borderaxespad=0.2, columnspacing=1.2
        )
        return finish(figure, path)


def _draw_curve(ax: Axes, curve: CriticalCurve, colour: str) -> bool:
    """Draw one curve and say whether a part of it is unstable."""
    order = np.argsort(np.ravel(curve.sigma_b))
    bias, weight = np.ravel(curve.sigma_b)[order], np.ravel(curve.sigma_w)[order]
    stable, there = np.ravel(curve.stable)[order], np.isfinite(weight)
    name, unstable = label(curve.activation.name), there & ~stable
    if curve.dropout:
        name += f", dropout {curve.dropout:g}"
    if there.sum() == 1:
        ax.plot(
            bias[there],
            weight[there],
            "o",
            color=colour,
            markersize=5,
            clip_on=False,
            label=f"{name} (one point)",
        )
        return bool(unstable.any())
    ax.plot(bias, np.where(_with_neighbours(stable, there), weight, np.nan), color=colour, label=name)
    if unstable.any():
        ax.plot(bias, np.where(unstable, weight, np.nan), color=colour, linestyle=(0, (2, 1.5)))
    return bool(unstable.any())


def _with_neighbours(chosen: Array, there: Array) -> Array:
    """The chosen points and those beside them, so that the solid part reaches the dashed one."""
    wide = chosen.copy()
    wide[1:] |= chosen[:-1]
    wide[:-1] |= chosen[1:]
    return wide & there


def check_grid(name: str, shape: tuple[int, ...], axes: Mapping[str, Array]) -> None:
    """Refuse what no contours can be drawn of: fewer points than 2 × 2, or axes that turn back."""
    if min(shape) < 2:
        raise ArgumentError(f"{name} must have at least 2 x 2 points, got {shape}")
    for axis, values in axes.items():
        steps = np.diff(values)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ArgumentError(f"{axis} must rise or fall from point to point to be drawn")


def plot_phase_diagram(diagram: PhaseDiagram, path: Path = None, *, ax: Axes | None = None) -> Figure:
    """Ordered and chaotic phase over σ_w and σ_b, with contours of the depth scales ξ_c and ξ_q in layers.

    Under dropout, where correlations have no phases: where gradients vanish and explode.

    Raises ArgumentError for a grid under 2 × 2, and for axes that do not rise or fall.
    """
    axes = {f"{axis} of diagram": getattr(diagram, axis) for axis in ("sigma_w", "sigma_b")}
    check_grid("diagram", diagram.q_star.shape, axes)
    with style():
        figure, ax = canvas(ax, 3.0)
        low, _, high = _names(diagram)
        sign = np.where(diagram.phase == high, 1.0, np.where(diagram.phase == low, -1.0, 0.0))
        ax.pcolormesh(
            diagram.sigma_w, diagram.sigma_b, sign, cmap=_phase_colours(), vmin=-1, vmax=1, rasterized=True
        )
        _draw_divergence(ax, diagram)
        _draw_scales(ax, diagram, sign)
        _name_phases(ax, diagram)
        ax.set_xlabel(WEIGHT_LABEL)
        ax.set_ylabel(BIAS_LABEL)
        ax.set_xlim(diagram.sigma_w.min(), diagram.sigma_w.max())
        ax.set_ylim(diagram.sigma_b.min(), diagram.sigma_b.max())
        noise = f" with dropout {diagram.dropout:g}" if diagram.dropout else ""
        ax.set_title(f"{label(diagram.activation.name)}{noise}: depth scales in layers", loc="left", pad=16)
        return finish(figure, path)


def _names(diagram: PhaseDiagram) -> tuple[str, str, str]:
    """What the phases with χ below, at and above 1 are called."""
    return DROPOUT_PHASES if diagram.dropout else PHASES


def _phase_colours() -> Any:
    return ListedColormap([ORDERED, "#ffffff", CHAOTIC])


def _draw_scales(ax: Axes, diagram: PhaseDiagram, sign: Array) -> None:
    """Contours of ±1/ξ_c, which is continuous through the critical line where ξ_c itself is infinite.

    Under dropout ξ_c is finite and continuous as it is, but for σ_b = 0 where signals die out.
    """
    with np.errstate(divide="ignore"):
        correlation = sign / diagram.xi_c
        if diagram.dropout:
            correlation = np.where(diagram.q_star > 0.0, 1.0 / diagram.xi_c, np.nan)
        variance = 1.0 / diagram.xi_q
    # Positively homogeneous activations have V' = χ and one scale for both.
    same = np.isclose(diagram.xi_q, diagram.xi_c, rtol=1e-6)
    handles = [
        _contours(
            ax,
            diagram,
            correlation,
            r"$\xi_c$ = $\xi_q$" if same.mean() > 0.1 else r"$\xi_c$ (correlation)",
            COLOURS[0],
        ),
        _contours(ax, diagram, np.where(same, np.nan, variance), r"$\xi_q$ (variance)", COLOURS[2], "dashed"),
        _draw_edge(ax, diagram, sign),
    ]
    ax.legend(
        handles=[h for h in handles if h is not None],
        loc="lower left",
        bbox_to_anchor=(-0.03, 0.99),
        ncols=3,
        borderaxespad=0.1,
        columnspacing=1.0,
    )


def _contours(
    ax: Axes, diagram: PhaseDiagram, rate: Array, label: str, colour: str, linestyle: Any = "solid"
) -> Any:
    """Contours where |rate| = 1/depth, as many as have room beside each other, and their legend entry."""
    levels = []
    for sign in (-1.0, 1.0):
        left = 1.0
        for depth in DEPTHS:
            # The share of the picture between this contour and the critical line.
            beyond = float(np.mean((sign * rate > 0.0) & (sign * rate < 1.0 / depth)))
            if CROWDED < beyond < left - CROWDED / 2:
                levels.append(sign / depth)
                left = beyond
    if not levels:
        return None
    lines = ax.contour(
        diagram.sigma_w,
        diagram.sigma_b,
        np.ma.masked_invalid(rate),
        sorted(levels),
        colors=colour,
        linewidths=0.7,
        linestyles=linestyle,
    )
    ax.clabel(lines, fmt=lambda x: f"{abs(1 / x):.0f}", fontsize=6, inline_spacing=2)
    return Line2D([], [], color=colour, linewidth=0.7, linestyle=linestyle, label=label)


def _draw_edge(ax: Axes, diagram: PhaseDiagram, sign: Array) -> Any:
    """The line χ = 1; not where χ jumps past 1 because the variance starts to grow without bound."""
    if not ((sign < 0).any() and (sign > 0).any()):
        return None
    grows = np.isinf(diagram.q_star)
    jump = grows & binary_dilation(~grows & (diagram.chi < 0.97), np.ones((3, 3)))
    gap = np.where(jump | ~np.isfinite(diagram.chi), np.nan, diagram.chi - 1.0)
    ax.contour(
        diagram.sigma_w, diagram.sigma_b, np.ma.masked_invalid(gap), [0.0], colors="black", linewidths=1.6
    )
    label = r"$\chi$ = 1" if diagram.dropout else "edge of chaos"
    return Line2D([], [], color="black", linewidth=1.6, label=label)


def _draw_divergence(ax: Axes, diagram: PhaseDiagram) -> None:
    """Hatching where the variance grows without bound."""
    grows = np.isinf(diagram.q_star)
    if grows.any():
        with_hatch = ax.contourf(
            diagram.sigma_w, diagram.sigma_b, grows.astype(float), [0.5, 1.5], colors="none", hatches=["////"]
        )
        with_hatch.set_edgecolor("0.65")
        with_hatch.set_linewidth(0.0)


def _name_phases(ax: Axes, diagram: PhaseDiagram) -> None:
    """The phases' names, each in the middle of its part of the grid."""
    grows = np.isinf(diagram.q_star)
    low, _, high = _names(diagram)
    what = "gradients " if diagram.dropout else ""
    for name, where in (
        (f"{what}{low}", (diagram.phase == low) & ~grows),
        (f"{what}{high}", (diagram.phase == high) & ~grows),
        ("variance grows\nwithout bound", grows),
    ):
        if where.mean() < 0.04:
            continue
        row, column = middle(where)
        ax.text(
            diagram.sigma_w[column],
            diagram.sigma_b[row],
            name,
            ha="center",
            va="center",
            fontsize=8,
            fontstyle="italic",
            color="0.2",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5},
        )


def middle(where: Array) -> tuple[int, int]:
    """The point of a region that is farthest from its border (and from the picture's)."""
    padded = np.pad(where, 1)
    spacing = (1.0 / padded.shape[0], 1.0 / padded.shape[1])
    distance = np.asarray(distance_transform_edt(padded, sampling=spacing))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(column)
