"""Data-free predictions: criterion by criterion, from a network's shapes and initialisation laws alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import checks
from ..base.one_thread import with_one_thread
from ..criteria.criterion import Criterion
from ..criteria.criterion import criterion as as_criterion
from ..criteria.synflow import chain as synflow
from ..criteria.synflow import graph as graph_synflow
from ..criteria.synflow.criteria import SynFlow
from ..errors import ArgumentError
from ..networks.resolve import Network
from ..networks.unread import UnreadNetwork
from . import ranked
from .data_free_results import CollapseSamples, DataFreeAllocation

Array = np.ndarray


@with_one_thread
def predict_data_free(
    net: Network,
    sparsities: float | Sequence[float] | Array,
    criterion: Any,
    *,
    seed: int = 0,
) -> DataFreeAllocation:
    """What each layer keeps when exactly round(s·n) of the network's n weights are removed.

    Args:
        net: any architecture.
        sparsities: fractions removed, each in [0, 1); a number counts as one.
        criterion: one that needs no data. Where its scores' distribution is known what is kept follows from
            it (`ranked`); where it fixes densities there is no chance at all; SynFlow in rounds
            is sampled (`criteria.synflow`).
        seed: for SynFlow.

    Raises:
        ArgumentError: a criterion that is not predicted, or a sparsity outside [0, 1).
    """
    criterion = as_criterion(criterion)
    s = _sparsities(sparsities)
    seed = checks.integer("seed", seed, minimum=0)
    n = net.n_weights
    kept_weights = np.array([n - round(float(x) * n) for x in s], dtype=np.int64)
    law, wanted = criterion.law(net), criterion.densities(net.weight_shapes)
    if law is not None:
        kept, std, empty, collapse = ranked.allocate(law, kept_weights)
    elif wanted is not None:
        counts = np.stack([wanted.counts(int(k)) for k in kept_weights])
        kept, std = counts / net.weights, np.zeros(counts.shape)
        empty = (counts == 0).astype(float)
        collapse = empty.max(axis=1)
    else:
        rng = np.random.default_rng(seed)
        kept, std, empty, collapse = _sampled(net, criterion).allocate(
            net, kept_weights, criterion.rounds, rng
        )
    return DataFreeAllocation(criterion.label, net.weight_layers, net.weights, s, kept, std, empty, collapse)


@with_one_thread
def collapse_data_free(
    net: Network, criterion: Any, *, samples: int = 2000, seed: int = 0
) -> CollapseSamples:
    """The critical sparsity as a random variable over initialisations.

    s_cr is the smallest sparsity at which some layer has lost all its weights. For ranked scores it is
    #{scores ≤ t*}/n with t* the smallest of the layers' largest scores; where the criterion fixes densities
    it is no random variable; for SynFlow in rounds (a schedule of its own for each sparsity) some networks
    are simulated to the end, `synflow.CORE_RUNS` in a chain and `graph_synflow.COLLAPSE_RUNS` on a graph, and
    resampled.

    Args:
        net: any architecture.
        criterion: one that needs no data.
        samples: number of draws.
        seed: of the draws.

    Raises:
        ArgumentError: a criterion that is not predicted, samples below 1.
    """
    criterion = as_criterion(criterion)
    samples = checks.integer("samples", samples, minimum=1)
    rng = np.random.default_rng(checks.integer("seed", seed, minimum=0))
    law, wanted = criterion.law(net), criterion.densities(net.weight_shapes)
    if law is not None:
        critical, weakest = ranked.critical_samples(law, samples, rng)
        shares = np.bincount(weakest, minlength=len(net)) / samples
    elif wanted is not None:
        value, first = wanted.critical_sparsity()
        critical, shares = np.full(samples, value), first / first.sum()
    else:
        runs = min(samples, synflow.CORE_RUNS)
        critical, gone = _sampled(net, criterion).critical_samples(net, criterion.rounds, runs, rng)
        shares = (gone / gone.sum(axis=1, keepdims=True)).mean(axis=0)
        if samples > len(critical):
            critical = rng.choice(critical, size=samples)
    return CollapseSamples(criterion.label, critical, shares)


def is_data_free(net: Network, criterion: Criterion) -> bool:
    """Whether predictions look at no data, and sample no networks of layers with activations."""
    unread = isinstance(net, UnreadNetwork)
    if criterion.needs == "weights":
        return not (unread and not net.laws_known) and criterion.law(net) is not None
    return not (criterion.needs_data or (unread and criterion.needs == "paths"))


def _sampled(net: Network, criterion: Criterion) -> Any:
    """What samples networks of positive weights for SynFlow in rounds."""
    if not isinstance(criterion, SynFlow):
        raise criterion.unpredicted()
    return synflow if net.is_chain else graph_synflow


def _sparsities(sparsities: float | Sequence[float] | Array) -> Array:
    if np.ndim(sparsities) > 1 or np.size(sparsities) == 0:
        raise ArgumentError(
            f"sparsities must be a number or a one-dimensional sequence, got shape {np.shape(sparsities)}"
        )
    return np.array([checks.fraction("sparsities", s) for s in np.atleast_1d(np.asarray(sparsities))])
