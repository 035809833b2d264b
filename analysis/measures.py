"""What can be found out about a network. A new measure is a function here, named in a study's declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .study import Measure, Place, Task

if TYPE_CHECKING:
    from eoc_theory.pytorch.measure.measure import PruningMeasurement


def predict(task: Task, place: Place) -> Mapping[str, Any]:
    """`eoc_theory.predict_pruning` and `eoc_theory.predict_collapse`."""
    import eoc_theory as eoc

    net, data = task.architecture(place)
    pruning = eoc.predict_pruning(
        net, task.sparsities, criterion=task.criterion, data=data, seed=task.seed
    ).to_dict()
    collapse = eoc.predict_collapse(net, criterion=task.criterion, data=data, seed=task.seed).to_dict()
    # What both hold is kept once; what the configuration holds, not at all.
    for name in ("criterion", "sparsity"):
        del pruning[name]
    for name in ("criterion", "layers"):
        del collapse[name]
    notes = list(dict.fromkeys([*pruning["notes"], *collapse["notes"]]))
    return pruning | collapse | {"notes": notes}


def pruned(
    task: Task, place: Place, seed: int, sparsity: Any = None, *, collapse: bool = True
) -> PruningMeasurement:
    """`eoc_theory.measure_pruning` of the task's network, really built with that seed.

    Args:
        sparsity: fractions removed; None: those of the task.
        collapse: whether its critical sparsity is wanted.
    """
    import eoc_theory as eoc
    from eoc_theory.pytorch.lazy import require_torch

    # One thread, so that sums are taken in one order whatever the number of workers.
    require_torch().set_num_threads(1)
    net, data = task.architecture(place)
    shape = net.input_shape
    return eoc.measure_pruning(
        net.to_torch(seed),
        task.sparsities if sparsity is None else sparsity,
        criterion=task.criterion,
        data=data,
        example_input=None if net.graph is None else (1, shape.channels, *shape.space),
        device=place.device,
        seed=seed,
        masks=False,
        collapse=collapse,
    )


def measure(task: Task, place: Place) -> Mapping[str, Any]:
    """A real network; kept weights are counted, not given as fractions."""
    import numpy as np

    found = pruned(task, place, task.seed)
    return {
        "layers": found.layers,
        "weights": found.weights,
        "kept_weights": np.rint(found.kept * found.weights).astype(np.int64),
        "critical_sparsity": found.critical_sparsity,
        "weakest_layer": found.weakest_layer,
        "log_score_moments": found.log_score_moments,
        "zero_scores": found.zero_scores,
    }


THEORY = Measure("theory", predict, seeded=False)
PRUNING = Measure("pruning", measure)
