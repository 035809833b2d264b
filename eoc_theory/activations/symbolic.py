"""Activations from expressions: kinks and derivatives found symbolically, values that keep their digits.

SymPy is imported here at module level, so this module is imported only once an expression is met.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import sympy
from mpmath.libmp import ComplexResult
from scipy import optimize

from ..errors import ActivationError, ExpressionError
from . import catalogue, grammar
from .core import Activation, Array, Growth, Piece
from .functions import polynomial
from .growth import classify, faster
from .stable import NUMPY_FUNCTIONS, rewrite

sp: Any = sympy  # its annotations know nothing of what an expression can do
x = sp.Symbol("x", real=True)
MOST_PIECES = 64
DIGITS = 80  # of which 0/0 at 1e-10 costs some 40 in a third derivative
SWITCHES = (sp.Abs, sp.sign, sp.Heaviside, sp.Max, sp.Min, sp.Piecewise)
SYMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": sp.exp, "log": sp.log, "ln": sp.log, "log1p": lambda u: sp.log(1 + u),
    "expm1": lambda u: sp.exp(u) - 1, "sqrt": sp.sqrt, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "tanh": sp.tanh, "sinh": sp.sinh, "cosh": sp.cosh, "sech": lambda u: 1 / sp.cosh(u), "asinh": sp.asinh,
    "arcsinh": sp.asinh, "atan": sp.atan, "arctan": sp.atan, "erf": sp.erf, "erfc": sp.erfc, "abs": sp.Abs,
    "sign": sp.sign, "heaviside": sp.Heaviside, "max": sp.Max, "min": sp.Min,
}  # fmt: skip
ACCEPTED = (
    sp.Add, sp.Mul, sp.Pow, sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc, sp.tanh,
    sp.sinh, sp.cosh, sp.sech, sp.csch, sp.coth, sp.asinh, sp.atan, sp.erf, sp.erfc, sp.Number,
    sp.NumberSymbol, *SWITCHES,
)  # fmt: skip
_RELATIONS = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge, "==": sp.Eq, "!=": sp.Ne}

# --- text to SymPy ---


def _is_function(name: str) -> bool:
    return catalogue.find(name) is not None


def read(text: str) -> Any:
    """The SymPy expression of `text`, in :data:`x`. Nothing is evaluated as Python."""
    return _build(grammar.parse(text, _is_function), x)


def _build(node: grammar.Node, variable: Any) -> Any:
    if node.kind == "number":
        return sp.Rational(node.args[0])
    if node.kind == "constant":
        return sp.pi if node.args[0] == "pi" else sp.E
    if node.kind == "x":
        return variable
    if node.kind == "neg":
        return -_build(node.args[0], variable)
    if node.kind == "**":
        return _build(node.args[0], variable) ** _build(node.args[1], variable)
    if node.kind in "+-":
        return sp.Add(*_chain(node, "+", "-", variable))
    if node.kind in "*/":
        return sp.Mul(*_chain(node, "*", "/", variable))
    name, *args = node.args
    if name == "piecewise":
        values = [_build(value, variable) for value in args[::2]]
        conditions = [_condition(condition, variable) for condition in args[1::2]]
        return sp.Piecewise(*zip(values, conditions, strict=True))
    if name in SYMPY_FUNCTIONS:
        return SYMPY_FUNCTIONS[name](*(_build(argument, variable) for argument in args))
    entry = catalogue.find(name)
    assert entry is not None
    text = catalogue.text_of(entry, [argument.value for argument in args[1:]])
    return _build(grammar.parse(text), _build(args[0], variable))


def _chain(node: grammar.Node, straight: str, inverse: str, variable: Any) -> list[Any]:
    """The terms of a − b + c or the factors of a/b·c, without recursing along a long chain."""
    parts: list[Any] = []
    while node.kind in (straight, inverse):
        part = _build(node.args[1], variable)
        parts.append(part if node.kind == straight else -part if inverse == "-" else 1 / part)
        node = node.args[0]
    return [_build(node, variable), *reversed(parts)]


def _condition(node: grammar.Node, variable: Any) -> Any:
    if node.kind == "true":
        return sp.true
    sides = [_build(side, variable) for side in node.args[::2]]
    return sp.And(
        *(_RELATIONS[op](a, b) for a, op, b in zip(sides, node.args[1::2], sides[1:], strict=False))
    )


def from_sympy(given: Any) -> Any:
    """A SymPy expression of a user, checked, in our own real x."""
    shown = _shown(given)
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
        boolean = isinstance(node, sp.logic.boolalg.Boolean | sp.functions.elementary.piecewise.ExprCondPair)
        if not boolean and node != symbol and not isinstance(node, ACCEPTED):
            raise ExpressionError(f"the SymPy function {type(node).__name__} is not accepted in {shown}")
        if isinstance(node, sp.Number) and abs(node) > grammar.LARGEST_CONSTANT:
            raise ExpressionError(f"a constant above {grammar.LARGEST_CONSTANT:g} is not accepted in {shown}")
        if isinstance(node, sp.Pow) and node.exp.is_number and abs(node.exp) > grammar.LARGEST_POWER:
            raise ExpressionError(f"an exponent above {grammar.LARGEST_POWER} is not accepted in {shown}")
    return given.xreplace({symbol: x})


def _shown(thing: Any) -> str:
    text = " ".join(str(thing).split())
    return repr(text if len(text) <= 80 else text[:77] + "...")


# --- exact values ---


class Exact:
    """Values of a smooth branch and its derivatives in many digits, with limits taken where it is 0/0."""

    def __init__(self, expression: Any, low: float = -np.inf, high: float = np.inf) -> None:
        self.low, self.high = low, high
        derivatives = [expression]
        for _ in range(3):
            derivatives.append(sp.diff(derivatives[-1], x))
        self.derivatives = derivatives
        self._functions = [sp.lambdify(x, d, "mpmath") for d in derivatives]

    def raw(self, order: int, at: Any) -> Any:
        """The value at a real or complex point, or None where it is undefined."""
        try:
            value = mpmath.mpmathify(self._functions[order](mpmath.mpmathify(at)))
        except (ZeroDivisionError, ValueError, ComplexResult):
            return None
        return value if mpmath.isfinite(value) else None

    def __call__(self, order: int, at: Any, side: int = 0) -> Any:
        """The value at a real point, or its limit where the formula is undefined; None where there is none.

        `side` is −1 or 1 for the limit from below or above.
        """
        with mpmath.workdps(DIGITS):
            value = self.raw(order, at)
            if value is not None and side == 0:
                return None if mpmath.im(value) != 0 else mpmath.re(value)
        with mpmath.workdps(400):
            at = mpmath.mpf(at)
            sides = (side,) if side else tuple(s for s in (-1, 1) if at != (self.low if s < 0 else self.high))
            limits = [self._limit(order, at, s) for s in sides]
            if any(limit is None for limit in limits) or abs(limits[0] - limits[-1]) > 1e-9 * (
                1 + abs(limits[0])
            ):
                return None
            return limits[0]

    def _limit(self, order: int, at: Any, side: int) -> Any:
        near, nearer = (self.raw(order, at + side * mpmath.mpf(10) ** -k * (1 + abs(at))) for k in (30, 60))
        if near is None or nearer is None or mpmath.im(nearer) != 0:
            return None
        return mpmath.re(nearer) if abs(near - nearer) <= 1e-12 * (1 + abs(nearer)) else None


# --- splitting into smooth branches ---


class Branch:
    """A smooth expression on the interval [low, high] (floats, infinite at the ends)."""

    def __init__(self, low: float, high: float, expression: Any) -> None:
        self.low, self.high, self.expression = low, high, expression


def split(expression: Any, shown: str) -> list[Branch]:
    """The smooth branches of an expression with abs, max, min, sign, Heaviside and Piecewise in it."""
    branches = _split(expression, -np.inf, np.inf, shown)
    merged = branches[:1]
    for branch in branches[1:]:
        if (
            branch.expression == merged[-1].expression
            or sp.expand(branch.expression - merged[-1].expression) == 0
        ):
            merged[-1] = Branch(merged[-1].low, branch.high, merged[-1].expression)
        else:
            merged.append(branch)
    return merged


def _split(expression: Any, low: float, high: float, shown: str) -> list[Branch]:
    switch = next((n for n in sp.postorder_traversal(expression) if isinstance(n, SWITCHES)), None)
    if switch is None:
        return [Branch(low, high, expression)]
    cuts: list[float] = []
    for decider in _deciders(switch):
        cuts += [r for r in real_roots(decider, low, high, shown) if low < r < high]
    ends = [low, *sorted(set(cuts)), high]
    result: list[Branch] = []
    for a, b in itertools.pairwise(ends):
        chosen = _choose(switch, _inside(a, b), shown)
        result += _split(expression.xreplace({switch: chosen}), a, b, shown)
        if len(result) > MOST_PIECES:
            raise ExpressionError(f"{shown} has more than {MOST_PIECES - 1} kinks")
    return result


def _inside(low: float, high: float) -> float:
    """A point of the interval that no simple formula singles out."""
    if np.isinf(low) and np.isinf(high):
        return 0.7316851
    if np.isinf(low):
        return high - 1.3771923 * (1 + abs(high))
    if np.isinf(high):
        return low + 1.3771923 * (1 + abs(low))
    return low + 0.41378291 * (high - low)


def _deciders(switch: Any) -> list[Any]:
    """The functions whose sign changes decide between a switch's branches."""
    if isinstance(switch, sp.Max | sp.Min):
        arguments = switch.args
        return [a - b for i, a in enumerate(arguments) for b in arguments[i + 1 :]]
    if isinstance(switch, sp.Piecewise):
        relations = set().union(
            *(condition.atoms(sp.core.relational.Relational) for _, condition in switch.args)
        )
        return [relation.lhs - relation.rhs for relation in sorted(relations, key=str)]
    return [switch.args[0]]


