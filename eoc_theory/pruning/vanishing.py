"""Scores that are exactly 0: they tie, so that which of their weights pruning keeps is no ranking's doing.

A score is W times a derivative. It vanishes with every weight whose output does not matter, or to which
nothing comes: behind a normalisation with γ = 0, in a branch times 0, before and after a unit of ReLU that no
input opens. Where all of a network's scores vanish there is nothing to rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..criteria.criterion import Criterion
from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.graph import Graph
from ..networks.resolve import Network
from ..networks.unread import UnreadNetwork
from .allocation import NetworkLaws

Array = np.ndarray

#: Layers that a note names one by one.
_NAMED = 3
#: A smaller part of all scores that tie is no matter of note, unless they are 0.
_NOTABLE = 0.01


def ranked_zeros(net: Network, criterion: Criterion, laws: Sequence[NetworkLaws], data: Any) -> Array:
    """Mean fraction of each layer's scores that are 0, (L,), from the laws of all sizes or of both signs.

    Raises:
        ModelError: no score is other than 0.
    """
    zeros = np.clip(1.0 - sum(law.nonzero for law in laws), 0.0, 1.0).mean(axis=0)
    if isinstance(net, Architecture) and criterion.needs != "nothing":
        zeros = np.where([layer.sigma_w == 0.0 for layer in net], 1.0, zeros)
    check_ranked(criterion.label, zeros, lambda: reason(net, net.summarise(data).size))
    return zeros


def share_below(laws: Sequence[NetworkLaws]) -> float:
    """Mean fraction of all scores under 0, from laws of the positive and of the negative ones."""
    if len(laws) < 2:
        return 0.0
    return float(laws[1].nonzero.mean(axis=0) @ laws[1].weights / laws[1].weights.sum())


def falls_among_zeros(weights: Array, zeros: Array, sparsity: Any, below: float = 0.0) -> Array:
    """Whether removing these fractions (n_s,) leaves it open which zeros go, shape (n_s,).

    `below` is the fraction of all scores that are under 0.
    """
    share = float(np.nan_to_num(zeros) @ weights / np.sum(weights))
    removed = np.atleast_1d(np.asarray(sparsity, dtype=float))
    return (removed > below) & (removed < below + share) & (share > _NOTABLE)


def zeros_of_structure(net: Network, criterion: Criterion) -> Array:
    """The same of a criterion that needs no data: SynFlow's scores vanish where a factor is 0 on every path,
    those by magnitude with the weights.

    NaN for rounds, as where they are measured: they rank anew each time.
    """
    zeros = np.zeros(net.depth)
    if criterion.needs == "weights":
        zeros = np.array([float(layer.sigma_w == 0.0) for layer in net])
    if isinstance(net, Architecture) and criterion.needs == "paths":
        passing = _passing(net.as_graph())
        zeros = np.array([0.0 if at in passing else 1.0 for at in net.as_graph().weighted])
        check_ranked(criterion.label, zeros, lambda: reason(net, 1))
    return np.full(net.depth, np.nan) if criterion.rounds > 1 else zeros


def _passing(graph: Graph) -> set[int]:
    """The nodes on paths from the input to the logits without a factor 0, or weights that are all 0."""
    reached, leading = {0}, {len(graph.nodes) - 1}
    sources: list[list[int]] = []
    for node in graph.nodes:
        factors = node.layer.factors(len(node.inputs))
        weighted = node.layer.weighted
        silent = weighted is not None and weighted.weight.sigma_w == 0.0
        passed = zip(node.inputs, factors, strict=True)
        sources.append([] if silent else [source for source, c in passed if c != 0.0])
    for position, before in enumerate(sources):
        if reached.intersection(before):
            reached.add(position)
    for position in range(len(graph.nodes) - 1, -1, -1):
        if position in leading:
            leading.update(sources[position])
    return reached & leading


def check_ranked(criterion: str, zeros: Array, why: Callable[[], str]) -> None:
    """Raises ModelError where every score of the network is 0; `why` tells the reason."""
    if bool((np.asarray(zeros) >= 1.0).all()):
        raise ModelError(f"all {criterion} scores are 0, so that there is nothing to rank: {why()}")


def reason(net: Network, inputs: int) -> str:
    """Why no score of a network is other than 0 on a batch of so many inputs."""
    if isinstance(net, UnreadNetwork):
        return "no gradient reaches the weights (dead units, a factor or γ of 0, or inputs of 0)"
    if net.out_features == 1:
        return ONE_LOGIT
    for layer in net:
        if layer.sigma_w == 0:
            return f"the weights of layer {layer.name!r} are 0"
    graph = net.as_graph()
    for position, node in enumerate(graph.nodes):
        if node.layer.batch_statistics:
            if inputs * graph.shapes[position].positions == 1:
                return (
                    f"BatchNorm {node.layer.name!r} is in training mode, and normalises one value to 0 "
                    "(give more inputs, or call .eval())"
                )
    if not _passing(graph):
        return "a factor 0 is on every path from the input to the logits"
    return "no gradient reaches the weights (units that are dead, or a normalisation with γ = 0)"


#: What makes the gradient vanish where a network has one output.
ONE_LOGIT = "the softmax of one logit is 1 whatever the weights are (give the network two logits)"


def notes(
    criterion: str, layers: Sequence[str], weights: Array, zeros: Array, sparsity: Any, below: float = 0.0
) -> tuple[str, ...]:
    """What a prediction or measurement is to say of the scores that are 0, at sparsities (n_s,).

    Layers without any other score are named, and sparsities at which the threshold falls among the zeros:
    which of them go is arbitrary then. `below` is the fraction of all scores that are under 0.
    """
    zeros = np.nan_to_num(np.asarray(zeros, dtype=float))
    sparsity = np.atleast_1d(np.asarray(sparsity, dtype=float))
    whole = [name for name, zero in zip(layers, zeros, strict=True) if zero >= 1.0]
    said = []
    if whole:
        more = f" and {len(whole) - _NAMED} more" if len(whole) > _NAMED else ""
        said.append(
            f"all {criterion} scores are 0 in {len(whole)} of {len(layers)} layers "
            f"({', '.join(whole[:_NAMED])}{more})"
        )
    among = np.atleast_1d(sparsity)[falls_among_zeros(weights, zeros, sparsity, below)]
    if len(among):
        share = float(zeros @ weights / np.sum(weights))
        said.append(
            f"{share:.1%} of all scores are 0, and at s = {', '.join(f'{s:g}' for s in among)} the threshold "
            "falls among them: every layer loses the same part of its zeros, which is no ranking"
        )
    return tuple(said)
