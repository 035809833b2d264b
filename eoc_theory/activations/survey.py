"""Where a function has structure, from its values: narrow places, and a mesh on which polynomials follow it.

Quadrature grades its panels towards the places that an activation declares. A bump between the nodes of a
panel changes neither the integral nor its error estimate, so such places must be known beforehand. They are
looked for twice: by the sixth differences of values on a fine grid, which see whatever is at least about
10⁻⁴ wide, and by halving panels until a polynomial of degree 16 follows the function on each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from .core import Activation, Array, Function
from .local_fits import NODES, POINTS, TO_COEFFICIENTS

# The fine grid: its step up to |x| = NEAR, doubled with each octave up to FAR, and COARSER times that beyond.
STEP, NEAR, FAR, FARTHEST, COARSER = 5e-5, 12.0, 48.0, 1536.0, 16.0
BLOCK = 8192
# Differences over so many steps see structure that is wider, still narrower than the distance of a panel's
# nodes; the last of them beyond NEAR alone, where panels are longer.
STRIDES = (1, 8, 64, 256)
HALO = 3 * STRIDES[-1]
# A sixth difference above this share of the function's size is structure; rounding stays far below.
VISIBLE = 1e-12
# Where values nearly cancel, their rounding is one of the terms' size, here the function's near 0.
CANCELLED = 1e-14
# … unless differences of this many times the block's median are the function's own noise.
ABOVE_NOISE = 50.0
# The mesh covers ±REACH, or fewer radians of a fast oscillation than these.
REACH, MOST_RADIANS = 1024.0, 6000.0
# What an asymmetry of values is, relative to their size, and what rounding may make of a symmetric function.
UNEQUAL, ROUNDED = 1e-11, 4e-15
# Panels of the mesh: nodes, how well a polynomial must follow, how many panels, and the narrowest.
FOLLOWS = 2e-12
NOISE = 1e-8
NEGLIGIBLE = 1e-15
MOST_PANELS = 40_000
NARROWEST = 1e-9
# Quadrature panels this much longer than those of the mesh are still short enough: the mesh halves, and may
# have gone down to half of what is needed.
LONGER = 2.3
ENOUGH = 0.5
MOST_CENTRES = 400
# With more panels beyond NEAR than these, which nothing explains, the function oscillates there.
MANY = 100
# Radians of a plain wave that the mesh's polynomials follow at least.
WAVE = 1.2
# A kink between the last node and a panel's end shows at points that are not used for the polynomial.
_ENDS = np.array([-0.9999, 0.9999])
_AT_ENDS = chebyshev.chebvander(_ENDS, NODES - 1)


@dataclass(frozen=True)
class Mesh:
    """Panels on which a function is followed by polynomials, in order.

    Attributes:
        low, high: ends of the panels, shape (n,).
        halved: whether a panel comes of a wider one that was not enough; the others might be wider yet.
    """

    low: Array
    high: Array
    halved: NDArray[np.bool_]

    def within(self, low: float, high: float) -> Mesh:
        """The panels inside [low, high]."""
        middle = 0.5 * (self.low + self.high)
        rows = (middle > low) & (middle < high)
        return Mesh(self.low[rows], self.high[rows], self.halved[rows])


@lru_cache(maxsize=1)
def _blocks() -> tuple[tuple[float, float, int], ...]:
    """(first point, step, number of points) of the fine grid's blocks on x ≥ 0."""
    # No point of the grid is a round number, where kinks are.
    low, step, blocks = 1.234567e-5, STEP, []
    while low < FARTHEST:
        if low >= NEAR:
            step = STEP * 2.0 ** np.floor(np.log2(low / NEAR)) * 2.0
            step *= COARSER if low >= FAR else 1.0
        blocks.append((low, float(step), BLOCK))
        low += step * BLOCK
    return tuple(blocks)


def grid_size() -> int:
    """How many numbers the fine grid has on both sides of 0."""
    return 2 * sum(count for _, _, count in _blocks())


def narrow_places(call: Function, kinks: tuple[float, ...] = ()) -> list[tuple[float, float]]:
    """Intervals in which values on the fine grid change abruptly, away from the kinks already known."""
    places: list[tuple[float, float]] = []
    with np.errstate(all="ignore"):
        floor = CANCELLED * float(np.nanmax(np.abs(call(np.linspace(-3.1, 2.9, 61)))))
    for first, step, count in _blocks():
        x: Any = first + step * np.arange(-HALO, count + HALO)
        for side in (1.0, -1.0):
            places += _abrupt(call, side * x, step, kinks, floor)
    return _joined(sorted(_distinct(places)))


def _abrupt(
    call: Function, x: Array, step: float, kinks: tuple[float, ...], floor: float
) -> Iterator[tuple[float, float]]:
    values = call(x)
    if not np.isfinite(values).all():
        return
    for stride in STRIDES if abs(x[-1]) > NEAR else STRIDES[:-1]:
        some, at_some = values[::stride], x[::stride]
        change = np.abs(np.diff(some, 6))
        level = np.maximum(VISIBLE * np.abs(some[3:-3]), ABOVE_NOISE * np.median(change))
        loud = change > np.maximum(level, floor)
        for kink in kinks:
            if min(x[0], x[-1]) <= kink <= max(x[0], x[-1]):
                loud &= np.abs(at_some[3:-3] - kink) > 4.0 * step * stride
        at = np.flatnonzero(loud)
        if not len(at):
            continue
        # Neighbouring points are one place.
        for group in np.split(at, np.flatnonzero(np.diff(at) > 16) + 1):
            ends = at_some[group[0]], at_some[group[-1] + 6]
            yield float(min(ends)), float(max(ends))