def _choose(switch: Any, at: float, shown: str) -> Any:
    """The branch of a switch that holds around the point `at`."""

    def value(expression: Any) -> Any:
        number = Exact(expression)(0, at)
        if number is None:
            raise ExpressionError(f"{shown} is not a finite real number at x = {at:.6g}")
        return number

    if isinstance(switch, sp.Max | sp.Min):
        choose = max if isinstance(switch, sp.Max) else min
        return choose(switch.args, key=value)
    if isinstance(switch, sp.Piecewise):
        for branch, condition in switch.args:
            truth = condition.replace(
                lambda c: isinstance(c, sp.core.relational.Relational),
                lambda c: sp.true if bool(c.func(sp.Float(value(c.lhs - c.rhs), 30), 0)) else sp.false,
            )
            if truth == sp.true:
                return branch
        raise ExpressionError(
            f"{shown} is not defined at x = {at:.6g}: no condition of Piecewise holds there"
        )
    sign = mpmath.sign(value(switch.args[0]))
    if isinstance(switch, sp.Abs):
        return switch.args[0] if sign >= 0 else -switch.args[0]
    if isinstance(switch, sp.Heaviside):
        return sp.S.One if sign > 0 else sp.S.Zero
    return sp.Integer(int(sign))


# --- roots ---


