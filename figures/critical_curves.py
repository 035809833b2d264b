"""The edge of chaos of several activations in one chart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eoc_theory as eoc
from eoc_theory.criticality import CriticalCurve
from eoc_theory.plotting import plot_critical_curve

from .figure import FigureScript, Results

ACTIVATIONS = ("tanh", "erf", "elu", "silu", "gelu", "relu")


def compute() -> Results:
    """Critical curves over one grid of σ_b."""
    # Dense near 0, where the curves of smooth odd activations are steep.
    sigma_b = np.linspace(0.0, 1.0, 161) ** 1.5
    curves = [eoc.critical_curve(name, sigma_b=sigma_b) for name in ACTIVATIONS]
    return {
        "sigma_b": sigma_b,
        "sigma_w": np.array([curve.sigma_w for curve in curves]),
        "q": np.array([curve.q for curve in curves]),
        "stable": np.array([curve.stable for curve in curves]),
    }


def draw(results: Results, path: Path) -> None:
    """Draws the curves."""
    curves = [
        CriticalCurve(eoc.activation(name), sigma_w, results["sigma_b"], q, stable)
        for name, sigma_w, q, stable in zip(
            ACTIVATIONS, results["sigma_w"], results["q"], results["stable"], strict=True
        )
    ]
    plot_critical_curve(curves, path)


FIGURE = FigureScript("critical_curves", "Edge of chaos of six activations.", compute, draw)
