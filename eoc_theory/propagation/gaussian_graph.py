"""Channels of an infinitely wide network and the gradients of its weights; no network is drawn.

At infinite width the channels of a layer are independent draws of one process. Forwards, a weight layer's
output is a Gaussian field over inputs and positions whose covariance is that of the layer's inputs, moved by
its taps, and everything else (activations, normalisation, pooling, sums) acts on each channel by itself.
Backwards the same under gradient independence (Poole et al. 2016; Yang 2020, "Tensor programs III"). So
channels of this process are drawn, layer by layer: from those of one layer comes the covariance that the next
layer's fields are drawn with. What no weights separate stays together as in a network: the stream of a
residual network, a gate and its gradient, a maximum and where it lies, a batch's statistics.

Two ways lead from channels to a covariance (`alike`). Averaged over inputs that are alike (`gaussian_fields`)
few channels tell it well; that serves networks that are normalised. Without normalisation inputs that are
more alike than others matter: gates then open together where signals are alike, at the same pairs of inputs
and positions, and the fewer channels, the more so. There the covariance is that of the channels of one draw
as it is: a field is a sum of them with fresh normal coefficients. Forwards that is the exact chain of
covariances at the width drawn, as in `conditioned_chain`: a layer's field has the law of W h for fresh W.
Backwards it is gradient independence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..base.side_by_side import side_by_side
from ..layers import Shape, Weighted
from ..layers.random_numbers import Draw
from ..networks.graph import Graph
from ..signals.data import DataSummary
from ..signals.fields import Field, Gradient, Pairs
from .carried_values import OutOfRangeError
from .gaussian_fields import FieldLaw, Panel, draw_field
from .logit_gradients import LogitGradients, by_kind
from .scale_fluctuations import ScaleResponse, WeightSquares
from .tied_tables import tied_tables

Array = np.ndarray
#: Is given a weight layer's number, a repeat's number, the gradient of its weights (fan_out, fan_in), and the
#: logarithm of a factor left out of it; of several repeats at a time.
Taker = Callable[[int, int, Array, float], None]
#: Is shown a node's position, the values of its inputs and its own value, each a list over the draws.
Watcher = Callable[[int, list[list[Array]], list[Array]], None]

_FORWARDS, _BACKWARDS = 1, 2
#: Rows of the last layer that are drawn, at least; with attention, of logits of whole inputs, where what
#: gradients have in common is that of few logits.
TOP_ROWS, APART_TOP_ROWS = 256, 2560
#: Rows of a layer's gradients that tell how alike inputs are in it, about, and draws of all of a batch.
_KIND_ROWS, _KIND_DRAWS = 64, 2
#: Draws of the logits that tell how networks differ by theirs, at least; of more classes they differ little.
_SEVERAL = 16
#: Entries of a matrix whose product is worth halving.
_LARGE = 1 << 18
#: Sizes of a gradient's largest entry that its unit is left for.
_ORDINARY = (1e-2, 1e2)
#: Sizes that values may have.
RANGE = {np.float32: (1e-12, 1e12), np.float64: (1e-130, 1e130)}


@dataclass(frozen=True)
class _Sent:
    """A gradient by a node's value, values · exp(log_scale)."""

    values: Array
    log_scale: float

    def normalised(self) -> _Sent:
        """With entries of an ordinary size."""
        peak = max(float(self.values.max(initial=0.0)), -float(self.values.min(initial=0.0)))
        if not 0.0 < peak < math.inf or _ORDINARY[0] < peak < _ORDINARY[1]:
            return self
        return _Sent(self.values / self.values.dtype.type(peak), self.log_scale + math.log(peak))

    def __add__(self, other: _Sent) -> _Sent:
        if self.log_scale < other.log_scale:
            return other + self
        factor = other.values.dtype.type(math.exp(max(other.log_scale - self.log_scale, -80.0)))
        return _Sent(self.values + other.values * factor, self.log_scale)

    @property
    def log_mean_square(self) -> float:
        """Of its entries."""
        flat = self.values.reshape(-1)
        square = float(np.dot(flat, flat)) / flat.size
        return math.log(square) + 2.0 * self.log_scale if square > 0.0 else -math.inf


