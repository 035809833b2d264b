"""Expressions in x split at their kinks into smooth branches; roots, exact values and fast ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import sympy
from mpmath.libmp import ComplexResult, NoConvergence
from scipy import optimize
from sympy.functions.elementary.piecewise import ExprCondPair

from ..errors import ExpressionError
from . import effort
from .core import Array
from .derivatives import Derivatives
from .digits import BeyondError, compiled, constant, number
from .reading import NOT_FINITE, SWITCHES, pair, piecewise, x
from .rounding import rounding_error
from .stable import NUMPY_FUNCTIONS, as_computed, rewrite

sp: Any = sympy  # its annotations know nothing of what an expression can do
MOST_PIECES = 64
MOST_DEGREES, MOST_IRRATIONAL_DEGREES = 128, 24
SMALLEST = 5e-324  # of a float
TOWERS = (sp.exp, sp.sinh, sp.cosh)  # what numbers beyond all reason are made of
PERIODIC = (sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc)
# Distances from a pole, six decades of them; how often a function may turn over these, and how far from 0 it
# may stay, as a share of its range, without being taken to come there.
ACCUMULATED = np.geomspace(1.07e-13, 1.31e-7, 41)
MOST_TURNS, NEAR_ZERO = 2, 0.05
LOST_DIGITS = 400  # for what loses even those
DIGITS = 80  # of which 0/0 at 1e-10 costs some 40 in a third derivative

# --- values ---


class Exact:
    """Values of a smooth branch and its derivatives in many digits, with limits taken where it is 0/0."""

    def __init__(self, expression: Any, low: float = -np.inf, high: float = np.inf) -> None:
        self.low, self.high = low, high
        effort.check_size(expression, "a branch of it")
        self.derivatives = Derivatives(expression)
        self._functions: dict[int, Any] = {}

    def _function(self, order: int) -> Callable[[Any], Any]:
        if order not in self._functions:
            effort.spend(self.derivatives.size(order))
            self._functions[order] = compiled(self.derivatives[order], x)
        return self._functions[order]

    def raw(self, order: int, at: Any) -> Any:
        """The value at a real or complex point, or None where it is undefined."""
        try:
            return self._raw(order, at)
        except BeyondError:
            return None

    def _raw(self, order: int, at: Any) -> Any:
        effort.spend((effort.CALL + self.derivatives.size(order)) * max(DIGITS, mpmath.mp.dps) // DIGITS)
        try:
            value = mpmath.mpmathify(self._function(order)(mpmath.mpmathify(at)))
        except BeyondError:
            raise
        except (ArithmeticError, ValueError, ComplexResult, NoConvergence):
            return None
        return value if mpmath.isfinite(value) else None

    def __call__(self, order: int, at: Any, side: int = 0) -> Any:
        """The value at a real point, or its limit where the formula is undefined; None where there is none.

        `side` is −1 or 1 for the limit from below or above.
        """
        with mpmath.workdps(DIGITS):
            try:
                value = self._raw(order, at)
            except BeyondError:
                if side == 0:
                    return None  # and so are its neighbours
                value = None
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

    def precise(self, order: int, at: float) -> Any:
        """The value as by calling, with more digits where those are lost; 0 where it is what they leave of 0.

        Two evaluations differ by what the fewer digits lost.
        """
        value = self(order, at)
        if not value:
            return value
        with mpmath.workdps(2 * DIGITS):
            again = self.raw(order, at)
            if again is None or mpmath.im(again) != 0 or abs(again - value) <= 1e-20 * abs(again):
                return value
        with mpmath.workdps(LOST_DIGITS):
            last = self.raw(order, at)
            if last is None or mpmath.im(last) != 0:
                return value
            return mpmath.mpf(0) if abs(last) < mpmath.mpf(10) ** -DIGITS * abs(again) else mpmath.re(last)

    def sign(self, at: float) -> int | None:
        """The sign of the value, 0 where it is what rounding leaves of 0; None where it is undefined."""
        value = self.precise(0, at)
        return None if value is None else int(mpmath.sign(value))

    def _limit(self, order: int, at: Any, side: int) -> Any:
        near, nearer = (self.raw(order, at + side * mpmath.mpf(10) ** -k * (1 + abs(at))) for k in (30, 60))
        if near is None or nearer is None or mpmath.im(nearer) != 0:
            return None
        return mpmath.re(nearer) if abs(near - nearer) <= 1e-12 * (1 + abs(nearer)) else None


def vectorised(expression: Any) -> Callable[[Array], Array]:
    """`expression` as a NumPy function, in stable primitives; nan where it is undefined, without warnings."""
    if not expression.has(x):
        value = constant(expression)
        return lambda points: np.full_like(points, np.nan if value is None else value)
    expression = as_computed(rewrite(expression))
    large = [n for n in expression.atoms(sp.Rational) if max(abs(n.p), n.q) > 2**53]
    # NumPy would turn integers beyond 64 bits into objects.
    expression = expression.xreplace({n: sp.Float(n, 20) for n in large})
    function = sp.lambdify(x, expression, modules=[NUMPY_FUNCTIONS, "scipy", "numpy"], cse=True)

    def evaluate(points: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(points), dtype=np.float64)

    return evaluate


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
        if _same(branch.expression, merged[-1].expression) and not _stands_out(expression, branch):
            merged[-1] = Branch(merged[-1].low, branch.high, merged[-1].expression)
        else:
            merged.append(branch)
    return merged


def _same(one: Any, other: Any) -> bool:
    """Whether two smooth expressions are the same function, as far as multiplying out tells."""
    if one == other:
        return True
    for at in (0.7316851, 2.1377192):
        with mpmath.workdps(DIGITS):
            a, b = Exact(one).raw(0, at), Exact(other).raw(0, at)
            if a is not None and b is not None and abs(a - b) > 1e-40 * (abs(a) + abs(b)):
                return False  # no need to multiply out, which can cost
    return sp.expand(one - other) == 0


def _stands_out(expression: Any, branch: Branch) -> bool:
    """Whether the value at a branch's left end is another one than around it, as of where(x == 1, 5, x)."""
    if not branch.expression.has(x):
        return False
    value, limit = value_at(expression, branch.low), Exact(branch.expression)(0, branch.low)
    return value is not None and limit is not None and abs(value - limit) > 1e-12 * (1 + abs(limit))