def real_roots(expression: Any, low: float, high: float, shown: str, first: bool = False) -> list[float]:
    """The real roots of a smooth expression in [low, high]: exact for polynomials, by sign changes otherwise.

    Too many of them are an error, or with `first` cut to a few near 0.
    """
    expression = sp.sympify(expression)
    if not expression.has(x):
        return []
    numerator = sp.together(expression).as_numer_denom()[0] if not expression.is_polynomial(x) else expression
    if numerator.is_polynomial(x):
        poly = sp.Poly(numerator, x)
        if poly.degree() == 1:
            a, b = poly.all_coeffs()
            roots = [float((-b / a).evalf(30))]
        else:
            roots = [
                float(sp.re(r))
                for r in poly.nroots(n=30, maxsteps=200)
                if abs(sp.im(r)) < 1e-12 * (1 + abs(r))
            ]
        return sorted({r + 0.0 for r in roots if low <= r <= high})
    return _numerical_roots(expression, low, high, shown, first)


def _grid(low: float, high: float) -> Array:
    """Points of [low, high] spread over all magnitudes from 1e-8 to 1e4, 0 among them."""
    outward = np.concatenate(
        [np.logspace(-8, -1, 100), np.linspace(0.1, 40, 3000), np.geomspace(40.1, 1e4, 400)]
    )
    points = np.concatenate([-outward[::-1], [0.0], outward])
    points = points[(points > low) & (points < high)]
    near = [
        e + s * d for e, s in ((low, 1), (high, -1)) if np.isfinite(e) for d in (0.0, 1e-9, 1e-6, 1e-3, 0.03)
    ]
    return np.unique(np.concatenate([points, [p for p in near if low <= p <= high]]))


