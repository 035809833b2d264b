"""The diagnosis of a network with attention by theory: no network is sampled, and no weight is made.

How alike tokens become, how evenly attention attends and what gradients do follow from kernels of drawn
channels (`eoc_theory.propagation.channel_kernels`), the same draws that score distributions come from.
Changes are compared with few channels drawn; the one that helps most is then looked at with as many as the
network as found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...criteria.criterion import Criterion
from ...networks.architecture import Architecture
from ...networks.graph import Graph
from ...propagation.channel_kernels import ChannelPropagation, propagate_channels
from ...propagation.channel_plan import ALL_CHANNELS, ATTENTION_CHANNELS
from ...propagation.observed import Observed
from ...propagation.shared import shared_samples
from ...pruning.graph_theory import laws_and_kernels
from ...signals.data import DataSummary
from .findings import off_edge
from .forecast import outlook
from .initialisation import Reading
from .remedies import Cure, cures, with_weights
from .sampled import View, best_of

Array = np.ndarray

#: Changes that are tried, at most.
MOST_TRIED = 3
#: Channels of a hidden layer that are drawn in all, about, where changes are compared.
_FEW_CHANNELS = ATTENTION_CHANNELS
#: Multiply-adds of looking at a network once, beyond which the first change alone is tried.
_DEAR = 5e11
#: Standard deviations of attention's scores that are as good as 1.
_AS_GOOD = (0.5, 2.0)


def diagnose_attention(
    net: Architecture,
    reading: Reading,
    batch: DataSummary,
    sparsity: float,
    rule: Criterion,
    seed: int,
    *,
    biases: bool,
    masked: bool,
) -> tuple[View, Cure | None, View | None]:
    """The network as found; what is predicted to help, and the network after it.

    Args:
        biases, masked: as in `eoc_theory.reports.diagnosis.remedies.cures`.

    Raises:
        ArgumentError: a criterion that the theory of attention does not know. ModelError: values beyond the
        range of floats.
    """

    def view(one: Architecture, channels: int = ALL_CHANNELS) -> tuple[View, ChannelPropagation]:
        with shared_samples():
            if rule.needs == "gradient" and rule.rounds == 1:
                kernels = laws_and_kernels(one, rule, batch, seed=seed, channels=channels)
            else:
                kernels = propagate_channels(one, batch, seed=seed, channels=channels)
            seen = outlook(one, reading, sparsity, rule, batch, seed, "theory", kernels)
        return View(seen, observed(one, reading, kernels), kernels.notes), kernels

    before, kernels = view(net)
    if not before.problems:
        return before, None, None
    redraw = bool(off_edge(net, reading, before.outlook).any())
    silent = len(before.outlook.silent) > 0
    others = cures(net, reading, redraw=redraw, biases=biases, masked=masked, silent=silent)
    candidates = [*_even_attention(net, kernels), *_stable_branches(net, before.signals), *others]
    dear = kernels.work > _DEAR and kernels.draws == 1
    tried = candidates[: 1 if dear else MOST_TRIED]
    if len(tried) < min(len(candidates), MOST_TRIED):
        note = f"the network is so large that the first of {len(candidates)} possible changes alone was tried"
        before = replace(before, notes=(*before.notes, note))
    if len(tried) > 1 and kernels.draws > 1:
        cure, _ = best_of(before, tried, lambda changed: view(changed, _FEW_CHANNELS)[0])
        found = best_of(before, [] if cure is None else [cure], lambda changed: view(changed)[0])
        if found[0] is not None:
            return before, *found
        # Few channels were too few to tell.
        tried = [one for one in tried if one is not cure]
    return before, *best_of(before, tried, lambda changed: view(changed)[0])


def observed(net: Architecture, reading: Reading, kernels: ChannelPropagation) -> Observed:
    """The kernels as what sampled networks would show on average."""
    graph = net.as_graph()
    several = np.isfinite(kernels.entropy)
    return Observed(
        signal=kernels.q,
        gradient=np.exp(kernels.log_gradient),
        entries=np.array([float(graph.shapes[at].size) for at in graph.weighted]),
        order=np.arange(len(net), dtype=float),
        token_similarity=kernels.similarity,
        input_similarity=kernels.c,
        attention=tuple(name for name, known in zip(kernels.attentions, several, strict=True) if known),
        attention_entropy=kernels.entropy[several],
        residual=_branch_ends(net, graph, reading),
    )


def _branch_ends(net: Architecture, graph: Graph, reading: Reading) -> tuple[int, ...]:
    """Positions, among the weight layers, of those that end a residual branch."""
    places = {layer.name: number for number, layer in enumerate(net)}
    ends = (last_weights(graph, graph.nodes[join.position].inputs[join.branch]) for join in reading.joins)
    return tuple(places[name] for name in dict.fromkeys(ends) if name is not None)


def last_weights(graph: Graph, position: int) -> str | None:
    """Name of the weight layer that a node's value comes from with nothing but one way between; or None."""
    while True:
        node = graph.nodes[position]
        if node.layer.weighted is not None:
            return node.layer.weighted.weight.name
        if len(node.inputs) != 1:
            return None
        (position,) = node.inputs


def _even_attention(net: Architecture, kernels: ChannelPropagation) -> Iterator[Cure]:
    """Queries and keys whose scores have a standard deviation of 1."""
    graph = net.as_graph()
    factors: dict[str, float] = {}
    attending = [node for node in graph.nodes if node.layer.attends]
    for node, std in zip(attending, kernels.score_std, strict=True):
        if not 0.0 < std < math.inf or _AS_GOOD[0] <= std <= _AS_GOOD[1]:
            continue
        for side in node.inputs[:2]:
            name = last_weights(graph, side)
            if name is not None:
                factors[name] = 1.0 / math.sqrt(std)
    if factors:
        low, high = min(factors.values()), max(factors.values())
        step = (
            "multiply the weights of queries and keys by their numbers in `found.cure.factors` "
            f"({low:.3g} to {high:.3g})"
        )
        yield _multiplied(net, factors, step, "gives the scores of attention a standard deviation of 1")


def _stable_branches(net: Architecture, seen: Observed) -> Iterator[Cure]:
    """The last weights of L residual branches by 1/√L: the paper's Stable ResNet, as GPT-2 has it."""
    count = len(seen.residual)
    if count > 1:
        factor = 1.0 / math.sqrt(count)
        step = f"multiply the last weights of the {count} residual branches by 1/√{count} = {factor:.3g}"
        names = [net.weight_layers[number] for number in seen.residual]
        yield _multiplied(net, dict.fromkeys(names, factor), step, "keeps the residual sums in bounds")


def _multiplied(net: Architecture, factors: dict[str, float], step: str, does: str) -> Cure:
    weights = {
        layer.name: replace(layer, sigma_w=layer.sigma_w * factors.get(layer.name, 1.0)) for layer in net
    }
    return Cure((step,), does, with_weights(net, weights), factors)
