"""Kernels over pairs of positions: sums over common shifts, and their transpose.

A module of its own because importing it imports numba; only networks with positions need it. Large kernels
are shared out to a few threads of the process's own: numba's parallel loops are not used, since what they run
on without OpenMP or TBB must not be entered by two threads at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba
import numpy as np

from ..base.side_by_side import processors

Array = np.ndarray

#: Entries that one thread should have to itself, at least, and threads at most.
SHARE = 1 << 18
MOST_THREADS = 4


def gather(kernel: Array, space: tuple[int, ...], taps: list[Array]) -> Array:
    """Σ_β K(i(o, β), i(o', β)) over the taps β of a window, shape (T, P_out, P_out).

    Args:
        kernel: (T, P, P).
        space: extents whose product is P.
        taps: for each axis the positions that each output sees, (outputs, taps), −1 for none. A window is the
            product of its axes, so that the sum is taken axis by axis.
    """
    return _along_axes(kernel, space, taps, [len(t) for t in taps], transposed=False)


def scatter(kernel: Array, space: tuple[int, ...], taps: list[Array]) -> Array:
    """The transpose of `gather`: from (T, P_out, P_out) to (T, P, P), P = Π `space`."""
    outputs = tuple(len(t) for t in taps)
    return _along_axes(kernel, outputs, taps, list(space), transposed=True)


def look_up(covariance: Array, root: Array, table: Array, reach: float) -> tuple[Array, Array]:
    """√(q q') f(ρ) and g(ρ) from a table (n, 2) over √(1−ρ) in [0, reach], for all pairs.

    covariance and what is returned: (T, P, P); root: √q, (P,).
    """
    phi, slope = np.empty_like(covariance), np.empty_like(covariance)
    kinds, positions = covariance.shape[:2]
    number = covariance.dtype.type
    flat = (a.reshape(-1, positions) for a in (np.ascontiguousarray(covariance), phi, slope))
    arguments = (*flat, root.astype(number), _inverse(root, number), table.astype(number), number(reach))
    _share_out(_look_up, kinds * positions, positions, *arguments)
    return phi, slope


def series(
    covariance: Array, root: Array, coefficients: Array, rest: Array, table: Array, reach: float
) -> Array:
    """Σ_k a_k(p) a_k(p') ρ^k + r(p) r(p') w(ρ) for all pairs, (T, P, P).

    covariance: (T, P, P); root: √q (P,); coefficients a: (K, P); rest r: (P,), what the series leaves out at
    ρ = 1; table: w over √(1−ρ) in [0, reach], 0 beyond.
    """
    out = np.empty_like(covariance)
    kinds, positions = covariance.shape[:2]
    number = covariance.dtype.type
    flat = (a.reshape(-1, positions) for a in (np.ascontiguousarray(covariance), out))
    rows = (_inverse(root, number), np.ascontiguousarray(coefficients, number), rest.astype(number))
    _share_out(_series, kinds * positions, positions, *flat, *rows, table.astype(number), number(reach))
    return out


def _inverse(root: Array, number: type) -> Array:
    """1/√q, 0 where q is."""
    return np.divide(1.0, root, out=np.zeros(len(root)), where=root > 0).astype(number)


def _along_axes(
    kernel: Array, space: tuple[int, ...], taps: list[Array], extents: list[int], *, transposed: bool
) -> Array:
    shape = list(space)
    for axis, (tap, extent) in enumerate(zip(taps, extents, strict=True)):
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        n = shape[axis]
        view = np.ascontiguousarray(kernel).reshape(len(kernel) * before, n, after, before, n * after)
        shape[axis] = extent
        out = np.zeros((len(kernel) * before, extent, after, before, extent * after), dtype=kernel.dtype)
        jobs = len(kernel) * before
        _share_out(_sum_axis, jobs, out.size // jobs, view, tap.astype(np.int64), _runs(tap), out, transposed)
        size = math.prod(shape)
        kernel = out.reshape(len(kernel), size, size)
    return kernel


def _runs(tap: Array) -> Array:
    """Stretches (tap, first output, number of outputs, first entry, step) that cover all pairs, (n, 5)."""
    found: list[tuple[int, int, int, int, int]] = []
    outputs, window = tap.shape
    for k in range(window):
        start = 0
        while start < outputs:
            if tap[start, k] < 0:
                start += 1
                continue
            end, step = start + 1, 1
            if end < outputs and tap[end, k] > tap[start, k]:
                step = int(tap[end, k] - tap[start, k])
                while end < outputs and tap[end, k] - tap[end - 1, k] == step:
                    end += 1
            found.append((k, start, end - start, int(tap[start, k]), step))
            start = end
    return np.array(found, dtype=np.int64).reshape(-1, 5)


def _share_out(work: Callable[..., None], jobs: int, entries: int, *arguments) -> None:
    """work(first, last, …) for all jobs of so many entries each, on as many threads as are worth it."""
    threads = min(processors(), MOST_THREADS, jobs, max(1, jobs * entries // SHARE))
    if threads == 1:
        work(0, jobs, *arguments)
        return
    edges = np.linspace(0, jobs, threads + 1).astype(int)
    list(_pool().map(lambda first, last: work(first, last, *arguments), edges[:-1], edges[1:]))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="eoc-kernels")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork.
    os.register_at_fork(after_in_child=_pool.cache_clear)


@numba.njit(cache=True, nogil=True)
def _sum_axis(first, last, view, tap, runs, out, transposed):
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
def _look_up(first, last, covariance, phi, slope, root, inverse, table, reach):
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
def _series(first, last, covariance, out, inverse, coefficients, rest, table, reach):
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
