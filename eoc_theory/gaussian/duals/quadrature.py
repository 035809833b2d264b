"""E[f(u) g(v)] by adaptive two-dimensional quadrature, for any activation, variances and correlation.

With u = √q_a z and v = √q_b (c z + s t), s = √(1 − c²), the outer integral runs over z and the inner one
over t: ∫ f(√q_a z) G(z) dN(z), G(z) = E g(√q_b (c z + s t)). Panels of both end exactly at the kinks and
shrink towards f's and g's structure; G has g's, smoothed on the scale s/|c|, so the outer panels follow
that as well. Each panel carries a 21-point Kronrod rule, whose embedded Gauss rule gives the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np

from ...activations.core import Activation
from ...activations.evaluations import spend, spend_rule
from ...errors import ConvergenceError
from ..adaptive import halved
from ..expectations import CANCELLATION, shape_of
from ..rules import (
    GAUSS,
    GAUSS_PANEL,
    KRONROD,
    NODES,
    RADIANS,
    TAIL,
    PanelRule,
    panel_rule,
    window,
)
from .pairs import Array

EPS = float(np.finfo(np.float64).eps)
# What a node of a rule for moments costs, in values of one derivative by its formula.
PER_NODE = 4
# Panels are shared from this s on.
SHARED_FROM = 1e-3
# So many z, a panel or two of them, are taken together.
BLOCK = 42
# Growth of successive panels away from a centre. 21 points are exact to rounding on [d, 2.2 d] for
# structure at 0.
RATIO = 2.2
# With s below this, u and v differ by less than the inputs' own rounding.
SMALLEST_SINE = 1e-13
CHUNK = 400_000
LARGEST = 60_000_000
ACCURACY = 1e-13
# Where g has no structure narrower than this many units of t, the trapezoidal rule is exact to rounding.
FLAT = 3.0
FLAT_NODES = np.arange(-18, 19) * 0.5
FLAT_WEIGHTS = np.exp(-0.5 * FLAT_NODES**2)[:, None] * np.array([[0.5, 1.0]]) / math.sqrt(2 * math.pi)
FLAT_WEIGHTS[1::2, 1] = 0.0
_BOTH = np.stack([KRONROD, GAUSS], axis=1)


def dual_quadrature(
    activation: Activation, q_a: float, q_b: float, c: float, s: float, order_a: int, order_b: int
) -> tuple[float, float]:
    """Value and error estimate of E[φ^(order_a)(u) φ^(order_b)(v)]; q_a, q_b > 0 and s = √(1 − c²).

    Raises:
        ConvergenceError: the function oscillates so fast on the scale of √q that the work would be
            unreasonable.
    """
    if activation.parity is not None and (order_a + order_b) % 2:
        return 0.0, 0.0
    scale = math.sqrt(second_moment(activation, q_a, order_a)) * math.sqrt(
        second_moment(activation, q_b, order_b)
    )
    if scale == 0.0:
        return 0.0, 0.0
    # Where the derivatives themselves are not known as well no more is asked for.
    inherited = inherited_error(activation, q_a, order_a) + inherited_error(activation, q_b, order_b)
    accuracy = max(ACCURACY, 0.1 * inherited)
    value = error = math.inf
    for fineness in (1.0, 0.5, 0.25, 0.125):
        new = _integrate(activation, q_a, q_b, c, s, order_a, order_b, fineness)
        # What panels of half the length hardly improve is the integrand's own noise.
        noise = new[1] > 0.5 * error
        if new[1] < error:
            value, error = new
        if error <= accuracy * scale or noise:
            break
    if s < SMALLEST_SINE:
        error += s * scale
    return value, error + 4 * EPS * scale


@lru_cache(maxsize=4096)
def second_moment(activation: Activation, q: float, order: int) -> float:
    """E[φ^(order)(√q Z)²], point masses of the derivative left out."""
    return _square(activation, q, [piece[order] for piece in activation.pieces])


def _square(activation: Activation, q: float, pieces: list[Callable[[Array], Array]]) -> float:
    """E[f(√q Z)²] of a function with an activation's structure, given piece by piece."""
    shape = shape_of(activation)
    rule = panel_rule(shape, [q], 2.0)

    def squared(rule: PanelRule) -> Array:
        return ((rule.evaluate(pieces) * rule.root_weight) ** 2)[None]

    with np.errstate(all="ignore"):
        value, _, rough = rule.assess(squared(rule))
        if rough[0]:
            value = halved(shape, q, 2.0, squared, 1)[0]
        return float(value.flat[0])


