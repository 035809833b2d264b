"""SynFlow's compiled inner loops, imported on first use: importing them imports numba."""

from __future__ import annotations

from types import ModuleType


def chain_loops() -> ModuleType:
    """Those of fully connected chains."""
    from . import _chain_kernel

    return _chain_kernel


def graph_loops() -> ModuleType:
    """Those of graphs of layers."""
    from . import _graph_kernel

    return _graph_kernel
