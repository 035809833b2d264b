"""The logarithmic grid on which score distributions are tabulated."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

#: Grid of u = log(score) − log(root mean square score of the layer). Products of Gaussians have P(|x| < ε) ~
#: ε log 1/ε, so that the lower end holds all but 1e-10 of a law; the upper end lies beyond the largest of
#: 10¹² scores.
STEP = 0.04
GRID = np.arange(-26.0, 8.0, STEP)


def interpolate_grid(table: Array, u: Array) -> Array:
    """`table` (L, U) on GRID at u (…, L), constant beyond its ends."""
    position = np.clip((u - GRID[0]) / STEP, 0.0, len(GRID) - 1.000001)
    index = position.astype(np.int64)
    weight = position - index
    rows = np.arange(len(table))
    return table[rows, index] * (1.0 - weight) + table[rows, index + 1] * weight