def value_at(expression: Any, at: float) -> Any:
    """The value of an expression with switches at a point, which may be a kink; None where it has none.

    A kink's place is a float: sides that are equal within its rounding are equal.
    """
    try:
        while (switch := _first_switch(expression)) is not None:
            expression = _replaced(expression, switch, _choose(switch, at, "it", rounded=True))
        value = None if expression.has(*NOT_FINITE) else Exact(expression).raw(0, at)
    except ExpressionError:
        return None
    return None if value is None or mpmath.im(value) != 0 else mpmath.re(value)


def _first_switch(expression: Any) -> Any:
    """An innermost switch, or None."""
    return next((n for n in sp.postorder_traversal(expression) if isinstance(n, SWITCHES)), None)


def _replaced(node: Any, switch: Any, chosen: Any) -> Any:
    """The expression with a switch replaced, and conditions left as they are written."""
    if node == switch:
        return chosen
    if not node.has(switch):
        return node
    arguments = [_replaced(argument, switch, chosen) for argument in node.args]
    if isinstance(node, sp.Piecewise):
        return piecewise(arguments)
    if isinstance(node, ExprCondPair):
        return pair(*arguments)
    if isinstance(node, sp.And | sp.core.relational.Relational):
        return node.func(*arguments, evaluate=False)
    if not any(argument.has(x) for argument in arguments) and isinstance(node, TOWERS):
        # SymPy is not to be asked for the sign of exp(exp(10⁶)), or of one over it.
        value = number(node.func(*arguments, evaluate=False))
        if not value:
            return sp.nan if value is None else sp.S.Zero
    return node.func(*arguments)


