"""The compiled inner loops of `position_kernels`, over rows `first` to `last`, which threads can share."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def sum_axis(first, last, view, tap, runs, out, transposed):
    outputs, after, before = tap.shape[0], view.shape[2], view.shape[3]
    for a in range(first, last):
        for o in range(outputs):
            for n in range(len(runs)):
                k, q, count, j, step = runs[n]
                i = tap[o, k]
                if i < 0:
                    continue
                for s in range(after):
                    for b in range(before):
                        if transposed:
                            _add_run(out[a, i, s, b], j, step, view[a, o, s, b], q, 1, count, after)
                        else:
                            _add_run(out[a, o, s, b], q, 1, view[a, i, s, b], j, step, count, after)


# Inlined: as calls, short runs take a third longer.
@numba.njit(cache=True, nogil=True, inline="always")
def _add_run(target, to, to_step, source, start, start_step, count, after):
    """Add `count` blocks of `after` entries, every `start_step`-th from `start` on, to every `to_step`-th."""
    if to_step == 1 and start_step == 1:
        for r in range(count * after):
            target[to * after + r] += source[start * after + r]
    else:
        for m in range(count):
            for r in range(after):
                target[(to + m * to_step) * after + r] += source[(start + m * start_step) * after + r]


@numba.njit(cache=True, nogil=True, fastmath=True)
def look_up(first, last, covariance, phi, slope, root, inverse, table, reach):
    positions = covariance.shape[1]
    one = root.dtype.type(1)
    cells = len(table) - 1
    step = root.dtype.type(cells) / reach
    for row in range(first, last):
        own, turned = root[row % positions], inverse[row % positions]
        for j in range(positions):
            c = covariance[row, j] * turned * inverse[j]
            c = min(max(c, -one), one)
            at = np.sqrt(one - c) * step
            left = min(np.int32(at), np.int32(cells - 1))
            w = at - left
            phi[row, j] = own * root[j] * (table[left, 0] + w * (table[left + 1, 0] - table[left, 0]))
            slope[row, j] = table[left, 1] + w * (table[left + 1, 1] - table[left, 1])


@numba.njit(cache=True, nogil=True, fastmath=True)
def series(first, last, covariance, out, inverse, coefficients, rest, table, reach):
    positions = covariance.shape[1]
    terms = len(coefficients)
    one = inverse.dtype.type(1)
    cells = len(table) - 1
    step = inverse.dtype.type(cells) / reach
    x = np.empty(positions, dtype=covariance.dtype)
    for row in range(first, last):
        i = row % positions
        turned, sums = inverse[i], out[row]
        for j in range(positions):
            x[j] = min(max(covariance[row, j] * turned * inverse[j], -one), one)
            sums[j] = 0
        for k in range(terms - 1, -1, -1):
            factor, others = coefficients[k, i], coefficients[k]
            for j in range(positions):
                sums[j] = sums[j] * x[j] + factor * others[j]
        tail = rest[i]
        if tail > 0:
            for j in range(positions):
                at = np.sqrt(one - x[j]) * step
                left = np.int32(at)
                if left < cells:
                    w = at - left
                    sums[j] += tail * rest[j] * (table[left] + w * (table[left + 1] - table[left]))
