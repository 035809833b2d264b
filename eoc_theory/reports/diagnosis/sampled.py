"""The diagnosis of a network that no theory describes: from a few networks that are sampled and run.

A trained network, whose weights follow no known distribution, is measured as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from ...base.isolation import converted
from ...criteria.criterion import Criterion
from ...criteria.criterion import criterion as as_criterion
from ...errors import EOCError, ModelError
from ...networks.resolve import Options, as_architecture, as_network, is_model
from ...networks.unread import UnreadNetwork
from ...propagation.observed import Observed, ScoreScale
from ...propagation.shared import shared_samples
from ...pruning.collapse import CollapsePrediction, predict_collapse
from ...pruning.prediction import predict_pruning
from ...pruning.vanishing import falls_among_zeros
from ...pytorch.initialize import initialize_
from ...pytorch.measure.measure import measure_pruning
from ...pytorch.ranked import ranked_weights
from ...pytorch.sample import door
from ...pytorch.sample.kinds import batch_norm_counts, kind_of
from ...pytorch.sample.observe import observe
from ...pytorch.sample.rescaled import Itself, Rescaled, even_factors
from ...pytorch.sample.score_scale import score_scales
from ...pytorch.structure import structure
from .attention_changes import (
    Change,
    attention_changes,
    branches,
    critical_factors,
    each_layer,
    stable_branches,
    times,
)
from .findings import is_off_edge
from .forecast import Outlook
from .initialisation import Reading, recognise_all
from .remedies import Cure
from .views import View, best_of

Array = np.ndarray

#: Networks whose signals are looked at.
NETWORKS = 3
#: Multiply-adds of three networks' forward passes up to which every change is tried, and beyond which only
#: the first is. Between them, the first of two that helps is enough.
AFFORDABLE, DEAR = 1e10, 1e11


@dataclass(frozen=True)
class Sampled:
    """All that a sampled diagnosis finds.

    Attributes:
        net: the network.
        reading: kinds of layers and names of initialisations.
        laws: distributions of the weights.
        before, after: the network as found, and after the cure.
        cure: what is predicted to help, or None.
        measured: whether the numbers are those of the very network.
    """

    net: UnreadNetwork
    reading: Reading
    laws: tuple[str, ...]
    before: View
    cure: Cure | None
    after: View | None
    measured: bool


def diagnose_by_sampling(
    model: Any, data: Any, options: Options, sparsity: float, rule: Criterion, seed: int
) -> Sampled:
    """The diagnosis from sampled networks, or of the network itself if it is trained.

    Raises:
        ArgumentError, DataError, ModelError: a model that cannot be run on the data.
    """
    options = replace(options, method="sampled", needs_data=True)
    net = as_network(model, data, options, seed=seed)
    assert isinstance(net, UnreadNetwork)
    source = net.sampler.source
    measured = bool(getattr(source, "is_trained", False))
    if measured:
        net = _as_it_is(model, net)
        before = _measured_view(model, net, options, sparsity, rule, seed)
    else:
        before = _view(net, sparsity, rule, seed)
    cure, after = (None, None)
    if before.problems and not measured:
        cure, after = _best_cure(model, net, before, options, sparsity, rule, seed)
    laws = ("as found",) * len(net) if measured else tuple(layer.law for layer in net)
    return Sampled(net, _reading(net), laws, before, cure, after, measured)


# --- what is found


def _view(net: UnreadNetwork, sparsity: float, rule: Criterion, seed: int, *, seen: int = NETWORKS) -> View:
    """Predictions from sampled networks; signals are those of `seen` of them at most."""
    with shared_samples():
        pruning = predict_pruning(net, sparsity, criterion=rule, seed=seed)
        collapse = predict_collapse(net, criterion=rule, seed=seed, samples=pruning.samples or None)
        networks = max(pruning.samples, NETWORKS)
        moments = _moments(net, pruning.samples or None, seed)
    few = 2 if cost(net) > AFFORDABLE else networks
    signals = observe(net.sampler, min(few, seen), seed)
    kept = {
        "kept": np.asarray(pruning.kept),
        "kept_std": np.asarray(pruning.kept_std),
        "empty_probability": np.asarray(pruning.empty_probability),
        "collapse_probability": float(pruning.collapse_probability),
        "zero_scores": np.asarray(pruning.zero_scores, dtype=float),
    }
    return View(_outlook(net, sparsity, signals, moments, collapse, kept), signals, pruning.notes)


def cost(net: UnreadNetwork) -> float:
    """Multiply-adds of the forward passes of `NETWORKS` networks."""
    return net.sampler.multiplications * net.sampler.batch.size * NETWORKS


def _moments(net: UnreadNetwork, samples: int | None, seed: int) -> Array:
    """log of the mean square of the SNIP scores of each layer, (L,)."""
    sampling = net.sampler.sample(as_criterion("snip"), samples, seed, NETWORKS, NETWORKS)
    logs = np.array([[layer.log_rms for layer in network.signs[0]] for network in sampling.networks])
    return np.logaddexp.reduce(2.0 * logs, axis=0) - np.log(len(logs)) + 2.0 * sampling.shift


def _measured_view(
    model: Any, net: UnreadNetwork, options: Options, sparsity: float, rule: Criterion, seed: int
) -> View:
    """The very network, pruned once."""
    batch = net.sampler.batch
    given: dict[str, Any] = {
        "data": batch,
        "loss": net.sampler.loss,
        "example_input": batch.inputs if len(batch.tensors) == 1 else None,
        "exclude": options.exclude,
        "device": options.device,
        "dtype": options.dtype,
        "seed": seed,
        "masks": False,
    }
    found = measure_pruning(model, sparsity, criterion=rule, **given)
    moments = found.log_score_moments
    if rule.label != "snip":
        moments = measure_pruning(
            model, sparsity, criterion="snip", collapse=False, **given
        ).log_score_moments
    if found.layers != net.weight_layers:
        raise ModelError("the layers that the loss depends on differ from one run of the model to the next")
    weakest = np.array([float(name == found.weakest_layer) for name in found.layers])
    collapse = CollapsePrediction(
        criterion=rule.label,
        layers=found.layers,
        critical_sparsity=found.critical_sparsity,
        samples=np.array([found.critical_sparsity]),
        weakest_probability=weakest,
        weakest_layer=found.weakest_layer,
        bound=None,
        n_weights=net.n_weights,
        method="measured",
    )
    signals = observe(net.sampler, 1, seed)
    empty = (found.kept == 0.0).astype(float)
    kept = {
        "kept": found.kept,
        "kept_std": np.zeros(len(net)),
        "empty_probability": empty,
        "collapse_probability": float(empty.max()),
        "zero_scores": np.asarray(found.zero_scores, dtype=float),
    }
    return View(_outlook(net, sparsity, signals, moments, collapse, kept), signals, found.notes)


def _outlook(
    net: UnreadNetwork,
    sparsity: float,
    signals: Observed,
    moments: Array,
    collapse: CollapsePrediction,
    kept: dict[str, Any],
) -> Outlook:
    nowhere = np.full(len(net), np.nan)
    zeros = np.broadcast_to(kept["zero_scores"], (len(net),))
    with np.errstate(invalid="ignore"):
        relative = (moments - moments[-1]) / np.log(10.0)
    return Outlook(
        layers=net.weight_layers,
        sparsity=sparsity,
        sigma_w=np.array([layer.sigma_w for layer in net]),
        sigma_b=np.array([layer.sigma_b for layer in net]),
        q=signals.signal,
        c=signals.input_similarity,
        chi=nowhere,
        log10_moment=np.where(np.isfinite(relative), relative, np.nan),
        collapse=collapse,
        unranked=bool(falls_among_zeros(net.weights, zeros, sparsity)[0]),
        **{**kept, "zero_scores": zeros},
    )


def _as_it_is(model: Any, net: UnreadNetwork) -> UnreadNetwork:
    """The network whose source is the model alone."""
    known = {layer.name for layer in net}
    ranked = ranked_weights(model, net.sampler.batch, net.sampler.loss)
    weights = [weight for weight in ranked.weights if weight.label in known]
    return replace(net, sampler=replace(net.sampler, source=Itself(model, weights, net.layers)))


def _reading(net: UnreadNetwork) -> Reading:
    """Kinds and names; what only a graph shows is empty."""
    model, weights = net.sampler.source.network([0, 0x746F7263, 0])
    nowhere, nothing = np.full(len(net), np.nan), np.zeros(len(net), dtype=bool)
    return Reading(
        kinds=tuple(kind_of(weight) for weight in weights),
        edge=nowhere,
        names=recognise_all(list(net), nowhere),
        normalised=nothing,
        hidden=nothing,
        joins=(),
        batch_norms=batch_norm_counts(model),
    )


# --- what is tried


def _best_cure(
    model: Any,
    net: UnreadNetwork,
    before: View,
    options: Options,
    sparsity: float,
    rule: Criterion,
    seed: int,
) -> tuple[Cure | None, View | None]:
    """What `best_of` finds among the changes that the network's size lets be tried."""
    large = cost(net) > AFFORDABLE
    most = 1 if cost(net) > DEAR else 2 if large else None

    def look(changed: Any) -> View:
        assert isinstance(changed, UnreadNetwork)
        return _view(changed, sparsity, rule, seed, seen=1 if large else NETWORKS)

    return best_of(
        before, islice(_cures(model, net, before, options, seed), most), look, any_that_helps=large
    )