def _split(expression: Any, low: float, high: float, shown: str) -> list[Branch]:
    switch = _first_switch(expression)
    if switch is None:
        return [Branch(low, high, expression)]
    cuts: list[float] = []
    for decider in _deciders(switch):
        if _vanishes(decider, low, high):
            continue  # its sides are equal throughout
        # At a pole a sign changes too; where it does not, the branches on both sides are merged again.
        poles = singular_points(decider, low, high, shown)
        _check_accumulation(decider, low, high, poles, shown)
        cuts += [at for at in (*real_roots(decider, low, high, shown), *poles) if low < at < high]
    ends = [low, *sorted(set(cuts)), high]
    result: list[Branch] = []
    for a, b in itertools.pairwise(ends):
        chosen = _choose(switch, _inside(a, b), shown)
        inside = _replaced(expression, switch, chosen)
        if inside.has(*NOT_FINITE):
            raise ExpressionError(f"{shown} is not a finite real number for x between {a:.6g} and {b:.6g}")
        result += _split(inside, a, b, shown)
        if len(result) > MOST_PIECES:
            raise ExpressionError(f"{shown} has more than {MOST_PIECES - 1} kinks")
    return result


def _check_accumulation(decider: Any, low: float, high: float, poles: list[float], shown: str) -> None:
    """Refuse a decider whose sign changes without end towards a pole, as that of sin(1/x) does.

    Nothing else in the grammar than a function with a period does so. It need not show in the signs at a few
    points: 1 − sin(1/x) is positive but at points that accumulate.
    """
    if not poles or not decider.has(*PERIODIC):
        return
    exact = Exact(decider, low, high)
    for pole, side in itertools.product(poles, (-1, 1)):
        places = [pole + side * d * (1 + abs(pole)) for d in ACCUMULATED]
        found = [exact.precise(0, at) for at in places if low < at < high]
        values = np.array([float(value) for value in found if value is not None])
        turns = np.diff(np.sign(np.diff(values))) != 0.0
        room = NEAR_ZERO * np.ptp(values) if len(values) else 0.0
        if turns.sum() > MOST_TURNS and values.min() <= room and values.max() >= -room:
            raise ExpressionError(f"{shown} has kinks without end towards x = {pole:.6g}")


def _vanishes(expression: Any, low: float, high: float) -> bool:
    """Whether an expression is 0 throughout an interval, written in some way, as sin² + cos² − 1 is."""
    if not expression.has(x):
        return True
    if expression.is_polynomial(x):
        return False
    exact = Exact(expression)
    inside = _inside(low, high)
    others = [end + 0.317 * (inside - end) for end in (low, high) if np.isfinite(end)]
    return all(exact.sign(at) == 0 for at in (inside, *others, 1.1 * inside if not others else inside))


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


def _choose(switch: Any, at: float, shown: str, rounded: bool = False) -> Any:
    """The branch of a switch that holds around the point `at`; `rounded`: at a point that is near it."""

    def sign_of(expression: Any) -> int:
        exact = Exact(expression)
        sign = exact.sign(at)
        if sign and rounded:
            slope = exact(1, at)
            sign = 0 if slope and abs(exact(0, at)) <= abs(slope * np.spacing(at)) else sign
        if sign is None:
            raise ExpressionError(f"{shown} is not a finite real number at x = {at:.6g}")
        return sign

    if isinstance(switch, sp.Max | sp.Min):
        chosen = switch.args[0]
        for argument in switch.args[1:]:
            larger = sign_of(argument - chosen)
            if (larger > 0) if isinstance(switch, sp.Max) else (larger < 0):
                chosen = argument
        return chosen
    if isinstance(switch, sp.Piecewise):
        for branch, condition in switch.args:
            truth = condition.replace(
                lambda c: isinstance(c, sp.core.relational.Relational),
                lambda c: sp.true if bool(c.func(sp.Integer(sign_of(c.lhs - c.rhs)), 0)) else sp.false,
            )
            if truth == sp.true:
                return branch
        raise ExpressionError(
            f"{shown} is not defined at x = {at:.6g}: no condition of Piecewise holds there"
        )
    sign = sign_of(switch.args[0])
    if isinstance(switch, sp.Abs):
        return switch.args[0] if sign >= 0 else -switch.args[0]
    if isinstance(switch, sp.Heaviside):
        return sp.Rational(sign + 1, 2)
    return sp.Integer(sign)


