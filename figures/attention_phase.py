"""Where transformers can be trained: phases with sampled networks, and the transition at many tokens."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.mean_field.attention_phase import ATTENTION_PHASES, AttentionPhase
from eoc_theory.reports.plots import plot_attention_phase
from eoc_theory.reports.plots.attention import FILLS, SCALE_LABEL, STRENGTH_LABEL
from eoc_theory.reports.plots.files import save
from eoc_theory.reports.plots.style import COLOURS, GREY, new_figure, style
from paper_checks.attention_phases import phase_of
from paper_checks.attention_transition import square
from paper_checks.transformers import Blocks, sample

from .figure import FigureScript, Results

TOKENS, DEPTH, WIDTH = 32, 12, 256
#: Norm of each panel; both have a GELU MLP.
PANELS = ("pre", "post")
#: Where networks are sampled.
SCALES = np.geomspace(0.15, 22.0, 6)
STRENGTHS = np.geomspace(0.07, 3.5, 6)
#: Numbers of tokens of the third panel, and β/β_c.
MANY, BETAS = (16, 256, 4096), np.linspace(0.02, 3.0, 80)
#: Colour and marker of a sampled network in each phase.
LOOKS = dict(
    zip(
        ATTENTION_PHASES, zip((*COLOURS[:2], COLOURS[3], GREY, COLOURS[2]), "os^vD", strict=True), strict=True
    )
)
ON_GRID = ("similarity", "gap", "token_exponent", "gradient_exponent", "entropy", "query_share")


def compute() -> Results:
    """The diagrams' arrays, the phases of the sampled networks, and E Σ A² for the third panel."""
    results: dict[str, np.ndarray] = {}
    for norm in PANELS:
        diagram = eoc.attention_phase(
            np.geomspace(0.1, 32.0, 60), np.geomspace(0.05, 5.0, 60), tokens=TOKENS, depth=DEPTH, norm=norm
        )
        for name in ("score_scale", "residual_strength", *ON_GRID):
            results[f"{norm}_{name}"] = getattr(diagram, name).astype(np.float32)
        results[f"{norm}_phase"] = diagram.phase
        nets = [Blocks(WIDTH, 8, TOKENS, DEPTH, s, a, norm) for a in STRENGTHS for s in SCALES]
        results[f"{norm}_sampled"] = np.array([phase_of([sample(net, i)]) for i, net in enumerate(nets)])
    root = float(np.sqrt(2.0))
    results["transition"] = np.array([[square(t, float(b) * root, 0.0) for b in BETAS] for t in MANY])
    return results


def draw(results: Results, path: Path) -> None:
    """A diagram for each norm with its networks, and the transition."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    with style():
        figure = new_figure(7.0, 2.9)
        *phases, transition = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.8))
        places = np.array([(s, a) for a in STRENGTHS for s in SCALES])
        there: set[str] = set()
        for ax, norm in zip(phases, PANELS, strict=True):
            plot_attention_phase(_diagram(results, norm), ax=ax)
            legend = ax.get_legend()
            lines = [] if legend is None else list(legend.legend_handles)
            if legend is not None:
                legend.remove()
            ax.set_title("", loc="left")
            ax.set_title(f"{norm}-LN")
            ax.set(xlabel=SCALE_LABEL, ylabel=STRENGTH_LABEL if norm == PANELS[0] else "")
            for text in list(ax.texts):
                if not text.get_text().replace(".", "").isdigit():
                    text.remove()  # a phase's name, which the legend has
            there |= set(results[f"{norm}_sampled"].tolist()) | set(results[f"{norm}_phase"].ravel().tolist())
            for name, (colour, marker) in LOOKS.items():
                x, y = places[results[f"{norm}_sampled"] == name].T
                look = {"markersize": 3.6, "markeredgecolor": "white", "markeredgewidth": 0.4}
                ax.plot(x, y, marker, color=colour, **look)
        handles: list[Any] = [
            (
                Patch(color=FILLS[name][0]),
                Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4),
            )
            for name, (colour, marker) in LOOKS.items()
            if name in there
        ]
        names = [FILLS[name][1] for name in LOOKS if name in there]
        labels = [str(line.get_label()) for line in lines if line is not None]
        figure.legend(
            [*lines, *handles], [*labels, *names], loc="outside upper left", ncols=6, columnspacing=1.2
        )
        _draw_transition(transition, results["transition"])
        save(figure, path)


def _draw_transition(ax: Any, squares: np.ndarray) -> None:
    for tokens, row, colour in zip(MANY, squares, COLOURS, strict=False):
        ax.plot(BETAS, row, color=colour, label=f"T = {tokens:,}")
    ax.plot(BETAS, np.maximum(1.0 - 1.0 / BETAS, 0.0), color="black", linestyle="dashed", label=r"T → ∞")
    ax.set_xlim(0.0, 3.0)
    ax.set_ylim(0.0, 1.0)
    ax.set_title(r"scores of variance $\beta^2 \log T$")
    ax.set_xlabel(r"$\beta/\beta_c$")
    ax.set_ylabel(r"$\mathrm{E}\,\Sigma_b\, A_{ab}^2$")
    ax.legend(loc="lower right")


def _diagram(results: Results, norm: str) -> AttentionPhase:
    """The diagram of a panel, from its arrays."""
    stored = {
        field.name: results[f"{norm}_{field.name}"]
        for field in fields(AttentionPhase)
        if f"{norm}_{field.name}" in results
    }
    return AttentionPhase(
        **stored, tokens=TOKENS, depth=DEPTH, norm=norm, activation=eoc.activation("gelu"), gain=1.0,
        mlp_gain=1.0, skip=1.0, input_similarity=0.0, gradient_similarity=0.0,
    )  # fmt: skip


FIGURE = FigureScript(
    "attention_phase",
    f"Phases of transformers of {DEPTH} blocks with a GELU MLP and {TOKENS} tokens; a marker is one sampled "
    f"network of width {WIDTH}. Right: how finite numbers of tokens approach the transition.",
    compute,
    draw,
)
