"""Score distributions of any network at infinite width; no network is drawn.

The rows and columns of each weight layer's gradient g come from channels that are drawn layer by layer
(`eoc_theory.propagation.gaussian_graph`); a score is what the criterion makes of a weight, drawn from its
law and independent of g, and of g. How networks differ from each other at their width is added to first order
(`eoc_theory.propagation.scale_fluctuations`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import checks
from ..base.one_thread import with_one_thread
from ..criteria.criterion import Criterion
from ..criteria.criterion import criterion as as_criterion
from ..criteria.distributions.gradients import max_law
from ..criteria.distributions.magnitudes import magnitude_law
from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.downsample import LARGEST, within_reach
from ..networks.graph import Graph
from ..networks.narrow import narrowed
from ..networks.queries import attends, is_normalised
from ..propagation.carried_values import OutOfRangeError, Value
from ..propagation.gaussian_graph import GaussianGraph
from ..propagation.graph_kernels import refuse_dependent_sums
from ..propagation.infinite_width import Cotangent, loss_gradient
from ..propagation.score_grid import GRID, STEP
from ..propagation.score_samples import LayerSample, layer_samples, scored
from ..propagation.shared import digest, made_once
from ..signals.data import DataSummary
from .allocation import NetworkLaws, quantiles_of
from .graph_distributions import NEEDS, NOTHING, GraphLaws

Array = np.ndarray

#: Inputs that channels are drawn for, at most.
MOST_INPUTS = 128
#: Channels of the narrowest hidden layer in all repeats together, at least, with normalisation and without.
CHANNELS = {True: 64, False: 1024}
#: Repeats at most.
MOST_REPEATS = 8
#: Positions along an axis that are tried one after the other until the work is not more than `MOST_WORK`
#: multiply-adds, and channels of the narrowest layer of a network that is narrowed.
RESOLUTIONS = (LARGEST, 48, 32, 24, 16)
MOST_WORK = 5e10
LEAST_CHANNELS = 64
#: Networks whose scales are drawn: a line of arithmetic each.
NETWORKS = 64


@dataclass(frozen=True)
class _Plan:
    """What is drawn.

    Attributes:
        graph: the network, perhaps at a lower resolution.
        drawn: the same with as many channels as are drawn.
        batch: its data.
        alike: whether covariances are averaged over inputs.
        repeats: draws of the whole graph.
        notes: where a lower resolution stands for the given one.
    """

    graph: Graph
    drawn: Graph
    batch: DataSummary
    alike: bool
    repeats: int
    notes: tuple[str, ...]


@with_one_thread
def theory_laws(net: Architecture, criterion: Any, data: Any = None, *, seed: int) -> GraphLaws:
    """Distributions of the scores of any network at infinite width.

    Args:
        net: any architecture; a chain of fully connected layers too.
        criterion: one that needs "weights", "gradient" or "hessian_gradient" (of that the Gauss–Newton part,
            Hess·g ≈ Jᵀ S J Jᵀ e), or its name.
        data: as in `Architecture.summarise`. Channels are drawn for `MOST_INPUTS` of the inputs, as many of
            each class.
        seed: of all draws.

    Returns:
        Laws of all scores' sizes, or of the positive and of the negative ones where they are signed, of
        `NETWORKS` networks of the given widths: one mean law a layer, moved in each network as its scales
        differ from their mean. The layers' largest scores are known by their law alone (`NetworkLaws.largest`
        is None).

    Raises:
        ArgumentError: a criterion that needs something else. DataError: data that do not fit. ModelError:
        values that depend on each other are added, or leave the range of floats.
    """
    rule, seed = as_criterion(criterion), checks.seed(seed)
    if rule.needs not in NEEDS:
        raise rule.unpredicted()
    batch = net.summarise(data, seed=seed)
    key = ("theory", net, rule, digest(batch), seed)
    return made_once(key, lambda: _theory_laws(net, rule, batch, seed))


def _theory_laws(net: Architecture, rule: Criterion, data: DataSummary, seed: int) -> GraphLaws:
    plan = _plan(net, data, seed)
    refuse_dependent_sums(plan.graph)
    with np.errstate(all="ignore"):
        for dtype in (np.float32, np.float64):
            scores = _Scores(plan, rule, seed)
            process = GaussianGraph(
                plan.graph,
                plan.drawn,
                plan.batch,
                inputs=MOST_INPUTS,
                alike=plan.alike,
                repeats=plan.repeats,
                seed=seed,
                dtype=dtype,
                apart=attends(plan.graph),
            )
            try:
                moments = _run(process, rule, scores, net.out_features)
            except OutOfRangeError:
                continue
            moved = process.response.draw(NETWORKS, seed)
            return GraphLaws(scores.laws(moments, moved, np.asarray(net.weights)), plan.notes)
    raise ModelError("values leave the range of floats: use a smaller sigma_w or depth")


def _run(process: GaussianGraph, rule: Criterion, scores: _Scores, classes: int) -> Array:
    """Forwards and backwards; every layer's gradients go to `scores`. log E[(W g)²], (L,)."""
    hessian = rule.needs == "hessian_gradient"
    process.forwards(laws=hessian)
    logits = [one.T / rule.temperature for one in process.logits]
    tangent = None
    if hessian:
        # The Jacobian's kernel: one number for a logit, the same for all inputs, is sent backwards.
        rng = np.random.default_rng([scores.seed, 0x74616E67])
        ones = [rng.standard_normal((classes, 1)) * np.ones(len(process.targets)) for _ in logits]
        found = process.backwards(ones, stream=1).tangent
        assert found is not None  # no taker was given
        tangent, below = found
        errors = [loss_gradient(one, process.targets).T for one in logits]
        scores.bend(errors, below * (len(below) / np.trace(tangent)))
    top = Cotangent(np.zeros((0, 0)), process.targets, classes, tangent)
    return process.backwards([top.of(one).T for one in logits], take=scores.take).log_moments


