"""Scores of a few really sampled networks of a graph's own widths, on a small batch, in NumPy alone.

Networks are drawn, run forwards and backwards with exact gradients, and the scores of all their weights
counted in logarithmic bins.

Values are float32. Where a deep network leaves its range on the way forwards, the same network is run in
float64, and beyond that carries powers of two (`carried_values`). On the way back every node's gradient has
one of its own, so that hundreds of ordered or chaotic layers neither vanish nor overflow.

**GraSP.** Hess·g is the difference of the gradients at W + εg and at W, over ε, in double precision: the
whole Hessian and not its Gauss–Newton part, with signs. Gates of homogeneous activations and choices of
maxima stay as they are, as in automatic differentiation: almost everywhere their jumps have no second
derivative.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from ..base import checks
from ..base.freed_memory import give_back
from ..base.one_thread import one_thread_products
from ..base.progress import followed
from ..errors import DataError, ModelError
from ..layers import Weighted, WeightLayer
from ..layers.sampled_weights import Draw
from ..networks.graph import Graph
from ..signals.data import DataSummary
from ..signals.shape import Shape
from .carried_values import OutOfRangeError, Value, pass_again, pass_forwards
from .infinite_width import loss_gradient
from .score_grid import GRID

Array = np.ndarray
Made = TypeVar("Made")

#: Sizes (root mean square) that values may have on the way forwards; beyond them scores would lose digits.
_RANGE = {np.float32: (1e-12, 1e12), np.float64: (1e-130, 1e130)}
_SINGLE_DATA = (1e-30, 1e30)
#: Sizes within which a gradient is left as it is.
_GRADIENT_RANGE = (1e-10, 1e10)
#: Powers of two by which a layer's gradients may be smaller than another's and still be kept in its unit.
_LOWEST = -400
#: Length of the step for Hess·g, relative to the weights.
_STEP_SIZE = 1e-7
#: Bytes that networks which run together may keep.
MOST_BYTES = 640 << 20
#: Scores counted at a time: with their copies they fit a second-level cache.
_BLOCK = 1 << 15
#: Bits of a float32 below those that number its bin, 1/32 of an octave wide. The last bins are inf and nan.
_BIN_BITS = 18
_EDGES = (np.arange(255 << 5, dtype=np.int32) << _BIN_BITS).view(np.float32).astype(float)
_LOG_EDGES = np.log(np.append(np.maximum(_EDGES, 2.0**-149), np.full(33, 2.0**128)))


@dataclass(frozen=True)
class Scaled:
    """values · 2^exponent."""

    values: Array
    exponent: int = 0

    def normalised(self) -> Scaled:
        """The same with values of an ordinary size."""
        flat = self.values.reshape(-1)
        with np.errstate(over="ignore", under="ignore"):
            size = math.sqrt(float(np.dot(flat, flat)) / max(flat.size, 1))
        if _GRADIENT_RANGE[0] < size < _GRADIENT_RANGE[1]:
            return self
        peak = float(np.abs(flat).max(initial=0.0))
        if not math.isfinite(peak):
            raise OutOfRangeError
        if peak == 0.0:
            return self
        power = math.frexp(peak)[1]
        return Scaled(np.ldexp(self.values, -power), self.exponent + power)

    def __add__(self, other: Scaled) -> Scaled:
        if self.exponent < other.exponent:
            return other + self
        if self.exponent == other.exponent:
            return Scaled(self.values + other.values, self.exponent)
        # The smaller one may vanish beside the larger: below a float's last digit that is right.
        small = np.ldexp(other.values, max(other.exponent - self.exponent, -4000))
        return Scaled(self.values + small, self.exponent)


@dataclass(frozen=True)
class LayerSample:
    """The scores of one layer in one network: all in size, or those of one sign.

    Attributes:
        log_rms: ½ log of the mean square of all scores of the layer, of either sign; −∞ if all are 0.
        share: fraction of the layer's scores that are counted.
        tail: P(log-score − log_rms > u | counted) on `scores.GRID`, shape (U,).
        row_maxima: log of the largest counted score of each row, less log_rms; shape (fan_out,).
    """

    log_rms: float
    share: float
    tail: Array
    row_maxima: Array


@dataclass(frozen=True)
class NetworkSample:
    """What one network shows.

    Attributes:
        signs: for each sign that is told apart, a sample of each layer.
        ratios: what `run_backwards` finds of the inputs' two halves, shape (L,); nan where it did not look.
    """

    signs: tuple[list[LayerSample], ...]
    ratios: Array


#: Layers whose gradients' dependence on the inputs' number is looked at.
WATCHED = 6


def sample_networks(
    graph: Graph,
    batch: DataSummary,
    samples: int,
    seed: int,
    *,
    inputs: int | None = None,
    criterion: Scoring,
    workers: int = 2,
) -> list[NetworkSample]:
    """Scores of `samples` networks: of all weights in size or, where they are signed, of either sign.

    Args:
        graph: the network.
        batch: what the scores are computed on.
        samples: number of networks, at least 1.
        seed: each network has a stream of random numbers of its own: results do not depend on `workers`, and
            the first n networks are the same for every number of samples.
        inputs: how many inputs each network sees; None: all. Each takes up where the one before left off, in
            an order of classes in turn, so that together they see the whole batch.
        criterion: says what a weight and a derivative score.
        workers: networks run at a time, where that is not more than `MOST_BYTES`. Each keeps its weights and,
            for the way back, 4 bytes for each entry of its normalised values, 9 where nothing is normalised.

    Raises:
        DataError: inputs of another size than the graph's. ModelError: values beyond the range of floats.
    """
    samples = checks.integer("samples", samples, minimum=1)
    shape = graph.input_shape
    if batch.inputs.shape[1] != shape.size:
        raise DataError(f"inputs have {batch.inputs.shape[1]} features, the network takes {shape.size}")
    inputs = batch.size if inputs is None else min(inputs, batch.size)

    part = parts_in_turn(batch, shape, inputs)

    @np.errstate(all="ignore")
    def network(index: int) -> NetworkSample:
        images, targets = part(index)
        return _sample(criterion, graph, images, targets, [seed, 0x67726170, index])

    key = ("networks", graph, digest(batch), seed, inputs, criterion)
    known: list[NetworkSample] = made_once(key, list)
    missing = range(len(known), samples)
    if missing:
        most = max(1, MOST_BYTES // (_held_entries(graph) * inputs * np.dtype(np.float32).itemsize))
        with one_thread_products(), ThreadPoolExecutor(max_workers=min(max(1, workers), most)) as pool:
            known += followed(pool.map(network, missing), "sampled network", len(missing))
        give_back()
    return known[:samples]


def parts_in_turn(batch: DataSummary, shape: Shape, inputs: int) -> Callable[[int], tuple[Array, Array]]:
    """Number of a network → images (channels, *space, B) and targets (B,), the `inputs` that it sees.

    Each takes up where the one before left off, in an order of classes in turn.
    """
    order = np.arange(batch.size) if inputs == batch.size else batch.in_turn()

    def part(index: int) -> tuple[Array, Array]:
        chosen = batch.take(order[(index * inputs + np.arange(inputs)) % batch.size])
        return chosen.inputs.T.reshape(shape.channels, *shape.space, inputs), chosen.targets

    return part


def _held_entries(graph: Graph) -> int:
    """Entries of one input's values that a network about keeps for the way back."""
    held = 1
    for node, shape in zip(graph.nodes, graph.shapes, strict=True):
        before = graph.nodes[node.inputs[0]].layer if node.inputs else None
        normalised = before is not None and before.normalises
        if node.layer.normalises:
            held += shape.size
        elif node.layer.nonlinearity is not None and not normalised:
            held += 2 * shape.size
    return held


