"""Activations made by a generator with a seed, and their Gaussian moments by quadrature of their own.

Sums, products and compositions of smooth functions, narrow bumps and steps anywhere, poles close to the real
axis, decaying and lasting waves, kinks, far offsets, tiny and huge scales. Each comes as an expression and as
a NumPy callable, with what the quadrature here must know: where the function has its structure, and how
narrow that is. Derivatives are carried along with the values (forward mode), so that nothing of the library
is needed.

``python -m tests.generated_activations --count 300 --seed 1`` holds the library's stated errors against the
quadrature here, for as many activations as wanted and both forms of each, and prints what it found.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
#: A value and its first two derivatives at the same points.
Jet = tuple[Array, Array, Array]

WINDOW = 24.0  # standard deviations that the quadrature covers
MANY = 50  # places with structure of their own, for which panels are not graded one by one
POINTS = 20  # of each of its Gauss–Legendre panels


@dataclass(frozen=True)
class Node:
    """A function with its text, its derivatives and its structure: (place, width) pairs and kinks."""

    text: str
    jet: Callable[[Array], Jet]
    structure: tuple[tuple[float, float], ...] = ()
    kinks: tuple[float, ...] = ()
    frequency: float = 0.0

    def __call__(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return self.jet(np.asarray(x, dtype=np.float64))[0]


def number(value: float) -> str:
    """A number as the grammar of expressions takes it, in parentheses."""
    return f"({value!r})"


# --- one function of a linear argument ----------------------------------------------------------------------


def _sech2(u: Array) -> Array:
    e = np.exp(-2.0 * np.abs(u))
    return 4.0 * e / np.square(1.0 + e)


def _tanh(u: Array) -> Jet:
    t, s = np.tanh(u), _sech2(u)
    return t, s, -2.0 * t * s


def _softplus(u: Array) -> Jet:
    s = special.expit(u)
    return np.logaddexp(0.0, u), s, s * special.expit(-u)


def _gauss(u: Array) -> Jet:
    g = np.exp(-u * u)
    return g, -2.0 * u * g, (4.0 * u * u - 2.0) * g


def _lorentz(u: Array) -> Jet:
    d = 1.0 + u * u
    return 1.0 / d, -2.0 * u / d**2, (6.0 * u * u - 2.0) / d**3


def _root(u: Array) -> Jet:
    r = np.sqrt(1.0 + u * u)
    return r, u / r, 1.0 / r**3


def _atan(u: Array) -> Jet:
    d = 1.0 + u * u
    return np.arctan(u), 1.0 / d, -2.0 * u / d**2


def _erf(u: Array) -> Jet:
    g = 2.0 / math.sqrt(math.pi) * np.exp(-u * u)
    return special.erf(u), g, -2.0 * u * g


def _sin(u: Array) -> Jet:
    return np.sin(u), np.cos(u), -np.sin(u)


def _tent(u: Array) -> Jet:
    inside = np.abs(u) < 1.0
    return np.where(inside, 1.0 - np.abs(u), 0.0), np.where(inside, -np.sign(u), 0.0), np.zeros_like(u)


def _relu(u: Array) -> Jet:
    return np.maximum(u, 0.0), np.where(u > 0.0, 1.0, 0.0), np.zeros_like(u)


def _absolute(u: Array) -> Jet:
    return np.abs(u), np.sign(u), np.zeros_like(u)


#: name: text with {} for the argument, derivatives, kinks in the argument, frequency
SHAPES: dict[str, tuple[str, Callable[[Array], Jet], tuple[float, ...], float]] = {
    "tanh": ("tanh({})", _tanh, (), 0.0),
    "softplus": ("log(1+exp({}))", _softplus, (), 0.0),
    "gauss": ("exp(-({})**2)", _gauss, (), 0.0),
    "lorentz": ("1/(1+({})**2)", _lorentz, (), 0.0),
    "root": ("sqrt(1+({})**2)", _root, (), 0.0),
    "atan": ("atan({})", _atan, (), 0.0),
    "erf": ("erf({})", _erf, (), 0.0),
    "sin": ("sin({})", _sin, (), 1.0),
    "tent": ("max(0,1-abs({}))", _tent, (-1.0, 0.0, 1.0), 0.0),
    "relu": ("max(0,{})", _relu, (0.0,), 0.0),
    "abs": ("abs({})", _absolute, (0.0,), 0.0),
}


def shaped(name: str, place: float, width: float) -> Node:
    """One of the shapes of (x − place)/width."""
    text, jet, kinks, frequency = SHAPES[name]

    def scaled(x: Array) -> Jet:
        f, d, dd = jet((x - place) / width)
        return f, d / width, dd / width**2

    return Node(
        text.format(f"(x-{number(place)})/{number(width)}"),
        scaled,
        ((place, width),),
        tuple(place + width * k for k in kinks),
        frequency / width,
    )


def line() -> Node:
    """x itself."""
    return Node("x", lambda x: (x, np.ones_like(x), np.zeros_like(x)))


# --- what functions are made of -----------------------------------------------------------------------------


def total(a: Node, b: Node, weight: float) -> Node:
    """a + weight · b."""

    def jet(x: Array) -> Jet:
        one, other = a.jet(x), b.jet(x)
        return tuple(p + weight * q for p, q in zip(one, other, strict=True))  # type: ignore[return-value]

    return Node(
        f"({a.text})+{number(weight)}*({b.text})",
        jet,
        a.structure + b.structure,
        a.kinks + b.kinks,
        max(a.frequency, b.frequency),
    )


def product(a: Node, b: Node) -> Node:
    """a · b."""

    def jet(x: Array) -> Jet:
        (f, fd, fdd), (g, gd, gdd) = a.jet(x), b.jet(x)
        return f * g, fd * g + f * gd, fdd * g + 2.0 * fd * gd + f * gdd

    return Node(
        f"({a.text})*({b.text})", jet, a.structure + b.structure, a.kinks + b.kinks, a.frequency + b.frequency
    )


def composed(outer: str, inner: Node, gain: float, offset: float, places: Array) -> Node:
    """A smooth shape of gain · inner + offset; `places` are points between which the argument's zeros are."""
    text, jet, _, frequency = SHAPES[outer]

    def composed_jet(x: Array) -> Jet:
        g, gd, gdd = (gain * v for v in inner.jet(x))
        f, fd, fdd = jet(g + offset)
        return f, fd * gd, fdd * gd * gd + fd * gdd

    steep = np.maximum(np.abs(gain * inner.jet(places)[1]), 1e-3)
    near = np.abs(gain * inner(places) + offset) < 40.0
    structure = tuple((float(p), 1.0 / float(s)) for p, s in zip(places[near], steep[near], strict=True))
    return Node(
        text.format(f"{number(gain)}*({inner.text})+{number(offset)}"),
        composed_jet,
        inner.structure + structure,
        inner.kinks,
        inner.frequency + frequency * float(steep.max()),
    )


