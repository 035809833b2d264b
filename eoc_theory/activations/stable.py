"""SymPy expressions rewritten into primitives that neither overflow nor cancel.

Only what is computed is rewritten; the expression a user sees stays as it was given. SymPy is imported here
at module level, so this module is imported only once an expression is met.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy
from scipy import special

from .digits import constant

sp: Any = sympy  # its annotations know nothing of what an expression can do


class Logistic(sp.Function):
    """1/(1 + exp(−u))."""

    def fdiff(self, argindex: int = 1) -> Any:
        return Logistic(self.args[0]) * Logistic(-self.args[0])


class Softplus(sp.Function):
    """log(1 + exp(u))."""

    def fdiff(self, argindex: int = 1) -> Any:
        return Logistic(self.args[0])


class Log1p(sp.Function):
    """log(1 + u)."""

    def fdiff(self, argindex: int = 1) -> Any:
        return 1 / (1 + self.args[0])


class Expm1(sp.Function):
    """exp(u) − 1."""

    def fdiff(self, argindex: int = 1) -> Any:
        return sp.exp(self.args[0])


class Sech(sp.Function):
    """1/cosh(u)."""

    def fdiff(self, argindex: int = 1) -> Any:
        return -Sech(self.args[0]) * Tanh(self.args[0])


class Tanh(sp.Function):
    """tanh(u), whose derivative is sech² and not 1 − tanh²."""

    def fdiff(self, argindex: int = 1) -> Any:
        return Sech(self.args[0]) ** 2


class Erfc(sp.Function):
    """1 − erf(u); SymPy's own turns erfc(−u) back into 2 − erfc(u)."""

    def fdiff(self, argindex: int = 1) -> Any:
        return -2 * sp.exp(-(self.args[0] ** 2)) / sp.sqrt(sp.pi)


class Affine(sp.Function):
    """slope · (u + shift), of the arguments u, slope and shift.

    Computed as slope · u + constant it would vanish at another float in each multiple of it. Derivatives are
    full of these: those of a narrow bump would not be the bump's.
    """


#: Where zeros are closer to 0 than this, or as far out, floats end.
LEAST = 1e-150


def _sech(u: Any) -> Any:
    g = np.exp(-np.abs(u))
    return 2.0 * g / (1.0 + g * g)


NUMPY_FUNCTIONS: dict[str, Any] = {
    "Affine": lambda u, slope, shift: slope * (u + shift),
    "Logistic": special.expit,
    "Softplus": lambda u: np.logaddexp(0.0, u),
    "Log1p": np.log1p,
    "Expm1": np.expm1,
    "Sech": _sech,
    "Tanh": np.tanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "Erfc": special.erfc,
}


def rewrite(expression: Any) -> Any:
    """The same function of x in stable primitives."""
    if not expression.args:
        return expression
    expression = expression.func(*(rewrite(argument) for argument in expression.args))
    if isinstance(expression, sp.Add):
        return _sum(expression)
    if isinstance(expression, sp.Mul):
        return _product(expression)
    if isinstance(expression, sp.Pow):
        return _power(expression)
    if isinstance(expression, sp.log):
        return _logarithm(expression)
    if isinstance(expression, sp.tanh):
        return Tanh(expression.args[0])
    if isinstance(expression, sp.sech):
        return Sech(expression.args[0])
    return expression


def as_computed(expression: Any) -> Any:
    """An expression as it is to be computed in floats.

    Its constants are numbers, and its sums of a term and a constant are by the place where they vanish
    (:class:`Affine`).
    """
    if not expression.args:
        return expression
    if not expression.free_symbols:
        value = constant(expression)
        return expression if value is None or expression.is_Rational else sp.Float(value, 20)
    arguments = [as_computed(argument) for argument in expression.args]
    if any(new is not old for new, old in zip(arguments, expression.args, strict=True)):
        expression = expression.func(*arguments)
    if not isinstance(expression, sp.Add):
        return expression
    offset, term = expression.as_independent(*expression.free_symbols, as_Add=True)
    if offset == 0 or isinstance(term, sp.Add):
        return expression
    slope, rest = term.as_independent(*term.free_symbols, as_Add=False)
    shift = constant(offset / slope)
    if abs(slope) == 1 or shift is None or not LEAST < abs(shift) < 1.0 / LEAST:
        return expression
    return Affine(rest, slope, sp.Float(shift, 20))