# --- roots ---


def real_roots(expression: Any, low: float, high: float, shown: str, first: bool = False) -> list[float]:
    """The real roots of a smooth expression in [low, high]: exact for polynomials, by sign changes otherwise.

    Too many of them are an error, or with `first` cut to a few near 0.
    """
    expression = sp.sympify(expression)
    if not expression.has(x) or isinstance(expression, sp.exp | sp.cosh | sp.sech | sp.erfc):
        return []
    if isinstance(expression, sp.Mul):
        # Factor by factor, none of which underflows where another one has its root.
        roots = {r for f in expression.args for r in real_roots(f, low, high, shown, first)}
        return sorted(roots)
    if isinstance(expression, sp.Pow) and expression.exp.is_number:
        return real_roots(expression.base, low, high, shown, first) if expression.exp.is_positive else []
    numerator = _numerator(expression)
    if numerator is None:
        return _numerical_roots(expression, low, high, shown, first)
    return sorted({r + 0.0 for r in _polynomial_roots(sp.Poly(numerator, x), shown) if low <= r <= high})


def _numerator(expression: Any) -> Any:
    """The numerator of a rational function, a polynomial; None for other functions."""
    if expression.is_polynomial(x):
        degree, numerator = _degree(expression), expression
    elif expression.is_rational_function(x):
        degree, numerator = _degree(expression), None
    else:
        degree, numerator = 0, None
    if degree > MOST_DEGREES:
        raise ExpressionError(
            f"the expression is too costly to read: a polynomial of degree {degree} decides between branches "
            f"or divides (at most {MOST_DEGREES})"
        )
    if numerator is None:
        effort.spend(20 * effort.check_size(expression, "a branch of it"))
        numerator = sp.together(expression).as_numer_denom()[0]
    return numerator if numerator.is_polynomial(x) else None


def _degree(expression: Any) -> int:
    """A bound for the degrees of a rational function's numerator and denominator together."""
    if expression == x:
        return 1
    if not expression.has(x):
        return 0
    if isinstance(expression, sp.Pow):
        return _degree(expression.base) * int(abs(expression.exp))
    inner = [_degree(argument) for argument in expression.args]
    return max(inner) if expression.is_polynomial(x) and expression.is_Add else sum(inner)


def _polynomial_roots(poly: Any, shown: str) -> list[float]:
    if poly.degree() <= 0:
        return []
    if poly.degree() == 1:
        a, b = poly.all_coeffs()
        root = constant(-b / a)
        return [] if root is None else [root]
    effort.spend(20 * poly.degree() ** 2)
    if poly.domain.is_ZZ or poly.domain.is_QQ:
        return _isolated_roots(poly.sqf_part())
    if poly.degree() > MOST_IRRATIONAL_DEGREES:
        raise ExpressionError(
            f"the expression is too costly to read: a polynomial of degree {poly.degree()} with irrational "
            f"coefficients (at most {MOST_IRRATIONAL_DEGREES})"
        )
    try:
        roots = poly.nroots(n=30, maxsteps=200)
    except NoConvergence:
        raise ExpressionError(f"the roots of a polynomial in {shown} are not found") from None
    return [float(sp.re(r)) for r in roots if abs(sp.im(r)) < 1e-12 * (1 + abs(r))]


#: Of its ends, the width of an interval that is halved no more; and ends that are 0.
_NARROW, _TINY = Fraction(1, 10**25), Fraction(1, 10**300)


