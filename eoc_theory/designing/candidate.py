"""One way to prune: an initialisation and an allocation, what it is predicted to do, and what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..architecture import Architecture
from ..data import DataSummary
from ..errors import MissingDependencyError
from ..graph_laws import forward_cost
from ..prediction import predict_pruning
from ..presenting import plain
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
        connected: share of the drawn networks in which every layer has a weight on a way from the input to
            the logits; nan where none was drawn.
        drawn: number of them; drawing ends with the first that is disconnected.
        moved: part of the weights left that the global ranking would keep in other layers.
        feasible: whether layers are lost with no more than the probability asked for, and none of the drawn
            networks is disconnected. False for an allocation that was not drawn, a better one being there.
    """

    initialisation: tuple[float, float] | None
    allocation: Literal["global", "layerwise"]
    architecture: Architecture
    layers: tuple[str, ...]
    kept: Array
    kept_weights: Array
    collapse_probability: float
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

    def draws(self, net: Architecture) -> int:
        """Number of networks to draw: some batches forwards and backwards each."""
        if self.networks is not None:
            return self.networks
        cost = 3.0 * self.data.size * forward_cost(net.as_graph())
        return int(np.clip(_BUDGET / cost, 1, DRAWN))


def by_global_ranking(task: Task, net: Architecture, initialisation: tuple[float, float] | None) -> Candidate:
    """Pruning `net`, all weights ranked at once."""
    found = task.predicted(net, task.sparsity)
    kept, chance = np.asarray(found.kept), float(found.collapse_probability)
    counts = rounded(kept * net.weights, task.left, net.weights)
    made = Candidate(
        initialisation, "global", net, net.weight_layers, kept, counts, chance, np.nan, 0, 0.0, False
    )
    # Networks that lose layers anyway need not be drawn.
    return made if chance > task.tolerance else drawn(task, made)


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
        connected=np.nan,
        drawn=0,
        moved=float(np.abs(counts - expected).sum() / (2.0 * task.left)),
        feasible=False,
    )


def drawn(task: Task, made: Candidate) -> Candidate:
    """The same with networks drawn and pruned, up to the first that is disconnected."""
    whole = number = 0
    for whole_now in _draws(task, made):
        number += 1
        whole += whole_now
        if not whole_now:
            break
    return replace(
        made, connected=whole / number if number else np.nan, drawn=number, feasible=whole == number
    )


def _ranked(task: Task, net: Architecture, budgets: Array) -> Array:
    """Mean numbers that a global ranking leaves in each layer for these budgets, (m, L)."""
    return np.asarray(task.predicted(net, 1.0 - budgets / net.n_weights).kept) * net.weights


def _draws(task: Task, made: Candidate) -> Iterator[bool]:
    """Of really pruned networks, whether every layer has a weight on a way; none without torch."""
    from ..connectivity import connected_weights
    from ..measuring import measure_pruning
    from ..torch_models import require_torch

    net = made.architecture
    try:
        require_torch()
    except MissingDependencyError:
        return
    shape = net.input_shape
    example = None if net.graph is None else np.zeros((1, shape.channels, *shape.space), dtype=np.float32)
    for seed in range(task.seed, task.seed + task.draws(net)):
        model = net.to_torch(seed)
        found = measure_pruning(
            model,
            task.sparsity,
            criterion=task.criterion,
            data=task.data,
            example_input=example,
            seed=seed,
            collapse=False,
            allocation=made if made.allocation == "layerwise" else None,
        )
        assert isinstance(found.masks, dict)
        yield all(connected_weights(model, found.masks, example_input=example).values())