def _numerical_roots(expression: Any, low: float, high: float, shown: str, first: bool) -> list[float]:
    function = vectorised(expression)
    points = _grid(low, high)
    values = function(points)
    signs = np.sign(values)
    roots = [float(p) for p in points[values == 0]]
    changes = np.flatnonzero(
        (signs[:-1] * signs[1:] < 0) & np.isfinite(values[:-1]) & np.isfinite(values[1:])
    )
    if len(changes) + len(roots) > 4 * MOST_PIECES:
        if not first:
            raise ExpressionError(f"{shown} has more than {MOST_PIECES - 1} kinks")
        changes = sorted(changes, key=lambda i: abs(points[i]))[:4]
    for i in changes:
        a, b = float(points[i]), float(points[i + 1])
        found: Any = optimize.brentq(
            lambda t: float(function(np.array(t))), a, b, xtol=1e-300, rtol=np.float64(9e-16)
        )
        root = float(found)
        if abs(float(function(np.array(root)))) <= max(abs(values[i]), abs(values[i + 1])):  # not a pole
            roots.append(_polished(expression, root))
    # A root that only touches zero shows as a local minimum of the modulus.
    modulus = np.abs(values)
    lows = np.flatnonzero(
        (modulus[1:-1] < modulus[:-2]) & (modulus[1:-1] < modulus[2:]) & (modulus[1:-1] > 0)
    )
    for i in sorted(lows, key=lambda i: abs(points[i]))[: 4 * MOST_PIECES]:
        lowest = optimize.minimize_scalar(
            lambda t: abs(float(function(np.array(t)))), bounds=(points[i], points[i + 2]), method="bounded",
            options={"xatol": 1e-12},
        )  # fmt: skip
        if lowest.fun < 1e-12 * max(modulus[i], modulus[i + 2]):
            roots.append(float(lowest.x))
    return sorted({r + 0.0 for r in roots if low <= r <= high})


def _polished(expression: Any, root: float) -> float:
    """A root to the last digit, by Newton steps in many digits."""
    exact, at = Exact(expression), mpmath.mpf(root)
    with mpmath.workdps(DIGITS):
        for _ in range(4):
            value, slope = exact(0, at), exact(1, at)
            if value is None or not slope:
                break
            at -= value / slope
    return float(at) if abs(float(at) - root) < 1e-6 * (1 + abs(root)) else root


# --- values in double precision ---


def vectorised(expression: Any) -> Callable[[Array], Array]:
    """`expression` as a NumPy function, in stable primitives; nan where it is undefined, without warnings."""
    expression = rewrite(expression)
    large = [n for n in expression.atoms(sp.Rational) if max(abs(n.p), n.q) > 2**53]
    # NumPy would turn integers beyond 64 bits into objects.
    expression = expression.xreplace({n: sp.Float(n, 20) for n in large})
    if not expression.has(x):
        constant = float(expression)
        return lambda points: np.full_like(points, constant)
    function = sp.lambdify(x, expression, modules=[NUMPY_FUNCTIONS, "scipy", "numpy"], cse=True)

    def evaluate(points: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(points), dtype=np.float64)

    return evaluate


def _smooth(branch: Branch) -> tuple[Piece, Exact, tuple[float, ...]]:
    """The branch as a piece, the same in many digits, and the estimated errors of its derivatives."""
    exact = Exact(branch.expression, branch.low, branch.high)
    if branch.expression.is_polynomial(x):
        coefficients = [float(c) for c in reversed(sp.Poly(branch.expression, x).all_coeffs())]
        return polynomial(*coefficients), exact, (0.0,) * 4
    fast, derivative = [], rewrite(branch.expression)
    for _ in range(4):
        fast.append(vectorised(derivative))
        derivative = sp.diff(derivative, x)
    probes = np.concatenate([[0.0], np.logspace(-10, 0.5, 32)])
    probes = np.concatenate([-probes[:0:-1], probes])
    probes = probes[(probes >= branch.low) & (probes <= branch.high)]
    truth = [[exact(order, p) for p in probes] for order in range(4)]
    series = None
    if branch.low <= 0 <= branch.high and any(
        _losses(fast[n], truth[n], truth, n, probes).any() for n in range(4)
    ):
        series = _series(exact, truth, probes)
    orders = [_careful(order, fast[order], series, exact) for order in range(4)]
    errors = tuple(_error(orders[n], truth[n], probes) for n in range(4))
    return (orders[0], orders[1], orders[2], orders[3]), exact, errors


