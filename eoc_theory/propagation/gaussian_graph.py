"""Gradients of an infinitely wide network, channel by channel, from its kernels; no network is drawn.

Forwards, every weight layer's output is drawn as a Gaussian field under its own kernel
(`gaussian_fields`), independent of all that came before, and everything else (activations, normalisation,
pooling, sums) acts on those fields as it does in a network, with the statistics of the fields at hand.
Backwards the same: what a weight layer sends back is a Gaussian field under its kernel, and all others treat
it as a network's backward pass does. So rows δ of a weight layer's gradient g = Σ δ h know of gates, maxima
and batch statistics, and its columns h are the activations, the normalised and pooled signals and sums that
stand before it. The cost goes with the number of channels and the square of the number of positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layers import Weighted, WeightLayer
from ..layers.sampled_weights import Draw
from ..networks.graph import Graph
from ..signals.data import DataSummary
from ..signals.fields import Gradient, Pairs, Signal
from .gaussian_fields import Panel
from .graph_kernels import backward, forward_pass
from .infinite_width import Cotangent

Array = np.ndarray
#: Is given a weight layer's number, a repeat's number and the gradient of its weights (fan_out, fan_in).
Taker = Callable[[int, int, Array], None]

_FORWARDS, _BACKWARDS, _LOGITS = 1, 2, 3


@dataclass(frozen=True)
class _Sent:
    """A gradient by a node's value, values · exp(log_scale)."""

    values: Array
    log_scale: float

    def normalised(self) -> _Sent:
        """With a root mean square of 1."""
        flat = self.values.reshape(-1)
        peak = float(np.abs(flat).max(initial=0.0))
        if not 0.0 < peak < math.inf:
            return self
        values = self.values / self.values.dtype.type(peak)
        return _Sent(values, self.log_scale + math.log(peak))

    def __add__(self, other: _Sent) -> _Sent:
        if self.log_scale < other.log_scale:
            return other + self
        factor = other.values.dtype.type(math.exp(max(other.log_scale - self.log_scale, -700.0)))
        return _Sent(self.values + other.values * factor, self.log_scale)


