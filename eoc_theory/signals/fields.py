"""The distribution of a channel's values over a batch of images: what the kernels of a graph are made of.

A batch is taken as exchangeable: its pairs of inputs fall into a few kinds (an input with itself, two of one
class, two of different classes), and a kernel is known by its mean over each kind, position by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import Activation
from .covariance import scaled_root
from .shape import Shape

if TYPE_CHECKING:
    from .data import DataSummary

Array = np.ndarray


@dataclass(frozen=True)
class Pairs:
    """The kinds of pairs of inputs.

    Attributes:
        kind: kind of each pair, shape (B, B): 0 an input with itself, 1 two of one class (where
            distinguished), and last two others.
        counts: number of pairs of each kind, shape (T,); B² in all.
    """

    kind: Array
    counts: Array

    @property
    def batch(self) -> int:
        """Number of inputs B."""
        return len(self.kind)

    @property
    def shares(self) -> Array:
        """Share of each kind in the pairs, shape (T,)."""
        return self.counts / self.counts.sum()

    @classmethod
    def of(cls, batch: DataSummary) -> Pairs:
        """Kinds of the batch's pairs."""
        kind = np.where(batch.kinds[:, None] == batch.kinds, 1, 2)
        np.fill_diagonal(kind, 0)
        used, kind = np.unique(kind, return_inverse=True)
        kind = kind.reshape(batch.size, batch.size)
        return cls(kind, np.bincount(kind.ravel(), minlength=len(used)).astype(float))

    def mean(self, kernel: Array) -> Array:
        """Mean of (B, B) over each kind, shape (T,)."""
        return np.bincount(self.kind.ravel(), np.ravel(kernel), len(self.counts)) / self.counts

    def expand(self, values: Array) -> Array:
        """(T,) as (B, B)."""
        return values[self.kind]