def _losses(
    function: Callable[[Array], Array], truth: list[Any], all_truth: Any, order: int, probes: Array
) -> Array:
    """Where more than rounding is lost: an error above what rounding x itself would do."""
    values = function(probes)
    lost = np.zeros(len(probes), dtype=bool)
    for i, (value, exact) in enumerate(zip(values, truth, strict=True)):
        if exact is None:
            continue
        slope = all_truth[order + 1][i] if order < 3 else None
        size = abs(exact) + (abs(probes[i] * slope) if slope is not None else 0)
        lost[i] = not np.isfinite(value) or abs(value - exact) > 2e-14 * size
    return lost


def _error(function: Callable[[Array], Array], truth: list[Any], probes: Array) -> float:
    """Largest error at the probes relative to the largest value there; 0 where it is rounding alone."""
    values = function(probes)
    pairs = [(v, float(t)) for v, t in zip(values, truth, strict=True) if t is not None]
    largest = max((abs(t) for _, t in pairs), default=0.0)
    if largest == 0.0:
        return 0.0
    error = max(abs(v - t) for v, t in pairs) / largest
    return 0.0 if error < 1e-13 else float(error)


def _series(exact: Exact, truth: list[list[Any]], probes: Array) -> tuple[float, Piece] | None:
    """Taylor's series around 0 with the radius within which it is better than the formula.

    The coefficients come from Cauchy's integral on a circle, which does not mind a removable 0/0 at the
    centre.
    """
    count, kept = 96, 36
    for radius in (0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4):
        with mpmath.workdps(60):
            circle = [radius * mpmath.expjpi(mpmath.mpf(2 * k + 1) / count) for k in range(count)]
            values = [exact.raw(0, point) for point in circle]
            if any(value is None for value in values):
                continue
            turns = [mpmath.expjpi(-mpmath.mpf(k) / count) for k in range(2 * count)]
            scaled = [
                mpmath.re(sum(v * turns[(2 * k + 1) * n % (2 * count)] for k, v in enumerate(values))) / count
                for n in range(kept)
            ]
            largest = max(abs(c) for c in scaled)
            coefficients = [
                float(c / radius**n) if abs(c) > 1e-25 * largest else 0.0 for n, c in enumerate(scaled)
            ]
        piece = polynomial(*coefficients)
        inside = np.abs(probes) <= radius / 2
        worst = 0.0
        for order in range(4):
            values = piece[order](probes[inside])
            rows = [t for t, use in zip(truth[order], inside, strict=True) if use]
            for value, true in zip(values, rows, strict=True):
                if true is not None:
                    worst = max(worst, float(abs(value - true) / (abs(true) + 1e-16 * largest + 1e-290)))
        if worst < 1e-11:
            return radius / 2, piece
    return None


def _careful(
    order: int, fast: Callable[[Array], Array], series: tuple[float, Piece] | None, exact: Exact
) -> Callable[[Array], Array]:
    """The formula; Taylor's series around 0 where that is better; many digits where doubles overflow."""

    def evaluate(points: Array) -> Array:
        values = fast(points)
        if series is not None:
            radius, piece = series
            values = np.where(
                np.abs(points) <= radius, piece[order](np.clip(points, -radius, radius)), values
            )
        undefined = ~np.isfinite(values) & np.isfinite(points)
        if not undefined.any():
            return values
        values = np.array(values)
        distinct, where = np.unique(points[undefined], return_inverse=True)
        found = [exact(order, float(p)) for p in distinct]
        values[undefined] = np.array([np.nan if v is None else float(v) for v in found])[where]
        return values

    return evaluate


# --- checks ---


def _check_finite(branch: Branch, piece: Piece, exact: Exact, shown: str) -> None:
    """Raise where the branch or one of its first two derivatives is not a finite real number."""
    ends = {end for end in (branch.low, branch.high) if np.isfinite(end)}
    suspects = sorted({*_suspects(branch, shown), *ends}, key=abs)
    points = _grid(branch.low, branch.high)
    names = (shown, f"the first derivative of {shown}", f"the second derivative of {shown}")
    for order, name in enumerate(names):
        for at in suspects:
            sides = [s for s in (1, -1) if at != (branch.low if s < 0 else branch.high)]
            limits = [_limit_at(exact, order, at, side) for side in sides]
            if any(limit is None for limit in limits):
                raise ExpressionError(f"{name} is not a finite real number at x = {at:.6g}")
            if abs(limits[0] - limits[-1]) > 1e-9 * (1 + abs(limits[0])):
                raise ExpressionError(f"{name} jumps at x = {at:.6g}, where the expression is not defined")
        # Plain overflow is infinite but real; only what has no value is an error.
        for at in sorted(points[np.isnan(piece[order](points))], key=abs):
            if exact(order, float(at)) is None:
                raise ExpressionError(f"{name} is not a finite real number at x = {at:.6g}")


