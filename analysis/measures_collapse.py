"""When a network collapses, in few numbers: the law of the critical sparsity, and draws of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .measures import pruned
from .study import Measure, Place, Task

#: Quantiles of the predicted law of s_cr that are stored; enough to draw it.
QUANTILES = 49
#: Digits of s or of 1 − s, whichever is smaller, that are stored.
DIGITS = 4


def predict_collapse(task: Task, place: Place) -> Mapping[str, Any]:
    """`eoc_theory.predict_collapse`: mean, quantiles (see `levels`), P(s_cr ≤ s) at the study's sparsities.

    And the layer that collapses first most often, with how often that is; the paper's bound or None.
    """
    import eoc_theory as eoc

    net, data = task.architecture(place)
    found = eoc.predict_collapse(net, criterion=task.criterion, data=data, seed=task.seed)
    probability = found.probability(np.array(task.sparsities))
    return {
        "critical_sparsity": _rounded(found.critical_sparsity),
        "quantiles": [_rounded(s) for s in np.ravel(found.quantile(levels(QUANTILES)))],
        "collapse_probability": [round(float(p), DIGITS) for p in np.ravel(probability)],
        "weakest_layer": found.weakest_layer,
        "weakest_probability": round(float(found.weakest_probability.max()), 3),
        "bound": found.bound,
        "layers": len(found.layers),
        "weights": net.n_weights,
    }


def measure_collapse(task: Task, place: Place) -> Mapping[str, Any]:
    """s_cr of a block of real networks, and the layer that collapses first in each.

    Setting `networks`: how many they are; those of seed n of the study have the seeds n·networks, ….
    """
    networks = dict(task.measure.settings)["networks"]
    seeds = range(task.seed * networks, (task.seed + 1) * networks)
    # Asked for nothing but s_cr, which is the same whatever is removed.
    found = [pruned(task, place, seed, 0.0) for seed in seeds]
    return {
        "critical_sparsity": [_rounded(one.critical_sparsity) for one in found],
        "weakest_layer": [one.weakest_layer for one in found],
    }


def levels(count: int) -> np.ndarray:
    """The probabilities of `count` stored quantiles: evenly between 0 and 1, without these."""
    return np.arange(1, count + 1) / (count + 1)


def median_error(values: np.ndarray) -> float:
    """Standard error of the median of a sample; nan for fewer than 4."""
    if len(values) < 4:
        return np.nan
    # About 68 % of medians of n values lie between these quantiles.
    half = 0.5 / np.sqrt(len(values))
    low, high = np.quantile(values, (0.5 - half, 0.5 + half))
    return float(high - low) / 2.0


def _rounded(sparsity: float) -> float:
    """`sparsity` to DIGITS digits of itself or of 1 − s, whichever is smaller."""
    smaller = min(sparsity, 1.0 - sparsity)
    if not 0.0 < smaller < 1.0:
        return float(sparsity)
    return round(float(sparsity), DIGITS - 1 - int(np.floor(np.log10(smaller))))


PREDICTED = Measure("predicted-collapse", predict_collapse, seeded=False)


def measured(networks: int) -> Measure:
    """`measure_collapse` of so many networks a seed: a row of the store takes more room than they do."""
    return Measure("measured-collapse", measure_collapse, settings=(("networks", networks),))
