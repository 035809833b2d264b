"""Activations from expressions: kinks and derivatives found symbolically, values that keep their digits.

SymPy is imported by this module and those it is made of (`reading`, `branches`, `values`, `traits`,
`stable`), so it is imported only once an expression is met.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mpmath
import sympy

from ..errors import EOCError, ExpressionError
from . import catalogue, effort, grammar, traits
from .branches import split
from .core import Activation
from .reading import build, from_sympy, is_function, read, shown_in_errors, x
from .survey import surveyed
from .values import check_finite, smooth

__all__ = ["from_expression", "from_sympy_expression", "from_text", "read", "split", "x"]

sp: Any = sympy  # its annotations know nothing of what an expression can do


#: A logarithm of 1 and so little more or less is replaced by its value.
_NEAR_ONE = sp.Rational(1, 10**6)
_DIGITS = 60


def _with_small_logarithms(expression: Any) -> Any:
    """`expression` with the logarithms of rational numbers near 1 as rational numbers of `_DIGITS` digits.

    log(1 + 10⁻³⁰⁰) is 0 in SymPy's own evaluation, whatever its precision, and in any with fewer digits.
    """

    def is_near(node: Any) -> bool:
        return isinstance(node, sp.log) and node.args[0].is_Rational and abs(node.args[0] - 1) < _NEAR_ONE

    def value(node: Any) -> Any:
        beyond = node.args[0] - 1
        with mpmath.workdps(_DIGITS):
            sign, digits, power, _ = mpmath.log1p(mpmath.mpf(int(beyond.p)) / int(beyond.q))._mpf_
        return sp.Rational((-1) ** sign * int(digits)) * sp.Integer(2) ** power

    return expression.replace(is_near, value)


def from_expression(expression: Any, name: str, source: Any) -> Activation:
    """The activation of a SymPy expression in :data:`x`.

    Raises:
        ExpressionError: it does not depend on x, has a value or one of its first two derivatives not finite
            and real somewhere, has more than 63 kinks, or oscillates ever faster.
    """
    shown = shown_in_errors(name)
    if expression.has(sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I):
        raise ExpressionError(f"{shown} has a constant that is not finite and real")
    if not expression.has(x):
        raise ExpressionError(
            f"{shown} does not depend on x: it is {grammar.cut(str(expression))} everywhere"
        )
    _check_powers(expression, shown)
    branches = split(_with_small_logarithms(expression), shown)
    if len(branches) == 1 and not branches[0].expression.has(x):
        raise ExpressionError(
            f"{shown} does not depend on x: it is {grammar.cut(str(branches[0].expression))} everywhere"
        )
    if max(traits.exponential_levels(branch.expression) for branch in branches) > 2:
        raise ExpressionError(f"{shown} nests more than two exponentials")
    made = [smooth(branch) for branch in branches]
    pieces, exacts = [piece for piece, *_ in made], [exact for _, exact, *_ in made]
    growth = traits.growth(branches, exacts)
    for branch, (_, exact, _, quick) in zip(branches, made, strict=True):
        check_finite(branch, quick, exact, shown)
    centres, width = traits.structure(branches, pieces)
    slopes = traits.slopes(branches)
    errors = tuple(max(row[n] for _, _, row, _ in made) for n in range(4))
    act = Activation(
        name=name,
        pieces=tuple(pieces),
        kinks=tuple(branch.low for branch in branches[1:]),
        kink_values=traits.kink_values(expression, branches, pieces),
        scale_points=centres,
        length_scale=width,
        oscillation=max(traits.oscillation(branch.expression, shown) for branch in branches),
        growth=growth,
        slopes=slopes,
        closed_form=traits.closed_form(expression, branches, slopes),
        errors=(errors[0], errors[1], errors[2], errors[3]),
        make_expression=lambda: expression,
        source=source,
    )
    act = dataclasses.replace(
        act, parity=traits.parity(branches, exacts, act.derivative(0), set(centres) - set(act.kinks))
    )
    return surveyed(act)


def _check_powers(expression: Any, shown: str) -> None:
    """Refuse powers that only SymPy sees, as x**1000000 in exp(1e6*log(x))."""
    for node in effort.parts(expression):
        power = node.exp if node.is_Pow and node.base.has(x) and node.exp.is_number else 0
        if abs(power) > grammar.LARGEST_POWER**2:
            raise ExpressionError(
                f"{shown} is too costly to read: it comes down to a power of {float(power):g} "
                f"(at most {grammar.LARGEST_POWER**2})"
            )
        if abs(power) > grammar.LARGEST_DEGREE and node.base.is_polynomial(x):
            raise ExpressionError(
                f"{shown} is too costly to read: it comes down to a polynomial to the power of "
                f"{float(power):g} (at most {grammar.LARGEST_DEGREE})"
            )


@lru_cache(maxsize=256)
def from_text(text: str) -> Activation:
    """The activation of an expression in x, in the grammar of :mod:`.grammar`."""
    node = grammar.parse(text, is_function)
    if node.kind == "call" and is_function(node.args[0]) and node.args[1].kind == "x":
        # The built-in function itself, which knows more about itself than can be found out.
        entry = catalogue.find(node.args[0])
        assert entry is not None
        return catalogue.build(entry, [argument.value for argument in node.args[2:]])
    return _analysed(lambda: build(node, x), text, text)


def _analysed(make: Callable[[], Any], name: str, source: Any) -> Activation:
    """The activation of what `make` gives, with its work counted.

    SymPy raises errors of many kinds for what it cannot do; to a user they all say the same.
    """
    try:
        with effort.counted():
            return from_expression(make(), name, source)
    except EOCError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ExpressionError(f"{shown_in_errors(name)} is too involved to analyse ({said})") from error


@lru_cache(maxsize=256)
def from_sympy_expression(given: Any) -> Activation:
    """The activation of a user's SymPy expression."""
    return _analysed(lambda: from_sympy(given), str(given), given)
