"""Output units of one weight that have several scales, as queries and keys beside values may."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray
#: Fewest inputs of a unit, and units of a run, that show a scale.
_FEWEST, _SHORTEST = 16, 4
#: Sampling errors by which the mean logarithms of two runs' scales differ at least.
_APART = 6.0


def runs_of_one_scale(weight: Any, axis: int = 0) -> list[tuple[int, int]]:
    """Runs of output units, from … up to, whose weights have one scale; one run where all have the same.

    A run is cut in two where the mean logarithms of the units' root mean squares differ most, if that is
    beyond chance. What then still differs from unit to unit, as in trained weights, is no matter of runs: the
    weight counts as one.

    Args:
        weight: a tensor.
        axis: that of its output units.
    """
    count = weight.shape[axis] if weight.ndim else 0
    whole = [(0, count)]
    if weight.ndim < 2 or weight.numel() < _FEWEST * count or count < 2 * _SHORTEST:
        return whole
    rows = weight.detach().movedim(axis, 0).flatten(1)
    squares = rows.double().square().mean(dim=1).cpu().numpy()
    if not np.isfinite(squares).all() or not (squares > 0.0).all():
        return whole
    logs = 0.5 * np.log(squares)
    error = math.sqrt(0.5 / rows.shape[1])
    runs, waiting = [], list(whole)
    while waiting:
        start, stop = waiting.pop()
        at = _cut(logs[start:stop], error)
        if at is None:
            runs.append((start, stop))
        else:
            waiting += [(start, start + at), (start + at, stop)]
    runs.sort()
    left = np.concatenate([logs[start:stop] - logs[start:stop].mean() for start, stop in runs])
    # The error is that of normal weights, which is the largest of all laws that are read.
    return runs if float(np.mean(left**2)) < 2.0 * error**2 else whole


def _cut(logs: Array, error: float) -> int | None:
    """Where numbers with this error change their mean; None where they do not."""
    count = len(logs)
    if count < 2 * _SHORTEST:
        return None
    sums = np.cumsum(logs)[:-1]
    first = np.arange(1, count)
    second = count - first
    apart = sums / first - (logs.sum() - sums) / second
    distance = np.abs(apart) / (error * np.sqrt(1.0 / first + 1.0 / second))
    allowed = (first >= _SHORTEST) & (second >= _SHORTEST)
    at = int(np.argmax(np.where(allowed, distance, 0.0)))
    return int(first[at]) if distance[at] > _APART else None
