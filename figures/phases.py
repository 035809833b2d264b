"""The three initialisations that figures compare, of tanh networks with 100 layers of width 100."""

from __future__ import annotations

from analysis import Network
from analysis.studies.collapse import KEPT
from eoc_theory.networks.architecture import Architecture

#: Networks by title, critical ones at σ_b = 0.2.
PHASES: dict[str, Network] = dict(zip(("ordered", "critical", "chaotic"), KEPT.networks, strict=True))
(SPARSITY,) = KEPT.sparsities


def network(phase: str) -> Architecture:
    """The architecture of a phase, for digits."""
    return PHASES[phase].build((64,), 10)


def title(phase: str) -> str:
    """The phase with its initialisation, for a panel's head."""
    layer = network(phase).layers[1]
    return f"{phase}: $\\sigma_w={layer.sigma_w:.4g}$, $\\sigma_b={layer.sigma_b:g}$"
