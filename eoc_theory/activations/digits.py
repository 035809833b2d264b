"""Functions in many digits whose cost does not grow with the size of their argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath

from . import effort

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


def _erf(u: Any) -> Any:
    """erf, at ±1 once it differs from it by less than the digits asked for."""
    if isinstance(u, mpmath.mpf) and (_far(u, 7) or 1.4 * float(u) ** 2 > mpmath.mp.prec + 10):
        return mpmath.sign(u)
    _spend_on_series(u, mpmath.mp.prec)
    return _plain(mpmath.erf, 7)(u)


def _spend_on_series(u: Any, bits: int) -> None:
    """Count what the series of the error function takes, about: their terms grow with u² and the digits."""
    if not _far(u, 7):
        size = float(abs(u))
        complexity = 4 if isinstance(u, mpmath.mpc) else 1
        effort.spend(int(complexity * 13 * (bits / 265) ** 1.3 * (1 + 1.4 * size + 0.04 * size**2)))


def _erfc(u: Any) -> Any:
    if not isinstance(u, mpmath.mpf):
        return _complex_erfc(u)
    if not _far(u, 5):
        _spend_on_series(u, 2 * mpmath.mp.prec)
        return mpmath.erfc(u)
    if u < 0:
        return mpmath.mpf(2)
    if _far(u, _HUGE // 2):
        return mpmath.mpf(0)
    effort.spend(mpmath.mp.prec)
    # The asymptotic series: from |u| = 32 on they fall below 400 digits.
    inverse, term, total = 1 / (2 * u * u), mpmath.mpf(1), mpmath.mpf(1)
    for k in range(1, 1000):
        term *= -(2 * k - 1) * inverse
        total += term
        if abs(term) < mpmath.eps:
            break
    return mpmath.exp(-u * u) / (u * mpmath.sqrt(mpmath.pi)) * total


def _complex_erfc(u: Any) -> Any:
    """1 − erf with as many digits more as that loses; mpmath's own is ten times as slow."""
    if _far(u, 7):
        raise BeyondError
    lost = 0.0 if mpmath.re(u) < 0 else float(mpmath.re(u * u))
    with mpmath.extraprec(20 + int(1.5 * max(0.0, lost))):
        _spend_on_series(u, mpmath.mp.prec)
        return 1 - mpmath.erf(u)


MPMATH_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": _exp,
    **{name: _plain(getattr(mpmath, name)) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _plain(getattr(mpmath, name)) for name in ("sinh", "cosh", "sech", "csch")},
    **{name: _complex_moderate(getattr(mpmath, name)) for name in ("log", "atan", "asinh")},
    "tanh": _bounded(mpmath.tanh, 12),
    "coth": _bounded(mpmath.coth, 12),
    "erf": _erf,
    "erfc": _erfc,
}