def scaled(node: Node, factor: float) -> Node:
    """factor · node."""
    return Node(
        f"{number(factor)}*({node.text})",
        lambda x: tuple(factor * v for v in node.jet(x)),  # type: ignore[return-value]
        node.structure,
        node.kinks,
        node.frequency,
    )


# --- the generator ------------------------------------------------------------------------------------------


def activations(count: int, seed: int) -> list[Node]:
    """`count` functions; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [_one(rng, KINDS[i % len(KINDS)]) for i in range(count)]


def _digits(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def _base(rng: np.random.Generator) -> Node:
    name = str(rng.choice(["tanh", "softplus", "erf", "atan", "root", "line"]))
    if name == "line":
        return line()
    return shaped(name, _digits(rng.normal()), _digits(10.0 ** rng.uniform(-0.5, 0.5)))


def _bump(rng: np.random.Generator, smooth: bool = False) -> Node:
    name = str(rng.choice(["gauss", "lorentz"] if smooth else ["gauss", "lorentz", "tent", "tanh"]))
    return shaped(name, _digits(rng.uniform(-4, 4), 6), _digits(10.0 ** rng.uniform(-4, -0.5)))


def _amplitude(rng: np.random.Generator) -> float:
    return _digits(float(rng.choice([-1.0, 1.0])) * 10.0 ** rng.uniform(-1.5, 0.5))


def _with_bump(rng: np.random.Generator) -> Node:
    return total(_base(rng), _bump(rng), _amplitude(rng))


def _with_two(rng: np.random.Generator) -> Node:
    return total(_with_bump(rng), _bump(rng), _amplitude(rng))


def _gated(rng: np.random.Generator) -> Node:
    return total(_base(rng), product(_base(rng), _bump(rng)), _amplitude(rng))


def _wave(rng: np.random.Generator) -> Node:
    envelope = shaped(
        str(rng.choice(["gauss", "lorentz"])),
        _digits(rng.uniform(-2, 2)),
        _digits(10.0 ** rng.uniform(-0.3, 0.7)),
    )
    wave = shaped("sin", _digits(rng.uniform(-1, 1)), _digits(1.0 / 10.0 ** rng.uniform(0.3, 1.7)))
    return total(_base(rng), product(envelope, wave), _amplitude(rng))


def _lasting_wave(rng: np.random.Generator) -> Node:
    wave = shaped("sin", _digits(rng.uniform(-1, 1)), _digits(1.0 / 10.0 ** rng.uniform(-0.5, 1.3)))
    return total(_base(rng), wave, _amplitude(rng))


def _kinked(rng: np.random.Generator) -> Node:
    kink = shaped(str(rng.choice(["relu", "abs"])), _digits(rng.uniform(-3, 3), 6), 1.0)
    return total(_with_bump(rng) if rng.random() < 0.5 else _base(rng), kink, _amplitude(rng))


def _nested(rng: np.random.Generator) -> Node:
    inner = total(_base(rng), _bump(rng, smooth=True), _amplitude(rng))
    gain = _digits(10.0 ** rng.uniform(-0.5, 1.0))
    offset = _digits(rng.normal())
    outer = str(rng.choice(["tanh", "erf", "atan", "gauss", "lorentz", "root"]))
    # The argument's structure, and a grid fine enough to see where the outer function has its own.
    near = [place + width * np.linspace(-8, 8, 129) for place, width in inner.structure]
    places = np.unique(np.concatenate([np.linspace(-40, 40, 1601), *near]))
    return composed(outer, inner, gain, offset, places)


def _far(rng: np.random.Generator) -> Node:
    place = _digits(rng.uniform(5, 40) * rng.choice([-1, 1]))
    step = shaped("tanh", place, _digits(10.0 ** rng.uniform(-3, 0.5)))
    return total(_base(rng), step, _amplitude(rng))


def _rescaled(rng: np.random.Generator) -> Node:
    return scaled(_with_bump(rng), _digits(10.0 ** rng.uniform(-8, 8)))


KINDS: tuple[Callable[[np.random.Generator], Node], ...] = (
    _with_bump,
    _with_two,
    _gated,
    _wave,
    _lasting_wave,
    _kinked,
    _nested,
    _far,
    _rescaled,
    _with_bump,
)


def _one(rng: np.random.Generator, make: Callable[[np.random.Generator], Node]) -> Node:
    return make(rng)


# --- the independent quadrature -----------------------------------------------------------------------------

_X, _W = np.polynomial.legendre.leggauss(POINTS)


@lru_cache(maxsize=2)
def _grading(ratio: float) -> Array:
    """Distances from a centre, in widths, at which panels end."""
    outward = 0.25 * ratio ** np.arange(20.0 / math.log(ratio))
    return np.concatenate([-outward[::-1], [0.0], outward])


def edges(node: Node, q: float, fineness: float = 1.0, longest: float = 0.5) -> Array:
    """Ends of panels that follow the function's structure and the Gaussian; `longest` is in units of √q."""
    reach = WINDOW * math.sqrt(q)
    longest = longest * fineness * math.sqrt(q)
    if node.frequency:
        longest = min(longest, 2.0 * fineness / node.frequency)
    marks = [np.arange(-reach, reach + longest, longest), np.array(node.kinks)]
    many = len(node.structure) > MANY
    grading = fineness * _grading(3.0 if many else 1.2)
    marks += [place + width * grading for place, width in node.structure]
    every = np.unique(np.clip(np.concatenate(marks), -reach, reach))
    if many:
        every = np.unique(np.concatenate([_thinned(every, node, longest, fineness), node.kinks]))
    inside = every[(every > -reach) & (every < reach)]
    return np.concatenate([[-reach], inside, [reach]])


