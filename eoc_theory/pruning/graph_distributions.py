"""Laws of a graph's scores from a few networks of its own widths on part of the batch.

In a network with positions a gradient has many terms but few independent directions, so that widths of 16 to
128 channels are far from infinite: the kernels of `eoc_theory.propagation.graph_kernels` alone can miss score
moments by factors there. The law of the scores therefore comes from a few sampled networks (`sampled_graph`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import checks
from ..base.one_thread import with_one_thread
from ..criteria.criterion import criterion as as_criterion
from ..criteria.distributions.gradients import max_law
from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.downsample import within_reach
from ..networks.graph import Graph
from ..networks.narrow import LEAST_NORMALISED, LEAST_PLAIN, narrowed
from ..networks.queries import is_normalised
from ..networks.resolve import Network
from ..networks.unread import UnreadNetwork
from ..propagation.sampled_graph import LayerSample, NetworkSample, sample_networks
from ..propagation.score_grid import GRID, STEP
from .allocation import NetworkLaws, quantiles_of

Array = np.ndarray

#: log-score of a layer whose scores are all 0.
NOTHING = -1e4


@dataclass(frozen=True)
class Effort:
    """What a prediction may cost, as far as inputs and networks are free.

    Attributes:
        budget: multiply-adds in forward passes.
        passes: passes of one input through one network: the fewest; the fewest unless they cost more than
            `most`; and the most.
        networks: fewest and most networks.
        inputs: fewest and most inputs that the networks see, classes in turn. Normalised networks differ less
            from each other than batches do, so that inputs come first there; elsewhere networks do.
        most: multiply-adds above which a network is narrowed (`narrowing`).
        inputs_first: whether inputs come first in all networks.
    """

    budget: float
    passes: tuple[int, int, int]
    networks: tuple[int, int]
    inputs: tuple[int, int]
    most: float = 4e10
    inputs_first: bool = False


#: Networks without normalisation differ more from each other, and get so many times as many passes.
PLAIN = 2.0
#: For the mean law of the scores, and for the critical sparsity, which varies more from network to network.
KEPT = Effort(7.0e9, (40, 100, 1600), (2, 16), (20, 100))
COLLAPSE = Effort(6e10, (80, 160, 800), (8, 24), (20, 100), most=1.2e11)
#: The same for a chain of fully connected layers. On 30 of 100 inputs log₁₀(1 − s_cr) comes out 0.1 too low.
CHAIN_COLLAPSE = Effort(1e10, (80, 160, 6400), (24, 64), (20, 100), most=1.2e11, inputs_first=True)
#: Gradients' worth of passes that scores take by what they need. Hess·g takes two gradients, in double
#: precision.
PASSES = {"weights": 1, "gradient": 1, "hessian_gradient": 4}


def plan(
    net: Architecture, batch: int, samples: int | None, effort: Effort = KEPT, passes: int = 1
) -> tuple[int, int]:
    """Inputs that the networks see, and number of networks; one of them takes `passes` passes."""
    graph, classes = net.as_graph(), net.out_features
    normalised = is_normalised(graph)
    cost = forward_cost(graph) * passes
    fewest, usual, most = effort.passes
    total = effort.budget * (1.0 if normalised else PLAIN) / cost
    total = float(np.clip(total, np.clip(effort.most / cost, fewest, usual), most))
    inputs = int(
        np.clip(total / effort.networks[0 if normalised or effort.inputs_first else 1], *effort.inputs)
    )
    if inputs >= batch:
        inputs = batch
    elif inputs > classes:
        # As many of each class.
        inputs -= inputs % classes
    if samples is None:
        samples = int(np.clip(total / inputs, *effort.networks))
    return inputs, samples


def holds_all(net: Architecture, batch: int, criterion: Any, effort: Effort) -> bool:
    """Whether the effort is enough for its fewest networks on as many inputs as there are, or as it asks."""
    inputs, samples = plan(net, batch, None, effort, PASSES[as_criterion(criterion).needs])
    return inputs >= min(batch, effort.inputs[1]) and samples >= effort.networks[0]


def affordable(graph: Graph, passes: int, most: float) -> tuple[Graph, tuple[str, ...]]:
    """The graph, narrowed where so many passes of it cost more multiply-adds than `most`, and a note then."""
    cost = forward_cost(graph) * passes
    hidden = [graph.shapes[at].channels for at in graph.weighted[:-1]]
    least = LEAST_NORMALISED if is_normalised(graph) else LEAST_PLAIN
    factor = max(math.sqrt(most / cost), least / min(hidden, default=least))
    if factor >= 0.75:
        return graph, ()
    try:
        return narrowed(graph, factor), (f"sampled at {factor:.2g} of its width",)
    except ModelError:
        return graph, ()


def forward_cost(graph: Graph) -> float:
    """Multiply-adds of one input's forward pass."""
    positions = (graph.shapes[at].positions for at in graph.weighted)
    return float(sum(p * w.n_weights for p, w in zip(positions, graph.weight_layers, strict=True)))


