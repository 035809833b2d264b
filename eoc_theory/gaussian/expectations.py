"""Gaussian expectations E[f(√q Z)] by direct quadrature, and its error; the moments of an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..activations import Activation, activation
from ..activations.core import Growth
from ..activations.survey import mesh_reach
from ..base import checks
from ..errors import ArgumentError, DivergentExpectationError
from .adaptive import affordable, halved
from .rules import (
    DIFFERENTIATE,
    EPS,
    FARTHEST,
    NODES,
    ROUNDING,
    TAIL,
    Array,
    PanelRule,
    Rule,
    Shape,
    derivative_pieces,
    panel_rule,
    rules,
)

# q = 0 is the limit q → 0; from here on the limit has been reached to the last digit.
SMALLEST = 1e-200


# Radians within √q, over all q, for which rules are kept between moments.
MOST_KEPT = 1e5
# Relative error of moments from that of an expression's values, first and second derivatives.
CANCELLATION = (0.0, 10 * EPS, 1e4 * EPS)


#: Derivatives of φ times √weight at a rule's nodes; and if they are numerical, by how much that of an order
#: is uncertain.
Rooted: TypeAlias = tuple[list[Array], Callable[[int], "Array | float"] | None]
#: Some of the variances, their rule, and φ and φ' there if those are known.
Ruled: TypeAlias = tuple[slice, Rule, Rooted | None]


@dataclass(frozen=True)
class Estimate:
    """A computed value with an estimate of its absolute error; both float arrays of one shape.

    Unpacks as ``value, error = estimate``.
    """

    value: Array
    error: Array

    def __iter__(self) -> Iterator[Array]:
        return iter((self.value, self.error))

    def __float__(self) -> float:
        return float(self.value)


def checked_variance(q: ArrayLike) -> Array:
    """q as a float array of variances; ArgumentError when one is negative or not finite."""
    array = checks.floats_of("q", q, "a variance or an array of variances")
    if not np.all(np.isfinite(array) & (array >= 0.0)):
        wrong = array[~(np.isfinite(array) & (array >= 0.0))].flat[0]
        raise ArgumentError(f"q must be finite and >= 0, got {wrong:g}")
    return array


def expectation(
    f: Callable[[Array], Array],
    q: ArrayLike,
    *,
    kinks: Sequence[float] = (),
    scale_points: Sequence[float] = (0.0,),
    length_scale: float = 1.0,
    growth: Growth | None = None,
) -> Estimate:
    """E[f(√q Z)], Z standard normal, for a vectorised f.

    Args:
        f: maps a float array to one of the same shape.
        q: variance ≥ 0, scalar or array of any shape (0: the limit q → 0+).
        kinks: points where f or one of its derivatives jumps.
        scale_points: points around which f has its structure.
        length_scale: width of that structure, in units of x.
        growth: bound of f for large |x|; when None the window is widened until the integrand has died out.

    Returns:
        Value and error estimate, of q's shape.

    Raises:
        DivergentExpectationError: the integral does not exist, or is beyond the range of floats.
        ArgumentError: q is negative or not finite.
    """
    array = checked_variance(q)
    flat = np.maximum(array.reshape(-1), SMALLEST)
    kinks = tuple(sorted(float(k) for k in kinks))
    centres = tuple(sorted({*kinks, *(float(p) for p in scale_points)}))
    shape = Shape(kinks, centres, float(length_scale), growth=growth)
    value, error = np.empty_like(flat), np.empty_like(flat)
    for rows, rule in rules(shape, flat, 1.0):
        with np.errstate(all="ignore"):
            weighted = _weighted(f, rule)
            sums, errors, rough_rows = rule.assess(weighted[None])
            rough: Any = rough_rows
            value[rows], error[rows] = sums[0], errors[0]
            unresolved = _unresolved(rule, weighted) if growth is None else ~np.isfinite(value[rows])
        for i in np.flatnonzero(unresolved | rough):
            j = rows.start + int(i)
            if unresolved[i]:
                value[j], error[j] = _widened(f, shape, float(flat[j]))
            else:
                found = halved(shape, float(flat[j]), 1.0, lambda rule: _weighted(f, rule)[None], 1)
                value[j], error[j] = (float(part[0]) for part in found)
    return Estimate(value.reshape(array.shape)[()], error.reshape(array.shape)[()])


def _weighted(f: Callable[[Array], Array], rule: Rule) -> Array:
    return np.asarray(f(rule.x), dtype=np.float64) * rule.root_weight * rule.root_weight


def _unresolved(rule: Rule, weighted: Array) -> Array:
    """Which q of a rule have a tail that counts, or values that are not finite."""
    tail = rule.tail(weighted[None])[0]  # type: ignore[union-attr]
    return ~(tail < EPS)


def _widened(f: Callable[[Array], Array], shape: Shape, q: float) -> tuple[float, float]:
    """The expectation over the smallest window beyond which the integrand has died out."""
    for farthest in (1.5 * TAIL, 2.5 * TAIL, 4.0 * TAIL, FARTHEST):
        rule = panel_rule(shape, [q], 1.0, farthest=farthest)
        with np.errstate(all="ignore"):
            weighted = _weighted(f, rule)
            value, error = rule.integrate(weighted[None])
            if np.isfinite(value[0, 0]) and not _unresolved(rule, weighted)[0]:
                return float(value[0, 0]), float(error[0, 0])
    raise DivergentExpectationError(
        f"the Gaussian expectation at q = {q:g} diverges or exceeds the range of floats: the integrand does "
        f"not fall off within {FARTHEST:g} standard deviations"
    )


# --- moments of an activation -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Gaussian moments of an activation at variances q (any shape); u = √q Z.

    A moment that a jump makes infinite says so: E[φ'²] where φ jumps, E[φ''²] where φ' jumps.

    Attributes:
        phi: E[φ(u)].
        phi2: E[φ(u)²].
        phi4: E[φ(u)⁴].
        dphi: E[φ'(u)] without what jumps of φ add.
        dphi2: E[φ'(u)²].
        dphi4: E[φ'(u)⁴].
        ddphi2: E[φ''(u)²].
        slope: dE[φ(u)²]/dq = E[Z φ φ'(u)]/√q, with what jumps of φ add.
    """

    q: Array
    phi: Estimate
    phi2: Estimate
    phi4: Estimate
    dphi: Estimate
    dphi2: Estimate
    dphi4: Estimate
    ddphi2: Estimate
    slope: Estimate


