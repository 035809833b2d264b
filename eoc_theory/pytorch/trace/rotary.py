"""Rotations by position, written out with sines and cosines: found in what they make of each channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...layers import Matrix, Rotary
from . import layout as lay
from .channel_groups import channel_groups
from .constants import number
from .layout import CHANNELS
from .recorder import Recorder, describe
from .values import Constant, Lazy, Signal

#: Rounding of sines and cosines in single precision at large angles.
_CLOSE = 2e-3


@dataclass(frozen=True, eq=False)
class Turned(Lazy):
    """Sums of a head's channels with coefficients of each position, in the last dimension of a tensor.

    Attributes:
        base: the tensor whose last dimension holds a head's channels.
        factors: of the terms of each entry, (terms, positions or 1, *entries).
        sources: which channel each term takes, (terms, *entries).
    """

    base: Signal
    factors: np.ndarray
    sources: np.ndarray

    @classmethod
    def of(cls, base: Signal) -> Turned:
        """The tensor itself."""
        size = base.sizes[-1]
        return cls(base, np.ones((1, 1, size)), np.arange(size)[None])

    @property
    def matrix(self) -> np.ndarray:
        """What each of the channels counts for in each entry, (positions or 1, entries, channels)."""
        _, positions, entries = self.factors.shape
        found = np.zeros((positions, entries, self.base.sizes[-1]))
        for factor, source in zip(self.factors, self.sources, strict=True):
            found[:, np.arange(entries), source] += factor
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*self.base.sizes[:-1], *self.sources.shape[1:])

    @property
    def _tokens(self) -> int:
        """The dimension of the positions."""
        return next(d for d, dimension in enumerate(self.base.layout) if lay.of_positions(dimension))

    def part(self, part: slice) -> Turned:
        """Some of the entries of the last dimension."""
        return replace(self, factors=self.factors[..., part], sources=self.sources[..., part])

    def times(self, recorder: Recorder, factor: Any) -> Turned:
        """With a factor for all, or one for each entry and position."""
        factor = number(factor)
        if isinstance(factor, float):
            return replace(self, factors=self.factors * factor)
        if not isinstance(factor, Constant):
            raise recorder.refuse(
                f"multiplies a head's channels by fixed numbers only, got {describe(factor)}"
            )
        sizes, tensor = self.sizes, factor.tensor.detach().double()
        tensor = tensor.reshape((1,) * (len(sizes) - tensor.dim()) + tuple(tensor.shape))
        fits = len(tensor.shape) == len(sizes) and all(
            n in (1, m) for n, m in zip(tensor.shape, sizes, strict=True)
        )
        if not fits or self.sources.ndim != 2:
            raise recorder.refuse(f"multiplies {sizes} by {describe(factor)}")
        # Inputs and heads that the numbers do not differ in have no extent of their own here.
        wanted = [n if d in (self._tokens, len(sizes) - 1) else -1 for d, n in enumerate(sizes)]
        whole = tensor.expand(wanted).movedim((self._tokens, -1), (0, 1))
        own = whole.reshape(sizes[self._tokens], sizes[-1], -1)
        if not bool((own == own[..., :1]).all()):
            raise recorder.refuse("multiplies a head's channels by numbers that inputs or heads differ in")
        return replace(self, factors=self.factors * own[..., 0].numpy())

    def plus(self, recorder: Recorder, other: Any, factor: float = 1.0) -> Turned:
        """With another sum of the same channels added."""
        other = _like(recorder, self.base, other)
        factors = _alike([self.factors, factor * other.factors])
        return replace(
            self, factors=np.concatenate(factors), sources=np.concatenate([self.sources, other.sources])
        )

    def read(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        first = given.get("input")
        if name == "mul":
            other = given["other"] if first is self else first
            return NotImplemented if isinstance(other, (Signal, Turned)) else self.times(recorder, other)
        if name == "neg":
            return self.times(recorder, -1.0)
        if name in ("to", "_to_copy", "contiguous", "type_as") and first is self:
            return self
        if name in ("add", "sub"):
            return self._added(recorder, name, given)
        if name in ("cat", "stack") and given["dim"] in (-1, len(self.sizes) - (name == "cat")):
            return self._joined([_like(recorder, self.base, part) for part in given["tensors"]], name)
        if name == "slice" and given["dim"] % len(self.sizes) == len(self.sizes) - 1:
            return self.part(slice(given["start"], given["end"], given["step"]))
        if name in ("flatten", "view", "reshape", "_unsafe_view", "reshape_as", "view_as"):
            return self._flattened()
        return NotImplemented

    def _added(self, recorder: Recorder, name: str, given: dict[str, Any]) -> Any:
        left, right = given["input"], given["other"]
        if not all(isinstance(value, (Signal, Turned)) for value in (left, right)):
            return NotImplemented
        factor = float(number(given["alpha"])) * (1.0 if name == "add" else -1.0)
        return _like(recorder, self.base, left).plus(recorder, right, factor)

    def _joined(self, parts: list[Turned], name: str) -> Turned:
        """Their entries one after the other ("cat"), or in turns once they are flattened ("stack")."""
        terms = max(len(part.factors) for part in parts)
        factors = _alike([_filled(part.factors, terms) for part in parts])
        sources = [_filled(part.sources, terms) for part in parts]
        join: Any = np.concatenate if name == "cat" else np.stack
        return replace(self, factors=join(factors, axis=-1), sources=join(sources, axis=-1))

    def _flattened(self) -> Any:
        """Neighbours that were stacked, as one dimension again."""
        if self.sources.ndim != 3:
            return NotImplemented
        factors = self.factors.reshape(*self.factors.shape[:2], -1)
        return replace(self, factors=factors, sources=self.sources.reshape(len(self.sources), -1))

    def settled(self, recorder: Recorder) -> Signal:
        size, entries = self.base.sizes[-1], self.sources.shape[1]
        if self.sources.ndim == 2 and entries < size:
            chosen = range(int(self.sources[0, 0]), int(self.sources[0, 0]) + entries)
            if self.factors.shape[:2] == (1, 1) and bool((self.factors == 1.0).all()):
                if self.sources[0].tolist() == list(chosen):
                    return channel_groups(recorder, self.base, len(self.base.sizes) - 1, chosen)
        if self.sources.ndim == 2 and entries < size:
            return self._within(recorder, entries).settled(recorder)
        found = self._rotation(recorder) if self.sources.shape[1:] == (size,) else None
        if found is None:
            raise recorder.refuse("takes sums of a head's channels that are no rotation by the position")
        angles, interleaved = found
        if not angles.size:
            return self.base
        frequencies = angles[:, 1] if angles.shape[1] > 1 else np.zeros(len(angles))
        steady = np.outer(frequencies, np.arange(angles.shape[1]))
        layer = Rotary(recorder.label(), size, tuple(map(float, frequencies)), interleaved)
        if not np.allclose(np.exp(1j * steady), np.exp(1j * angles), atol=_CLOSE):
            layer = Rotary(recorder.label(), size, (), interleaved, Matrix.of(angles))
        made = recorder.add(layer, recorder.position(self.base))
        return replace(made, layout=self.base.layout)

    def _within(self, recorder: Recorder, entries: int) -> Turned:
        """The same sums of a part of the head's channels, neighbours as many as there are entries."""
        taken = np.flatnonzero(np.abs(self.matrix).max(axis=(0, 1)))
        first = int(taken.min()) if len(taken) else 0
        if len(taken) and taken.max() >= first + entries:
            raise recorder.refuse("takes sums of a head's channels that are no rotation by the position")
        part = channel_groups(recorder, self.base, len(self.base.sizes) - 1, range(first, first + entries))
        # Terms with the factor 0 may name any channel.
        return Turned(part, self.factors, np.clip(self.sources - first, 0, entries - 1))

    def _rotation(self, recorder: Recorder) -> tuple[np.ndarray, bool] | None:
        """As `rotation` finds it; all blocks of a network turn alike."""
        key = self.factors.shape, self.factors.tobytes(), self.sources.tobytes()
        if key not in recorder.rotations:
            recorder.rotations[key] = rotation(self.matrix)
        return recorder.rotations[key]


