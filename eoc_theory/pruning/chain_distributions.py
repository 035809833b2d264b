"""Laws of the snip scores of chains of fully connected layers, from their kernels; no network is drawn."""

from __future__ import annotations

from typing import Any, TypeGuard

from ..base import checks
from ..base.freed_memory import give_back
from ..base.one_thread import with_one_thread
from ..criteria.criterion import Criterion
from ..criteria.distributions.gradients import SCORES, factor_laws, kernel_layers, snip_laws
from ..networks.architecture import Architecture
from ..networks.resolve import Network
from ..propagation.conditioned_chain import CHAIN_BATCH, sample_scales
from ..propagation.infinite_width import LOGIT_DRAWS, propagate_batch
from ..propagation.shared import digest, made_recently
from ..signals.data import DataSummary
from .allocation import NetworkLaws, mean_network, sampled_networks

#: Networks sampled for means and spreads: the spread itself is then known to about 18 %.
DEFAULT_SAMPLES = 16
#: Bytes for a unit, an input and a sampled network: values, slopes and gradients, as they are measured.
SAMPLED_BYTES = 48.0


def _check_sizes(net: Architecture, batch: int, samples: int, inputs: int) -> None:
    """Refuse a chain whose kernels, logits or sampled networks would not fit into memory."""
    checks.memory(f"a batch of {batch} inputs", 64.0 * batch**2, "fewer inputs")
    drawn = 24.0 * LOGIT_DRAWS * batch * net.out_features
    checks.memory(f"{net.out_features} classes for {batch} inputs", drawn, "fewer of one or the other")
    widest = max(layer.fan_out for layer in net.layers)
    needed = SAMPLED_BYTES * samples * min(inputs, batch) * widest
    checks.memory(f"width {widest} in {samples} sampled networks", needed, "a narrower network, or samples=")


def has_chain_law(net: Network, criterion: Criterion) -> TypeGuard[Architecture]:
    """Whether `network_laws` has the distributions of a criterion's scores in a network."""
    return net.is_chain and criterion.has_kernel_law and all(layer.sigma_w > 0 for layer in net)


@with_one_thread
def network_laws(
    net: Architecture,
    data: Any = None,
    *,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    inputs: int = CHAIN_BATCH,
    scores: int = SCORES,
) -> tuple[NetworkLaws, NetworkLaws]:
    """Laws of the snip scores of `samples` networks, and of the infinitely wide one as a set of one.

    Of chains of fully connected layers; `eoc_theory.graph_laws` serves all other networks, and GraSP.

    The mean law of each layer comes from the kernels of the whole batch at infinite width; how single
    networks differ from it, at their finite width, from the conditioned chain of `eoc_theory.finite_width` on
    `inputs` of the batch's inputs. About `scores` scores make a layer's law.
    """
    batch = net.summarise(data, seed=seed)
    _check_sizes(net, batch.size, samples, inputs)
    key = ("chain", net, digest(batch), samples, seed, inputs, scores)
    return made_recently(key, lambda: _network_laws(net, batch, samples, seed, inputs, scores))


def _network_laws(
    net: Architecture, batch: DataSummary, samples: int, seed: int, inputs: int, scores: int
) -> tuple[NetworkLaws, NetworkLaws]:
    chosen = batch.spread_indices(inputs)
    kernels, chain = propagate_batch(net, batch, seed=seed, keep=kernel_layers(net.depth), subset=chosen)
    assert chain is not None  # it was asked for
    laws = snip_laws(net, batch, kernels, seed=seed, scores=scores)
    subset = batch.take(chosen)
    base = factor_laws(net, subset, chain, seed=seed)
    sampled = sample_scales(net, subset, chain.top, samples, seed)
    give_back()
    return sampled_networks(laws, base, sampled, net.weights), mean_network(laws, net.weights)
