"""Softmax moments at many points: interpolated in a table that is made once for each number of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RectBivariateSpline

from .softmax_moments import pair_moments, row_moments

Array = NDArray[np.float64]

#: The largest scale of scores, and the one up to which tables are made unless more is asked for.
LARGEST_SCALE, USUAL_SCALE = 64.0, 32.0
#: Distance of nodes in asinh of the scale, and nodes over the correlation of two rows.
SPACING, CORRELATIONS = 0.2, 17


@dataclass(frozen=True)
class AttentionMoments:
    """Moments of attention among tokens of equal variance and equal correlation ρ; arrays of one shape.

    Attributes:
        square: E[Σ_b A_ab²].
        difference: E[Σ_b A_ab²] − E[Σ_b A_ab A_cb] for rows a ≠ c, with a relative accuracy of its own.
        jacobian, pair_jacobian: as of `RowMoments` and `PairMoments`.
        entropy: E[−Σ_b A_ab log A_ab] in nats.
    """

    square: Array
    difference: Array
    jacobian: Array
    pair_jacobian: Array
    entropy: Array


class SoftmaxTable:
    """Moments of the softmax over `tokens` scores by interpolation, within 1e-4 of their own size.

    The nodes are even in asinh β for the scale β = σ_qσ_k of the scores and, for the correlation ρ of tokens,
    in asinh(β(1 − ρ)): that is the scale at which two rows' scores differ. Logarithms are interpolated, of
    what is divided by its limit for small β.
    """

    def __init__(self, tokens: int, top: float) -> None:
        self.tokens = tokens
        nodes = np.linspace(0.0, math.asinh(top), 1 + round(math.asinh(top) / SPACING))
        rows = [row_moments(tokens, scale) for scale in np.sinh(nodes)]
        uniform, spread = 1.0 / tokens, (1.0 - 1.0 / tokens) / tokens
        squares = np.array([row.square for row in rows])
        excess = (squares[1:] - uniform) / (spread * np.sinh(nodes[1:]) ** 2)
        self._spread = spread
        even: Any = ((1, 0.0), "not-a-knot")  # all are even in the scale
        self._square = CubicSpline(nodes, np.log(np.concatenate([[1.0], excess])), bc_type=even)
        self._jacobian = CubicSpline(nodes, np.log([row.jacobian / spread for row in rows]), bc_type=even)
        shares_of_log = [row.entropy / math.log(tokens) for row in rows]
        self._entropy = CubicSpline(nodes, np.log(shares_of_log), bc_type=even)
        shares = np.linspace(0.0, 1.0, CORRELATIONS)
        pairs = np.array([[self._pair(node, share) for share in shares] for node in nodes])
        self._difference = RectBivariateSpline(nodes, shares, pairs[:, :, 0])
        self._pair_jacobian = RectBivariateSpline(nodes, shares, pairs[:, :, 1])

    def _pair(self, node: float, share: float) -> tuple[float, float]:
        beta = math.sinh(node)
        own = math.sinh(share * node)
        if beta == 0.0 or share == 0.0:
            return 0.0, 0.0  # rows alike, or scores so small that the limits hold
        gap = own / beta
        scale = beta * math.sqrt(gap)
        row, pair = row_moments(self.tokens, scale), pair_moments(self.tokens, scale, 1.0 - gap)
        # For rows nearly alike the difference is that of their scores, through the softmax's derivative.
        difference = (row.square - pair.overlap) / (row.jacobian * scale**2 * gap)
        return math.log(difference), math.log(pair.jacobian / row.jacobian)

    def __call__(self, beta: Array, gap: Array) -> AttentionMoments:
        """The moments for scores of scale `beta` among tokens of correlation 1 − `gap`, gap in [0, 1]."""
        scale = beta * np.sqrt(gap)
        at, node = np.arcsinh(scale), np.arcsinh(beta)
        share = np.divide(np.arcsinh(beta * gap), node, out=np.array(gap, dtype=float), where=node > 0.0)
        square = 1.0 / self.tokens + self._spread * scale**2 * np.exp(self._square(at))
        jacobian = self._spread * np.exp(self._jacobian(at))
        difference = jacobian * scale**2 * gap * np.exp(self._difference.ev(node, share))
        pair_jacobian = jacobian * np.exp(self._pair_jacobian.ev(node, share))
        entropy = math.log(self.tokens) * np.exp(self._entropy(at))
        return AttentionMoments(square, difference, jacobian, pair_jacobian, entropy)


@lru_cache(maxsize=16)
def softmax_table(tokens: int, wide: bool = False) -> SoftmaxTable:
    """The table for `tokens` ≥ 2, up to USUAL_SCALE, or to LARGEST_SCALE where `wide`."""
    return SoftmaxTable(tokens, LARGEST_SCALE if wide else USUAL_SCALE)
