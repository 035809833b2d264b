"""Deep networks at initialisation, and pruned there.

The edge of chaos of any activation, what pruning keeps in each layer, when a layer collapses.

Every public name is here. A name is loaded from its module when it is first used, so that
``import eoc_theory`` costs neither torch nor matplotlib nor numba nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import Activation, activation, activation_names
    from .architecture import Architecture, WeightLayer, mlp
    from .bounds import magnitude_bound, snip_bound
    from .builders import cnn, resnet, vgg
    from .collapse import CollapsePrediction, predict_collapse
    from .comparing import Comparison, compare
    from .connectivity import connected_weights
    from .criticality import CriticalCurve, CriticalPoint, critical_curve, edge_of_chaos
    from .data import DataSummary, digits, digits_images
    from .datasets import load_images
    from .designing.design import Design, design
    from .diagnosing import Diagnosis, diagnose
    from .errors import EOCError
    from .initialising import initialize_
    from .masking import prune_
    from .meanfield import MeanField
    from .measuring import PruningMeasurement, measure_pruning
    from .phase import PhaseDiagram, phase_diagram
    from .prediction import PruningPrediction, predict_pruning
    from .propagation import Propagation, propagate
    from .rescaling import rescale_
    from .summary import SummaryPropagation, propagate_summary

__version__ = "0.1.0"

_MODULES = {
    "activations": ("Activation", "activation", "activation_names"),
    "architecture": ("Architecture", "WeightLayer", "mlp"),
    "bounds": ("magnitude_bound", "snip_bound"),
    "builders": ("cnn", "resnet", "vgg"),
    "collapse": ("CollapsePrediction", "predict_collapse"),
    "comparing": ("Comparison", "compare"),
    "connectivity": ("connected_weights",),
    "criticality": ("CriticalCurve", "CriticalPoint", "critical_curve", "edge_of_chaos"),
    "data": ("DataSummary", "digits", "digits_images"),
    "datasets": ("load_images",),
    "designing": ("Design", "design"),
    "diagnosing": ("Diagnosis", "diagnose"),
    "errors": ("EOCError",),
    "initialising": ("initialize_",),
    "masking": ("prune_",),
    "meanfield": ("MeanField",),
    "measuring": ("PruningMeasurement", "measure_pruning"),
    "phase": ("PhaseDiagram", "phase_diagram"),
    "prediction": ("PruningPrediction", "predict_pruning"),
    "propagation": ("Propagation", "propagate"),
    "rescaling": ("rescale_",),
    "summary": ("SummaryPropagation", "propagate_summary"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Activation",
    "Architecture",
    "CollapsePrediction",
    "Comparison",
    "CriticalCurve",
    "CriticalPoint",
    "DataSummary",
    "Design",
    "Diagnosis",
    "EOCError",
    "MeanField",
    "PhaseDiagram",
    "Propagation",
    "PruningMeasurement",
    "PruningPrediction",
    "SummaryPropagation",
    "WeightLayer",
    "activation",
    "activation_names",
    "cnn",
    "compare",
    "connected_weights",
    "critical_curve",
    "design",
    "diagnose",
    "digits",
    "digits_images",
    "edge_of_chaos",
    "initialize_",
    "load_images",
    "magnitude_bound",
    "measure_pruning",
    "mlp",
    "phase_diagram",
    "predict_collapse",
    "predict_pruning",
    "propagate",
    "propagate_summary",
    "prune_",
    "rescale_",
    "resnet",
    "snip_bound",
    "vgg",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