def _isolated_roots(poly: Any) -> list[float]:
    """The real roots of a square-free polynomial with rational coefficients, to the last digit.

    By halving in whole numbers: sympy's refinement of an interval does not end for some of high degree. Nor
    does its isolation without `fast`: it walks to a root at 10¹⁵ in steps of 1.
    """
    coefficients = [int(c) for c in poly.clear_denoms(convert=True)[1].all_coeffs()]
    intervals = poly.intervals(fast=True)
    ends = [(Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))) for (a, b), _ in intervals]
    return [float(a) if a == b else _halved(coefficients, a, b) for a, b in ends]


def _halved(coefficients: list[int], low: Fraction, high: Fraction) -> float:
    """The only root strictly between two numbers, a simple one."""
    degree = len(coefficients) - 1
    slopes = [c * (degree - at) for at, c in enumerate(coefficients[:-1])]
    # An end may be a root itself: next to it the sign is that of the slope.
    below = _sign(coefficients, low) or _sign(slopes, low)
    while high - low > min(abs(low), abs(high)) * _NARROW and max(abs(low), abs(high)) > _TINY:
        middle = (low + high) / 2
        sign = _sign(coefficients, middle)
        if sign == 0:
            return float(middle)
        low, high = (middle, high) if sign == below else (low, middle)
    return float((low + high) / 2)


def _sign(coefficients: list[int], at: Fraction) -> int:
    """Of a polynomial at a number: Horner's rule, multiplied by the denominator at every step."""
    value, power = 0, 1
    for coefficient in coefficients:
        value = value * at.numerator + coefficient * power
        power *= at.denominator
    return (value > 0) - (value < 0)


def singular_points(expression: Any, low: float, high: float, shown: str, first: bool = False) -> list[float]:
    """Points of [low, high] where a power, a logarithm or a quotient in it may be undefined."""
    found: list[float] = []
    for node in effort.parts(expression):
        zero = None
        if isinstance(node, sp.Pow) and not (node.exp.is_integer and node.exp.is_positive):
            zero = node.base
        elif isinstance(node, sp.log | sp.cot | sp.csc | sp.coth | sp.csch):
            zero = node.args[0]
        elif isinstance(node, sp.tan | sp.sec):
            zero = sp.cos(node.args[0])
        if zero is not None:
            found += real_roots(zero, low, high, shown, first)
    return found


def spread(low: float, high: float) -> Array:
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


def structured_points(expression: Any, low: float, high: float) -> Array:
    """Points of [low, high] around the places where functions of ax + b or ax² + bx + c in it change."""
    steps = np.concatenate([np.linspace(0, 6, 121), np.linspace(6.5, 60, 108)])
    steps = np.concatenate([-steps, steps])
    points = [np.empty(0)]
    for node in effort.parts(expression):
        argument = node.args[0] if node.is_Function else node.exp if node.is_Pow and node.exp.has(x) else None
        if argument is None or not argument.is_polynomial(x) or not 0 < _degree(argument) <= 2:
            continue
        *square, a, b = (float(c) for c in sp.Poly(argument, x).all_coeffs())
        centre, width = (-b / a, 1 / abs(a)) if not square else (-a / (2 * square[0]), abs(square[0]) ** -0.5)
        points.append(centre + width * steps)
    found = np.concatenate(points)
    return found[(found > low) & (found < high)]


