"""Paths from the input to the logits through the weights that pruning leaves.

A layer can keep weights and yet pass nothing on: units that nothing reaches, or that lead nowhere. A network
of which no path is left from the input to the logits has collapsed as surely as one with an empty layer: its
logits do not depend on the input, and all its gradients vanish. A weight that is on no such path does not
matter, whatever its score (Vysogorets & Kempe 2021 call what does the effective sparsity).

Found by the positive linear network of `eoc_theory.pytorch.positive_network` on the masks themselves: its
output counts the paths, and its derivative by a mask's entry the paths that lead, or would lead, through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.boundary import public
from ...base.isolation import isolated
from ...errors import ArgumentError, ModelError
from ...networks.queries import attends
from ..lazy import require_torch, torch
from ..models import PrunableWeight, is_linear_chain, prunable_weights
from ..positive_network import path_counts, paths_through
from ..prune import mask_tensor
from .scoring import model_graph

if TYPE_CHECKING:
    from ...networks.graph import Graph


class Paths(ABC):
    """Finds the paths through one network's weights.

    Masks are boolean tensors of the weights' shapes, one for each of the layers `names`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @staticmethod
    def through(model: Any, weights: Sequence[PrunableWeight], example_input: Any = None) -> Paths:
        """Of a torch model.

        Raises:
            ModelError: the model cannot be traced, or needs an `example_input`.
        """
        names = [weight.label for weight in weights]
        if is_linear_chain(model, weights):
            return ChainPaths(names)
        return GraphPaths(names, model_graph(model, weights, example_input))

    @abstractmethod
    def open_to(self, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Where a weight, kept or not, is reached from the input and leads to the logits by kept ones."""

    def on_path(self, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The kept weights that lie on a path from the input to the logits, as masks."""
        return [mask & open_ for mask, open_ in zip(masks, self.open_to(masks), strict=True)]

    @abstractmethod
    def on_path_through(self, masks: Sequence[torch.Tensor], index: int) -> list[torch.Tensor]:
        """The kept weights on those paths that go through layer `index`."""


class ChainPaths(Paths):
    """Through fully connected layers one after the other."""

    def open_to(self, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Units reached, and units that lead on."""
        arrays = [mask.cpu().numpy() for mask in masks]
        reached: list[Any] = [np.ones(arrays[0].shape[1], dtype=bool)]
        for mask in arrays[:-1]:
            reached.append(mask[:, reached[-1]].any(axis=1))
        leading: list[Any] = [np.ones(arrays[-1].shape[0], dtype=bool)]
        for mask in arrays[:0:-1]:
            leading.append(mask[leading[-1]].any(axis=0))
        found = [ahead[:, None] & behind for ahead, behind in zip(reversed(leading), reached, strict=True)]
        return [torch.from_numpy(one).to(masks[0].device) for one in found]

    def on_path_through(self, masks: Sequence[torch.Tensor], index: int) -> list[torch.Tensor]:
        """All of them: every path goes through every layer."""
        return self.on_path(masks)

    def bottleneck(self, scores: Sequence[torch.Tensor]) -> float:
        """The largest t such that weights of scores ≥ t make a path.

        The best, over all paths, of the smallest score on the path: (max, min) in place of sums of products.
        """
        best: Any = None
        for score in scores:
            limited = score if best is None else score.minimum(best)
            best = limited.amax(dim=1)
        return float(best.max())


class GraphPaths(Paths):
    """Through a network of which a graph says how its layers are connected."""

    def __init__(self, names: Sequence[str], graph: Graph) -> None:
        """
        Raises:
            ModelError: a network with attention, which multiplies signals of several paths.
        """
        if attends(graph):
            raise ModelError("paths through a network with attention are not defined: it multiplies signals")
        super().__init__(names)
        self._graph = graph

    def open_to(self, masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        counts = path_counts(self._graph, dict(zip(self.names, masks, strict=True)))
        return [count > 0 for count in counts]

    def on_path_through(self, masks: Sequence[torch.Tensor], index: int) -> list[torch.Tensor]:
        by_name = dict(zip(self.names, masks, strict=True))
        counts = paths_through(self._graph, by_name, self.names[index])
        return [mask & (count > 0) for mask, count in zip(masks, counts, strict=True)]


@isolated
@public
def connected_weights(
    model: Any, masks: Mapping[str, Any] | None = None, *, example_input: Any = None
) -> dict[str, int]:
    """How many of each layer's kept weights lie on a path from the input to the logits.

    All are 0 where no path is left. Shortcuts may go round a layer that has none.

    Args:
        model: a torch model.
        masks: what is kept by layer name, as in ``PruningMeasurement.masks``; layers without a mask are
            whole. None: the masks that the model carries.
        example_input: a batch of inputs or its shape, where the first layer is not Linear.

    Returns:
        the numbers by layer name, in the model's order.

    Raises:
        ArgumentError: masks of other names or shapes. ModelError: a model that cannot be read.
    """
    require_torch()
    weights = prunable_weights(model)
    if not (masks is None or isinstance(masks, Mapping)):
        raise ArgumentError(f"masks must be a dict of arrays by layer name, got {type(masks).__name__}")
    given = None if masks is None else dict(masks)
    kept = []
    for weight in weights:
        mask = weight.mask if given is None else given.pop(weight.label, None)
        whole = torch.ones_like(weight.tensor)
        mask = whole if mask is None else mask_tensor(weight.name, mask, whole)
        kept.append(mask.to(whole.device) != 0)
    if given:
        raise ArgumentError(f"masks must name layers of the model, got {next(iter(given))!r}")
    shape = tuple(example_input) if isinstance(example_input, list) else example_input
    paths = Paths.through(model, weights, shape)
    counted = (int(path.count_nonzero()) for path in paths.on_path(kept))
    return dict(zip(paths.names, counted, strict=True))
