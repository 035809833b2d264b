"""The edge of chaos of every activation that has one, in one chart of six families."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import eoc_theory as eoc
from eoc_theory.mean_field.edge_of_chaos import CriticalCurve
from eoc_theory.reports.plots import plot_critical_curve
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.meanfield import BIAS_LABEL, WEIGHT_LABEL
from eoc_theory.reports.plots.style import COLOURS, new_figure, style

from .figure import FigureScript, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: By panel. celu is elu; threshold is relu; gelu_tanh differs from gelu by less than a line's width.
FAMILIES = {
    "saturating": ("tanh", "erf", "atan", "softsign", "hardtanh", "asinh"),
    "exponential, clipped, periodic": ("elu", "selu", "relu6", "sin", "cos", "snake"),
    "gated": ("gelu", "silu", "hardswish", "mish"),
    "sigmoids": ("sigmoid", "hardsigmoid"),
    "little or nothing stable": ("softshrink", "tanhshrink", "bent_identity", "square", "cube", "exp"),
    r"homogeneous: $\sigma_b = 0$ alone": ("relu", "leaky_relu", "rrelu", "prelu", "abs", "identity"),
}
LOGARITHMIC, POINTS = list(FAMILIES)[-2:]
NAMES = tuple(name for family in FAMILIES.values() for name in family)


def compute() -> Results:
    """Critical curves over one grid of σ_b."""
    # Dense near 0, where the curves of smooth odd activations are steep.
    sigma_b = 1.2 * np.linspace(0.0, 1.0, 91) ** 1.5
    curves = [eoc.critical_curve(name, sigma_b=sigma_b) for name in NAMES]
    return {
        "sigma_b": sigma_b,
        "sigma_w": np.array([curve.sigma_w for curve in curves]),
        "q": np.array([curve.q for curve in curves]),
        "stable": np.array([curve.stable for curve in curves]),
    }


def draw(results: Results, path: Path) -> None:
    """Draws the curves, a panel for each family."""
    rows = zip(NAMES, results["sigma_w"], results["q"], results["stable"], strict=True)
    curves = {
        name: CriticalCurve(eoc.activation(name), sigma_w, results["sigma_b"], q, stable)
        for name, sigma_w, q, stable in rows
    }
    with style():
        figure = new_figure(6.0, 4.4)
        panels = figure.subplots(2, 3)
        for ax, (family, names) in zip(panels.flat, FAMILIES.items(), strict=True):
            ax.set_title(family)
            ax.set_xlim(-0.03, 1.2)
            if family == POINTS:
                _draw_points(ax, [curves[name] for name in names], names)
                continue
            plot_critical_curve([curves[name] for name in names], ax=ax)
            ax.set(xlabel="", ylabel="", xlim=(-0.03, 1.2))
            if family == LOGARITHMIC:
                ax.set_yscale("log")
                ax.set_ylim(0.03, 50.0)
            if "atan" in names:
                # atan lies on it.
                ax.lines[0].set_linewidth(2.6)
            ax.legend(
                ncols=2,
                fontsize=6,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.12),
                handlelength=1.4,
                columnspacing=1.0,
            )
        figure.supxlabel(BIAS_LABEL, fontsize=8)
        figure.supylabel("critical " + WEIGHT_LABEL, fontsize=8)
        save(figure, path)


def _draw_points(ax: Axes, curves: list[CriticalCurve], names: tuple[str, ...]) -> None:
    """The one point of each homogeneous activation, named beside it; names are kept apart."""
    above = np.inf
    for curve, name in sorted(zip(curves, names, strict=True), key=lambda pair: -np.nanmax(pair[0].sigma_w)):
        sigma_w = float(np.nanmax(curve.sigma_w))
        ax.plot([0.0], [sigma_w], "o", color=COLOURS[0], markersize=4, clip_on=False)
        above = min(sigma_w + 0.02, above - 0.045)
        ax.annotate(
            f"{name}  {sigma_w:.4f}",
            (0.0, sigma_w),
            (0.2, above),
            fontsize=6,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5},
        )
    ax.set_ylim(0.93, 1.47)


FIGURE = FigureScript(
    "critical_curves",
    "Edge of chaos of every activation that has one; dashed where variances do not stay on it.",
    compute,
    draw,
)
