"""Ranking scores over a whole network: the global threshold, what each layer keeps, when a layer is emptied.

Exactly k of the n scores are removed, the lowest ones. Scores that tie at the threshold (dead ReLU units give
whole rows of exact zeros) are removed evenly: enumerated by layer and position, T ties of which m survive,
tie number i survives where ⌊(i+1)m/T⌋ > ⌊im/T⌋. So every layer keeps the same share of its ties to within one
weight, whatever the order of the layers, and the choice is the same on every run and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Below this many scores one np.partition over a copy is fastest; above, bracketing spares the copy.
_PARTITION_LIMIT = 4_000_000
_SAMPLE = 200_000


@dataclass(frozen=True)
class Threshold:
    """The k-th smallest score `value`; of the `ties` scores equal to it, `ties_kept` survive."""

    value: float
    ties: int
    ties_kept: int


def thresholds(scores: Sequence[Any], removed: Sequence[int]) -> list[Threshold | None]:
    """The thresholds at which `removed[i]` of all scores fall away (None where nothing is removed).

    Args:
        scores: torch tensors, one per layer, any shape, of one dtype and device; no NaN.
        removed: numbers of scores to remove, each in [0, n].
    """
    flat = [s.reshape(-1) for s in scores]
    wanted = sorted({k for k in removed if k > 0})
    if not wanted:
        return [None] * len(removed)
    n = sum(s.numel() for s in flat)
    if n <= _PARTITION_LIMIT:
        values = _by_partition(flat, wanted)
    else:
        values = _by_bracket(flat, wanted, n)
    found = {k: _with_ties(flat, value, k, n) for k, value in zip(wanted, values, strict=True)}
    return [found.get(k) for k in removed]


def kept_counts(scores: Sequence[Any], threshold: Threshold | None) -> np.ndarray:
    """The number of weights that each layer keeps, int64, shape (layers,)."""
    if threshold is None:
        return np.array([s.numel() for s in scores], dtype=np.int64)
    above = np.array([int((s > threshold.value).sum()) for s in scores], dtype=np.int64)
    if threshold.ties_kept == 0:
        return above
    ends = np.cumsum([int((s == threshold.value).sum()) for s in scores])
    survivors = np.array([int(e) * threshold.ties_kept // threshold.ties for e in ends], dtype=np.int64)
    return above + np.diff(survivors, prepend=0)


def masks(scores: Sequence[Any], threshold: Threshold | None) -> list[np.ndarray]:
    """The surviving weights of each layer as boolean arrays of the scores' shapes."""
    if threshold is None:
        return [np.ones(tuple(s.shape), dtype=bool) for s in scores]
    result = []
    counted = 0
    for s in scores:
        mask = (s > threshold.value).cpu().numpy()
        if threshold.ties_kept:
            tied = np.flatnonzero((s == threshold.value).cpu().numpy())
            rank = np.arange(counted, counted + len(tied), dtype=np.int64)
            counted += len(tied)
            m, total = threshold.ties_kept, threshold.ties
            mask.reshape(-1)[tied[(rank + 1) * m // total > rank * m // total]] = True
        result.append(mask)
    return result


def critical_sparsity(scores: Sequence[Any]) -> tuple[float, int]:
    """The smallest sparsity at which some layer has lost all its weights, and that layer's index.

    t* = min_l max_{w in l} score(w), s_cr = #{scores ≤ t*}/n: one pass, no search.
    """
    tops = np.array([float(s.max()) for s in scores])
    weakest = int(tops.argmin())
    # Compare in the scores' own precision: float(s.max()) is exact, so ≤ holds for the top itself.
    lost = sum(int((s <= tops[weakest]).sum()) for s in scores)
    return lost / sum(s.numel() for s in scores), weakest


def _by_partition(flat: list[Any], wanted: list[int]) -> list[float]:
    everything = np.concatenate([s.cpu().numpy() for s in flat])
    kth = [k - 1 for k in wanted]
    everything.partition(kth)
    return [float(everything[k]) for k in kth]


def _by_bracket(flat: list[Any], wanted: list[int], n: int) -> list[float]:
    """Bracket each wanted order statistic by a strided sample, then select among the scores inside."""
    stride = max(1, n // _SAMPLE)
    sample = np.sort(np.concatenate([s[::stride].cpu().numpy() for s in flat]))
    m = len(sample)
    return [_order_statistic(flat, k, sample, (k - 0.5) / n * m) for k in wanted]


def _order_statistic(flat: list[Any], k: int, sample: np.ndarray, place: float) -> float:
    half_width = 4.0 * np.sqrt(len(sample)) / 2 + 8
    while True:
        low_at, high_at = int(np.floor(place - half_width)), int(np.ceil(place + half_width))
        low = float(sample[low_at]) if low_at >= 0 else -np.inf
        high = float(sample[high_at]) if high_at < len(sample) else np.inf
        below, inside = 0, []
        for s in flat:
            below += int((s < low).sum())
            inside.append(s[(s >= low) & (s <= high)].cpu().numpy())
        candidates = np.concatenate(inside)
        if below < k <= below + len(candidates):
            candidates.partition(k - 1 - below)
            return float(candidates[k - 1 - below])
        half_width *= 8  # the sample was unlucky, e.g. when the stride meets the rows' own period


def _with_ties(flat: list[Any], value: float, k: int, n: int) -> Threshold:
    above = sum(int((s > value).sum()) for s in flat)
    ties_kept = (n - k) - above
    ties = sum(int((s == value).sum()) for s in flat) if ties_kept else 1
    return Threshold(value, ties, ties_kept)