@dataclass(frozen=True)
class GraphLaws:
    """Laws of a graph's scores.

    Attributes:
        laws: of all scores' sizes or, where they are signed, of the positive and of the negative ones.
        notes: where a lower resolution, or a narrower network, stands for this one.
    """

    laws: tuple[NetworkLaws, ...]
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of networks."""
        return len(self.laws[0].t)


#: Bytes for a weight of the largest layer: what it is drawn from, itself, its scores and their ranks.
SAMPLED_BYTES = 80.0


#: Fewest and most networks that are sampled in torch, for what is kept and for the critical sparsity.
TORCH_KEPT, TORCH_COLLAPSE = (4, 16), (8, 24)


@with_one_thread
def graph_laws(
    net: Network,
    criterion: Any,
    data: Any = None,
    *,
    samples: int | None,
    seed: int,
    effort: Effort = KEPT,
    workers: int = 2,
) -> GraphLaws:
    """Laws of the scores in `samples` networks.

    Args:
        net: any network.
        criterion: one that needs "weights" or gradients, or its name.
        data: as in `Architecture.summarise`; an `UnreadNetwork` has its own.
        samples: number of networks; None: as `plan` has it.
        seed: each network has its own stream of random numbers.
        effort: how many inputs and networks there are.
        workers: networks run at a time; the result does not depend on it.

    Raises:
        DataError: data that do not fit. ModelError: values beyond the range of floats.
    """
    rule = as_criterion(criterion)
    if rule.needs not in PASSES:
        raise rule.unpredicted()
    if isinstance(net, UnreadNetwork):
        fewest, most = TORCH_COLLAPSE if effort in (COLLAPSE, CHAIN_COLLAPSE) else TORCH_KEPT
        sampling = net.sampler.sample(rule, samples, seed, fewest, most)
        return GraphLaws(_laws_of_signs(sampling.networks, sampling.shift, net.weights), sampling.notes)
    net, batch, notes = within_reach(net, data, seed=seed)
    passes = PASSES[rule.needs]
    inputs, samples = plan(net, batch.size, samples, effort, passes)
    graph, narrower = affordable(net.as_graph(), inputs * samples * passes, effort.most)
    largest = max(layer.n_weights for layer in graph.weight_layers)
    checks.memory(f"sampling a layer of {largest} weights", SAMPLED_BYTES * largest, "a narrower network")
    networks = sample_networks(graph, batch, samples, seed, inputs=inputs, criterion=rule, workers=workers)
    shift = batch_shift(np.stack([network.ratios for network in networks]), batch.size / inputs)
    return GraphLaws(_laws_of_signs(networks, shift, net.weights), notes + narrower)


def _laws_of_signs(
    networks: Sequence[NetworkSample], shift: Array, weights: Array
) -> tuple[NetworkLaws, ...]:
    """The laws of all sizes, or of the scores of either sign."""
    return tuple(
        joined_laws(list(layers), shift, weights)
        for layers in zip(*(network.signs for network in networks), strict=True)
    )


def batch_shift(ratios: Array, parts: float) -> Array:
    """½ log of E[g²] for the whole batch over that for a part of it, for each layer, shape (L,).

    The batch's gradient is the mean over its inputs of theirs, which partly cancel: E[g²] = α + β/B, where α
    comes from what inputs of one class have in common. Of a part's two halves, with mean gradients G_1 and
    G_2, the mean square of G_1 − G_2 over that of G_1 + G_2 is the share r = β/(α B' + β) of the second term,
    and in `parts` times as many inputs E[g²] is 1 − r + r/parts of the part's.

    Args:
        ratios: r of each network and layer, nan where it was not measured, shape (S, L). More than 1 shows
            halves that are tied to each other, as batch normalisation does, and counts as 1.
    """
    layers = np.arange(ratios.shape[1])
    known = np.isfinite(ratios).all(axis=0)
    if parts <= 1.0 or known.sum() < 2:
        return np.zeros(len(layers))
    mean = np.exp(np.log(np.maximum(ratios[:, known], 1e-9)).mean(axis=0))
    r = np.interp(layers, layers[known], np.minimum(mean, 1.0))
    return 0.5 * np.log(1.0 - r * (1.0 - 1.0 / parts))


def joined_laws(networks: list[list[LayerSample]], shift: Array, weights: Array) -> NetworkLaws:
    """One mean law a layer from all networks, its log-scores moved by `shift` (L,), and quantiles in each."""
    log_rms = np.array([[sample.log_rms for sample in network] for network in networks]) + shift
    tails = np.array([[sample.tail for sample in network] for network in networks])
    share = np.array([[sample.share for sample in network] for network in networks])
    # A factor common to all layers means nothing, and layers without scores are to be below all others.
    alive = np.isfinite(log_rms)
    nothing = NOTHING
    if not np.all(np.abs(log_rms[alive]) < -0.5 * NOTHING):
        log_rms -= np.max(log_rms, axis=1, where=alive, initial=-np.inf, keepdims=True)
        nothing = min(NOTHING, 2.0 * float(log_rms[alive].min()) + NOTHING)
    log_rms = np.maximum(log_rms, nothing)
    mean = tails.mean(axis=0)
    t = np.stack([scale[:, None] + quantiles_of(tail) for scale, tail in zip(log_rms, tails, strict=True)])
    t = np.maximum.accumulate(t, axis=-1) + 1e-9 * np.arange(t.shape[-1])
    tops = log_rms + np.array([[sample.row_maxima.max() for sample in network] for network in networks])
    largest = []
    for layer in zip(*networks, strict=True):
        maxima = np.stack([sample.row_maxima for sample in layer])
        position = np.where(np.isfinite(maxima), (maxima - GRID[0]) / STEP + 0.5, 0.0)
        bins = np.clip(position, 0, len(GRID) - 1).astype(np.int64)
        largest.append(max_law(bins, bins.shape[1]))
    return NetworkLaws(
        mean,
        np.stack(largest),
        quantiles_of(mean),
        t,
        share,
        np.asarray(weights),
        np.maximum(tops, nothing),
    )
