"""Which channels of a network are alike, so that SynFlow's sampled network takes a few of each class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Segment(NamedTuple):
    """A value's channels.

    Attributes:
        classes: in the order of the channels.
        repeat: flattened positions of each channel, each a channel of its own.
    """

    classes: list[int]
    repeat: int = 1


class Channels:
    """Classes of channels: those of one weight layer are one class, and those that meet in a sum share it."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._whole: set[int] = set()

    def new(self, size: int) -> int:
        """A class of so many channels."""
        self._parent.append(len(self._parent))
        self._size.append(size)
        return self._parent[-1]

    def keep_whole(self, *segments: Segment) -> None:
        """All channels of these are to be there, none sampled."""
        for segment in segments:
            self._whole.update(segment.classes)

    def added(self, segments: list[Segment]) -> Segment:
        """The channels of a sum: sampled alike, or all there where their classes differ."""
        first = segments[0]
        alike = len({tuple(self._size[self._root(k)] for k in s.classes) for s in segments}) == 1
        for other in segments[1:]:
            if alike:
                for a, b in zip(first.classes, other.classes, strict=True):
                    self._parent[self._root(b)] = self._root(a)
            else:
                self.keep_whole(first, other)
        return first

    def copies(self, segments: Iterable[Segment], channels: int | None, core: bool) -> list[Array]:
        """For every value, how many channels each sampled one stands for, (sampled channels,).

        Args:
            channels: about how many of each class are sampled; None: all.
            core: at most `channels` of each, standing for themselves.
        """
        fixed = {self._root(k) for k in self._whole}

        def of(k: int) -> Array:
            k = self._root(k)
            if channels is None or k in fixed:
                return np.ones(self._size[k], dtype=np.int64)
            if core:
                return np.ones(min(self._size[k], channels), dtype=np.int64)
            each = max(1, round(self._size[k] / channels))
            return np.full(-(-self._size[k] // each), each, dtype=np.int64)

        return [np.repeat(np.concatenate([of(k) for k in s.classes]), s.repeat) for s in segments]

    def _root(self, k: int) -> int:
        while self._parent[k] != k:
            k = self._parent[k]
        return k
