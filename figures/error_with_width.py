"""Error of the predictions against width, by depth: measured as points, what the predictions say as lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.studies.trust import DEPTHS, TRUST, WIDTHS
from eoc_theory.pruning.error_model import evaluate, find
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import GREY, MARKERS, new_figure, points, style

from .figure import Results, StudyFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis import Store

#: E|z| of a standard normal variable.
HALF_NORMAL = float(np.sqrt(2 / np.pi))
#: Those that the error map is fitted to.
ACTIVATIONS = ("tanh", "relu")
TICKS = (0.002, 0.005, 0.01, 0.02)
PANELS = {
    "kept": "error of the fraction kept",
    "collapse": "error of median $\\log_{10}(1-s_{cr})$",
}


def reduce(store: Store) -> Results:
    """Per width and depth: means over activations, phases and, for kept, sparsities.

    Arrays of shape (widths, depths) for "kept" and "collapse": ``_error`` measured, less what the
    measurement's own noise adds; ``_deviation``, its standard error; ``_stated``, what the predictions say.
    """
    cells: dict[tuple[str, int, int], list[tuple[np.ndarray, ...]]] = {}
    for row in store.rows("error"):
        asked, found = row.asked["network"], row.found
        if asked["activation"] in ACTIVATIONS:
            for what, values in (("kept", _kept(found)), ("collapse", _collapse(found))):
                cells.setdefault((what, asked["width"], asked["depth"]), []).append(values)
    results: dict[str, np.ndarray] = {}
    for what in PANELS:
        table = np.array([[_cell(cells[what, width, depth]) for depth in DEPTHS] for width in WIDTHS])
        for at, name in enumerate(("error", "deviation", "stated")):
            results[f"{what}_{name}"] = table[..., at]
    return results


def _kept(found: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Measured error, its noise, its standard error and the stated one, by sparsity."""
    noise = HALF_NORMAL * np.sqrt(found["noise_square"])
    stated = evaluate(find("kept", "snip", "chain")[0], np.array(found["predicted_std"]))
    return np.array(found["error"]), noise, np.array(found["error_deviation"]), stated


def _collapse(found: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The same of the critical sparsity, shape (1,) each."""
    gap, deviation = np.array([abs(found["gap"])]), np.array([found["gap_deviation"]])
    stated = evaluate(find("collapse", "snip", "chain")[0], np.array([found["predicted_spread"]]))
    return gap, HALF_NORMAL * deviation, deviation, stated


def _cell(networks: list[tuple[np.ndarray, ...]]) -> tuple[float, float, float]:
    error, noise, deviation, stated = (np.array(values) for values in zip(*networks, strict=True))
    mean = float(error.mean())
    true = float(np.sqrt(max(mean**2 - noise.mean() ** 2, 0.0)))
    # Sparsities share their networks, whose errors go together.
    own = float(np.sqrt((deviation.mean(axis=1) ** 2).sum())) / len(error)
    return true, own * mean / true if true else own, float(stated.mean())


def draw(results: Results, path: Path) -> None:
    """Above against width, below as maps of width and depth."""
    from matplotlib.lines import Line2D

    with style():
        figure = new_figure(7.0, 4.8)
        panels = figure.subplots(2, 2, height_ratios=(1.35, 1.0))
        for (what, label), (upper, lower) in zip(PANELS.items(), panels.T, strict=True):
            arrays = [results[f"{what}_{name}"] for name in ("error", "deviation", "stated")]
            _against_width(upper, *arrays)
            upper.set_ylabel(label)
            _map(lower, *arrays)
        panels[0, 0].set_yscale("log")
        panels[0, 0].set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panels[0, 0].minorticks_off()
        panels[0, 1].set_ylim(bottom=0.0)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        handles, labels = [Line2D([], [], color=GREY), *handles], ["stated by the predictions", *labels]
        figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), columnspacing=1.2)
        save(figure, path)


def _against_width(ax: Axes, error: np.ndarray, deviation: np.ndarray, stated: np.ndarray) -> None:
    import matplotlib

    for at, depth in enumerate(DEPTHS):
        colour = matplotlib.colormaps["viridis"](at / len(DEPTHS))
        ax.plot(WIDTHS, stated[:, at], color=colour)
        # A little apart, so that the bars can be told apart.
        x = np.array(WIDTHS) * 1.03 ** (at - 1.5)
        low = np.minimum(deviation[:, at], 0.7 * error[:, at])
        look = {"markeredgewidth": 1.0, "label": f"measured, depth {depth}"}
        points(ax, x, error[:, at], [low, deviation[:, at]], colour=colour, marker=MARKERS[at], **look)
    ax.set_xscale("log")
    ax.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    ax.minorticks_off()
    ax.set_xlabel("width (units)")


def _map(ax: Axes, error: np.ndarray, deviation: np.ndarray, stated: np.ndarray) -> None:
    """Stated error as colour, both as numbers: measured below; where it is all noise, how much that is."""
    from matplotlib.colors import LogNorm

    scale: Any = LogNorm(0.8 * stated.min(), 1.2 * stated.max())
    ax.imshow(stated.T, norm=scale, cmap="cividis", origin="lower", aspect="auto")
    middle = np.sqrt(scale.vmin * scale.vmax)
    for i in range(len(WIDTHS)):
        for j in range(len(DEPTHS)):
            ink = "white" if stated[i, j] < middle else "black"
            seen = f"{error[i, j]:.2g}" if error[i, j] > 0.0 else f"<{deviation[i, j]:.2g}"
            text = f"{stated[i, j]:.2g}\n({seen})"
            ax.text(i, j, text, ha="center", va="center", color=ink, fontsize=5.5, linespacing=0.95)
    ax.set_xticks(range(len(WIDTHS)), [str(width) for width in WIDTHS])
    ax.set_yticks(range(len(DEPTHS)), [str(depth) for depth in DEPTHS])
    ax.set_xlabel("width (units)")
    ax.set_ylabel("depth (layers)")
    ax.set_title("stated (measured)", fontsize=7.0)


FIGURE = StudyFigure(
    "error_with_width",
    "Error of the predictions for SNIP against width and depth: measured, and as the predictions state it.",
    TRUST,
    reduce,
    draw,
)