def _suspects(branch: Branch, shown: str) -> list[float]:
    """Points of the branch where a power, a logarithm or a quotient in it may be undefined."""
    found: list[float] = []
    for node in sp.preorder_traversal(branch.expression):
        zero = None
        if isinstance(node, sp.Pow) and not (node.exp.is_integer and node.exp.is_positive):
            zero = node.base
        elif isinstance(node, sp.log | sp.cot | sp.csc | sp.coth | sp.csch):
            zero = node.args[0]
        elif isinstance(node, sp.tan | sp.sec):
            zero = sp.cos(node.args[0])
        if zero is not None:
            found += real_roots(zero, branch.low, branch.high, shown, first=True)
    return found


def _limit_at(exact: Exact, order: int, at: float, side: int) -> Any:
    """The one-sided value, or None where it grows without bound.

    The float `at` misses a pole by its rounding, so the growth towards it is what tells.
    """
    value = exact(order, at, side)
    with mpmath.workdps(DIGITS):
        near, nearer = (exact.raw(order, at + side * d * (1 + abs(at))) for d in (1e-9, 1e-12))
    if value is None or near is None or nearer is None or abs(nearer) > 30 * (1 + abs(near)):
        return None
    return value


# --- what an activation tells of itself ---


def _growth(branches: list[Branch], exacts: list[Exact]) -> Growth:
    levels = max(_exponential_levels(branch.expression) for branch in branches)
    return faster(_one_sided_growth(exacts[0], -1, levels), _one_sided_growth(exacts[-1], 1, levels))


def _exponential_levels(expression: Any) -> int:
    below = max((_exponential_levels(a) for a in expression.args), default=0)
    exponential = isinstance(expression, sp.exp | sp.sinh | sp.cosh | sp.tanh | sp.sech | sp.csch | sp.coth)
    exponential = exponential or (isinstance(expression, sp.Pow) and expression.exp.has(x))
    return below + int(exponential and expression.has(x))


def _one_sided_growth(exact: Exact, side: int, levels: int) -> Growth:
    """From log|φ| at three points far out, each twice as far as the one before."""
    far = 64.0 if levels > 1 else 1024.0
    logs = []
    with mpmath.workdps(DIGITS):
        for at in (far / 4, far / 2, far):
            # The largest of several, so that an oscillation does not hide the envelope.
            values = [exact.raw(0, side * at * (1 - 0.011 * k)) for k in range(12)]
            size = max((abs(v) for v in values if v is not None), default=mpmath.mpf(0))
            logs.append(mpmath.log(size) if size > 0 else mpmath.mpf("-inf"))
    # Beyond any float, a difference is still one between floats.
    differences = (
        [float(min(v - logs[0], 1e300)) for v in logs] if all(map(mpmath.isfinite, logs)) else [-np.inf] * 3
    )
    return classify((differences[0], differences[1], differences[2]), far)


def _oscillation(expression: Any, shown: str) -> float:
    """An upper bound of the angular frequencies that persist far out."""
    if not expression.has(x):
        return 0.0
    inner = [_oscillation(argument, shown) for argument in expression.args]
    if isinstance(expression, sp.sin | sp.cos):
        speed = vectorised(sp.diff(expression.args[0], x))
        near, far = (float(np.nanmax(np.abs(speed(np.array([-p, p]))))) for p in (100.0, 1e4))
        if far > 1.5 * near and far > 1e-3:
            raise ExpressionError(f"{shown} oscillates ever faster for large |x|")
        return sum(inner) + (far if far > 1e-3 else 0.0)
    if isinstance(expression, sp.Add):
        return max(inner)
    if isinstance(expression, sp.Mul):
        return sum(inner)
    if isinstance(expression, sp.Pow) and expression.exp.is_Integer and expression.exp > 0:
        return inner[0] * float(expression.exp)
    return 4.0 * sum(inner)  # harmonics of a function of a wave


