"""How much rounding may have cost the double-precision value of an expression, at each of many points.

Every operation passes on the errors of its arguments and adds its own: a running error analysis (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3). Where a sum cancels, or a factor has
underflowed, the bound says so.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import sympy

from .core import Array
from .digits import constant
from .stable import NUMPY_FUNCTIONS

sp: Any = sympy  # its annotations know nothing of what an expression can do

UNIT = float(np.finfo(np.float64).eps)
# What an underflow costs, and the inverse of an overflow.
TINY, INVERSE_OF_OVERFLOW = 5e-324, 6e-309
# An argument's error is enlarged by this before the function's change over it is looked at, for that change
# to stand out from rounding.
ENLARGED = 64.0

Bounded = tuple[Any, Any]  # a value and a bound for its error

_OTHER_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "cot": lambda u: 1.0 / np.tan(u),
    "sec": lambda u: 1.0 / np.cos(u),
    "csc": lambda u: 1.0 / np.sin(u),
    "sech": NUMPY_FUNCTIONS["Sech"],
    "csch": lambda u: 1.0 / np.sinh(u),
    "coth": lambda u: 1.0 / np.tanh(u),
}


def rounding_error(expression: Any, variable: Any, points: Array) -> Array:
    """A bound for the rounding error of an expression's value in double precision; of the points' shape.

    Args:
        expression: a smooth SymPy expression in `variable`, as it is computed.
        variable: its symbol.
        points: real numbers.

    Returns:
        the bound to first order, inf where nothing is known.
    """
    known: dict[Any, Bounded] = {variable: (points, 0.0)}
    with np.errstate(all="ignore"):
        error = _bounded(expression, known)[1]
    return np.broadcast_to(np.where(np.isnan(error), np.inf, error), points.shape)


def _bounded(node: Any, known: dict[Any, Bounded]) -> Bounded:
    found = known.get(node)
    if found is not None:
        return found
    if node.is_number and (constant := _constant(node)) is not None:
        found = constant
    elif node.is_Add:
        found = _sum([_bounded(argument, known) for argument in node.args])
    elif node.is_Mul:
        found = _product([_bounded(argument, known) for argument in node.args])
    elif node.is_Pow:
        base, exponent = node.args
        found = _power(_bounded(base, known), _bounded(exponent, known), exponent)
    else:
        name = node.func.__name__
        function = NUMPY_FUNCTIONS.get(name) or _OTHER_FUNCTIONS.get(name) or getattr(np, name)
        found = _function(function, _bounded(node.args[0], known))
    known[node] = found
    return found


def _constant(node: Any) -> Bounded | None:
    """Value and error of a number; None where they cannot be told: of a function that is ours."""
    value = constant(node)
    if value is None:
        return None
    exact = node.is_Rational and np.isfinite(value) and Fraction(value) == Fraction(int(node.p), int(node.q))
    return value, 0.0 if exact else UNIT * abs(value) + TINY


def _sum(terms: list[Bounded]) -> Bounded:
    value, error, size = 0.0, 0.0, 0.0
    for term, its_error in terms:
        value = value + term
        error = error + its_error
        size = size + np.abs(term)
    # In which order more than two are added is not known here.
    return value, error + UNIT * (np.abs(value) if len(terms) == 2 else size)


def _product(factors: list[Bounded]) -> Bounded:
    value, error = factors[0]
    for factor, its_error in factors[1:]:
        product = value * factor
        error = np.abs(value) * its_error + np.abs(factor) * error + error * its_error
        value, error = product, error + UNIT * np.abs(product) + TINY
    return value, error


def _power(base: Bounded, exponent: Bounded, symbolic: Any) -> Bounded:
    if not symbolic.free_symbols:
        power = int(symbolic) if symbolic.is_Integer else exponent[0]
        return _function(lambda u: np.power(np.asarray(u, dtype=np.float64), power), base)
    value, error = _function(lambda u: np.power(base[0], u), exponent)
    return value, error + _function(lambda u: np.power(u, exponent[0]), base)[1]


def _function(function: Callable[[Any], Any], argument: Bounded) -> Bounded:
    u, error = argument
    value = function(u)
    own = 2.0 * UNIT * np.abs(value) + TINY
    if not np.any(error):
        return value, own
    change = np.maximum(
        np.abs(function(u + ENLARGED * error) - value), np.abs(function(u - ENLARGED * error) - value)
    )
    # An argument that has overflowed is where the function is at its limit.
    return value, np.where(np.isinf(u), INVERSE_OF_OVERFLOW, change / ENLARGED) + own
