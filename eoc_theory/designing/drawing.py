"""Networks that are drawn and pruned, to see how far they are from losing the last way.

Which scores gather on which units no law of single layers tells, so this is measured: the part r of the
weights left with which a network is connected still. Its logarithm is taken as normal over networks, with
mean and variance from the few that are drawn and a weak prior for the variance; the probability that r = 1 is
not enough is that of Student's predictive law.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..architecture import Architecture
from ..comparing import example_of
from ..errors import MissingDependencyError
from ..torch_models import require_torch

if TYPE_CHECKING:
    from ..connectivity import Ways
    from .candidate import Task

Array = np.ndarray

#: Parts of the weights left that are tried, one after the other, until a network falls apart.
PARTS = (1.0, 0.85, 0.7, 0.58, 0.48, 0.4, 0.3, 0.2, 0.1)
#: The part with which networks with numbers for each layer are tried once more, where there are shortcuts.
SPARE = 0.75
#: The prior of the logarithm's standard deviation, worth so many networks.
_SPREAD, _WORTH = 0.15, 2.0


@dataclass(frozen=True)
class Drawn:
    """What was seen in drawn networks.

    Attributes:
        number: how many; drawing ends with the first that is not connected.
        connected: share in which every layer has a weight on a way from the input to the logits, or nan.
        cut_probability: probability that in a network some layer has none, or nan.
    """

    number: int
    connected: float
    cut_probability: float


def draw(task: Task, net: Architecture, counts: Array | None = None) -> Drawn:
    """Networks of `net`, pruned by global ranking, or with numbers of weights `counts` for each layer.

    Numbers for each layer are chosen on ways, and iterative SynFlow keeps these as long as it can: for both
    the probability is the share of networks that are cut off. Where shortcuts go round a branch, choosing on
    ways can fail with few weights; there a network counts as cut off also where SPARE of them would not do.
    """
    parts = []
    for part in _connected_parts(task, net, counts):
        parts.append(part)
        if part > 1.0:
            break
    if not parts:
        return Drawn(0, np.nan, np.nan)
    connected = float(np.mean(np.array(parts) <= 1.0))
    looked = counts is not None or task.criterion == "synflow"
    return Drawn(
        len(parts), connected, 1.0 - connected if looked or connected < 1.0 else cut_probability(parts)
    )


def cut_probability(parts: list[float]) -> float:
    """Probability that a network needs more than all of the weights left, from the parts that some need."""
    from scipy.stats import t

    logs = np.log(parts)
    freedom = len(logs) - 1 + _WORTH
    variance = (((logs - logs.mean()) ** 2).sum() + _WORTH * _SPREAD**2) / freedom
    return float(t.sf(-logs.mean() / math.sqrt(variance * (1.0 + 1.0 / len(logs))), freedom))


def _connected_parts(task: Task, net: Architecture, counts: Array | None) -> Iterator[float]:
    """The smallest of PARTS that connects each drawn network, inf for none; nothing without torch."""
    from ..connectivity import Ways
    from ..measuring import measure_pruning
    from ..torch_models import prunable_weights

    try:
        torch = require_torch()
    except MissingDependencyError:
        return
    example = None if net.graph is None else example_of(net)
    # In a row of layers, choosing on ways cannot fail.
    number = task.draws(net, sure=counts is not None and net.graph is None)
    for seed in range(task.seed, task.seed + number):
        model = net.to_torch(seed)
        shown = None if example is None else torch.tensor(example)
        ways = Ways.through(model, prunable_weights(model), shown)

        def masks(sparsity: Any, allocation: Any, model: Any = model, seed: int = seed) -> Any:
            return measure_pruning(
                model,
                sparsity,
                criterion=task.criterion,
                data=task.data,
                example_input=example,
                seed=seed,
                collapse=False,
                allocation=allocation,
            ).masks

        if counts is not None:
            tried = [masks(1.0 - counts.sum() / net.n_weights, counts)]
            if net.graph is not None:
                fewer = np.ceil(SPARE * counts).astype(np.int64)
                tried.append(masks(1.0 - fewer.sum() / net.n_weights, fewer))
            whole = all(_is_connected(ways, kept) for kept in tried)
            yield 1.0 if whole else math.inf
        elif task.criterion == "synflow":
            yield 1.0 if _is_connected(ways, masks(task.sparsity, None)) else math.inf
        else:
            least = math.inf
            for part, kept in zip(
                PARTS, masks(1.0 - (1.0 - task.sparsity) * np.array(PARTS), None), strict=True
            ):
                if not _is_connected(ways, kept):
                    break
                least = part
            yield least


def _is_connected(ways: Ways, masks: dict[str, Array]) -> bool:
    """Whether every layer has a weight on a way."""
    on = ways.on_way([require_torch().from_numpy(mask) for mask in masks.values()])
    return all(bool(way.any()) for way in on)