def _structure(branches: list[Branch], pieces: list[Piece]) -> tuple[tuple[float, ...], float]:
    """Centres of the function's structure, and the smallest width around them."""
    centres, widths = {0.0}, [1.0]
    for branch, piece in zip(branches, pieces, strict=True):
        centres.update(end for end in (branch.low, branch.high) if np.isfinite(end))
        composite = False
        for node, argument in _nonlinear(branch.expression):
            found = _centre(node, argument, branch)
            composite |= found is None
            if found is not None:
                centres.add(found[0])
                widths.append(found[1])
        if composite:
            points = np.linspace(-12.0, 12.0, 4801)
            points = points[(points > branch.low) & (points < branch.high)]
            bend, third = (np.nan_to_num(np.abs(piece[n](points)), posinf=0.0) for n in (2, 3))
            if len(points) and third.max() > 0:
                widths.append(2.6 * float(bend.max() / third.max()))
    inside = sorted(centres)[:MOST_PIECES]
    return tuple(inside), float(np.clip(min(widths), 1e-9, 1e3))


def _nonlinear(expression: Any) -> Iterator[tuple[Any, Any]]:
    """Nodes that are no polynomial operation, with the argument that sets their place and width."""
    for node in sp.preorder_traversal(expression):
        if isinstance(node, sp.Function | sp.exp | sp.log) and node.has(x):
            yield node, node.args[0]
        elif isinstance(node, sp.Pow) and node.has(x) and not (node.exp.is_integer and node.exp.is_positive):
            yield node, node.exp * sp.log(node.base) if node.exp.has(x) else node.base


def _centre(node: Any, argument: Any, branch: Branch) -> tuple[float, float] | None:
    """(centre, width) of f(ax + b) or f(ax² + bx + c); None for other arguments."""
    if not argument.is_polynomial(x):
        return None
    coefficients = [float(c) for c in sp.Poly(argument, x).all_coeffs()]
    singular = isinstance(node, sp.log) or (isinstance(node, sp.Pow) and not node.exp.has(x))
    if len(coefficients) == 2:
        a, b = coefficients
        centre = -b / a
        # A pole outside the branch is felt at the branch's end, as far as it is away.
        place = float(np.clip(centre, branch.low, branch.high))
        if singular:
            # At no distance it is removable, or only a zero: a finite value there has been checked.
            return place, abs(place - centre) or 1.0
        return place, 1.0 / abs(a)
    if len(coefficients) == 3:
        a, b, c = coefficients
        centre = -b / (2.0 * a)
        bottom = c - b * b / (4.0 * a)
        width = np.sqrt(abs(bottom / a)) if singular else 1.0 / np.sqrt(abs(a))
        return centre, float(width) or 1.0
    return None


def _parity(branches: list[Branch], exacts: list[Exact]) -> Any:
    """By values in many digits: two analytic functions that agree at these points agree."""
    same = {1: True, -1: True}
    for at in (
        0.137,
        0.71,
        1.31,
        2.63,
        5.17,
        11.3,
        47.1,
        *(abs(b.low) * 1.01 for b in branches[1:] if b.low),
    ):
        right, left = (_value(branches, exacts, s * at) for s in (1, -1))
        if right is None or left is None:
            return None
        with mpmath.workdps(DIGITS):
            for sign in same:
                same[sign] &= bool(abs(right - sign * left) <= 1e-30 * (abs(right) + abs(left)))
    return "even" if same[1] else "odd" if same[-1] else None


def _value(branches: list[Branch], exacts: list[Exact], at: float) -> Any:
    for branch, exact in zip(branches, exacts, strict=True):
        if branch.low <= at <= branch.high:
            return exact(0, at)
    return None


def _slopes(branches: list[Branch]) -> tuple[float, float] | None:
    if [b.low for b in branches[1:]] not in ([], [0.0]):
        return None
    slopes = []
    for branch in branches:
        slope = sp.diff(branch.expression, x)
        if slope.has(x) or branch.expression.subs(x, 0) != 0:
            return None
        slopes.append(float(slope))
    return slopes[0], slopes[-1]


