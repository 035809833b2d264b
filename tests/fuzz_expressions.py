"""Random expressions and damaged texts: read rightly or refused in one line, in bounded time, unwarned.

``python -m tests.fuzz_expressions --count 20000 --seed 1`` tries as many as wanted and prints what it found.
Values are compared with mpmath's at the syntax tree that the grammar gives, evaluated here without SymPy.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np

from eoc_theory.activations import activation, catalogue, grammar
from eoc_theory.activations.reading import is_function
from eoc_theory.errors import EOCError, InternalError

DIGITS = 60
UNARY = (
    *(name for name in grammar.FUNCTIONS if name not in ("max", "min", "where", "piecewise", "pow")),
    "relu", "gelu", "silu", "selu", "elu", "sigmoid", "softplus", "mish", "hardtanh", "softsign",
)  # fmt: skip
CONSTANTS = (
    "0",
    "1",
    "2",
    "0.5",
    "pi",
    "e",
    "1e-9",
    "3.65",
    "1e6",
    "-1",
    "0.1",
    "7",
    "1e30",
    "1e-300",
    "1/3",
    "12",
)
STRANGE = (
    *"()+-*/^,.<>=!eEx0 \t\n\0π²∞\u202e\ud800[]{};'\"\\_@#%&|~`$",
    *("**", "1e999", "nan", "9" * 40),
)

# --- texts ---


def expression(rng: random.Random, depth: int) -> str:
    """A text of the grammar."""
    if depth == 0 or rng.random() < 0.12:
        return "x" if rng.random() < 0.65 else rng.choice(CONSTANTS)

    def inner() -> str:
        return expression(rng, depth - 1)

    kind = rng.random()
    if kind < 0.45:
        return f"({inner()}{rng.choice('+-**//')}{inner()})"
    if kind < 0.53:
        return f"({inner()})**{rng.choice(('2', '3', '-1', '-2', '0.5', '1.5', '(1/3)', '7', '64', '2.5'))}"
    if kind < 0.86:
        return f"{rng.choice(UNARY)}({inner()})"
    if kind < 0.93:
        return f"{rng.choice(('max', 'min'))}({', '.join(inner() for _ in range(rng.choice((1, 2, 2, 3))))})"
    return f"where({inner()}{rng.choice(('<', '<=', '>', '>=', '==', '!='))}{inner()}, {inner()}, {inner()})"


def damaged(rng: random.Random, text: str) -> str:
    """A text with a few characters lost, swapped or strange, or many times as long or deep."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.random()
        if kind < 0.3:
            text = text[:at] + text[at + rng.randint(1, 3) :]
        elif kind < 0.5:
            text = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        elif kind < 0.9:
            text = text[:at] + rng.choice(STRANGE) + text[at:]
        elif kind < 0.94:
            text = "(" * 200 + text + ")" * 200
        elif kind < 0.97:
            text = f"({text})+" * 50 + "x"
        else:
            text = (text + "+x") * (100_000 // (len(text) + 2))
    return text


def texts(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(count):
        text = expression(rng, rng.choice((2, 2, 3, 3, 4, 5)))
        yield damaged(rng, text) if rng.random() < 0.25 else text


# --- the oracle ---


class UndefinedError(ArithmeticError):
    """The expression has no real value there."""


SAME_NAMES = (
    "exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "sech", "asinh",
    "atan", "erf", "erfc",
)  # fmt: skip
MPMATH: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(mpmath, name) for name in SAME_NAMES},
    "ln": mpmath.log, "arcsinh": mpmath.asinh, "arctan": mpmath.atan, "abs": abs, "sign": mpmath.sign,
    "heaviside": lambda u: (mpmath.sign(u) + 1) / 2,
}  # fmt: skip
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


def value(node: grammar.Node, x: Any) -> Any:
    """The value of a syntax tree at x, which is not to be at a kink."""
    if node.kind == "number":
        return mpmath.mpf(node.args[0])
    if node.kind == "constant":
        return +mpmath.pi if node.args[0] == "pi" else +mpmath.e
    if node.kind == "x":
        return x
    if node.kind == "neg":
        return -value(node.args[0], x)
    if node.kind in ("+", "-", "*", "/", "**"):
        return _arithmetic(node.kind, *(value(argument, x) for argument in node.args))
    return _real(_call(node.args[0], node.args[1:], x))


def _arithmetic(kind: str, a: Any, b: Any) -> Any:
    if kind == "**":
        _moderate(b * mpmath.log(abs(a)) if a else b)
        return _real(a**b)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[kind]()