def is_of_heads(signal: Signal) -> bool:
    """Whether the last dimension holds the channels of one of several heads."""
    last = signal.layout[-1] if signal.layout else ()
    own = len(last) == 1 and last[0].axis == CHANNELS and last[0].stride == 1
    tokens = [d for d in signal.layout if d and d == lay.of_positions(d)]
    return own and len(tokens) == 1 and len(signal.layout) == 4 and (
        last != lay.whole(CHANNELS, signal.shape.channels) or () in signal.layout
    )  # fmt: skip


def _like(recorder: Recorder, base: Signal, value: Any) -> Turned:
    """A sum of the same tensor's channels."""
    if isinstance(value, Signal) and value.root == base.root and value.layout == base.layout:
        return Turned.of(base)
    if isinstance(value, Turned) and value.base.root == base.root and value.base.layout == base.layout:
        return value
    raise recorder.refuse("joins channels of a head with something else, which cannot be read")


def _alike(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Factors (terms, positions or 1, *entries) of all positions, where some have them."""
    whole = max(part.shape[1] for part in parts)
    return [np.broadcast_to(part, (len(part), whole, *part.shape[2:])) for part in parts]


def _filled(part: np.ndarray, terms: int) -> np.ndarray:
    """With as many terms, the last of them 0."""
    missing = np.zeros((terms - len(part), *part.shape[1:]), part.dtype)
    return np.concatenate([part, missing])


def rotation(matrix: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """Angles (pairs, positions), and whether pairs are neighbours.

    Of rotations (positions, channels, channels); None where they are no rotations of pairs of channels.
    """
    size = matrix.shape[-1]
    if np.allclose(matrix, np.eye(size), atol=1e-6):
        return np.zeros((0, len(matrix))), False
    if len(matrix) < 2:
        return None
    turned = np.flatnonzero(np.abs(matrix - np.eye(size)).max(axis=(0, 2)) > 1e-7)
    pairs = (int(turned.max()) + 2) // 2
    for interleaved in (False, True):
        first, second = (
            (np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2))
            if interleaved
            else (np.arange(pairs), np.arange(pairs, 2 * pairs))
        )
        if second.max() >= size:
            continue
        angles = np.arctan2(matrix[:, second, first], matrix[:, first, first])
        expected = np.zeros(matrix.shape) + np.eye(size)
        expected[:, first, first] = expected[:, second, second] = np.cos(angles)
        expected[:, second, first] = np.sin(angles)
        expected[:, first, second] = -np.sin(angles)
        if np.allclose(matrix, expected, atol=_CLOSE):
            return angles.T, interleaved
    return None