def _thinned(every: Array, node: Node, longest: float, fineness: float) -> Array:
    """Ends of panels as long as the nearest structure allows, for functions with structure in many places."""
    places = np.array(sorted(node.structure))
    # The shortest of width/4 + distance/6 over all structure, from the left and from the right.
    places = places[(places[:, 0] > every[0]) & (places[:, 0] < every[-1])]
    wanted = fineness * 0.25 * places[:, 1]
    x = np.unique(np.concatenate([every, places[:, 0]]))
    at = np.searchsorted(x, places[:, 0])
    length = np.full(len(x), longest)
    np.minimum.at(length, at, wanted)
    slope = fineness * x / 6.0
    length = np.minimum.accumulate(length - slope) + slope
    length = (np.minimum.accumulate((length + slope)[::-1]))[::-1] - slope
    count = np.concatenate([[0.0], np.cumsum(np.diff(x) / np.minimum(length[1:], length[:-1]))])
    return np.interp(np.arange(0.0, count[-1]), count, x)


def expectations(node: Node, q: float, fineness: float = 1.0) -> dict[str, float]:
    """E[φ], E[φ²], E[φ'²], E[φ''²] without point masses, E[u φ φ']/q and q E[φ'²] − E[φ²], u = √q Z."""
    ends = edges(node, q, fineness)
    sums = np.zeros(6)
    for start in range(0, len(ends) - 1, 20_000):
        part = ends[start : start + 20_001]
        half = 0.5 * np.diff(part)[:, None]
        x = half * _X + 0.5 * (part[1:] + part[:-1])[:, None]
        weight = half * _W * np.exp(-0.5 * x * x / q) / math.sqrt(2.0 * math.pi * q)
        with np.errstate(all="ignore"):
            f, d, dd = node.jet(x)
            values = (f, f * f, d * d, dd * dd, x * f * d / q, q * d * d - f * f)
        sums += [math.fsum((v * weight).ravel()) for v in values]
    return dict(zip(("phi", "phi2", "dphi2", "ddphi2", "slope", "excess"), sums.tolist(), strict=True))


