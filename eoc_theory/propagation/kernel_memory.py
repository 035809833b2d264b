"""What a graph's layers keep of their kernels for the backward pass, a stretch of nodes at a time.

Kernels over all pairs of positions are large, and a dense network keeps several for every node. Where all of
them would be more than `WHOLE_BYTES`, `HELD_BYTES` are held at a time: the nodes before are forgotten and run
again when the backward pass comes to them, from the values that were under way there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..networks.graph import Graph
from ..signals.fields import Pairs, Signal

#: Bytes held for the backward pass, where it is done in stretches, and where it is not.
HELD_BYTES = 128 << 20
WHOLE_BYTES = 256 << 20


def kept_entries(graph: Graph) -> int:
    """Pairs of positions that a graph's nodes keep for the backward pass, for one kind of pair of inputs."""
    nodes = zip(graph.nodes, graph.shapes, strict=True)
    return sum(
        node.layer.kernel_entries([graph.shapes[i] for i in node.inputs], shape) for node, shape in nodes
    )


def is_held_whole(graph: Graph, pairs: Pairs, itemsize: int) -> bool:
    """Whether the backward pass is done in one stretch."""
    return kept_entries(graph) * len(pairs.counts) * itemsize <= WHOLE_BYTES


class KernelMemories:
    """Memories of a graph's nodes by position, in the order in which `put` was given them or any other."""

    def __init__(self, graph: Graph, pairs: Pairs, itemsize: int) -> None:
        """`itemsize` is that of the kernels' numbers."""
        self._graph, self._pairs = graph, pairs
        self._limit = math.inf if is_held_whole(graph, pairs, itemsize) else HELD_BYTES
        self._starts: list[tuple[int, dict[int, Signal]]] = []
        self._held: dict[int, Any] = {}
        self._bytes: float = math.inf
        self._gains: dict[int, float | None] = {}

    def begin(self, position: int, signals: list[Signal | None], waiting: list[int]) -> None:
        """Before a node is run: `signals` are all so far, `waiting` how often each is still to be taken."""
        if self._starts and self._bytes <= self._limit:
            return
        alive = {at: signal for at, signal in enumerate(signals) if signal is not None and waiting[at]}
        known = {id(array) for _, before in self._starts for array in _arrays(tuple(before.values()))}
        fresh = {
            id(array): array.nbytes for array in _arrays(tuple(alive.values())) if id(array) not in known
        }
        # Better where little is under way that is not held already.
        if not self._starts or sum(fresh.values()) <= HELD_BYTES // 2 or self._bytes > 2 * HELD_BYTES:
            self._starts.append((position, alive))
            self._held, self._bytes = {}, 0

    def put(self, position: int, memory: Any) -> None:
        """What a node keeps."""
        self._held[position] = memory
        self._bytes += sum({id(array): array.nbytes for array in _arrays(memory)}.values())
        self._gains[position] = self._graph.nodes[position].layer.kernel_gain(memory)

    def __getitem__(self, position: int) -> Any:
        if position == 0:
            return None
        if position not in self._held:
            self._held = {}
            self._held = self._again(position)
        return self._held[position]

    def gain(self, position: int) -> float | None:
        """By what a node multiplies a gradient's second moment; None for layers that are not asked."""
        return self._gains[position]

    def _again(self, position: int) -> dict[int, Any]:
        """Memories of the stretch of nodes that `position` is in."""
        first, signals = max((start for start in self._starts if start[0] <= position), key=lambda s: s[0])
        last = min((start for start, _ in self._starts if start > position), default=len(self._graph.nodes))
        signals, found = dict(signals), {}
        for at in range(first, last):
            node = self._graph.nodes[at]
            inputs = [signals[source] for source in node.inputs]
            signals[at], found[at] = node.layer.forward_kernel(inputs, self._pairs)
            for source in node.inputs:
                if max(self._graph.consumers[source]) <= at:
                    signals.pop(source, None)
        return found


def _arrays(memory: Any) -> Iterator[np.ndarray]:
    """All arrays in nested tuples, lists and dataclasses."""
    if isinstance(memory, np.ndarray):
        yield memory
    elif isinstance(memory, (tuple, list)):
        for part in memory:
            yield from _arrays(part)
    elif is_dataclass(memory) and not isinstance(memory, type):
        for part in fields(memory):
            yield from _arrays(getattr(memory, part.name))
