"""The grammar of expressions in x: text to a tree of plain Python tuples, with nothing evaluated on the way.

::

    expression = term (("+" | "-") term)*
    term       = factor (("*" | "/") factor)*
    factor     = ("+" | "-") factor | power
    power      = atom (("**" | "^") factor)?
    atom       = number | "x" | "pi" | "e" | name "(" arguments ")" | "(" expression ")"
    condition  = expression (("<" | "<=" | ">" | ">=" | "==" | "!=") expression)+

Conditions stand only as the first argument of ``where(condition, a, b)`` and the second of the pairs in
``Piecewise((a, condition), …, (b, True))``.
"""

from __future__ import annotations

import cmath
import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ExpressionError

LONGEST, DEEPEST, LARGEST_POWER, LARGEST_DEGREE, LARGEST_CONSTANT = 2000, 60, 64, 128, 1e100

# What a constant call is worth, to find non-finite constants before SymPy meets them.
FUNCTIONS: dict[str, Callable[[float], float] | None] = {
    "exp": math.exp, "log": math.log, "ln": math.log, "log1p": math.log1p, "expm1": math.expm1,
    "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "tan": math.tan, "tanh": math.tanh,
    "sinh": math.sinh, "cosh": math.cosh, "sech": lambda u: 1.0 / math.cosh(u), "asinh": math.asinh,
    "arcsinh": math.asinh, "atan": math.atan, "arctan": math.atan, "erf": math.erf, "erfc": math.erfc,
    "abs": abs, "sign": lambda u: float((u > 0) - (u < 0)),
    "heaviside": lambda u: 0.5 * ((u > 0) - (u < 0) + 1),
    "max": None, "min": None, "where": None, "piecewise": None, "pow": None,
}  # fmt: skip
CONSTANTS = {"pi": math.pi, "e": math.e, "E": math.e}
NON_FINITE = {"nan", "inf", "infinity", "oo", "zoo"}

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op>\*\*|<=|>=|==|!=|[-+*/^(),<>])|(?P<end>$)|(?P<other>.))",
    re.ASCII | re.DOTALL,
)
COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}


@dataclass(frozen=True)
class Node:
    """A node; kind: "number", "x", "constant", "+", "-", "*", "/", "**", "neg", "compare", "true", "call"."""

    kind: str
    args: tuple[Any, ...] = ()
    value: float | None = None  # of a constant; None where x is in it
    degree: int = 0  # of the polynomial in x, at most


