"""The sparsity at which a layer loses its last weight, as a random variable over initialisations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..base.boundary import public
from ..base.formatting import FULL_TABLE, probability
from ..base.formatting import sparsity as shown_sparsity
from ..base.isolation import isolated
from ..base.result import Drawable
from ..base.tables import Table, frame
from ..base.typing import DataFrame, DType, Floats, LossName, Method
from ..criteria.criterion import CriterionLike
from ..criteria.criterion import criterion as as_criterion
from ..errors import ArgumentError
from ..errors.text import shortened
from ..mean_field.maps import MeanField
from ..networks.architecture import Architecture
from ..networks.naming import network_name
from ..networks.resolve import Network, Options, as_network
from ..networks.unread import UnreadNetwork
from .critical_sparsity import critical_law, share_at_most
from .data_free import is_data_free
from .error_model import OWN_SAMPLES, collapse_trust
from .paper_bounds import bound_for
from .prediction import MOST_SAMPLES
from .vanishing import notes as zero_notes
from .vanishing import ranked_zeros, zeros_of_structure

Array = np.ndarray


@public
@dataclass(frozen=True, repr=False, eq=False)
class CollapsePrediction(Drawable):
    """Distribution of the critical sparsity s_cr, the smallest sparsity at which some layer collapses.

    Attributes:
        criterion: its name.
        layers: names of the weight layers.
        critical_sparsity: mean of s_cr.
        samples: draws of s_cr in increasing order, shape (n,).
        weakest_probability: probability that each layer is the first to collapse, shape (L,).
        weakest_layer: the layer where that is largest.
        bound: the paper's bound on the mean of s_cr where a theorem applies, else None.
        median_error: expected absolute error of log₁₀(1 − s_cr) at the median, from networks that were really
            pruned (`eoc_theory.pruning.error_model`).
        median_error_bound: what it stays under in nine networks of ten.
        notes: layers whose scores are all 0, so that removing the zeros leaves them empty; and where
            `median_error` is extrapolated.
        n_weights: of the network, of which pruning removes a whole number; 0 where it is not known.
        method: "theory" or "sampled".
        network: what the network is called.
    """

    criterion: str
    layers: tuple[str, ...]
    critical_sparsity: float
    samples: Floats
    weakest_probability: Floats
    weakest_layer: str
    bound: float | None
    median_error: float = np.nan
    median_error_bound: float = np.nan
    notes: tuple[str, ...] = ()
    n_weights: int = 0
    method: str = "theory"
    network: str = ""

    @overload
    def quantile(self, p: float) -> float: ...
    @overload
    def quantile(self, p: ArrayLike) -> Floats: ...
    def quantile(self, p: ArrayLike) -> float | Floats:
        """Sparsity that s_cr stays under with probability p."""
        levels = checks.numbers_of("p", p)
        if not np.all((levels >= 0) & (levels <= 1)):
            raise ArgumentError(f"p must lie in [0, 1], got {checks.shown(p)}")
        value = np.quantile(self.samples, levels) if levels.size else levels
        return float(value) if value.ndim == 0 else value

    @overload
    def probability(self, sparsity: float) -> float: ...
    @overload
    def probability(self, sparsity: ArrayLike) -> Floats: ...
    def probability(self, sparsity: ArrayLike) -> float | Floats:
        """P(s_cr ≤ sparsity): the probability that some layer is empty at that sparsity.

        What is removed is a whole number of weights, as where a network is pruned.
        """
        levels = checks.numbers_of("sparsity", sparsity)
        if np.isnan(levels).any():
            raise ArgumentError("sparsity must be a number, got nan")
        share = share_at_most(self.samples, levels, self.n_weights)
        return float(share) if levels.ndim == 0 else share

    def to_frame(self) -> DataFrame:
        """One row a layer, with the probability that it is the first to collapse."""
        return frame({"layer": self.layers, "weakest_probability": self.weakest_probability})

    def _told(self) -> dict[str, Any]:
        levels = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
        return {"quantile": {str(p): self.quantile(p) for p in levels}}

    def _headline(self) -> str:
        low, middle, high = (shown_sparsity(float(self.quantile(p))) for p in (0.1, 0.5, 0.9))
        named = f"{shortened(self.network, 60)}, " if self.network else ""
        weakest = f"weakest layer {shortened(self.weakest_layer, 40)}"
        return (
            f"{named}{self.criterion}: critical sparsity {middle} (80 % in {low} to {high}), {weakest}, "
            f"{self.method}"
        )

    def _table(self) -> Table:
        """The layers that may be the first to collapse, the likeliest first."""
        order = np.argsort(-self.weakest_probability, kind="stable")[:FULL_TABLE]
        order = [i for i in order if self.weakest_probability[i] > 0.0]
        rows = tuple((self.layers[i], probability(float(self.weakest_probability[i]))) for i in order)
        rest = len(self.layers) - len(rows)
        return Table(
            ("layer", "P(first to collapse)"),
            rows,
            note=f"{rest} other layers are less likely" if rest else "",
        )


@isolated
@public
def predict_collapse(
    net: Any,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    samples: int | None = None,
    seed: int = 0,
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    device: Any = "auto",
    dtype: DType = "auto",
) -> CollapsePrediction:
    """Distribution of the critical sparsity of `net` under `criterion`.

    Args and errors as in `eoc_theory.pruning.prediction.predict_pruning`. For given scores s_cr needs no
    search: with t* = min_l max_{w in l} score(w), s_cr = #{scores ≤ t*}/n. The layers' largest scores, which
    go together from layer to layer, are those of sampled networks. In chains too wide to sample on the whole
    batch they are sampled layer by layer: the distribution of a layer's largest score is the product of P(|W|
    ≤ t/|g_ij|) over its weights, exact given the rows δ_i and columns h_j.
    """
    rule = as_criterion(criterion)
    seed = checks.seed(seed)
    if samples is not None:
        samples = checks.integer("samples", samples, minimum=2, maximum=MOST_SAMPLES)
    options = Options.of(rule, method, example_input, loss, output, exclude, device, dtype)
    given, net = net, as_network(net, data, options, seed=seed)
    free = is_data_free(net, rule)
    batch, zeros = None, np.zeros(net.depth)
    if free:
        zeros = zeros_of_structure(net, rule)
    else:
        batch = net.summarise(data, seed=seed)
    if method == "theory" and rule.rounds > 1:
        raise ArgumentError(f"method must be 'sampled' or 'auto' for {rule.label!r}, got 'theory'")
    law = critical_law(net, rule, batch, samples=samples, seed=seed, method=method)
    if law.laws is not None:
        zeros = ranked_zeros(net, rule, (law.laws,), batch)
    # Of signed scores the laws hold the positive ones alone.
    told = () if rule.signed else zero_notes(rule.label, net.weight_layers, net.weights, zeros, ())
    sampled = isinstance(net, UnreadNetwork) or (law.method == "sampled" and not free)
    own = () if samples is None or free or sampled else (OWN_SAMPLES,)
    trust = collapse_trust(net, rule, law.samples, law.networks if sampled else None)
    return CollapsePrediction(
        criterion=rule.label,
        layers=net.weight_layers,
        critical_sparsity=float(law.samples.mean()),
        samples=law.samples.copy(),
        weakest_probability=law.weakest.copy(),
        weakest_layer=net.weight_layers[int(np.argmax(law.weakest))],
        bound=paper_bound(net, rule.label),
        median_error=float(trust.expected),
        median_error_bound=float(trust.bound),
        notes=told + law.notes + own + trust.notes,
        n_weights=net.n_weights,
        method=law.method,
        network=network_name(given, net),
    )


def paper_bound(net: Network, criterion: str) -> float | None:
    """The paper's upper bound on E[s_cr], or None where no theorem applies or it says nothing.

    "snip" off the edge of chaos (one activation and one pair of scales throughout), and "magnitude" where a
    single layer has the smallest weights; a bound of 1 or more says nothing.
    """
    if isinstance(net, UnreadNetwork) or not net.is_chain:
        return None
    bound = _BOUNDS[criterion](net) if criterion in _BOUNDS else None
    return float(bound) if bound is not None and np.isfinite(bound) and bound < 1.0 else None


def _snip_bound(net: Architecture) -> Any:
    hidden = {(layer.activation, layer.sigma_w, layer.sigma_b) for layer in net.layers[:-1]}
    if len(hidden) != 1:
        return None
    field = MeanField(*hidden.pop())
    chi = float(field.chi())
    # The theorem is about networks at a fixed point of the variance; one that dies or explodes has none.
    if not 0 < float(field.q_star) < np.inf or not 0 < chi < np.inf:
        return None
    return bound_for(net, "snip", chi).value


def _magnitude_bound(net: Architecture) -> Any:
    if any(layer.law != "normal" for layer in net.layers) or net.depth < 2:
        return None
    return bound_for(net, "magnitude").value


#: The paper's bound of each criterion that it has one for; None for networks that it is not about.
_BOUNDS: dict[str, Callable[[Architecture], Any]] = {"snip": _snip_bound, "magnitude": _magnitude_bound}
