"""Kernels over pairs of positions: sums over common shifts, and their transpose.

A module of its own because importing it imports numba; only networks with positions need it.
"""

from __future__ import annotations

import math

import numba
import numpy as np

Array = np.ndarray


def gather(kernel: Array, space: tuple[int, ...], taps: list[Array]) -> Array:
    """Σ_β K(i(o, β), i(o', β)) over the taps β of a window, shape (T, P_out, P_out).

    Args:
        kernel: (T, P, P).
        space: extents whose product is P.
        taps: for each axis the positions that each output sees, (outputs, taps), −1 for none. A window is the
            product of its axes, so that the sum is taken axis by axis.
    """
    return _along_axes(kernel, space, taps, _gather_axis, [len(t) for t in taps])


def scatter(kernel: Array, space: tuple[int, ...], taps: list[Array]) -> Array:
    """The transpose of `gather`: from (T, P_out, P_out) to (T, P, P), P = Π `space`."""
    outputs = tuple(len(t) for t in taps)
    return _along_axes(kernel, outputs, taps, _scatter_axis, list(space))


def _along_axes(kernel: Array, space: tuple[int, ...], taps: list[Array], axis_sum, extents) -> Array:
    shape = list(space)
    for axis, (tap, extent) in enumerate(zip(taps, extents, strict=True)):
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        n = shape[axis]
        view = np.ascontiguousarray(kernel).reshape(len(kernel), before, n, after, before, n, after)
        shape[axis] = extent
        out = np.zeros((len(kernel), before, extent, after, before, extent, after), dtype=kernel.dtype)
        axis_sum(view, tap.astype(np.int64), out)
        size = math.prod(shape)
        kernel = out.reshape(len(kernel), size, size)
    return kernel


@numba.njit(cache=True, nogil=True, parallel=True)
def _gather_axis(view, tap, out):
    kinds, before, _, after = view.shape[:4]
    outputs, window = tap.shape
    for job in numba.prange(kinds * before * outputs):
        number = np.int64(job)
        t = number // (before * outputs)
        a = number // outputs % before
        o = number % outputs
        for k in range(window):
            i = tap[o, k]
            if i < 0:
                continue
            for s in range(after):
                for b in range(before):
                    for q in range(outputs):
                        j = tap[q, k]
                        if j < 0:
                            continue
                        for r in range(after):
                            out[t, a, o, s, b, q, r] += view[t, a, i, s, b, j, r]


@numba.njit(cache=True, nogil=True, parallel=True)
def _scatter_axis(view, tap, out):
    kinds, before, _, after = view.shape[:4]
    outputs, window = tap.shape
    for job in numba.prange(kinds * before):
        t, a = np.int64(job) // before, np.int64(job) % before
        for o in range(outputs):
            for k in range(window):
                i = tap[o, k]
                if i < 0:
                    continue
                for s in range(after):
                    for b in range(before):
                        for q in range(outputs):
                            j = tap[q, k]
                            if j < 0:
                                continue
                            for r in range(after):
                                out[t, a, i, s, b, j, r] += view[t, a, o, s, b, q, r]


@numba.njit(cache=True, nogil=True, parallel=True)
def look_up(covariance, root, table, reach, phi, slope):
    """√(q q') f(ρ) and g(ρ) from a table (2, n) over √(1−ρ) in [0, reach], for all pairs.

    covariance, phi, slope: (T, P, P); root: √q, (P,).
    """
    kinds, positions = covariance.shape[:2]
    step = (table.shape[1] - 1) / reach
    last = table.shape[1] - 2
    for job in numba.prange(kinds * positions):
        t, i = np.int64(job) // positions, np.int64(job) % positions
        own = root[i]
        inverse = 1.0 / own if own > 0 else 0.0
        for j in range(positions):
            other = root[j]
            c = covariance[t, i, j] * inverse / other if other > 0 else 0.0
            c = min(max(c, -1.0), 1.0)
            at = math.sqrt(1.0 - c) * step
            left = min(int(at), last)
            w = at - left
            phi[t, i, j] = own * other * ((1.0 - w) * table[0, left] + w * table[0, left + 1])
            slope[t, i, j] = (1.0 - w) * table[1, left] + w * table[1, left + 1]


@numba.njit(cache=True, nogil=True, parallel=True, fastmath=True)
def series(covariance, root, coefficients, rest, table, reach, out):
    """Σ_k a_k(p) a_k(p') ρ^k + r(p) r(p') w(ρ) for all pairs.

    covariance, out: (T, P, P); root: √q (P,); coefficients a: (K, P); rest r: (P,), what the series leaves
    out at ρ = 1; table: w over √(1−ρ) in [0, reach], 0 beyond.
    """
    kinds, positions = covariance.shape[:2]
    terms = len(coefficients)
    step = (len(table) - 1) / reach
    for job in numba.prange(kinds * positions):
        t, i = np.int64(job) // positions, np.int64(job) % positions
        own = root[i]
        inverse = 1.0 / own if own > 0 else 0.0
        x = np.empty(positions, dtype=covariance.dtype)
        sums = np.zeros(positions, dtype=covariance.dtype)
        for j in range(positions):
            c = covariance[t, i, j] * inverse / root[j] if root[j] > 0 else 0.0
            x[j] = min(max(c, -1.0), 1.0)
        for k in range(terms - 1, -1, -1):
            factor = coefficients[k, i]
            row = coefficients[k]
            for j in range(positions):
                sums[j] = sums[j] * x[j] + factor * row[j]
        tail = rest[i]
        if tail > 0:
            for j in range(positions):
                at = math.sqrt(1.0 - x[j]) * step
                left = int(at)
                if left < len(table) - 1:
                    w = at - left
                    sums[j] += tail * rest[j] * ((1.0 - w) * table[left] + w * table[left + 1])
        for j in range(positions):
            out[t, i, j] = sums[j]
