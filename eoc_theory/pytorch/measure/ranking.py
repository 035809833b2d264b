"""Ranking scores over a whole network: the global threshold, what each layer keeps, when a layer collapses.

Exactly k of the n scores are removed, the lowest ones. Scores that tie at the threshold (dead ReLU units give
whole rows of exact zeros) are removed evenly: enumerated by layer and position, T ties of which m survive,
tie number i survives where ⌊(i+1)m/T⌋ > ⌊im/T⌋. So every layer keeps the same share of its ties to within one
weight, whatever the order of the layers, and the choice is the same on every run and device.

Scores stay where they are, one tensor a layer, on whatever device. They are neither joined nor sorted: a
sample of them brackets the threshold, and one pass counts what lies below and picks out the few inside the
bracket, one of which it is (Floyd and Rivest 1975). Anything that gives a layer's scores when indexed will
do, so that scores which are quickly computed need not be stored at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..lazy import torch

# Up to this many scores all of them are sorted; beyond, a sample of n^(2/3), which costs the least in all.
_SORTED = 4096


@dataclass(frozen=True)
class Threshold:
    """The threshold under which scores are removed.

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


def thresholds(scores: Sequence[torch.Tensor], removed: Sequence[int]) -> list[Threshold]:
    """The thresholds at which `removed[i]` of all scores fall away.

    Args:
        scores: one tensor per layer, any shape, one dtype and device; no NaN.
        removed: numbers of scores to remove, each in [0, n].
    """
    sample, sizes = _sample(scores)
    found: dict[int, Threshold] = {0: Threshold(-np.inf, sizes, np.zeros_like(sizes), 0)}
    wanted = sorted({k for k in removed if k > 0})
    # Four standard deviations of the rank of independent draws; none where the sample is everything.
    margin = 0.0 if len(sample) == sizes.sum() else 2.0 * len(sample) ** 0.5 + 8
    while wanted:
        found |= _bracketed(scores, wanted, sizes, sample, margin)
        wanted = [k for k in wanted if k not in found]
        margin *= 8  # an unlucky sample
    return [found[k] for k in removed]


