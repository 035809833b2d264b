"""Sampled networks of any graph, and the exponents of their score moments."""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc
from eoc_theory.networks.architecture import Architecture
from eoc_theory.signals.data import DataSummary

Array = np.ndarray
#: Numbers between the networks of one seed and the next.
_APART = 1000


def log_score_moments(
    net: Architecture, batch: DataSummary, networks: int, *, criterion: str = "snip", seed: int = 0
) -> Array:
    """log of the mean over a layer's weights of score² in `networks` sampled networks, (networks, L).

    Under "snip" of W g; under "grasp" of W ∘ (Hess·g), the whole Hessian.
    """
    shape = net.input_shape
    asked = {
        "criterion": criterion,
        "data": batch,
        "example_input": None if net.graph is None else (1, shape.channels, *shape.space),
        "masks": False,
        "collapse": False,
    }
    return np.array(
        [
            eoc.measure_pruning(net.to_torch(_APART * seed + index), 0.0, **asked).log_score_moments
            for index in range(networks)
        ]
    )


def decay(log_moments: Array, margin: int) -> Array:
    """−d log m^l/dl between layers `margin` away from both ends, shape (…): log χ if m^l/m^L → χ^{L−l}."""
    first, last = margin, log_moments.shape[-1] - 1 - margin
    return (log_moments[..., first] - log_moments[..., last]) / (last - first)


def inner_range(log_moments: Array) -> float:
    """Largest less smallest log m^l over all layers but the first and the last, which differ in shape."""
    return float(np.ptp(log_moments[1:-1]))


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean of independent values and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
