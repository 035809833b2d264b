"""Mehler's series E[f(u) g(v)] = Σ a_k(q_a) b_k(q_b) c^k on fixed grids, for whole batches of variances at
once.

The coefficients come from the trapezoidal rule in z, whose error falls exponentially for the smooth
functions it is used for, so all B variances cost one evaluation of f on a (B, nodes) array and one matrix
product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...activations.core import Activation
from ..expectations import SMALLEST
from ..hermite import hermite_coefficients
from .compiled import pair_series
from .pairs import Array
from .piecewise import piecewise_quadratic
from .quadrature import second_moment

ORDERS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
"""Numbers of Hermite coefficients for which grids are kept."""
LARGEST_KINKED = 512
# Multiply-adds that OpenBLAS gives to one thread only; it begins to share them at 262,144.
SINGLE_THREADED = 200_000
# For a pole at one length scale off the real axis the trapezoidal rule is exact to 1e-12 with steps of this
# share of it, derivatives too; built-in functions have no such poles. Panels of Gauss–Legendre with 16
# points may be so many steps wide.
STEP_OF_LENGTH, BUILT_IN_STEP, PANEL_OF_STEPS = 0.16, 0.25, 7.0
# How often a grid's steps are halved before panels that follow the structure take over.
MOST_HALVINGS = 5
RANGES = (9.5, 13.0, 18.0, 26.0)
"""Half widths of the grids in z; the wider ones are for functions of exponential growth."""


@dataclass(frozen=True)
class Grid:
    """Half of a symmetric trapezoidal grid in z and the weighted Hermite functions on it.

    Attributes:
        nodes: z_m > 0, shape (M,).
        weights: w_m with Σ w_m f(z_m) ≈ ½ E f(Z) for even f, shape (M,).
        even, odd: matrices (M, ·) with column j = 2 w_m He_k(z_m)/√k! for k = 2j and k = 2j + 1.
    """

    nodes: Array
    weights: Array
    even: Array
    odd: Array


@lru_cache(maxsize=64)
def grid(n: int, half_width: float = RANGES[0], halvings: int = 0) -> Grid:
    """The grid that resolves the first n normalised Hermite polynomials, or one with more points."""
    spacing = _spacing(n) / 2**halvings
    z = np.arange(0.5, half_width / spacing) * spacing
    half = np.exp(-0.25 * z**2) * np.sqrt(spacing / np.sqrt(2 * np.pi))
    columns = hermite_functions(z, n, half)
    table = columns * half * 2
    return Grid(z, half**2, np.ascontiguousarray(table[0::2].T), np.ascontiguousarray(table[1::2].T))


def _spacing(n: int) -> float:
    # A product of two Hermite functions of degree n has no frequencies above 2√n but for a Gaussian fringe.
    return 2 * np.pi / (2 * np.sqrt(n) + 10) / 1.25


def hermite_functions(z: Array, n: int, start: Array) -> Array:
    """start · He_k(z)/√k! for k < n, shape (n, len(z)); a decaying `start` keeps high degrees from
    overflowing.
    """
    table = np.empty((n, len(z)))
    table[0] = start
    if n > 1:
        table[1] = z * start
    for k in range(1, n - 1):
        table[k + 1] = (z * table[k] - np.sqrt(k) * table[k - 1]) / np.sqrt(k + 1)
    return table


@lru_cache(maxsize=64)
def split_grid(n: int, half_width: float, refinements: int) -> Grid:
    """As `grid`, for functions with a kink at 0: composite Gauss–Legendre on z > 0, refined towards 0."""
    width = _panel_width(n)
    edges = np.arange(0.0, half_width + width, width)
    edges = np.concatenate([[0.0], width * 0.5 ** np.arange(refinements, 0, -1), edges[1:]])
    z, weights = composite(edges)
    half = np.exp(-0.25 * z**2)
    measure = weights / np.sqrt(2 * np.pi)
    table = hermite_functions(z, n, half) * (half * measure * 2)
    return Grid(
        z, half**2 * measure, np.ascontiguousarray(table[0::2].T), np.ascontiguousarray(table[1::2].T)
    )


def composite(edges: Array, points: int = 16) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights on consecutive panels; edges (..., P + 1) → (..., P · points)."""
    x, w = np.polynomial.legendre.leggauss(points)
    low, half = edges[..., :-1, None], 0.5 * np.diff(edges)[..., None]
    shape = (*edges.shape[:-1], -1)
    return (low + half * (1 + x)).reshape(shape), np.broadcast_to(half * w, np.shape(low + half * x)).reshape(
        shape
    )


