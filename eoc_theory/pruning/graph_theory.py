"""Score distributions of any network at infinite width; no network is drawn.

The rows and columns of each weight layer's gradient g come from channels that are drawn layer by layer
(`eoc_theory.propagation.gaussian_graph`); a score is what the criterion makes of a weight, drawn from its
law and independent of g, and of g. How networks differ from each other at their width is added to first order
(`eoc_theory.propagation.scale_fluctuations`).
"""

from __future__ import annotations

import math
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
from ..propagation.carried_values import OutOfRangeError, Value
from ..propagation.channel_kernels import ChannelPropagation, SeenChannels
from ..propagation.channel_plan import ALL_CHANNELS, Plan, planned
from ..propagation.gaussian_graph import GaussianGraph
from ..propagation.infinite_width import loss_gradient
from ..propagation.score_grid import GRID, STEP
from ..propagation.score_samples import LayerSample, layer_samples, scored
from ..propagation.shared import digest, made_once
from ..propagation.top_gradient import sent_from
from ..signals.data import DataSummary
from .allocation import NetworkLaws, quantiles_of
from .graph_distributions import NOTHING, GraphLaws

Array = np.ndarray

#: What the scores of theory may be made of; SynFlow's products of paths have a theory of their own.
_NEEDS = ("weights", "gradient", "hessian_gradient")
#: Scores of one layer that are drawn in a repeat, about, from as many columns at least.
MOST_SCORES, LEAST_COLUMNS = 2_000_000, 16
#: Networks whose scales are drawn: a line of arithmetic each.
NETWORKS = 64


@with_one_thread
def theory_laws(net: Architecture, criterion: Any, data: Any = None, *, seed: int) -> GraphLaws:
    """Distributions of the scores of any network at infinite width.

    Args:
        net: any architecture; a chain of fully connected layers too.
        criterion: one that needs "weights", "gradient" or "hessian_gradient" (of that the Gauss–Newton part,
            Hess·g ≈ Jᵀ S J Jᵀ e), or its name.
        data: as in `Architecture.summarise`. Channels are drawn for some of the inputs
            (`channel_plan`).
        seed: of all draws.

    Returns:
        Laws of all scores' sizes, or of the positive and of the negative ones where they are signed, of
        `NETWORKS` networks of the given widths: one mean law a layer, moved in each network as its scales
        differ from their mean. The layers' largest scores are known by their law alone (`NetworkLaws.largest`
        is None).

    Raises:
        ArgumentError: a criterion that needs something else. DataError: data that do not fit. ModelError:
        values leave the range of floats.
    """
    rule, seed = as_criterion(criterion), checks.seed(seed)
    if rule.needs not in _NEEDS:
        raise rule.unpredicted()
    batch = net.summarise(data, seed=seed)
    key = ("theory", net, rule, digest(batch), seed)
    return made_once(key, lambda: _theory_laws(net, rule, batch, seed))


def laws_and_kernels(
    net: Architecture, criterion: Any, data: DataSummary, *, seed: int, channels: int
) -> ChannelPropagation:
    """What a batch becomes in a network with attention, from the draws that its scores' laws are made of.

    Within `shared_samples` the laws are what `theory_laws` gives from then on, so that channels are drawn
    once for all that is asked of a network.

    Args:
        net, criterion, data, seed: as in `theory_laws`; a criterion that needs the gradient.
        channels: of a hidden layer that are drawn in all, about.

    Raises:
        ModelError: as `theory_laws`.
    """
    rule = as_criterion(criterion)
    laws, kernels = with_one_thread(_drawn)(net, rule, data, seed, channels=channels, watched=True)
    assert kernels is not None
    made_once(("theory", net, rule, digest(data), seed), lambda: laws)
    return kernels


def _theory_laws(net: Architecture, rule: Criterion, data: DataSummary, seed: int) -> GraphLaws:
    return _drawn(net, rule, data, seed)[0]


def _drawn(
    net: Architecture,
    rule: Criterion,
    data: DataSummary,
    seed: int,
    *,
    channels: int = ALL_CHANNELS,
    watched: bool = False,
) -> tuple[GraphLaws, ChannelPropagation | None]:
    """The laws, and what the draws show where they are `watched`."""
    silent = next((layer.name for layer in net if layer.sigma_w == 0.0), None)
    if silent is not None and rule.needs == "hessian_gradient":
        raise ModelError(
            f"the weights of layer {silent!r} are 0: what the Hessian sends past them is no part of the "
            "theory (method='sampled' has it)"
        )
    if data.targets.ndim > 1 and rule.needs == "hessian_gradient":
        raise ModelError(
            f"{rule.label} of logits of every token is no part of the theory: its Hessian joins tokens "
            "(method='sampled' has it)"
        )
    plan = planned(net, data, seed, channels=channels)
    with np.errstate(all="ignore"):
        for dtype in (np.float32, np.float64):
            scores = _Scores(plan, rule, seed)
            process = plan.process(seed, dtype)
            seen = SeenChannels(plan) if watched else None
            try:
                moments = _run(process, rule, scores, net.out_features, seen)
            except OutOfRangeError:
                continue
            moved = process.response.draw(NETWORKS, seed)
            laws = GraphLaws(scores.laws(moments, moved, np.asarray(net.weights)), plan.notes)
            return laws, seen.moments(net, process, moments) if seen is not None else None
    raise ModelError("values leave the range of floats: use a smaller sigma_w or depth")


