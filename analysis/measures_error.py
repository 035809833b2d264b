"""How far a prediction is off, found by pruning real networks: means over layers, no kept fractions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .measures import pruned
from .measures_collapse import median_error
from .study import Measure, Place, Task

#: Significant digits that are stored: the measurement itself knows fewer.
DIGITS = 5


def error(task: Task, place: Place) -> Mapping[str, Any]:
    """Error of `eoc_theory.predict_pruning` and `predict_collapse` against a block of pruned networks.

    Settings: `seeds`, the most networks that are pruned; `fewest`; `work`, multiply-adds of one input's
    passes through all of them, by which large networks get fewer.

    The result, by sparsity where it is a list (L layers, d the predicted minus the mean measured fraction
    kept, e the standard error of that mean):
    `error`: mean of |d| over layers; `square`: of d²; `noise_square`: of e²; `error_deviation`: standard
    error of `error` by the jackknife over networks; `predicted_std` and `measured_std`: standard deviation
    of kept from network to network, averaged over layers; `gap`: predicted minus measured median of
    log₁₀(1 − s_cr); `gap_deviation`: standard error of the measured median; `predicted_spread` and
    `measured_spread`: standard deviations of log₁₀(1 − s_cr).
    """
    import eoc_theory as eoc
    from eoc_theory.networks.queries import forward_cost

    settings = dict(task.measure.settings)
    net, data = task.architecture(place)
    seeds = int(
        np.clip(settings["work"] / forward_cost(net.as_graph()), settings["fewest"], settings["seeds"])
    )
    found = [pruned(task, place, seed) for seed in range(seeds)]
    predicted = eoc.predict_pruning(net, task.sparsities, criterion=task.criterion, data=data, seed=task.seed)
    collapse = eoc.predict_collapse(net, criterion=task.criterion, data=data, seed=task.seed)
    result = {
        "seeds": seeds,
        "layers": len(net.layers),
        "weights": net.n_weights,
        "predicted_std": predicted.kept_std.mean(axis=1),
        **kept_errors(predicted.kept, np.array([one.kept for one in found])),
        **collapse_errors(
            collapse.samples, np.array([one.critical_sparsity for one in found]), net.n_weights
        ),
    }
    return {name: _short(value) for name, value in result.items()}


def kept_errors(predicted: np.ndarray, kept: np.ndarray) -> dict[str, np.ndarray]:
    """See `error`. `predicted` (n_s, L); `kept` (seeds, n_s, L), at least two seeds."""
    seeds = len(kept)
    mean, variance = kept.mean(axis=0), kept.var(axis=0, ddof=1)
    off = np.abs(predicted - mean).mean(axis=1)
    # Means with one network left out, and what they make of the error.
    without = (seeds * mean - kept) / (seeds - 1)
    spread = np.abs(predicted - without).mean(axis=2)
    return {
        "error": off,
        "square": ((predicted - mean) ** 2).mean(axis=1),
        "noise_square": variance.mean(axis=1) / seeds,
        "error_deviation": np.sqrt((seeds - 1) * spread.var(axis=0)),
        "measured_std": np.sqrt(variance).mean(axis=1),
    }


def collapse_errors(predicted: np.ndarray, measured: np.ndarray, weights: int) -> dict[str, float]:
    """See `error`. Both are critical sparsities; nan where the measurement found none."""
    # A network whose last layer goes with its last weight: 1 − s_cr is less than what one weight is.
    least = 0.5 / weights
    law, seen = (np.log10(np.maximum(1.0 - values, least)) for values in (predicted, measured))
    return {
        "gap": float(np.median(law) - np.median(seen)),
        "gap_deviation": median_error(seen),
        "predicted_spread": float(law.std()),
        "measured_spread": float(seen.std(ddof=1)),
    }


def _short(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_short(float(one)) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def measuring_error(*, seeds: int, fewest: int = 8, work: float = 2.5e8) -> Measure:
    """The measure `error` with its settings."""
    settings = (("seeds", seeds), ("fewest", fewest), ("work", work))
    return Measure("error", error, seeded=False, settings=settings)