def _exponential(term: Any) -> tuple[Any, Any] | None:
    """(c, u) of c · exp(u) with a constant c, or None."""
    c, rest = term.as_independent(*term.free_symbols, as_Add=False)
    return (c, rest.args[0]) if isinstance(rest, sp.exp) and c.is_real and c != 0 else None


def _one_plus_exp(expression: Any) -> tuple[Any, Any] | None:
    """(a, u) with expression = a (1 + exp(u)), a > 0, or None."""
    if not isinstance(expression, sp.Add) or len(expression.args) != 2 or not expression.args[0].is_number:
        return None
    a, found = expression.args[0], _exponential(expression.args[1])
    if found is None or not a.is_positive or not found[0].is_positive:
        return None
    ratio = found[0] / a
    return a, found[1] if ratio == 1 else found[1] + sp.log(ratio)


def _sum(expression: Any) -> Any:
    offset, terms = expression.args[0], list(expression.args[1:])
    if not offset.is_number:
        offset, terms = sp.S.Zero, list(expression.args)
    for i, term in enumerate(terms):
        found = _exponential(term)
        if found is not None and offset != 0 and sp.simplify(found[0] + offset) == 0:
            return sp.Add(*terms[:i], *terms[i + 1 :], found[0] * Expm1(found[1]))
        c, rest = term.as_independent(*term.free_symbols, as_Add=False)
        if isinstance(rest, sp.erf | Tanh) and offset != 0 and abs(c) == abs(offset):
            # 1 ± erf(u) and 1 ± tanh(u) vanish on one side.
            argument = rest.args[0] if c == offset else -rest.args[0]
            stable = Erfc(-argument) if isinstance(rest, sp.erf) else 2 * Logistic(2 * argument)
            return sp.Add(*terms[:i], *terms[i + 1 :], offset * stable)
    if len(terms) == 2 and offset == 0:
        one, two = _exponential(terms[0]), _exponential(terms[1])
        if one and two and one[1] == -two[1] and abs(one[0]) == abs(two[0]):
            if one[0] == two[0]:
                return 2 * one[0] * sp.cosh(one[1])
            return 2 * one[0] * sp.sinh(one[1])
    return expression


def _power(expression: Any) -> Any:
    base, exponent = expression.args
    if exponent.is_number and exponent.is_negative:
        found = _one_plus_exp(base)
        if found is not None:
            return found[0] ** exponent * Logistic(-found[1]) ** (-exponent)
        c, rest = base.as_independent(*base.free_symbols, as_Add=False)
        if isinstance(rest, sp.cosh) and c.is_positive:
            return c**exponent * Sech(rest.args[0]) ** (-exponent)
    return expression


def _logarithm(expression: Any) -> Any:
    argument = expression.args[0]
    found = _one_plus_exp(argument)
    if found is not None:
        return Softplus(found[1]) + sp.log(found[0])
    if isinstance(argument, sp.Add) and argument.args[0] == 1:
        return Log1p(argument - 1)
    return expression


def _product(expression: Any) -> Any:
    """exp(u) logistic(−u) = logistic(u), expm1(u) logistic(−u) = tanh(u/2), sinh(u) sech(u) = tanh(u)."""
    powers = {}
    for factor in expression.args:
        base, exponent = factor.args if isinstance(factor, sp.Pow) else (factor, 1)
        powers[base] = powers.get(base, 0) + exponent
    changed = False
    for gate in [base for base in powers if isinstance(base, Logistic)]:
        n = powers[gate]
        if not getattr(n, "is_integer", True) or n <= 0:
            continue
        for base in list(powers):
            if isinstance(base, Expm1) and base.args[0] == -gate.args[0] and powers[base] == n:
                del powers[gate], powers[base]
                tanh = Tanh(base.args[0] / 2)
                powers[tanh] = powers.get(tanh, 0) + n
                changed = True
                break
            if isinstance(base, sp.exp) and powers[base] == 1:
                ratio = (base.args[0] / -gate.args[0]).cancel()
                if ratio.is_Integer and 0 < ratio <= n:
                    del powers[base]
                    powers[gate] = n - ratio
                    flipped = Logistic(-gate.args[0])
                    powers[flipped] = powers.get(flipped, 0) + ratio
                    changed = True
                    break
    for gate in [base for base in powers if isinstance(base, Sech)]:
        wave = sp.sinh(gate.args[0])
        if powers.get(wave) == powers[gate]:
            tanh = Tanh(gate.args[0])
            powers[tanh] = powers.get(tanh, 0) + powers.pop(wave)
            del powers[gate]
            changed = True
    return sp.Mul(*(base**exponent for base, exponent in powers.items())) if changed else expression
