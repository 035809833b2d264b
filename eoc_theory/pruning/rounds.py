"""Predictions for criteria that prune by gradients in rounds: a few networks are sampled and pruned."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..base import checks
from ..base.one_thread import one_thread_products
from ..criteria.criterion import Criterion
from ..networks.downsample import within_reach
from ..networks.resolve import Network
from ..networks.unread import UnreadNetwork
from ..propagation.sampled_graph import parts_in_turn
from ..propagation.sampled_rounds import left_in_rounds
from ..signals.data import DataSummary
from .graph_distributions import PASSES, SAMPLED_BYTES, Effort, plan

Array = np.ndarray
T = TypeVar("T")

#: What a prediction may cost: a network takes a gradient a round, so that few of them see few inputs.
ROUNDS = Effort(2e11, (40, 100, 1600), (4, 16), (20, 100))
#: Fewest and most networks that are sampled in torch.
_TORCH_NETWORKS = (3, 8)
#: Relative error allowed in the number of weights left at the critical sparsity.
RESOLUTION = 0.03


@dataclass(frozen=True)
class RoundedNetworks:
    """Networks that are to be pruned in rounds.

    Attributes:
        left: (network, weights left, whether to stop when a layer is empty) → numbers kept, (L,).
        samples: number of networks.
        notes: where a lower resolution stands for this one.
    """

    left: Callable[[int, int, bool], Array]
    samples: int
    notes: tuple[str, ...]


def networks_in_rounds(
    net: Network,
    criterion: Criterion,
    data: DataSummary | None,
    samples: int | None,
    seed: int,
    solves: int,
) -> RoundedNetworks:
    """As many networks as are worth their cost where each is pruned `solves` times."""
    passes = PASSES[criterion.needs] * 2 * criterion.rounds * solves
    if isinstance(net, UnreadNetwork):
        sampler = net.sampler
        inputs, count = sampler.plan(samples, *_TORCH_NETWORKS, passes)

        def kept(index: int, left: int, stop: bool) -> Array:
            return sampler.left_in_rounds(criterion, index, seed, inputs, left, stop)

        return RoundedNetworks(kept, count, sampler.notes)
    net, batch, notes = within_reach(net, data, seed=seed)
    graph = net.as_graph()
    inputs, samples = plan(net, batch.size, samples, ROUNDS, passes)
    largest = max(layer.n_weights for layer in graph.weight_layers)
    checks.memory(f"sampling a layer of {largest} weights", SAMPLED_BYTES * largest, "a narrower network")

    part = parts_in_turn(batch, net.input_shape, inputs)

    def left(index: int, count: int, stop: bool) -> Array:
        images, targets = part(index)
        stream = [seed, 0x726F756E, index]
        return left_in_rounds(criterion, graph, images, targets, stream, count, stop_when_empty=stop)

    return RoundedNetworks(left, samples, notes)


def allocate_in_rounds(
    net: Network,
    criterion: Criterion,
    sparsity: Array,
    data: DataSummary | None,
    samples: int | None,
    seed: int,
    workers: int = 2,
) -> tuple[Array, RoundedNetworks]:
    """Fractions kept in sampled networks, (S, n_s, L), and the networks."""
    networks = networks_in_rounds(net, criterion, data, samples, seed, len(sparsity))
    removed = [round(float(s) * net.n_weights) for s in sparsity]

    def network(index: int) -> Array:
        return np.stack([networks.left(index, net.n_weights - k, False) for k in removed])

    counts = _each(network, networks.samples, workers)
    return np.stack(counts) / net.weights, networks


def critical_in_rounds(
    net: Network,
    criterion: Criterion,
    data: DataSummary | None,
    samples: int | None,
    seed: int,
    workers: int = 2,
) -> tuple[Array, Array]:
    """s_cr of sampled networks, (S,), and how often each layer is the weakest, (L,).

    Each final sparsity has a schedule of its own: the largest number of weights left that empties a layer is
    searched for, to `RESOLUTION`.
    """
    solves = math.ceil(math.log2(max(math.log(net.n_weights / net.depth) / RESOLUTION, 2.0)))
    networks = networks_in_rounds(net, criterion, data, samples, seed, solves)

    def network(index: int) -> tuple[float, int]:
        return _critical(lambda count: networks.left(index, count, True), net)

    found = _each(network, networks.samples, workers)
    weakest = np.bincount([layer for _, layer in found], minlength=net.depth)
    return np.sort(np.array([critical for critical, _ in found])), weakest / len(found)


def _critical(left: Callable[[int], Array], net: Network) -> tuple[float, int]:
    emptied, safe = net.depth - 1, net.n_weights
    weakest = int(np.argmin(left(emptied))) if emptied else 0
    while safe - emptied > max(1.0, RESOLUTION * emptied):
        middle = min(max(round(math.sqrt(safe * max(emptied, 1))), emptied + 1), safe - 1)
        counts = left(middle)
        if counts.all():
            safe = middle
        else:
            emptied, weakest = middle, int(np.argmin(counts))
    return 1.0 - emptied / net.n_weights, weakest


def _each(work: Callable[[int], T], count: int, workers: int) -> list[T]:
    with one_thread_products(), ThreadPoolExecutor(max_workers=max(1, min(workers, count))) as pool:
        return list(pool.map(work, range(count)))