def _call(name: str, args: tuple[Any, ...], x: Any) -> Any:
    if name == "piecewise":
        return value(next(v for v, c in zip(args[::2], args[1::2], strict=True) if _holds(c, x)), x)
    if name in ("max", "min"):
        return (max if name == "max" else min)(value(argument, x) for argument in args)
    inner = value(args[0], x)
    if name in MPMATH:
        if name not in ("abs", "sign", "heaviside", "atan", "arctan", "sqrt", "log", "ln", "log1p", "asinh"):
            _moderate(inner)
        return MPMATH[name](inner)
    entry = catalogue.find(name)
    assert entry is not None
    _moderate(inner)
    return value(grammar.parse(catalogue.text_of(entry, [a.value for a in args[1:]])), inner)


def _holds(condition: grammar.Node, x: Any) -> bool:
    if condition.kind == "true":
        return True
    sides = [value(side, x) for side in condition.args[::2]]
    return all(_compares(a, op, b) for a, op, b in zip(sides, condition.args[1::2], sides[1:], strict=False))


def _compares(a: Any, op: str, b: Any) -> bool:
    """What differs by rounding alone is equal: both sides may be one function, written in two ways."""
    equal = abs(a - b) <= mpmath.mpf(10) ** (8 - mpmath.mp.dps) * (abs(a) + abs(b))
    return COMPARE[op](a, a if equal else b)


def _moderate(u: Any) -> None:
    if not abs(u) < 1e5:
        raise UndefinedError  # left out: mpmath itself takes too long


def _real(u: Any) -> Any:
    if not mpmath.isfinite(u) or mpmath.im(u) != 0:
        raise UndefinedError
    return mpmath.re(u)


# --- one try ---


@dataclass
class Findings:
    """What came of all tries."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)


def attempt(text: str, findings: Findings, rng: np.random.Generator) -> None:
    """Read a text, evaluate it and its derivatives, and compare with mpmath."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            made = activation(text)
            points = _points(made.kinks, rng)
            got = [made.derivative(order)(points) for order in range(3)]
        except InternalError as error:
            findings.wrong.append(f"{text[:200]!r}: {error}")
            return
        except EOCError as error:
            findings.counts["refused"] += 1
            findings.counts["too costly"] += "too costly" in str(error)
            findings.counts["too involved"] += "too involved" in str(error)
            if "\n" in str(error) or len(str(error)) > 600:
                findings.wrong.append(f"{text[:200]!r}: not one line: {str(error)!r}")
            return
        except Exception as error:
            findings.wrong.append(f"{text[:200]!r}: {type(error).__name__}: {error}")
            return
        finally:
            findings.counts["tried"] += 1
            spent = time.process_time() - start
            findings.slowest = sorted([*findings.slowest, (spent, text[:200])], reverse=True)[:10]
    findings.counts["accepted"] += 1
    _compare(text, points, got, findings)


def _points(kinks: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    near = [kink + s * d * (1 + abs(kink)) for kink in kinks[:8] for s in (-1, 1) for d in (1e-7, 1e-3)]
    points = np.concatenate([rng.normal(0, 2, 8), rng.normal(0, 30, 3), near])
    # A kink's place is a float: which side one of its neighbours is on is not for the oracle to say.
    return points[[all(abs(p - kink) > 1e-12 * abs(kink) for kink in kinks) for p in points]]


def _compare(text: str, points: np.ndarray, got: list[np.ndarray], findings: Findings) -> None:
    try:
        node = grammar.parse(" ".join(text.split()), is_function)
    except EOCError:
        findings.counts["named"] += 1  # "tanh" or "elu(0.5)": no expression
        return
    for i, point in enumerate(points):
        try:
            truth = _truth(node, float(point))
        except (ArithmeticError, ValueError, TypeError):
            findings.counts["no oracle there"] += 1
            continue
        findings.counts["points"] += 1
        for order, true in enumerate(truth):
            value, slope = got[order][i], truth[min(order + 1, 2)]
            scale = abs(true) + abs(point * slope) + (1e-2 if order else 1e-5) * abs(truth[0])
            if abs(true) > 1e300 or abs(value - true) <= 1e-8 * scale + 1e-13:
                continue
            findings.wrong.append(
                f"{text[:200]!r}: order {order} at {point!r}: {value!r}, right {float(true)!r}"
            )
            return


def _truth(node: grammar.Node, point: float) -> list[Any]:
    """Value, first and second derivative, by differences in many digits."""
    with mpmath.workdps(3 * DIGITS):
        at, h = mpmath.mpf(point), mpmath.mpf(10) ** -DIGITS
        low, middle, high = (value(node, at + k * h) for k in (-1, 0, 1))
        return [middle, (high - low) / (2 * h), (high - 2 * middle + low) / h**2]


def run(count: int, seed: int) -> Findings:
    findings, rng = Findings(), np.random.default_rng(seed)
    for text in texts(count, seed):
        attempt(text, findings, rng)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    findings = run(options.count, options.seed)
    print(dict(findings.counts))
    for seconds, text in findings.slowest:
        print(f"{seconds:6.2f} s of CPU  {text!r}")
    for line in findings.wrong:
        print("WRONG", ascii(line))
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
