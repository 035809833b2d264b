"""The sparsity at which a layer loses its last weight, as a random variable over initialisations."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.formatting import plain
from ..base.isolation import isolated
from ..base.one_thread import with_one_thread
from ..base.result import Drawable
from ..criteria.gradient_distributions import COLLAPSE_SCORES
from ..errors import ArgumentError, ModelError
from ..mean_field.maps import MeanField
from ..networks.architecture import Architecture
from ..networks.resolve import as_architecture
from ..propagation.score_grid import GRID
from ..signals.data import DataSummary
from .allocation import NetworkLaws
from .data_free import DATA_FREE_CRITERIA, collapse_data_free
from .error_model import OWN_SAMPLES, collapse_trust
from .graph_distributions import CHAIN_COLLAPSE, COLLAPSE, NOTHING, graph_laws, holds_all
from .prediction import (
    CRITERIA,
    DEFAULT_SAMPLES,
    MOST_SAMPLES,
    network_laws,
)
from .vanishing import notes as zero_notes
from .vanishing import ranked_zeros, zeros_of_structure

Array = np.ndarray

#: Draws of the layers' largest scores in each sampled network, at most.
DRAWS_PER_NETWORK = 32
#: Inputs of the chain: the critical sparsity depends on the scales more steeply than the kept fractions do.
COLLAPSE_INPUTS = 30


@public
@dataclass(frozen=True)
class CollapsePrediction(Drawable):
    """Law of the critical sparsity s_cr, the smallest sparsity at which some layer has lost all its weights.

    Attributes:
        criterion: its name.
        layers: names of the weight layers.
        critical_sparsity: mean of s_cr.
        samples: draws of s_cr in increasing order, shape (n,).
        weakest_probability: probability that each layer is the first to be emptied, shape (L,).
        weakest_layer: the layer where that is largest.
        bound: the paper's bound on the mean of s_cr where a theorem applies, else None.
        median_error: expected absolute error of log₁₀(1 − s_cr) at the median, from networks that were really
            pruned (`eoc_theory.pruning.error_model`).
        median_error_bound: what it stays under in nine networks of ten.
        notes: layers whose scores are all 0, so that removing the zeros empties them; and where
            `median_error` is extrapolated.
    """

    criterion: str
    layers: tuple[str, ...]
    critical_sparsity: float
    samples: Array
    weakest_probability: Array
    weakest_layer: str
    bound: float | None
    median_error: float = np.nan
    median_error_bound: float = np.nan
    notes: tuple[str, ...] = ()

    def quantile(self, p: float | Array) -> float | Array:
        """Sparsity that s_cr stays under with probability p."""
        levels = checks.numbers_of("p", p)
        if not np.all((levels >= 0) & (levels <= 1)):
            raise ArgumentError(f"p must lie in [0, 1], got {checks.shown(p)}")
        value = np.quantile(self.samples, levels) if levels.size else levels
        return float(value) if value.ndim == 0 else value

    def probability(self, sparsity: float | Array) -> float | Array:
        """P(s_cr ≤ sparsity): the probability that some layer is empty at that sparsity."""
        levels = checks.numbers_of("sparsity", sparsity)
        if np.isnan(levels).any():
            raise ArgumentError("sparsity must be a number, got nan")
        share = np.searchsorted(self.samples, levels, side="right") / len(self.samples)
        return float(share) if levels.ndim == 0 else share

    def to_dict(self) -> dict[str, Any]:
        """Mean, quantiles, weakest layers, bound and expected error as plain numbers; nan is None."""
        levels = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
        return plain(
            {
                "criterion": self.criterion,
                "layers": self.layers,
                "critical_sparsity": self.critical_sparsity,
                "quantile": {str(p): self.quantile(p) for p in levels},
                "weakest_layer": self.weakest_layer,
                "weakest_probability": self.weakest_probability,
                "bound": self.bound,
                "median_error": self.median_error,
                "median_error_bound": self.median_error_bound,
                "notes": self.notes,
            }
        )


@isolated
@public
def predict_collapse(
    net: Any,
    *,
    criterion: str = "snip",
    data: Any = None,
    samples: int | None = None,
    seed: int = 0,
) -> CollapsePrediction:
    """Law of the critical sparsity of `net` under `criterion`.

    Args and errors as in `eoc_theory.pruning.prediction.predict_pruning`. For given scores s_cr needs no
    search: with t* = min_l max_{w in l} score(w), s_cr = #{scores ≤ t*}/n. The layers' largest scores, which
    go together from layer to layer, are those of sampled networks. In chains too wide to sample on the whole
    batch they are drawn layer by layer: the law of a layer's largest score is the product of P(|W| ≤
    t/|g_ij|) over its weights, exact given the rows δ_i and columns h_j.
    """
    checks.one_of("criterion", criterion, CRITERIA)
    seed = checks.seed(seed)
    if samples is not None:
        samples = checks.integer("samples", samples, minimum=2, maximum=MOST_SAMPLES)
    net = as_architecture(net, data)
    own = () if samples is None or criterion in DATA_FREE_CRITERIA else (OWN_SAMPLES,)
    if criterion in DATA_FREE_CRITERIA:
        zeros = zeros_of_structure(net, criterion)
        free = collapse_data_free(net, criterion, seed=seed)
        drawn, weakest = free.critical_sparsity, free.weakest_layer
    else:
        batch = net.summarise(data, seed=seed)
        laws = _laws(net, criterion, batch, samples, seed)
        zeros = ranked_zeros(net, criterion, (laws,), batch)
        drawn, weakest = draw_critical_sparsity(laws, seed=seed)
    drawn = np.sort(drawn)
    # Of GraSP's scores the laws hold the positive ones alone.
    told = () if criterion == "grasp" else zero_notes(criterion, net.weight_layers, net.weights, zeros, ())
    trust = collapse_trust(net, criterion, drawn)
    return CollapsePrediction(
        criterion=criterion,
        layers=net.weight_layers,
        critical_sparsity=float(drawn.mean()),
        samples=drawn,
        weakest_probability=weakest,
        weakest_layer=net.weight_layers[int(np.argmax(weakest))],
        bound=paper_bound(net, criterion),
        median_error=float(trust.expected),
        median_error_bound=float(trust.bound),
        notes=told + own + trust.notes,
    )


def _laws(
    net: Architecture, criterion: str, batch: DataSummary, samples: int | None, seed: int
) -> NetworkLaws:
    """Laws of the scores of "snip" or "grasp", with the largest in each network where it can be sampled."""
    effort = CHAIN_COLLAPSE if net.graph is None else COLLAPSE

    def sampled() -> NetworkLaws:
        return graph_laws(net, criterion, batch, samples=samples, seed=seed, effort=effort).laws[0]

    if net.graph is not None or criterion == "grasp":
        return sampled()
    if holds_all(net, batch.size, criterion, effort):
        # Kernels reach depths at which a network's values leave the range of floats.
        with suppress(ModelError):
            return sampled()
    samples = 4 * DEFAULT_SAMPLES if samples is None else samples
    return network_laws(
        net, batch, samples=samples, seed=seed, inputs=COLLAPSE_INPUTS, scores=COLLAPSE_SCORES
    )[0]


@with_one_thread
def draw_critical_sparsity(laws: NetworkLaws, *, seed: int) -> tuple[Array, Array]:
    """Draws of s_cr, shape (n,), and how often each layer is the weakest, shape (L,).

    With at most `DRAWS_PER_NETWORK` draws of the layers' largest scores in each network.
    """
    networks, depth = laws.nonzero.shape
    share = laws.weights / laws.weights.sum()
    dead = laws.nonzero == 0
    if dead.all(axis=0).any():
        # A layer whose largest score is 0 in every network: removing all scores of 0 empties it.
        empty = dead.all(axis=0)
        zeros = 1.0 - laws.nonzero @ share
        return np.tile(zeros, DRAWS_PER_NETWORK), empty / empty.sum()
    largest = _independent_maxima(laws, seed) if laws.largest is None else _joint_maxima(laws)
    drawn = np.empty((len(largest), networks))
    weakest = np.zeros(depth)
    for index, u in enumerate(largest):
        scores = np.where(dead, min(NOTHING, float(laws.t.min()) - 1.0), laws.displace(u))
        first = scores.argmin(axis=1)
        weakest += np.bincount(first, minlength=depth)
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
    return np.stack([np.roll(values, turn, axis=0) for turn in turns])


def paper_bound(net: Architecture, criterion: str) -> float | None:
    """The paper's upper bound on E[s_cr], or None where no theorem applies or it says nothing.

    "snip" off the edge of chaos (one activation and one pair of scales throughout), and "magnitude" where a
    single layer has the smallest weights; a bound of 1 or more says nothing.
    """
    from .paper_bounds import bound_for

    if net.graph is not None:
        return None
    chi = None
    if criterion == "snip":
        hidden = {(layer.activation, layer.sigma_w, layer.sigma_b) for layer in net.layers[:-1]}
        if len(hidden) != 1:
            return None
        field = MeanField(*hidden.pop())
        chi = float(field.chi())
        # The theorem is about networks at a fixed point of the variance; one that dies or explodes has none.
        if not 0 < float(field.q_star) < np.inf or not 0 < chi < np.inf:
            return None
    elif criterion != "magnitude" or any(layer.law != "normal" for layer in net.layers) or net.depth < 2:
        return None
    value = bound_for(net, criterion, chi).value
    return float(value) if np.isfinite(value) and value < 1.0 else None