def _plan(net: Architecture, data: Any, seed: int) -> _Plan:
    """The network at a resolution and widths that the work allows."""
    # What attends to what depends on single inputs, so that averages over those alike are none of it.
    alike = is_normalised(net.as_graph()) and not attends(net.as_graph())
    for largest in RESOLUTIONS:
        smaller, batch, notes = within_reach(net, data, seed=seed, largest=largest)
        graph = smaller.as_graph()
        hidden = [graph.shapes[at].channels for at in graph.weighted[:-1]]
        repeats = int(np.clip(-(-CHANNELS[alike] // min(hidden, default=CHANNELS[alike])), 1, MOST_REPEATS))
        work = _work(graph, min(batch.size, MOST_INPUTS), alike, repeats)
        if work <= MOST_WORK:
            return _Plan(graph, graph, batch, alike, repeats, notes)
    factor = max(math.sqrt(MOST_WORK / work), LEAST_CHANNELS / min(hidden, default=LEAST_CHANNELS))
    drawn = graph
    if factor < 0.75:
        try:
            drawn, notes = narrowed(graph, factor), (*notes, f"channels drawn: {factor:.2g} of its width")
        except ModelError:
            drawn = graph
    return _Plan(graph, drawn, batch, alike, repeats, notes)


def _work(graph: Graph, inputs: int, alike: bool, repeats: int) -> float:
    """Multiply-adds of drawing a graph's channels."""
    total = 0.0
    for at, weight in zip(graph.weighted, graph.weight_layers, strict=True):
        shape, before = graph.shapes[at], graph.shapes[graph.nodes[at].inputs[0]]
        product = float(weight.n_weights) * shape.positions
        fields = 2.0 * (shape.channels * shape.positions**2 + before.channels * before.positions**2)
        total += product + (fields if alike else 2.0 * product)
    return total * inputs * repeats


class _Scores:
    """Gathers the scores of every weight layer and makes laws of them."""

    def __init__(self, plan: _Plan, rule: Criterion, seed: int) -> None:
        self._layers, self._rule, self.seed = plan.graph.weight_layers, rule, seed
        self._drawn = plan.drawn.weight_layers
        self._found: dict[int, list[tuple[LayerSample, ...]]] = {}
        self._bends: list[Array] = []
        self._bent: list[tuple[float, float]] = []

    def bend(self, errors: list[Array], tangent: Array) -> None:
        """How Hess·g in the last layer depends on its weights.

        Its inputs h change by Θ_h Wᵀe along the gradient, which adds e Θ_h eᵀ W to the Gauss–Newton part. Of
        few rows a weight's own share in that is no small one, and of one sign.

        Args:
            errors: e (classes, B) of each draw of the logits.
            tangent: σ_w² Θ_h in the unit of the Gauss–Newton part, (B, B).
        """
        kernel = tangent / self._layers[-1].sigma_w ** 2
        self._bends = [error @ kernel @ error.T for error in errors]

    def take(self, number: int, repeat: int, gradients: Array, log_scale: float) -> None:
        """Scores of weights drawn for these gradients."""
        layer = self._layers[number]
        rng = np.random.default_rng([self.seed, 0x73636F72, number, repeat])
        size = magnitude_law(layer).draw(rng, gradients.size, np.float32)
        if self._bends and number == len(self._layers) - 1:
            weights = size.reshape(gradients.shape) * np.where(rng.random(gradients.shape) < 0.5, -1, 1)
            turned = self._bends[repeat] @ (weights * layer.weight_std) * math.exp(-log_scale)
            before, gradients = gradients, gradients + turned
            self._bent.append((_mean_square(weights * before), _mean_square(weights * gradients)))
            values = Value(weights * gradients)
        elif self._rule.is_product:
            # Gradients are of either sign alike.
            values = Value(size.reshape(gradients.shape) * gradients)
        else:
            weights = size * np.where(rng.random(gradients.size) < 0.5, -1, 1) * layer.weight_std
            values = self._own(weights.reshape(gradients.shape), gradients, log_scale)
        found = layer_samples(values, signed=self._rule.signed)
        self._found.setdefault(number, []).append(found)

    def _own(self, weights: Array, gradients: Array, log_scale: float) -> Value:
        """Scores that are no product of both."""
        if self._rule.needs == "weights":
            return Value(np.asarray(self._rule.score(weights, None), dtype=float))
        exponent = round(log_scale / math.log(2.0))
        derivative = gradients * math.exp(log_scale - exponent * math.log(2.0))
        return scored(self._rule, weights, Value(derivative, exponent))

    def laws(self, log_moments: Array, moved: Array, weights: Array) -> tuple[NetworkLaws, ...]:
        """Of each sign, for log E[(W g)²] (L,) and what networks differ by in ½ of it, (S, L)."""
        found = []
        log_rms = 0.5 * log_moments
        if not self._rule.is_product:
            log_rms = np.array([_log_rms(self._found[number]) for number in range(len(self._layers))])
        if self._rule.needs == "weights":
            moved = np.zeros_like(moved)
        if self._bent:
            before, after = np.mean(self._bent, axis=0)
            log_rms[-1] += 0.5 * math.log(after / before)
        alive = np.isfinite(log_rms)
        log_rms -= np.max(log_rms, where=alive, initial=-np.inf) if alive.any() else 0.0
        log_rms = np.maximum(log_rms, NOTHING)
        for sign in range(2 if self._rule.signed else 1):
            tails, largest, shares = [], [], []
            for number in range(len(self._layers)):
                tail, share, above = self._pooled(number, sign)
                tails.append(tail)
                largest.append(above)
                shares.append(share)
            tail = np.array(tails)
            u = quantiles_of(tail)
            t = (log_rms + moved)[:, :, None] + u
            t = np.maximum.accumulate(t, axis=-1) + 1e-9 * np.arange(t.shape[-1])
            share = np.tile(np.array(shares), (len(moved), 1))
            found.append(NetworkLaws(tail, np.array(largest), u, t, share, weights))
        return tuple(found)

    def _pooled(self, number: int, sign: int) -> tuple[Array, float, Array]:
        """Tail, share of the scores counted, and the law of the largest, of all repeats together."""
        samples = [one[sign] for one in self._found[number]]
        share = float(np.mean([one.share for one in samples]))
        mean = _log_rms(self._found[number])
        if not math.isfinite(mean) or share == 0.0:
            return np.zeros(len(GRID)), 0.0, np.ones(len(GRID))
        alive = [one for one in samples if one.share > 0.0]
        tail = sum(one.share * np.interp(GRID + mean - one.log_rms, GRID, one.tail) for one in alive)
        tail = np.asarray(tail) / (share * len(samples))
        maxima = np.stack([one.row_maxima + one.log_rms - mean for one in samples])
        position = np.where(np.isfinite(maxima), (maxima - GRID[0]) / STEP + 0.5, 0.0)
        bins = np.clip(position, 0, len(GRID) - 1).astype(np.int64)
        # Fewer columns drawn than there are count as fewer rows.
        layer, drawn = self._layers[number], self._drawn[number]
        rows = layer.fan_out * max(1, round(layer.fan_in / drawn.fan_in))
        return tail, share, max_law(bins, rows)


def _log_rms(samples: list[tuple[LayerSample, ...]]) -> float:
    """½ log of the mean square score in all samples together."""
    logs = np.array([one[0].log_rms for one in samples])
    top = float(logs.max())
    return top + 0.5 * math.log(np.mean(np.exp(2.0 * (logs - top)))) if math.isfinite(top) else -math.inf


def _mean_square(values: Array) -> float:
    return float(np.einsum("ij,ij->", values, values, dtype=float)) / values.size
