"""The critical sparsity of sampled networks, and which of their layers are empty at a given one.

One distribution serves `predict_collapse` and, near the sparsities where layers start to collapse,
`predict_pruning`: what they say of a sparsity is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.one_thread import with_one_thread
from ..criteria.criterion import Criterion
from ..criteria.criterion import criterion as as_criterion
from ..criteria.distributions.gradients import COLLAPSE_SCORES
from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.resolve import Network
from ..networks.unread import UnreadNetwork
from ..propagation.score_grid import GRID
from ..propagation.shared import digest, made_once, made_recently, shared_samples
from ..signals.data import DataSummary
from .allocation import NetworkLaws, threshold
from .chain_distributions import DEFAULT_SAMPLES, has_chain_law, network_laws
from .data_free import collapse_data_free
from .graph_distributions import (
    CHAIN_COLLAPSE,
    COLLAPSE,
    MOST_NETWORKS,
    NOTHING,
    GraphLaws,
    as_sampled,
    can_sample,
    graph_laws,
)
from .graph_theory import theory_laws
from .rounds import critical_in_rounds

Array = np.ndarray

#: Draws of the layers' largest scores in each sampled network, at most.
DRAWS_PER_NETWORK = 32
#: Inputs of the chain: the critical sparsity depends on the scales more steeply than the kept fractions do.
COLLAPSE_INPUTS = 30
#: Multiply-adds up to which the networks of a chain are sampled for it: forward passes of the fewest networks
#: on so many inputs, or on the batch. Sampled, log₁₀(1 − s_cr) is right within 0.08 at the median; layer by
#: layer it is within 0.1, and up to 0.2 too high in narrow chains of a hundred layers.
CHAIN_WORK, CHAIN_INPUTS = 2e10, 100
#: Networks are added until the standard error of the median of log₁₀(1 − s_cr) is this, while their forward
#: passes take no more multiply-adds than that. Narrow networks without normalisation differ by 0.2 to 0.4.
PRECISE, PRECISE_WORK = 0.05, 3e10
#: Standard error of a median over that of a mean, of a normal law.
_MEDIAN = 1.25
#: Sparsities that are looked at together.
_TOGETHER = 64
#: Part of a weight by which a critical sparsity may be off by rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class CriticalLaw:
    """Law of the critical sparsity s_cr.

    Attributes:
        samples: draws of s_cr in increasing order, shape (n,).
        weights: of the whole network.
        weakest: how often each layer is the first to collapse, shape (L,), of sum 1.
        laws: of the scores, for criteria that need gradients; else None.
        largest: draws of the layers' largest log-scores in each of S networks, shape (draws, S, L), or None.
        notes: what it takes for granted.
        method: "theory" or "sampled".
    """

    samples: Array
    weights: int
    weakest: Array
    laws: NetworkLaws | None = None
    largest: Array | None = None
    notes: tuple[str, ...] = ()
    method: str = "theory"

    @property
    def networks(self) -> int:
        """How many networks it is a sample of."""
        return 0 if self.laws is None else len(self.laws.t)

    def probability(self, sparsity: Array) -> Array:
        """P(s_cr ≤ sparsity), of the shape of `sparsity`."""
        return share_at_most(self.samples, sparsity, self.weights)

    @with_one_thread
    def empty(self, sparsity: Array) -> Array | None:
        """P(layer l is empty) at sparsities (n_s,), shape (n_s, L); None where no largest scores are known.

        Counted in the draws that `samples` are made of, so that none exceeds `probability`.
        """
        if self.laws is None or self.largest is None:
            return None
        parts = [sparsity[at : at + _TOGETHER] for at in range(0, len(sparsity), _TOGETHER)]
        log_t = np.concatenate([threshold(self.laws, part) for part in parts], axis=1)
        counted = [(self.largest <= one[None, :, None]).mean(axis=(0, 1)) for one in log_t.T]
        return np.minimum(np.stack(counted), self.probability(np.asarray(sparsity))[:, None])


def share_at_most(samples: Array, sparsity: Array, weights: int) -> Array:
    """Share of the draws of s_cr, in increasing order, that are not above each sparsity.

    Of `weights` weights a whole number is removed, round(s·n); 0: their number is not known.
    """
    levels = np.asarray(sparsity, dtype=float)
    if weights:
        removed = np.rint(np.clip(np.nan_to_num(levels), -1.0, 2.0) * weights)
        levels = np.maximum(levels, (removed + _ROUNDING) / weights)
    return np.searchsorted(samples, levels, side="right") / len(samples)


def critical_law(
    net: Network,
    criterion: Any,
    batch: DataSummary | None,
    *,
    samples: int | None,
    seed: int,
    method: str = "auto",
) -> CriticalLaw:
    """The law of s_cr under `criterion`.

    Within `propagation.shared.shared_samples` it is made once; that of a chain of fully connected layers is
    kept for requests to come.

    Args:
        net: the network.
        criterion: any, or its name.
        batch: what scores that need gradients are computed on; None for the others.
        samples: sampled networks; None: as many as is usual.
        seed: of all draws.
        method: "theory" samples no network.

    Raises:
        ModelError: values beyond the range of floats.
    """
    criterion = as_criterion(criterion)
    # The batch of a network that is not read is its own.
    name = digest(batch) if isinstance(batch, DataSummary) else batch is None
    key = ("critical sparsity", net, criterion, name, samples, seed, method)
    made = made_recently if batch is not None and has_chain_law(net, criterion) else made_once
    return made(key, lambda: _critical_law(net, criterion, batch, samples, seed, method))


def _critical_law(
    net: Network,
    criterion: Criterion,
    batch: DataSummary | None,
    samples: int | None,
    seed: int,
    method: str,
) -> CriticalLaw:
    if batch is not None and criterion.rounds > 1:
        drawn, weakest = critical_in_rounds(net, criterion, batch, samples, seed)
        return CriticalLaw(_ordered(drawn, net), net.n_weights, weakest, method="sampled")
    if batch is None:
        free = collapse_data_free(net, criterion, seed=seed)
        method = "theory" if criterion.rounds == 1 else "sampled"
        return CriticalLaw(
            _ordered(free.critical_sparsity, net), net.n_weights, free.weakest_layer, method=method
        )
    found = None
    if isinstance(net, UnreadNetwork) or (method != "theory" and _is_sampled(net, criterion, batch)):
        found = _sampled(net, criterion, batch, samples, seed)
    laws, method = (found, "sampled") if found else (_theory(net, criterion, batch, samples, seed), "theory")
    drawn, weakest = draw_critical_sparsity(laws.laws[0], seed=seed)
    largest = largest_scores(laws.laws[0], seed=seed)
    return CriticalLaw(
        _ordered(drawn, net), net.n_weights, weakest, laws.laws[0], largest, laws.notes, method
    )


def _ordered(drawn: Array, net: Network) -> Array:
    """Draws of s_cr in increasing order; with fewer weights than layers some layer is empty in any case."""
    return np.sort(np.minimum(drawn, 1.0 - (net.depth - 1) / net.n_weights))


def _is_sampled(net: Architecture, criterion: Criterion, batch: DataSummary) -> bool:
    """Whether networks are to be sampled: any but wide chains, whose kernels say as much at less cost."""
    if not can_sample():
        return False
    if not has_chain_law(net, criterion):
        return True
    return CHAIN_COLLAPSE[0] * min(batch.size, CHAIN_INPUTS) * net.n_weights <= CHAIN_WORK


def _sampled(
    net: Network, criterion: Criterion, batch: DataSummary, samples: int | None, seed: int
) -> GraphLaws | None:
    """Laws of the scores with the largest in each network; None of chains beyond the range of floats."""
    networks = COLLAPSE
    if net.is_chain:
        usual = int(np.clip(CHAIN_WORK / (batch.size * net.n_weights), *CHAIN_COLLAPSE))
        networks = usual, CHAIN_COLLAPSE[1]
    try:
        # Networks that were sampled already are not sampled again where more are wanted.
        with shared_samples():
            found = graph_laws(net, criterion, batch, samples=samples, seed=seed, networks=networks)
            if samples is not None:
                return found
            affordable = as_sampled(net, batch, seed=seed).sampler.most(criterion, PRECISE_WORK)
            most = min(affordable, CHAIN_COLLAPSE[1] if net.is_chain else MOST_NETWORKS)
            while found.samples < most and _median_error(found, net, seed) > PRECISE:
                count = min(2 * found.samples, most)
                found = graph_laws(net, criterion, batch, samples=count, seed=seed)
            return found
    except ModelError:
        # Kernels reach depths at which a network's values leave the range of floats.
        if not has_chain_law(net, criterion):
            raise
        return None


def _median_error(found: GraphLaws, net: Network, seed: int) -> float:
    """Standard error of the median of log₁₀(1 − s_cr)."""
    drawn, _ = draw_critical_sparsity(found.laws[0], seed=seed)
    logs = np.log10(np.maximum(1.0 - drawn, 0.5 / net.n_weights))
    return _MEDIAN * float(logs.std()) / found.samples**0.5


def _theory(
    net: Network, criterion: Criterion, batch: DataSummary, samples: int | None, seed: int
) -> GraphLaws:
    """Laws of the scores without a network that is sampled."""
    assert isinstance(net, Architecture)
    if not has_chain_law(net, criterion):
        return theory_laws(net, criterion, batch, seed=seed)
    samples = 4 * DEFAULT_SAMPLES if samples is None else samples
    law, _ = network_laws(
        net, batch, samples=samples, seed=seed, inputs=COLLAPSE_INPUTS, scores=COLLAPSE_SCORES
    )
    return GraphLaws((law,), ())


@with_one_thread
def largest_scores(laws: NetworkLaws, *, seed: int) -> Array:
    """Draws of the layers' largest log-scores, shape (draws, S, L): at most `DRAWS_PER_NETWORK` a network."""
    largest = _independent_maxima(laws, seed) if laws.largest is None else _joint_maxima(laws)
    dead = laws.nonzero == 0
    nothing = min(NOTHING, float(laws.t.min()) - 1.0)
    return np.stack([np.where(dead, nothing, laws.displace(u)) for u in largest])


