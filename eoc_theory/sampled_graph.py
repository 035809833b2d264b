"""Scores of a few really sampled networks of a graph's own widths, on a small batch, in NumPy alone.

An infinite-width kernel knows nothing of a network's width. What a width changes, and how much it changes
from one initialisation to the next, is estimated here on networks that are drawn, run forwards and backwards
with exact gradients, and scored. It serves for *differences*: a small batch has other scores than a large
one, but the effect of the width on both is nearly the same.

Values are float32. Where a deep network leaves its range on the way forwards, the same network is run in
float64. On the way back every node's gradient carries a power of two of its own, so that hundreds of ordered
or chaotic layers neither vanish nor overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .data import DataSummary
from .errors import DataError, ModelError
from .finite_width import LEVELS, ScaleStatistics
from .graph import Graph
from .layers import Convolution, Dense
from .layers.drawing import Draw

Array = np.ndarray

#: Sizes (root mean square) that values may have on the way forwards; beyond them scores would lose digits.
_RANGE = {np.float32: (1e-12, 1e12), np.float64: (1e-130, 1e130)}
#: Sizes within which a gradient is left as it is.
_GRADIENT_RANGE = (1e-10, 1e10)
#: Scores counted at a time: with their copies they fit a second-level cache.
_BLOCK = 1 << 15
#: Bits of a float32 below those that number its bin, 1/32 of an octave wide. The last bins are inf and nan.
_BIN_BITS = 18
_EDGES = (np.arange(255 << 5, dtype=np.int32) << _BIN_BITS).view(np.float32).astype(float)
_LOG_EDGES = np.log(np.append(np.maximum(_EDGES, 2.0**-149), np.full(33, 2.0**128)))


class _OutOfRangeError(Exception):
    """Values beyond what the precision holds."""


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
            raise _OutOfRangeError
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


def sample_networks(
    graph: Graph,
    batch: DataSummary,
    top: Callable[[Array], Array],
    samples: int,
    seed: int,
    *,
    workers: int = 2,
) -> ScaleStatistics:
    """`ScaleStatistics` of every weight layer in `samples` independent networks: (samples, L), (…, K).

    The scores W g are those of all weights, g = ∂/∂W of what `top` sends back. A layer whose scores all
    vanish has log_rms and quantiles −∞.

    Args:
        graph: the network.
        batch: used whole: pass a subset.
        top: logits (B, classes) to what is sent backwards from them, same shape (`Cotangent.of`).
        samples: number of networks, at least 1.
        seed: each network has a stream of random numbers of its own: results do not depend on `workers`, and
            the first n networks are the same for every number of samples.
        workers: networks run at a time. Each keeps its weights and, for the way back, about 9 bytes for each
            entry of its values (convolution, normalisation and ReLU).

    Raises:
        DataError: inputs of another size than the graph's. ModelError: values beyond the range of floats.
    """
    samples = checks.integer("samples", samples, minimum=1)
    shape = graph.input_shape
    if batch.inputs.shape[1] != shape.size:
        raise DataError(f"inputs have {batch.inputs.shape[1]} features, the network takes {shape.size}")
    images = batch.inputs.T.reshape(shape.channels, *shape.space, batch.size)
    with _single_threaded_products(), ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        parts = list(pool.map(lambda index: _network(graph, images, top, seed, index), range(samples)))
    return ScaleStatistics(*(np.stack(rows) for rows in zip(*parts, strict=True)))


def _network(
    graph: Graph, images: Array, top: Callable[[Array], Array], seed: int, index: int
) -> tuple[Array, Array, Array]:
    """log_rms (L,), quantiles (L, K) and dead (L,) of one network."""
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng([seed, 0x67726170, index])
        found = (
            np.full(len(graph.weighted), -np.inf),
            np.full((len(graph.weighted), len(LEVELS)), -np.inf),
            np.ones(len(graph.weighted)),
        )
        try:
            logits, memories = run_forwards(graph, images, Draw(rng, dtype))
            signs = np.ones(images.shape[-1])
            sent = top(logits.T.astype(float)).T
            for number, scores, _ in run_backwards(graph, memories, sent, dtype, signs):
                for array, value in zip(found, score_statistics(scores), strict=True):
                    array[number] = value
        except _OutOfRangeError:
            continue
        return found
    raise ModelError("values of a sampled network leave the range of floats: use a smaller sigma_w or depth")


def run_forwards(graph: Graph, images: Array, draw: Draw) -> tuple[Array, list[Any]]:
    """Logits (classes, B), and what each node keeps for the way back, of one network with weights of `draw`.

    `images` has shape (channels, *space, B), as all values have (`Layer.forward_values`).
    """
    low, high = _RANGE[draw.dtype]
    waiting = [len(takers) for takers in graph.consumers]
    values: list[Any] = [None] * len(graph.nodes)
    memories: list[Any] = [None] * len(graph.nodes)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for position, node in enumerate(graph.nodes):
            inputs = [values[source] for source in node.inputs] or [
                np.ascontiguousarray(images, dtype=draw.dtype)
            ]
            value, memories[position] = node.layer.forward_values(inputs, draw)
            flat = value.reshape(-1)
            if position:
                mean_square = float(np.dot(flat, flat)) / flat.size
                # Nothing but zeros is a dead network and no matter of precision.
                if not low**2 < mean_square < high**2 and (mean_square != 0.0 or flat.any()):
                    raise _OutOfRangeError
            values[position] = value
            for source in node.inputs:
                waiting[source] -= 1
                if not waiting[source]:
                    values[source] = None
    return values[-1], memories


def run_backwards(
    graph: Graph, memories: list[Any], gradient: Array, dtype: Any, signs: Array
) -> Iterator[tuple[int, Scaled, Scaled]]:
    """The number of each weight layer, last to first, and its scores W g, shape (fan_out, fan_in), twice.

    The second has the parts of the batch's inputs with `signs` ±1, shape (B,). `gradient` is what is sent
    back from the logits, (classes, B). `memories` are given up on the way.
    """
    signs = signs.astype(dtype)
    numbers = {position: number for number, position in enumerate(graph.weighted)}
    gradients: list[Scaled | None] = [None] * len(graph.nodes)
    first = Scaled(np.asarray(gradient, dtype=float)).normalised()
    gradients[-1] = Scaled(first.values.astype(dtype), first.exponent)
    for position in range(len(graph.nodes) - 1, 0, -1):
        arrived, memory = gradients[position], memories[position]
        gradients[position] = memories[position] = None
        if arrived is None:
            continue
        arrived = arrived.normalised()
        node = graph.nodes[position]
        if isinstance(node.layer, (Dense, Convolution)):
            back, scores, contrast = node.layer.backward_scores(memory, arrived.values, signs)
            yield numbers[position], Scaled(scores, arrived.exponent), Scaled(contrast, arrived.exponent)
            sent = [back]
        else:
            sent = node.layer.backward_values(memory, arrived.values)
        for source, part in zip(node.inputs, sent, strict=True):
            before, new = gradients[source], Scaled(part, arrived.exponent)
            gradients[source] = new if before is None else before + new


def score_statistics(scores: Scaled) -> tuple[float, Array, float]:
    """½ log of the mean square, log-scores exceeded with the probabilities `LEVELS`, fraction of zeros.

    Quantiles are exact to a small part of their bins, which are 3 % wide.
    """
    flat, exponent = scores.values.reshape(-1), scores.exponent
    if flat.dtype != np.float32:
        power = math.frexp(float(np.abs(flat).max()))[1]
        flat, exponent = np.ldexp(flat, -power).astype(np.float32), exponent + power
    counts = np.zeros(len(_LOG_EDGES) - 1, np.int64)
    squares, alive = 0.0, 0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        double = block.astype(float)
        squares += float(np.dot(double, double))
        alive += int(np.count_nonzero(block))
        # The leading bits of a float number logarithmic bins: a count of them costs a tenth of sorting.
        counts += np.bincount((block.view(np.int32) & 0x7FFFFFFF) >> _BIN_BITS, minlength=len(counts))
    if not math.isfinite(squares):
        raise _OutOfRangeError
    if not alive:
        return -np.inf, np.full(len(LEVELS), -np.inf), 1.0
    counts[0] -= flat.size - alive
    below = np.concatenate([[0.0], np.cumsum(counts) / alive])
    shift = exponent * math.log(2.0)
    quantiles = np.interp(1.0 - LEVELS, below, _LOG_EDGES) + shift
    return 0.5 * math.log(squares / flat.size) + shift, quantiles, 1.0 - alive / flat.size


@contextmanager
def _single_threaded_products() -> Iterator[None]:
    """One thread a matrix product where that can be asked for: the networks themselves run in parallel."""
    try:
        from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingImports]
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield
