"""Smooth pieces with three derivatives each, in forms that neither cancel nor overflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy import special

from .core import Array, Function, Piece

ROOT_2 = float(np.sqrt(2.0))
ROOT_2_PI = float(np.sqrt(2.0 * np.pi))
ROOT_2_OVER_PI = float(np.sqrt(2.0 / np.pi))
TWO_OVER_ROOT_PI = float(2.0 / np.sqrt(np.pi))


def polynomial(*coefficients: float) -> Piece:
    """Σ c_k x^k, lowest power first."""
    c = np.array(coefficients, dtype=np.float64)
    orders: list[Function] = []
    for _ in range(4):
        orders.append(_horner(tuple(c)))
        c = c[1:] * np.arange(1, len(c)) if len(c) > 1 else np.zeros(1)
    return orders[0], orders[1], orders[2], orders[3]


def _horner(coefficients: Sequence[float]) -> Function:
    def value(x: Array) -> Array:
        result = np.full_like(x, coefficients[-1])
        for c in coefficients[-2::-1]:
            result = result * x
            if c:
                result = result + c
        return result

    return value


def scaled(piece: Piece, inner: float = 1.0, outer: float = 1.0) -> Piece:
    """outer · f(inner · x)."""
    if inner == 1.0 and outer == 1.0:
        return piece
    a, b, c, d = (_scaled(f, inner, outer * inner**order) for order, f in enumerate(piece))
    return a, b, c, d


def _scaled(f: Function, inner: float, factor: float) -> Function:
    return lambda x: factor * f(inner * x)


def gaussian(x: Array) -> Array:
    """exp(−x²/2) to the last digit also in the tails, where rounding x² alone would cost x²/2 units."""
    x = np.clip(x, -45.0, 45.0)
    coarse = np.round(x * 64.0) / 64.0  # its square is exact
    return np.exp(-0.5 * coarse * coarse) * np.exp(-0.5 * (x - coarse) * (x + coarse))


def normal_cdf(x: Array) -> Array:
    """P(Z ≤ x) with full relative accuracy in the left tail."""
    left = 0.5 * special.erfcx(np.maximum(-x, 0.0) / ROOT_2) * gaussian(x)
    return np.where(x < 0, left, 0.5 * (1.0 + special.erf(x / ROOT_2)))


# --- sigmoids ---


def _logistic_slope(x: Array) -> Array:
    return special.expit(x) * special.expit(-x)


def _logistic_second(x: Array) -> Array:
    return -_logistic_slope(x) * np.tanh(0.5 * x)


def _logistic_third(x: Array) -> Array:
    slope = _logistic_slope(x)
    return slope * (1.0 - 6.0 * slope)


LOGISTIC: Piece = (special.expit, _logistic_slope, _logistic_second, _logistic_third)


def _log_logistic_slope(x: Array) -> Array:
    return special.expit(-x)


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


SOFTPLUS: Piece = (_softplus, special.expit, _logistic_slope, _logistic_second)
LOG_LOGISTIC: Piece = (
    lambda x: -np.logaddexp(0.0, -x),
    _log_logistic_slope,
    lambda x: -_logistic_slope(x),
    lambda x: -_logistic_second(x),
)


def _sech2(x: Array) -> Array:
    return 4.0 * _logistic_slope(2.0 * x)


def _tanh_third(x: Array) -> Array:
    t = np.tanh(x)
    return _sech2(x) * (6.0 * t * t - 2.0)


TANH: Piece = (np.tanh, _sech2, lambda x: -2.0 * np.tanh(x) * _sech2(x), _tanh_third)


def _tanh_shrink(x: Array) -> Array:
    # tanh x = x/(1 + c) with c = x²/(3 + x²/(5 + …)): no term cancels.
    small = np.clip(x, -1.0, 1.0)
    square = small * small
    c = np.full_like(square, 21.0)
    for odd in range(19, 2, -2):
        c = odd + square / c
    c = square / c
    return np.where(np.abs(x) < 1.0, small * c / (1.0 + c), x - np.tanh(x))


TANH_SHRINK: Piece = (
    _tanh_shrink,
    lambda x: np.tanh(x) ** 2,
    lambda x: 2.0 * np.tanh(x) * _sech2(x),
    lambda x: -_tanh_third(x),
)


def _erf_slope(x: Array) -> Array:
    return TWO_OVER_ROOT_PI * gaussian(ROOT_2 * x)


def _near(x: Array) -> Array:
    """x where the Gaussian is not yet 0; a power of x beyond must not overflow against it."""
    return np.clip(x, -45.0, 45.0)


ERF: Piece = (
    special.erf,
    _erf_slope,
    lambda x: -2.0 * _near(x) * _erf_slope(x),
    lambda x: (4.0 * _near(x) ** 2 - 2.0) * _erf_slope(x),
)

ATAN: Piece = (
    np.arctan,
    lambda x: 1.0 / (1.0 + x * x),
    lambda x: -2.0 * x * (1.0 + x * x) ** -2.0,
    lambda x: (6.0 - 8.0 / (1.0 + x * x)) * (1.0 + x * x) ** -2.0,
)

ASINH: Piece = (
    np.arcsinh,
    lambda x: 1.0 / np.hypot(1.0, x),
    lambda x: -x / np.hypot(1.0, x) ** 3,
    lambda x: (2.0 - 3.0 / (1.0 + x * x)) * np.hypot(1.0, x) ** -3.0,
)

# x/(1+x) on x ≥ 0, and its odd reflection on x ≤ 0.
SOFTSIGN_RIGHT: Piece = (
    lambda x: x / (1.0 + x),
    lambda x: (1.0 + x) ** -2.0,
    lambda x: -2.0 * (1.0 + x) ** -3.0,
    lambda x: 6.0 * (1.0 + x) ** -4.0,
)
SOFTSIGN_LEFT: Piece = (
    lambda x: x / (1.0 - x),
    lambda x: (1.0 - x) ** -2.0,
    lambda x: 2.0 * (1.0 - x) ** -3.0,
    lambda x: 6.0 * (1.0 - x) ** -4.0,
)

Gate: TypeAlias = tuple[Array, Array, Array, Array, Array, Array]

# --- gated: x times a sigmoid ---


def gated(gate: Callable[[Array], Gate]) -> Piece:
    """x · s(v(x)) with the logistic s; `gate` gives s, 1 − s, 1 − 2s, v', v'' and v''' at x.

    Every derivative is s(1 − s) times a bracket, so the tails keep their digits.
    """

    def value(x: Array) -> Array:
        return x * gate(x)[0]

    def first(x: Array) -> Array:
        s, r, _, v1, _, _ = gate(x)
        return s * (1.0 + x * r * v1)

    def second(x: Array) -> Array:
        s, r, d, v1, v2, _ = gate(x)
        return s * r * (2.0 * v1 + x * (d * v1 * v1 + v2))

    def third(x: Array) -> Array:
        s, r, d, v1, v2, v3 = gate(x)
        bend = d * v1 * v1 + v2
        return s * r * (3.0 * bend + x * ((1.0 - 6.0 * s * r) * v1**3 + 3.0 * d * v1 * v2 + v3))

    return value, first, second, third


def _silu_gate(x: Array) -> Gate:
    one, zero = np.ones_like(x), np.zeros_like(x)
    return special.expit(x), special.expit(-x), -np.tanh(0.5 * x), one, zero, zero


def _gelu_tanh_gate(x: Array) -> Gate:
    # Beyond ±30 the gate is 0 or 1 exactly; x³ must not overflow there.
    x = np.clip(x, -30.0, 30.0)
    scale, cubic = 2.0 * ROOT_2_OVER_PI, 0.044715
    v = scale * x * (1.0 + cubic * x * x)
    v1 = scale * (1.0 + 3.0 * cubic * x * x)
    v2, v3 = 6.0 * scale * cubic * x, np.full_like(x, 6.0 * scale * cubic)
    return special.expit(v), special.expit(-v), -np.tanh(0.5 * v), v1, v2, v3


def _mish_gate(x: Array) -> Gate:
    # tanh(log(1 + e)) = n/(n + 2) with n = e(e + 2), e = exp(x): the logistic of v = x + log(1 + e/2).
    g = np.exp(-np.abs(x))
    right = x > 0
    denominator = np.where(right, 1.0 + 2.0 * g + 2.0 * g * g, 2.0 + 2.0 * g + g * g)
    s = np.where(right, 1.0 + 2.0 * g, g * (2.0 + g)) / denominator
    r = np.where(right, 2.0 * g * g, 2.0) / denominator
    a = np.where(right, 1.0 / (1.0 + 2.0 * g), g / (2.0 + g))
    b = np.where(right, 2.0 * g / (1.0 + 2.0 * g), 2.0 / (2.0 + g))
    return s, r, r - s, 1.0 + a, a * b, a * b * (b - a)


SILU: Piece = gated(_silu_gate)
GELU_TANH: Piece = gated(_gelu_tanh_gate)
MISH: Piece = gated(_mish_gate)


def _density(x: Array) -> Array:
    return gaussian(x) / ROOT_2_PI


GELU: Piece = (
    lambda x: x * normal_cdf(x),
    lambda x: normal_cdf(x) + _near(x) * _density(x),
    lambda x: (2.0 - _near(x) ** 2) * _density(x),
    lambda x: _near(x) * (_near(x) ** 2 - 4.0) * _density(x),
)

# --- exponentials, waves and others ---

EXP: Piece = (np.exp, np.exp, np.exp, np.exp)
EXPM1: Piece = (np.expm1, np.exp, np.exp, np.exp)
SIN: Piece = (np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x))
COS: Piece = (np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin)
SNAKE: Piece = (
    lambda x: x + np.sin(x) ** 2,
    lambda x: 1.0 + np.sin(2.0 * x),
    lambda x: 2.0 * np.cos(2.0 * x),
    lambda x: -4.0 * np.sin(2.0 * x),
)
BENT_IDENTITY: Piece = (
    lambda x: x + 0.5 * x * (x / (np.hypot(1.0, x) + 1.0)),
    lambda x: 1.0 + 0.5 * x / np.hypot(1.0, x),
    lambda x: 0.5 / np.hypot(1.0, x) ** 3,
    lambda x: -1.5 * x / np.hypot(1.0, x) ** 5,
)
