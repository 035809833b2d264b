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
def hermite(first, last, z, weighted, squares, found, negligible):
    functions, terms, nodes = found.shape[0], found.shape[1], z.shape[1]
    before, row = np.empty(nodes), np.empty(nodes)
    for n in range(first, last):
        before[:] = 0.0
        row[:] = 1.0
        for k in range(terms):
            for d in range(functions):
                total = 0.0
                for i in range(nodes):
                    total += weighted[d, n, i] * row[i]
                found[d, k, n] = total
            if k % 32 == 31:
                complete = True
                for d in range(functions):
                    left = squares[d, n]
                    for m in range(k + 1):
                        left -= found[d, m, n] ** 2
                    complete = complete and left <= negligible * squares[d, n]
                if complete:
                    break
            fall, rise = np.sqrt(float(k)), 1.0 / np.sqrt(k + 1.0)
            for i in range(nodes):
                following = (z[n, i] * row[i] - fall * before[i]) * rise
                before[i], row[i] = row[i], following


# Without branches and look-ups: the loop over positions runs in vector registers.
@numba.njit(cache=True, nogil=True, fastmath=True)
def rectified(first, last, covariance, phi, slope, root, inverse, left, right):
    positions = covariance.shape[1]
    number = root.dtype.type
    one, pi, turn = number(1), number(np.pi), number(2 * np.pi)
    jump = right - left
    linear, bent = left * left, left * jump
    square = jump * jump / turn
    for row in range(first, last):
        own, turned = root[row % positions], inverse[row % positions]
        for j in range(positions):
            c = min(max(covariance[row, j] * turned * inverse[j], -one), one)
            size = abs(c)
            fall = np.sqrt(one - size)
            angle = fall * (
                number(1.5707963050) + size * (
                    number(-0.2145988016) + size * (
                        number(0.0889789874) + size * (
                            number(-0.0501743046) + size * (
                                number(0.0308918810) + size * (
                                    number(-0.0170881256) + size * (
                                        number(0.0066700901) + size * number(-0.0012624911)
                                    )
                                )
                            )
                        )
                    )
                )
            )  # fmt: skip
            # π − θ, where ρ < 0 mirrors θ.
            rest = pi - angle if c > 0 else angle
            sine = fall * np.sqrt(one + size)
            phi[row, j] = own * root[j] * ((linear + bent) * c + square * (sine + rest * c))
            slope[row, j] = linear + bent + square * rest


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