@lru_cache(maxsize=1024)
def inherited_error(activation: Activation, q: float, order: int) -> float:
    """√E[δ(√q Z)²] relative to √E[f²], δ the error of f = φ^(order): of numerical derivatives, or of formulas
    that lose digits.
    """
    if activation.source is None:
        return 0.0
    lost = CANCELLATION[min(order, len(CANCELLATION) - 1)]
    if activation.uncertainty is None or order == 0:
        return max(lost, activation.errors[order])
    square = second_moment(activation, q, order)
    doubt = _square(activation, q, [partial(activation.uncertainty, order)] * len(activation.pieces))
    return lost + (math.sqrt(doubt / square) if square > 0.0 else 0.0)


def _integrate(
    activation: Activation, q_a: float, q_b: float, c: float, s: float, m: int, n: int, fineness: float
) -> tuple[float, float]:
    edges = _outer_edges(activation, q_a, q_b, c, s, fineness)
    half = 0.5 * np.diff(edges)
    z = (half[:, None] * NODES + 0.5 * (edges[1:] + edges[:-1])[:, None]).ravel()
    f = activation.derivative(m)(math.sqrt(q_a) * z) * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    if s < SMALLEST_SINE:
        inner, inner_error = activation.derivative(n)(math.sqrt(q_b) * c * z), np.zeros_like(z)
    else:
        inner, inner_error = _inner(activation, q_b, c, s, n, z, fineness)
    weighted = (f * inner).reshape(-1, len(NODES))
    values, errors = kronrod(weighted, half)
    passed_on = (np.abs(f) * inner_error).reshape(-1, len(NODES)) @ KRONROD @ half
    symmetry = 2.0 if activation.parity is not None else 1.0
    return symmetry * float(values.sum()), symmetry * float(errors.sum() + passed_on)


def kronrod(weighted: Array, half: Array) -> tuple[Array, Array]:
    """Integral and error of each panel: values (…, panels, 21) times the panels' half widths (…, panels)."""
    both = weighted @ _BOTH
    value, difference = both[..., 0], np.abs(both[..., 0] - both[..., 1])
    size = np.abs(weighted) @ KRONROD
    with np.errstate(all="ignore"):
        # QUADPACK: the Kronrod rule's error is about the 1.5th power of the Gauss rule's.
        error = np.where(size > 0, size * np.minimum(1.0, (200.0 * difference / size) ** 1.5), 0.0)
    return value * half, (error + 2 * EPS * size) * half


def _centres(activation: Activation) -> list[float]:
    return sorted({*activation.kinks, *activation.scale_points})


def _outer_edges(
    activation: Activation, q_a: float, q_b: float, c: float, s: float, fineness: float
) -> Array:
    """Panel ends in z, on z ≥ 0 only where the integrand is even."""
    root_a, root_b = math.sqrt(q_a), math.sqrt(q_b)
    shape = shape_of(activation)
    high = window(shape, q_a, 2.0)
    low = 0.0 if activation.parity is not None else -high
    longest = GAUSS_PANEL * fineness
    frequency = shape.oscillation * (root_a + root_b * abs(c))
    if frequency > 0:
        longest = min(longest, fineness * RADIANS / frequency)
    breaks = {low, high}
    kinks = set(activation.kinks)
    marks: list[tuple[float, float]] = []
    for x in _centres(activation):
        marks.append((x / root_a, fineness * shape.length / root_a))
        if x in kinks:
            breaks.add(x / root_a)
        if c != 0:
            sharp = s if x in kinks else max(s, shape.length / root_b)
            marks.append((x / (root_b * c), fineness * max(sharp, 1e-16) / abs(c)))
            if s < SMALLEST_SINE:
                breaks.add(x / (root_b * c))
    ends = sorted(b for b in breaks if low <= b <= high)
    edges = [ends[0]]
    for a, b in pairwise(ends):
        if b - a > 4 * EPS * max(abs(a), abs(b)):
            edges += _graded(a, b, marks, longest, fineness)
    return np.array(edges)


