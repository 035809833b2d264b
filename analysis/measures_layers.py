"""What each layer keeps and how large its scores are, in as many digits as a picture shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .measures import pruned
from .study import Measure, Place, Task

if TYPE_CHECKING:
    from eoc_theory.pruning.allocation import NetworkLaws


def predict_layers(task: Task, place: Place) -> Mapping[str, Any]:
    """Kept per layer with its spread, (sparsities, layers), and log m^l − log m^L with its spread, (layers,).

    m^l is the mean square of layer l's scores: `log_moment` of networks of this width, `log_moment_limit` at
    infinite width (`Architecture.propagate`). For "snip".
    """
    import eoc_theory as eoc

    net, data = task.architecture(place)
    found = eoc.predict_pruning(net, task.sparsities, criterion=task.criterion, data=data, seed=task.seed)
    moments = _sampled_moments(net, data, task.seed)
    limit = np.asarray(net.propagate(data).log_moment)
    return {
        "layers": found.layers,
        "kept": _short(found.kept, 5),
        "kept_std": _short(found.kept_std, 5),
        "log_moment": _short(moments.mean(axis=0), 4),
        "log_moment_std": _short(moments.std(axis=0, ddof=1), 4),
        "log_moment_limit": _short(limit - limit[-1], 4),
    }


def measure_layers(task: Task, place: Place) -> Mapping[str, Any]:
    """The same of one real network: `kept`, (sparsities, layers), and `log_moment` = log m^l − log m^L."""
    found = pruned(task, place, task.seed, collapse=False)
    moments = found.log_score_moments
    return {"kept": _short(found.kept, 4), "log_moment": _short(moments - moments[-1], 3)}


def _sampled_moments(net: Any, data: Any, seed: int) -> np.ndarray:
    """log m^l − log m^L in the networks that a prediction for "snip" samples, shape (S, L)."""
    from eoc_theory.pruning.graph_distributions import graph_laws
    from eoc_theory.pruning.prediction import network_laws

    if net.graph is None:
        laws, _ = network_laws(net, data, seed=seed)
    else:
        laws = graph_laws(net, "snip", data, samples=None, seed=seed).laws[0]
    moments = log_moments(laws)
    return moments - moments[:, -1:]


def log_moments(laws: NetworkLaws) -> np.ndarray:
    """log E[score²] of every sampled network and layer, shape (S, L), from the laws of the log-scores."""
    from eoc_theory.criteria.distributions.gradients import GRID

    # The mean law's mass between neighbouring points of the grid, (L, U − 1), and where it lies in a network.
    tail = np.concatenate([laws.tail, np.zeros((len(laws.tail), 1))], axis=1)
    mass = np.maximum(-np.diff(tail, axis=1), 0.0)
    step = GRID[1] - GRID[0]
    middle = GRID + 0.5 * step
    logs = np.full((len(laws.t), len(laws.weights)), -np.inf)
    for at, u in enumerate(middle):
        with np.errstate(divide="ignore"):
            piece = np.log(mass[:, at]) + 2.0 * laws.displace(np.full(logs.shape, u))
        logs = np.logaddexp(logs, piece)
    with np.errstate(divide="ignore"):
        return logs + np.log(laws.nonzero)


def _short(values: Any, decimals: int) -> list[Any]:
    return np.round(np.asarray(values, dtype=float), decimals).tolist()


PREDICTED = Measure("predicted-layers", predict_layers, seeded=False)
MEASURED = Measure("measured-layers", measure_layers)