ALL = ("phi", "phi2", "phi4", "dphi", "dphi2", "dphi4", "ddphi2", "slope")


def moments(spec: Any, q: ArrayLike) -> Moments:
    """Moments of an activation (anything :func:`eoc_theory.activation` accepts) at variances q ≥ 0 of any
    shape.

    Raises:
        DivergentExpectationError: E[φ²] does not exist at one of the q. (Fourth moments that do not exist
        are inf.) ArgumentError: q is negative or not finite.
    """
    array = checked_variance(q)
    found = evaluate(activation(spec), array.reshape(-1), ALL)
    shaped = {
        name: Estimate(value.reshape(array.shape)[()], error.reshape(array.shape)[()])
        for name, (value, error) in found.items()
    }
    return Moments(array, **shaped)


def evaluate(act: Activation, q: Array, names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
    """Values and errors, each of shape (len(q),), of the named moments at a 1-D array of variances."""
    q = np.maximum(q, SMALLEST)
    found: dict[str, tuple[Array, Array]] = {}
    fourth = [name for name in names if name.endswith("4")]
    second = [name for name in names if not name.endswith("4") and name != "excess"]
    both = bool(second) and "excess" in names
    # A fast oscillation takes too many nodes to keep them for many variances.
    few = len(q) * act.oscillation * math.sqrt(np.max(q, initial=0.0)) <= MOST_KEPT
    if both and not few and len(q) > 1:
        rows = [evaluate(act, q[i : i + 1], names) for i in range(len(q))]
        parts = {name: zip(*(row[name] for row in rows), strict=True) for name in names}
        return {name: tuple(map(np.concatenate, part)) for name, part in parts.items()}  # type: ignore[misc]
    made = _shared(act, q) if both and few else None
    if second:
        found.update(_direct(act, q, second, 2.0, made))
    if "excess" in names:
        found["excess"] = _excess(act, q, made)
    if fourth:
        try:
            found.update(_direct(act, q, fourth, 4.0))
        except DivergentExpectationError:
            found.update(_one_by_one(act, q, fourth))
    return found


def _one_by_one(act: Activation, q: Array, names: list[str]) -> dict[str, tuple[Array, Array]]:
    """Fourth moments where some exist and some are infinite."""
    found = {name: (np.full_like(q, np.inf), np.full_like(q, np.inf)) for name in names}
    for i in range(len(q)):
        try:
            for name, (value, error) in _direct(act, q[i : i + 1], names, 4.0).items():
                found[name][0][i], found[name][1][i] = value[0], error[0]
        except DivergentExpectationError:
            continue
    return found


def _shared(act: Activation, q: Array) -> list[Ruled]:
    """Rules for squares with φ and φ' at their nodes, for moments that need the same ones."""
    with np.errstate(all="ignore"):
        return [(rows, rule, _rooted(act, rule, (0, 1))) for rows, rule in rules(shape_of(act), q, 2.0)]


def _rules(act: Activation, q: Array, power: float, made: list[Ruled] | None) -> Iterator[Ruled]:
    """Those that were made, or new ones."""
    if made is not None:
        yield from made
        return
    for rows, rule in rules(shape_of(act), q, power):
        yield rows, rule, None


def _direct(
    act: Activation, q: Array, names: Sequence[str], power: float, made: list[Ruled] | None = None
) -> dict[str, tuple[Array, Array]]:
    shape, count = shape_of(act), len(names)
    value, error = np.empty((count, len(q))), np.empty((count, len(q)))

    def integrands(rule: Rule, some: Array, rooted: Rooted | None = None) -> Array:
        return _integrands(act, rule, names, some, rooted)

    with np.errstate(all="ignore"):
        for rows, rule, rooted in _rules(act, q, power, made):
            sums, errors, rough = rule.assess(integrands(rule, q[rows], rooted), count)
            for i in np.flatnonzero(rough):
                at = q[rows][i]
                if isinstance(rule, PanelRule) or affordable(shape, at, power):
                    sums[:, i], errors[:, i] = halved(
                        shape, at, power, partial(integrands, some=np.array([at])), count
                    )
            value[:, rows], error[:, rows] = sums[:count], errors[:count]
            if act.uncertainty is not None:
                error[:, rows] += sums[count:]
    for i, name in enumerate(names):
        _correct(act, name, q, value[i], error[i])
    return {name: (value[i], error[i]) for i, name in enumerate(names)}


def _excess(act: Activation, q: Array, made: list[Ruled] | None = None) -> tuple[Array, Array]:
    """q E[φ'²] − E[φ²], which is σ_b² E[φ'²] on the edge of chaos, without the cancellation of its two terms.

    Subtracting αx from φ leaves it unchanged for every α (Stein's lemma). With α = E[φ'] the nearly linear
    part of φ at small q is gone, and with it what cancels: tanh at q = 10⁻⁸ keeps 8 digits more.
    """
    if jumps_of(act).value:
        return np.full_like(q, np.inf), np.zeros_like(q)
    value, error = np.empty_like(q), np.empty_like(q)
    shape = shape_of(act)
    with np.errstate(all="ignore"):
        for rows, rule, shared in _rules(act, q, 2.0, made):
            some = q[rows]
            slope = np.zeros_like(some)
            rooted = _rooted(act, rule, (0, 1)) if shared is None else shared
            if act.parity != "even":
                slope = rule.integrate((rooted[0][1] * rule.root_weight)[None])[0][0]
            alpha, uncertain = _per_node(rule, slope), act.uncertainty is not None
            sums, errors, rough = rule.assess(_remainders(rule, rooted, alpha, uncertain), 2)
            if rough.any() and not uncertain:
                # At small q the remainders may be nothing but rounding.
                rough = rule.assess(_remainders(rule, rooted, alpha, True), 2)[2]
            for i in np.flatnonzero(rough):
                if isinstance(rule, PanelRule) or affordable(shape, some[i], 2.0):
                    remainders = partial(_remainders_of, act, alpha=float(slope[i]))
                    found = halved(shape, some[i], 2.0, remainders, 2)
                    sums[:, i], errors[:, i] = (part[: len(sums)] for part in found)
            (rest, slopes), (rest_error, slopes_error) = sums[:2], errors[:2]
            if act.uncertainty is not None:
                slopes_error = slopes_error + sums[3]
            value[rows] = some * slopes - rest
            # The rounding of φ itself enters the remainder.
            rounding = np.sqrt(rest) * np.sqrt(rest + slope**2 * some)
            rounding = rounding + some * np.sqrt(slopes) * np.sqrt(slopes + slope**2)
            error[rows] = rest_error + some * slopes_error + ROUNDING * rounding
    inherited = max(act.errors[:2])
    if inherited and act.uncertainty is None:
        phi2 = _direct(act, q, ("phi2",), 2.0)["phi2"][0]
        error += 2.0 * inherited * phi2
    return value, error


def _remainders_of(act: Activation, rule: Rule, alpha: float) -> Array:
    return _remainders(rule, _rooted(act, rule, (0, 1)), alpha, True)


def _remainders(rule: Rule, rooted: Rooted, alpha: Array | float, noisy: bool) -> Array:
    """(φ − αx)² and (φ' − α)² times the weights, from φ and φ' times their roots; if `noisy`, behind them
    what each is uncertain by.
    """
    root = rule.root_weight
    line = alpha * (rule.x * root)
    (phi, dphi), doubt = rooted
    rest, slope = phi - line, dphi - alpha * root
    if not noisy:
        return np.stack([np.square(rest), np.square(slope)])
    doubts = [ROUNDING * (np.abs(phi) + np.abs(line)), ROUNDING * (np.abs(dphi) + np.abs(alpha * root))]
    if doubt is not None:
        doubts[1] = doubts[1] + doubt(1)
    uncertain = [(2.0 * np.abs(v) + d) * d for v, d in zip((rest, slope), doubts, strict=True)]
    return np.stack([np.square(rest), np.square(slope), *uncertain])


def _integrands(
    act: Activation, rule: Rule, names: Sequence[str], q: Array, rooted: Rooted | None = None
) -> Array:
    """The named integrands times the weights at a rule's nodes; where derivatives are numerical, behind them
    what the uncertainty of these adds to each. `rooted` has φ and φ' if they are known already.
    """
    root = rule.root_weight
    # What the names need, times √weight: squares of these are finite long after φ² has overflowed.
    orders = {order for name in names for order in _ORDERS[name]}
    wanted = (0, 1) if rooted is not None and 2 not in orders else tuple(orders)
    values, doubt = rooted if rooted is not None and 2 not in orders else _rooted(act, rule, wanted)
    parts = dict(zip(wanted, values, strict=True))
    uncertain = doubt is not None
    weighted = np.empty((len(names) * (1 + uncertain), *root.shape))
    for i, name in enumerate(names):
        if doubt is not None:
            weighted[len(names) + i] = _doubt(doubt, rule, name, parts, q)
        if name in ("phi", "dphi"):
            np.multiply(parts[_ORDERS[name][0]], root, out=weighted[i])
        elif name in ("phi2", "dphi2", "ddphi2"):
            np.square(parts[_ORDERS[name][0]], out=weighted[i])
        elif name in ("phi4", "dphi4"):
            square = np.square(parts[_ORDERS[name][0]])
            weighted[i] = np.where(square > 0.0, square * np.square(parts[_ORDERS[name][0]] / root), 0.0)
        else:
            weighted[i] = parts[0] * parts[1] * (rule.x / _per_node(rule, q))
    return weighted


def _rooted(act: Activation, rule: Rule, orders: tuple[int, ...]) -> Rooted:
    """Derivatives of φ times √weight, and by how much that of an order is uncertain if it is numerical."""
    root, uncertainty = rule.root_weight, act.uncertainty
    if uncertainty is not None and isinstance(rule, PanelRule) and act.oscillation and any(orders):
        far = np.abs(rule.x[:, 10]) > mesh_reach(act.oscillation)
        if far.any():
            return _rooted_far_out(act, rule, orders, far)
    if uncertainty is None or isinstance(rule, PanelRule) or not any(orders):
        values = [rule.evaluate(derivative_pieces(act, order)) * root for order in orders]
        return values, None if uncertainty is None else lambda order: uncertainty(order, rule.x) * root
    phi = rule.evaluate(derivative_pieces(act, 0)) * root
    first, second, fastest = rule.differentiated(phi)
    # What rounding of x and of the values does to them is noise of all frequencies.
    noise = 4.0 * EPS * float(np.max(np.abs(phi) + np.abs(rule.x * first)))
    return [(phi, first, second)[order] for order in orders], lambda order: noise * fastest**order


def _rooted_far_out(act: Activation, rule: PanelRule, orders: tuple[int, ...], far: Any) -> Rooted:
    """As `_rooted`, where panels on which a wave was not examined are differentiated as polynomials.

    They follow its oscillation, and a derivative by fits takes many values of φ for each.
    """
    root, uncertainty = rule.root_weight, act.uncertainty
    assert uncertainty is not None
    near = replace(rule, x=rule.x[~far], piece=rule.piece[~far])
    phi = rule.evaluate(derivative_pieces(act, 0))
    half: Any = 0.5 * (rule.x[far, 20] - rule.x[far, 0])[:, None] / NODES[20]
    beyond, x = [phi[far]], rule.x[far]
    for _ in range(max(orders)):
        beyond.append(beyond[-1] @ DIFFERENTIATE.T / half)
    noise = 2.0 * EPS * np.max(np.abs(beyond[0]) + np.abs(x * beyond[1]), axis=1, keepdims=True)
    amplified = np.abs(DIFFERENTIATE).sum(axis=1) / half
    values, doubts = [], {}
    for order in orders:
        derivative, doubts[order] = np.empty_like(root), np.empty_like(root)
        derivative[~far], derivative[far] = near.evaluate(derivative_pieces(act, order)), beyond[order]
        doubts[order][~far] = uncertainty(order, near.x)
        doubts[order][far] = uncertainty(order, x) + noise * amplified**order
        values.append(derivative * root)
    return values, lambda order: doubts[order] * root


def _doubt(
    uncertainty: Callable[[int], Array | float],
    rule: Rule,
    name: str,
    parts: dict[int, Array],
    q: Array,
) -> Array | float:
    """By how much a named integrand times the weights is uncertain where derivatives are numerical."""
    order = _ORDERS[name][-1]
    if order == 0:
        return 0.0
    root = rule.root_weight
    doubt = uncertainty(order)
    if name == "dphi":
        return doubt * root
    if name == "slope":
        return np.abs(parts[0] * (rule.x / _per_node(rule, q))) * doubt
    if name == "dphi4":
        size = np.abs(parts[order]) + doubt
        return np.where(doubt > 0.0, 4.0 * size * np.square(size / root) * doubt, 0.0)
    return (2.0 * np.abs(parts[order]) + doubt) * doubt


def _per_node(rule: Rule, q: Array) -> Array | float:
    """q spread over the nodes of the panels that belong to it."""
    if len(q) == 1:
        return float(q[0])
    counts = np.diff(np.append(rule.starts, len(rule.x)))  # type: ignore[union-attr]
    return np.repeat(q, counts)[:, None]


_ORDERS: dict[str, tuple[int, ...]] = {
    "phi": (0,),
    "phi2": (0,),
    "phi4": (0,),
    "dphi": (1,),
    "dphi2": (1,),
    "dphi4": (1,),
    "ddphi2": (2,),
    "slope": (0, 1),
}


def _correct(act: Activation, name: str, q: Array, value: Array, error: Array) -> None:
    """What the smooth pieces do not know: symmetry, jumps, errors of numerical derivatives; in place."""
    jumps = jumps_of(act)
    if (name == "phi" and act.parity == "odd") or (name == "dphi" and act.parity == "even"):
        value[:] = 0.0
        error[:] = 0.0
    elif (name in ("dphi2", "dphi4", "ddphi2") and jumps.value) or (name == "ddphi2" and jumps.slope):
        value[:] = np.inf
        error[:] = 0.0
    elif name == "slope" and jumps.value:
        for kink, square in zip(act.kinks, jumps.squares, strict=True):
            density = np.exp(-0.5 * kink * kink / q) / np.sqrt(2.0 * np.pi * q)
            term = 0.5 * square * kink / q * density
            value += term
            error += 4.0 * EPS * np.abs(term) * (1.0 + kink * kink / q)
    if act.source is not None:
        # Formulas of derivatives that were not written by hand lose digits to the cancellation of terms.
        error += CANCELLATION[max(_ORDERS[name])] * np.abs(value)
    inherited = max(act.errors[order] for order in _ORDERS[name])
    if inherited and act.uncertainty is None:
        error += 2.0 * inherited * np.abs(value)


@dataclass(frozen=True)
class Jumps:
    """Which derivatives of an activation jump, and by how much φ² does at each kink."""

    value: bool
    slope: bool
    curvature: bool
    squares: tuple[float, ...]


@lru_cache(maxsize=512)
def jumps_of(act: Activation) -> Jumps:
    """The jumps of an activation at its kinks."""
    squares = []
    for i, kink in enumerate(act.kinks):
        at = np.array([kink])
        left, right = float(act.pieces[i][0](at)[0]), float(act.pieces[i + 1][0](at)[0])
        squares.append(right * right - left * left)
    value, slope, curvature = (_has_jump(act, order) for order in range(3))
    return Jumps(value, slope, curvature, tuple(squares) if value else ())


def _has_jump(act: Activation, order: int) -> bool:
    """Whether φ^(order) jumps by more than rounding errors of its values nearby."""
    jumps = act.jumps(order)
    if not np.any(jumps):
        return False
    kinks = np.array(act.kinks)
    nearby = act.derivative(order)(np.concatenate([kinks - act.length_scale, kinks + act.length_scale]))
    return bool(np.max(np.abs(jumps)) > 1e-13 * np.max(np.abs(nearby)))


def shortest_length(act: Activation) -> float:
    """The shortest length over which φ changes, in units of x."""
    lengths = [act.length_scale, *np.diff(act.kinks)]
    if act.oscillation:
        lengths.append(1.0 / act.oscillation)
    return float(min(lengths))


@lru_cache(maxsize=512)
def shape_of(act: Activation) -> Shape:
    """The shape that quadrature needs to know of an activation."""
    return Shape.of(act)
