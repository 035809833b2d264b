"""Text in the grammar and SymPy expressions of users, as expressions in our own real x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
from sympy.functions.elementary.piecewise import ExprCondPair

from ..errors import ExpressionError
from . import catalogue, grammar

sp: Any = sympy  # its annotations know nothing of what an expression can do
x = sp.Symbol("x", real=True)
SWITCHES = (sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min, sp.Piecewise)
SYMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": sp.exp, "log": sp.log, "ln": sp.log, "log1p": lambda u: sp.log(1 + u),
    "expm1": lambda u: sp.exp(u) - 1, "sqrt": sp.sqrt, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "tanh": sp.tanh, "sinh": sp.sinh, "cosh": sp.cosh, "sech": lambda u: 1 / sp.cosh(u), "asinh": sp.asinh,
    "arcsinh": sp.asinh, "atan": sp.atan, "arctan": sp.atan, "erf": sp.erf, "erfc": sp.erfc, "abs": sp.Abs,
    "sign": sp.sign, "heaviside": sp.Heaviside, "max": sp.Max, "min": sp.Min,
}  # fmt: skip
NOT_FINITE = (sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I)
ACCEPTED = (
    sp.Add, sp.Mul, sp.Pow, sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc, sp.tanh,
    sp.sinh, sp.cosh, sp.sech, sp.csch, sp.coth, sp.asinh, sp.atan, sp.erf, sp.erfc, sp.Number,
    sp.NumberSymbol, *SWITCHES,
)  # fmt: skip
_RELATIONS = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge, "==": sp.Eq, "!=": sp.Ne}


def is_function(name: str) -> bool:
    return catalogue.find(name) is not None


def read(text: str) -> Any:
    """The SymPy expression of `text`, in :data:`x`. Nothing is evaluated as Python."""
    return build(grammar.parse(text, is_function), x)


def build(node: grammar.Node, variable: Any) -> Any:
    made = _build(node, variable)
    if made.has(*NOT_FINITE):
        raise ExpressionError(
            "a part of the expression is not finite or not real for any x, such as 1/(x - x)"
        )
    return made


def _build(node: grammar.Node, variable: Any) -> Any:
    if node.kind == "number":
        return sp.Rational(node.args[0])
    if node.kind == "constant":
        return sp.pi if node.args[0] == "pi" else sp.E
    if node.kind == "x":
        return variable
    if node.kind == "neg":
        return -build(node.args[0], variable)
    if node.kind == "**":
        return build(node.args[0], variable) ** build(node.args[1], variable)
    if node.kind in "+-":
        return sp.Add(*_chain(node, "+", "-", variable))
    if node.kind in "*/":
        return sp.Mul(*_chain(node, "*", "/", variable))
    name, *args = node.args
    if name == "piecewise":
        values = [build(value, variable) for value in args[::2]]
        conditions = [_condition(condition, variable) for condition in args[1::2]]
        return piecewise([pair(value, c) for value, c in zip(values, conditions, strict=True)])
    if name in SYMPY_FUNCTIONS:
        return SYMPY_FUNCTIONS[name](*(build(argument, variable) for argument in args))
    entry = catalogue.find(name)
    assert entry is not None
    text = catalogue.text_of(entry, [argument.value for argument in args[1:]])
    return build(grammar.parse(text), build(args[0], variable))


def pair(value: Any, condition: Any) -> Any:
    """A value and its condition as SymPy's Piecewise takes them, the condition left as it is.

    SymPy would solve a condition with another Piecewise in it, which may take minutes; which of them hold is
    found numerically.
    """
    return sp.Tuple.__new__(ExprCondPair, value, condition)


def piecewise(pairs: list[Any]) -> Any:
    """SymPy's Piecewise of such pairs, with nothing simplified."""
    return sp.Basic.__new__(sp.Piecewise, *pairs)


def _chain(node: grammar.Node, straight: str, inverse: str, variable: Any) -> list[Any]:
    """The terms of a − b + c or the factors of a/b·c, without recursing along a long chain."""
    parts: list[Any] = []
    while node.kind in (straight, inverse):
        part = build(node.args[1], variable)
        parts.append(part if node.kind == straight else -part if inverse == "-" else 1 / part)
        node = node.args[0]
    return [build(node, variable), *reversed(parts)]


def _condition(node: grammar.Node, variable: Any) -> Any:
    if node.kind == "true":
        return sp.true
    sides = [build(side, variable) for side in node.args[::2]]
    between = zip(sides, node.args[1::2], sides[1:], strict=False)
    relations = [_RELATIONS[op](a, b, evaluate=False) for a, op, b in between]
    return relations[0] if len(relations) == 1 else sp.And(*relations, evaluate=False)


def from_sympy(given: Any) -> Any:
    """A SymPy expression of a user, checked, in our own real x."""
    shown = shown_in_errors(given)
    if not isinstance(given, sp.Expr):
        raise ExpressionError(f"activation must be a SymPy expression in x, got {shown}")
    symbols = given.free_symbols
    if len(symbols) != 1:
        found = ", ".join(sorted(str(s) for s in symbols)) or "no symbol"
        raise ExpressionError(f"expected a SymPy expression in the one symbol x, found {found} in {shown}")
    (symbol,) = symbols
    if str(symbol) != "x":
        raise ExpressionError(f"expected a SymPy expression in the symbol x, found {symbol} in {shown}")
    for node in sp.preorder_traversal(given):
        if node in (sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I):
            raise ExpressionError(f"the constant {node} is not accepted in {shown}")
        boolean = isinstance(node, sp.logic.boolalg.Boolean | ExprCondPair)
        if not boolean and node != symbol and not isinstance(node, ACCEPTED):
            raise ExpressionError(f"the SymPy function {type(node).__name__} is not accepted in {shown}")
        if isinstance(node, sp.Number) and abs(node) > grammar.LARGEST_CONSTANT:
            raise ExpressionError(f"a constant above {grammar.LARGEST_CONSTANT:g} is not accepted in {shown}")
        if isinstance(node, sp.Pow) and node.exp.is_number and abs(node.exp) > grammar.LARGEST_POWER:
            raise ExpressionError(f"an exponent above {grammar.LARGEST_POWER} is not accepted in {shown}")
    return given.xreplace({symbol: x})


def shown_in_errors(thing: Any) -> str:
    return repr(grammar.cut(" ".join(str(thing).split())))
