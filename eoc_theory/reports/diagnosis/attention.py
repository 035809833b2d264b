"""The diagnosis of a network with attention by theory: no network is sampled, and no weight is made.

How alike tokens become, how evenly attention attends and what gradients do follow from kernels of drawn
channels (`eoc_theory.propagation.channel_kernels`), the same draws that score distributions come from.
Changes are compared with few channels drawn; the one that helps most is then looked at with as many as the
network as found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...criteria.criterion import Criterion
from ...networks.architecture import Architecture
from ...networks.graph import Graph, Node
from ...propagation.channel_kernels import ChannelPropagation, propagate_channels
from ...propagation.channel_plan import ALL_CHANNELS, ATTENTION_CHANNELS
from ...propagation.observed import Observed, ScoreScale, as_runs
from ...propagation.shared import shared_samples
from ...pruning.graph_theory import laws_and_kernels
from ...signals.data import DataSummary
from .attention_changes import Change, attention_changes, critical_factors
from .findings import off_edge
from .forecast import outlook
from .initialisation import Reading
from .remedies import Cure, cures, with_weights
from .views import View, best_of

Array = np.ndarray

#: Changes that are tried, at most.
MOST_TRIED = 3
#: Channels of a hidden layer that are drawn in all, about, where changes are compared; and where none of them
#: helps so. Half as many as of the network as found put what a ViT of 12 blocks keeps 0.008 off, not 0.006.
_COMPARED = (ATTENTION_CHANNELS, ALL_CHANNELS // 2)
#: Multiply-adds of looking at a network once, beyond which the first change alone is tried.
_DEAR = 5e11


def diagnose_attention(
    net: Architecture,
    reading: Reading,
    batch: DataSummary,
    sparsity: float,
    rule: Criterion,
    seed: int,
) -> tuple[View, Cure | None, View | None]:
    """The network as found; what is predicted to help, and the network after it.

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
    candidates = list(_cures(net, reading, kernels, before, rule))
    dear = kernels.work > _DEAR and kernels.draws == 1
    tried = candidates[: 1 if dear else MOST_TRIED]
    if len(tried) < min(len(candidates), MOST_TRIED):
        note = f"the network is so large that the first of {len(candidates)} possible changes alone was tried"
        before = replace(before, notes=(*before.notes, note))
    if len(tried) == 1 or kernels.draws == 1:
        return before, *best_of(before, tried, lambda changed: view(changed)[0])
    for channels in _COMPARED:
        cure, _ = best_of(before, tried, lambda changed, own=channels: view(changed, own)[0])
        found = best_of(before, [] if cure is None else [cure], lambda changed: view(changed)[0])
        if found[0] is not None:
            return before, *found
        # These channels were too few to tell.
        tried = [one for one in tried if one is not cure]
    return before, None, None


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
    """Name of the weight layer that a node's value comes from along a single path; or None."""
    found = _last_units(graph, position)
    return None if found is None else found[0]


def _last_units(graph: Graph, position: int) -> tuple[str, Array] | None:
    """The same, and which of that layer's output units the value's channels are, as booleans."""
    back = []
    while True:
        node = graph.nodes[position]
        weighted = node.layer.weighted
        if weighted is not None:
            units = np.arange(weighted.weight.fan_out)
            for layer in reversed(back):
                units = units[layer.channels_taken(len(units))]
            return weighted.weight.name, np.isin(np.arange(weighted.weight.fan_out), units)
        if len(node.inputs) != 1 or node.layer.normalises:
            return None
        back.append(node.layer)
        (position,) = node.inputs


# --- what is tried ------------------------------------------------------------------------------------------


def _cures(
    net: Architecture, reading: Reading, kernels: ChannelPropagation, before: View, rule: Criterion
) -> Iterator[Cure]:
    """Changes worth a prediction, the most natural first."""
    if len(before.outlook.silent):
        yield from cures(net, reading, redraw=False, silent=True)[:1]
    ends = [net.weight_layers[number] for number in before.signals.residual]
    off = bool(off_edge(net, reading, before.outlook).any())
    scales = _score_scales(net.as_graph(), kernels)

    def critical() -> Mapping[str, float]:
        return critical_factors(net, list(net)) if off else {}

    for change in attention_changes(lambda: scales, ends, critical):
        if not change.units or _is_scale_free(rule):
            yield change.cure(_multiplied(net, change, scales))


def _is_scale_free(rule: Criterion) -> bool:
    """Whether only the product of a weight and its derivative counts."""
    return rule.needs == "gradient" and rule.rounds == 1


def _score_scales(graph: Graph, kernels: ChannelPropagation) -> list[ScoreScale]:
    """Of every attention, whose queries and keys come from weights; normalised ones have no scale."""
    found = []
    attending = [node for node in graph.nodes if node.layer.attends]
    for node, std in zip(attending, kernels.score_std, strict=True):
        units: dict[str, Array] = {}
        sides = [_last_units(graph, side) for side in node.inputs[:2]]
        for name, own in (side for side in sides if side is not None):
            units[name] = units.get(name, np.zeros_like(own)) | own
        degree = sum(side is not None for side in sides)
        found.append(ScoreScale(float(std), degree, {name: as_runs(own) for name, own in units.items()}))
    return found


def _multiplied(net: Architecture, change: Change, scales: Sequence[ScoreScale]) -> Architecture:
    """`net` with weights multiplied.

    A factor of some units of a packed projection is one of the scores that they make: the products of
    weights and their derivatives are the same.
    """
    whole = replace(change, factors={n: f for n, f in change.factors.items() if n not in change.units})
    changed = with_weights(net, {layer.name: whole.scaled(layer) for layer in net})
    if not change.units:
        return changed
    graph, order = changed.as_graph(), iter(scales)
    nodes = []
    for node in graph.nodes:
        layer = node.layer
        if layer.attends:
            one = next(order)
            packed = [name for name in one.weights if name in change.units]
            power = one.degree / max(len(one.weights), 1)
            layer = layer.with_scores_times(math.prod(change.factors[name] ** power for name in packed))
        nodes.append(Node(layer, node.inputs))
    return Architecture.from_graph(Graph(tuple(nodes)), net.name)
