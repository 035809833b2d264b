"""Activations from a NumPy callable: kinks where polynomials fail to fit, derivatives of local fits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ..base import checks
from ..errors import ActivationError, ArgumentError, TooLargeError
from . import evaluations
from .core import Activation, Array, Function, Growth, Piece
from .differences import NumericalPiece, numerical_piece, uncertainty_of
from .functions import polynomial
from .growth import classify, faster
from .local_fits import NODES, POINTS, TO_COEFFICIENTS
from .survey import (
    grid_size,
    initial_edges,
    mesh,
    mesh_reach,
    narrow_places,
    surveyed,
    symmetric,
)

MOST_KINKS = 63
EPS = float(np.finfo(np.float64).eps)
REACH = 256.0  # kinks are looked for within
# Evaluations that reading may take: some two to three seconds.
MOST_TO_READ = 30_000_000


def from_callable(function: Callable[..., Any], kinks: Iterable[float] | None = None) -> Activation:
    """The activation of a NumPy-vectorised callable.

    Derivatives are those of polynomials fitted locally on one side of each kink;
    :meth:`Activation.derivative_error` gives their estimated error.

    Args:
        function: maps a float64 array to a real array of the same shape, element by element.
        kinks: points where the function or one of its first three derivatives jumps; None: found
            automatically.

    Raises:
        ActivationError: the callable is not vectorised, not elementwise, not finite, not in double precision,
            or too
            irregular for its kinks to be found.
    """
    given = None if kinks is None else _checked_kinks(kinks)
    try:
        hash(function)
    except Exception:  # a class of its own
        return _from_callable.__wrapped__(function, given)
    return _from_callable(function, given)


def _checked_kinks(kinks: Iterable[float]) -> tuple[float, ...]:
    try:
        listed = checks.items("kinks", kinks, "finite numbers", MOST_KINKS)
        return tuple(sorted({checks.finite("kinks", kink) + 0.0 for kink in listed}))
    except TooLargeError as error:
        raise ActivationError(str(error)) from None
    except ArgumentError:
        raise ActivationError(f"kinks must be finite numbers, got {checks.shown(kinks)}") from None


@lru_cache(maxsize=64)
def _from_callable(function: Callable[..., Any], kinks: tuple[float, ...] | None) -> Activation:
    """The activation of a NumPy function."""
    name = getattr(function, "__name__", type(function).__name__)
    name = "callable" if name == "<lambda>" else name
    refusal = (
        f"{name} is too costly to read: its kinks and structure take more than {MOST_TO_READ} evaluations of "
        "0.1 µs each; one that is faster or smoother is accepted, and an expression in x takes fewer"
    )
    with evaluations.counting(evaluations.Work(MOST_TO_READ, refusal=refusal)):
        return _read(function, checked(function, name), name, kinks)


def _read(
    function: Callable[..., Any], call: Function, name: str, kinks: tuple[float, ...] | None
) -> Activation:
    """The activation of a function, from values that were checked."""
    places = narrow_places(call, kinks or ())
    if kinks is None:
        kinks = tuple(kink for kink, _ in find_kinks(call, name, places))
    values = {kink: float(call(np.array([kink]))[0]) for kink in kinks}
    growth = _growth(call)
    oscillation = _oscillation(call) if growth.kind == "polynomial" else 0.0
    made: list[NumericalPiece] = []
    if kinks:
        places = narrow_places(call, kinks)
    panels = mesh([call], initial_edges(kinks, places, mesh_reach(oscillation)))
    slopes = None if panels.halved.any() else _slopes(call, kinks)
    if slopes is not None:
        pieces = tuple(polynomial(0.0, slope) for slope in (slopes if kinks else slopes[:1]))
        errors = (0.0, 0.0, 0.0, 0.0)
    else:
        ends = (-np.inf, *kinks, np.inf)
        made = [numerical_piece(call, panels, a, b, oscillation) for a, b in itertools.pairwise(ends)]
        pieces = tuple(one.piece for one in made)
        errors = _relative_errors(made)
    form = None
    if slopes is not None:
        form = ("leaky", *slopes) if kinks else ("polynomial", 0.0, slopes[0])
    elif kinks == (0.0,) and not any(piece[1](np.array([1.0]))[0] for piece in pieces) and not any(errors):
        form = ("step", *(float(piece[0](np.array([1.0]))[0]) for piece in pieces))
    width, centre = _structure(pieces, kinks)
    act = Activation(
        name=name,
        pieces=pieces,
        kinks=kinks,
        kink_values=tuple(values[kink] for kink in kinks) if kinks else None,
        scale_points=tuple(sorted({0.0, *kinks, *centre})),
        length_scale=width,
        oscillation=oscillation,
        growth=growth,
        slopes=slopes,
        parity=_parity(call),
        closed_form=form,
        errors=errors,
        uncertainty=uncertainty_of(made, call, growth) if any(errors) else None,
        source=function,
    )
    return surveyed(act, panels)


def _relative_errors(made: list[NumericalPiece]) -> tuple[float, float, float, float]:
    """Estimated error of each derivative relative to its largest value."""
    # A derivative that is 0 everywhere has no size of its own; the slope's is taken then.
    slope = max(one.sizes[1] for one in made)
    first, second, third = (
        min(1.0, max(one.errors[n] for one in made) / (max(slope, *(one.sizes[n] for one in made)) or 1.0))
        for n in (1, 2, 3)
    )
    return 0.0, first, second, third


# --- checks ---


def checked(function: Callable[..., Any], name: str) -> Function:
    """`function` on arrays of any shape, once found elementwise, real, finite and in double precision."""
    probe = np.array([-1.7, -0.3, 0.4, 2.1, 0.9])
    raw = _evaluator(function, name)
    got = raw(probe.copy())

    weight = 0

    def call(x: Array) -> Array:
        x = np.asarray(x, dtype=np.float64)
        if not x.size:  # which not every function takes
            return np.empty_like(x)
        evaluations.spend_call(x.size, weight)
        return np.asarray(raw(x.flatten()), dtype=np.float64).reshape(x.shape)

    if getattr(got, "dtype", None) in (np.float32, np.float16):
        raise ActivationError(f"{name} must compute in float64, got {got.dtype}")
    outward = np.concatenate([[0.0], np.logspace(-8, 4, 241)])
    points = np.concatenate([outward, -outward[1:]])
    points = points[np.argsort(np.abs(points), kind="stable")]
    values = call(points)
    # Overflow far out is growth; near 0 it is a pole.
    wrong = np.isnan(values) | (np.isinf(values) & (np.abs(points) < 16.0))
    if wrong.any():
        at = points[np.argmax(wrong)]
        raise ActivationError(f"{name} is not finite at x = {at:.6g}: got {values[np.argmax(wrong)]}")
    values, reordered = call(probe), call(probe[::-1])[::-1]
    alone = np.array([call(probe[i : i + 1])[0] for i in range(len(probe))])
    if not all(np.allclose(values, other, rtol=1e-9, atol=1e-12) for other in (reordered, alone)):
        raise ActivationError(
            f"{name} must be elementwise and deterministic: f(x)[i] depends on more than x[i]"
        )
    values = call(points)
    if np.ptp(values[np.abs(points) < 100.0]) == 0.0:
        raise ActivationError(f"{name} does not depend on x: it is {values[0]:g} everywhere")
    weight = evaluations.weight_of(call, points)
    # What is too slow for the fine grid alone is refused before it is begun.
    evaluations.require(weight * grid_size())
    return call


def _evaluator(function: Callable[..., Any], name: str) -> Callable[[Array], Any]:
    """`function` on one-dimensional arrays, with an error for all but real numbers of the same shape."""

    def evaluate(x: Array) -> Any:
        try:
            with np.errstate(all="ignore"):
                got = function(x)
            shape, kind = np.shape(got), np.asarray(got).dtype.kind
        except Exception as error:
            problem = " ".join(str(error).split())[:120]
            raise ActivationError(
                f"{name} must be a NumPy-vectorised callable; f(array of shape {x.shape}) raised "
                f"{type(error).__name__}: {problem}"
            ) from error
        if shape != x.shape:
            raise ActivationError(
                f"{name} must return an array of its argument's shape {x.shape}, got shape {shape}"
            )
        if kind not in "fiub":
            raise ActivationError(f"{name} must return real numbers, got dtype {np.asarray(got).dtype}")
        return got

    return evaluate


# --- local fits ---


@dataclass(frozen=True)
class _Fit:
    """A Chebyshev series on [centre − half, centre + half]."""

    centre: float
    half: float
    coefficients: Array

    def __call__(self, x: float, order: int = 0) -> float:
        c = chebyshev.chebder(self.coefficients, order) if order else self.coefficients
        return float(chebyshev.chebval((x - self.centre) / self.half, c)) / self.half**order

    def resolved(self, floor: float) -> bool:
        """Whether the series has ended, relative to its size or to `floor`, the function's size near 0."""
        size = np.abs(self.coefficients)
        return bool(size[-4:].max() <= 2e-12 * size.max() + 1e-14 * floor + self.rounding)

    @property
    def rounding(self) -> float:
        """What the rounding of x does to the values of a steep function."""
        return float(8.0 * EPS * abs(self.centre) * np.abs(self.coefficients[1:]).sum() / self.half)

    @property
    def noise(self) -> float:
        """Error of the values: what the series leaves out, and rounding."""
        size = np.abs(self.coefficients)
        return float(4.0 * size[-4:].max() + 4e-15 * size.max()) + self.rounding


def _fit(call: Function, low: float, high: float) -> _Fit:
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    return _Fit(centre, half, TO_COEFFICIENTS @ call(centre + half * POINTS))


# --- kinks ---


def find_kinks(
    call: Function, name: str, places: Sequence[tuple[float, float]] = ()
) -> list[tuple[float, int]]:
    """Where the function or one of its first three derivatives jumps, with the lowest order that does.

    `places` are intervals in which something narrow was seen; the search begins with them as well.
    """
    floor = float(np.max(np.abs(call(np.linspace(-3.1, 2.9, 61)))))
    suspects = _suspects(call, name, floor, places)
    found: list[tuple[float, int]] = []
    middles = np.array([0.5 * (low + high) for low, high in suspects])
    for low, high in sorted(suspects, key=lambda ends: ends[1] - ends[0]):
        # Intervals narrow down towards a kink; those on the way are no kinks of their own.
        if any(abs(0.5 * (low + high) - k) < 20.0 * (high - low) for k, _ in found):
            continue
        others = middles[np.abs(middles - 0.5 * (low + high)) > 20.0 * (high - low)]
        kink = _examine(call, low, high, floor, others)
        if kink is not None and not any(abs(kink[0] - k) < 1e-6 * (1 + abs(k)) for k, _ in found):
            found.append(kink)
        if len(found) > MOST_KINKS:
            raise ActivationError(f"{name} has more than {MOST_KINKS} kinks")
    return sorted(found)


