"""Phases of tanh networks, with contours of the depth scales."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

import eoc_theory as eoc
from eoc_theory.phase import PhaseDiagram
from eoc_theory.plotting import plot_phase_diagram

from .figure import FigureScript, Results

ACTIVATION = "tanh"


def compute() -> Results:
    """The diagram's arrays."""
    diagram = eoc.phase_diagram(
        ACTIVATION, sigma_w=np.linspace(0.5, 3.0, 126), sigma_b=np.linspace(0.0, 1.0, 81)
    )
    arrays = {name: getattr(diagram, name) for name in _ARRAYS}
    # A picture needs no more than single precision.
    return {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}


def draw(results: Results, path: Path) -> None:
    """Draws the diagram."""
    plot_phase_diagram(PhaseDiagram(eoc.activation(ACTIVATION), **results), path)


_ARRAYS = tuple(field.name for field in fields(PhaseDiagram) if field.name != "activation")

FIGURE = FigureScript("phase_diagram", "Phases of tanh networks and their depth scales.", compute, draw)
