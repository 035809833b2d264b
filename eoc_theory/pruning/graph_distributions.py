"""Laws of a network's scores from a few networks that are sampled and scored.

In a network with positions a gradient has many terms but few independent directions, so that widths of 16 to
128 channels are far from infinite: the kernels of `eoc_theory.propagation.graph_kernels` alone can miss score
moments by factors there. The law of the scores therefore comes from networks of the same widths, sampled in
torch (`eoc_theory.pytorch.sample`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..base.one_thread import with_one_thread
from ..base.upward import upward
from ..criteria.criterion import criterion as as_criterion
from ..criteria.distributions.gradients import max_law
from ..networks.resolve import Network, Options
from ..networks.unread import UnreadNetwork
from ..propagation.score_grid import GRID, STEP
from ..propagation.score_samples import LayerSample, NetworkSample
from ..propagation.shared import digest, made_once
from .allocation import NetworkLaws, quantiles_of

Array = np.ndarray

#: log-score of a layer whose scores are all 0.
NOTHING = -1e4
#: What the scores of sampled networks may be made of.
NEEDS = ("weights", "gradient", "hessian_gradient", "paths")
#: Fewest and most networks, for what is kept; for the critical sparsity, which varies more from network to
#: network; and for that of a chain of fully connected layers.
KEPT, COLLAPSE, CHAIN_COLLAPSE = (4, 16), (8, 24), (24, 40)
#: Most networks that a critical sparsity is predicted from where a few differ much.
MOST_NETWORKS = 64


@dataclass(frozen=True)
class GraphLaws:
    """Laws of a network's scores.

    Attributes:
        laws: of all scores' sizes or, where they are signed, of the positive and of the negative ones.
        notes: where a lower resolution, or a narrower network, stands for this one.
    """

    laws: tuple[NetworkLaws, ...]
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of networks."""
        return len(self.laws[0].t)


def can_sample() -> bool:
    """Whether torch is here, in which networks are sampled."""
    return find_spec("torch") is not None


def as_sampled(net: Network, data: Any = None, *, seed: int) -> UnreadNetwork:
    """What samples networks like `net`; within `shared_samples` once for the same network and data.

    Raises:
        DataError: data that do not fit. MissingDependencyError: torch is not here.
    """
    if isinstance(net, UnreadNetwork):
        return net
    batch = net.summarise(data, seed=seed)
    key = ("sampled", net, digest(batch), seed)
    return made_once(key, lambda: upward("net=<sampled>")(net, batch, Options(method="sampled"), seed=seed))


@with_one_thread
def graph_laws(
    net: Network,
    criterion: Any,
    data: Any = None,
    *,
    samples: int | None,
    seed: int,
    networks: tuple[int, int] = KEPT,
) -> GraphLaws:
    """Laws of the scores in `samples` networks.

    Args:
        net: any network.
        criterion: one that needs "weights" or gradients, or its name.
        data: as in `Architecture.summarise`; an `UnreadNetwork` has its own.
        samples: number of networks; None: as many as their cost allows.
        seed: each network has its own stream of random numbers.
        networks: how many as a rule, and at most, where `samples` is None.

    Raises:
        DataError: data that do not fit. ModelError: values beyond the range of floats.
    """
    rule = as_criterion(criterion)
    if rule.needs not in NEEDS:
        raise rule.unpredicted()
    sampling = as_sampled(net, data, seed=seed).sampler.sample(rule, samples, seed, *networks)
    return GraphLaws(_laws_of_signs(sampling.networks, sampling.shift, net.weights), sampling.notes)


def _laws_of_signs(
    networks: Sequence[NetworkSample], shift: Array, weights: Array
) -> tuple[NetworkLaws, ...]:
    """The laws of all sizes, or of the scores of either sign."""
    return tuple(
        joined_laws(list(layers), shift, weights)
        for layers in zip(*(network.signs for network in networks), strict=True)
    )


def joined_laws(networks: list[list[LayerSample]], shift: Array, weights: Array) -> NetworkLaws:
    """One mean law a layer from all networks, its log-scores moved by `shift` (L,), and quantiles in each."""
    log_rms = np.array([[sample.log_rms for sample in network] for network in networks]) + shift
    tails = np.array([[sample.tail for sample in network] for network in networks])
    share = np.array([[sample.share for sample in network] for network in networks])
    # A factor common to all layers means nothing, and layers without scores are to be below all others.
    alive = np.isfinite(log_rms)
    nothing = NOTHING
    if not np.all(np.abs(log_rms[alive]) < -0.5 * NOTHING):
        log_rms -= np.max(log_rms, axis=1, where=alive, initial=-np.inf, keepdims=True)
        nothing = min(NOTHING, 2.0 * float(log_rms[alive].min()) + NOTHING)
    log_rms = np.maximum(log_rms, nothing)
    mean = tails.mean(axis=0)
    t = np.stack([scale[:, None] + quantiles_of(tail) for scale, tail in zip(log_rms, tails, strict=True)])
    t = np.maximum.accumulate(t, axis=-1) + 1e-9 * np.arange(t.shape[-1])
    tops = log_rms + np.array([[sample.row_maxima.max() for sample in network] for network in networks])
    largest = []
    for layer in zip(*networks, strict=True):
        maxima = np.stack([sample.row_maxima for sample in layer])
        position = np.where(np.isfinite(maxima), (maxima - GRID[0]) / STEP + 0.5, 0.0)
        bins = np.clip(position, 0, len(GRID) - 1).astype(np.int64)
        largest.append(max_law(bins, bins.shape[1]))
    return NetworkLaws(
        mean,
        np.stack(largest),
        quantiles_of(mean),
        t,
        share,
        np.asarray(weights),
        np.maximum(tops, nothing),
    )