def parse(text: str, other_names: Callable[[str], bool] = lambda name: False) -> Node:
    """The tree of `text`.

    Args:
        text: an expression in x.
        other_names: says which further names are functions of one argument and constant parameters.

    Raises:
        ExpressionError: the text is not in the grammar, too long or deep, or holds a huge or non-finite
            constant.
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"expression has {len(text)} characters, at most {LONGEST} are accepted")
    shown = " ".join(text.split())
    if not shown:
        raise ExpressionError("expression is empty, expected an expression in x such as 'x/(1 + exp(-x))'")
    shown = cut(shown)
    node = _Parser(text, shown, other_names).parse()
    if node.value is not None:
        raise ExpressionError(f"{shown!r} does not contain x: an activation is an expression in x")
    return node


def cut(text: str, longest: int = 80) -> str:
    """Text as errors show it: no longer than that in quotes, escapes counted."""
    if len(repr(text)) <= longest + 2:
        return text
    kept = text[: longest - 3]
    while len(repr(kept)) > longest - 1:
        kept = kept[:-1]
    return kept + "..."


class _Parser:
    def __init__(self, text: str, shown: str, other_names: Callable[[str], bool]) -> None:
        self.shown, self.other_names = shown, other_names
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while not self.tokens or self.tokens[-1][0] != "end":
            match = _TOKEN.match(text, position)
            assert match is not None and match.lastgroup is not None
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            position = match.end()
        self.at = self.depth = 0

    # --- errors ---

    def fail(self, problem: str) -> ExpressionError:
        return ExpressionError(f"{problem} in {self.shown!r}")

    def unexpected(self, expected: str) -> ExpressionError:
        kind, token, position = self.tokens[self.at]
        token = cut(token)
        if kind == "end":
            return self.fail(f"expected {expected} at the end")
        if token == "." and self.at and self.tokens[self.at - 1][0] == "name":
            return self.fail("attribute access '.' is not accepted")
        if kind == "other":
            return self.fail(f"character {token!r} at position {position + 1} is not accepted")
        return self.fail(f"expected {expected}, found {token!r} at position {position + 1}")

    # --- tokens ---

    def peek(self) -> str:
        kind, token, _ = self.tokens[self.at]
        return token if kind == "op" else ""

    def take(self, *operators: str) -> str:
        token = self.peek()
        if token in operators:
            self.at += 1
            return token
        return ""

    def need(self, operator: str, expected: str = "") -> None:
        if not self.take(operator):
            raise self.unexpected(expected or repr(operator))

    # --- rules ---

    def parse(self) -> Node:
        node = self.expression()
        if self.peek() in COMPARISONS:
            raise self.fail(f"a comparison ({self.peek()!r}) stands only in where(condition, a, b), not")
        if self.tokens[self.at][0] != "end":
            raise self.unexpected("an operator")
        return node

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail(f"more than {DEEPEST} levels of nesting")
        node = self.term()
        while operator := self.take("+", "-"):
            node = self.combine(operator, node, self.term())
        self.depth -= 1
        return node

    def term(self) -> Node:
        node = self.factor()
        while operator := self.take("*", "/"):
            node = self.combine(operator, node, self.factor())
        return node

    def factor(self) -> Node:
        sign = self.take("-", "+")
        if not sign:
            return self.power()
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fail(f"more than {DEEPEST} levels of nesting")
        node = self.factor()
        self.depth -= 1
        if sign == "+":
            return node
        return Node("neg", (node,), None if node.value is None else -node.value, node.degree)

    def power(self) -> Node:
        base = self.atom()
        if self.take("**", "^"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise self.fail(f"more than {DEEPEST} levels of nesting")
            exponent = self.factor()
            self.depth -= 1
            return self.combine("**", base, exponent)
        return base

    def atom(self) -> Node:
        kind, token, _ = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            return Node("number", (token,), self.bounded(float(token), cut(token)))
        if kind == "name":
            self.at += 1
            if self.peek() == "(":
                return self.call(token)
            return self.name(token)
        if self.take("("):
            node = self.expression()
            self.need(")")
            return node
        raise self.unexpected("a number, x or a function")

    def name(self, token: str) -> Node:
        if token == "x":
            return Node("x", (), None, 1)
        if token in CONSTANTS:
            return Node("constant", (token.lower(),), CONSTANTS[token])
        if token.lower() in NON_FINITE:
            raise self.fail(f"the non-finite constant {token!r} is not accepted")
        if token.lower() in FUNCTIONS or self.other_names(token):
            raise self.fail(f"the function {token!r} needs its argument, as in {token}(x),")
        raise self.fail(f"unknown name {cut(token)!r} (the variable is x, the constants are pi and e)")

    def call(self, token: str) -> Node:
        name = token.lower()
        if token == "x" or token in CONSTANTS:
            raise self.fail(f"{token!r} is not a function; write {token}*(...) to multiply,")
        self.need("(")
        if name == "where":
            return self.where()
        if name == "piecewise":
            return self.piecewise()
        if name not in FUNCTIONS and not self.other_names(token):
            near = difflib.get_close_matches(name, FUNCTIONS, n=2)
            known = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"accepted are {', '.join(sorted(FUNCTIONS))}"
            )
            raise self.fail(f"unknown function {cut(token)!r} ({known})")
        args = [self.expression()]
        while self.take(","):
            args.append(self.expression())
        self.need(")", "',' or ')'")
        if name == "pow" and len(args) == 2:
            return self.combine("**", args[0], args[1])
        return self.function(name if name in FUNCTIONS else token, args)

    def function(self, name: str, args: list[Node]) -> Node:
        if name in ("max", "min"):
            constants = [a.value for a in args if a.value is not None]
            value = (max if name == "max" else min)(constants) if len(constants) == len(args) else None
            return Node("call", (name, *args), value, max(a.degree for a in args))
        rule = FUNCTIONS.get(name)
        if name in FUNCTIONS and (len(args) != 1 or name == "pow"):
            raise self.fail(
                f"{name} takes {'two arguments' if name == 'pow' else 'one argument'}, found {len(args)},"
            )
        if any(a.value is None for a in args[1:]):
            raise self.fail(f"the parameters of {name} after the first argument must be constants")
        value = None
        if args[0].value is not None:
            if rule is None:
                raise self.fail(f"the argument of {name} must contain x")
            value = self.constant(lambda: rule(args[0].value or 0.0), f"{name}({args[0].value:g})")
        return Node("call", (name, *args), value)

    def where(self) -> Node:
        condition = self.condition()
        self.need(",")
        yes = self.expression()
        self.need(",")
        no = self.expression()
        self.need(")")
        return self.pieces([(yes, condition), (no, Node("true"))])

    def piecewise(self) -> Node:
        pairs: list[tuple[Node, Node]] = []
        while not pairs or self.take(","):
            self.need("(")
            value = self.expression()
            self.need(",")
            pairs.append((value, self.condition()))
            self.need(")")
        self.need(")", "',' or ')'")
        if pairs[-1][1].kind != "true":
            raise self.fail("the last condition of Piecewise must be True")
        return self.pieces(pairs)

    def pieces(self, pairs: list[tuple[Node, Node]]) -> Node:
        flat = tuple(part for pair in pairs for part in pair)
        return Node("call", ("piecewise", *flat), None, max(value.degree for value, _ in pairs))

    def condition(self) -> Node:
        kind, token, _ = self.tokens[self.at]
        if kind == "name" and token == "True":
            self.at += 1
            return Node("true")
        parts: list[Any] = [self.expression()]
        while operator := self.take(*COMPARISONS):
            parts += [operator, self.expression()]
        if len(parts) == 1:
            raise self.unexpected("a comparison such as x > 0")
        if all(part.value is not None for part in parts[::2]):
            raise self.fail("a condition that does not contain x")
        return Node("compare", tuple(parts))

    # --- constants ---

    def combine(self, operator: str, a: Node, b: Node) -> Node:
        if operator == "**":
            return self.raise_to(a, b)
        value = None
        if a.value is not None and b.value is not None:
            p, q = a.value, b.value
            rules = {"+": lambda: p + q, "-": lambda: p - q, "*": lambda: p * q, "/": lambda: p / q}
            value = self.constant(rules[operator], f"{p:g}{operator}{q:g}")
        if operator == "/" and b.value == 0:
            raise self.fail("division by zero")
        degree = (
            max(a.degree, b.degree) if operator in "+-" else a.degree + (b.degree if operator == "*" else 0)
        )
        return self.limited(Node(operator, (a, b), value, degree))

    def raise_to(self, base: Node, exponent: Node) -> Node:
        if exponent.value is None:
            if base.value is None or base.value <= 0:
                raise self.fail("a power with x in the exponent needs a positive constant base")
            return Node("**", (base, exponent))
        power = exponent.value
        if base.value is not None:
            number = base.value
            if abs(power) > 1000:
                raise self.fail(f"the power {number:g}**{power:g} is too large (exponents up to 1000)")
            return Node(
                "**", (base, exponent), self.constant(lambda: number**power, f"{number:g}**{power:g}")
            )
        if abs(power) > LARGEST_POWER:
            raise self.fail(f"the exponent {power:g} is too large (at most {LARGEST_POWER})")
        return self.limited(Node("**", (base, exponent), None, math.ceil(base.degree * max(power, 0.0))))

    def limited(self, node: Node) -> Node:
        if node.degree > LARGEST_DEGREE:
            raise self.fail(f"a power of x of degree {node.degree} is too large (at most {LARGEST_DEGREE})")
        return node

    def constant(self, compute: Callable[[], Any], shown: str) -> float:
        try:
            value = compute()
        except ZeroDivisionError:
            raise self.fail("division by zero") from None
        except OverflowError:
            raise self.fail(f"the constant {shown} is too large (at most {LARGEST_CONSTANT:g})") from None
        except ValueError:
            raise self.fail(f"the constant {shown} is not a finite real number") from None
        return self.bounded(value, shown)

    def bounded(self, value: Any, shown: str) -> float:
        if isinstance(value, complex) or cmath.isnan(value):
            raise self.fail(f"the constant {shown} is not a finite real number")
        if abs(value) > LARGEST_CONSTANT:
            raise self.fail(f"the constant {shown} is too large (at most {LARGEST_CONSTANT:g})")
        return float(value)
