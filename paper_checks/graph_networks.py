"""Sampled networks of any graph, and the exponents of their score moments."""

from __future__ import annotations

from typing import Any

import numpy as np

from eoc_theory.criteria import criterion
from eoc_theory.layers.sampled_weights import Draw
from eoc_theory.networks.architecture import Architecture
from eoc_theory.propagation.infinite_width import loss_gradient
from eoc_theory.propagation.sampled_graph import (
    OutOfRangeError,
    Scaled,
    own_scores,
    run_backwards,
    run_forwards,
)
from eoc_theory.signals.data import DataSummary

Array = np.ndarray
GRASP = criterion("grasp")


def log_score_moments(net: Architecture, batch: DataSummary, networks: int, *, seed: int = 0) -> Array:
    """log of the mean over a layer's weights of (W g)² in `networks` sampled networks, shape (networks, L).

    In double precision where values leave the range of single precision.
    """
    rows = []
    for index in range(networks):
        try:
            rows.append(_gradient_moments(net, batch, [seed, index], np.float32))
        except OutOfRangeError:
            rows.append(_gradient_moments(net, batch, [seed, index], np.float64))
    return np.array(rows)


def _gradient_moments(net: Architecture, batch: DataSummary, stream: list[int], dtype: Any) -> Array:
    graph, images = net.as_graph(), _images(net, batch)
    logits, memories = run_forwards(graph, images, Draw(np.random.default_rng(stream), dtype))
    sent = loss_gradient(logits.T.astype(float), batch.targets).T
    moments = np.empty(net.depth)
    for layer, scores, _ in run_backwards(graph, memories, sent, dtype):
        moments[layer] = _log_mean_square(scores)
    return moments


def log_curvature_moments(net: Architecture, batch: DataSummary, networks: int, *, seed: int = 0) -> Array:
    """The same of GraSP's scores W ∘ (Hess·g), the whole Hessian; shape (networks, L)."""
    graph, images = net.as_graph(), _images(net, batch)
    rows = [
        [
            _log_mean_square(scores)
            for scores in own_scores(GRASP, graph, images, batch.targets, [seed, index])
        ]
        for index in range(networks)
    ]
    return np.array(rows)


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


def _images(net: Architecture, batch: DataSummary) -> Array:
    shape = net.input_shape
    return batch.inputs.T.reshape(shape.channels, *shape.space, batch.size)


def _log_mean_square(scores: Scaled) -> float:
    mean_square = float(np.mean(scores.values.astype(float) ** 2))
    return float(np.log(mean_square)) + 2.0 * scores.exponent * float(np.log(2.0))