def masks(scores: Sequence[torch.Tensor], threshold: Threshold) -> list[torch.Tensor]:
    """The surviving weights of each layer as boolean tensors of the scores' shapes."""
    result = []
    counted, total, left = 0, int(threshold.tied.sum()), threshold.ties_kept
    for score, tied, above in zip(scores, threshold.tied, threshold.above, strict=True):
        flat = entries(score)
        # Where nothing is removed, what scores -inf stays too.
        whole = above == len(flat)
        mask = torch.as_tensor(flat >= threshold.value if whole else flat > threshold.value)
        if left and tied:
            at = torch.nonzero(torch.as_tensor(flat == threshold.value)).reshape(-1)
            rank = torch.arange(counted, counted + int(tied), dtype=torch.int64, device=at.device)
            counted += int(tied)
            mask[at[(rank + 1) * left // total > rank * left // total]] = True
        result.append(mask.reshape(score.shape))
    return result


def critical_sparsity(
    scores: Sequence[torch.Tensor], tops: Sequence[float] | None = None
) -> tuple[float, int]:
    """The smallest sparsity at which some layer has lost all its weights, and that layer's index.

    t* = min_l max_{w in l} score(w), s_cr = #{scores ≤ t*}/n: one pass, no search.

    Args:
        tops: the largest score of each layer, where they are known.
    """
    if tops is None:
        tops = _fetch([entries(s).max() for s in scores])
    weakest = int(np.argmin(tops))
    limit = float(tops[weakest])
    lost, n = [], 0
    for score in scores:
        lost.append(count(entries(score) <= limit))
        n += score.numel()
    return sum(_fetch(lost)) / n, weakest


# --- One code for both kinds of array: on the CPU NumPy compares and counts several times faster than torch.


def sizes_of(scores: Sequence[torch.Tensor]) -> list[int]:
    """Number of scores in each layer; of scores that are computed when indexed, without computing them."""
    known = getattr(scores, "sizes", None)
    return [s.numel() for s in scores] if known is None else list(known)


def entries(score: torch.Tensor) -> Any:
    """All entries in order: a NumPy view on the CPU, a tensor on any other device."""
    flat = score.detach().reshape(-1)
    return flat.numpy() if flat.device.type == "cpu" else flat


def count(mask: Any) -> Any:
    """Number of entries that are not 0: a number, or a scalar on the device."""
    return np.count_nonzero(mask) if isinstance(mask, np.ndarray) else mask.count_nonzero()


def _pick(flat: Any, mask: Any) -> Any:
    return flat[np.flatnonzero(mask)] if isinstance(mask, np.ndarray) else flat[mask]


def smallest(parts: list[Any], rank: int) -> float:
    """The rank-th smallest entry of all parts, from 1."""
    if isinstance(parts[0], np.ndarray):
        return float(np.partition(np.concatenate(parts), rank - 1)[rank - 1])
    return float(torch.kthvalue(torch.cat(parts), rank).values)


def _fetch(values: list[Any]) -> list[Any]:
    """Scalars as Python numbers, from a device all together: each transfer waits for the work before it."""
    if values and isinstance(values[0], torch.Tensor):
        return torch.stack(values).tolist()
    return [v.item() if isinstance(v, np.generic) else v for v in values]


def _sample(scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, np.ndarray]:
    """Sorted scores, every so-many-th of each layer; and the layers' sizes, int64 (layers,)."""
    sizes = np.array(sizes_of(scores), dtype=np.int64)
    # Rows and columns share factors; a stride prime to most widths does not stay in a few columns.
    n = int(sizes.sum())
    wanted = n // max(_SORTED, round(n ** (2 / 3)))
    stride = wanted // 30 * 30 + max(r for r in (1, 7, 11, 13, 17, 19, 23, 29) if r <= max(wanted % 30, 1))
    # Copied at once, so that no layer's scores are held by what was picked from them.
    parts = [torch.as_tensor(entries(score)[::stride]).clone() for score in scores]
    return torch.cat(parts).sort().values, sizes


def _bracketed(
    scores: Sequence[torch.Tensor], wanted: list[int], sizes: np.ndarray, sample: torch.Tensor, margin: float
) -> dict[int, Threshold]:
    """The thresholds of those `wanted` whose bracket holds them, by one pass over the scores."""
    n = int(sizes.sum())
    places = np.array([(k - 0.5) / n * len(sample) for k in wanted])
    low_at, high_at = (np.floor(places + shift).astype(np.int64) for shift in (-margin, margin))
    at = torch.from_numpy(np.stack([low_at, high_at]).clip(0, len(sample) - 1)).to(sample.device)
    lows, highs = sample[at].tolist()
    lows = [-np.inf if i < 0 else low for i, low in zip(low_at, lows, strict=True)]
    highs = [np.inf if i >= len(sample) else high for i, high in zip(high_at, highs, strict=True)]

    counts: list[Any] = []
    inside: list[list[Any]] = [[] for _ in wanted]
    for score in scores:
        flat = entries(score)
        for low, high, found in zip(lows, highs, inside, strict=True):
            above = flat > low
            counts += [count(above), count(flat == low)]
            if low < high:
                above &= flat <= high
                found.append(_pick(flat, above))
    numbers = np.array(_fetch(counts), dtype=np.int64).reshape(len(sizes), len(wanted), 2)

    result = {}
    for i, k in enumerate(wanted):
        above, at_low = numbers[:, i].T
        # How many of what lies above the lower end are removed.
        excess = k - (n - int(above.sum()))
        if -int(at_low.sum()) < excess <= 0:
            result[k] = Threshold(lows[i], above, at_low if excess else 0 * at_low, -excess)
        elif 0 < excess <= sum(len(part) for part in inside[i]):
            value = smallest(inside[i], excess)
            left = above - np.array(_fetch([count(part <= value) for part in inside[i]]), dtype=np.int64)
            ties_kept = n - k - int(left.sum())
            tied = np.zeros_like(left)
            if ties_kept:
                tied += np.array(_fetch([count(part == value) for part in inside[i]]), dtype=np.int64)
            result[k] = Threshold(value, left, tied, ties_kept)
    return result
