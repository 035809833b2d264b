"""The scores of a sampled network's weights, counted in logarithmic bins, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .carried_values import OutOfRangeError, Value
from .score_grid import GRID

Array = np.ndarray

#: Scores counted at a time: with their copies they fit a second-level cache.
_BLOCK = 1 << 15
#: Bits of a float32 below those that number its bin, 1/32 of an octave wide. The last bins are inf and nan.
_BIN_BITS = 18
_EDGES = (np.arange(255 << 5, dtype=np.int32) << _BIN_BITS).view(np.float32).astype(float)
_LOG_EDGES = np.log(np.append(np.maximum(_EDGES, 2.0**-149), np.full(33, 2.0**128)))


@dataclass(frozen=True)
class LayerSample:
    """The scores of one layer in one network: all in size, or those of one sign.

    Attributes:
        log_rms: ½ log of the mean square of all scores of the layer, of either sign; −∞ if all are 0.
        share: fraction of the layer's scores that are counted.
        tail: P(log-score − log_rms > u | counted) on `scores.GRID`, shape (U,).
        row_maxima: log of the largest counted score of each row, less log_rms; shape (fan_out,).
    """

    log_rms: float
    share: float
    tail: Array
    row_maxima: Array


@dataclass(frozen=True)
class NetworkSample:
    """What one network shows.

    Attributes:
        signs: for each sign that is told apart, a sample of each layer.
    """

    signs: tuple[list[LayerSample], ...]


class Scoring(Protocol):
    """What sampling asks of a pruning criterion; see `eoc_theory.criteria.criterion.Criterion`."""

    @property
    def needs(self) -> str: ...
    @property
    def signed(self) -> bool: ...
    @property
    def is_product(self) -> bool: ...
    @property
    def proportional(self) -> bool: ...
    @property
    def temperature(self) -> float: ...
    def score(self, weight: Any, derivative: Any) -> Any: ...


def scored(criterion: Scoring, weights: Array, derivative: Value) -> Value:
    """Scores of weights for a derivative in its own unit; in the true one where that matters."""
    if criterion.proportional:
        return Value(_finite(criterion.score(weights, derivative.values)), derivative.exponent)
    largest = math.frexp(float(np.abs(derivative.values).max(initial=0.0)))[1] + derivative.exponent
    if not -900 < largest < 900 and derivative.values.any():
        raise OutOfRangeError
    true = np.ldexp(np.asarray(derivative.values, dtype=float), derivative.exponent)
    return Value(_finite(criterion.score(weights, true)))


def _finite(scores: Any) -> Array:
    found = np.asarray(scores, dtype=float)
    if not np.isfinite(found).all():
        raise OutOfRangeError
    return found


def layer_samples(scores: Value, *, signed: bool = False) -> tuple[LayerSample, ...]:
    """Sizes of all scores (fan_out, fan_in) of a layer; with `signed` the positive, and the negative ones.

    The tail is exact to a small part of its bins, which are 3 % wide.
    """
    values, exponent = scores.values, scores.exponent
    if values.dtype != np.float32:
        power = math.frexp(float(np.abs(values).max()))[1]
        values, exponent = np.ldexp(values, -power).astype(np.float32), exponent + power
    flat = values.reshape(-1)
    squares = 0.0
    counts = np.zeros((2, len(_LOG_EDGES) - 1), np.int64)
    alive = np.zeros(2, np.int64)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        double = block.astype(float)
        squares += float(np.dot(double, double))
        # The leading bits of a float number logarithmic bins: a count of them costs a tenth of sorting.
        bits = (block.view(np.int32) & 0x7FFFFFFF) >> _BIN_BITS
        if signed:
            alive += np.count_nonzero(block > 0), np.count_nonzero(block < 0)
            counts[0] += np.bincount(bits[block > 0], minlength=counts.shape[1])
            counts[1] += np.bincount(bits[block < 0], minlength=counts.shape[1])
        else:
            alive[0] += np.count_nonzero(block)
            counts[0] += np.bincount(bits, minlength=counts.shape[1])
    if not math.isfinite(squares):
        raise OutOfRangeError
    if not signed:
        counts[0, 0] -= flat.size - alive[0]
    if squares == 0.0:
        nothing = LayerSample(-math.inf, 0.0, np.zeros(len(GRID)), np.full(len(values), -math.inf))
        return (nothing,) * (1 + signed)
    log_rms = 0.5 * math.log(squares / flat.size)
    largest = (values.max(axis=1), -values.min(axis=1)) if signed else (np.abs(values).max(axis=1),)
    found = []
    for count, living, rows in zip(counts, alive, largest, strict=False):
        above = np.append(np.cumsum(count[::-1])[::-1], 0) / max(int(living), 1)
        tail = np.interp(GRID, _LOG_EDGES - log_rms, above)
        with np.errstate(divide="ignore"):
            maxima = np.log(np.maximum(rows, 0.0).astype(float)) - log_rms
        found.append(LayerSample(log_rms + exponent * math.log(2.0), living / flat.size, tail, maxima))
    return tuple(found)