#: What was sampled so far within `shared_samples`, by all that a sample depends on.
_SHARED: ContextVar[dict[Any, Any] | None] = ContextVar("shared samples", default=None)


@contextmanager
def shared_samples() -> Iterator[None]:
    """Within it no network is sampled twice: what pruning keeps and when it collapses start with the same."""
    if _SHARED.get() is not None:
        yield
        return
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def made_once(key: Any, make: Callable[[], Made]) -> Made:
    """What `make` gives, within `shared_samples` once for each `key`, which tells all that it depends on."""
    shared = _SHARED.get()
    if shared is None or not _is_hashable(key):
        return make()
    if key not in shared:
        shared[key] = make()
    return shared[key]


def _is_hashable(key: Any) -> bool:
    """Whether a key can be looked up: a user's own criterion may hold arrays."""
    try:
        hash(key)
    except TypeError:
        return False
    return True


def digest(batch: DataSummary) -> bytes:
    """A name of the batch's inputs and classes."""
    return b"".join(hashlib.sha256(part.tobytes()).digest() for part in (batch.inputs, batch.targets))


class Scoring(Protocol):
    """What sampling asks of a pruning criterion; see `eoc_theory.criteria.criterion.Criterion`."""

    @property
    def needs(self) -> str: ...
    @property
    def signed(self) -> bool: ...
    @property
    def is_product(self) -> bool: ...
    @property
    def proportional(self) -> bool: ...
    @property
    def temperature(self) -> float: ...
    def score(self, weight: Any, derivative: Any) -> Any: ...


