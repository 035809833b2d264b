"""Data-free predictions: criterion by criterion, from a network's shapes and initialisation laws alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..base import checks
from ..base.one_thread import with_one_thread
from ..criteria import densities
from ..criteria import score_distributions as laws
from ..criteria.synflow import chain as synflow
from ..criteria.synflow import graph as graph_synflow
from ..errors import ArgumentError
from ..networks.architecture import Architecture
from . import ranked
from .data_free_results import CollapseSamples, DataFreeAllocation

Array = np.ndarray

#: Criteria that look at no data.
DATA_FREE_CRITERIA = ("magnitude", "synflow", "synflow-oneshot", "random", "uniform", "erk")
SYNFLOW_ROUNDS = 100

_LAWS: dict[str, Callable[[Architecture], laws.ScoreLaw]] = {
    "magnitude": laws.magnitude_scores,
    "random": laws.random_scores,
    "synflow-oneshot": laws.synflow_scores,
}


@with_one_thread
def predict_data_free(
    net: Architecture,
    sparsities: float | Sequence[float] | Array,
    criterion: str,
    *,
    seed: int = 0,
    rounds: int = SYNFLOW_ROUNDS,
) -> DataFreeAllocation:
    """What each layer keeps when exactly round(s·n) of the network's n weights are removed.

    Args:
        net: any architecture.
        sparsities: fractions removed, each in [0, 1); a number counts as one.
        criterion: one of DATA_FREE_CRITERIA. magnitude, random and synflow-oneshot follow from the law of the
            scores (`laws`, `ranked`); uniform and erk hold no chance at all (`densities`); synflow is sampled
            (`synflow`, and `graph_synflow` on a graph of layers).
        seed: for synflow.
        rounds: rounds of synflow; the density falls by the same factor in each (Tanaka et al. 2020).

    Raises:
        ArgumentError: an unknown criterion, a sparsity outside [0, 1), rounds below 1.
    """
    s = _sparsities(sparsities)
    checks.one_of("criterion", criterion, DATA_FREE_CRITERIA)
    seed = checks.integer("seed", seed, minimum=0)
    rounds = checks.integer("rounds", rounds, minimum=1)
    n = net.n_weights
    kept_weights = np.array([n - round(float(x) * n) for x in s], dtype=np.int64)
    law = "synflow-oneshot" if criterion == "synflow" and rounds == 1 else criterion
    if law in _LAWS:
        kept, std, empty, collapse = ranked.allocate(_LAWS[law](net), kept_weights)
    elif criterion == "synflow":
        simulated = synflow if net.graph is None else graph_synflow
        rng = np.random.default_rng(seed)
        kept, std, empty, collapse = simulated.allocate(net, kept_weights, rounds, rng)
    else:
        wanted = densities.wants(net, criterion)
        counts = np.stack([densities.kept_counts(net.weights, wanted, int(k)) for k in kept_weights])
        kept, std = counts / net.weights, np.zeros(counts.shape)
        empty = (counts == 0).astype(float)
        collapse = empty.max(axis=1)
    return DataFreeAllocation(criterion, net.weight_layers, net.weights, s, kept, std, empty, collapse)


@with_one_thread
def collapse_data_free(
    net: Architecture, criterion: str, *, samples: int = 2000, seed: int = 0
) -> CollapseSamples:
    """The critical sparsity as a random variable over initialisations.

    s_cr is the smallest sparsity at which some layer has lost all its weights. For ranked scores it is
    #{scores ≤ t*}/n with t* the smallest of the layers' largest scores; for uniform and erk it is no random
    variable; for synflow (100 rounds, a schedule of its own for each sparsity) some networks are simulated to
    the end, `synflow.CORE_RUNS` in a chain and `graph_synflow.COLLAPSE_RUNS` on a graph, and resampled.

    Args:
        net: any architecture.
        criterion: one of DATA_FREE_CRITERIA.
        samples: number of draws.
        seed: of the draws.

    Raises:
        ArgumentError: an unknown criterion, samples below 1.
    """
    checks.one_of("criterion", criterion, DATA_FREE_CRITERIA)
    samples = checks.integer("samples", samples, minimum=1)
    rng = np.random.default_rng(checks.integer("seed", seed, minimum=0))
    if criterion in _LAWS:
        critical, weakest = ranked.critical_samples(_LAWS[criterion](net), samples, rng)
        shares = np.bincount(weakest, minlength=len(net)) / samples
    elif criterion == "synflow":
        runs = min(samples, synflow.CORE_RUNS)
        simulated = synflow if net.graph is None else graph_synflow
        critical, gone = simulated.critical_samples(net, SYNFLOW_ROUNDS, runs, rng)
        shares = (gone / gone.sum(axis=1, keepdims=True)).mean(axis=0)
        if samples > len(critical):
            critical = rng.choice(critical, size=samples)
    else:
        value, first = densities.critical_sparsity(net.weights, densities.wants(net, criterion))
        critical, shares = np.full(samples, value), first / first.sum()
    return CollapseSamples(criterion, critical, shares)


def _sparsities(sparsities: float | Sequence[float] | Array) -> Array:
    if np.ndim(sparsities) > 1 or np.size(sparsities) == 0:
        raise ArgumentError(
            f"sparsities must be a number or a one-dimensional sequence, got shape {np.shape(sparsities)}"
        )
    return np.array([checks.fraction("sparsities", s) for s in np.atleast_1d(np.asarray(sparsities))])
