"""Ranking scores over a whole network: the global threshold, what each layer keeps, when a layer is emptied.

Exactly k of the n scores are removed, the lowest ones. Scores that tie at the threshold (dead ReLU units give
whole rows of exact zeros) are removed evenly: enumerated by layer and position, T ties of which m survive,
tie number i survives where ⌊(i+1)m/T⌋ > ⌊im/T⌋. So every layer keeps the same share of its ties to within one
weight, whatever the order of the layers, and the choice is the same on every run and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Below this many scores one np.partition over a copy is fastest; above, bracketing spares the copy.
_PARTITION_LIMIT = 4_000_000
_SAMPLE = 200_000


@dataclass(frozen=True)
class Threshold:
    """Where the lowest scores are cut off.

    Attributes:
        value: the largest removed score; -inf if nothing is removed.
        above: scores above the value, per layer, int64 (layers,).
        tied: scores equal to the value, per layer.
        ties_kept: how many of the tied ones survive, in all layers together.
    """

    value: float
    above: np.ndarray
    tied: np.ndarray
    ties_kept: int

    @property
    def kept(self) -> np.ndarray:
        """The number of weights that each layer keeps, int64 (layers,)."""
        if self.ties_kept == 0:
            return self.above
        survivors = np.cumsum(self.tied) * self.ties_kept // self.tied.sum()
        return self.above + np.diff(survivors, prepend=0)


def thresholds(scores: Sequence[np.ndarray], removed: Sequence[int]) -> list[Threshold]:
    """The thresholds at which `removed[i]` of all scores fall away.

    Args:
        scores: one array per layer, any shape, one dtype; no NaN.
        removed: numbers of scores to remove, each in [0, n].
    """
    flat = [s.reshape(-1) for s in scores]
    n = sum(s.size for s in flat)
    wanted = sorted({k for k in removed if k > 0})
    select = _by_partition if n <= _PARTITION_LIMIT else _by_bracket
    found = dict(zip(wanted, select(flat, wanted) if wanted else [], strict=True))
    if 0 in removed:
        sizes = np.array([s.size for s in flat], dtype=np.int64)
        found[0] = Threshold(-np.inf, sizes, np.zeros_like(sizes), 0)
    return [found[k] for k in removed]


def masks(scores: Sequence[np.ndarray], threshold: Threshold) -> list[np.ndarray]:
    """The surviving weights of each layer as boolean arrays of the scores' shapes."""
    if threshold.above.sum() == sum(s.size for s in scores):
        return [np.ones(s.shape, dtype=bool) for s in scores]
    result = []
    counted, total = 0, int(threshold.tied.sum())
    for s in scores:
        mask = s > threshold.value
        if threshold.ties_kept:
            tied = np.flatnonzero(s == threshold.value)
            rank = np.arange(counted, counted + len(tied), dtype=np.int64)
            counted += len(tied)
            m = threshold.ties_kept
            mask.reshape(-1)[tied[(rank + 1) * m // total > rank * m // total]] = True
        result.append(mask)
    return result


def critical_sparsity(scores: Sequence[np.ndarray]) -> tuple[float, int]:
    """The smallest sparsity at which some layer has lost all its weights, and that layer's index.

    t* = min_l max_{w in l} score(w), s_cr = #{scores ≤ t*}/n: one pass, no search.
    """
    tops = [s.max() for s in scores]
    weakest = int(np.argmin(tops))
    lost = sum(int(np.count_nonzero(s <= tops[weakest])) for s in scores)
    return lost / sum(s.size for s in scores), weakest


def _by_partition(flat: list[np.ndarray], wanted: list[int]) -> list[Threshold]:
    everything = np.concatenate(flat)
    everything.partition([k - 1 for k in wanted])
    found = []
    for k in wanted:
        value = everything[k - 1]
        above = np.array([np.count_nonzero(s > value) for s in flat], dtype=np.int64)
        ties_kept = len(everything) - k - int(above.sum())
        tied = np.array([np.count_nonzero(s == value) for s in flat] if ties_kept else [0] * len(flat))
        found.append(Threshold(float(value), above, tied, ties_kept))
    return found


def _by_bracket(flat: list[np.ndarray], wanted: list[int]) -> list[Threshold]:
    """Bracket each wanted order statistic by a sample, then select among the scores inside the bracket."""
    n = sum(s.size for s in flat)
    # Rows and columns share factors; a stride prime to most widths does not stay in a few columns.
    stride = max(1, n // _SAMPLE // 30 * 30 + 1)
    sample = np.sort(np.concatenate([s[::stride] for s in flat]))
    return [_bracketed(flat, k, n, sample) for k in wanted]


def _bracketed(flat: list[np.ndarray], k: int, n: int, sample: np.ndarray) -> Threshold:
    place = (k - 0.5) / n * len(sample)
    half_width = 2.0 * np.sqrt(len(sample)) + 8  # four standard deviations of independent draws' rank
    while True:
        low_at, high_at = int(np.floor(place - half_width)), int(np.ceil(place + half_width))
        low = sample[low_at] if low_at >= 0 else sample.dtype.type(-np.inf)
        high = sample[high_at] if high_at < len(sample) else sample.dtype.type(np.inf)
        below = np.array([np.count_nonzero(s < low) for s in flat], dtype=np.int64)
        inside = [s[np.flatnonzero((s >= low) & (s <= high))] for s in flat]
        candidates, rank = np.concatenate(inside), k - 1 - int(below.sum())
        if 0 <= rank < len(candidates):
            candidates.partition(rank)
            value = candidates[rank]
            tied = np.array([np.count_nonzero(s == value) for s in inside], dtype=np.int64)
            up_to = below + np.array([np.count_nonzero(s <= value) for s in inside], dtype=np.int64)
            above = np.array([s.size for s in flat], dtype=np.int64) - up_to
            ties_kept = n - k - int(above.sum())
            return Threshold(float(value), above, tied if ties_kept else np.zeros_like(tied), ties_kept)
        half_width *= 8  # an unlucky sample
