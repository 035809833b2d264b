"""How the scale of scores differs from network to network at finite width, to first order in 1/width.

The mean squares of a layer's signal and gradient are means over as many channels as the layer has. With N
channels whose squares have a relative variance v their logarithms vary by v/N (Hanin & Nica 2019 for ReLU;
`THEORY` section 6): this is what each weight layer adds, forwards by its inputs and backwards by its outputs.
From there the change travels with the signal: through an activation by the slope d log E[φ²]/d log q, to 0
through a normalisation, which divides the gradient by what came in; where values are added each counts by its
share of the mean square.

What a change does to correlations between inputs, and how changes in several layers act together, is left
out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..activations import Activation
from ..networks.graph import Graph

Array = np.ndarray

#: Entries of a signal that a slope is taken from, and the factor by which it is made larger.
_ENTRIES, _FACTOR = 50_000, 1.05


@dataclass
class _Seen:
    """Relative squares of channels: what they count for in scores, and of the signal or gradient itself."""

    scores: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def covariance(self, channels: float, together: int = 1) -> Array:
        """Of the logarithms of both means over so many channels, (2, 2), of which each `together` are one."""
        both = np.stack([np.concatenate(self.scores), np.concatenate(self.values)])
        if both.shape[1] % together == 0:
            both, channels = both.reshape(2, -1, together).mean(axis=2), channels / together
        mean = both.mean(axis=1, keepdims=True)
        if both.shape[1] < 2 or not np.all(mean > 0.0):
            return np.zeros((2, 2))
        return np.cov(both / mean) / channels


@dataclass(frozen=True)
class WeightSquares:
    """Mean squares in one draw of a weight layer.

    Attributes:
        rows, columns: of the gradients of each output's weights (fan_out,), and of each input channel's.
        outputs, inputs: of each output's gradient (fan_out,), and of each input channel.
    """

    rows: Array
    columns: Array
    outputs: Array
    inputs: Array

    @classmethod
    def of(cls, gradients: Array, delta: Array, inputs: Array) -> WeightSquares:
        """Gradients (fan_out, channels, taps) of weights, rows (fan_out, …) and columns (channels, …)."""
        squares = np.square(gradients)
        # Of one tap the mean is itself, and adding up along an axis of one entry is slow.
        squares = squares[..., 0] if squares.shape[2] == 1 else squares.mean(2)
        ones = [np.full(extent, 1.0 / extent, squares.dtype) for extent in squares.shape]
        # Of several groups of channels the first: rows of all of them count in each column.
        seen = _squares(inputs)[: squares.shape[1]]
        rows, columns = (squares @ ones[1]).astype(float), (ones[0] @ squares).astype(float)
        return cls(rows, columns, _squares(delta), seen)


class ScaleResponse:
    """What one draw of a graph's channels tells of the response to a change of scale."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._slopes: dict[int, tuple[float, float]] = {}
        self._shares: dict[int, Array] = {}
        self._sent: dict[int, list[tuple[int, float]]] = {}
        self._logits: dict[int, Array] = {}
        self._rows = [_Seen() for _ in graph.weighted]
        self._columns = [_Seen() for _ in graph.weighted]

    def see_forwards(self, position: int, inputs: Sequence[Array]) -> None:
        """A node without weights and its inputs."""
        layer = self._graph.nodes[position].layer
        if layer.nonlinearity is not None:
            self._slopes[position] = _slopes(layer.nonlinearity, inputs[0])
        elif len(inputs) > 1:
            factors = layer.factors(len(inputs)) if layer.adds else (1.0,) * len(inputs)
            squares = [c**2 * float(np.vdot(x, x)) for c, x in zip(factors, inputs, strict=True)]
            self._shares[position] = _normed(np.array(squares))

    def see_sent(self, position: int, source: int, log_mean_square: float) -> None:
        """What a node sends back to the one at `source`."""
        self._sent.setdefault(source, []).append((position, log_mean_square))

    def see_weights(self, number: int, draws: Sequence[WeightSquares]) -> None:
        """What each draw shows of a weight layer."""
        for draw in draws:
            self._rows[number].scores.append(draw.rows)
            self._rows[number].values.append(draw.outputs)
            self._columns[number].scores.append(draw.columns)
            self._columns[number].values.append(draw.inputs)

    def see_logits(self, number: int, squares: Array) -> None:
        """Mean squares of a layer's gradients given each draw of the logits, relative to their mean."""
        self._logits[number] = squares

    def draw(self, networks: int, seed: int) -> Array:
        """½ log of the mean square score of every layer less that at infinite width, (networks, L)."""
        rng = np.random.default_rng([seed, 0x7363616C])
        graph = self._graph
        nodes = range(len(graph.nodes))
        numbers = {position: number for number, position in enumerate(graph.weighted)}
        columns = [self._columns_of(number, networks, rng) for number in range(len(numbers))]
        shared: dict[int, Array] = {}
        rows = [self._rows_of(number, networks, rng, shared) for number in range(len(numbers))]
        forwards: list[Array] = [np.zeros(networks) for _ in nodes]
        for position in nodes[1:]:
            forwards[position] = self._forwards(position, forwards)
            if position in numbers:
                forwards[position] = forwards[position] + columns[numbers[position]][1]
        top = self._of_logits(networks, rng)
        backwards: list[Array] = [np.zeros(networks) for _ in nodes]
        found = np.zeros((networks, len(numbers)))
        for position in reversed(nodes[1:]):
            arrived = self._arrived(position, backwards)
            node = graph.nodes[position]
            if position in numbers:
                number = numbers[position]
                last = position == nodes[-1] and number in top
                # What few logits make of each layer is known, and is no common factor.
                own = columns[number][0] + (top[number] if last else rows[number][0])
                # The layer's law holds what its own rows and columns differ by, so that their mean is in it.
                found[:, number] = 0.5 * (forwards[node.inputs[0]] + own - own.mean() + arrived)
                if last:
                    continue
                arrived = arrived + rows[number][1]
            elif node.layer.sets_scale:
                arrived = arrived - forwards[node.inputs[0]]
            elif position in self._slopes:
                arrived = arrived + self._slopes[position][1] * forwards[node.inputs[0]]
            backwards[position] = arrived
        for number, logs in top.items():
            if graph.weighted[number] != nodes[-1]:
                found[:, number] += 0.5 * logs
        return found

    def _of_logits(self, networks: int, rng: np.random.Generator) -> dict[int, Array]:
        """Logarithms of what a network's logits change in each layer's mean square, (networks,)."""
        if not self._logits:
            return {}
        # Networks' draws are spread evenly over all of them, in the order of what layers have in common.
        logs = {number: np.log(squares) for number, squares in self._logits.items()}
        order = np.argsort(sum(logs.values()), kind="stable")
        chosen = order[((np.arange(networks) + 0.5) * len(order) / networks).astype(int)]
        chosen = rng.permutation(chosen)
        return {number: one[chosen] for number, one in logs.items()}

    def _forwards(self, position: int, forwards: list[Array]) -> Array:
        node = self._graph.nodes[position]
        if node.layer.sets_scale:
            return np.zeros_like(forwards[0])
        if position in self._shares:
            return np.tensordot(self._shares[position], [forwards[i] for i in node.inputs], 1)
        own = forwards[node.inputs[0]]
        return own * self._slopes[position][0] if position in self._slopes else own

    def _arrived(self, position: int, backwards: list[Array]) -> Array:
        """The change of the gradient by a node's value: a mean over those that it is sent from."""
        sent = self._sent.get(position, [])
        if not sent:
            return np.zeros_like(backwards[0])
        logs = np.array([log for _, log in sent])
        shares = (
            _normed(np.exp(logs - logs.max())) if np.isfinite(logs.max()) else np.ones(len(logs)) / len(logs)
        )
        return np.tensordot(shares, [backwards[user] for user, _ in sent], 1)

    def _columns_of(self, number: int, networks: int, rng: np.random.Generator) -> Array:
        """Logarithms of both means over a layer's inputs in each network, less their mean, (2, networks)."""
        position, weight = self._graph.weighted[number], self._graph.weight_layers[number]
        source = self._graph.nodes[position].inputs[0]
        normals = rng.standard_normal((2, networks))
        if source == 0:
            # Data are the same for every network.
            return 0.0 * normals
        channels = weight.channels_in * self._graph.weighted_layer(position).groups
        together = _together(channels, self._graph.nodes[source].layer.head_groups)
        return _drawn(self._columns[number].covariance(channels, together), normals)

    def _rows_of(
        self, number: int, networks: int, rng: np.random.Generator, shared: dict[int, Array]
    ) -> Array:
        """The same of a layer's outputs; `shared` has the normals of queries that keys meet."""
        channels = self._graph.weight_layers[number].fan_out
        normals = rng.standard_normal((2, networks))
        at, which = _meeting(self._graph, self._graph.weighted[number])
        together = _together(channels, self._graph.nodes[at].layer.head_groups)
        if together > 1 and which < 2:
            normals = shared.setdefault(at, normals)
        found = self._rows[number].covariance(channels, together)
        return _drawn(found, normals, aligned=together > 1)


