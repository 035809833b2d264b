"""A candidate of a design: an initialisation and an allocation, what is predicted and what is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ...base.boundary import public
from ...base.formatting import plain
from ...networks.architecture import Architecture
from ...pruning.collapse import CollapsePrediction
from .allocation import floors, rounded, share_out
from .probability import NEVER, UNKNOWN, Chance, smooth_share
from .sampled_networks import Drawn, draw
from .task import Task

Array = np.ndarray

#: Samples of a first look at the distribution of the critical sparsity, of a chain of layers and of other
#: networks: about a quarter of the usual ones, so that its error may be twice as large.
_QUICK, _QUICK_ERROR = (16, 6), 2.0
#: Bound of the median's error in log₁₀(1 − s_cr) where none is stated.
_UNKNOWN_ERROR = 0.5
#: Samples of the critical sparsity that count as independent at most: they come from some 8 to 64 networks.
_INDEPENDENT = 32


@public
@dataclass(frozen=True)
class Candidate:
    """An initialisation and an allocation for a network of L weight layers; arrays (L,).

    Attributes:
        initialisation: (σ_w, σ_b) of the first layer, or None: as it is.
        allocation: "global", the criterion's ranking of all weights at once; or "layerwise", numbers of
            weights set for each layer, chosen on paths through the network.
        architecture: the network with that initialisation.
        layers: names.
        kept: fraction of each layer's weights kept; of a global ranking the predicted mean.
        kept_weights: the same as whole numbers of weights, summing to those that are left.
        collapse_probability: probability that some layer collapses, as predicted; not more than
            `cut_probability`, where that is known.
        collapse_interval: the range that holds it in nine cases of ten, from the expected error of the
            critical sparsity.
        cut_probability: probability that some layer is disconnected, with no weight on a path from the input
            to the logits, from the sampled networks; nan where none was sampled.
        cut_interval: the range that holds it in nine cases of ten, as far as so few networks tell.
        connected: share of these in which every layer has such a weight.
        drawn: number of them.
        moved: part of the weights left that the global ranking would keep in other layers.
        feasible: whether neither probability is more than was asked for. False for an allocation of which no
            network was sampled, because a better one is there.
    """

    initialisation: tuple[float, float] | None
    allocation: Literal["global", "layerwise"]
    architecture: Architecture
    layers: tuple[str, ...]
    kept: Array
    kept_weights: Array
    collapse_probability: float
    collapse_interval: tuple[float, float]
    cut_probability: float
    cut_interval: tuple[float, float]
    connected: float
    drawn: int
    moved: float
    feasible: bool

    @property
    def name(self) -> str:
        """The candidate in a few words."""
        if self.initialisation is None:
            return f"as it is, {self.allocation}"
        sigma_w, sigma_b = self.initialisation
        return f"σ_w = {sigma_w:.4g}, σ_b = {sigma_b:g}, {self.allocation}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, without the network."""
        names = [name for name in self.__dataclass_fields__ if name not in ("architecture", "layers")]
        return plain({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Ranked:
    """A network under global ranking: the candidate, and the distribution of its critical sparsity."""

    candidate: Candidate
    law: CollapsePrediction

    @property
    def critical_sparsity(self) -> float:
        """The median."""
        return float(self.law.quantile(0.5))


def by_global_ranking(
    task: Task,
    net: Architecture,
    initialisation: tuple[float, float] | None,
    *,
    quick: bool = False,
) -> Ranked:
    """Pruning `net`, all weights ranked at once.

    Args:
        quick: to have a first look, and the whole only where the candidate seems to do.
    """
    kept = np.asarray(task.predicted(net, task.sparsity).kept)
    quick = quick and task.criterion.needs_data
    law = task.law(net, _QUICK[not net.is_chain] if quick else None)
    empty = _emptied(task, net, law, _QUICK_ERROR if quick else 1.0)
    made = Candidate(
        initialisation=initialisation,
        allocation="global",
        architecture=net,
        layers=net.weight_layers,
        kept=kept,
        kept_weights=rounded(kept * net.weights, task.left, net.weights),
        collapse_probability=empty.value,
        collapse_interval=empty.interval,
        cut_probability=np.nan,
        cut_interval=UNKNOWN.interval,
        connected=np.nan,
        drawn=0,
        moved=0.0,
        feasible=False,
    )
    # Networks whose layers collapse anyway need not be sampled.
    if empty.low <= task.tolerance:
        made = _judged(task, made, _drawn(task, made, _log_left(law, net)), empty)
        if made.feasible and quick:
            law = task.law(net)
            cut = Chance(made.cut_probability, *made.cut_interval)
            made = _judged(task, made, Drawn(made.drawn, made.connected, cut), _emptied(task, net, law))
    return Ranked(made, law)


def _emptied(task: Task, net: Architecture, law: CollapsePrediction, factor: float = 1.0) -> Chance:
    """P(collapse), by the distribution of the critical sparsity and by how far that may be off.

    Args:
        factor: how much more than expected that is, where the law rests on fewer samples than usual.
    """
    # With fewer weights than layers one collapses, whatever the score distribution.
    if task.left < net.depth:
        return Chance(1.0, 1.0, 1.0)
    limits, left = _log_left(law, net), math.log(task.left / net.n_weights)
    independent = min(len(limits), _INDEPENDENT)
    bound = law.median_error_bound
    error = factor * math.log(10.0) * (_UNKNOWN_ERROR if math.isnan(bound) else bound)
    return Chance(*(smooth_share(limits, left + shift, independent) for shift in (0.0, error, -error)))


def _log_left(law: CollapsePrediction, net: Architecture) -> Array:
    """Draws of log(1 − s_cr), as whole numbers of weights have it."""
    return np.log(np.maximum(1.0 - law.samples, 0.5 / net.n_weights))


def layer_by_layer(task: Task, made: Candidate) -> Candidate | None:
    """The same network with numbers of weights for each layer; None where fewer weights than layers are left.

    No network is drawn yet.

    Args:
        made: the network under global ranking.
    """
    net = made.architecture
    if task.left < net.depth:
        return None
    expected = made.kept * net.weights
    expected = expected * (task.left / expected.sum())
    counts = share_out(expected, floors(net, task.left), net.weights, partial(_ranked, task, net))
    return replace(
        made,
        allocation="layerwise",
        kept=counts / net.weights,
        kept_weights=counts,
        collapse_probability=0.0,
        collapse_interval=(0.0, 0.0),
        cut_probability=np.nan,
        cut_interval=UNKNOWN.interval,
        connected=np.nan,
        drawn=0,
        moved=float(np.abs(counts - expected).sum() / (2.0 * task.left)),
        feasible=False,
    )


def checked(task: Task, made: Candidate, *, few: bool = False) -> Candidate:
    """Numbers of weights for each layer, seen in sampled networks; in `few` where it is not needed."""
    return _judged(task, made, _drawn(task, made, few=few), NEVER)


def _drawn(task: Task, made: Candidate, limits: Array | None = None, few: bool = False) -> Drawn:
    return draw(
        task,
        made.architecture,
        counts=made.kept_weights if made.allocation == "layerwise" else None,
        limits=limits,
        few=few,
        said=lambda text: task.said(f"{made.name}: {text}"),
    )


def _judged(task: Task, made: Candidate, seen: Drawn, empty: Chance) -> Candidate:
    """The same with what was seen in sampled networks, and whether it will do."""
    # A collapsed layer is disconnected, too.
    empty = empty.at_most(seen.cut)
    return replace(
        made,
        collapse_probability=empty.value,
        collapse_interval=empty.interval,
        drawn=seen.number,
        connected=seen.connected,
        cut_probability=seen.cut.value,
        cut_interval=seen.cut.interval,
        feasible=not (seen.cut.value > task.tolerance or empty.value > task.tolerance),
    )


def _ranked(task: Task, net: Architecture, budgets: Array) -> Array:
    """Mean numbers that a global ranking leaves in each layer for these budgets, (m, L)."""
    return np.asarray(task.predicted(net, 1.0 - budgets / net.n_weights).kept) * net.weights