class GaussianGraph:
    """`repeats` independent draws of all fields of a graph; `forwards` first, then `backwards`.

    Args:
        graph: whose kernels are known.
        sampled: the same with as many channels as are to be drawn; its layers act on the fields.
        batch: the whole batch.
        pairs: its kinds of pairs.
        inputs: how many of the batch's inputs the fields are drawn for, about.
        seed: of all draws.
        take: is given the gradients of the weights.
    """

    def __init__(
        self,
        graph: Graph,
        sampled: Graph,
        batch: DataSummary,
        pairs: Pairs,
        *,
        inputs: int,
        repeats: int,
        seed: int,
        take: Taker,
    ) -> None:
        self._graph, self._sampled, self._pairs, self._batch = graph, sampled, pairs, batch
        self.panel = Panel.of(batch, pairs, inputs)
        self._repeats, self._seed, self._take = repeats, seed, take
        self._numbers = {position: number for number, position in enumerate(graph.weighted)}
        shape = graph.input_shape
        images = batch.inputs[self.panel.chosen].T
        self._images = images.reshape(shape.channels, *shape.space, self.panel.size).astype(np.float32)
        self._begin()
        self.moments = np.zeros(len(graph.weighted)); self.corr = np.zeros(len(graph.weighted))

    def _begin(self) -> None:
        nodes = len(self._graph.nodes)
        self._values: list[list[Array]] = [[] for _ in range(nodes)]
        self._memories: list[list[Any]] = [[] for _ in range(nodes)]
        self._waiting = [len(users) for users in self._graph.consumers]
        self._arrived: list[list[_Sent] | None] = [None] * nodes

    # --- forwards ---

    def forwards(self) -> Any:
        """The kernels' forward pass, fields drawn on the way."""
        return forward_pass(self._graph, self._batch, self._pairs, self._see)

    def _see(self, position: int, signal: Signal) -> None:
        if position == 0:
            # Also where the pass starts anew in another precision.
            self._begin()
            self._values[0] = [self._images] * self._repeats
            return
        node = self._sampled.nodes[position]
        inputs = [self._values[source] for source in node.inputs]
        if node.layer.weighted is not None:
            self._memories[position] = inputs[0]
            self._values[position] = self._fields(position, node.layer.weighted, signal, inputs[0])
        else:
            made = [self._through(position, repeat, list(x)) for repeat, x in enumerate(zip(*inputs))]
            self._values[position] = [value for value, _ in made]
            self._memories[position] = [memory for _, memory in made]
        for source in node.inputs:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                self._values[source] = []

    def _through(self, position: int, repeat: int, inputs: list[Array]) -> tuple[Array, Any]:
        rng = self._rng(_FORWARDS, position, repeat)
        return self._sampled.nodes[position].layer.forward_values(inputs, Draw(rng, inputs[0].dtype.type))

    def _fields(
        self, position: int, layer: Weighted, signal: Signal, inputs: list[Array]
    ) -> list[Array]:
        """Outputs of a weight layer in every repeat."""
        shape = self._sampled.shapes[position]
        if self._sampled.nodes[position].inputs == (0,) and layer.groups == 1:
            # Of data the kernel is known input by input, as a product of few columns: its roots.
            columns = _columns(layer, inputs[0])
            patches = columns.reshape(-1, columns.shape[-1])
            return [self._of_data(layer.weight, patches, position, r, shape) for r in range(self._repeats)]
        return self._drawn(
            [field.moment for field in signal],
            _shared_out([field.channels for field in signal], shape.channels),
            (_FORWARDS, position),
            shape.space,
        )

    def _of_data(self, weight: WeightLayer, patches: Array, position: int, repeat: int, shape: Any) -> Array:
        rng = self._rng(_FORWARDS, position, repeat)
        normals = rng.standard_normal((shape.channels, len(patches)), dtype=np.float32)
        field = normals @ (patches * np.float32(weight.sigma_w / math.sqrt(len(patches))))
        field += np.float32(weight.sigma_b) * rng.standard_normal((shape.channels, 1), dtype=np.float32)
        return field.reshape(shape.channels, *shape.space, self.panel.size)

    def _drawn(
        self, kernels: list[Array], channels: list[int], stream: tuple[int, int], space: tuple[int, ...]
    ) -> list[Array]:
        """Fields (channels, *space, B) of these kernels, so many channels of each, in every repeat."""
        roots = [self.panel.roots(kernel) for kernel in kernels]
        found = []
        for repeat in range(self._repeats):
            rng = self._rng(*stream, repeat)
            parts = [self.panel.draw(own, n, rng) for own, n in zip(roots, channels, strict=True) if n]
            field = parts[0] if len(parts) == 1 else np.concatenate(parts)
            found.append(field.reshape(-1, *space, self.panel.size))
        return found

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 0x6669656C, *stream])

    # --- backwards ---

    def backwards(self, forward: Any, top: Cotangent) -> Array:
        """log E[(W g)²] of every weight layer, (L,), for all of the batch; fields drawn on the way.

        Args:
            forward: what `forwards` gave.
            top: what is sent backwards from the logits of the whole batch.
        """
        kinds = top.kernel(self._seed)
        part = Cotangent(
            top.logits[np.ix_(self.panel.chosen, self.panel.chosen)],
            top.targets[self.panel.chosen],
            top.classes,
            None if top.tangent is None else top.tangent[np.ix_(self.panel.chosen, self.panel.chosen)],
            top.exponent,
        )
        draws = part.draw(self._repeats, self._seed + 1)
        self._arrived[-1] = [_Sent(one.T.astype(np.float32), 0.0).normalised() for one in draws]
        self._values = []
        return backward(self._graph, forward, self._pairs, self._pairs.mean(kinds), seen=self._see_back)

    def _see_back(self, position: int, memory: Any, gradient: Gradient, sent: list[Gradient]) -> None:
        arrived = self._arrived[position]
        assert arrived is not None  # kernels and fields take the same paths
        self._arrived[position] = None
        node, kept = self._sampled.nodes[position], self._memories[position]
        self._memories[position] = []
        if node.layer.weighted is not None:
            ms = []
            for repeat, (delta, x) in enumerate(zip(arrived, kept, strict=True)):
                gradients = weight_gradient(node.layer.weighted, delta.values, x)
                ms.append(np.log(np.mean(gradients.astype(float)**2)) + 2*delta.log_scale)
                self._take(self._numbers[position], repeat, gradients)
            ms = np.array(ms)
            self.moments[self._numbers[position]] = np.log(np.mean(np.exp(ms-ms.max())))+ms.max() + 2*np.log(node.layer.weighted.weight.weight_std)
            d = np.array([np.log(np.mean(x.values.astype(float)**2)) + 2*x.log_scale for x in arrived])
            d = np.log(np.mean(np.exp(d-d.max())))+d.max()
            k = np.log(np.mean([np.trace(x[0],dtype=float)/x.shape[1] for x in gradient.groups])) + gradient.log_scale
            self.corr[self._numbers[position]] = d - k
            if sent:
                import os
                c = d-k if os.environ.get('CORR','1')=='1' else 0.
                from dataclasses import replace
                self._send(node.inputs[0], self._returned(position, replace(sent[0],log_scale=sent[0].log_scale+c), kept[0].shape))
            return
        if not sent:
            return
        back = [
            node.layer.backward_values(own, one.values) for own, one in zip(kept, arrived, strict=True)
        ]
        for at, source in enumerate(node.inputs):
            parts = [_Sent(one[at], own.log_scale) for one, own in zip(back, arrived, strict=True)]
            self._send(source, parts)

    def _send(self, source: int, parts: list[_Sent]) -> None:
        before = self._arrived[source]
        if before is not None:
            parts = [a + b for a, b in zip(before, parts, strict=True)]
        self._arrived[source] = [one.normalised() for one in parts]

    def _returned(self, position: int, gradient: Gradient, shape: tuple[int, ...]) -> list[_Sent]:
        """What a weight layer sends back in every repeat, to an input of `shape`, (channels, *space, B)."""
        kernels = gradient.groups
        if all(kernel is kernels[0] for kernel in kernels):
            kernels = kernels[:1]
        channels = _shared_out([1] * len(kernels), shape[0])
        fields = self._drawn(list(kernels), channels, (_BACKWARDS, position), shape[1:-1])
        return [_Sent(field, 0.5 * gradient.log_scale) for field in fields]


def _shared_out(parts: list[int], total: int) -> list[int]:
    """`total` channels shared out in proportion to `parts`."""
    edges = np.rint(np.cumsum(parts) * (total / sum(parts))).astype(int)
    return np.diff(edges, prepend=0).tolist()


def _columns(layer: Weighted, x: Array) -> Array:
    """What each tap of a layer sees of an input (C, *space, B), (C, taps, P_out · B)."""
    windows = layer.windows(x.shape[1:-1])
    flat = x.reshape(len(x), -1, x.shape[-1])
    outside = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
    return outside[:, windows].reshape(len(x), len(windows), -1)


def weight_gradient(layer: Weighted, delta: Array, x: Array) -> Array:
    """Σ over inputs and positions of δ h for every weight, shape (fan_out, fan_in).

    Args:
        delta: by the layer's output, (fan_out, *space, B).
        x: the layer's input, (channels, *space, B).
    """
    groups = layer.groups
    rows = delta.reshape(groups, len(delta) // groups, -1)
    columns = _columns(layer, x)
    columns = columns.reshape(groups, -1, columns.shape[-1])
    return np.matmul(rows, columns.swapaxes(1, 2)).reshape(len(delta), -1)