def _sample(
    criterion: Scoring, graph: Graph, images: Array, targets: Array, stream: list[int]
) -> NetworkSample:
    try:
        if criterion.is_product and criterion.needs == "gradient":
            return _product_sample(criterion, graph, images, targets, stream)
        scored = own_scores(criterion, graph, images, targets, stream)
        found = [layer_samples(layer, signed=criterion.signed) for layer in scored]
    except OutOfRangeError:
        raise ModelError(
            "values of a sampled network leave the range of floats: use a smaller sigma_w or depth"
        ) from None
    return NetworkSample(_by_sign(found), np.full(len(found), math.nan))


def _by_sign(layers: list[tuple[LayerSample, ...]]) -> tuple[list[LayerSample], ...]:
    return tuple(list(sign) for sign in zip(*layers, strict=True))


def _product_sample(
    criterion: Scoring, graph: Graph, images: Array, targets: Array, stream: list[int]
) -> NetworkSample:
    """W g in one network, and how it depends on the number of inputs."""
    for dtype in (np.float32, np.float64):
        draw = Draw(np.random.default_rng(stream), dtype)
        try:
            logits, memories = run_forwards(graph, images, draw)
            sent = sent_back(criterion, logits.T.astype(float), targets)
            halves = _halves(graph, len(targets))
            found, ratios = {}, np.full(len(graph.weighted), math.nan)
            for number, scores, ratio in run_backwards(graph, memories, sent, dtype, halves=halves):
                found[number], ratios[number] = layer_samples(scores, signed=criterion.signed), ratio
        except OutOfRangeError:
            continue
        return NetworkSample(_by_sign([found[number] for number in range(len(found))]), ratios)
    raise OutOfRangeError


def sent_back(criterion: Scoring, logits: Array, targets: Array) -> Array:
    """What is sent backwards from logits (B, classes), up to a factor; shape (classes, B)."""
    cooled = logits if criterion.temperature == 1.0 else logits / criterion.temperature
    return loss_gradient(cooled, targets).T


def own_scores(
    criterion: Scoring, graph: Graph, images: Array, targets: Array, stream: list[int]
) -> list[Scaled]:
    """The criterion's scores of every weight layer, of the network drawn from `stream`."""
    if criterion.needs == "weights":
        draw = Displaced(np.random.default_rng(stream), np.float64)
        run_forwards(graph, images, draw)
        given = [draw.given[layer.name] for layer in graph.weight_layers]
        return [Scaled(_finite(criterion.score(weights, None))) for weights in given]
    if criterion.needs == "hessian_gradient":
        pairs = curvature(criterion, graph, images, targets, stream)
    else:
        pairs = gradients(
            criterion, graph, images, targets, Displaced(np.random.default_rng(stream), np.float64)
        )
    return [scored(criterion, weights, derivative) for weights, derivative in pairs]