def trusted(node: Node, q: float) -> tuple[dict[str, float], dict[str, float]]:
    """The expectations and what they change by on panels two thirds as long."""
    rough, fine = expectations(node, q), expectations(node, q, 0.67)
    return fine, {name: abs(fine[name] - rough[name]) for name in fine}


@dataclass(frozen=True)
class Series:
    """Normalised Hermite coefficients of φ and φ' at √q Z, shape (2, n), and E[φ²] and E[φ'²], shape (2,)."""

    coefficients: Array
    squares: Array


def series(node: Node, q: float, terms: int, fineness: float = 1.0) -> Series:
    """Coefficients for Mehler's formula E[f(u) g(v)] = Σ a_k b_k c^k."""
    # He_k(z) times √weight has √k radians per unit of z; 20 points serve 8 of them.
    ends = edges(node, q, fineness, min(0.5, 6.0 / math.sqrt(terms)))
    half = 0.5 * np.diff(ends)[:, None]
    x = (half * _X + 0.5 * (ends[1:] + ends[:-1])[:, None]).ravel()
    root = np.exp(-0.25 * x * x / q)
    weight = np.broadcast_to(half * _W, (len(half), POINTS)).ravel() / math.sqrt(2.0 * math.pi * q)
    with np.errstate(all="ignore"):
        values = np.stack(node.jet(x)[:2]) * root * weight
        squares = np.array([math.fsum(v * v / np.where(weight > 0.0, weight, 1.0)) for v in values])
    z, before, now = x / math.sqrt(q), np.zeros_like(x), root.copy()
    table = np.empty((2, terms))
    for k in range(terms):
        table[:, k] = values @ now
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    return Series(table, squares)


def dual(a: Series, b: Series, c: float, order: int) -> tuple[float, float]:
    """E[φ^(order)(u) φ^(order)(v)], order 0 or 1, and what the terms left out may add."""
    one, other = a.coefficients[order], b.coefficients[order]
    value = math.fsum(one * other * c ** np.arange(len(one)))
    left = [max(float(s.squares[order] - math.fsum(s.coefficients[order] ** 2)), 0.0) for s in (a, b)]
    return value, abs(c) ** len(one) * math.sqrt(left[0] * left[1])


def main() -> int:
    from tests.stated_errors import run

    parser = argparse.ArgumentParser(
        description="Hold stated errors against quadrature of our own, on generated activations, each as an "
        "expression and as a callable. The exit status is 1 if one was understated."
    )
    parser.add_argument("--count", type=int, default=300, help="how many activations (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one to try (%(default)s)")
    parser.add_argument("--forms", default="expression,callable", help="as what each comes (%(default)s)")
    parser.add_argument("--checks", default="", help="which of the checks, separated by commas; all if empty")
    parser.add_argument("--verbose", action="store_true", help="a line for each")
    options = parser.parse_args()
    wanted = [one for one in options.checks.split(",") if one]
    return run(options.count, options.seed, options.first, options.forms.split(","), wanted, options.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
