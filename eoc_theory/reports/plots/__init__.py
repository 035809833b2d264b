"""Plots of the results: predictions as lines with a band, measurements as points with error bars.

Every function takes a result, and

- `path`: the file to write, png, pdf or svg by its suffix; None writes none;
- `ax`: the axes to draw in, of several panels the first; None makes a figure.

It returns a matplotlib ``Figure`` made without pyplot's global state, so nothing needs a display or a call to
``close``, and raises ArgumentError where `path` cannot be written.
"""

from __future__ import annotations

from .attention import plot_attention_phase
from .connections import plot_connections
from .meanfield import plot_critical_curve, plot_phase_diagram
from .pruning import plot_collapse, plot_comparison, plot_measurement, plot_prediction
from .trainability import plot_trainability

__all__ = [
    "plot_attention_phase",
    "plot_collapse",
    "plot_comparison",
    "plot_connections",
    "plot_critical_curve",
    "plot_measurement",
    "plot_phase_diagram",
    "plot_prediction",
    "plot_trainability",
]
