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


def rectified(covariance: Array, root: Array, left: float, right: float) -> tuple[Array, Array]:
    """E[φφ'] and E[φ'φ'] of zero-mean fields under φ(x) = right·x for x > 0, left·x below, for all pairs.

    Cho & Saul 2009, eq. 6 to 8, with θ = arccos ρ by Abramowitz & Stegun 4.4.46, within 2e-8.

    covariance and what is returned: (T, P, P); root: √q, (P,).
    """
    phi, slope = np.empty_like(covariance), np.empty_like(covariance)
    kinds, positions = covariance.shape[:2]
    number = covariance.dtype.type
    flat = (a.reshape(-1, positions) for a in (np.ascontiguousarray(covariance), phi, slope))
    arguments = (*flat, root.astype(number), _inverse(root, number), number(left), number(right))
    _share_out(_rectified, kinds * positions, positions, *arguments)
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


def hermite_coefficients(z: Array, weighted: Array, squares: Array, terms: int, negligible: float) -> Array:
    """Σ_z f(z) He_k(z)/√k! of D functions for N laws, (D, terms, N); 0 behind what carries all of E[f²].

    Args:
        z: nodes, (N, Z).
        weighted: the functions' values there times the nodes' weights, (D, N, Z).
        squares: E[f²], (D, N).
        terms: of the series.
        negligible: share of E[f²] that may be left out.
    """
    found = np.zeros((len(weighted), terms, len(z)))
    arguments = (np.ascontiguousarray(z), np.ascontiguousarray(weighted), squares, found, negligible)
    _share_out(_hermite, len(z), terms * z.shape[1], *arguments)
    return found


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
    threads = min(_processors(), MOST_THREADS, jobs, max(1, jobs * entries // SHARE))
    if threads == 1:
        work(0, jobs, *arguments)
        return
    edges = np.linspace(0, jobs, threads + 1).astype(int)
    list(_pool().map(lambda first, last: work(first, last, *arguments), edges[:-1], edges[1:]))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="eoc-kernels")


@lru_cache(maxsize=1)
def _processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
def _hermite(first, last, z, weighted, squares, found, negligible):
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
def _rectified(first, last, covariance, phi, slope, root, inverse, left, right):
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