def _graded(
    a: float, b: float, marks: list[tuple[float, float]], longest: float, fineness: float
) -> list[float]:
    """Ends of panels over (a, b], no longer than `longest` and than the distance to any (centre, width)
    allows.
    """
    edges = []
    x = a
    while True:
        step = longest
        for centre, width in marks:
            if width < step:
                apart = x - centre if x >= centre else 0.5 * (centre - x)
                reach = apart * (RATIO - 1) if x >= centre else apart
                # Panels of less than a rounding step would never arrive.
                step = min(step, max(width, fineness * reach, 4 * EPS * abs(x)))
        if x + 1.2 * step >= b:
            edges.append(b)
            return edges
        x += step
        edges.append(x)


def _inner(
    activation: Activation, q: float, c: float, s: float, order: int, z: Array, fineness: float
) -> tuple[Array, Array]:
    """G(z) = E g(√q (c z + s t)) over t, with errors."""
    root = math.sqrt(q)
    width = fineness * activation.length_scale / (root * s)
    offsets = [0.0]
    while width < GAUSS_PANEL * fineness:
        offsets += [-width, width]
        width *= 1 + (RATIO - 1) * fineness
    longest = GAUSS_PANEL * fineness
    if activation.oscillation:
        longest = min(longest, fineness * RADIANS / (activation.oscillation * root * s))
    sharp = np.array(offsets if len(offsets) > 1 else offsets[:1])
    centres = _centres(activation) if len(offsets) > 1 else list(activation.kinks)
    marks = (np.array(centres)[:, None] / (root * s) + sharp).ravel()
    g = activation.derivative(order)
    value, error = np.empty_like(z), np.empty_like(z)
    # Most z are far from the structure on the scale s: there g is flat enough for one rule for all.
    near = np.full(len(z), bool(activation.oscillation))
    if not activation.oscillation:
        smooth = fineness * activation.length_scale / (root * s) >= FLAT
        for centre in activation.kinks if smooth else _centres(activation):
            near |= np.abs(centre / root - c * z) < (TAIL if smooth else TAIL + FLAT) * s
        far = z[~near]
        spend_rule(_nodes(activation, far.size * len(FLAT_NODES)))
        rows = CHUNK // len(FLAT_NODES)
        values = [
            g(root * (c * far[i : i + rows, None] + s * FLAT_NODES)) @ FLAT_WEIGHTS
            for i in range(0, max(len(far), 1), rows)
        ]
        both = np.concatenate(values)
        value[~near] = both[:, 0]
        # The trapezoidal rule's error at half the step is the square of that at the whole step.
        size = np.maximum(np.abs(both).max(axis=1), 1e-300)
        error[~near] = size * (np.minimum(1.0, 10 * np.abs(both[:, 0] - both[:, 1]) / size) ** 2 + 2 * EPS)
    if near.any():
        shared = s >= SHARED_FROM and not activation.oscillation
        rule = _on_shared_panels if shared else _on_own_panels
        value[near], error[near] = rule(activation, g, root, (c, s), z[near], marks, longest)
    return value, error


def _nodes(activation: Activation, values: int) -> int:
    """As how many nodes of a rule for moments values of one derivative count."""
    return 2 * values if activation.uncertainty is not None else values // PER_NODE


def _require_few(activation: Activation, root: float, panels: int) -> int:
    """The nodes of so many panels, refused where they are too many."""
    nodes = panels * len(NODES)
    if nodes > LARGEST:
        raise ConvergenceError(
            f"E[f(u) g(v)] of {activation.name} needs {nodes:.1g} evaluations at q = {root * root:g}; "
            f"at most {LARGEST:.1g} are accepted"
        )
    return nodes


