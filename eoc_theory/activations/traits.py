"""What an expression tells of itself: growth, oscillation, structure, parity, closed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import mpmath
import numpy as np
import sympy

from ..errors import ExpressionError
from .branches import DIGITS, MOST_PIECES, Branch, Exact, value_at, vectorised
from .core import Function, Growth, Piece
from .derivatives import derivative
from .growth import classify, faster
from .reading import x
from .survey import asymmetries

sp: Any = sympy  # its annotations know nothing of what an expression can do


def growth(branches: list[Branch], exacts: list[Exact]) -> Growth:
    levels = max(exponential_levels(branch.expression) for branch in branches)
    return faster(_one_sided_growth(exacts[0], -1, levels), _one_sided_growth(exacts[-1], 1, levels))


def exponential_levels(expression: Any) -> int:
    below = max((exponential_levels(a) for a in expression.args), default=0)
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


def oscillation(expression: Any, shown: str) -> float:
    """An upper bound of the angular frequencies that persist far out."""
    if not expression.has(x):
        return 0.0
    inner = [oscillation(argument, shown) for argument in expression.args]
    if isinstance(expression, sp.sin | sp.cos):
        speed = vectorised(derivative(expression.args[0]))
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


def structure(branches: list[Branch], pieces: list[Piece]) -> tuple[tuple[float, ...], float]:
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


def parity(branches: list[Branch], exacts: list[Exact], function: Function, centres: Iterable[float]) -> Any:
    """By values in many digits at some points, then everywhere on a fine grid.

    Args:
        branches, exacts: the function, and the same in many digits.
        function: its fast values.
        centres: places where it has structure, which may be narrower than the grid.
    """
    points = [0.137, 0.71, 1.31, 2.63, 5.17, 11.3, 47.1, *(abs(b.low) * 1.01 for b in branches[1:] if b.low)]
    points += [abs(centre) for centre in centres if centre]
    for name, sign in (("even", 1), ("odd", -1)):
        if all(_mirrored(branches, exacts, at, sign) for at in points):
            # What the grid leaves open many digits tell.
            doubtful = asymmetries(function, sign)
            confirmed = doubtful is not None and all(_mirrored(branches, exacts, at, sign) for at in doubtful)
            return name if confirmed else None
    return None


def _mirrored(branches: list[Branch], exacts: list[Exact], at: float, sign: int) -> bool:
    """Whether φ(−x) = sign · φ(x) at a point, in many digits."""
    right, left = (_value(branches, exacts, s * at) for s in (1, -1))
    if right is None or left is None:
        return False
    with mpmath.workdps(DIGITS):
        return bool(abs(right - sign * left) <= 1e-30 * (abs(right) + abs(left)))


def _value(branches: list[Branch], exacts: list[Exact], at: float) -> Any:
    for branch, exact in zip(branches, exacts, strict=True):
        if branch.low <= at <= branch.high:
            return exact(0, at)
    return None


def slopes(branches: list[Branch]) -> tuple[float, float] | None:
    if [b.low for b in branches[1:]] not in ([], [0.0]):
        return None
    slopes = []
    for branch in branches:
        slope = derivative(branch.expression)
        if slope.has(x) or branch.expression.subs(x, 0) != 0:
            return None
        slopes.append(float(slope))
    return slopes[0], slopes[-1]


def closed_form(expression: Any, branches: list[Branch], slopes: Any) -> tuple[Any, ...] | None:
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


def kink_values(expression: Any, branches: list[Branch], pieces: list[Piece]) -> tuple[float, ...] | None:
    """The function at its own kinks; None where the left branch will do at all of them."""
    values, differ = [], False
    for branch, left, right in zip(branches[1:], pieces, pieces[1:], strict=False):
        at = np.array([branch.low])
        below, above = float(left[0](at)[0]), float(right[0](at)[0])
        found = value_at(expression, branch.low)
        value = below if found is None else float(found)
        if max(abs(above - below), abs(value - below)) > 1e-13 * max(abs(above), abs(below)):
            differ = True
        values.append(value)
    return tuple(values) if differ else None