def scored(criterion: Scoring, weights: Array, derivative: Scaled) -> Scaled:
    """Scores of weights for a derivative in its own unit; in the true one where that matters."""
    if criterion.proportional:
        return Scaled(_finite(criterion.score(weights, derivative.values)), derivative.exponent)
    largest = math.frexp(float(np.abs(derivative.values).max(initial=0.0)))[1] + derivative.exponent
    if not -900 < largest < 900 and derivative.values.any():
        raise OutOfRangeError
    true = np.ldexp(np.asarray(derivative.values, dtype=float), derivative.exponent)
    return Scaled(_finite(criterion.score(weights, true)))


def _finite(scores: Any) -> Array:
    found = np.asarray(scores, dtype=float)
    if not np.isfinite(found).all():
        raise OutOfRangeError
    return found


def gradients(
    criterion: Scoring, graph: Graph, images: Array, targets: Array, draw: Displaced
) -> list[tuple[Array, Scaled]]:
    """Weights and gradient of every weight layer, also where a weight is 0."""
    logits, memories = run_forwards(graph, images, draw)
    sent = sent_back(criterion, logits.T.astype(float), targets)
    found = {
        number: gradient
        for number, gradient, _ in run_backwards(graph, memories, sent, draw.dtype, weighted=False)
    }
    return [(draw.given[layer.name], found[at]) for at, layer in enumerate(graph.weight_layers)]