def _distinct(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places without those that hold a narrower one: differences over longer steps see that as well."""
    kept: list[tuple[float, float]] = []
    for low, high in sorted(places, key=lambda place: place[1] - place[0]):
        if not any(low <= a and b <= high for a, b in kept):
            kept.append((low, high))
    return kept


def _joined(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for low, high in places:
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def mesh(calls: list[Function], edges: Array) -> Mesh:
    """Panels within the edges, halved until polynomials follow all the functions on each, or MOST_PANELS are
    reached.
    """
    low, high = edges[:-1], edges[1:]
    keep = high - low > NARROWEST * (1.0 + np.abs(low))
    low, high = low[keep], high[keep]
    before = np.full((len(calls), len(low)), np.inf)
    sizes = _sizes(calls, low, high)
    done: list[tuple[Array, Array, NDArray[np.bool_]]] = []
    count = 0
    while len(low):
        rest = _left_out(calls, low, high, sizes)
        # What halving hardly improves is noise.
        noise = (rest < NOISE) & (rest > 0.3 * before)
        ended = ((rest <= FOLLOWS) | noise).all(axis=0)
        ended |= (high - low <= 2.0 * NARROWEST * (1.0 + np.abs(low))) | (count + len(low) > MOST_PANELS)
        done.append((low[ended], high[ended], np.full(int(ended.sum()), count > 0)))
        count += len(low)
        low, high, rest = low[~ended], high[~ended], rest[:, ~ended]
        middle = low + 0.4871 * (high - low)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        before = np.concatenate([rest, rest], axis=1)
    order = np.argsort(np.concatenate([part[0] for part in done]))
    lows, highs, halved = (np.concatenate([part[i] for part in done])[order] for i in range(3))
    return Mesh(lows.astype(float), highs.astype(float), halved.astype(bool))


def _sizes(calls: list[Function], low: Array, high: Array) -> Array:
    """Largest value of each function within ±NEAR: what is far below it is of no account."""
    inside = (low >= -NEAR) & (high <= NEAR)
    x = 0.5 * (low + high)[inside, None] + 0.5 * (high - low)[inside, None] * POINTS
    sizes = np.zeros(len(calls))
    for i, call in enumerate(calls):
        with np.errstate(all="ignore"):
            values = np.abs(call(x))
        sizes[i] = np.max(values[np.isfinite(values)], initial=0.0)
    return sizes


def followed(call: Function, low: Array, high: Array) -> NDArray[np.bool_]:
    """On which of the intervals a polynomial follows the function."""
    return _left_out([call], low, high, np.zeros(1))[0] <= FOLLOWS


def _left_out(calls: list[Function], low: Array, high: Array, sizes: Array) -> Array:
    """Share of each function on each interval that a polynomial leaves out, beyond what rounding explains and
    what the functions' sizes, shape (functions,), make negligible; shape (functions, intervals). 0 where a
    function is 0 or not finite.
    """
    half, centre = 0.5 * (high - low), 0.5 * (high + low)
    x = centre[:, None] + half[:, None] * np.concatenate([POINTS, _ENDS])
    rest = np.zeros((len(calls), len(low)))
    for i, call in enumerate(calls):
        with np.errstate(all="ignore"):
            values = call(x)
            coefficients = values[:, :NODES] @ TO_COEFFICIENTS.T
            left = np.abs(coefficients[:, -4:]).max(axis=1)
            at_ends = np.abs(values[:, NODES:] - coefficients @ _AT_ENDS.T).max(axis=1)
            # The argument's own rounding is felt where the function changes fast.
            steep = np.abs(coefficients[:, 1:]).sum(axis=1) * np.abs(centre) / half
            left = np.maximum(left, 0.1 * at_ends) - NEGLIGIBLE * sizes[i] - 2e-15 * steep
            share = left / np.abs(coefficients).max(axis=1) - 1e-14
        rest[i] = np.where(np.isfinite(share), np.maximum(share, 0.0), 0.0)
    return rest


def surveyed(act: Activation, found: Mesh | None = None) -> Activation:
    """The activation with centres and a length scale that its values call for, and no oscillation that dies
    out.

    Args:
        act: an activation whose declared structure may be incomplete.
        found: a mesh on which polynomials follow it; None: its own, of φ and its first two derivatives.
    """
    if act.closed_form is not None or act.slopes is not None:
        return act
    if found is None:
        width = 4.0 * act.length_scale
        places = narrow_places(act.derivative(0), act.kinks)
        places += [(centre - width, centre + width) for centre in act.scale_points]
        edges = initial_edges(act.kinks, places, mesh_reach(act.oscillation))
        found = mesh([act.derivative(order) for order in range(3)], edges)
    oscillation = act.oscillation if _lasts(found, act.oscillation) else 0.0
    if act.growth.kind == "polynomial":
        oscillation = max(oscillation, _undeclared(found, oscillation))
    centres, length = centres_of(found, act.scale_points, act.length_scale, oscillation)
    return dataclasses.replace(act, scale_points=centres, length_scale=length, oscillation=oscillation)


def mesh_reach(oscillation: float) -> float:
    """How far out a mesh is made: less far where a fast oscillation asks for very many panels."""
    return REACH if oscillation * REACH < MOST_RADIANS else max(NEAR, MOST_RADIANS / oscillation)


def _lasts(found: Mesh, oscillation: float) -> bool:
    """Whether an oscillation is still there far out, where panels are short then."""
    reach = mesh_reach(oscillation)
    if not oscillation or reach < FAR:
        return bool(oscillation)
    far = (np.abs(found.low) > 0.25 * reach) & (np.abs(found.high) > 0.25 * reach)
    return bool(np.min((found.high - found.low)[far], initial=np.inf) * oscillation < 25.0)


def _undeclared(found: Mesh, oscillation: float) -> float:
    """An angular frequency that explains the panels far out, if they are short there all along; 0 if not."""
    # Waves that die out are short up to some distance only.
    outer = max(NEAR, 0.25 * mesh_reach(oscillation))
    far = np.minimum(np.abs(found.low), np.abs(found.high)) > outer
    width = (found.high - found.low)[found.halved & far]
    width = width[width * oscillation <= WAVE] if oscillation else width
    return 4.0 / (LONGER * float(width.min())) if len(width) > MANY else 0.0


def centres_of(
    found: Mesh, centres: tuple[float, ...], length: float, oscillation: float
) -> tuple[tuple[float, ...], float]:
    """Centres and length with which graded panels are nowhere longer than the mesh asks for."""
    width = found.high - found.low
    # What a lasting oscillation asks for everywhere is known of it.
    explained = width * oscillation > WAVE if oscillation else np.zeros(len(width), dtype=bool)
    need = np.where(found.halved & ~explained, LONGER * width, np.inf)
    middle = 0.5 * (found.high + found.low)
    places = np.array(sorted(centres))
    distance = np.min(np.abs(middle[:, None] - places), axis=1)
    added: list[float] = []
    while True:
        reach = np.maximum(length, 0.6 * distance)
        if oscillation:
            reach = np.minimum(reach, 4.0 / oscillation)
        # Structure wider than a unit is seen by the nodes of a panel unless that is many times longer.
        ratio = need / np.where(need < 1.0, reach, 0.25 * reach)
        worst = int(np.argmin(ratio))
        if ratio[worst] >= ENOUGH or len(added) >= MOST_CENTRES:
            break
        added.append(float(middle[worst]))
        distance = np.minimum(distance, np.abs(middle - middle[worst]))
        length = min(length, float(need[worst]))
    return tuple(sorted({*centres, *added})), length


def initial_edges(kinks: tuple[float, ...], places: list[tuple[float, float]], reach: float) -> Array:
    """Uneven edges out to ±reach, with kinks and the ends of narrow places among them."""
    right: Any = 0.3718 * 1.6137 ** np.arange(40)
    left: Any = -0.4127 * 1.5931 ** np.arange(40)
    ends = [value for low, high in places for value in (low - 0.1 * (high - low), high + 0.1 * (high - low))]
    every: Any = np.concatenate([right, left, np.array([*kinks, *ends, -reach, reach])])
    return np.unique(every[np.abs(every) <= reach])


def symmetric(call: Function, sign: int) -> bool:
    """Whether φ(−x) = sign · φ(x) on the whole fine grid, to what cancellation within φ may explain."""
    return asymmetries(call, sign) is not None


def asymmetries(call: Function, sign: int) -> list[float] | None:
    """Points of the fine grid at which φ(−x) and sign · φ(x) differ by more than rounding, the worst 24.

    None where they differ by more than cancellation within φ may explain.
    """
    seen: list[tuple[float, float]] = []
    for x, ratio in _mirror(call, sign):
        worst = int(np.argmax(ratio))
        if ratio[worst] > UNEQUAL:
            return None
        if ratio[worst] > ROUNDED:
            seen.append((float(ratio[worst]), float(x[worst])))
    return [at for _, at in sorted(seen, reverse=True)[:24]]


def _mirror(call: Function, sign: int) -> Iterator[tuple[Array, Array]]:
    """|φ(x) − sign · φ(−x)| on the blocks of the fine grid, relative to φ's size around there."""
    for first, step, count in _blocks():
        x: Any = first + step * np.arange(count)
        with np.errstate(all="ignore"):
            right, left = call(x), call(-x)
            size = np.maximum(np.abs(right), np.abs(left))
            largest = float(np.max(size[np.isfinite(size)], initial=1e-300))
            ratio = np.abs(right - sign * left) / (size + 1e-3 * largest)
        yield x, np.where(np.isfinite(ratio), ratio, np.where(np.isfinite(size), np.inf, 0.0))
