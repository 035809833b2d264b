"""Which criterion survives to which sparsity on which architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.measures_collapse import median_error
from analysis.studies.atlas import ATLAS
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import GREY, new_figure, style

from .figure import Results, StudyFigure
from .stored import collapses

if TYPE_CHECKING:
    from analysis import Network, Store

NETWORKS = tuple(dict.fromkeys(task.network for task in ATLAS.tasks()))
#: Criteria from the one that looks at the data to the ones that look at nothing.
CRITERIA = {
    "snip": "SNIP", "grasp": "GraSP", "magnitude": "magni-\ntude", "synflow": "SynFlow,\n100 times",
    "synflow-oneshot": "SynFlow,\nonce", "random": "random", "uniform": "uniform", "erk": "ERK",
}  # fmt: skip
#: Medians of log₁₀(1 − s) farther apart than this are both written; and than this, and than twice the
#: standard error of the measured one, marked.
DIFFERENT, MISSED = 0.05, 0.1


def reduce(store: Store) -> Results:
    """`predicted` and `measured` medians of s_cr, (networks, criteria), nan where nothing is stored.

    `error`: standard error of the measured median of log₁₀(1 − s_cr), nan for few networks.
    """
    names = {
        f"{row}_{column}": (network, criterion)
        for row, network in enumerate(NETWORKS)
        for column, criterion in enumerate(CRITERIA)
    }
    found = collapses(store, names)

    def table(kind: str, value: Callable[[np.ndarray], object]) -> np.ndarray:
        return np.array(
            [
                [
                    value(found.get(f"{row}_{column}_{kind}", np.array([np.nan])))
                    for column in range(len(CRITERIA))
                ]
                for row in range(len(NETWORKS))
            ],
            dtype=float,
        )

    return {
        "predicted": table("predicted", np.median),
        "measured": table("measured", np.median),
        "error": table("measured", lambda s: median_error(np.log10(1.0 - s))),
    }


def label(network: Network) -> str:
    """A row's name."""
    kind = {
        "mlp": "MLP", "cnn": "CNN", "vgg": "VGG", "resnet": "ResNet", "stable-resnet": "Stable ResNet",
        "densenet": "DenseNet", "vit": "ViT", "gated-vit": "gated ViT",
    }[network.kind]  # fmt: skip
    unnumbered = network.kind in ("mlp", "cnn", "vit", "gated-vit")
    words = f"{kind} {network.depth}" if unnumbered else f"{kind}-{network.depth}"
    words += f" × {network.width}"
    if network.kind in ("vit", "gated-vit"):
        return f"{words}, pre-LN"
    if network.normalisation is not None:
        return words + (", BN eval." if network.normalisation == "batch-eval" else ", BN")
    if not isinstance(network.init, str):
        phase = f"ordered ({network.init[0]:g}, {network.init[1]:g})"
    else:
        phase = {"eoc": "critical", "pytorch": "PyTorch's"}[network.init]
    return f"{words}, {'ReLU' if network.activation == 'relu' else network.activation}, {phase}"


def digits(sparsity: float) -> str:
    """`sparsity` with two digits of 1 − s."""
    if not sparsity < 1.0:
        return "1"
    return f"{sparsity:.{max(2, int(np.ceil(-np.log10(1.0 - sparsity))) + 1)}f}"


def agreement(results: Results) -> tuple[int, int]:
    """Cells whose medians are within MISSED of each other in log₁₀(1 − s), and all that have both."""
    gap = np.abs(np.log10(1.0 - results["predicted"]) - np.log10(1.0 - results["measured"]))
    known = np.isfinite(gap)
    return int((gap[known] <= MISSED).sum()), int(known.sum())


def draw(results: Results, path: Path) -> None:
    """A heat map with its numbers."""
    predicted, measured = results["predicted"], results["measured"]
    shown = -np.log10(1.0 - predicted)
    gap = np.abs(shown + np.log10(1.0 - measured))
    missed = gap > np.maximum(MISSED, 2.0 * np.nan_to_num(results["error"]))
    with style():
        import matplotlib

        figure = new_figure(7.0, 0.27 * len(NETWORKS) + 0.9)
        ax = figure.subplots()
        colours = matplotlib.colormaps["viridis"].with_extremes(bad="#CCCCCC")
        image = ax.imshow(np.ma.masked_invalid(shown), cmap=colours, aspect="auto", vmin=0.0)
        ax.set_xticks(range(len(CRITERIA)), list(CRITERIA.values()))
        ax.set_yticks(range(len(NETWORKS)), [label(network) for network in NETWORKS])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        top = float(np.nanmax(shown))
        for (row, column), value in np.ndenumerate(predicted):
            if np.isnan(value):
                ax.text(column, row, "–", ha="center", va="center", color=GREY, fontsize=6.5, in_layout=False)
                continue
            words = digits(float(value))
            if gap[row, column] > DIFFERENT:
                words += f"\n({digits(float(measured[row, column]))})"
            ax.text(
                column,
                row,
                words,
                ha="center",
                va="center",
                fontsize=6.0,
                color="white" if shown[row, column] < 0.6 * top else "black",
                fontweight="bold" if missed[row, column] else "normal",
                # They lie inside; measuring them all takes seconds.
                in_layout=False,
            )
        near, known = agreement(results)
        ax.set_xlabel(
            f"In brackets: the measured median where it is more than {DIFFERENT:g} off "
            f"in $\\log_{{10}}(1 - s)$;\nbold where more than {MISSED:g} and more than two standard errors. "
            f"Within {MISSED:g}: {near} of {known} cells.",
            fontsize=7.0,
        )
        bar = figure.colorbar(image, ax=ax, pad=0.01, fraction=0.04)
        decades = range(int(np.floor(top)) + 1)
        bar.set_ticks(list(decades), labels=[f"{1.0 - 10.0**-k:g}" for k in decades])
        bar.set_label("predicted median of $s_{cr}$")
        bar.outline.set_visible(False)  # type: ignore[operator]
        save(figure, path)


FIGURE = StudyFigure(
    "atlas",
    "Median critical sparsity of every criterion on every architecture, predicted (and measured); batch "
    "normalisation (BN) in training mode unless it says eval.",
    ATLAS,
    reduce,
    draw,
)
