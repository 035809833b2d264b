"""Kernels over pairs of positions: sums over common shifts, and their transpose.

Large kernels are shared out by `base.side_by_side`: numba's parallel loops are not used, since what they run
on without OpenMP or TBB must not be entered by two threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import numpy as np

from ..base.side_by_side import MOST_THREADS, processors, side_by_side

Array = np.ndarray

#: Entries that one thread should have to itself, at least.
SHARE = 1 << 18


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
    _share_out(_loops().rectified, kinds * positions, positions, *arguments)
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
    arguments = (*flat, *rows, table.astype(number), number(reach))
    _share_out(_loops().series, kinds * positions, positions, *arguments)
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
    _share_out(_loops().hermite, len(z), terms * z.shape[1], *arguments)
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
        arguments = (view, tap.astype(np.int64), _runs(tap), out, transposed)
        _share_out(_loops().sum_axis, jobs, out.size // jobs, *arguments)
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


def _loops() -> ModuleType:
    """The compiled loops; importing them imports numba, which only networks with positions need."""
    from . import _position_loops

    return _position_loops


def _share_out(work: Callable[..., None], jobs: int, entries: int, *arguments) -> None:
    """work(first, last, …) for all jobs of so many entries each, on as many threads as are worth it."""
    threads = min(processors(), MOST_THREADS, jobs, max(1, jobs * entries // SHARE))
    if threads == 1:
        work(0, jobs, *arguments)
        return
    edges = np.linspace(0, jobs, threads + 1).astype(int)
    side_by_side(lambda part: work(*part, *arguments), pairwise(edges))