@dataclass(frozen=True)
class _Passed:
    """What a weight layer keeps of the way forwards.

    Attributes:
        inputs: (channels, *space, B) in each repeat.
        law: of its inputs moved by its taps; None where it is not asked for.
        memory: what `Weighted.backward_kernel` needs.
    """

    inputs: list[Array]
    law: FieldLaw | None
    memory: Any


@dataclass(frozen=True)
class Returned:
    """What a way back shows.

    Attributes:
        log_moments: log E[(W g)²] of every weight layer in the whole batch, but for a common factor, (L,).
        tangent: Σ over the weights of the mean product of two inputs' parts of the gradient, (B, B), up to a
            factor, by all layers and by all but the last; None where it was not asked for.
    """

    log_moments: Array
    tangent: tuple[Array, Array] | None


class GaussianGraph:
    """`repeats` independent draws of the channels of a graph: `forwards` first, then `backwards`.

    Args:
        graph: the network.
        drawn: the same with as many channels as are to be drawn; `graph` itself, or one of other widths.
        batch: the whole batch.
        inputs: how many of the batch's inputs the fields are drawn for, about.
        alike: whether covariances are averaged over inputs that are alike.
        repeats: draws of the whole graph.
        seed: of all draws.
        apart: whether every input counts for itself, and no class for its inputs.
        dtype: of values, np.float32 or np.float64; `forwards` raises OutOfRangeError where they leave its
            range. Gradients have a unit of their own at every node.
    """

    def __init__(
        self,
        graph: Graph,
        drawn: Graph,
        batch: DataSummary,
        *,
        inputs: int,
        alike: bool,
        repeats: int,
        seed: int,
        dtype: Any = np.float32,
        apart: bool = False,
    ) -> None:
        self._graph, self._drawn, self._repeats, self._seed = graph, drawn, repeats, seed
        self._alike, self._dtype, self._apart = alike, dtype, apart
        self._batch = batch
        self._top: LogitGradients | None = None
        self.panel = Panel.of(batch, inputs, apart=apart)
        self._whole = self.panel.size == batch.size
        self._part = batch.take(self.panel.chosen)
        self._pairs = Pairs.of(self._part)
        self._numbers = {position: number for number, position in enumerate(graph.weighted)}
        self._memories: list[Any] = [None] * len(graph.nodes)
        self._tied = tied_tables(graph)
        self._tables = {tied.table: tied for tied in self._tied.values()}
        self.response = ScaleResponse(graph)
        #: Logits of the panel's inputs, (classes, B) or of tokens (classes, T, B), in each of several draws.
        self.logits: list[Array] = []

    @property
    def part(self) -> DataSummary:
        """The panel's inputs with their targets."""
        return self._part

    @property
    def targets(self) -> Array:
        """Classes of the panel's inputs, (B,), or of each of their tokens, (B, T)."""
        return self._part.targets

    # --- forwards ---

    def forwards(self, *, laws: bool = False, watch: Watcher | None = None) -> None:
        """Draws all values; with `laws` every weight layer keeps the law of its inputs for the way back.

        `watch` is shown each node's position, its inputs' values and its own, one of each draw.
        """
        graph, shape = self._graph, self._graph.input_shape
        images = self._part.inputs.T.reshape(shape.channels, *shape.space, self.panel.size)
        values: list[Any] = [None] * len(graph.nodes)
        values[0] = [images.astype(self._dtype)] * self._repeats
        self._check(values[0][0])
        waiting = [len(users) for users in graph.consumers]
        for position, node in enumerate(graph.nodes[1:], start=1):
            inputs = [values[source] for source in node.inputs]
            if node.layer.weighted is not None:
                values[position] = self._weighted(position, node.layer.weighted, inputs[0], laws)
            else:
                values[position] = self._others(position, inputs)
            self._check(values[position][0])
            if watch is not None:
                watch(position, inputs, values[position])
            for source in node.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    values[source] = None
        # Of every token there are many, and what is left of their precision is enough.
        self.logits = [one.astype(float) if one.ndim == 2 else one for one in values[-1]]

    def _check(self, values: Array) -> None:
        """Nothing but zeros is a dead network and no matter of precision."""
        low, high = RANGE[self._dtype]
        largest = float(np.abs(values).max(initial=0.0))
        if largest != 0.0 and not low < largest < high:
            raise OutOfRangeError

    def _others(self, position: int, inputs: list[list[Array]]) -> list[Array]:
        layer = self._drawn.nodes[position].layer

        def one(repeat: int) -> tuple[Array, Any]:
            own = [values[repeat] for values in inputs]
            draw = Draw(self._rng(_FORWARDS, position, repeat), own[0].dtype.type)
            return layer.forward_values(own, draw)

        found = side_by_side(one, range(self._repeats))
        self._memories[position] = [memory for _, memory in found]
        self.response.see_forwards(position, [one[0] for one in inputs])
        values = [value for value, _ in found]
        if position in self._tables:
            self._tables[position].see(inputs[0][0], values)
        return values

    def _weighted(self, position: int, layer: Weighted, inputs: list[Array], laws: bool) -> list[Array]:
        """Outputs of a weight layer in every repeat."""
        repeats = range(self._repeats)
        last = position == len(self._graph.nodes) - 1
        if last:
            # Logits are few, so that more are drawn.
            single = self._apart and self._part.targets.ndim == 1
            rows = APART_TOP_ROWS if single else TOP_ROWS
            repeats = range(max(self._repeats, -(-rows // layer.weight.fan_out)))
        from_data = self._graph.nodes[position].inputs[0] == 0
        known = inputs[:1] if from_data else inputs
        shape = self._drawn.shapes[position]
        law = memory = None
        asked = self._alike or laws or not (self._whole or self._apart)
        if asked and from_data and layer.groups == 1:
            # From patches, of which an image has fewer than positions; nothing is sent back to it.
            patches = [_columns(layer, x).reshape(-1, math.prod(shape.space), x.shape[-1]) for x in known]
            law = FieldLaw.estimated(self.panel, patches)
        elif asked:
            law = FieldLaw.estimated(self.panel, [x.reshape(len(x), -1, x.shape[-1]) for x in known])
            law, memory = self._moved(layer, law, inputs[0].shape)
        self._memories[position] = _Passed(inputs, law, memory)
        if not self._alike or last or (from_data and layer.groups == 1):
            # The covariance is a product of the columns: its root.
            if len(repeats) > len(known):
                known = [self._patches(layer, x) for x in known]

            def drawn(repeat: int) -> Array:
                x = known[repeat % len(known)]
                patches = self._patches(layer, x) if len(repeats) == len(known) else x
                made = self._of_patches(layer, patches, position, repeat, shape)
                if position not in self._tied:
                    return made
                x, fan_in = inputs[repeat % len(inputs)], self._graph.weighted_layer(position).weight.fan_in
                return self._tied[position].with_own_logits(made, x, repeat, fan_in)

            return side_by_side(drawn, repeats)
        assert law is not None
        fields = self._fields(law, shape, (_FORWARDS, position))
        scale = self._dtype(layer.weight.sigma_w * math.exp(law.log_scale))
        return [self._biased(field * scale, layer, position, r) for r, field in enumerate(fields)]

    def _moved(self, layer: Weighted, law: FieldLaw, shape: tuple[int, ...]) -> tuple[FieldLaw, Any]:
        """The law of W h for W of variance 1/fan_in, from that of h, and what the way back needs."""
        field = Field(shape[0], law.parts, np.zeros(law.parts.shape[1]), shape[1:-1])
        _, memory = layer.forward_kernel([(field,)], self._pairs)
        parts = memory.sums[0] / math.prod(layer.weight.kernel)
        return law.mapped(parts), replace(memory, sums=())

    def _patches(self, layer: Weighted, inputs: Array) -> Array:
        """What a layer's outputs are normal combinations of, (channels · taps, P_out · B)."""
        columns = _columns(layer, inputs)
        columns = columns.reshape(-1, columns.shape[-1])
        return columns * self._dtype(layer.weight.sigma_w / math.sqrt(len(columns)))

    def _of_patches(self, layer: Weighted, patches: Array, position: int, repeat: int, shape: Shape) -> Array:
        field = self._mixed(shape.channels, patches, _FORWARDS, position, repeat)
        field = field.reshape(shape.channels, *shape.space, self.panel.size)
        return self._biased(field, layer, position, repeat)

    def _biased(self, field: Array, layer: Weighted, position: int, repeat: int) -> Array:
        if layer.weight.sigma_b == 0.0:
            return field
        draw = Draw(self._rng(_FORWARDS, position, repeat, 1), self._dtype)
        return field + draw.normal((len(field), *(1,) * (field.ndim - 1)), layer.weight.sigma_b)

    def _fields(self, law: FieldLaw, shape: Shape, stream: tuple[int, ...]) -> list[Array]:
        """Fields of a law but for its scale, (channels, *space, B), in every repeat."""
        roots = law.roots()
        found = []
        for repeat in range(self._repeats):
            field = draw_field(self.panel, law, roots, shape.channels, self._rng(*stream, repeat))
            found.append(field.reshape(shape.channels, *shape.space, self.panel.size))
        return found

    def _times(self, left: Array, right: Array) -> Array:
        """A matrix product; of one draw in two halves, as several draws are computed side by side."""
        if self._repeats > 1 or left.ndim > 2 or left.size < _LARGE:
            return left @ right
        out = np.empty((len(left), right.shape[1]), np.result_type(left, right))
        half = len(left) // 2

        def multiply(part: slice) -> None:
            np.matmul(left[part], right, out=out[part])

        side_by_side(multiply, (slice(0, half), slice(half, None)))
        return out

    def _mixed(self, count: int, terms: Array, *stream: int) -> Array:
        """So many normal combinations of `terms` (M, N), (count, N).

        Of one draw, where there are many, in two halves with random numbers of their own.
        """
        if self._repeats > 1 or count * len(terms) < _LARGE:
            return self._rng(*stream).standard_normal((count, len(terms)), dtype=np.float32) @ terms
        out = np.empty((count, terms.shape[1]), np.result_type(np.float32, terms))
        half = count // 2

        def mix(number: int, part: Array) -> None:
            rng = self._rng(*stream, number)
            np.matmul(rng.standard_normal((len(part), len(terms)), dtype=np.float32), terms, out=part)

        side_by_side(lambda one: mix(*one), enumerate((out[:half], out[half:]), start=2))
        return out

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 0x6669656C, *stream])

    # --- backwards ---

    def backwards(
        self,
        sent: Sequence[Array],
        *,
        take: Taker | None = None,
        stream: int = 0,
        watch: Callable[[int, float], None] | None = None,
        errors: bool = False,
    ) -> Returned:
        """From gradients (classes, B) by the logits, one for each draw of them.

        With `take`, which is given the gradients of the weights, what the way forwards left is given up;
        without it the tangent kernel is found instead, and another way back may follow, with another `stream`
        of random numbers. `watch` is shown each node's position and the logarithm of the mean square gradient
        by its value. `errors`: whether `sent` is the gradient of the mean cross-entropy itself.
        """
        graph = self._graph
        if self._apart:
            self._top = LogitGradients.of(self._part, self._batch, sent, errors=errors)
        arrived: list[list[_Sent] | None] = [None] * len(graph.nodes)
        arrived[-1] = _in_one_unit(sent)
        moments = np.full(len(graph.weighted), -math.inf)
        tangents: list[tuple[float, Array]] = []
        waiting: dict[int, tuple[int, _Passed, _Deltas]] = {}
        for position in range(len(graph.nodes) - 1, 0, -1):
            node, own = graph.nodes[position], arrived[position]
            kept, arrived[position] = self._memories[position], None
            if take is not None:
                self._memories[position] = None
            if own is None:
                continue
            own = side_by_side(_Sent.normalised, own)
            if watch is not None:
                watch(position, _log_mean([one.log_mean_square for one in own]))
            if node.layer.weighted is not None:
                deltas = _Deltas.of(own)
                number = self._numbers[position]
                if take is not None and position in self._tied:
                    # The same weights are met again where tokens are looked up.
                    waiting[self._tied[position].table] = position, kept, deltas
                elif take is not None:
                    moments[number] = self._scored(position, kept, deltas, take)
                else:
                    tangents.append(self._tangent(number, kept, deltas))
                back = [] if node.inputs[0] == 0 else [self._returned(position, kept, deltas, stream)]
            else:
                back = self._others_back(position, kept, own)
            if position in waiting and take is not None:
                at, passed, deltas = waiting.pop(position)
                moments[self._numbers[at]] = self._scored(at, passed, deltas, take, own)
            for source, parts in zip(node.inputs, back, strict=False):
                if take is not None:
                    self.response.see_sent(position, source, parts[0].log_mean_square)
                before = arrived[source]
                if before is not None:
                    parts = side_by_side(_summed, zip(before, parts, strict=True))
                arrived[source] = parts if source else None
        return Returned(moments, None if take is not None else _total(tangents))

    def _others_back(self, position: int, kept: list[Any], arrived: list[_Sent]) -> list[list[_Sent]]:
        layer = self._drawn.nodes[position].layer
        values = side_by_side(
            lambda own: layer.backward_values(own[0], own[1].values), zip(kept, arrived, strict=True)
        )
        return [
            [_Sent(one[at], before.log_scale) for one, before in zip(values, arrived, strict=True)]
            for at in range(len(self._graph.nodes[position].inputs))
        ]

    def _scored(
        self, position: int, kept: _Passed, deltas: _Deltas, take: Taker, rows: list[_Sent] | None = None
    ) -> float:
        """log E[(W g)²]; the gradients go to `take`, with what `rows` of a table get that is tied to them."""
        number, layer = self._numbers[position], self._graph.weighted_layer(position)
        of_drawn = self._drawn.weighted_layer(position)

        top = self._top

        def one(repeat: int) -> tuple[float, WeightSquares, Array | None]:
            delta, x = deltas.values[repeat], kept.inputs[repeat % self._repeats]
            gradients = weight_gradient(of_drawn, delta, x, self._times)
            if rows is not None:
                sent = rows[repeat % self._repeats]
                factor = np.float32(math.exp(np.clip(sent.log_scale - deltas.log_scale, -80.0, 80.0)))
                gradients = gradients + factor * self._tied[position].gradient(sent.values, len(delta))
            by_tap = gradients.reshape(len(delta), len(x) // of_drawn.groups, -1)
            seen = WeightSquares.of(by_tap, delta, x)
            take(number, repeat, gradients, deltas.log_scale)
            square = float(np.einsum("ij,ij->", gradients, gradients, dtype=float)) / gradients.size
            # In all of the batch kinds of pairs tell what networks differ by alone, and few draws show it.
            if top is None or not (top.is_part or repeat < _KIND_DRAWS):
                return square, seen, None
            return square, seen, _sums_by_kind(of_drawn, delta, x, top.labels)

        found = side_by_side(one, range(len(deltas.values)))
        squares = [square for square, *_ in found]
        self.response.see_weights(number, [seen for _, seen, _ in found])
        if not any(squares) or layer.weight.sigma_w == 0.0:
            return -math.inf
        std = math.log(layer.weight.weight_std)
        moment = math.log(np.mean(squares)) + 2.0 * (deltas.log_scale + std)
        if top is not None:
            sums = sum((kinds for *_, kinds in found if kinds is not None), np.zeros(3))
            if self._graph.weighted[-1] == len(self._graph.nodes) - 1 and len(top.draws) >= _SEVERAL:
                self.response.see_logits(number, top.fluctuation(sums))
            return moment + math.log(top.growth(sums))
        if kept.law is None or self._apart:
            return moment
        law = deltas.law(self.panel)
        own, whole = self.panel.totals(_products(self.panel, law, kept.law), law.scales * kept.law.scales)
        if min(own, whole) <= 0.0:
            return moment
        if self._graph.nodes[position].inputs[0] == 0 or not self._alike:
            # What inputs have of their own, beyond others that are alike, is in the draws alone.
            return moment + math.log(whole / own)
        return math.log(whole) + 2.0 * (law.log_scale + kept.law.log_scale + std)

    def _tangent(self, number: int, kept: _Passed, deltas: _Deltas) -> tuple[float, Array]:
        """Logarithm of a factor, and the layer's part of the tangent kernel."""
        assert kept.law is not None  # the way forwards was asked for laws
        law = deltas.law(self.panel)
        products = _products(self.panel, law, kept.law) * self._graph.weight_layers[number].n_weights
        scales = law.scales * kept.law.scales
        return 2.0 * (law.log_scale + kept.law.log_scale), self.panel.expand(products) * np.outer(
            scales, scales
        )

    def _returned(self, position: int, kept: _Passed, deltas: _Deltas, stream: int) -> list[_Sent]:
        """What a weight layer sends back in every repeat."""
        source = self._graph.nodes[position].inputs[0]
        shape, layer = self._drawn.shapes[source], self._graph.weighted_layer(position)
        draws = (_BACKWARDS, position, stream)
        if self._alike:
            law = deltas.law(self.panel)
            (gradient, *_) = layer.backward_kernel(kept.memory, Gradient((law.parts,)), self._pairs)
            fields = self._fields(law.mapped(gradient.groups[0]), shape, draws)
            return [_Sent(field, law.log_scale) for field in fields]

        def one(repeat: int) -> _Sent:
            own, along = deltas.values[repeat :: self._repeats], None
            if position in self._tied:
                own, along = self._tied[position].sent_along(own, repeat)
            outputs = np.concatenate([delta.reshape(len(delta), -1) for delta in own])
            # Fresh weights of all outputs drawn, with the variance of as many as the layer has.
            share = layer.weight.fan_out / (layer.groups * len(outputs))
            outputs *= np.float32(layer.weight.weight_std * math.sqrt(share))
            back = self._back_through(layer, outputs, shape, (*draws, repeat))
            return _Sent(back if along is None else back + along, deltas.log_scale)

        return side_by_side(one, range(self._repeats))

    def _back_through(self, layer: Weighted, outputs: Array, shape: Shape, stream: tuple[int, ...]) -> Array:
        """Sums of the outputs' gradients (M, P_out · B) with normal coefficients at every tap."""
        windows = layer.windows(shape.space)
        if _is_pointwise(windows, shape.positions):
            sent = self._mixed(shape.channels, outputs, *stream).astype(np.float32, copy=False)
            return sent.reshape(shape.channels, *shape.space, self.panel.size)
        back = np.zeros((shape.channels, shape.positions + 1, self.panel.size), np.float32)
        rng = self._rng(*stream)
        for tap in windows:
            normals = rng.standard_normal((shape.channels, len(outputs)), dtype=np.float32)
            sent = (normals @ outputs).reshape(shape.channels, len(tap), self.panel.size)
            if len(np.unique(tap)) == len(tap):
                back[:, tap] += sent
            else:
                np.add.at(back.swapaxes(0, 1), tap, sent.swapaxes(0, 1))
        return back[:, :-1].reshape(shape.channels, *shape.space, self.panel.size)


@dataclass(frozen=True)
class _Deltas:
    """Gradients by a weight layer's outputs in one unit: values · exp(log_scale)."""

    values: list[Array]
    log_scale: float

    @classmethod
    def of(cls, arrived: list[_Sent]) -> _Deltas:
        top = max(one.log_scale for one in arrived)

        def scaled(one: _Sent) -> Array:
            return one.values * np.float32(math.exp(max(one.log_scale - top, -80.0)))

        return cls(side_by_side(scaled, arrived), top)

    def law(self, panel: Panel) -> FieldLaw:
        """The law of one channel's gradient."""
        flat = [delta.reshape(len(delta), -1, delta.shape[-1]) for delta in self.values]
        return FieldLaw.estimated(panel, flat, self.log_scale)


def _products(panel: Panel, delta: FieldLaw, inputs: FieldLaw) -> Array:
    """Σ over pairs of positions of both covariances' product for each kind of pair of inputs, (3,)."""
    return np.einsum("tpq,tpq->t", panel.kinds(delta.parts), panel.kinds(inputs.parts))


def _summed(both: tuple[_Sent, _Sent]) -> _Sent:
    return both[0] + both[1]


def _log_mean(logs: Sequence[float]) -> float:
    """log of the mean of what these are logarithms of."""
    return float(np.logaddexp.reduce(logs)) - math.log(len(logs))


def _total(tangents: list[tuple[float, Array]]) -> tuple[Array, Array]:
    """The sum of kernels with factors of their own, up to a factor; and without the first."""
    top = max(scale for scale, _ in tangents)
    parts = np.stack([math.exp(max(scale - top, -700.0)) * kernel for scale, kernel in tangents])
    return parts.sum(axis=0), parts[1:].sum(axis=0)


def _in_one_unit(values: Sequence[Array]) -> list[_Sent]:
    """All divided by the largest entry."""
    largest = max(float(np.abs(one).max(initial=0.0)) for one in values) or 1.0
    return [_Sent((one / largest).astype(np.float32), math.log(largest)) for one in values]


def _sums_by_kind(layer: Weighted, delta: Array, x: Array, labels: Array) -> Array:
    """Sums of g_a · g_b over the pairs of inputs of each kind, (3,), of some rows; see `LogitGradients`.

    Args:
        delta, x: as in `weight_gradient`. labels: of the inputs, (B,).
    """
    rows = delta.reshape(len(delta), -1)
    if layer.groups == 1 and rows.shape[1] == len(labels):
        columns = _columns(layer, x)
        columns = columns.reshape(-1, columns.shape[-1])
        return by_kind((rows.T @ rows).astype(float) * (columns.T @ columns), labels)
    if layer.groups == 1:
        # Channels are alike, but for those of one head.
        delta = delta[:: max(1, len(delta) // _KIND_ROWS)]
    own = alike = 0.0
    total: Any = 0.0
    for label in np.unique(labels):
        summed: Any = 0.0
        for at in np.flatnonzero(labels == label):
            one = weight_gradient(layer, delta[..., at : at + 1], x[..., at : at + 1])
            own += _square(one)
            summed = summed + one
        alike += _square(summed)
        total = total + summed
    return np.array([own, alike - own, _square(total) - alike])


def _square(values: Array) -> float:
    """Σ of squares."""
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))


def _columns(layer: Weighted, x: Array) -> Array:
    """What each tap of a layer sees of an input (C, *space, B), (C, taps, P_out · B)."""
    windows = layer.windows(x.shape[1:-1])
    if _is_pointwise(windows, math.prod(x.shape[1:-1])):
        return x.reshape(len(x), 1, -1)
    flat = x.reshape(len(x), -1, x.shape[-1])
    outside = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
    return outside[:, windows].reshape(len(x), len(windows), -1)


def _is_pointwise(windows: Array, positions: int) -> bool:
    """Whether each output sees the one input at its own position."""
    return len(windows) == 1 and np.array_equal(windows[0], np.arange(positions))


def weight_gradient(
    layer: Weighted, delta: Array, x: Array, times: Callable[[Array, Array], Array] = np.matmul
) -> Array:
    """Σ over inputs and positions of δ h for every weight, shape (fan_out, fan_in).

    Args:
        delta: by the layer's output, (fan_out, *space, B).
        x: the layer's input, (channels, *space, B).
        times: a matrix product.
    """
    groups = layer.groups
    rows = delta.reshape(groups, len(delta) // groups, -1)
    columns = _columns(layer, x)
    columns = columns.reshape(groups, -1, columns.shape[-1])
    if groups == 1:
        return times(rows[0], columns[0].T)
    return np.matmul(rows, columns.swapaxes(1, 2)).reshape(len(delta), -1)
