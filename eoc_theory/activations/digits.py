"""Functions in many digits whose cost does not grow with the size of their argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath

_HUGE = 200  # binary digits before the point: beyond, reducing the argument is what would cost


class BeyondError(ArithmeticError):
    """A value too large to be told from infinity."""


def _far(u: Any, bits: int = _HUGE) -> bool:
    return bool(u) and mpmath.mag(u) > bits


def _exp(u: Any) -> Any:
    if not _far(u):
        return mpmath.exp(u)
    if mpmath.re(u) < 0 and _far(mpmath.re(u)):
        return mpmath.mpf(0)
    raise BeyondError


def _bounded(function: Callable[[Any], Any], bits: int) -> Callable[[Any], Any]:
    """A function that tends to ±1, which it has reached to 1,000 digits beyond `bits`."""

    def value(u: Any) -> Any:
        if isinstance(u, mpmath.mpf) and _far(u, bits):
            return mpmath.sign(u)
        return _plain(function, bits)(u)

    return value


def _plain(function: Callable[[Any], Any], bits: int = _HUGE) -> Callable[[Any], Any]:
    def value(u: Any) -> Any:
        if _far(u, bits):
            raise BeyondError
        return function(u)

    return value


def _complex_moderate(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function whose complex value is worked out by sums without rounding, so of moderate numbers only."""

    def value(u: Any) -> Any:
        if isinstance(u, mpmath.mpc) and any(
            part and abs(mpmath.mag(part)) > _HUGE for part in (u.real, u.imag)
        ):
            raise BeyondError
        return function(u)

    return value


def _erfc(u: Any) -> Any:
    if not isinstance(u, mpmath.mpf) or not _far(u, 5):
        return _plain(mpmath.erfc, 7)(u)
    if u < 0:
        return mpmath.mpf(2)
    if _far(u, _HUGE // 2):
        return mpmath.mpf(0)
    # The asymptotic series: from |u| = 32 on they fall below 400 digits.
    inverse, term, total = 1 / (2 * u * u), mpmath.mpf(1), mpmath.mpf(1)
    for k in range(1, 1000):
        term *= -(2 * k - 1) * inverse
        total += term
        if abs(term) < mpmath.eps:
            break
    return mpmath.exp(-u * u) / (u * mpmath.sqrt(mpmath.pi)) * total


MPMATH_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": _exp,
    **{name: _plain(getattr(mpmath, name)) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _plain(getattr(mpmath, name)) for name in ("sinh", "cosh", "sech", "csch")},
    **{name: _complex_moderate(getattr(mpmath, name)) for name in ("log", "atan", "asinh")},
    "tanh": _bounded(mpmath.tanh, 12),
    "coth": _bounded(mpmath.coth, 12),
    "erf": _bounded(mpmath.erf, 7),
    "erfc": _erfc,
}