@dataclass(frozen=True)
class Coefficients:
    """Normalised Hermite coefficients of f(√q_b ·) for B variances.

    Attributes:
        even: shape (K, B) for k = 0, 2, …; None for odd f.
        odd: shape (K, B) for k = 1, 3, …; None for even f.
        square: E f(√q_b Z)², shape (B,).
        even_tail, odd_tail: what the coefficients leave of the even and the odd part's square, shape (B,).
    """

    even: Array | None
    odd: Array | None
    square: Array
    even_tail: Array
    odd_tail: Array

    @property
    def tail(self) -> Array:
        """What the coefficients leave of `square`, shape (B,)."""
        return np.maximum(self.even_tail + self.odd_tail, 0.0)


def coefficients(activation: Activation, order: int, q: Array, g: Grid) -> Coefficients:
    """Coefficients of φ^(order)(√q ·), q of shape (B,)."""
    f = activation.derivative(order) if order else activation
    x = np.sqrt(q)[:, None] * g.nodes
    parity = derivative_parity(activation, order)
    right = f(x)
    even = odd = None
    if parity == "even":
        even = right
    elif parity == "odd":
        odd = right
    else:
        left = f(-x)
        even, odd = 0.5 * (right + left), 0.5 * (right - left)
    square = np.zeros(q.shape)
    tables, tails = [], []
    for values, matrix in ((even, g.even), (odd, g.odd)):
        if values is None:
            tables.append(None)
            tails.append(np.zeros(q.shape))
            continue
        table = np.ascontiguousarray(product(values, matrix).T)
        part = 2 * np.einsum("bm,bm,m->b", values, values, g.weights)
        square += part
        tables.append(table)
        tails.append(part - np.einsum("kb,kb->b", table, table))
    return Coefficients(tables[0], tables[1], square, tails[0], tails[1])


