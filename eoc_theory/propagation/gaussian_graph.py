"""Gradients of an infinitely wide network, channel by channel; no network is drawn.

At infinite width the channels of a layer are independent draws of one process. Forwards, a weight layer's
output is a Gaussian field over inputs and positions whose covariance is that of the layer's inputs, moved by
its taps, and everything else (activations, normalisation, pooling, sums) acts on each channel by itself.
Backwards the same under gradient independence. So channels of this process are drawn, layer by layer: from
those of one layer the covariance is estimated that the next layer's fields are drawn with, averaged over
inputs that are alike (`gaussian_fields`). What no weights separate (the stream of a residual network, a
gate and its gradient, a maximum, a batch's statistics) stays together, as in a network.

The covariance behind the first weight layer is known from the data themselves, input by input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..layers import Shape, Weighted
from ..layers.sampled_weights import Draw
from ..networks.graph import Graph
from ..signals.data import DataSummary
from ..signals.fields import Field, Gradient, Pairs
from .gaussian_fields import FieldLaw, Panel, draw_field
from .infinite_width import Cotangent

Array = np.ndarray
#: Is given a weight layer's number, a repeat's number and the gradient of its weights (fan_out, fan_in), up
#: to a factor that is the layer's own.
Taker = Callable[[int, int, Array], None]

_FORWARDS, _BACKWARDS = 1, 2


@dataclass(frozen=True)
class _Sent:
    """A gradient by a node's value, values · exp(log_scale)."""

    values: Array
    log_scale: float

    def normalised(self) -> _Sent:
        """With entries of an ordinary size."""
        peak = float(np.abs(self.values).max(initial=0.0))
        if not 0.0 < peak < math.inf:
            return self
        return _Sent(self.values / self.values.dtype.type(peak), self.log_scale + math.log(peak))

    def __add__(self, other: _Sent) -> _Sent:
        if self.log_scale < other.log_scale:
            return other + self
        factor = other.values.dtype.type(math.exp(max(other.log_scale - self.log_scale, -700.0)))
        return _Sent(self.values + other.values * factor, self.log_scale)


@dataclass(frozen=True)
class _Passed:
    """What a weight layer keeps of the way forwards.

    Attributes:
        inputs: (channels, *space, B) in each repeat, up to exp of the law's scale.
        law: of its inputs moved by its taps.
        memory: what `Weighted.backward_kernel` needs.
    """

    inputs: list[Array]
    law: FieldLaw
    memory: Any


