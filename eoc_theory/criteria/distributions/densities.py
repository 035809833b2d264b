"""Criteria that fix each layer's density and choose inside it by chance: uniform, erk and smart-ratio.

Nothing here is random but which weights of a layer they are.

A layer's j-th weight in random order is kept once ε q_l reaches j − 1/2, q_l the number that it wants of a
unit of ε: all layers' wants grow in proportion until they are full, so what full layers cannot take goes to
the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
#: Extents of one layer's weight: outputs, inputs, then those of a kernel.
Extents = tuple[int, ...]


@dataclass(frozen=True)
class Densities:
    """How layers share any number of kept weights.

    Attributes:
        weights: number of weights of each layer, int64 (L,).
        q: weights that each layer wants of one unit, (L,).
        held: weights of each layer that come before all that are shared, int64 (L,): their layer keeps these
            and no others until all other layers are full. 0 in the layers that share.
    """

    weights: Array
    q: Array
    held: Array

    @classmethod
    def shared(cls, shapes: Sequence[Extents], q: Array) -> Densities:
        """All weights of layers of these shapes are shared."""
        weights = sizes(shapes)
        return cls(weights, q, np.zeros_like(weights))

    def counts(self, kept: int) -> Array:
        """Numbers each layer keeps, (L,), `kept` in all."""
        first, sharing = self.held, self.held == 0
        if kept <= first.sum():
            return self._spread(first, first > 0, kept)
        free = int(self.weights[sharing].sum())
        shared = self._spread(self.weights, sharing, min(kept - int(first.sum()), free))
        last = self._spread(self.weights - first, ~sharing, kept - int(first.sum()) - int(shared.sum()))
        return first + shared + last

    def critical_sparsity(self) -> tuple[float, Array]:
        """s_cr, and the layers that go first, bool (L,): of those that share, those with the smallest q."""
        sharing = self.held == 0
        lost, weakest = critical_sparsity(self.weights[sharing], self.q[sharing])
        gone = np.zeros(len(self.weights), dtype=bool)
        gone[sharing] = weakest
        left = (1.0 - lost) * float(self.weights[sharing].sum()) + float(self.held.sum())
        return 1.0 - left / float(self.weights.sum()), gone

    def scores(self, rng: np.random.Generator) -> Iterator[Array]:
        """Each layer's scores, (n_l,), such that any global threshold keeps `counts`.

        The j-th weight of a layer in random order is kept once the layer's wanted number ε·q reaches j − 1/2:
        its score is q/(j − 1/2). Held weights come before all of these, and the rest of their layer after.
        """
        low, high = float((self.q / self.weights).min()), float(self.q.max())
        for n, q, held in zip(self.weights, self.q, self.held, strict=True):
            order = rng.permutation(int(n)) + 0.5
            score = q / order
            if held:
                # Between 0 and low/2, and from 2·high on: 2·high is more than any weight that shares has.
                score = np.where(order < held, 4.0 * high * held / order, 0.25 * low / order)
            yield score

    def _spread(self, sizes: Array, among: Array, kept: int) -> Array:
        """`kept` weights shared among some layers, the others having none, (L,)."""
        found = np.zeros_like(self.weights)
        if kept > 0:
            found[among] = kept_counts(sizes[among], self.q[among], kept)
        return found


def sizes(shapes: Sequence[Extents]) -> Array:
    """Numbers of weights of layers of these shapes, int64 (L,)."""
    return np.array([math.prod(shape) for shape in shapes], dtype=np.int64)


def kept_counts(weights: Array, q: Array, kept: int) -> Array:
    """Numbers each layer keeps, (L,), `kept` in all; a remainder between equal demands is shared evenly."""
    low, high = 0.0, 2.0 * float((weights / q).max()) + 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if _reached(weights, q, middle).sum() < kept else (low, middle)
    sure = _reached(weights, q, low)
    tied = _reached(weights, q, high) - sure
    missing, ties = kept - int(sure.sum()), int(tied.sum())
    if ties == 0:
        return sure
    return sure + np.diff(np.cumsum(tied) * missing // ties, prepend=0)


def _reached(weights: Array, q: Array, epsilon: float) -> Array:
    return np.minimum(np.floor(epsilon * q + 0.5).astype(np.int64), weights)


def critical_sparsity(weights: Array, q: Array) -> tuple[float, Array]:
    """s_cr, and the layers that go first, bool (L,): those with the smallest q, at ε = 1/(2 q)."""
    weakest = q == q.min()
    # Left: weights with j − 1/2 < q_l/(2 q_min), strictly.
    left = np.minimum(np.ceil(q / (2.0 * q.min()) - 0.5).astype(np.int64), weights)
    left[weakest] = 0
    return 1.0 - float(left.sum()) / float(weights.sum()), weakest


def erdos_renyi_kernel(shapes: Sequence[Extents]) -> Array:
    """q_l (L,): n_l times the layer's density, (the sum of its weight's extents)/n_l.

    Erdős–Rényi-kernel densities, (n_in + n_out)/(n_in n_out) for a fully connected layer and
    (n_in + n_out + k_h + k_w)/(n_in n_out k_h k_w) for a convolution: Evci et al. 2020, section 3.
    """
    return np.array([float(sum(shape)) for shape in shapes])
