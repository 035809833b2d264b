"""Expressions in many digits, with functions whose cost does not grow with the size of their argument."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import mpmath
import sympy
from mpmath.libmp import ComplexResult, NoConvergence

from . import effort

sp: Any = sympy  # its annotations know nothing of what an expression can do
CONSTANT_DIGITS = 60  # of which cancellation may cost two thirds
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


def _small(u: Any) -> bool:
    """Whether 1 + u may lose digits of u that count."""
    return bool(u) and mpmath.mag(u) < -8


def _log_of_one_more(u: Any) -> Any:
    """log(1 + u)."""
    return mpmath.log1p(u) if _small(u) else MPMATH_FUNCTIONS["log"](1 + u)


def _exp_less_one(u: Any) -> Any:
    """exp(u) − 1."""
    return mpmath.expm1(u) if _small(u) else _exp(u) - 1


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


# --- expressions ---

Step = tuple[Callable[..., Any], tuple[int, ...]]
"""An operation, and which of the values before it takes."""


def compiled(expression: Any, variable: Any) -> Callable[[Any], Any]:
    """A smooth SymPy expression as a function of one of mpmath's numbers, in the precision of each call.

    Every distinct part is computed once, and what does not depend on the variable once a precision.
    """
    steps: list[Step] = []
    places: dict[Any, int] = {}
    varying: set[int] = set()
    _add_steps(expression, variable, steps, places, varying)
    constant = [i for i in range(len(steps)) if i not in varying]
    at_variable = places.get(variable)
    todo = [(i, *steps[i]) for i in sorted(varying) if i != at_variable]
    known: dict[int, list[Any]] = {}

    def constants() -> list[Any]:
        values: list[Any] = [None] * len(steps)
        for i in constant:
            operation, arguments = steps[i]
            values[i] = operation(*(values[j] for j in arguments))
        return values

    def evaluate(at: Any) -> Any:
        precision = mpmath.mp.prec
        if precision not in known:
            known[precision] = constants()
        values = known[precision].copy()
        if at_variable is not None:
            values[at_variable] = at
        for i, operation, arguments in todo:
            values[i] = operation(*[values[j] for j in arguments])
        return values[-1]

    return evaluate


def number(expression: Any) -> Any:
    """The value of an expression without variables in many digits, None where it is not real or beyond them.

    SymPy's own takes as many digits as the number has before its point: of exp(exp(10⁶)) all of them.
    """
    try:
        with mpmath.workdps(CONSTANT_DIGITS):
            value = mpmath.mpmathify(compiled(expression, None)(0))
            return mpmath.re(value) if mpmath.im(value) == 0 else None
    except (ArithmeticError, AttributeError, ValueError, ComplexResult, NoConvergence):
        return None


def constant(expression: Any) -> float | None:
    """As :func:`number`, as a float."""
    value = number(expression)
    return None if value is None else float(value)


def _add_steps(node: Any, variable: Any, steps: list[Step], places: dict[Any, int], varying: set[int]) -> int:
    """Where the value of a part stands, after the steps that compute it have been added."""
    if node in places:
        return places[node]
    operation, parts = _operation(node)
    arguments = tuple(_add_steps(part, variable, steps, places, varying) for part in parts)
    places[node] = len(steps)
    if node == variable or any(j in varying for j in arguments):
        varying.add(len(steps))
    steps.append((operation, arguments))
    return places[node]


def _operation(node: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What computes a part, and from which parts."""
    if node.is_Add:
        if len(node.args) == 2 and node.args[0] is sp.S.NegativeOne and node.args[1].func is sp.exp:
            return _exp_less_one, node.args[1].args
        return lambda *terms: reduce(operator.add, terms), node.args
    if node.is_Mul:
        return lambda *factors: reduce(operator.mul, factors), node.args
    if node.is_Pow:
        return _power(*node.args)
    if node.is_Rational:
        return lambda: mpmath.mpf(int(node.p)) / int(node.q), ()
    if node.is_Symbol:
        return lambda: None, ()
    if not node.args:
        return lambda: mpmath.make_mpf(node.evalf(mpmath.mp.dps + 5)._mpf_), ()
    if node.func is sp.log and node.args[0].is_Add and node.args[0].args[0] is sp.S.One:
        return _log_of_one_more, (node.args[0] - 1,)
    name = node.func.__name__
    return MPMATH_FUNCTIONS.get(name) or getattr(mpmath, name), node.args


def _power(base: Any, exponent: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    if exponent == -1:
        return lambda u: 1 / u, (base,)
    if exponent == sp.S.Half:
        return mpmath.sqrt, (base,)
    if exponent.is_Integer:
        whole = int(exponent)
        return lambda u: u**whole, (base,)
    return _raised, (base, exponent)


def _raised(base: Any, exponent: Any) -> Any:
    if _far(exponent):
        raise BeyondError
    return base**exponent
