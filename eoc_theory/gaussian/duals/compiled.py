"""The one inner loop that is worth compiling: Horner's rule over all pairs of a batch.

The compiled loop does the same IEEE operations in the same order as the NumPy one (no contraction to fused
multiply-adds, no reassociation), so which of the two ran cannot be told from the result. That is what
allows to leave numba alone where importing it would cost more than it saves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from .pairs import Array

# Importing numba costs about as much as this many multiply-adds in NumPy.
WORTH_IMPORTING = 400_000_000
BLOCK = 256
_spent = 0


def pair_series(x: Array, table: Array, expected_calls: int = 1) -> Array:
    """Σ_k table[k, i] table[k, j] x[i, j]^k, shape (B, B), for table (K, B) and symmetric x (B, B)."""
    global _spent
    _spent += x.size * len(table)
    if "numba" in sys.modules or max(_spent, x.size * len(table) * expected_calls) > WORTH_IMPORTING:
        out = np.empty_like(x)
        _compiled()(x, table, out)
        return out
    return _numpy_series(x, table)


def _numpy_series(x: Array, table: Array) -> Array:
    out = table[-1][:, None] * table[-1]
    scratch = np.empty_like(out)
    for row in table[-2::-1]:
        out *= x
        np.multiply(row[:, None], row, out=scratch)
        out += scratch
    return out


@lru_cache(maxsize=1)
def _compiled() -> Callable[[Array, Array, Array], None]:
    """The compiled loop."""
    import numba

    return numba.njit(cache=True, nogil=True)(_loop)


def _loop(x: Array, table: Array, out: Array) -> None:
    n, b = table.shape
    sums = np.empty(BLOCK)
    for i in range(b):
        for start in range(0, i + 1, BLOCK):
            width = min(BLOCK, i + 1 - start)
            xs = x[i, start : start + width]
            row = table[n - 1, start : start + width]
            factor = table[n - 1, i]
            for j in range(width):
                sums[j] = factor * row[j]
            k = n - 2
            while k >= 3:
                # Four steps in one pass, so that the sums stay in registers.
                a, p = table[k, i], table[k, start : start + width]
                b1, p1 = table[k - 1, i], table[k - 1, start : start + width]
                b2, p2 = table[k - 2, i], table[k - 2, start : start + width]
                b3, p3 = table[k - 3, i], table[k - 3, start : start + width]
                for j in range(width):
                    t = xs[j]
                    s = sums[j] * t + a * p[j]
                    s = s * t + b1 * p1[j]
                    s = s * t + b2 * p2[j]
                    sums[j] = s * t + b3 * p3[j]
                k -= 4
            while k >= 0:
                factor, p = table[k, i], table[k, start : start + width]
                for j in range(width):
                    sums[j] = sums[j] * xs[j] + factor * p[j]
                k -= 1
            for j in range(width):
                out[i, start + j] = sums[j]
    for i in range(b):
        for j in range(i):
            out[j, i] = out[i, j]
