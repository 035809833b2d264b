"""Multi-head attention without its weights, which are fully connected layers before and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from .drawn import DrawnLayer
from .layer import Array, Shape, Width
from .random_numbers import Draw
from .softmax import softmax_

#: Queries whose scores are drawn to tell how evenly attention attends.
_QUERIES = 4096


@dataclass(frozen=True)
class Matrix:
    """Fixed numbers, such as a mask: a matrix or several; they are compared and hashed by their entries.

    Attributes:
        shape: (…, rows, columns).
        data: the entries in double precision, row by row.
    """

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: Any) -> Matrix:
        """The numbers of an array (…, rows, columns)."""
        array = np.ascontiguousarray(values, dtype=np.float64)
        return cls(tuple(array.shape), array.tobytes())

    @property
    def array(self) -> Array:
        """The entries, of `shape`."""
        return np.frombuffer(self.data).reshape(self.shape)

    def __repr__(self) -> str:
        return f"Matrix{self.shape}"


@dataclass(frozen=True)
class Attention(DrawnLayer):
    """softmax(scale · q·k + mask) v of three inputs q, k and v, head by head.

    Where it is `biased` a fourth input is added to the scores: biases of relative positions that layers with
    weights make, one channel for each head and a position for each pair of queries and keys, of all windows
    alike or of each. Where it is `padded` the last input, one channel over the positions of k, is 1 where a
    key counts and 0 where it is padding, which no query attends to (`KnownTokens`); or it is that of each
    pair of queries and keys.

    q has `heads` equal groups of channels, one after the other; k and v have `kv_heads` of them, each of
    which serves heads/kv_heads heads in a row (grouped queries). All positions of an input attend to all of
    the same input's, or those that a mask leaves; in `windows` equal runs of positions, all axes as one,
    those of a run to the same run's. Positions of k and v may be others than those of q (cross-attention).

    Attributes:
        heads, kv_heads: number of heads of q, and of k and v.
        scale: of the scores: 1/√d or 1/d for d channels a head, or any other.
        causal: whether a position attends to itself and those before it alone.
        drop: probability with which an attention weight is dropped, 0 in evaluation mode.
        mask: what is added to the scores, matrices (queries, keys) or (heads or 1, windows or 1, queries,
            keys); None for nothing.
        windows: runs of positions that attend each to itself.
        channelwise: whether, instead, channels of a head attend to channels of that head, by products over
            all positions (cross-covariance attention).
        biased, padded: which inputs there are beside q, k and v.
    """

    heads: int
    kv_heads: int
    scale: float
    causal: bool = False
    drop: float = 0.0
    mask: Matrix | None = None
    windows: int = 1
    channelwise: bool = False
    biased: bool = False
    padded: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) != 3 + self.biased + self.padded:
            raise self.refuse("three inputs, q, k and v, and biases or padding", len(inputs))
        q, k, v = inputs[:3]
        biases, padding = self._beside(inputs)
        if padding is not None:
            self._check_padding(padding, q, k)
        shown = f"q {q}, k {k} and v {v}"
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise self.refuse("a multiple of kv_heads as heads", f"{self.heads} and {self.kv_heads}")
        if not (q.space and k.space and k.space == v.space):
            raise self.refuse("tokens, as many of k as of v", shown)
        if q.channels % self.heads or k.channels % self.kv_heads or v.channels % self.kv_heads:
            raise self.refuse(f"channels for {self.heads} heads ({self.kv_heads} of k and v)", shown)
        if self.channelwise:
            if q.positions != k.positions or k.channels != v.channels or self.windows > 1:
                raise self.refuse("the same positions, and as many channels of v as of k", shown)
            return Shape(q.channels, v.space)
        if q.channels // self.heads != k.channels // self.kv_heads:
            raise self.refuse("as many channels in a head of q as of k", shown)
        if q.positions % self.windows or k.positions % self.windows:
            raise self.refuse(f"positions in {self.windows} windows", shown)
        if self.mask is not None and not self._fits(self.mask.shape, q.positions, k.positions):
            raise self.refuse(f"a mask for {q.positions} queries and {k.positions} keys", self.mask)
        pairs = q.positions * k.positions // self.windows
        if any(b.channels != self.heads or b.positions not in (pairs, pairs // self.windows) for b in biases):
            raise self.refuse(f"biases of {self.heads} heads for {pairs} pairs", biases[0])
        return Shape(v.channels // self.kv_heads * self.heads, q.space)

    def _beside(self, inputs: Sequence[Any]) -> tuple[Sequence[Any], Any]:
        """Biases and padding among the inputs."""
        return inputs[3 : 3 + self.biased], inputs[-1] if self.padded else None

    def _check_padding(self, padding: Shape, q: Shape, k: Shape) -> None:
        whole = not self.channelwise and self.windows == 1 and padding.channels == 1
        if not whole or padding.positions not in (k.positions, q.positions * k.positions):
            raise self.refuse(f"padding of {k.positions} keys in one window", padding)

    def _fits(self, mask: tuple[int, ...], queries: int, keys: int) -> bool:
        """Whether a mask is one for so many positions."""
        *lead, rows, columns = mask
        whole = (self.heads, self.windows)
        return (rows * self.windows, columns * self.windows) == (queries, keys) and (
            not lead or (len(lead) == 2 and all(n in (1, m) for n, m in zip(lead, whole, strict=True)))
        )

    @property
    def attends(self) -> bool:
        return True

    def with_scores_times(self, factor: float) -> Attention:
        # What is added to the scores stays as it is.
        return replace(self, scale=self.scale * factor)

    @property
    def head_groups(self) -> int:
        return self.kv_heads

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        # Scores of independent q and k are Gaussian, and tokens' values uncorrelated.
        q, k = shapes[0], shapes[1]
        terms = q.positions if self.channelwise else q.channels / self.heads
        std = math.sqrt(self.scale**2 * inputs[0] * inputs[1] * terms + sum(self._beside(inputs)[0]))
        queries, keys = q.positions // self.windows, k.positions // self.windows
        if self.channelwise:
            queries, keys = q.channels // self.heads, k.channels // self.kv_heads
        added = self._added(queries, keys, np.float64)
        added = added.reshape(-1, queries, keys)
        rows = max(1, -(-_QUERIES // queries))
        normals = np.random.default_rng(0x61747465).standard_normal((rows, queries, keys))
        weights = softmax_(std * normals + added[np.arange(rows) % len(added)])
        return inputs[2] * float(np.mean(np.sum(weights**2, axis=-1)) / (1.0 - self.drop))

    def variance_gain(self, mean_square: float) -> float:
        return math.nan

    def narrowed(
        self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width
    ) -> Attention:
        # Heads keep their channels, and are fewer.
        size = whole[0].channels // self.heads
        heads, kv_heads = inputs[0].channels // size, inputs[1].channels // size
        fits = inputs[0].channels == heads * size and inputs[1].channels == kv_heads * size
        if not fits or min(heads, kv_heads) < 1 or heads % kv_heads:
            raise ModelError(f"layer {self.name!r} has heads that cannot be narrowed")
        mask = self.mask
        if mask is not None and mask.shape[:-2] and mask.shape[0] > 1:
            mask = Matrix.of(mask.array[:heads])
        return replace(self, heads=heads, kv_heads=kv_heads, mask=mask)

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        q, k, v = self._split(inputs)
        weights = self._weights(q, k, *self._beside(inputs))
        dropped = None
        if self.drop > 0:
            dropped = draw.uniform(weights.shape) >= self.drop
            weights *= dropped / weights.dtype.type(1.0 - self.drop)
        value = self._joined(weights @ v, inputs[0].shape[1:])
        # Attention weights are made again on the way back: they are what is largest here.
        return value, (tuple(inputs), dropped)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        inputs, dropped = memory
        q, k, v = self._split(inputs)
        weights = self._weights(q, k, *self._beside(inputs))
        sent = self._of_heads(gradient, self.heads)
        by_weights = sent @ v.swapaxes(-1, -2)
        used = weights
        if dropped is not None:
            kept = dropped / weights.dtype.type(1.0 - self.drop)
            used, by_weights = weights * kept, by_weights * kept
        to_v = used.swapaxes(-1, -2) @ sent
        by_weights -= np.sum(weights * by_weights, axis=-1, keepdims=True)
        by_scores = weights * by_weights
        to_biases = [self._by_bias(by_scores, bias) for bias in self._beside(inputs)[0]]
        by_scores *= weights.dtype.type(self.scale)
        to_q, to_k = by_scores @ k, by_scores.swapaxes(-1, -2) @ q
        return [
            self._joined(to_q, inputs[0].shape[1:]),
            self._joined(self._grouped(to_k), inputs[1].shape[1:]),
            self._joined(self._grouped(to_v), inputs[2].shape[1:]),
            *to_biases,
            *(np.zeros_like(padding) for padding in inputs[-1:] if self.padded),
        ]

    def _by_bias(self, by_scores: Array, bias: Array) -> Array:
        """The gradient of biases (heads, *space, B) from that of the scores."""
        sent = np.moveaxis(by_scores, 1, -1)
        if bias.size < sent.size:
            sent = sent.sum(axis=1)
        return np.ascontiguousarray(sent).reshape(bias.shape)

    def scores(self, inputs: Sequence[Array]) -> Array:
        """What the softmax is given, (heads, B, windows, queries, keys); −∞ for keys that are not seen."""
        q, k, _ = self._split([*inputs[:2], inputs[1]])
        return self._scores(q, k, *self._beside(inputs))

    def _split(self, inputs: Sequence[Array]) -> tuple[Array, Array, Array]:
        """q, k and v by heads, (heads, B, windows, positions, channels), or channels first."""
        q = self._of_heads(inputs[0], self.heads)
        k, v = (self._of_heads(x, self.kv_heads) for x in inputs[1:3])
        shared = self.heads // self.kv_heads
        return (q, k, v) if shared == 1 else (q, np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0))

    def _grouped(self, values: Array) -> Array:
        """The sum over the heads that share k and v."""
        shared = self.heads // self.kv_heads
        return values if shared == 1 else values.reshape(self.kv_heads, shared, *values.shape[1:]).sum(axis=1)

    def _weights(self, q: Array, k: Array, biases: Sequence[Array], padding: Array | None) -> Array:
        return softmax_(self._scores(q, k, biases, padding))

    def _scores(self, q: Array, k: Array, biases: Sequence[Array], padding: Array | None) -> Array:
        """As `scores`; `padding` is (1, *positions of k, or pairs, B)."""
        scores = q @ k.swapaxes(-1, -2)
        scores *= scores.dtype.type(self.scale)
        for bias in biases:
            scores += np.moveaxis(bias.reshape(len(bias), -1, *scores.shape[-2:], bias.shape[-1]), -1, 1)
        if self.causal or self.mask is not None:
            scores += self._added(q.shape[-2], k.shape[-2], scores.dtype)
        if padding is not None:
            known = padding.reshape(-1, padding.shape[-1]).T.reshape(q.shape[1], -1, k.shape[-2]) > 0.5
            # A query that sees no key, as padding before a text under a causal mask, attends as without.
            closed = np.where(known[:, None], scores, -np.inf)
            scores = np.where(np.isneginf(closed).all(axis=-1, keepdims=True), scores, closed)
        return scores

    def _added(self, queries: int, keys: int, dtype: Any) -> Array:
        """What is added to the scores, (heads or 1, 1, windows or 1, queries, keys)."""
        added = np.zeros((queries, keys)) if self.mask is None else self.mask.array.copy()
        if self.causal:
            later = np.triu_indices(queries, 1, keys)
            added[(..., *later)] = -np.inf
        lead = added.shape[:-2] or (1, 1)
        return added.astype(dtype).reshape(lead[0], 1, lead[1], queries, keys)

    def _of_heads(self, x: Array, heads: int) -> Array:
        """(channels, *space, B) as (heads, B, windows, positions, channels of a head), or channels first."""
        cut = x.reshape(heads, len(x) // heads, self.windows, -1, x.shape[-1])
        order = (0, 4, 2, 1, 3) if self.channelwise else (0, 4, 2, 3, 1)
        return np.ascontiguousarray(cut.transpose(order))

    def _joined(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The reverse, for values of (channels, *shape)."""
        order = (0, 3, 2, 4, 1) if self.channelwise else (0, 4, 2, 3, 1)
        joined = np.ascontiguousarray(x.transpose(order))
        return joined.reshape(-1, *shape)