def _run(
    process: GaussianGraph, rule: Criterion, scores: _Scores, classes: int, seen: SeenChannels | None
) -> Array:
    """Forwards and backwards; every layer's gradients go to `scores`. log E[(W g)²], (L,)."""
    hessian = rule.needs == "hessian_gradient"
    process.forwards(laws=hessian, watch=seen.forwards if seen is not None else None)
    tangent = None
    if hessian:
        # The Jacobian's kernel: one number for a logit, the same for all inputs, is sent backwards.
        rng = np.random.default_rng([scores.seed, 0x74616E67])
        logits = [one.T / rule.temperature for one in process.logits]
        ones = [rng.standard_normal((classes, 1)) * np.ones(len(process.targets)) for _ in logits]
        found = process.backwards(ones, stream=1).tangent
        assert found is not None  # no taker was given
        tangent, below = found
        errors = [loss_gradient(one, process.targets).T for one in logits]
        scores.bend(errors, below * (len(below) / np.trace(tangent)))
    sent = sent_from(process.logits, process.part, classes, tangent, rule.temperature)
    watch = seen.backwards if seen is not None else None
    plain = tangent is None and rule.temperature == 1.0
    return process.backwards(sent, take=scores.take, watch=watch, errors=plain).log_moments


class _Scores:
    """Gathers the scores of every weight layer and makes laws of them."""

    def __init__(self, plan: Plan, rule: Criterion, seed: int) -> None:
        self._layers, self._rule, self.seed = plan.graph.weight_layers, rule, seed
        self._drawn = plan.drawn.weight_layers
        self._found: dict[int, dict[int, tuple[LayerSample, ...]]] = {}
        self._columns = [layer.fan_in for layer in self._drawn]
        self._bends: list[Array] = []
        self._bent: dict[int, tuple[float, float]] = {}

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
        """Scores of weights drawn for these gradients; called for several repeats at a time."""
        layer = self._layers[number]
        if gradients.size > MOST_SCORES and number < len(self._layers) - bool(self._bends):
            # Rows may be as unlike as the classes that occur and those that do not; columns are alike.
            step = min(-(-gradients.size // MOST_SCORES), max(1, gradients.shape[1] // LEAST_COLUMNS))
            gradients = np.ascontiguousarray(gradients[:, ::step])
            self._columns[number] = gradients.shape[1]
        rng = np.random.default_rng([self.seed, 0x73636F72, number, repeat])
        size = magnitude_law(layer).draw(rng, gradients.size, np.float32)
        if self._bends and number == len(self._layers) - 1:
            weights = size.reshape(gradients.shape) * np.where(rng.random(gradients.shape) < 0.5, -1, 1)
            turned = self._bends[repeat] @ (weights * layer.weight_std) * math.exp(-log_scale)
            before, gradients = gradients, gradients + turned
            self._bent[repeat] = _mean_square(weights * before), _mean_square(weights * gradients)
            values = Value(weights * gradients)
        elif layer.sigma_w == 0.0:
            values = Value(np.zeros(gradients.shape))
        elif self._rule.is_product:
            # Gradients are of either sign alike.
            values = Value(size.reshape(gradients.shape) * gradients)
        else:
            weights = size * np.where(rng.random(gradients.size) < 0.5, -1, 1) * layer.weight_std
            values = self._own(weights.reshape(gradients.shape), gradients, log_scale)
        found = layer_samples(values, signed=self._rule.signed)
        self._found.setdefault(number, {})[repeat] = found

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
            log_rms = np.array([_log_rms(self._samples(number)) for number in range(len(self._layers))])
        if self._rule.needs == "weights":
            moved = np.zeros_like(moved)
        if self._bent:
            before, after = np.mean([self._bent[repeat] for repeat in sorted(self._bent)], axis=0)
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

    def _samples(self, number: int) -> list[tuple[LayerSample, ...]]:
        """Of a layer, in the order of the repeats, which may end in any."""
        return [self._found[number][repeat] for repeat in sorted(self._found[number])]

    def _pooled(self, number: int, sign: int) -> tuple[Array, float, Array]:
        """Tail, share of the scores counted, and the law of the largest, of all repeats together."""
        samples = [one[sign] for one in self._samples(number)]
        share = float(np.mean([one.share for one in samples]))
        mean = _log_rms(self._samples(number))
        if not math.isfinite(mean) or share == 0.0:
            return np.zeros(len(GRID)), 0.0, np.ones(len(GRID))
        alive = [one for one in samples if one.share > 0.0]
        tail = sum(one.share * np.interp(GRID + mean - one.log_rms, GRID, one.tail) for one in alive)
        tail = np.asarray(tail) / (share * len(samples))
        maxima = np.stack([one.row_maxima + one.log_rms - mean for one in samples])
        position = np.where(np.isfinite(maxima), (maxima - GRID[0]) / STEP + 0.5, 0.0)
        bins = np.clip(position, 0, len(GRID) - 1).astype(np.int64)
        # Fewer columns drawn than there are count as fewer rows.
        layer = self._layers[number]
        rows = layer.fan_out * max(1, round(layer.fan_in / self._columns[number]))
        return tail, share, max_law(bins, rows)


def _log_rms(samples: list[tuple[LayerSample, ...]]) -> float:
    """½ log of the mean square score in all samples together."""
    logs = np.array([one[0].log_rms for one in samples])
    top = float(logs.max())
    return top + 0.5 * math.log(np.mean(np.exp(2.0 * (logs - top)))) if math.isfinite(top) else -math.inf


def _mean_square(values: Array) -> float:
    return float(np.einsum("ij,ij->", values, values, dtype=float)) / values.size
