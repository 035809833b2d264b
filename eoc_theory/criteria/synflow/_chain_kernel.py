"""The compiled inner loop of `synflow`: iterative SynFlow on a sampled chain.

A module of its own because importing it imports numba; only a SynFlow prediction does.
"""

from __future__ import annotations

import numba
import numpy as np

# float32 bits shifted by this give 128 bins a factor of two; a threshold is interpolated inside its bin.
_SHIFT = 16
_BINS = 1 << 15


@numba.njit(cache=True, nogil=True)
def synflow_chain(
    value: np.ndarray,
    neurons: np.ndarray,
    copies: np.ndarray,
    copies_in: np.ndarray,
    copies_out: np.ndarray,
    count: np.ndarray,
    share: np.ndarray,
    log_density: np.ndarray,
    reported: np.ndarray,
) -> np.ndarray:
    """One run; returns the fraction of its sampled weights that each layer keeps, (reports, layers).

    Args:
        value: the sampled |W|, float32, by layer, row, column and copy; overwritten. A layer's scale does not
            matter.
        neurons: sampled neurons per level, (layers + 1,).
        copies: parallel weights between two neurons, (layers,); the first `copies_in` of them make up the
            forward signal, the first `copies_out` the backward one.
        count: number of the network's weights that one sampled weight stands for, (layers,).
        share: the same within its own layer (for the layer's total score), (layers,).
        log_density: natural logarithm of the density after each round, (rounds,), falling.
        reported: rounds (1-based, rising, may repeat) after which the kept fractions are reported,
            (reports,).
    """
    layers = len(copies)
    start = np.zeros(layers + 1, np.int64)
    first_row = np.zeros(layers + 1, np.int64)
    for layer in range(layers):
        start[layer + 1] = start[layer] + neurons[layer] * neurons[layer + 1] * copies[layer]
        first_row[layer + 1] = first_row[layer] + neurons[layer + 1] + 1
    places = start, first_row
    forward = np.ones((layers + 1, neurons.max()))
    kept = _laid_out(value, neurons, copies, copies_in, copies_out, places, forward)
    row_end = kept[2]
    backward = np.ones((layers + 1, neurons.max()))
    score = np.empty(start[layers], np.float32)
    sizes = np.empty(layers)
    total = 0.0
    for layer in range(layers):
        sizes[layer] = start[layer + 1] - start[layer]
        total += sizes[layer] * count[layer]

    histogram = np.empty(_BINS)
    factor = np.empty(layers)
    result = np.empty((len(reported), layers))
    report = 0
    left = total
    for r in range(len(log_density)):
        for layer in range(layers - 1, -1, -1):
            plain = copies[layer] == copies_out[layer]
            score_sum = _scored(layer, plain, value, kept, neurons, first_row, forward, backward, score)
            factor[layer] = left / (score_sum * share[layer]) if score_sum > 0 else 0.0
        excess = left - total * np.exp(log_density[r])
        cut = _threshold(score, factor, count, kept, first_row, histogram, excess)
        left = 0.0
        spread = 0.5
        for layer in range(layers):
            plain = copies[layer] == copies_in[layer]
            write, spread = _dropped(layer, plain, value, kept, neurons, places, forward, score, cut, spread)
            left += (write - start[layer]) * count[layer]
        while report < len(reported) and reported[report] == r + 1:
            for layer in range(layers):
                result[report, layer] = (row_end[first_row[layer + 1] - 1] - start[layer]) / sizes[layer]
            report += 1
    return result


