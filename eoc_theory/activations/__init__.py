"""Activation functions: built-in, from an expression, from a NumPy callable, from torch."""

from __future__ import annotations

from .catalogue import activation_names
from .core import Activation, Growth
from .resolve import activation

__all__ = ["Activation", "Growth", "activation", "activation_names"]