def _on_own_panels(
    activation: Activation,
    g: Callable[[Array], Array],
    root: float,
    c_and_s: tuple[float, float],
    z: Array,
    marks: Array,
    longest: float,
) -> tuple[Array, Array]:
    """G(z) with errors on panels in t, of which each z has its own: they end at (marks − c z/s)."""
    c, s = c_and_s
    base = np.linspace(-TAIL, TAIL, math.ceil(2 * TAIL / longest) + 1)
    panels = len(base) - 1 + len(marks)
    _require_few(activation, root, panels * len(z))
    value, error = np.empty_like(z), np.empty_like(z)
    rows = max(1, CHUNK // (panels * len(NODES)))
    for start in range(0, len(z), rows):
        some = z[start : start + rows, None]
        ends = np.broadcast_to(base, (len(some), len(base)))
        if len(marks):
            ends = np.sort(np.concatenate([ends, np.clip(marks - c / s * some, -TAIL, TAIL)], axis=1), axis=1)
        half, middle = 0.5 * np.diff(ends), 0.5 * (ends[:, 1:] + ends[:, :-1])
        t = half[..., None] * NODES + middle[..., None]
        spend_rule(_nodes(activation, t.size))
        weighted = g(root * (c * some[..., None] + s * t)) * np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
        parts, errors = kronrod(weighted, half)
        value[start : start + rows], error[start : start + rows] = parts.sum(-1), errors.sum(-1)
    return value, error


def _on_shared_panels(
    activation: Activation,
    g: Callable[[Array], Array],
    root: float,
    c_and_s: tuple[float, float],
    z: Array,
    marks: Array,
    longest: float,
) -> tuple[Array, Array]:
    """As :func:`_on_own_panels` on panels in v/√q that all z share, so that g is evaluated once for all.

    Each z sees the panels within TAIL of s around c z. Floats are too far apart for it where s is small.
    """
    c, s = c_and_s
    step, sign = s * longest, math.copysign(1.0, c)
    around = math.ceil(TAIL / longest)
    _require_few(activation, root, 2 * around * len(z))
    cells = np.unique(np.floor(c * z / step)[:, None] + np.arange(-around, around + 1.0))
    ends = np.unique(np.concatenate([cells * step, (cells + 1.0) * step, s * marks]))
    low, high = ends[:-1], ends[1:]
    kept = np.isin(np.floor(0.5 * (low + high) / step), cells)
    low, high = low[kept], high[kept]
    first, last = np.searchsorted(high, c * z - TAIL * s), np.searchsorted(low, c * z + TAIL * s)
    evaluations = _require_few(activation, root, int((last - first).sum()))
    half = 0.5 * (high - low)
    y = half[:, None] * NODES + 0.5 * (high + low)[:, None]
    # A number of the band is an exponential and some sums, a tenth of an evaluation.
    spend_rule(_nodes(activation, y.size))
    spend(evaluations // 10)
    values = g(root * y) * (half / (s * math.sqrt(2.0 * math.pi)))[:, None]
    value, error = np.empty_like(z), np.empty_like(z)
    rest = s * s / (1.0 + abs(c))  # 1 − |c|: y − c z keeps its digits where c is next to ±1
    for start in range(0, len(z), BLOCK):
        rows = slice(start, start + BLOCK)
        a, b = int(first[rows].min()), int(last[rows].max())
        at = sign * z[rows, None, None]
        weighted = y[a:b] - at
        weighted += rest * at
        weighted *= weighted
        weighted *= -0.5 / (s * s)
        np.exp(weighted, out=weighted)
        weighted *= values[a:b]
        parts, errors = kronrod(weighted, np.ones(b - a))
        # The nodes' own rounding moves them within s; there are many of them.
        rounding = 0.2 * EPS / s * np.abs(parts).sum(-1)
        value[rows], error[rows] = parts.sum(-1), errors.sum(-1) + rounding
    return value, error
