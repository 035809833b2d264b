"""The figures, in the order in which they are drawn. A new one is added here."""

from __future__ import annotations

from . import (
    atlas,
    attention_phase,
    collapse,
    collapse_depth,
    correlation_convergence,
    cost,
    critical_curves,
    dropout,
    error_with_width,
    kept_per_layer,
    phase_diagram,
    remedies,
    rescaling,
    residual,
    surviving_connections,
)
from .figure import FigureScript, StudyFigure

FIGURES: tuple[FigureScript | StudyFigure, ...] = (
    critical_curves.FIGURE,
    phase_diagram.FIGURE,
    correlation_convergence.FIGURE,
    dropout.FIGURE,
    attention_phase.FIGURE,
    kept_per_layer.FIGURE,
    collapse.FIGURE,
    collapse_depth.FIGURE,
    rescaling.FIGURE,
    remedies.FIGURE,
    residual.FIGURE,
    atlas.FIGURE,
    surviving_connections.FIGURE,
    error_with_width.FIGURE,
    cost.FIGURE,
)
