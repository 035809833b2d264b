"""What pruning is predicted to do to one initialisation of a network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...base.boundary import public
from ...base.side_by_side import meanwhile
from ...base.typing import Method
from ...criteria.criterion import Criterion
from ...mean_field.maps import MeanField
from ...networks.architecture import Architecture
from ...networks.queries import has_kernels
from ...propagation.infinite_width import propagate_batch
from ...propagation.kernel_memory import is_held_whole
from ...propagation.shared import shared_samples
from ...pruning.collapse import CollapsePrediction, predict_collapse
from ...pruning.prediction import predict_pruning
from ...pruning.vanishing import falls_among_zeros
from ...signals.data import DataSummary
from ...signals.fields import Pairs
from .initialisation import Reading

Array = np.ndarray

#: Probability of collapse that counts as safe.
SAFE = 0.05
#: A layer is starved where it keeps less than this share of what it would keep if all kept the same.
STARVED = 0.1


@public
@dataclass(frozen=True)
class Outlook:
    """An initialisation of L weight layers and what pruning at one sparsity does to it; arrays (L,).

    Attributes:
        layers: names.
        sparsity: fraction of all weights removed.
        sigma_w, sigma_b: scales.
        q: variance of the pre-activations.
        c: correlation of two different inputs' pre-activations.
        chi: χ = σ_w² E[φ'(√q Z)²] with the layer's own σ_w and q and the activation φ that follows, by which
            the gradient's variance is multiplied per layer; nan where no activation follows or a
            normalisation stands before it.
        log10_moment: log₁₀ of the second moment of the layer's SNIP scores, relative to the last layer's.
        kept: mean fraction kept.
        kept_std: its standard deviation from one initialisation to the next.
        empty_probability: probability that the layer collapses.
        collapse_probability: probability that some layer collapses, a float.
        collapse: distribution of the critical sparsity.
        zero_scores: mean fraction of the layer's scores that are exactly 0, nan where they are ranked in
            rounds.
        unranked: whether the threshold falls among these zeros, so that chance decides which of them go.
    """

    layers: tuple[str, ...]
    sparsity: float
    sigma_w: Array
    sigma_b: Array
    q: Array
    c: Array
    chi: Array
    log10_moment: Array
    kept: Array
    kept_std: Array
    empty_probability: Array
    collapse_probability: float
    collapse: CollapsePrediction
    zero_scores: Array
    unranked: bool

    @property
    def silent(self) -> Array:
        """Positions of the layers whose scores are all exactly 0."""
        return np.flatnonzero(self.zero_scores >= 1.0)

    @property
    def critical_sparsity(self) -> float:
        """Median over initialisations of the smallest sparsity at which a layer collapses."""
        return float(self.collapse.quantile(0.5))

    @property
    def safe_sparsity(self) -> float:
        """Sparsity up to which the probability of collapse stays under 5 %."""
        return float(self.collapse.quantile(SAFE))

    @property
    def emptied(self) -> Array:
        """Positions of the layers that are more likely empty than not."""
        return np.flatnonzero(self.empty_probability > 0.5)

    @property
    def span(self) -> float:
        """Decades between the largest and the smallest score moment."""
        known = self.log10_moment[np.isfinite(self.log10_moment)]
        return float(np.ptp(known)) if len(known) else 0.0

    @property
    def is_starved(self) -> bool:
        """Whether some layer keeps less than a tenth of its even share."""
        return bool(self.kept.min() < STARVED * (1.0 - self.sparsity))

    @property
    def is_fine(self) -> bool:
        """Whether no layer is likely to collapse or starve, and every layer has scores to rank."""
        return self.collapse_probability < SAFE and not self.is_starved and not len(self.silent)

    def to_dict(self) -> dict[str, Any]:
        """Plain attributes; the critical sparsity by its quantiles."""
        names = [name for name in self.__dataclass_fields__ if name not in ("layers", "sparsity", "collapse")]
        law = self.collapse.to_dict()
        return {
            **{name: getattr(self, name) for name in names},
            "critical_sparsity": self.critical_sparsity,
            "critical_sparsity_quantile": law["quantile"],
            "safe_sparsity": self.safe_sparsity,
            "weakest_layer": law["weakest_layer"],
            "weakest_probability": law["weakest_probability"],
        }


def outlook(
    net: Architecture,
    reading: Reading,
    sparsity: float,
    criterion: Criterion,
    batch: DataSummary,
    seed: int,
    method: Method = "auto",
    kernels: Any = None,
) -> Outlook:
    """The prediction for `net`, whose `reading` says which layers' scale matters.

    `kernels` are what `net.propagate` gives, where they are known.
    """
    given: dict[str, Any] = {"criterion": criterion, "data": batch, "seed": seed, "method": method}
    with shared_samples(), _meanwhile(partial(_kernels, net, batch, seed, kernels), net, batch) as found:
        pruning = predict_pruning(net, sparsity, **given)
        collapse = predict_collapse(net, **given)
        kernels = found()
    zeros = np.broadcast_to(np.asarray(pruning.zero_scores, dtype=float), (net.depth,))
    moment = (kernels.log_moment - kernels.log_moment[-1]) / np.log(10.0)
    if criterion.needs_data:
        moment = np.where(zeros >= 1.0, np.nan, moment)
    return Outlook(
        layers=net.weight_layers,
        sparsity=sparsity,
        sigma_w=np.array([layer.sigma_w for layer in net]),
        sigma_b=np.array([layer.sigma_b for layer in net]),
        q=kernels.q,
        c=kernels.c,
        chi=_chi(net, reading, kernels.q),
        log10_moment=moment,
        kept=np.asarray(pruning.kept),
        kept_std=np.asarray(pruning.kept_std),
        empty_probability=np.asarray(pruning.empty_probability),
        collapse_probability=float(pruning.collapse_probability),
        collapse=collapse,
        zero_scores=zeros,
        unranked=bool(falls_among_zeros(net.weights, zeros, sparsity)[0]),
    )


def _kernels(net: Architecture, batch: DataSummary, seed: int, known: Any) -> Any:
    """What `net.propagate` gives; of a chain no layer's kernels are kept."""
    if known is None and net.is_chain:
        known = propagate_batch(net, batch, seed=seed, keep=())[0]
    return known or net.propagate(batch, seed=seed)


def _meanwhile(work: Callable[[], Any], net: Architecture, batch: DataSummary) -> Any:
    """`meanwhile` where kernels are small enough to be held beside sampled networks; else `work` waits."""
    graph = net.as_graph()
    light = has_kernels(graph) and is_held_whole(graph, Pairs.of(batch), np.dtype(float).itemsize)
    return meanwhile(work) if light else nullcontext(work)


def _chi(net: Architecture, reading: Reading, q: Array) -> Array:
    """χ at the variances found, shape (L,)."""
    chi = np.full(net.depth, np.nan)
    for index, layer in enumerate(net):
        if reading.scaled[index] and layer.activation is not None and layer.sigma_w == 0.0:
            chi[index] = 0.0
        elif reading.scaled[index] and layer.activation is not None:
            field = MeanField(layer.activation, layer.sigma_w, layer.sigma_b)
            chi[index] = float(field.chi(q=float(q[index])))
    return chi