def _meeting(graph: Graph, position: int) -> tuple[int, int]:
    """The node at which a layer's queries, keys or values meet, and which of these they are; or (0, 0)."""
    while len(graph.consumers[position]) == 1:
        (at,) = graph.consumers[position]
        node = graph.nodes[at]
        if node.layer.head_groups:
            return at, node.inputs.index(position)
        if node.layer.weighted is not None or len(node.inputs) > 1:
            break
        position = at
    return 0, 0


def _together(channels: int, heads: int) -> int:
    """How many channels share a head's attention: where it is sharp, few queries make their gradients."""
    return channels // heads if heads and channels % heads == 0 else 1


def _drawn(covariance: Array, normals: Array, *, aligned: bool = False) -> Array:
    """Logarithms of means that vary so much, of each network; `aligned` with others of the same normals."""
    covariance = np.sign(covariance) * np.log1p(np.abs(covariance))
    values, vectors = np.linalg.eigh(covariance)
    if aligned:
        vectors = vectors * np.where(vectors.sum(axis=0) < 0.0, -1.0, 1.0)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return root @ normals - 0.5 * np.diagonal(covariance)[:, None]


def _slopes(activation: Activation, values: Array) -> tuple[float, float]:
    """d log E[φ(u)²] / d log E[u²] and d log E[φ'(u)²] / d log E[u²] for a common factor of u."""
    if activation.is_homogeneous:
        return 1.0, 0.0
    u = values.reshape(-1)
    u = np.asarray(u[:: max(1, len(u) // _ENTRIES)], dtype=float)
    found = []
    for order in (0, 1):
        function = activation.derivative(order)
        here, there = (float(np.mean(np.square(function(c * u)))) for c in (1.0, _FACTOR))
        found.append(math.log(there / here) / (2.0 * math.log(_FACTOR)) if min(here, there) > 0.0 else 0.0)
    return found[0], found[1]


def _squares(values: Array) -> Array:
    """Mean square of each channel."""
    flat = values.reshape(len(values), -1)
    return np.einsum("cx,cx->c", flat, flat, dtype=float) / flat.shape[1]


def _normed(values: Array) -> Array:
    total = float(values.sum())
    return values / total if total > 0.0 else np.full(len(values), 1.0 / len(values))