def _numerical_roots(expression: Any, low: float, high: float, shown: str, first: bool) -> list[float]:
    function, exact = vectorised(expression), Exact(expression, low, high)
    points = np.unique(np.concatenate([spread(low, high), structured_points(expression, low, high)]))
    effort.spend(len(points))
    values = _signed(function(points), expression, exact, points)
    points, values = points[~np.isnan(values)], values[~np.isnan(values)]
    signs = np.sign(values)
    roots = [float(p) for p in points[values == 0]]
    changes = np.flatnonzero(signs[:-1] * signs[1:] < 0)
    if len(changes) + len(roots) > 4 * MOST_PIECES:
        if not first:
            raise ExpressionError(f"{shown} has more than {MOST_PIECES - 1} kinks")
        changes = sorted(changes, key=lambda i: abs(points[i]))[:4]
    for i in changes:
        root = _crossing(function, exact, float(points[i]), float(points[i + 1]))
        if root is not None:
            roots.append(root)
    # A root that only touches zero shows as a local minimum of the modulus.
    modulus = np.abs(values)
    lows = np.flatnonzero(
        (modulus[1:-1] < modulus[:-2]) & (modulus[1:-1] < modulus[2:]) & (modulus[1:-1] > 0)
        & np.isfinite(modulus[:-2]) & np.isfinite(modulus[2:])
    )  # fmt: skip
    for i in sorted(lows, key=lambda i: abs(points[i]))[: 4 * MOST_PIECES]:
        lowest: Any = optimize.minimize_scalar(
            lambda t: abs(float(function(np.array(t)))), bounds=(points[i], points[i + 2]), method="bounded",
            options={"xatol": 1e-12},
        )  # fmt: skip
        if lowest.fun < 1e-12 * max(modulus[i], modulus[i + 2]):
            roots.append(float(lowest.x))
    return sorted({r + 0.0 for r in roots if low <= r <= high})


def _signed(values: Array, expression: Any, exact: Exact, points: Array) -> Array:
    """The values, with those whose sign rounding or overflow may have changed in many digits.

    What many digits do not tell from 0 is 0, and NaN is what has no value. Of a long stretch without values
    the ends are enough.
    """
    finite = np.isfinite(values)
    unsure = finite & ~(rounding_error(rewrite(expression), x, points) < np.abs(values))
    ends = ~finite & (np.append(finite[1:], False) | np.append(False, finite[:-1]))
    result = np.array(values)
    for i in np.flatnonzero(unsure | ends):
        value = exact.precise(0, float(points[i]))
        result[i] = np.nan if value is None else float(value) or SMALLEST * int(mpmath.sign(value))
    return result


def _crossing(function: Callable[[Array], Array], exact: Exact, a: float, b: float) -> float | None:
    """The root of a function that changes its sign between a and b; None where that is at a pole."""

    def value(t: float) -> float:
        return float(function(np.array(t)))

    at_a, at_b = value(a), value(b)
    if at_a * at_b < 0.0:
        found: Any = optimize.brentq(value, a, b, xtol=1e-300, rtol=np.float64(9e-16))
        root = float(found)
        if not abs(value(root)) <= max(abs(at_a), abs(at_b)):
            return None
        root = _polished(exact, root)
        step = 1e-11 * max(abs(root), SMALLEST)
        if exact.sign(root) == 0 or exact.sign(root - step) != exact.sign(root + step):
            return root
    return _bisected(exact, a, b)


def _bisected(exact: Exact, a: float, b: float) -> float | None:
    """By signs in many digits, halving the distance or, between points of one sign, the ratio."""
    before = exact.sign(a)
    largest = max(abs(v) for v in (exact(0, a), exact(0, b)) if v is not None)
    for _ in range(200):
        middle = 0.5 * (a + b)
        if a * b > 0.0 and not 0.25 < a / b < 4.0:
            middle = float(np.copysign(np.sqrt(abs(a)) * np.sqrt(abs(b)), a))
        if middle in (a, b):
            break
        sign = exact.sign(middle)
        if sign is None:
            return None
        if sign == 0:
            return middle
        a, b = (middle, b) if sign == before else (a, middle)
    nearest = exact(0, b)
    return b if nearest is not None and abs(nearest) <= largest else None


def _polished(exact: Exact, root: float) -> float:
    """A root to the last digit, by Newton steps in many digits."""
    at = mpmath.mpf(root)
    with mpmath.workdps(DIGITS):
        for _ in range(4):
            value, slope = exact(0, at), exact(1, at)
            if value is None or not slope:
                break
            at -= value / slope
    return float(at) if abs(float(at) - root) < 1e-6 * (1 + abs(root)) else root