class GaussianGraph:
    """`repeats` independent draws of as many channels as `graph` has: `forwards` first, then `backwards`.

    Args:
        graph: the network, or one of other widths.
        batch: the whole batch.
        inputs: how many of the batch's inputs the fields are drawn for, about.
        repeats: draws of the whole graph.
        seed: of all draws.
        take: is given the gradients of the weights.
    """

    def __init__(
        self, graph: Graph, batch: DataSummary, *, inputs: int, repeats: int, seed: int, take: Taker
    ) -> None:
        self._graph, self._repeats, self._seed, self._take = graph, repeats, seed, take
        self.panel = Panel.of(batch, inputs)
        self._part = batch.take(self.panel.chosen)
        self._pairs = Pairs.of(self._part)
        self._numbers = {position: number for number, position in enumerate(graph.weighted)}
        self._memories: list[Any] = [None] * len(graph.nodes)
        self._logits: FieldLaw | None = None

    # --- forwards ---

    def forwards(self) -> Array:
        """Kernel of the logits of the panel's inputs, (B, B)."""
        graph, shape = self._graph, self._graph.input_shape
        images = self._part.inputs.T.reshape(shape.channels, *shape.space, self.panel.size)
        values: list[Any] = [None] * len(graph.nodes)
        values[0] = [images.astype(np.float32)] * self._repeats
        waiting = [len(users) for users in graph.consumers]
        for position, node in enumerate(graph.nodes[1:], start=1):
            inputs = [values[source] for source in node.inputs]
            if node.layer.weighted is not None:
                values[position] = self._weighted(position, node.layer.weighted, inputs[0])
            else:
                values[position] = self._others(position, inputs)
            for source in node.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    values[source] = None
        logits = np.concatenate([one.reshape(-1, self.panel.size) for one in values[-1]]).astype(float)
        assert self._logits is not None
        return self._kernel_of(self._logits)

    def _kernel_of(self, law: FieldLaw) -> Array:
        kinds = self.panel.kinds(law.parts)[:, 0, 0]
        label = np.arange(self.panel.size) % self.panel.classes
        kernel = np.where(label[:, None] == label, kinds[1], kinds[2])
        np.fill_diagonal(kernel, kinds[0])
        bias = self._bias**2
        return bias + math.exp(2.0 * law.log_scale) * kernel * np.outer(law.scales, law.scales)

    def _others(self, position: int, inputs: list[list[Array]]) -> list[Array]:
        layer = self._graph.nodes[position].layer
        found, memories = [], []
        for repeat, own in enumerate(zip(*inputs, strict=True)):
            draw = Draw(self._rng(_FORWARDS, position, repeat), own[0].dtype.type)
            value, memory = layer.forward_values(list(own), draw)
            found.append(value)
            memories.append(memory)
        self._memories[position] = memories
        return found

    def _weighted(self, position: int, layer: Weighted, inputs: list[Array]) -> list[Array]:
        """Outputs of a weight layer in every repeat."""
        shape, weight = self._graph.shapes[position], layer.weight
        source = self._graph.nodes[position].inputs[0]
        flat = [x.reshape(len(x), -1, x.shape[-1]) for x in (inputs[:1] if source == 0 else inputs)]
        law = FieldLaw.estimated(self.panel, flat)
        moved, memory = self._moved(layer, law, inputs[0].shape)
        self._memories[position] = _Passed(inputs, moved, memory)
        if position == len(self._graph.nodes) - 1:
            self._logits, self._bias = moved.mapped(moved.parts * weight.sigma_w**2), weight.sigma_b
        if source == 0 and layer.groups == 1:
            # Of data the covariance is a product of few columns: its root.
            patches = _columns(layer, inputs[0])
            patches = patches.reshape(-1, patches.shape[-1])
            return [self._of_patches(layer, patches, position, r, shape) for r in range(self._repeats)]
        fields = self._drawn(moved, shape, (_FORWARDS, position))
        scale = np.float32(weight.sigma_w * math.exp(moved.log_scale))
        return [self._biased(field * scale, layer, position, r) for r, field in enumerate(fields)]

    def _moved(self, layer: Weighted, law: FieldLaw, shape: tuple[int, ...]) -> tuple[FieldLaw, Any]:
        """The law of W h for W of variance 1/fan_in, from that of h, and what the way back needs."""
        field = Field(shape[0], law.parts, np.zeros(law.parts.shape[1]), shape[1:-1])
        _, memory = layer.forward_kernel([(field,)], self._pairs)
        parts = memory.sums[0] / math.prod(layer.weight.kernel)
        return law.mapped(parts), replace(memory, sums=())

    def _of_patches(self, layer: Weighted, patches: Array, position: int, repeat: int, shape: Shape) -> Array:
        rng = self._rng(_FORWARDS, position, repeat)
        normals = rng.standard_normal((shape.channels, len(patches)), dtype=np.float32)
        field = normals @ (patches * np.float32(layer.weight.sigma_w / math.sqrt(len(patches))))
        field = field.reshape(shape.channels, *shape.space, self.panel.size)
        return self._biased(field, layer, position, repeat)

    def _biased(self, field: Array, layer: Weighted, position: int, repeat: int) -> Array:
        if layer.weight.sigma_b == 0.0:
            return field
        draw = Draw(self._rng(_FORWARDS, position, repeat, 1), np.float32)
        return field + draw.normal((len(field), *(1,) * (field.ndim - 1)), layer.weight.sigma_b)

    def _drawn(self, law: FieldLaw, shape: Shape, stream: tuple[int, int]) -> list[Array]:
        """Fields of a law but for its scale, (channels, *space, B), in every repeat."""
        roots = law.root()
        found = []
        for repeat in range(self._repeats):
            field = draw_field(self.panel, law, roots, shape.channels, self._rng(*stream, repeat))
            found.append(field.reshape(shape.channels, *shape.space, self.panel.size))
        return found

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 0x6669656C, *stream])

    # --- backwards ---

    def backwards(self, top: Cotangent) -> Array:
        """log E[(W g)²] of every weight layer, (L,), in the whole batch but for a common factor.

        Args:
            top: what is sent backwards from the logits of the panel's inputs.
        """
        graph = self._graph
        arrived: list[list[_Sent] | None] = [None] * len(graph.nodes)
        draws = top.draw(self._repeats, self._seed + 1)
        arrived[-1] = [_Sent(one.T.astype(np.float32), 0.0) for one in draws]
        moments = np.full(len(graph.weighted), -math.inf)
        self.sampled = moments.copy()
        for position in range(len(graph.nodes) - 1, 0, -1):
            node, own = graph.nodes[position], arrived[position]
            kept, self._memories[position], arrived[position] = self._memories[position], None, None
            if own is None:
                continue
            own = [one.normalised() for one in own]
            if node.layer.weighted is not None:
                moment, sent = self._weighted_back(position, node.layer.weighted, kept, own)
                moments[self._numbers[position]] = moment
                back = [sent]
            else:
                values = [
                    node.layer.backward_values(memory, one.values) for memory, one in zip(kept, own, strict=True)
                ]
                back = [
                    [_Sent(one[at], before.log_scale) for one, before in zip(values, own, strict=True)]
                    for at in range(len(node.inputs))
                ]
            for source, parts in zip(node.inputs, back, strict=True):
                before = arrived[source]
                if before is not None:
                    parts = [a + b for a, b in zip(before, parts, strict=True)]
                arrived[source] = parts if source else None
        return moments

    def _weighted_back(
        self, position: int, layer: Weighted, kept: _Passed, arrived: list[_Sent]
    ) -> tuple[float, list[_Sent]]:
        top = max(one.log_scale for one in arrived)
        deltas = [one.values * np.float32(math.exp(max(one.log_scale - top, -80.0))) for one in arrived]
        squares = []
        for repeat, (delta, x) in enumerate(zip(deltas, kept.inputs, strict=True)):
            gradients = weight_gradient(layer, delta, x)
            squares.append(float(np.mean(gradients.astype(float) ** 2)))
            self._take(self._numbers[position], repeat, gradients)
        weight = layer.weight
        law = FieldLaw.estimated(self.panel, [d.reshape(len(d), -1, d.shape[-1]) for d in deltas], top)
        self.sampled[self._numbers[position]] = math.log(np.mean(squares)) + 2*top + 2*math.log(weight.weight_std)
        g, h = self.panel.kinds(law.parts), self.panel.kinds(kept.law.parts)
        total = self.panel.total(np.einsum("tpq,tpq->t", g, h), law.scales * kept.law.scales)
        moment = -math.inf
        if total > 0.0:
            moment = math.log(total) + 2.0 * (law.log_scale + kept.law.log_scale + math.log(weight.weight_std))
        if self._graph.nodes[position].inputs[0] == 0:
            return moment, []
        (sent, *_) = layer.backward_kernel(kept.memory, Gradient((law.parts,)), self._pairs)
        shape = self._graph.shapes[self._graph.nodes[position].inputs[0]]
        fields = self._drawn(law.mapped(sent.groups[0]), shape, (_BACKWARDS, position))
        return moment, [_Sent(field, law.log_scale) for field in fields]


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
