"""Gaussian fields over a batch's positions: what the weight layers of an infinitely wide network give.

At infinite width the outputs of a weight layer are independent Gaussian fields over inputs and positions, one
for each channel, and so are, under gradient independence, the gradients that it sends back. Each is known by
its kernel, a mean over every kind of pair of inputs. A `Panel` is a choice of the batch's inputs, as many of
each class, for which such a field is drawn without any B·P × B·P matrix: for exchangeable inputs the joint
covariance falls into one P × P matrix for differences within a class, one for differences between classes and
one for the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..signals.data import DataSummary
from ..signals.fields import Pairs

Array = np.ndarray

#: Noise added to a root's diagonal, in units of the kernel's mean variance: single precision and the means
#: over kinds of pairs leave small eigenvalues below 0.
JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class Panel:
    """The inputs that fields are drawn for: classes in turn, the same number of each.

    Attributes:
        chosen: positions in the batch, shape (members · classes,): all classes once, all a second time, …
        members: of each class.
        kinds: how many kinds of pairs the kernels tell apart.
    """

    chosen: Array
    members: int
    kinds: int

    @classmethod
    def of(cls, batch: DataSummary, pairs: Pairs, size: int) -> Panel:
        """About `size` inputs of the batch, at least one of as many classes as that allows."""
        order = batch.in_turn()
        kinds = len(pairs.counts)
        if kinds < 3:
            # No two kinds of different inputs: all of one class, or each of its own.
            return cls(order[: min(size, batch.size)], 1, kinds)
        classes, counts = np.unique(batch.targets, return_counts=True)
        if len(classes) >= size:
            return cls(order[: min(size, len(classes))], 1, kinds)
        members = max(1, min(round(size / len(classes)), int(counts.min())))
        return cls(order[: members * len(classes)], members, kinds)

    @property
    def size(self) -> int:
        """Number of inputs."""
        return len(self.chosen)

    @property
    def counts(self) -> Array:
        """Pairs of each kind, shape (T,)."""
        alike, unlike = self.size * (self.members - 1), self.size * (self.size - self.members)
        every = (float(self.size), float(alike), float(unlike))
        return np.array(every if self.kinds == 3 else every[:1] + every[2:][: self.kinds - 1])

    def expand(self, values: Array) -> Array:
        """(T,) for each kind of pair as a matrix over the inputs, (size, size)."""
        label = np.arange(self.size) % (self.size // self.members)
        kind = np.where(label[:, None] == label, 1, self.kinds - 1) if self.kinds == 3 else 1
        kind = np.broadcast_to(kind, (self.size, self.size)).copy()
        np.fill_diagonal(kind, 0)
        return values[kind]

    def roots(self, kernel: Array) -> tuple[Array, ...]:
        """Roots of the joint covariance's three parts for a kernel (T, P, P), each (P, P); see `draw`."""
        own, unlike = kernel[0], kernel[-1]
        if len(kernel) == 1 or self.size == 1:
            return (root(own),)
        alike = kernel[1] if self.kinds == 3 else own
        m, number = self.members, kernel.dtype.type
        inner = own + number(m - 1) * alike if m > 1 else own
        between = inner - number(m) * unlike
        whole = inner + number(self.size - m) * unlike
        parts = (root(whole), root(between))
        return (*parts, root(own - alike)) if m > 1 else parts

    def draw(self, roots: tuple[Array, ...], channels: int, rng: np.random.Generator) -> Array:
        """Fields of that covariance, (channels, P, size)."""
        positions = len(roots[0])
        normals = rng.standard_normal((channels, positions, self.size), dtype=np.float32)
        if len(roots) == 1:
            return roots[0] @ normals
        classes = self.size // self.members
        mean = normals.mean(axis=2, keepdims=True)
        means = normals.reshape(channels, positions, self.members, classes).mean(axis=2)
        field = np.tile(roots[1] @ (means - mean), (1, 1, self.members)) + roots[0] @ mean
        if len(roots) == 3:
            field += roots[2] @ (normals - np.tile(means, (1, 1, self.members)))
        return field


def root(covariance: Array) -> Array:
    """R with R Rᵀ = covariance but for what is below 0, single precision unless that has not the range."""
    size = float(np.trace(covariance, dtype=float)) / len(covariance)
    if not size > 0.0:
        return np.zeros(covariance.shape, np.float32)
    if len(covariance) == 1:
        return _single(np.sqrt(covariance), size)
    normal = covariance / covariance.dtype.type(size)
    # Cholesky's method in double precision, where it is no matter of time.
    normal = normal.astype(float, copy=False)
    for jitter in JITTERS:
        try:
            found = np.linalg.cholesky(normal + jitter * np.eye(len(normal)))
        except np.linalg.LinAlgError:
            continue
        return _single(found * math.sqrt(size), size)
    values, vectors = np.linalg.eigh(normal)
    return _single(vectors * np.sqrt(np.maximum(values, 0.0) * size), size)


def _single(values: Array, size: float) -> Array:
    return values.astype(np.float32 if 1e-24 < size < 1e24 else float)
