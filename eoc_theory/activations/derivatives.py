"""Derivatives of SymPy expressions: each part is differentiated once, however often it occurs."""

from __future__ import annotations

from typing import Any

import sympy

from . import effort
from .reading import x

sp: Any = sympy  # its annotations know nothing of what an expression can do

# Operations in many digits that making a part of a derivative counts for.
PER_OPERATION = 4


class Derivatives:
    """An expression in :data:`x` and its derivatives, made when they are asked for.

    ``derivatives[order]`` raises ExpressionError where that has become too large.
    """

    def __init__(self, expression: Any) -> None:
        self._orders = [expression]
        self._sizes: dict[int, int] = {}

    def __getitem__(self, order: int) -> Any:
        while len(self._orders) <= order:
            number = len(self._orders)
            self._orders.append(derivative(self._orders[-1]))
            effort.spend(PER_OPERATION * self.size(number))
        return self._orders[order]

    def size(self, order: int) -> int:
        """How many operations evaluating the derivative of an order takes."""
        if order not in self._sizes:
            what = f"its derivative of order {order}" if order else "a branch of it"
            self._sizes[order] = effort.check_size(self[order], what)
        return self._sizes[order]


def derivative(expression: Any) -> Any:
    """The first derivative of an expression in x; its switches, if any, as if they were smooth."""
    return _derivative(expression, {x: sp.S.One})


def _derivative(node: Any, known: dict[Any, Any]) -> Any:
    if not node.args:
        return known.get(node, sp.S.Zero)
    if node not in known:
        inner = [_derivative(argument, known) for argument in node.args]
        known[node] = _of_inner(node, inner) if any(inner) else sp.S.Zero
    return known[node]


def _of_inner(node: Any, inner: list[Any]) -> Any:
    """The derivative of an expression from those of its arguments."""
    if node.is_Add:
        return sp.Add(*inner)
    if node.is_Mul:
        factors = node.args
        return sp.Add(
            *(sp.Mul(*factors[:i], d, *factors[i + 1 :]) for i, d in enumerate(inner) if d is not sp.S.Zero)
        )
    if node.is_Pow and not inner[1]:
        base, exponent = node.args
        return exponent * base ** (exponent - 1) * inner[0]
    if node.is_Function and len(node.args) == 1:
        return node.fdiff(1) * inner[0]
    return sp.diff(node, x)
