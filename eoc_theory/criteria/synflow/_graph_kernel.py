"""The compiled inner loops of `graph_synflow`: a layer's surviving weights, entry by entry.

A module of its own because importing it imports numba; only a SynFlow prediction does.
"""

from __future__ import annotations

import numba
import numpy as np

# float32 bits shifted by this give 128 bins a factor of two; a threshold is interpolated inside its bin.
SHIFT = 16
BINS = 1 << 15
FORWARD, BACKWARD = 1, 2


@numba.njit(cache=True, nogil=True)
def lay_out(
    rows: int, groups: int, taps: int, copies_in: np.ndarray, copies_out: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column, tap and use (FORWARD, BACKWARD or both) of every sampled weight of a layer.

    Args:
        rows: sampled output channels.
        groups: of channels.
        taps: of the kernel.
        copies_in: sampled columns stand for so many channels each, (columns,).
        copies_out: the same of every row.
    """
    per_group = len(copies_in) // groups
    total = 0
    for i in range(rows):
        first = (i * groups // rows) * per_group
        for j in range(first, first + per_group):
            total += max(copies_in[j], copies_out) * taps
    row = np.empty(total, np.int32)
    column = np.empty(total, np.int32)
    tap = np.empty(total, np.int32)
    use = np.empty(total, np.uint8)
    at = 0
    for i in range(rows):
        first = (i * groups // rows) * per_group
        for j in range(first, first + per_group):
            for a in range(max(copies_in[j], copies_out)):
                used = (FORWARD if a < copies_in[j] else 0) + (BACKWARD if a < copies_out else 0)
                for k in range(taps):
                    row[at], column[at], tap[at], use[at] = i, j, k, used
                    at += 1
    return row, column, tap, use


@numba.njit(cache=True, nogil=True)
def gather(
    value: np.ndarray,
    target: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    use: np.ndarray,
    size: int,
    flag: int,
    signal: np.ndarray,
    tap_mean: np.ndarray,
    channels: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Σ |W| signal[source] over entries: by target, taps weighted by `tap_mean`, and by tap."""
    by_target = np.zeros(channels)
    by_tap = np.zeros(len(tap_mean))
    for k in range(size):
        if use[k] & flag:
            flow = value[k] * signal[source[k]]
            by_target[target[k]] += flow * tap_mean[tap[k]]
            by_tap[tap[k]] += flow
    return by_target, by_tap


@numba.njit(cache=True, nogil=True)
def score_entries(
    value: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    tap: np.ndarray,
    size: int,
    row_signal: np.ndarray,
    column_signal: np.ndarray,
    tap_factor: np.ndarray,
    count: float,
    score: np.ndarray,
    histogram: np.ndarray,
) -> None:
    """Scores of the entries into `score`, counted into the histogram, whose last place is for 0."""
    bits = score.view(np.int32)
    for k in range(size):
        score[k] = value[k] * row_signal[row[k]] * column_signal[column[k]] * tap_factor[tap[k]]
        histogram[bits[k] >> SHIFT if bits[k] else BINS] += count


@numba.njit(cache=True, nogil=True)
def drop_entries(
    value: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    tap: np.ndarray,
    use: np.ndarray,
    size: int,
    score: np.ndarray,
    threshold: int,
    unreached: float,
    spread: float,
) -> tuple[int, float]:
    """Drop entries whose score's bits are below `threshold`; of those that score 0, the fraction `unreached`.

    Returns how many stay, and where the even spread of the latter has come to.
    """
    bits = score.view(np.int32)
    write = 0
    for k in range(size):
        if bits[k] == 0:
            spread += unreached
            if spread >= 1.0:
                spread -= 1.0
                continue
        elif bits[k] < threshold:
            continue
        value[write], row[write], column[write] = value[k], row[k], column[k]
        tap[write], use[write] = tap[k], use[k]
        write += 1
    return write, spread
