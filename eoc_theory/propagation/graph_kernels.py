"""Kernels over positions forwards and backwards through a graph of layers, at infinite width.

Every node's value is known by E[x_a(p) x_b(p')] for each kind of pair of inputs (`layers.fields.Pairs`) and
all pairs of positions (Xiao et al. 2018; Yang et al. 2019 for batch normalisation); the layers themselves
say what they do to it. Zero padding is exact, since positions are kept apart. Time and memory go with the
square of the number of positions: 32×32 costs about 50 ms and 40 MB a convolution with its normalisation and
activation. On one core a ResNet-32 at 32×32 takes 1.7 s and 0.7 GB, a VGG-16 1.5 s and 0.4 GB, a ResNet-50
for 224×224 (taken at 56×56) 2 to 3 s and 1.1 GB, of which the first call in a process spends 2 s on
compilation where its result is not cached. Larger images are taken at lower resolution, see
`eoc_theory.networks.downsample`.

What is inexact, measured on sampled networks of 400 to 600 channels
(tests/propagation/test_graph_kernels.py); kernels of what is not named agree within the sampling error, 2 to
5 %:

- A sum of a rectified stream and a branch is not Gaussian, and where nothing but sums and activations stand
  between two gates they open together. In residual networks relu(h + c·f(h)) without normalisation the way
  forwards is out by 2 to 4 % a block at c = 1 and by 10 to 15 % after three at c = ⅓; gradients by up to
  25 % after three blocks, in the layer before the first block, whose gate lies on the stream, by 30 % to a
  factor of 2. Where the branch ends with an activation too, and the sum is met by tanh, gradients are out
  by 40 to 70 %.
- A depthwise convolution's few weights make channels that are not Gaussian, and its gradient goes back
  through the weights it came by: score moments are out by 20 to 25 %. Wide groups are not affected.
- Group normalisation over few entries: a gradient kernel is 20 to 30 % too large over one channel of 5×5
  positions (instance normalisation), 10 % over four. Batch normalisation is corrected
  (`layers.standardising`), but for values that an activation has made sparse: a channel that is 0 for most
  of a small batch is divided by next to nothing.
- Inputs are taken as exchangeable within a kind of pair. For batches of 20 images with 1/f spectrum score
  moments from measured kernels are those from all pairs within 0.25 in the logarithm, mostly 0.1 (0.5 in
  the first layer of one ReLU network); more kinds, by the inputs' correlation, change a layer's log moment
  relative to the others' by less than 0.03.
- Finite width is left out: networks of 16 to 128 channels without normalisation can differ by factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.boundary import public
from ..base.freed_memory import give_back
from ..base.one_thread import with_one_thread
from ..base.result import Result
from ..base.tables import layer_frame
from ..errors import ModelError
from ..layers import WeightLayer
from ..networks.architecture import Architecture
from ..networks.downsample import within_reach
from ..networks.graph import Graph
from ..signals.data import DataSummary
from ..signals.fields import Field, Gradient, Pairs, Signal, input_signal
from .infinite_width import Cotangent, ends
from .kernel_memory import KernelMemories, kept_entries

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray

#: Up to this many positions kernels are held in double precision.
DOUBLE_POSITIONS = 100
#: Positions along an axis, most to fewest, of which the first is taken whose kernels fit; and what fits:
#: entries of one kind of pair, 1.5 GB for three kinds in single precision.
RESOLUTIONS = (64, 48, 32, 24, 16)
MOST_ENTRIES = 125_000_000
KERNELS_UNDER_WAY = 6
#: Variances must stay in this range in single precision.
SINGLE_RANGE = (1e-15, 1e15)
LARGEST_VARIANCE = 1e150


@public
@dataclass(frozen=True, repr=False, eq=False)
class GraphPropagation(Result):
    """What a batch becomes in every weight layer, at infinite width.

    Attributes:
        layers: names of the weight layers, L of them, in the graph's order.
        q: variance of the layer's outputs, before any normalisation, mean over positions, shape (L,).
        c: correlation of two inputs' outputs at one position, mean over positions, shape (L,); of two classes
            where there are several, nan for a batch of one.
        chi: σ_w² E[φ'²] of the activation that follows, times the square of what a normalisation in between
            multiplies by; a sum's coefficients and pooling are left out. 1 on the edge of chaos where nothing
            is normalised. nan where none follows. Shape (L,).
        log_moment: log E[(W g)²] of the mean cross-entropy's gradient g, shape (L,).
        top: what is sent backwards from the logits.
        pairs: kinds of pairs of inputs.
        notes: where images were taken at lower resolution.
    """

    layers: tuple[str, ...]
    q: Array
    c: Array
    chi: Array
    log_moment: Array
    top: Cotangent
    pairs: Pairs
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: variance, correlation, χ and the logarithm of the score moment."""
        return layer_frame(self, ("q", "c", "chi", "log_moment"))

    def _headline(self) -> str:
        return f"{len(self.layers)} layers of {ends(self.q, 'q')}, {ends(self.c, 'c')}"


@dataclass(frozen=True)
class ForwardPass:
    """Laws of all nodes' values, and what the layers keep for the backward pass."""

    signals: tuple[Signal | None, ...]
    memories: KernelMemories
    logits: Field


@with_one_thread
def propagate_graph(net: Architecture, data: Any = None, *, seed: int = 0) -> GraphPropagation:
    """Kernels, gradient kernels and score moments of a network with a graph.

    Args:
        data: None, ``(inputs, targets)`` or a `DataSummary`, reshaped to the network's input. Images of more
            than 64 positions along an axis, or too large for `MOST_ENTRIES`, are taken at lower resolution
            (`resolution.within_reach`).
        seed: of the sampled logits.

    Raises:
        ModelError: two values that are added depend on each other, the variance leaves the range of floats,
            a layer does not lead to the output, or images are too large and their size cannot be changed.
    """
    net, batch, notes = _within_memory(net, data, seed)
    graph = net.as_graph()
    refuse_dependent_sums(graph)
    pairs = Pairs.of(batch)
    forward = _forward(graph, batch, pairs)
    # A mean that all classes share changes no softmax.
    logits = pairs.expand(forward.logits.covariance[:, 0, 0].astype(float))
    top = Cotangent(logits, batch.targets, net.out_features)
    moments = backward(graph, forward, pairs, pairs.mean(top.kernel(seed)))
    q, c, chi = _outputs(graph, forward)
    del forward
    give_back()
    return GraphPropagation(net.weight_layers, q, c, chi, moments, top, pairs, notes)


def _within_memory(
    net: Architecture, data: Any, seed: int
) -> tuple[Architecture, DataSummary, tuple[str, ...]]:
    """The network and its data at a resolution whose kernels fit."""
    for largest in RESOLUTIONS:
        smaller, batch, notes = within_reach(net, data, seed=seed, largest=largest, less=True)
        if _entries(smaller.as_graph()) <= MOST_ENTRIES:
            return smaller, batch, notes
    raise ModelError(
        f"images of {net.input_shape} are too large for kernels over all pairs of positions, and the "
        "network takes no smaller ones"
    )


def _entries(graph: Graph) -> int:
    """Pairs of positions held at a time: kernels kept for the backward pass, and those under way."""
    return kept_entries(graph) + KERNELS_UNDER_WAY * max(shape.positions for shape in graph.shapes) ** 2


def refuse_dependent_sums(graph: Graph) -> None:
    """Raises ModelError where a sum's inputs share values that no weights have mixed."""
    origins: list[frozenset[int]] = []
    for position, node in enumerate(graph.nodes):
        sources = [origins[i] for i in node.inputs]
        if node.layer.adds and sum(map(len, sources)) > len(frozenset().union(*sources)):
            raise ModelError(
                f"layer {node.layer.name!r} ({type(node.layer).__name__}) adds values that depend on each "
                "other: weights must stand between them"
            )
        fresh = node.layer.is_random or not sources
        origins.append(frozenset((position,)) if fresh else frozenset().union(*sources))


def _forward(graph: Graph, batch: DataSummary, pairs: Pairs) -> ForwardPass:
    """In single precision where kernels are large, unless the signal leaves its range."""
    if max(shape.positions for shape in graph.shapes) <= DOUBLE_POSITIONS:
        return forward_in(graph, batch, pairs, np.float64)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return forward_in(graph, batch, pairs, np.float32)
    except _OutOfRangeError:
        return forward_in(graph, batch, pairs, np.float64)


class _OutOfRangeError(ArithmeticError):
    """Single precision does not hold the signal."""


def forward_in(graph: Graph, batch: DataSummary, pairs: Pairs, dtype: Any) -> ForwardPass:
    """All nodes forwards in one precision; values are forgotten once nothing needs them any more."""
    signals: list[Signal | None] = [input_signal(batch, graph.input_shape, pairs, dtype)]
    memories = KernelMemories(graph, pairs, np.dtype(dtype).itemsize)
    waiting = [len(users) for users in graph.consumers]
    for position, node in enumerate(graph.nodes[1:], start=1):
        memories.begin(position, signals, waiting)
        inputs = [_held(signals[i]) for i in node.inputs]
        value, memory = node.layer.forward_kernel(inputs, pairs)
        _check_range(node.layer.name, value, dtype)
        signals.append(value)
        memories.put(position, memory)
        del memory
        for i in node.inputs:
            waiting[i] -= 1
            if waiting[i] == 0:
                signals[i] = _diagonal(_held(signals[i]))
    last = signals[-1]
    assert last is not None
    return ForwardPass(tuple(signals), memories, last[0])


def _held(signal: Signal | None) -> Signal:
    assert signal is not None
    return signal


def _diagonal(signal: Signal) -> Signal:
    """What reports need of a value that nothing else does: its moments at equal positions."""
    kept = []
    for field in signal:
        at = np.arange(field.positions)
        kept.append(
            Field(field.channels, field.moment[:, at, at][:, None, :].copy(), field.mean, field.space)
        )
    return tuple(kept)


def _check_range(name: str, signal: Signal, dtype: Any) -> None:
    largest = max(float(np.diagonal(field.moment[0]).max()) for field in signal)
    if dtype is np.float32 and (not largest < SINGLE_RANGE[1] or 0 < largest < SINGLE_RANGE[0]):
        raise _OutOfRangeError
    if not largest < LARGEST_VARIANCE:
        raise ModelError(
            f"variance at layer {name} exceeds {LARGEST_VARIANCE:g}: use a smaller sigma_w or depth"
        )
    if 0 < largest < 1.0 / LARGEST_VARIANCE:
        raise ModelError(
            f"variance at layer {name} falls under {1.0 / LARGEST_VARIANCE:g}: use a larger sigma_w or a "
            "smaller depth"
        )


def backward(graph: Graph, forward: ForwardPass, pairs: Pairs, top: Array) -> Array:
    """log E[(W g)²] of every weight layer, shape (L,), for the gradient (T,) of the logits."""
    dtype = forward.logits.moment.dtype
    scale = float(np.abs(top).max()) or 1.0
    arriving: list[Gradient | None] = [None] * len(graph.nodes)
    arriving[-1] = Gradient(((top / scale).astype(dtype)[:, None, None],), None, float(np.log(scale)))
    found: dict[int, float] = {}
    for position in range(len(graph.nodes) - 1, 0, -1):
        node, gradient = graph.nodes[position], arriving[position]
        arriving[position] = None
        if gradient is None:
            continue
        gradient = gradient.normalised()
        layer, memory = node.layer, forward.memories[position]
        if layer.weighted is not None:
            found[position] = layer.weighted.log_moment(memory, gradient, pairs)
        # Nothing is asked of the gradient of the data.
        if set(node.inputs) == {0}:
            continue
        for source, sent in zip(node.inputs, layer.backward_kernel(memory, gradient, pairs), strict=True):
            before = arriving[source]
            arriving[source] = sent if before is None else before.plus(sent)
    missing = [graph.nodes[p].layer.name for p in graph.weighted if p not in found]
    if missing:
        raise ModelError(f"layer {missing[0]!r} does not lead to the output")
    return np.array([found[position] for position in graph.weighted])


def _outputs(graph: Graph, forward: ForwardPass) -> tuple[Array, Array, Array]:
    """q, c and χ of every weight layer."""
    rows = []
    for position in graph.weighted:
        q, c = _moments(_held(forward.signals[position]))
        rows.append((q, c, _chi(graph, forward, position, graph.weighted_layer(position).weight)))
    q, c, chi = np.array(rows, dtype=float).T
    return q, c, chi


def _moments(signal: Sequence[Field]) -> tuple[float, float]:
    """Variance, and correlation of different inputs, means over channels and positions."""
    total = sum(field.channels for field in signal)
    q, c = 0.0, 0.0
    for field in signal:
        kept = field if field.moment.shape[1] == 1 else _diagonal((field,))[0]
        own, other = kept.moment[0, 0].astype(float), kept.moment[-1, 0].astype(float)
        q += field.channels / total * float(own.mean())
        c += field.channels / total * float(np.mean(other / np.maximum(own, 1e-300)))
    return q, c if len(signal[0].moment) > 1 else np.nan


def _chi(graph: Graph, forward: ForwardPass, position: int, weight: WeightLayer) -> float:
    """σ_w² E[φ'²] through what follows a layer up to the first activation."""
    factor = weight.sigma_w**2
    while True:
        users = graph.consumers[position]
        if not users:
            return np.nan
        position = users[0]
        layer, gain = graph.nodes[position].layer, forward.memories.gain(position)
        if layer.weighted is not None:
            return np.nan
        factor *= 1.0 if gain is None else gain
        if layer.nonlinearity is not None:
            return factor