def _suspects(
    call: Function, name: str, floor: float, places: Sequence[tuple[float, float]] = ()
) -> list[tuple[float, float]]:
    """Intervals so narrow, against where the search began, that something sits there."""
    # Uneven edges, so that no kink at a round number falls on one.
    right = 0.3718 * 1.6137 ** np.arange(15)
    left = -0.4127 * 1.5931 ** np.arange(15)
    edges = np.concatenate([left[::-1][left[::-1] > -REACH], right[right < REACH]])
    found = _narrowed(call, name, floor, list(itertools.pairwise(edges.tolist())))
    # What is narrower than the distance between nodes would not be met on the way.
    seen = [place for place in places if max(map(abs, place)) < REACH]
    return found + _narrowed(call, name, floor, seen)


def _narrowed(
    call: Function, name: str, floor: float, intervals: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Parts of the intervals, halved as long as polynomials do not follow the function there."""
    todo = [(low, high, high - low) for low, high in intervals]
    narrow: list[tuple[float, float]] = []
    examined = 0
    while todo:
        low, high, origin = todo.pop()
        examined += 1
        if examined > 20000:
            raise ActivationError(
                f"{name} is too irregular to find its kinks: give them, as in activation(f, kinks=(0,))"
            )
        fit = _fit(call, low, high)
        if not np.isfinite(fit.coefficients).all():
            continue
        if (fit.resolved(floor) and _to_its_ends(call, fit, floor)) or high - low < 3e-5 * origin:
            if high - low < 0.1 * min(origin, 1.0):
                narrow.append((low, high))
            continue
        middle = low + 0.4871 * (high - low)
        todo += [(low, middle, origin), (middle, high, origin)]
    return _merged(sorted(narrow))


def _to_its_ends(call: Function, fit: _Fit, floor: float) -> bool:
    """Whether the function follows a fit beyond its outermost nodes, where a kink may sit."""
    ends = fit.centre + fit.half * np.array([-0.9999, 0.9999])
    missed = max(abs(float(value) - fit(float(end))) for value, end in zip(call(ends), ends, strict=True))
    return missed <= 2e-11 * float(np.abs(fit.coefficients).max()) + 1e-13 * floor + 10.0 * fit.rounding


def _merged(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Neighbouring narrow intervals reduced to the narrowest of each group."""
    groups: list[list[tuple[float, float]]] = []
    for interval in intervals:
        if groups and interval[0] <= groups[-1][-1][1] + 1e-12 * (1 + abs(interval[0])):
            groups[-1].append(interval)
        else:
            groups.append([interval])
    result = []
    for group in groups:
        # Several kinks may lie in one group: each is a local minimum of the width.
        widths = [b - a for a, b in group]
        for i, width in enumerate(widths):
            if width <= min(widths[max(0, i - 1) : i + 2]):
                result.append(group[i])
    return result


def _examine(
    call: Function, low: float, high: float, floor: float, others: Array
) -> tuple[float, int] | None:
    """The kink between fits on both sides of [low, high], or None if they continue each other.

    The fits stay this side of the next of the `others`: a wider one might step over the kinks there.
    """
    pad = high - low
    left, right = (
        _side_fit(call, at, side, floor, _room(others, at, side))
        for at, side in ((low - 0.2 * pad, -1), (high + 0.2 * pad, 1))
    )
    if left is None or right is None:
        return None
    middle = 0.5 * (low + high)
    half, level = min(left.half, right.half), left.noise + right.noise + 1e-15 * floor
    beyond = 0.7 * pad / half
    if beyond > 0.1:
        return None  # the fits narrow down as slowly as they do for a smooth function
    level *= np.cosh(NODES * np.sqrt(2.0 * beyond))  # what a series of this degree gains outside its interval
    noise = [level * (NODES**2 / half) ** order / (1, 1, 3, 15)[order] for order in range(4)]

    def significant(place: float, order: int) -> bool:
        return abs(right(place, order) - left(place, order)) > 30.0 * noise[order]

    # A jump of φ'' looks like one of φ' a little off its place, so the highest order that explains all comes
    # first.
    for order in (3, 2, 1):
        place = _crossing(left, right, middle, pad, order)
        if (
            place is not None
            and significant(place, order)
            and not any(significant(place, n) for n in range(order))
        ):
            return _rounded(place, order), order
    if significant(middle, 0):
        return _rounded(_step(call, left, right, middle, pad), 0), 0
    return None


def _room(others: Array, start: float, side: int) -> float:
    """Distance from `start` to the next of the points `others` on one side."""
    beyond = others[others > start] - start if side > 0 else start - others[others < start]
    return float(np.min(beyond, initial=np.inf))


def _side_fit(call: Function, start: float, side: int, floor: float, room: float) -> _Fit | None:
    """The widest resolved fit that begins at `start` and lies on one side of it, within some room."""
    width = min(0.6, 0.95 * room)
    while width > 1e-6:
        end = start + side * width
        fit = _fit(call, min(start, end), max(start, end))
        if fit.resolved(floor):
            return fit
        width *= 0.6
    return None


def _step(call: Function, left: _Fit, right: _Fit, start: float, pad: float) -> float:
    """Where the function leaves the left fit for the right one, by bisection."""
    low, high = start - 2.0 * pad, start + 2.0 * pad
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            # Between two neighbouring floats the rounder one is the kink.
            return min((low, high), key=lambda v: len(repr(v)))
        value = float(call(np.array([middle]))[0])
        if abs(value - left(middle)) <= abs(value - right(middle)):
            low = middle
        else:
            high = middle


def _crossing(left: _Fit, right: _Fit, start: float, pad: float, order: int) -> float | None:
    """Where the fits' derivatives of the order below agree, by Newton's method."""
    place = start
    for _ in range(8):
        gap, slope = (right(place, n) - left(place, n) for n in (order - 1, order))
        if slope == 0.0:
            return None
        place -= gap / slope
        if abs(place - start) > 20.0 * pad + 1e-3 * min(left.half, right.half):
            return None
    return place


def _rounded(place: float, order: int) -> float:
    """The number with the fewest digits within the accuracy of a kink's position."""
    tolerance = (1e-13, 1e-10, 1e-7, 1e-5)[order] * max(1.0, abs(place))
    for digits in range(12):
        if abs(round(place, digits) - place) <= tolerance:
            return round(place, digits) + 0.0
    return place


# --- what an activation tells of itself ---


def _slopes(call: Function, kinks: tuple[float, ...]) -> tuple[float, float] | None:
    if kinks not in ((), (0.0,)) or call(np.array([0.0]))[0] != 0.0:
        return None
    x = np.concatenate([np.logspace(-6, 3, 37), [1.0]])
    right, left = call(x) / x, call(-x) / -x
    if not np.isfinite([right, left]).all() or any(
        np.ptp(v) > 1e-14 * np.abs(v).max() for v in (right, left)
    ):
        return None
    if not kinks and left[-1] != right[-1]:
        return None
    return float(left[-1]) + 0.0, float(right[-1]) + 0.0


def _parity(call: Function) -> Any:
    for name, sign in (("even", 1), ("odd", -1)):
        if symmetric(call, sign):
            return name
    return None


def _growth(call: Function) -> Growth:
    return faster(_one_sided_growth(call, -1.0), _one_sided_growth(call, 1.0))


def _one_sided_growth(call: Function, side: float) -> Growth:
    near = np.asarray(side * (1.0 - 0.011 * np.arange(12)), dtype=np.float64)
    for far in (4096.0, 1024.0, 256.0, 64.0, 16.0):
        sizes = [float(np.max(np.abs(call(at * near)))) for at in (far / 4, far / 2, far)]
        if np.isfinite(sizes).all():
            with np.errstate(divide="ignore"):
                logs = np.log(sizes)
            return classify((float(logs[0]), float(logs[1]), float(logs[2])), far)
    return Growth("gaussian", rate=np.inf)


def _oscillation(call: Function) -> float:
    """The largest angular frequency with a share of 1e-6 in the function far out, up to 250."""
    count, span = 2**14, 64.0 * np.pi
    fastest = 0.0
    size = np.max(np.abs(call(np.linspace(-3.0, 3.0, 61))))
    for side in (1.0, -1.0):
        x = 300.0 + span * np.arange(count) / count
        values = call(side * x)
        if not np.isfinite(values).all():
            continue
        t = np.linspace(-1.0, 1.0, count)
        rest = values - chebyshev.chebval(t, chebyshev.chebfit(t, values, 5))
        amplitude = np.abs(np.fft.rfft(rest * np.blackman(count))) / count
        frequency = 2.0 * np.pi * np.arange(len(amplitude)) / span
        loud = (amplitude > 1e-6 * size + 1e-12 * np.max(np.abs(values))) & (frequency > 0.2)
        loud &= amplitude > 3e-3 * amplitude[frequency > 0.2].max()  # the window's side lobes are lower
        loud[1:-1] &= (amplitude[1:-1] >= amplitude[:-2]) & (amplitude[1:-1] >= amplitude[2:])
        if loud.any():
            fastest = max(fastest, float(frequency[loud].max()))
    return fastest


def _structure(pieces: tuple[Piece, ...], kinks: tuple[float, ...]) -> tuple[float, tuple[float, ...]]:
    """Width of the smooth structure, and its centre where that is not near 0 or a kink."""
    ends = (-np.inf, *kinks, np.inf)
    width, centre = 1.0, ()
    for piece, low, high in zip(pieces, ends, ends[1:], strict=False):
        near = np.logspace(-4.0, -1.5, 60)
        x = np.concatenate([np.linspace(-12.0, 12.0, 1201), near, -near])
        x = x[(x > low) & (x < high)]
        if not len(x):
            continue
        slope, bend, third = (np.nan_to_num(np.abs(piece[n](x)), posinf=0.0) for n in (1, 2, 3))
        if bend.max() <= 1e-7 * slope.max() or third.max() <= 1e-5 * slope.max():
            continue  # a line or parabola, up to the errors of the fits
        narrow = 2.6 * float(bend.max() / third.max())
        if narrow < width:
            place = float(x[np.argmax(bend)])
            width = narrow
            if min(abs(place - p) for p in (0.0, *kinks)) > 3.0 * narrow:
                centre = (round(place, 2),)
    return float(np.clip(width, 1e-6, 1e3)), centre
