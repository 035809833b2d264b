"""Probability that a layer is empty against sparsity, and measured critical sparsities as a histogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eoc_theory as eoc
from eoc_theory.collapse import CollapsePrediction
from eoc_theory.plotting import plot_collapse
from eoc_theory.plotting.files import save
from eoc_theory.plotting.style import COLOURS, new_figure, style

from .figure import FigureScript, Results
from .phases import PHASES, SPARSITY, network, title

SEEDS = 100


def compute() -> Results:
    """Draws of s_cr from the theory, and s_cr of real networks."""
    data = eoc.digits(100)
    results: dict[str, np.ndarray] = {}
    for phase in PHASES:
        net = network(phase)
        predicted = eoc.predict_collapse(net, data=data)
        measured = [
            eoc.measure_pruning(net.to_torch(seed), SPARSITY, data=data, device="cpu", masks=False)
            for seed in range(SEEDS)
        ]
        results[f"{phase}_predicted"] = predicted.samples
        results[f"{phase}_weakest"] = predicted.weakest_probability
        results[f"{phase}_measured"] = np.array([one.critical_sparsity for one in measured])
    return results


def draw(results: Results, path: Path) -> None:
    """Three panels side by side with one legend."""
    with style():
        figure = new_figure(7.0, 2.5)
        panels = figure.subplots(1, len(PHASES), sharey=True)
        for ax, phase in zip(panels, PHASES, strict=True):
            net = network(phase)
            weakest = results[f"{phase}_weakest"]
            samples = results[f"{phase}_predicted"]
            prediction = CollapsePrediction(
                criterion="snip",
                layers=net.weight_layers,
                critical_sparsity=float(samples.mean()),
                samples=samples,
                weakest_probability=weakest,
                weakest_layer=net.weight_layers[int(weakest.argmax())],
                bound=None,
            )
            measured = np.sort(results[f"{phase}_measured"])
            plot_collapse(prediction, measured=measured, ax=ax)
            share = np.arange(1, len(measured) + 1) / len(measured)
            ax.step(
                measured,
                share,
                where="post",
                color=COLOURS[1],
                linestyle=(0, (3, 1)),
                label="measured share with $s_{cr} \\leq s$",
            )
            ax.set_title(title(phase))
            ax.set_xlabel("sparsity $s$ (log. in $1 - s$)")
            handles, labels = ax.get_legend_handles_labels()
            legend = ax.get_legend()
            if legend is not None:
                legend.remove()
        panels[0].set_ylabel("probability, share of seeds")
        for ax in panels[1:]:
            ax.set_ylabel("")
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        save(figure, path)


FIGURE = FigureScript(
    "collapse",
    "Probability that some layer is empty against sparsity, and measured critical sparsities.",
    compute,
    draw,
)