def _cures(model: Any, net: UnreadNetwork, before: View, options: Options, seed: int) -> Iterator[Cure]:
    """Changes worth a try, the most natural first."""
    if before.signals.attention:
        yield from _attention_cures(model, net, before, options, seed)
    else:
        with suppress(EOCError):
            yield _initialised(model, net, options, seed)
    yield from _even_cures(net, before, seed, attends=bool(before.signals.attention))


def _attention_cures(
    model: Any, net: UnreadNetwork, before: View, options: Options, seed: int
) -> Iterator[Cure]:
    """The changes that the theory of attention tries."""

    def critical() -> Mapping[str, float]:
        try:
            read = as_architecture(model, example_input=_example(net, options))
        except EOCError:
            return {}
        return critical_factors(read, net.layers) if is_off_edge(read) else {}

    def scales() -> list[ScoreScale]:
        try:
            return score_scales(net.sampler, 1 if cost(net) > AFFORDABLE else 2, seed)
        except EOCError:
            return []

    ends = [net.weight_layers[number] for number in before.signals.residual]
    for change in attention_changes(scales, ends, critical):
        yield change.cure(_rescaled(net, change))


def _example(net: UnreadNetwork, options: Options) -> Any:
    """Inputs that the model can be read with."""
    if options.example_input is not None:
        return options.example_input
    return net.sampler.batch.part(slice(0, 2)).inputs


