"""Predictions for criteria that prune in rounds: a few networks are sampled and pruned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..criteria.criterion import Criterion
from ..criteria.critical_search import searched_critical_sparsity
from ..networks.resolve import Network
from ..signals.data import DataSummary
from .graph_distributions import as_sampled

Array = np.ndarray

#: Fewest and most networks.
_NETWORKS = (3, 8)
#: Relative error allowed in the number of weights left at the critical sparsity.
RESOLUTION = 0.03


@dataclass(frozen=True)
class RoundedNetworks:
    """Networks that are to be pruned in rounds.

    Attributes:
        left: (network, weights left, whether to stop when a layer is empty) → numbers kept, (L,).
        each: what a function makes of the number of each network, side by side.
        samples: number of networks.
        notes: what the result says of them.
    """

    left: Callable[[int, int, bool], Array]
    each: Callable[[Callable[[int], Any]], list[Any]]
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
    sampler = as_sampled(net, data, seed=seed).sampler
    # SynFlow looks at one input.
    passes = 1.0 / sampler.size if criterion.needs == "paths" else criterion.passes
    passes *= 2 * criterion.rounds * solves
    inputs, count = sampler.plan(samples, *_NETWORKS, passes)

    def kept(index: int, left: int, stop: bool) -> Array:
        return sampler.left_in_rounds(criterion, index, seed, inputs, left, stop)

    def each(work: Callable[[int], Any]) -> list[Any]:
        return sampler.each(work, range(count), inputs)

    return RoundedNetworks(kept, each, count, sampler.notes)


def allocate_in_rounds(
    net: Network,
    criterion: Criterion,
    sparsity: Array,
    data: DataSummary | None,
    samples: int | None,
    seed: int,
) -> tuple[Array, RoundedNetworks]:
    """Fractions kept in sampled networks, (S, n_s, L), and the networks."""
    networks = networks_in_rounds(net, criterion, data, samples, seed, len(sparsity))
    removed = [round(float(s) * net.n_weights) for s in sparsity]

    def network(index: int) -> Array:
        return np.stack([networks.left(index, net.n_weights - k, False) for k in removed])

    counts = networks.each(network)
    return np.stack(counts) / net.weights, networks


def critical_in_rounds(
    net: Network,
    criterion: Criterion,
    data: DataSummary | None,
    samples: int | None,
    seed: int,
) -> tuple[Array, Array]:
    """s_cr of sampled networks, (S,), and how often each layer is the weakest, (L,).

    Each final sparsity has a schedule of its own: the largest number of weights left under which a layer
    collapses is searched for, to `RESOLUTION`.
    """
    solves = math.ceil(math.log2(max(math.log(net.n_weights / net.depth) / RESOLUTION, 2.0)))
    networks = networks_in_rounds(net, criterion, data, samples, seed, solves)

    whole = [int(count) for count in net.weights]

    def network(index: int) -> tuple[float, int]:
        return searched_critical_sparsity(
            whole, lambda count: [int(k) for k in networks.left(index, count, True)], RESOLUTION
        )

    found = networks.each(network)
    weakest = np.bincount([layer for _, layer in found], minlength=net.depth)
    return np.sort(np.array([critical for critical, _ in found])), weakest / len(found)