@dataclass(frozen=True)
class Field:
    """One group of channels, whose values have one distribution.

    Attributes:
        channels: how many.
        moment: E[x_a(p) x_b(p')] for each kind of pair (a, b) and all positions, shape (T, P, P).
        mean: E[x(p)], shape (P,).
        space: extents of the axes, whose product is P.
        source: where x = φ(u) with Gaussian u, what u is, for a maximum over positions.
    """

    channels: int
    moment: Array
    mean: Array
    space: tuple[int, ...]
    source: Latent | None = None

    @property
    def positions(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> Array:
        """moment less the product of the means, (T, P, P)."""
        if not self.mean.any():
            return self.moment
        return self.moment - self.mean[:, None] * self.mean

    def draw(self, draws: int) -> list[tuple[Array, Array]]:
        """Gaussian fields of this kind, two (draws, P) for each kind of pair (the first twice one)."""
        kernel = self.covariance
        number = kernel.dtype.type
        rng = np.random.default_rng([0x6D6178, self.positions])
        common, own = _standard_normals(rng, draws, self.positions)
        alone = self.mean + common @ _root(kernel[0]).T.astype(number)
        pairs = [(alone, alone)]
        for other in kernel[1:]:
            # (u + v)/2 and (u − v)/2 are independent where u and v have one law.
            even = common @ _root(number(0.5) * (kernel[0] + other)).T.astype(number)
            odd = own @ _root(number(0.5) * (kernel[0] - other)).T.astype(number)
            pairs.append((self.mean + even + odd, self.mean + even - odd))
        return pairs

    def scaled(self, factor: float) -> Field:
        """The distribution of factor · x."""
        if factor == 1.0:
            return self
        number = self.moment.dtype.type
        return self.having(self.moment * number(factor**2), self.mean * number(factor))

    def having(self, moment: Array, mean: Array, space: tuple[int, ...] | None = None) -> Field:
        """Another law for the same channels."""
        return Field(self.channels, moment, mean, self.space if space is None else space)


@dataclass(frozen=True)
class Latent:
    """Gaussian field u with x = φ(u)."""

    field: Field
    activation: Activation


def _root(covariance: Array) -> Array:
    """R with R Rᵀ = covariance but for what means over kinds of pairs and rounding leave below 0."""
    scale = float(np.trace(covariance, dtype=float)) / len(covariance)
    if scale <= 0.0:
        return np.zeros_like(covariance)
    normal = (covariance / covariance.dtype.type(scale)).astype(float)
    return scaled_root(normal, scale, (1e-6, 1e-4, 1e-3))


def _standard_normals(rng: np.random.Generator, draws: int, positions: int) -> tuple[Array, Array]:
    """Two independent fields (draws, P), in antithetic pairs; many draws have their covariance exactly."""
    half = rng.standard_normal((-(-draws // 2), 2 * positions), dtype=np.float32)
    if len(half) >= 4 * positions:
        root = np.linalg.cholesky((half.T @ half / np.float32(len(half))).astype(float))
        half = (half @ np.linalg.inv(root).T.astype(np.float32)).astype(np.float32)
    both = np.concatenate([half, -half])[:draws]
    return both[:, :positions], both[:, positions:]


#: A node's value: its channels in groups of one law each.
Signal = tuple[Field, ...]


@dataclass(frozen=True)
class Gradient:
    """The distribution of the loss's derivative by a node's value, up to exp(log_scale).

    Attributes:
        groups: E[δ_a(p) δ_b(p')] of one channel of each group, shape (T, P, P).
        latent: a part that arrives at the Gaussian field below an activation, its slope already in it: the
            backward pass through a maximum, whose choice depends on the same field.
        log_scale: logarithm of the factor left out of both.
        gate: the activation whose slope at this node's own value is a factor of the gradient, where there is
            one and nothing else in it depends on that value.
    """

    groups: tuple[Array, ...]
    latent: tuple[Array, ...] | None = None
    log_scale: float = 0.0
    gate: Activation | None = None

    def times(self, factor: float) -> Gradient:
        """The gradient with every second moment multiplied."""

        if factor == 1.0:
            return self

        def multiply(parts: tuple[Array, ...] | None) -> tuple[Array, ...] | None:
            return None if parts is None else tuple(g * g.dtype.type(factor) for g in parts)

        return Gradient(multiply(self.groups) or (), multiply(self.latent), self.log_scale, self.gate)

    def normalised(self) -> Gradient:
        """The same with a largest second moment near 1, where it has left the middle of the floats' range."""
        parts = self.groups + (self.latent or ())
        largest = max(float(np.abs(g).max()) for g in parts)
        if largest == 0 or 1e-8 < largest < 1e8:
            return self
        scaled = self.times(1.0 / largest)
        return replace(scaled, log_scale=self.log_scale + float(np.log(largest)))

    def plus(self, other: Gradient) -> Gradient:
        """The sum of two independent gradients."""
        scale = max(self.log_scale, other.log_scale)
        a, b = (g.times(float(np.exp(g.log_scale - scale))) for g in (self, other))
        latent = a.latent if b.latent is None else b.latent if a.latent is None else _add(a.latent, b.latent)
        return Gradient(_add(a.groups, b.groups), latent, scale)


def _add(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def input_signal(batch: DataSummary, shape: Shape, pairs: Pairs, dtype: Any) -> Signal:
    """The data as a signal: moments are means over inputs, or pairs of inputs, and channels."""
    images = batch.inputs.reshape(batch.size, shape.channels, shape.positions)
    images = images.astype(dtype)
    flat = images.reshape(batch.size, -1)
    moments = []
    for number, count in enumerate(pairs.counts):
        # Σ over the kind's pairs x_a x_bᵀ, as x times what stands against it.
        others = flat if number == 0 else (pairs.kind == number).astype(dtype) @ flat
        product = _channelwise(images, others.reshape(images.shape))
        moments.append(product / dtype(count * shape.channels))
    moment = np.stack(moments)
    return (Field(shape.channels, moment, images.mean(axis=(0, 1)), shape.space),)


def _channelwise(x: Array, y: Array) -> Array:
    """Σ over inputs and channels of x(p) y(p'), (P, P), for x and y (B, C, P)."""
    positions = x.shape[-1]
    return x.reshape(-1, positions).T @ y.reshape(-1, positions)


def refine(signals: Sequence[Signal]) -> list[Signal]:
    """The same signals cut into groups of the same channels."""
    edges = np.unique(np.concatenate([np.cumsum([f.channels for f in signal]) for signal in signals]))
    sizes = np.diff(edges, prepend=0)
    return [
        tuple(
            replace(field, channels=int(size))
            for size, field in zip(sizes, _holding(signal, edges), strict=True)
        )
        for signal in signals
    ]


def coarsen(groups: Sequence[Array], sizes: Sequence[int], fine: Sequence[int]) -> tuple[Array, ...]:
    """The reverse of `refine` for a gradient: means over the fine groups that make up each of `sizes`."""
    result: list[Array] = []
    at = 0
    for size in sizes:
        parts: list[tuple[int, Array]] = []
        left = size
        while left > 0:
            parts.append((fine[at], groups[at]))
            left -= fine[at]
            at += 1
        mean = parts[0][1] if len(parts) == 1 else sum(g * g.dtype.type(n / size) for n, g in parts)
        result.append(np.asarray(mean))
    return tuple(result)


def _holding(signal: Signal, edges: Array) -> list[Field]:
    """The group of `signal` that ends at or after each edge."""
    ends = np.cumsum([f.channels for f in signal])
    return [signal[int(np.searchsorted(ends, edge))] for edge in edges]


def average(signal: Signal) -> Array:
    """Mean of the moments over all channels, (T, P, P)."""
    if len(signal) == 1:
        return signal[0].moment
    total = sum(f.channels for f in signal)
    result = np.zeros_like(signal[0].moment)
    for field in signal:
        result += field.moment * result.dtype.type(field.channels / total)
    return result