def product(a: Array, b: Array) -> Array:
    """a @ b in blocks too small for BLAS to share among threads, whose number then cannot change the bits."""
    if a.shape[0] * a.shape[1] * b.shape[1] <= SINGLE_THREADED:
        return a @ b
    out = np.empty((a.shape[0], b.shape[1]))
    width = 32
    height = max(1, SINGLE_THREADED // (width * a.shape[1]))
    for j in range(0, b.shape[1], width):
        block = np.ascontiguousarray(b[:, j : j + width])
        for i in range(0, len(a), height):
            out[i : i + height, j : j + width] = a[i : i + height] @ block
    return out


def kinked_coefficients(
    activation: Activation, order: int, q: Array, n: int, half_width: float
) -> Coefficients:
    """As `coefficients`, for kinks anywhere: each variance has panels of its own that end at the kinks."""
    sigma = np.sqrt(np.maximum(q, 1e-300))[:, None]
    width = _panel_width(n)
    panels = np.linspace(-half_width, half_width, int(2 * half_width / width) + 1)
    kinks = np.clip(np.asarray(activation.kinks) / sigma, -half_width, half_width)
    edges = np.sort(np.concatenate([np.broadcast_to(panels, (len(q), len(panels))), kinks], axis=1), axis=1)
    z, weights = composite(edges)
    f = activation.derivative(order) if order else activation
    values = f(sigma * z) * weights * np.exp(-0.25 * z**2) / np.sqrt(2 * np.pi)
    square = np.sum(values**2 / np.where(weights > 0, weights, 1.0), axis=1) * np.sqrt(2 * np.pi)
    table = np.empty((n, len(q)))
    before, now = np.zeros_like(z), np.exp(-0.25 * z**2)
    for k in range(n):
        table[k] = np.einsum("bm,bm->b", values, now)
        before, now = now, (z * now - np.sqrt(k) * before) / np.sqrt(k + 1)
    tail = square - np.einsum("kb,kb->b", table, table)
    return Coefficients(table[0::2].copy(), table[1::2].copy(), square, tail, np.zeros_like(tail))


def batch_coefficients(
    activation: Activation, order: int, q: Array, n: int, half_width: float
) -> Coefficients:
    """The first n coefficients for every variance in q, by the quadrature that the activation's kinks ask
    for.
    """
    finest = _finest(activation, float(q.max()))
    if not activation.kinks:
        halvings = max(0, math.ceil(math.log2(max(_spacing(n) / finest, 1.0))))
        if halvings > MOST_HALVINGS:
            return graded_coefficients(activation, order, q, n)
        return coefficients(activation, order, q, grid(n, half_width, halvings))
    if kink_at_zero(activation):
        steepness = np.sqrt(float(q.max())) / activation.length_scale
        refinements = max(0, int(np.ceil(np.log2(max(steepness, 1e-3)))) + 1)
        return coefficients(activation, order, q, split_grid(n, half_width, refinements))
    if _panel_width(n) > PANEL_OF_STEPS * finest and not _polynomials(activation):
        return graded_coefficients(activation, order, q, n)
    return kinked_coefficients(activation, order, q, n, half_width)


def _finest(activation: Activation, q: float) -> float:
    """The step in z that follows a function's structure at variance q.

    Too few points do not show in the coefficients that they give: a bump between them is missed, and at a
    large variance so is where a saturating function turns.
    """
    length = activation.length_scale
    if activation.oscillation:
        length = min(length, 1.0 / activation.oscillation)
    share = BUILT_IN_STEP if activation.source is None else STEP_OF_LENGTH
    return share * length / math.sqrt(max(q, 1e-300))


@lru_cache(maxsize=256)
def _polynomials(activation: Activation) -> bool:
    """Whether a built-in function has no structure but its kinks."""
    return activation.source is None and piecewise_quadratic(activation) is not None


def _panel_width(n: int) -> float:
    return min(1.0, 16 / (2 * math.sqrt(n) + 10))


def graded_coefficients(activation: Activation, order: int, q: Array, n: int) -> Coefficients:
    """As `coefficients`, on panels that follow the function's structure wherever that is."""
    a = hermite_coefficients(activation, q, n, order).T
    square = np.array([second_moment(activation, max(float(v), SMALLEST), order) for v in q])
    tail = square - np.einsum("kb,kb->b", a, a)
    return Coefficients(a[0::2].copy(), a[1::2].copy(), square, tail, np.zeros_like(tail))


def derivative_parity(activation: Activation, order: int) -> str | None:
    """Parity of φ^(order)."""
    if activation.parity is None or order % 2 == 0:
        return activation.parity
    return "odd" if activation.parity == "even" else "even"


def series(c: Array, c_squared: Array, a: Coefficients, calls: int = 1) -> Array:
    """Σ_k a_ki a_kj c_ij^k for all pairs, shape (B, B)."""
    if a.odd is None:
        assert a.even is not None
        return pair_series(c_squared, a.even, calls)
    out = pair_series(c_squared, a.odd, calls)
    out *= c
    if a.even is not None:
        out += pair_series(c_squared, a.even, calls)
    return out


def kink_at_zero(activation: Activation) -> bool:
    """Whether a kink at 0 is all that the function has but smooth structure around it."""
    return activation.kinks == (0.0,) and not any(activation.scale_points)
