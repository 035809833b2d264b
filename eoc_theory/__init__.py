"""Deep networks at initialisation, and pruned there.

The edge of chaos of any activation, what pruning keeps in each layer, when a layer collapses.

Every public name is here. A name is loaded from its module when it is first used, so that
``import eoc_theory`` costs neither torch nor matplotlib nor numba nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base.version import __version__ as __version__

if TYPE_CHECKING:
    from .activations import Activation, activation, activation_names
    from .criteria.criterion import Criterion, criterion, register_criterion
    from .errors import EOCError
    from .layers.register import register_layer
    from .mean_field.attention_phase import AttentionPhase, attention_phase
    from .mean_field.edge_of_chaos import CriticalCurve, CriticalPoint, critical_curve, edge_of_chaos
    from .mean_field.gain import Gain, gain
    from .mean_field.maps import MeanField
    from .mean_field.phase_diagram import PhaseDiagram, phase_diagram
    from .networks.architecture import Architecture, WeightLayer, mlp
    from .networks.builders import cnn, resnet, vgg
    from .networks.transformers import gpt, transformer, vit
    from .propagation.infinite_width import Propagation, propagate
    from .propagation.summary import SummaryPropagation, propagate_summary
    from .pruning.collapse import CollapsePrediction, predict_collapse
    from .pruning.paper_bounds import magnitude_bound, snip_bound
    from .pruning.prediction import PruningPrediction, predict_pruning
    from .pruning.trainability import Trainability
    from .pytorch.initialize import initialize_
    from .pytorch.mask_files import load_masks, masks_of, save_masks
    from .pytorch.measure.connectivity import connected_weights
    from .pytorch.measure.measure import PruningMeasurement, measure_pruning
    from .pytorch.prune import prune_
    from .pytorch.rearrange import rearrange_masks
    from .pytorch.rescale import rescale_
    from .pytorch.trainability import trainability
    from .pytorch.watch import LayerScales, lightning_callback, watch_layers
    from .reports.compare import Comparison, compare
    from .reports.design.design import Design, design
    from .reports.diagnosis import Diagnosis, diagnose
    from .signals.data import DataSummary, digits, digits_images
    from .signals.datasets import load_images

_MODULES = {
    "criteria": ("Criterion", "criterion", "register_criterion"),
    "layers.register": ("register_layer",),
    "activations": ("Activation", "activation", "activation_names"),
    "networks.architecture": ("Architecture", "WeightLayer", "mlp"),
    "pruning.paper_bounds": ("magnitude_bound", "snip_bound"),
    "networks.builders": ("cnn", "resnet", "vgg"),
    "networks.transformers": ("gpt", "transformer", "vit"),
    "pruning.collapse": ("CollapsePrediction", "predict_collapse"),
    "reports.compare": ("Comparison", "compare"),
    "pytorch.measure.connectivity": ("connected_weights",),
    "mean_field.attention_phase": ("AttentionPhase", "attention_phase"),
    "mean_field.edge_of_chaos": ("CriticalCurve", "CriticalPoint", "critical_curve", "edge_of_chaos"),
    "signals.data": ("DataSummary", "digits", "digits_images"),
    "signals.datasets": ("load_images",),
    "reports.design": ("Design", "design"),
    "reports.diagnosis": ("Diagnosis", "diagnose"),
    "errors": ("EOCError",),
    "pytorch.initialize": ("initialize_",),
    "pytorch.mask_files": ("load_masks", "masks_of", "save_masks"),
    "pytorch.prune": ("prune_",),
    "pytorch.rearrange": ("rearrange_masks",),
    "mean_field.gain": ("Gain", "gain"),
    "mean_field.maps": ("MeanField",),
    "pytorch.measure.measure": ("PruningMeasurement", "measure_pruning"),
    "mean_field.phase_diagram": ("PhaseDiagram", "phase_diagram"),
    "pruning.prediction": ("PruningPrediction", "predict_pruning"),
    "propagation.infinite_width": ("Propagation", "propagate"),
    "pytorch.rescale": ("rescale_",),
    "pruning.trainability": ("Trainability",),
    "pytorch.trainability": ("trainability",),
    "pytorch.watch": ("LayerScales", "lightning_callback", "watch_layers"),
    "propagation.summary": ("SummaryPropagation", "propagate_summary"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Activation",
    "Architecture",
    "AttentionPhase",
    "CollapsePrediction",
    "Comparison",
    "Criterion",
    "CriticalCurve",
    "CriticalPoint",
    "DataSummary",
    "Design",
    "Diagnosis",
    "EOCError",
    "Gain",
    "LayerScales",
    "MeanField",
    "PhaseDiagram",
    "Propagation",
    "PruningMeasurement",
    "PruningPrediction",
    "SummaryPropagation",
    "Trainability",
    "WeightLayer",
    "activation",
    "activation_names",
    "attention_phase",
    "cnn",
    "compare",
    "connected_weights",
    "criterion",
    "critical_curve",
    "design",
    "diagnose",
    "digits",
    "digits_images",
    "edge_of_chaos",
    "gain",
    "gpt",
    "initialize_",
    "lightning_callback",
    "load_images",
    "load_masks",
    "magnitude_bound",
    "masks_of",
    "measure_pruning",
    "mlp",
    "phase_diagram",
    "predict_collapse",
    "predict_pruning",
    "propagate",
    "propagate_summary",
    "prune_",
    "rearrange_masks",
    "register_criterion",
    "register_layer",
    "rescale_",
    "resnet",
    "save_masks",
    "snip_bound",
    "trainability",
    "transformer",
    "vgg",
    "vit",
    "watch_layers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