@numba.njit(cache=True, nogil=True)
def _laid_out(
    value: np.ndarray,
    neurons: np.ndarray,
    copies: np.ndarray,
    copies_in: np.ndarray,
    copies_out: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    forward: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and use of each weight, and the ends of rows, for the dense network; its signal in `forward`.

    The survivors of row i of layer l lie at row_end[first_row[l] + i] … row_end[first_row[l] + i + 1].
    """
    start, first_row = places
    column = np.empty(start[-1], np.int32)
    used = np.empty(start[-1], np.uint8)
    row_end = np.empty(first_row[-1], np.int64)
    p = 0
    for layer in range(len(copies)):
        row_end[first_row[layer]] = p
        for i in range(neurons[layer + 1]):
            signal = 0.0
            for j in range(neurons[layer]):
                for a in range(copies[layer]):
                    column[p] = j
                    used[p] = (1 if a < copies_in[layer] else 0) + (2 if a < copies_out[layer] else 0)
                    if a < copies_in[layer]:
                        signal += value[p] * forward[layer, j]
                    p += 1
            forward[layer + 1, i] = signal
            row_end[first_row[layer] + i + 1] = p
        _normalise(forward[layer + 1], neurons[layer + 1])
    return column, used, row_end


@numba.njit(cache=True, nogil=True)
def _scored(
    layer: int,
    plain: bool,
    value: np.ndarray,
    kept: tuple[np.ndarray, np.ndarray, np.ndarray],
    neurons: np.ndarray,
    first_row: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    score: np.ndarray,
) -> float:
    """The backward signal and the scores of a layer; their sum.

    The sum is the same in every layer, which sets the layers' common scale.
    """
    column, used, row_end = kept
    back = backward[layer]
    back[: neurons[layer]] = 0.0
    score_sum = 0.0
    for i in range(neurons[layer + 1]):
        above = backward[layer + 1, i]
        for k in range(row_end[first_row[layer] + i], row_end[first_row[layer] + i + 1]):
            j = column[k]
            flow = value[k] * above
            if plain or used[k] & 2:
                back[j] += flow
            x = flow * forward[layer, j]
            score[k] = x
            score_sum += x
    _normalise(back, neurons[layer])
    return score_sum


@numba.njit(cache=True, nogil=True)
def _threshold(
    score: np.ndarray,
    factor: np.ndarray,
    count: np.ndarray,
    kept: tuple[np.ndarray, np.ndarray, np.ndarray],
    first_row: np.ndarray,
    histogram: np.ndarray,
    excess: float,
) -> tuple[int, int, float]:
    """The bits of the score under which `excess` weights lie, their bin, and the part of it that goes.

    The bits of a float are monotone in it.
    """
    bits, row_end = score.view(np.int32), kept[2]
    histogram[:] = 0.0
    for layer in range(len(factor)):
        for k in range(row_end[first_row[layer]], row_end[first_row[layer + 1] - 1]):
            score[k] *= factor[layer]
            histogram[bits[k] >> _SHIFT] += count[layer]
    b = 0
    while b < _BINS - 1 and histogram[b] < excess:
        excess -= histogram[b]
        b += 1
    part = min(max(excess / histogram[b], 0.0), 1.0) if histogram[b] > 0 else 0.0
    return int((b + part) * (1 << _SHIFT)), b, part


@numba.njit(cache=True, nogil=True)
def _dropped(
    layer: int,
    plain: bool,
    value: np.ndarray,
    kept: tuple[np.ndarray, np.ndarray, np.ndarray],
    neurons: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    forward: np.ndarray,
    score: np.ndarray,
    cut: tuple[int, int, float],
    spread: float,
) -> tuple[int, float]:
    """Drop a layer's weights under the threshold; the survivors make the next round's forward signal.

    Weights that have lost all connection tie at score 0 and are removed evenly: `spread` counts them.

    Returns:
        where the layer's survivors end, and the new `spread`.
    """
    start, first_row = places
    column, used, row_end = kept
    bits = score.view(np.int32)
    threshold, b, part = cut
    write = start[layer]
    read_end = row_end[first_row[layer]]
    for i in range(neurons[layer + 1]):
        read = read_end
        read_end = row_end[first_row[layer] + i + 1]
        signal = 0.0
        for k in range(read, read_end):
            if bits[k] < threshold:
                if b > 0 or bits[k] > 0:
                    continue
                spread += part
                if spread >= 1.0:
                    spread -= 1.0
                    continue
            w = value[k]
            j = column[k]
            value[write] = w
            column[write] = j
            used[write] = used[k]
            write += 1
            if plain or used[k] & 1:
                signal += w * forward[layer, j]
        forward[layer + 1, i] = signal
        row_end[first_row[layer] + i + 1] = write
    _normalise(forward[layer + 1], neurons[layer + 1])
    return write, spread


@numba.njit(cache=True, nogil=True)
def _smallest(values: np.ndarray, size: int, rank: int) -> float:
    """values[:size] sorted, at `rank` (from 0), in place. NumPy's selection takes seconds to compile."""
    low, high = 0, size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@numba.njit(cache=True, nogil=True)
def _normalise(signal: np.ndarray, size: int) -> None:
    """Mean 1: only ratios count, and no depth overflows."""
    mean = 0.0
    for i in range(size):
        mean += signal[i]
    mean /= size
    if mean > 0:
        for i in range(size):
            signal[i] /= mean


@numba.njit(cache=True, nogil=True)
def synflow_exact(value: np.ndarray, neurons: np.ndarray, remaining: np.ndarray) -> np.ndarray:
    """Iterative SynFlow on a small chain, weight by weight; the weights each layer keeps, int64 (layers,).

    Args:
        value: |W|, float64, by layer, row and column; overwritten.
        neurons: neurons per level, (layers + 1,).
        remaining: number of weights left after each round, (rounds,), falling; ties go evenly.
    """
    layers = len(neurons) - 1
    start = np.zeros(layers + 1, np.int64)
    for layer in range(layers):
        start[layer + 1] = start[layer] + neurons[layer] * neurons[layer + 1]
    row = np.empty(start[layers], np.int32)
    column = np.empty(start[layers], np.int32)
    score = np.zeros(start[layers])
    pool = np.empty(start[layers])
    size = np.empty(layers, np.int64)
    for layer in range(layers):
        size[layer] = start[layer + 1] - start[layer]
        for k in range(size[layer]):
            p = start[layer] + k
            row[p] = k // neurons[layer]
            column[p] = k % neurons[layer]
    forward = np.ones((layers + 1, neurons.max()))
    backward = np.ones((layers + 1, neurons.max()))
    for r in range(len(remaining)):
        for layer in range(layers - 1):
            forward[layer + 1] = 0.0
            for k in range(start[layer], start[layer] + size[layer]):
                forward[layer + 1, row[k]] += value[k] * forward[layer, column[k]]
            _normalise(forward[layer + 1], neurons[layer + 1])
        left = 0
        for layer in range(layers - 1, -1, -1):
            backward[layer] = 0.0
            total = 0.0
            for k in range(start[layer], start[layer] + size[layer]):
                flow = value[k] * backward[layer + 1, row[k]]
                backward[layer, column[k]] += flow
                score[k] = flow * forward[layer, column[k]]
                total += score[k]
            _normalise(backward[layer], neurons[layer])
            for k in range(start[layer], start[layer] + size[layer]):
                score[k] = score[k] / total if total > 0 else 0.0
                pool[left] = score[k]
                left += 1
        excess = left - remaining[r]
        if excess <= 0:
            continue
        threshold = _smallest(pool, left, excess - 1)
        above, ties = 0, 0
        for k in range(left):
            above += pool[k] > threshold
            ties += pool[k] == threshold
        staying = remaining[r] - above
        rank = 0
        for layer in range(layers):
            write = start[layer]
            for k in range(start[layer], start[layer] + size[layer]):
                stays = score[k] > threshold
                if score[k] == threshold:
                    stays = (rank + 1) * staying // ties > rank * staying // ties
                    rank += 1
                if stays:
                    value[write], row[write], column[write] = value[k], row[k], column[k]
                    write += 1
            size[layer] = write - start[layer]
    return size
