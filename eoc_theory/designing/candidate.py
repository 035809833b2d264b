"""One way to prune: an initialisation and an allocation, what it is predicted to do, and what it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..architecture import Architecture
from ..data import DataSummary
from ..graph_laws import forward_cost
from ..prediction import predict_pruning
from ..presenting import plain
from .drawing import draw
from .sharing import floors, rounded, share_out

Array = np.ndarray

#: Networks that are drawn: the most, and the multiply-adds that all of them together may take about.
DRAWN, _BUDGET = 8, 5e10


@dataclass(frozen=True)
class Candidate:
    """An initialisation and an allocation for a network of L weight layers; arrays (L,).

    Attributes:
        initialisation: (σ_w, σ_b) of the first layer, or None: as it is.
        allocation: "global", the criterion's ranking of all weights at once; or "layerwise", numbers of
            weights set for each layer, chosen on ways through the network.
        architecture: the network with that initialisation.
        layers: names.
        kept: fraction of each layer's weights kept; of a global ranking the predicted mean.
        kept_weights: the same as whole numbers of weights, summing to those that are left.
        collapse_probability: probability that some layer loses all its weights.
        cut_probability: probability that some layer has no weight on a way from the input to the logits, from
            the drawn networks; nan where none was drawn.
        connected: share of these in which every layer has such a weight; for "layerwise" in networks with
            more than a row of dense layers, also with three quarters of the weights.
        drawn: number of them; drawing ends with the first that is disconnected.
        moved: part of the weights left that the global ranking would keep in other layers.
        feasible: whether neither probability is more than was asked for. False for an allocation that was not
            drawn, a better one being there.
    """

    initialisation: tuple[float, float] | None
    allocation: Literal["global", "layerwise"]
    architecture: Architecture
    layers: tuple[str, ...]
    kept: Array
    kept_weights: Array
    collapse_probability: float
    cut_probability: float
    connected: float
    drawn: int
    moved: float
    feasible: bool

    @property
    def name(self) -> str:
        """In a few words."""
        if self.initialisation is None:
            return f"as it is, {self.allocation}"
        sigma_w, sigma_b = self.initialisation
        return f"σ_w = {sigma_w:.4g}, σ_b = {sigma_b:g}, {self.allocation}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, without the network."""
        names = [name for name in self.__dataclass_fields__ if name not in ("architecture", "layers")]
        return plain({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Task:
    """What is asked for, the same for every candidate.

    Attributes:
        sparsity: fraction of all weights removed.
        left: number of weights left.
        criterion: that scores are ranked by.
        data: batch, as asked for and as the predictions see it.
        tolerance: largest probability of an empty layer.
        networks: how many are drawn; None: as many as are cheap.
        seed: of samples and draws.
    """

    sparsity: float
    left: int
    criterion: str
    data: DataSummary
    tolerance: float
    networks: int | None
    seed: int

    def predicted(self, net: Architecture, sparsity: Any) -> Any:
        return predict_pruning(net, sparsity, criterion=self.criterion, data=self.data, seed=self.seed)

    def draws(self, net: Architecture, *, sure: bool = False) -> int:
        """Number of networks to draw, each a batch forwards and backwards; two if they are `sure` to do."""
        if self.networks is not None:
            return self.networks
        cost = 3.0 * self.data.size * forward_cost(net.as_graph())
        return int(np.clip(_BUDGET / cost, 1, 2 if sure else DRAWN))


def by_global_ranking(task: Task, net: Architecture, initialisation: tuple[float, float] | None) -> Candidate:
    """Pruning `net`, all weights ranked at once."""
    found = task.predicted(net, task.sparsity)
    # Fewer weights than layers leave one empty whatever the law of the scores.
    chance = float(found.collapse_probability) if task.left >= net.depth else 1.0
    kept = np.asarray(found.kept)
    counts = rounded(kept * net.weights, task.left, net.weights)
    made = Candidate(
        initialisation, "global", net, net.weight_layers, kept, counts, chance, np.nan, np.nan, 0, 0.0, False
    )
    # Networks that lose layers anyway need not be drawn.
    return made if chance > task.tolerance else checked(task, made)


def layer_by_layer(task: Task, ranked: Candidate) -> Candidate | None:
    """The same network with numbers of weights for each layer; None where fewer weights than layers are left.

    No network is drawn yet.

    Args:
        ranked: the network under global ranking.
    """
    net = ranked.architecture
    if task.left < net.depth:
        return None
    expected = ranked.kept * net.weights
    expected = expected * (task.left / expected.sum())
    counts = share_out(expected, floors(net, task.left), net.weights, partial(_ranked, task, net))
    return replace(
        ranked,
        allocation="layerwise",
        kept=counts / net.weights,
        kept_weights=counts,
        collapse_probability=0.0,
        cut_probability=np.nan,
        connected=np.nan,
        drawn=0,
        moved=float(np.abs(counts - expected).sum() / (2.0 * task.left)),
        feasible=False,
    )


def checked(task: Task, made: Candidate) -> Candidate:
    """The same, seen in networks that are drawn."""
    counts = made.kept_weights if made.allocation == "layerwise" else None
    seen = draw(task, made.architecture, counts)
    return replace(
        made,
        drawn=seen.number,
        connected=seen.connected,
        cut_probability=seen.cut_probability,
        feasible=not seen.cut_probability > task.tolerance,
    )


def _ranked(task: Task, net: Architecture, budgets: Array) -> Array:
    """Mean numbers that a global ranking leaves in each layer for these budgets, (m, L)."""
    return np.asarray(task.predicted(net, 1.0 - budgets / net.n_weights).kept) * net.weights
