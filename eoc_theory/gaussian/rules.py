"""Quadrature rules for ∫ f(x) p_q(x) dx, p_q the density of √q Z: panels that follow both f and the Gaussian.

A function may be sharp on the Gaussian's scale √q (tanh at q = 10⁶) or flat (q = 10⁻¹²), have kinks, and
oscillate. Panels therefore end at the kinks, are never longer than a few √q, and shrink towards the points
around which the function has its structure. On each of them a 21-point Kronrod rule gives the integral and
its embedded 10-point Gauss rule the error (Piessens et al., QUADPACK, 1983). Where a smooth function
oscillates many times within √q, the trapezoidal rule takes over: for a Gaussian-weighted entire function it
converges like exp(−(2π/h − Ω)²/2).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from ..activations import Activation, evaluations
from ..activations.core import Growth
from ..errors import ConvergenceError, DivergentExpectationError

Array: TypeAlias = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
# Beyond |z| = 9 a standard normal keeps 2e-19 of its mass.
TAIL = 9.0
# … and beyond 13 nothing that a feature of width 10⁻⁴ there could make visible, even in φ''².
FAR_TAIL = 13.0
# √(weight) underflows there; what lies beyond cannot be represented.
FARTHEST = 53.0
# The 10-point Gauss rule integrates the Gaussian itself to 1e-14 on a panel of this many standard deviations.
GAUSS_PANEL = 2.25
# … and a panel over this many radians of an oscillation to 1e-11.
RADIANS = 8.0
# More radians than this within one standard deviation: trapezoidal rule.
TRAPEZOID_FROM = 20.0
# … which is not made for more of them on one side: a second's work.
MOST_RADIANS = 3e6
# Rounding: of the function's values, of the weights, of the sum. Measured on the shared problem list.
ROUNDING = 10 * EPS
# An error or a part beyond the window of more than this, relative to ∫|f|, calls for other panels.
PANEL_ERROR = 2e-11

_KRONROD_HALF = (
    0.995657163025808080735527280689003,
    0.973906528517171720077964012084452,
    0.930157491355708226001207180059508,
    0.865063366688984510732096688423493,
    0.780817726586416897063717578345042,
    0.679409568299024406234327365114874,
    0.562757134668604683339000099272694,
    0.433395394129247190799265943165784,
    0.294392862701460198131126603103866,
    0.148874338981631210884826001129720,
)
_KRONROD_WEIGHT_HALF = (
    0.011694638867371874278064396062192,
    0.032558162307964727478818972459390,
    0.054755896574351996031381300244580,
    0.075039674810919952767043140916190,
    0.093125454583697605535065465083366,
    0.109387158802297641899210590325805,
    0.123491976262065851077958109585166,
    0.134709217311473325928054001771707,
    0.142775938577060080797094273138717,
    0.147739104901338491374841515972068,
)
_GAUSS_WEIGHT_HALF = (
    0.066671344308688137593568809893332,
    0.149451349150580593145863396957658,
    0.219086362515982043995534934228163,
    0.269266719309996355091226921569469,
    0.295524224714752870173815619188769,
)


def _symmetric(half: Sequence[float], middle: float, sign: float) -> Array:
    return np.array([sign * v for v in half] + [middle] + list(half)[::-1])


NODES = _symmetric(_KRONROD_HALF, 0.0, -1.0)
KRONROD = _symmetric(_KRONROD_WEIGHT_HALF, 0.149445554002916905664936468389821, 1.0)
GAUSS = np.zeros(21)
GAUSS[1:10:2] = _GAUSS_WEIGHT_HALF
GAUSS[11:20:2] = _GAUSS_WEIGHT_HALF[::-1]
_BOTH = np.stack([KRONROD, GAUSS], axis=1)
#: Values at the nodes → derivative there of the polynomial through them, on [−1, 1].
DIFFERENTIATE = np.linalg.solve(
    legendre.legvander(NODES, 20).T,
    np.stack([legendre.legval(NODES, legendre.legder(row)) for row in np.eye(21)]),
).T


@dataclass(frozen=True)
class Shape:
    """Where a function has its structure, as far as quadrature must know it."""

    kinks: tuple[float, ...] = ()
    centres: tuple[float, ...] = (0.0,)
    length: float = 1.0
    oscillation: float = 0.0
    growth: Growth | None = None
    even: bool = False
    trusted: bool = False

    @classmethod
    def of(cls, activation: Activation) -> Shape:
        """The shape of an activation; "even" means that φ(x)² is."""
        return cls(
            kinks=activation.kinks,
            centres=tuple(sorted({*activation.kinks, *activation.scale_points})),
            length=activation.length_scale,
            oscillation=activation.oscillation,
            growth=activation.growth,
            even=activation.parity is not None,
            # Built-in activations declare all their structure; what others have was looked for.
            trusted=activation.source is None,
        )


def window(shape: Shape, q: float, power: float, tail: float | None = None) -> float:
    """The |z| up to which E[f(√q Z)] must be summed when |f| grows as the `power`-th power of the shape's
    growth.

    Raises:
        DivergentExpectationError: f grows as fast as the Gaussian falls.
    """
    growth = shape.growth
    if tail is None:
        tail = TAIL if shape.trusted else FAR_TAIL
    farthest = tail
    if growth is not None:
        if growth.kind == "gaussian":
            narrowed = 1.0 - 2.0 * power * growth.rate * q
            if not narrowed > 0.0:
                limit = 0.0 if math.isinf(growth.rate) else 1.0 / (2.0 * power * growth.rate)
                raise DivergentExpectationError(
                    f"the Gaussian expectation diverges at q = {q:g}: the integrand grows like "
                    f"exp({power * growth.rate:g} x²); it exists for q < {limit:g} only"
                )
            farthest = tail / math.sqrt(narrowed)
        elif growth.kind == "exponential":
            farthest = tail + power * growth.rate * math.sqrt(q)
        else:
            farthest = tail + math.sqrt(power * growth.degree)
    if shape.kinks:
        # A function that vanishes up to its first kink (softshrink) lives in the Gaussian's tail when q is
        # small.
        first = min(abs(k) for k in shape.kinks) / math.sqrt(q)
        farthest = max(farthest, math.sqrt(tail * tail + min(first, FARTHEST) ** 2))
    return min(farthest, FARTHEST)


def panel_edges(
    shape: Shape, q: float, low: float, high: float, frequency: float, gauss_panel: float = GAUSS_PANEL
) -> list[float]:
    """Ends of panels that cover [low, high], for a function with that shape times the density of √q Z."""
    kinks, centres, length = shape.kinks, shape.centres, shape.length
    longest = gauss_panel * math.sqrt(q)
    if frequency > 0.0:
        longest = min(longest, RADIANS / frequency)
    # Beyond a first kink far out the Gaussian falls off within q/kink: there lives the rest of f.
    first = min((abs(k) for k in kinks), default=0.0)
    outer = longest if first * first < 9.0 * q else min(longest, RADIANS * q / first)
    edges = [low]
    x = low
    ends = [k for k in kinks if low < k < high]
    ends.append(high)
    for end in ends:
        while True:
            step = longest if -first <= x < first else outer
            if step > length:
                # Away from a centre panels grow with the distance; towards it they halve it.
                i = bisect_right(centres, x)
                if i > 0:
                    step = min(step, max(length, 0.6 * (x - centres[i - 1])))
                if i < len(centres):
                    step = min(step, max(length, 0.5 * (centres[i] - x)))
            # No panel is shorter than floats around there can tell.
            step = max(step, 1e-14 * abs(x))
            if x + 1.25 * step >= end:
                break
            x += step
            edges.append(x)
        x = end
        edges.append(x)
    return edges


@dataclass(frozen=True)
class PanelRule:
    """Panels for several q at once: panel i belongs to the q with starts[j] ≤ i < starts[j+1].

    Attributes:
        x: nodes, shape (panels, 21).
        root_weight: √(half width · density), shape (panels, 21): kept as a root so that φ² times the weight
            can be formed as (φ · root)², which is finite long after φ² has overflowed.
        starts: first panel of each q, shape (number of q,).
        piece: index of the interval between kinks in which a panel lies, shape (panels,).
        factor: 2 where only the half line x > 0 is covered, otherwise 1.
        half: half the panels' widths in units of √q, shape (panels,).
        trusted: whether the panels are known to be good enough, so that nobody needs to look.
    """

    x: Array
    root_weight: Array
    starts: NDArray[np.intp]
    piece: NDArray[np.intp]
    factor: float
    half: Array
    trusted: bool

    def evaluate(self, pieces: Sequence[Callable[[Array], Array]]) -> Array:
        """Values at the nodes of a function given by one smooth piece for each interval between kinks."""
        if len(pieces) == 1:
            return pieces[0](self.x)
        values = np.empty_like(self.x)
        if len(self.starts) == 1:
            ends = np.searchsorted(self.piece, np.arange(len(pieces) + 1))
            for i, piece in enumerate(pieces):
                if ends[i] < ends[i + 1]:
                    values[ends[i] : ends[i + 1]] = piece(self.x[ends[i] : ends[i + 1]])
            return values
        for i in range(len(pieces)):
            rows = self.piece == i
            if rows.any():
                values[rows] = pieces[i](self.x[rows])
        return values

    def integrate(self, weighted: Array) -> tuple[Array, Array]:
        """Integrals and error estimates, each (m, number of q), of m weighted integrands, shape (m,
        panels, 21).
        """
        value, error, _ = self.assess(weighted)
        return value, error

    def assess(self, weighted: Array, counted: int | None = None) -> tuple[Array, Array, NDArray[np.bool_]]:
        """As :meth:`integrate`, and for which q the panels or the window are not good enough for the first
        `counted` integrands (all, when None); any others are what each of those is uncertain by.
        """
        value, error, size = self.panels(weighted)
        if self.trusted:
            value = np.add.reduceat(value, self.starts, axis=-1)
            error = np.add.reduceat(error + ROUNDING * size, self.starts, axis=-1)
            return self.factor * value, self.factor * error, np.zeros(len(self.starts), dtype=bool)
        value, error, rounding, size = (
            np.add.reduceat(part, self.starts, axis=-1) for part in (value, error, self.rounding * size, size)
        )
        accepted = PANEL_ERROR * size[:counted]
        if counted is not None and counted < len(value):
            # What the integrands are uncertain by no other panels will mend.
            accepted = accepted + value[counted:]
        rough: Any = error[:counted] > accepted
        rough |= self.beyond(weighted[:counted]) > PANEL_ERROR * size[:counted]
        doubtful: Any = np.asarray(rough).any(axis=0)
        return self.factor * value, self.factor * (error + rounding), doubtful

    def panels(self, weighted: Array) -> tuple[Array, Array, Array]:
        """Integral, error of the rule and integral of the modulus over each panel, each (m, panels)."""
        both = weighted @ _BOTH
        kronrod, size = both[..., 0], np.abs(weighted) @ KRONROD
        difference = np.abs(kronrod - both[..., 1])
        # QUADPACK's estimate: the Kronrod rule is about the 1.5th power of the Gauss rule's relative error.
        with np.errstate(all="ignore"):
            error = size * np.minimum(1.0, (200.0 * difference / size) ** 1.5)
        return kronrod, np.where(size > 0.0, error, 0.0), size

    @property
    def rounding(self) -> Array:
        """Rounding errors on each panel relative to ∫|f| over it, shape (panels,).

        That of the function's argument counts where a panel is short because the function is steep.
        """
        return ROUNDING + 4.0 * EPS * np.abs(self.x[:, 10]) / (self.x[:, 20] - self.x[:, 0])

    def beyond(self, weighted: Array) -> Array:
        """Estimated ∫|f| outside of the panels, shape (m, number of q)."""
        last = np.append(self.starts[1:], len(self.x)) - 1
        outer = np.abs(weighted[..., last, 20]) / self.half[last]
        if self.factor == 1.0:
            outer = outer + np.abs(weighted[..., self.starts, 0]) / self.half[self.starts]
        # Nine standard deviations out an integrand that a wider window would serve falls by a factor e within
        # a fifth of one at most.
        return 0.2 * outer

    def tail(self, weighted: Array) -> Array:
        """Share of ∫|f| that the outermost panels of each q hold, shape (m, number of q)."""
        size = np.abs(weighted) @ KRONROD
        last = np.append(self.starts[1:], size.shape[-1]) - 1
        outer = size[..., last]
        if self.factor == 1.0:
            outer = np.maximum(outer, size[..., self.starts])
        total = np.add.reduceat(size, self.starts, axis=-1)
        return np.where(total > 0.0, outer / np.where(total > 0.0, total, 1.0), 0.0)


def panel_rule(
    shape: Shape,
    q: Sequence[float],
    power: float,
    *,
    farthest: float | None = None,
    gauss_panel: float = GAUSS_PANEL,
) -> PanelRule:
    """Panels for E[f(√q Z)] for every q, f with the `power`-th power of the shape's growth and
    oscillation.
    """
    frequency = power * shape.oscillation
    low_edges: list[float] = []
    high_edges: list[float] = []
    starts: list[int] = []
    roots: list[float] = []
    for value in q:
        root = math.sqrt(value)
        reach = root * (window(shape, value, power) if farthest is None else farthest)
        edges = panel_edges(shape, value, 0.0 if shape.even else -reach, reach, frequency, gauss_panel)
        starts.append(len(low_edges))
        low_edges += edges[:-1]
        high_edges += edges[1:]
        roots += [root] * (len(edges) - 1)
    return _rule(shape, np.array(low_edges), np.array(high_edges), np.array(roots), np.array(starts))


def rule_on(shape: Shape, q: float, low: Array, high: Array) -> PanelRule:
    """The rule on given panels, (n,) each, for one q."""
    return _rule(shape, low, high, np.full(len(low), math.sqrt(q)), np.zeros(1, dtype=np.intp))


def _rule(shape: Shape, low: Array, high: Array, scale: Array, starts: NDArray[np.intp]) -> PanelRule:
    """The rule on panels [low, high] under normal densities of standard deviation `scale`, (n,) each."""
    evaluations.spend_rule(len(low) * len(NODES))
    half = 0.5 * (high - low)
    x = half[:, None] * NODES + (0.5 * (high + low))[:, None]
    with np.errstate(under="ignore"):
        root_weight = np.exp(-0.25 * np.square(x / scale[:, None]))
    root_weight *= np.sqrt(half / (scale * math.sqrt(2.0 * math.pi)))[:, None]
    if shape.kinks:
        piece = np.searchsorted(np.array(shape.kinks), 0.5 * (low + high))
    else:
        piece = np.zeros(len(low), dtype=np.intp)
    return PanelRule(x, root_weight, starts, piece, 2.0 if shape.even else 1.0, half / scale, shape.trusted)


@dataclass(frozen=True)
class TrapezoidRule:
    """Two trapezoidal rules in z for one q: the finer gives the value, the coarser the error."""

    x: Array
    root_weight: Array
    coarse: int
    trusted: bool
    scale: float

    def evaluate(self, pieces: Sequence[Callable[[Array], Array]]) -> Array:
        """Values at the nodes; the function must have one piece only."""
        return pieces[0](self.x)

    def differentiated(self, rooted: Array) -> tuple[Array, Array, float]:
        """f' and f'' times √weight from f times √weight at the nodes, and the grids' largest frequency.

        Such a product is smooth, has died out at the ends of the grids, and has no frequencies beyond those
        that these resolve: its derivatives are those of its Fourier series.
        """
        from scipy import fft as scipy_fft  # built-in activations need none of it

        fft: Any = scipy_fft
        first, second, fastest = np.empty_like(rooted), np.empty_like(rooted), 0.0
        q = self.scale**2
        for part in (slice(0, self.coarse), slice(self.coarse, None)):
            g, x = rooted[part], self.x[part]
            step = (x[-1] - x[0]) / (len(x) - 1)
            length = fft.next_fast_len(len(g), real=True)
            frequency = 2.0 * math.pi * np.fft.rfftfreq(length, step)
            spectrum = fft.rfft(g, length)
            along = fft.irfft(1j * frequency * spectrum, length)[: len(g)]
            bend = fft.irfft(-(frequency**2) * spectrum, length)[: len(g)]
            # √weight itself is exp(−x²/4q).
            first[part] = along + x / (2.0 * q) * g
            second[part] = bend + x / q * first[part] - (x * x / (4.0 * q * q) - 1.0 / (2.0 * q)) * g
            fastest = max(fastest, float(frequency[-1]))
        return first, second, fastest

    def integrate(self, weighted: Array) -> tuple[Array, Array]:
        """Integrals and error estimates, each (m, 1), of m weighted integrands, shape (m, nodes)."""
        value, error, _ = self.assess(weighted)
        return value, error

    def assess(self, weighted: Array, counted: int | None = None) -> tuple[Array, Array, NDArray[np.bool_]]:
        """As :meth:`integrate`, and whether the first `counted` integrands are not resolved, shape (1,)."""
        value = weighted[..., self.coarse :].sum(-1, keepdims=True)
        other = weighted[..., : self.coarse].sum(-1, keepdims=True)
        size = np.abs(weighted[..., self.coarse :]).sum(-1, keepdims=True)
        difference = np.abs(value - other)
        if self.trusted:
            return value, difference + ROUNDING * size, np.zeros(1, dtype=bool)
        rough = difference[:counted] > PANEL_ERROR * size[:counted]
        # Once they differ by more than rounding, two grids that see too little may still agree by chance.
        difference = np.where(difference > PANEL_ERROR * size, 10.0 * difference, difference)
        return value, difference + ROUNDING * size, rough.any(axis=0)


def trapezoid_rule(shape: Shape, q: float, power: float) -> TrapezoidRule:
    """The rule for one q at which f, without kinks, oscillates fast on the scale √q.

    Raises:
        ConvergenceError: so fast that it takes more than MOST_RADIANS.
    """
    root = math.sqrt(q)
    reach = window(shape, q, power)
    if reach * shape.oscillation * root > MOST_RADIANS:
        raise ConvergenceError(
            f"a wave of angular frequency {shape.oscillation:.3g} is too fast to be integrated at variance "
            f"{q:.3g}: {reach * shape.oscillation * root:.1e} radians, at most {MOST_RADIANS:.0e}"
        )
    grids = []
    for margin in (12.0, 14.0):
        step = 2.0 * math.pi / (power * shape.oscillation * root + margin)
        count = math.ceil(reach / step)
        # Off-centre grids of different steps share no aliasing.
        z = (np.arange(-count, count + 1) + (0.0 if margin == 14.0 else 0.3)) * step
        grids.append((z, math.sqrt(step / math.sqrt(2.0 * math.pi))))
    z = np.concatenate([g[0] for g in grids])
    root_weight = np.exp(-0.25 * z * z)
    coarse = len(grids[0][0])
    evaluations.spend_rule(len(z), plain=True)
    root_weight[:coarse] *= grids[0][1]
    root_weight[coarse:] *= grids[1][1]
    return TrapezoidRule(root * z, root_weight, coarse, shape.trusted, root)


Rule: TypeAlias = PanelRule | TrapezoidRule


def rules(shape: Shape, q: Array, power: float) -> Iterator[tuple[slice, Rule]]:
    """Rules that together serve all of the 1-D array q: slices of it, each with its rule."""
    oscillating = power * shape.oscillation * np.sqrt(q) > TRAPEZOID_FROM
    i = 0
    while i < len(q):
        if oscillating[i] and not shape.kinks:
            yield slice(i, i + 1), trapezoid_rule(shape, float(q[i]), power)
            i += 1
            continue
        j = i + 1
        # Chunks that stay in the cache; fast oscillation with kinks makes very many panels for one q.
        limit = i + (1 if oscillating[i] else 64)
        while j < min(len(q), limit) and not (oscillating[j]):
            j += 1
        yield slice(i, j), panel_rule(shape, q[i:j].tolist(), power)
        i = j


def derivative_pieces(activation: Activation, order: int) -> list[Callable[[Any], Any]]:
    """φ^(order) as one smooth function for each interval between kinks."""
    return [piece[order] for piece in activation.pieces]
