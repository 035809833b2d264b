"""Activations in single precision from tables, for millions of evaluations in sampling.

Smooth ones by linear interpolation (`evaluate`). Cells are h = 7·10⁻⁴ of the activation's length scale wide,
so that the error, h²/8 of the second derivative, is that of a float32; of values far below the length scale,
where the function is a line, some 10⁻⁴ of them. Where the function is not smooth, or far out, or in double
precision, it is evaluated itself. Derivatives of all activations by the nearest point (`slope_table`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..activations import Activation

Array = np.ndarray
Function = Callable[[Any], Any]

#: Extent of the table on either side in length scales, and its cells there.
_REACH = 12.0
_HALF = 1 << 14
#: Entries evaluated at a time: activations compute in double precision, whose copies then stay in the cache.
_BLOCK = 1 << 15


def evaluate(act: Activation, x: Array, order: int = 0) -> Array:
    """φ(x), or its derivative of `order` 1, in the precision of x."""
    function: Function = act.derivative(order)
    table = None if x.dtype != np.float32 or act.kinks else _table(act, order)
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        result[part] = function(flat[part]) if table is None else _look_up(function, table, flat[part])
    return result.reshape(x.shape)


@lru_cache(maxsize=64)
def _table(act: Activation, order: int) -> tuple[float, Array, Array]:
    """1/h, and for every cell the value at its left end and the rise to its right."""
    step = _REACH * act.length_scale / _HALF
    function: Function = act.derivative(order)
    values = function(np.arange(-_HALF, _HALF + 1) * step)
    return 1.0 / step, values[:-1].astype(np.float32), np.diff(values).astype(np.float32)


def _look_up(function: Function, table: tuple[float, Array, Array], x: Array) -> Array:
    inverse, left, rise = table
    place = x * np.float32(inverse)
    outside = not (place.max() < _HALF and place.min() >= -_HALF)
    cell = np.floor(place)
    place -= cell
    # fmax takes the number beside a nan.
    number = (np.fmin(np.fmax(cell, -_HALF), _HALF - 1) if outside else cell).astype(np.int32) + _HALF
    place *= rise.take(number, mode="clip")
    place += left.take(number, mode="clip")
    if outside:
        far = ~((cell >= -_HALF) & (cell < _HALF))
        place[far] = function(x[far])
    return place


@lru_cache(maxsize=16)
def slope_table(act: Activation) -> Callable[[Array], Array]:
    """φ' by the nearest of 2¹⁶ points, in single precision: sampling evaluates it millions of times.

    Far out, where the table ends, φ' itself is evaluated.
    """
    reach, size = 16.0 * max(1.0, act.length_scale), 1 << 16
    slope: Function = act.derivative(1)
    step = 2.0 * reach / size
    table = slope((np.arange(size) + 0.5) * step - reach).astype(np.float32)

    def look_up(y: Array) -> Array:
        if y.size and (y.max() >= reach or y.min() < -reach):
            return slope(y).astype(np.float32)
        # Rounded before the shift, so that the smallest negative y stay on their side of a kink at 0.
        return table[np.floor(y * np.float32(1.0 / step)).astype(np.int64) + size // 2]

    return look_up
