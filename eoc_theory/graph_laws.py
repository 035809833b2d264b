"""Laws of a graph's scores from a few networks of its own widths on part of the batch.

In a network with positions a gradient has many terms but few independent directions, so that widths of 16 to
128 channels are far from infinite: the kernels of `eoc_theory.graph_propagation` alone can miss score moments
by factors there. The law of the scores therefore comes from a few sampled networks (`sampled_graph`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .allocation import NetworkLaws, quantiles_of
from .architecture import Architecture
from .graph import Graph
from .layers import BatchNorm, GroupNorm, LayerNorm
from .sampled_graph import LayerSample, sample_networks
from .scores import GRID, STEP, max_law

Array = np.ndarray

#: Multiply-adds in forward passes that one prediction may cost, as far as inputs and networks are free.
BUDGET = 5.5e9
#: Fewest passes of one input through one network.
LEAST_PASSES = 40
#: Fewest and most networks where no number is asked for.
NETWORKS = (2, 16)
#: Inputs that the networks see, classes in turn: of a network without normalisation, and the most of one with
#: it. With normalisation networks differ less from each other than batches do.
INPUTS, MOST_INPUTS = 20, 50
#: log-score of a layer whose scores are all 0.
NOTHING = -1e4


def plan(net: Architecture, batch: int, samples: int | None, passes: int = 1) -> tuple[int, int]:
    """How many inputs the networks see, and how many networks there are."""
    graph = net.graph
    assert graph is not None
    affordable = BUDGET / (forward_cost(graph) * passes)
    total = float(np.clip(affordable, LEAST_PASSES, NETWORKS[1] * MOST_INPUTS))
    normalised = any(isinstance(node.layer, (BatchNorm, GroupNorm, LayerNorm)) for node in graph.nodes)
    inputs = int(np.clip(total / NETWORKS[0], INPUTS, MOST_INPUTS)) if normalised else INPUTS
    inputs = min(inputs, batch)
    if samples is None:
        samples = int(np.clip(total / inputs, *NETWORKS))
    return inputs, samples


def forward_cost(graph: Graph) -> float:
    """Multiply-adds of one input's forward pass."""
    positions = (graph.shapes[at].positions for at in graph.weighted)
    return float(sum(p * w.n_weights for p, w in zip(positions, graph.weight_layers, strict=True)))


def graph_laws(
    net: Architecture, criterion: str, data: Any = None, *, samples: int | None, seed: int, workers: int = 2
) -> list[NetworkLaws]:
    """Laws of the scores' sizes in `samples` networks or, for "grasp", of the positive and of the negative.

    Args:
        net: an architecture with a graph.
        criterion: "snip" or "grasp".
        data: as in `Architecture.summarise`.
        samples: number of networks; None: as `plan` has it.
        seed: each network has its own stream of random numbers.
        workers: networks run at a time; the result does not depend on it.

    Raises:
        DataError: data that do not fit. ModelError: values beyond the range of floats.
    """
    graph = net.graph
    assert graph is not None
    batch = net.summarise(data, seed=seed)
    # Hess·g takes two gradients, in double precision.
    inputs, samples = plan(net, batch.size, samples, 4 if criterion == "grasp" else 1)
    part = batch.take(batch.spread_indices(inputs))
    networks = sample_networks(graph, part, samples, seed, criterion=criterion, workers=workers)
    return [joined_laws([found[sign] for found in networks], net.weights) for sign in range(len(networks[0]))]


def joined_laws(networks: list[list[LayerSample]], weights: Array) -> NetworkLaws:
    """One mean law a layer from all networks, and where its quantiles lie in each."""
    log_rms = np.array([[sample.log_rms for sample in network] for network in networks])
    tails = np.array([[sample.tail for sample in network] for network in networks])
    share = np.array([[sample.share for sample in network] for network in networks])
    log_rms = np.maximum(log_rms, NOTHING)
    mean = tails.mean(axis=0)
    t = np.stack([scale[:, None] + quantiles_of(tail) for scale, tail in zip(log_rms, tails, strict=True)])
    t = np.maximum.accumulate(t, axis=-1) + 1e-9 * np.arange(t.shape[-1])
    largest = []
    for layer in zip(*networks, strict=True):
        maxima = np.stack([sample.row_maxima for sample in layer])
        position = np.where(np.isfinite(maxima), (maxima - GRID[0]) / STEP + 0.5, 0.0)
        bins = np.clip(position, 0, len(GRID) - 1).astype(np.int64)
        largest.append(max_law(bins, bins.shape[1]))
    return NetworkLaws(mean, np.stack(largest), quantiles_of(mean), t, share, np.asarray(weights))