def _halves(graph: Graph, inputs: int) -> tuple[list[int], int]:
    """Layers spread over the network, none if there is one input, and how many inputs are the first half."""
    if inputs < 2:
        return [], inputs
    last = len(graph.weighted) - 1
    layers = {*np.linspace(0, last, WATCHED).round().astype(int).tolist(), max(last - 1, 0)}
    return sorted(layers), -(-inputs // 2)


@dataclass(frozen=True)
class Displaced(Draw):
    """The random numbers of another draw again, with something added to each layer's weights.

    Attributes:
        added: by the layers' names; nothing for those that are not there.
        masks: what is left of each layer's weights, booleans by the layers' names; all where it is not there.
        given: the weights that were given out.
    """

    added: dict[str, Array] = field(default_factory=dict)
    masks: Mapping[str, Array] = field(default_factory=dict)
    given: dict[str, Array] = field(default_factory=dict)

    def weights(self, layer: WeightLayer, groups: int = 1) -> Array:
        weights = super().weights(layer, groups)
        if layer.name in self.added:
            weights = weights + self.added[layer.name]
        if layer.name in self.masks:
            weights = weights * self.masks[layer.name]
        self.given[layer.name] = weights
        return weights


def curvature(
    criterion: Scoring, graph: Graph, images: Array, targets: Array, stream: list[int]
) -> list[tuple[Array, Scaled]]:
    """Weights and Hess·g of every weight layer, of the network drawn from `stream`."""
    names = [layer.name for layer in graph.weight_layers]

    def gradient(draw: Displaced, frozen: list[Any] | None) -> tuple[dict[str, Scaled], list[Any]]:
        logits, memories = run_forwards(graph, images, draw, frozen=frozen)
        sent = sent_back(criterion, logits.T, targets)
        scores = run_backwards(graph, list(memories), sent, np.float64)
        found = {}
        for number, score, _ in scores:
            weights = draw.given[names[number]]
            # Single precision draws a weight of exactly 0 once in a while; its score is 0 in any case.
            found[names[number]] = Scaled(
                score.values / np.where(weights == 0, np.inf, weights), score.exponent
            )
        return found, memories

    draw = Displaced(np.random.default_rng(stream), np.float64)
    here, memories = gradient(draw, None)
    # One power of two for all layers, so that one step serves them.
    power = max(g.normalised().exponent for g in here.values())
    slope = {name: np.ldexp(g.values, g.exponent - power) for name, g in here.items()}
    weights, length = (math.sqrt(sum(float(np.vdot(x, x)) for x in d.values())) for d in (draw.given, slope))
    step = _STEP_SIZE * weights / max(length, np.finfo(float).tiny)
    moved = Displaced(
        np.random.default_rng(stream), np.float64, {name: g * step for name, g in slope.items()}
    )
    there, _ = gradient(moved, memories)
    result = []
    for name in names:
        own = here[name].exponent
        # In its own unit where it is far below the other layers'.
        unit = power if own - power > _LOWEST else own
        change = np.ldexp(there[name].values, there[name].exponent - unit)
        change -= np.ldexp(here[name].values, own - unit)
        result.append((draw.given[name], Scaled(change / step, unit - power)))
    return result


def run_forwards(
    graph: Graph, images: Array, draw: Draw, *, frozen: list[Any] | None = None
) -> tuple[Array, list[Any]]:
    """Logits (classes, B), and what each node keeps for the way back, of one network with weights of `draw`.

    `images` has shape (channels, *space, B), as all values have (`Layer.forward_values`). `frozen` is what
    the nodes of a run with slightly different weights kept: gates and choices of maxima are then its own.
    """
    low, high = _RANGE[draw.dtype]
    waiting = [len(takers) for takers in graph.consumers]
    values: list[Any] = [None] * len(graph.nodes)
    memories: list[Any] = [None] * len(graph.nodes)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        data = Value(np.ascontiguousarray(images, dtype=draw.dtype))
        largest = float(np.abs(images).max())
        if draw.dtype is np.float32 and largest and not _SINGLE_DATA[0] < largest < _SINGLE_DATA[1]:
            raise OutOfRangeError
        for position, node in enumerate(graph.nodes):
            inputs = [values[source] for source in node.inputs] or [data]
            if frozen is None:
                value, passage = pass_forwards(node, inputs, draw)
                flat = value.values.reshape(-1)
                if position:
                    mean_square = float(np.dot(flat, flat)) / flat.size
                    # Nothing but zeros is a dead network and no matter of precision.
                    if not low**2 < mean_square < high**2 and (mean_square != 0.0 or flat.any()):
                        if draw.dtype is not np.float64:
                            raise OutOfRangeError
                        value = value.normalised()
                        passage = replace(passage, exponent=value.exponent)
            else:
                value, passage = pass_again(frozen[position], inputs, draw)
            alone = len(node.inputs) == 1
            memories[position] = passage.lean(inputs[0], memories[node.inputs[0]]) if alone else passage
            values[position] = value
            for source in node.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    values[source] = None
        logits = values[-1]
        if logits.exponent:
            # Beyond these sizes a softmax is the same.
            logits = logits.normalised()
            return np.ldexp(logits.values, max(min(logits.exponent, 900), -1000)), memories
        return logits.values, memories


def run_backwards(
    graph: Graph,
    memories: list[Any],
    gradient: Array,
    dtype: Any,
    *,
    halves: tuple[Collection[int], int] = ((), 0),
    weighted: bool = True,
) -> Iterator[tuple[int, Scaled, float]]:
    """The number of each weight layer, last to first, its scores W g, shape (fan_out, fan_in), and a ratio.

    Args:
        gradient: what is sent back from the logits, (classes, B).
        memories: are given up on the way.
        halves: numbers of layers, and how many inputs are the first half. Of those layers the ratio is the
            mean square of the difference of the two halves' parts of the scores over that of the scores; of
            all others nan.
        weighted: whether the gradient comes times the weight, or alone.
    """
    watched = set(halves[0])
    numbers = {position: number for number, position in enumerate(graph.weighted)}
    gradients: list[Scaled | None] = [None] * len(graph.nodes)
    first = Scaled(np.asarray(gradient, dtype=float)).normalised()
    gradients[-1] = Scaled(first.values.astype(dtype), first.exponent)
    for position in range(len(graph.nodes) - 1, 0, -1):
        arrived, passage = gradients[position], memories[position]
        gradients[position] = memories[position] = None
        if arrived is None:
            continue
        arrived = arrived.normalised()
        layer, memory, seen = passage.layer, passage.kept(), passage.inputs[0]
        weighted_layer = layer.weighted
        if weighted_layer is not None:
            if numbers[position] in watched:
                back, scores, ratio = _in_halves(weighted_layer, memory, arrived.values, halves[1])
            else:
                (back, scores), ratio = weighted_layer.backward_scores(memory, arrived.values), math.nan
                if not weighted:
                    ones = np.ones_like(memory[0])
                    _, scores = weighted_layer.backward_scores((ones, memory[1]), arrived.values)
            yield numbers[position], Scaled(scores, arrived.exponent + seen), ratio
            sent = [back]
        else:
            sent = layer.backward_values(memory, arrived.values)
        for source, part in zip(graph.nodes[position].inputs, sent, strict=True):
            # By a value in its own unit, as the layer made its output in one.
            before, new = gradients[source], Scaled(part, arrived.exponent + passage.made - seen)
            gradients[source] = new if before is None else before + new


def _in_halves(layer: Weighted, memory: Any, gradient: Array, first: int) -> tuple[Array, Array, float]:
    """What `backward_scores` gives, and the ratio of `run_backwards`, from half of the inputs at a time."""
    weights, x = memory
    parts = [
        layer.backward_scores(
            (weights, np.ascontiguousarray(x[..., part])), np.ascontiguousarray(gradient[..., part])
        )
        for part in (slice(0, first), slice(first, None))
    ]
    (back, scores), (other_back, other) = parts
    apart = _square(scores - other)
    scores += other
    ratio = apart / max(_square(scores), np.finfo(float).tiny)
    return np.concatenate([back, other_back], axis=-1), scores, ratio


def _square(values: Array) -> float:
    """Sum of squares in double precision."""
    return float(np.einsum("ij,ij->", values, values, dtype=np.float64))


def layer_samples(scores: Scaled, *, signed: bool = False) -> tuple[LayerSample, ...]:
    """Sizes of all scores (fan_out, fan_in) of a layer; with `signed` the positive, and the negative ones.

    The tail is exact to a small part of its bins, which are 3 % wide.
    """
    values, exponent = scores.values, scores.exponent
    if values.dtype != np.float32:
        power = math.frexp(float(np.abs(values).max()))[1]
        values, exponent = np.ldexp(values, -power).astype(np.float32), exponent + power
    flat = values.reshape(-1)
    squares = 0.0
    counts = np.zeros((2, len(_LOG_EDGES) - 1), np.int64)
    alive = np.zeros(2, np.int64)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        double = block.astype(float)
        squares += float(np.dot(double, double))
        alive += np.count_nonzero(block > 0), np.count_nonzero(block < 0)
        # The leading bits of a float number logarithmic bins: a count of them costs a tenth of sorting.
        bits = (block.view(np.int32) & 0x7FFFFFFF) >> _BIN_BITS
        if signed:
            counts[0] += np.bincount(bits[block > 0], minlength=counts.shape[1])
            counts[1] += np.bincount(bits[block < 0], minlength=counts.shape[1])
        else:
            counts[0] += np.bincount(bits, minlength=counts.shape[1])
    if not math.isfinite(squares):
        raise OutOfRangeError
    if not signed:
        alive = np.array([alive.sum(), 0])
        counts[0, 0] -= flat.size - alive[0]
    if squares == 0.0:
        nothing = LayerSample(-math.inf, 0.0, np.zeros(len(GRID)), np.full(len(values), -math.inf))
        return (nothing,) * (1 + signed)
    log_rms = 0.5 * math.log(squares / flat.size)
    extremes = (values.max(axis=1), -values.min(axis=1))
    largest = extremes if signed else (np.maximum(*extremes),)
    found = []
    for count, living, rows in zip(counts, alive, largest, strict=False):
        above = np.append(np.cumsum(count[::-1])[::-1], 0) / max(int(living), 1)
        tail = np.interp(GRID, _LOG_EDGES - log_rms, above)
        with np.errstate(divide="ignore"):
            maxima = np.log(np.maximum(rows, 0.0).astype(float)) - log_rms
        found.append(LayerSample(log_rms + exponent * math.log(2.0), living / flat.size, tail, maxima))
    return tuple(found)