def _closed_form(expression: Any, branches: list[Branch], slopes: Any) -> tuple[Any, ...] | None:
    if len(branches) == 2:
        if slopes is not None:
            return ("leaky", *slopes)
        if branches[1].low == 0 and not any(b.expression.has(x) for b in branches):
            return ("step", float(branches[0].expression), float(branches[1].expression))
        return None
    if len(branches) > 2:
        return None
    expression = branches[0].expression
    if expression.is_polynomial(x):
        return ("polynomial", *(float(c) for c in reversed(sp.Poly(expression, x).all_coeffs())))
    family = {sp.sin: "sin", sp.cos: "cos", sp.erf: "erf", sp.exp: "exp"}.get(expression.func)
    if family is None:
        return None
    rate = expression.args[0] / x
    return (family, float(rate)) if rate.is_number and (rate.is_positive or family == "exp") else None


def _kink_values(expression: Any, branches: list[Branch], pieces: list[Piece]) -> tuple[float, ...] | None:
    """The function at its own jumps; None where it has none, and the left branch will do."""
    values, jumps = [], False
    for branch, left, right in zip(branches[1:], pieces, pieces[1:], strict=False):
        at = np.array([branch.low])
        below, above = float(left[0](at)[0]), float(right[0](at)[0])
        value = below
        if abs(above - below) > 1e-13 * max(abs(above), abs(below)):
            jumps = True
            found = expression.subs(x, sp.nsimplify(branch.low, rational=True))
            value = float(found) if found.is_number and found.is_finite and found.is_real else below
        values.append(value)
    return tuple(values) if jumps else None


# --- all together ---


def from_expression(expression: Any, name: str, source: Any) -> Activation:
    """The activation of a SymPy expression in :data:`x`.

    Raises:
        ExpressionError: it does not depend on x, is not finite and real for every x with a finite first
            derivative,
            has more than 63 kinks, or oscillates ever faster.
    """
    shown = _shown(name)
    if expression.has(sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I):
        raise ExpressionError(f"{shown} has a constant that is not finite and real")
    if not expression.has(x):
        raise ExpressionError(f"{shown} does not depend on x: it is {expression} everywhere")
    branches = split(expression, shown)
    if len(branches) == 1 and not branches[0].expression.has(x):
        raise ExpressionError(f"{shown} does not depend on x: it is {branches[0].expression} everywhere")
    if max(_exponential_levels(branch.expression) for branch in branches) > 2:
        raise ExpressionError(f"{shown} nests more than two exponentials")
    made = [_smooth(branch) for branch in branches]
    pieces, exacts = [piece for piece, _, _ in made], [exact for _, exact, _ in made]
    growth = _growth(branches, exacts)
    for branch, piece, exact in zip(branches, pieces, exacts, strict=True):
        _check_finite(branch, piece, exact, shown)
    centres, width = _structure(branches, pieces)
    slopes = _slopes(branches)
    errors = tuple(max(row[n] for _, _, row in made) for n in range(4))
    return Activation(
        name=name,
        pieces=tuple(pieces),
        kinks=tuple(branch.low for branch in branches[1:]),
        kink_values=_kink_values(expression, branches, pieces),
        scale_points=centres,
        length_scale=width,
        oscillation=max(_oscillation(branch.expression, shown) for branch in branches),
        growth=growth,
        slopes=slopes,
        parity=_parity(branches, exacts),
        closed_form=_closed_form(expression, branches, slopes),
        errors=(errors[0], errors[1], errors[2], errors[3]),
        make_expression=lambda: expression,
        source=source,
    )


@lru_cache(maxsize=256)
def from_text(text: str) -> Activation:
    """The activation of an expression in x, in the grammar of :mod:`.grammar`."""
    node = grammar.parse(text, _is_function)
    if node.kind == "call" and _is_function(node.args[0]) and node.args[1].kind == "x":
        # The built-in function itself, which knows more about itself than can be found out.
        entry = catalogue.find(node.args[0])
        assert entry is not None
        return catalogue.build(entry, [argument.value for argument in node.args[2:]])
    return _checked(_build(node, x), text)


def _checked(expression: Any, text: str) -> Activation:
    try:
        return from_expression(expression, text, text)
    except (ArithmeticError, RecursionError, NotImplementedError, TypeError) as error:
        raise ActivationError(
            f"{_shown(text)} is too involved to analyse ({type(error).__name__}: {error})"
        ) from error


@lru_cache(maxsize=256)
def from_sympy_expression(given: Any) -> Activation:
    """The activation of a user's SymPy expression."""
    return from_expression(from_sympy(given), str(given), given)