@with_one_thread
def draw_critical_sparsity(laws: NetworkLaws, *, seed: int) -> tuple[Array, Array]:
    """Draws of s_cr, shape (n,), and how often each layer is the weakest, shape (L,).

    With at most `DRAWS_PER_NETWORK` draws of the layers' largest scores in each network.
    """
    networks, depth = laws.nonzero.shape
    share = laws.weights / laws.weights.sum()
    empty = (laws.nonzero == 0).all(axis=0)
    if empty.any():
        # A layer whose largest score is 0 in every network: removing all scores of 0 empties it.
        zeros = 1.0 - laws.nonzero @ share
        return np.tile(zeros, DRAWS_PER_NETWORK), empty / empty.sum()
    largest = largest_scores(laws, seed=seed)
    drawn = np.empty((len(largest), networks))
    weakest = np.zeros(depth)
    for index, scores in enumerate(largest):
        weakest += np.bincount(scores.argmin(axis=1), minlength=depth)
        drawn[index] = 1.0 - laws.kept(scores.min(axis=1)) @ share
    return drawn.ravel(), weakest / weakest.sum()


def _independent_maxima(laws: NetworkLaws, seed: int) -> Array:
    """Mean-law values of the layers' largest scores, each layer's by itself; shape (draws, S, L)."""
    rng = np.random.default_rng([seed, 0x6D6178])
    networks, depth = laws.nonzero.shape
    cdf = np.maximum.accumulate(laws.max_cdf, axis=1) + 1e-13 * np.arange(len(GRID))
    uniform = rng.random((DRAWS_PER_NETWORK, networks, depth))
    return np.stack([np.interp(uniform[..., layer], cdf[layer], GRID) for layer in range(depth)], axis=-1)


def _joint_maxima(laws: NetworkLaws) -> Array:
    """The same as they came together in the sampled networks, those of one in the law of another.

    A network with a large score in one layer has larger ones elsewhere, so that the least of independent
    draws is too small: by 0.1 to 0.3 in log₁₀(1 − s_cr) for residual networks.
    """
    values = laws.undisplaced_maxima()
    networks = len(values)
    turns = np.linspace(0, networks, min(networks, DRAWS_PER_NETWORK), endpoint=False).astype(int)
    turned = np.stack([np.roll(values, turn, axis=0) for turn in turns])
    # A layer without scores says nothing of others, which have their own.
    return np.where(np.isinf(turned), values, turned)
