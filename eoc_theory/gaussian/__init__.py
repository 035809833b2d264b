"""Gaussian expectations of one neuron: E[f(√q Z)] with errors, moments and tables, Hermite coefficients."""

from __future__ import annotations

from .expectations import Estimate, Moments, expectation, moments
from .hermite import hermite_coefficients
from .tables import MomentTable, moment_table

__all__ = [
    "Estimate",
    "MomentTable",
    "Moments",
    "expectation",
    "hermite_coefficients",
    "moment_table",
    "moments",
]
