"""What a batch becomes in a network with attention, from channels that are drawn layer by layer.

Kernels of kinds of pairs of inputs say nothing of which token attends to which; here the joint kernel over
all pairs of inputs and tokens is that of drawn channels (`gaussian_graph`), the engine of the score
distributions. What is reported are means over pairs, with their standard error over independent draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.one_thread import with_one_thread
from ..base.side_by_side import side_by_side
from ..errors import ModelError
from ..layers.softmax import softmax_
from ..networks.architecture import Architecture
from ..networks.graph import Graph
from .carried_values import OutOfRangeError
from .channel_plan import Plan, planned
from .gaussian_graph import GaussianGraph
from .top_gradient import sent_from

Array = np.ndarray

#: Channels of a hidden layer that are drawn in all, about.
CHANNELS = 2048
#: Scores of one attention that are looked at, about: those of some thousand queries tell their mean entropy.
_SCORES = 1 << 19


@dataclass(frozen=True)
class ChannelPropagation:
    """What a batch becomes in every weight layer and every sum of a network with attention.

    Attributes:
        layers: names of the weight layers, L of them, in the graph's order.
        q: mean square of the layer's outputs over channels, tokens and inputs, (L,).
        similarity: mean cosine of the outputs of two tokens of one input, (L,); nan without tokens.
        c: mean cosine of two different inputs' outputs at the same token, (L,); nan for one input.
        log_gradient: log of the mean square gradient of the mean cross-entropy by an output, (L,).
        log_moment: log E[(W g)²] of a weight, (L,).
        q_error, similarity_error: standard errors of those two over the draws, (L,); nan for one draw.
        sums: names of the nodes that add values: what flows between the blocks of a transformer, S of them.
        sum_q, sum_similarity, sum_c, sum_log_gradient: the same of these, (S,).
        attentions: names of the nodes that attend, A of them.
        entropy: mean entropy of their weights over the logarithm of the number of keys seen: 1 where all
            keys count alike, 0 where one alone does, (A,); nan where a query sees one key.
        score_std: standard deviation of the scores that a query gives the keys it sees, (A,).
        draws: how often the channels were drawn.
        work: multiply-adds that took, about.
        notes: where fewer channels than the network's or fewer inputs were drawn.
    """

    layers: tuple[str, ...]
    q: Array
    similarity: Array
    c: Array
    log_gradient: Array
    log_moment: Array
    q_error: Array
    similarity_error: Array
    sums: tuple[str, ...]
    sum_q: Array
    sum_similarity: Array
    sum_c: Array
    sum_log_gradient: Array
    attentions: tuple[str, ...]
    entropy: Array
    score_std: Array
    draws: int
    work: float
    notes: tuple[str, ...] = ()


@with_one_thread
def propagate_channels(
    net: Architecture, data: Any = None, *, seed: int = 0, channels: int = CHANNELS
) -> ChannelPropagation:
    """Moments of values, gradients and scores in a network with attention.

    Args:
        net: any architecture that is no chain.
        data: as in `Architecture.summarise`; kernels are of some of the inputs where there are many
            (`channel_plan`).
        seed: of all draws.
        channels: of a hidden layer that are drawn in all, about.

    Raises:
        DataError: data that do not fit. ModelError: values leave the range of floats.
    """
    plan = planned(net, net.summarise(data, seed=seed), seed, channels=channels)
    with np.errstate(all="ignore"):
        for dtype in (np.float32, np.float64):
            try:
                return _propagated(net, plan, plan.process(seed, dtype))
            except OutOfRangeError:
                continue
    raise ModelError("values leave the range of floats: use a smaller sigma_w or depth")


def _propagated(net: Architecture, plan: Plan, process: GaussianGraph) -> ChannelPropagation:
    seen = SeenChannels(plan)
    process.forwards(watch=seen.forwards)
    sent = sent_from(process.logits, process.part, net.out_features)
    moments = process.backwards(sent, take=lambda *_: None, watch=seen.backwards, errors=True).log_moments
    return seen.moments(net, process, moments)


def _names(graph: Graph, positions: list[int]) -> tuple[str, ...]:
    return tuple(graph.nodes[at].layer.name for at in positions)


class SeenChannels:
    """Means over pairs of what a network's nodes are worth, by their positions.

    `forwards` and `backwards` watch a `GaussianGraph` while its channels are drawn.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._known: Array | None = None
        self._moments: dict[int, Array] = {}
        self._gradients: dict[int, float] = {}
        self.entropies: dict[int, float] = {}
        self.score_stds: dict[int, float] = {}

    def forwards(self, position: int, inputs: list[list[Array]], values: list[Array]) -> None:
        """A `gaussian_graph.Watcher`."""
        node = self._plan.drawn.nodes[position]
        if node.layer.tells_padding and self._known is None:
            self._known = values[0][0] > 0.5
        if node.layer.weighted is not None or node.layer.adds:
            self._moments[position] = np.array(side_by_side(self._moments_of, values))
        if node.layer.attends:
            scores = node.layer.scores([one[0] for one in inputs])
            self.entropies[position], self.score_stds[position] = _attention(scores)

    def _moments_of(self, values: Array) -> tuple[float, float, float]:
        """As `_moments`, where padding is none of an input's tokens."""
        square, tokens, inputs = _moments(values)
        known = self._known
        if known is not None and values.shape[1:] == known.shape:
            tokens = _similarity(values, known)
        return square, tokens, inputs

    def backwards(self, position: int, log_mean_square: float) -> None:
        """The gradient by a node's value."""
        self._gradients[position] = log_mean_square

    def moments(self, net: Architecture, process: GaussianGraph, log_moments: Array) -> ChannelPropagation:
        """All that was seen, of both ways; `log_moments` are what the way back returned."""
        plan, graph = self._plan, self._plan.graph
        adding = [at for at, node in enumerate(graph.nodes) if node.layer.adds and len(node.inputs) > 1]
        attending = [at for at, node in enumerate(graph.nodes) if node.layer.attends]
        q, q_error = self.means(0, graph.weighted)
        similarity, similarity_error = self.means(1, graph.weighted)
        inputs = process.panel.size
        fewer = (f"{inputs} of {plan.batch.size} inputs drawn",) if inputs < plan.batch.size else ()
        return ChannelPropagation(
            layers=net.weight_layers,
            q=q,
            similarity=similarity,
            c=self.means(2, graph.weighted)[0],
            log_gradient=self.gradients(graph.weighted),
            log_moment=log_moments,
            q_error=q_error,
            similarity_error=similarity_error,
            sums=_names(graph, adding),
            sum_q=self.means(0, adding)[0],
            sum_similarity=self.means(1, adding)[0],
            sum_c=self.means(2, adding)[0],
            sum_log_gradient=self.gradients(adding),
            attentions=_names(graph, attending),
            entropy=np.array([self.entropies[at] for at in attending]),
            score_std=np.array([self.score_stds[at] for at in attending]),
            draws=plan.repeats,
            work=plan.work,
            notes=(*plan.notes, *fewer),
        )

    def means(self, which: int, positions: Any) -> tuple[Array, Array]:
        """Means over the draws of one moment of each node, and their standard errors."""
        found = [self._moments[at][:, which] for at in positions]
        draws = [len(one) for one in found]
        errors = [
            float(one.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
            for one, n in zip(found, draws, strict=True)
        ]
        return np.array([float(one.mean()) for one in found]), np.array(errors)

    def gradients(self, positions: Any) -> Array:
        """Logarithms of mean square gradients of these nodes."""
        return np.array([self._gradients.get(at, -math.inf) for at in positions])


def _moments(values: Array) -> tuple[float, float, float]:
    """Mean square, mean cosine of two tokens of an input, and of two inputs at a token."""
    x = values.reshape(len(values), -1, values.shape[-1])
    squares = np.square(x).sum(axis=0)
    x = x / np.sqrt(np.maximum(squares, np.finfo(x.dtype).tiny))
    positions, batch = squares.shape
    # As matrix products: sums along short or middle axes take several times as long.
    over_tokens = np.ones((1, positions), x.dtype) @ x
    over_inputs = x.reshape(-1, batch) @ np.ones(batch, x.dtype)
    apart, pairs = positions * (positions - 1) * batch, batch * (batch - 1) * positions
    tokens = (_total_square(over_tokens) - positions * batch) / apart if apart else math.nan
    inputs = (_total_square(over_inputs) - positions * batch) / pairs if pairs else math.nan
    return float(squares.mean(dtype=float)) / len(values), tokens, inputs


def _similarity(values: Array, known: Array) -> float:
    """Mean cosine of two tokens of an input, (channels, T, B), of those that are `known`, (T, B)."""
    norms = np.sqrt(np.maximum(np.square(values).sum(axis=0), np.finfo(values.dtype).tiny))
    total = (values * (known / norms)).sum(axis=1).astype(float)
    count = known.sum(axis=0).astype(float)
    several = count > 1
    pairs = (np.square(total).sum(axis=0) - count)[several] / (count * (count - 1.0))[several]
    return float(pairs.mean()) if len(pairs) else math.nan


def _total_square(values: Array) -> float:
    flat = values.reshape(-1).astype(float)
    return float(flat @ flat)


def _attention(scores: Array) -> tuple[float, float]:
    """Relative entropy of attention weights and standard deviation of scores (heads, B, …, queries, keys).

    From scores: weights of sharp attention are 0 in floats for most of the keys that a query sees.
    """
    rows, queries = scores.reshape(-1, scores.shape[-1]), scores.shape[-2]
    step = max(1, scores.size // _SCORES)
    while math.gcd(step, queries) > 1:
        step += 1  # queries of all places are looked at
    some = rows[::step].astype(float)
    seen = np.isfinite(some)
    keys = seen.sum(axis=-1)
    several = keys > 1
    if not several.any():
        return math.nan, math.nan
    logs = np.where(seen, some, 0.0)
    mean = logs.sum(axis=-1) / np.maximum(keys, 1)
    spread = (np.where(seen, logs - mean[..., None], 0.0) ** 2).sum(axis=-1)[several] / (keys[several] - 1)
    weights = softmax_(some.copy())
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(weights > 0.0, weights * np.log(weights), 0.0)
    entropy = -terms.sum(axis=-1)[several] / np.log(keys[several])
    return float(entropy.mean()), math.sqrt(float(spread.mean()))