def _even_cures(net: UnreadNetwork, before: View, seed: int, *, attends: bool) -> Iterator[Cure]:
    """Even signals, residual sums in bounds, and both; the second was tried where the network attends."""
    even = np.ones(len(net))
    with suppress(EOCError):
        even = even_factors(net.sampler, 1 if cost(net) > AFFORDABLE else 2, seed)
    names = net.weight_layers
    factors = {name: float(factor) for name, factor in zip(names, even, strict=True) if factor != 1.0}
    does = "makes the mean square of what each layer's weights give 1 (LSUV)"
    stable = stable_branches([names[number] for number in before.signals.residual])
    changes = [each_layer(factors, does)] if factors else []
    if stable is not None:
        changes += [] if attends else [stable]
        if factors:
            both = times(factors, stable.factors)
            changes.append(each_layer(both, f"{does}, with {branches(len(stable.factors))}"))
    for change in changes:
        yield change.cure(_rescaled(net, change))


def _rescaled(net: UnreadNetwork, change: Change) -> UnreadNetwork:
    factors = np.array([change.factors.get(name, 1.0) for name in net.weight_layers])
    units = [change.units.get(name, ()) for name in net.weight_layers]
    source = Rescaled(net.sampler.source, factors, units)
    return replace(
        net,
        layers=source.layers,
        sampler=replace(net.sampler, source=source),
        laws_known=source.laws_known,
    )


def _initialised(model: Any, net: UnreadNetwork, options: Options, seed: int) -> Cure:
    """The model on the edge of chaos of its activations, where it can be read.

    Raises:
        EOCError: it cannot.
    """
    if not is_model(model):
        raise ModelError("a factory's networks are not initialised here")
    twin = converted(model).model
    batch, example = net.sampler.batch, _example(net, options)
    structure(twin, example, fresh=True)  # else it is initialised by its signal, which is no edge of chaos
    initialize_(twin, seed=seed, example_input=example)
    changed = door.as_network(
        twin, batch, replace(options, method="sampled", exclude=options.exclude), seed=seed
    )
    return Cure(("eoc.initialize_(model)",), "sets the edge of chaos of the activations", changed)
