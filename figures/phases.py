"""The three initialisations that figures compare, of tanh networks with 100 layers of width 100."""

from __future__ import annotations

import eoc_theory as eoc
from eoc_theory.architecture import Architecture

ACTIVATION, DEPTH, WIDTH, SPARSITY = "tanh", 100, 100, 0.7
#: (σ_w, σ_b) by title; None stands for the edge of chaos at σ_b = 0.2.
PHASES: dict[str, tuple[float, float] | None] = {
    "ordered": (1.0, 0.2),
    "critical": None,
    "chaotic": (2.0, 0.2),
}


def network(phase: str) -> Architecture:
    """The architecture of a phase."""
    return eoc.mlp(DEPTH, WIDTH, activation=ACTIVATION, init=PHASES[phase] or "eoc")


def title(phase: str) -> str:
    """The phase with its initialisation, for a panel's head."""
    layer = network(phase).layers[1]
    return f"{phase}: $\\sigma_w={layer.sigma_w:.4g}$, $\\sigma_b={layer.sigma_b:g}$"
