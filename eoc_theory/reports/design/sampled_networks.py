"""Networks that are sampled and pruned, to see how far they are from being disconnected.

The score distributions of single layers do not tell which scores gather on which units, so this is measured:
how many weights, in the order of their scores, a network needs for every layer to have one on a path from the
input to the logits. `eoc_theory.reports.design.probability` turns that into the probability that the weights
left are too few.

Sampling goes on until the interval of that probability lies on one side of what was asked for, or the budget
of networks is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import MissingDependencyError
from ...networks.architecture import Architecture
from ...pytorch.inputs import example_shape
from ...pytorch.lazy import require_torch, torch
from ...pytorch.measure import ranking
from ...pytorch.measure.connectivity import ChainPaths, Paths
from ...pytorch.measure.measure import measure_pruning
from ...pytorch.measure.scoring import layer_scores
from ...pytorch.models import prunable_weights
from .probability import NEVER, UNKNOWN, Chance, expected_spread, positive, share
from .task import Task

Array = np.ndarray

#: Networks that are sampled of a candidate where none can fail, and of what is not needed; and enough of them
#: to rule a candidate out.
SURE, ENOUGH = 2, 4
#: Parts of the weights that are tried where each layer has its number of them: some more, where layers have
#: one or two. What is to be enough for that to tell more than that all networks are connected; and the
#: standard deviation over networks that is expected of the logarithm of the part that is enough.
PARTS, _SPARE, _SPREAD = (0.25, 0.5, 1.0), 0.6, 0.2
#: To so much the logarithm of the number of weights is found where it takes a search; networks that do with
#: less than the second's part of those left need not be told apart.
_RESOLUTION, _PLENTY = 0.1, 0.08


@dataclass(frozen=True)
class Drawn:
    """What was seen in sampled networks.

    Attributes:
        number: how many.
        connected: share in which every layer has a weight on a path from the input to the logits, or nan.
        cut: probability that in a network some layer has none.
    """

    number: int
    connected: float
    cut: Chance


NOTHING = Drawn(0, math.nan, UNKNOWN)


def draw(
    task: Task,
    net: Architecture,
    *,
    counts: Array | None = None,
    limits: Array | None = None,
    few: bool = False,
    said: Callable[[str], None] = lambda text: None,
) -> Drawn:
    """Networks of `net`, pruned by global ranking, or with numbers of weights `counts` for each layer.

    Numbers for each layer are chosen on paths, which cannot fail in a chain of layers. Elsewhere PARTS of the
    weights are tried, too: where half of them connect each network, that tells of the probability. Where not,
    and for iterative SynFlow, which keeps paths as long as it can, it is the share that is disconnected.

    Args:
        limits: draws of the logarithm of 1 − s_cr, as predicted; they tell how much networks differ.
        few: whether two networks are to do.
        said: called with the progress of sampling.
    """
    try:
        require_torch()
    except MissingDependencyError:
        return NOTHING
    sure = counts is not None and net.is_chain
    least, most = task.draws(net)
    if sure or few:
        least = most = min(least, SURE)
    if counts is not None or task.criterion.rounds > 1:
        parts = []
        for index in range(least):
            said(f"network {index + 1} of {least}")
            tried = PARTS if counts is not None and not sure else PARTS[-1:]
            parts.append(_enough(task, net, counts, task.seed + index, tried))
        if not parts:
            return NOTHING
        lost = parts.count(math.inf)
        cut = share(lost, len(parts))
        if sure and not lost:
            cut = NEVER
        elif max(parts) <= _SPARE:
            cut = positive(np.log(parts), _SPREAD)
        return Drawn(len(parts), 1.0 - lost / len(parts), cut)
    needed: list[float] = []
    cut = UNKNOWN
    while len(needed) < most:
        said(f"network {len(needed) + 1} of up to {most if len(needed) >= least else least}")
        needed.append(_needed(task, net, task.seed + len(needed)))
        scored = limits if task.criterion.needs_data else None
        relative = None if scored is None else scored - math.log(task.left / net.n_weights)
        cut = positive(needed, expected_spread(np.array(needed), relative))
        if cut.low > task.tolerance and len(needed) >= min(ENOUGH, least):
            break
        if cut.high <= task.tolerance and len(needed) >= least:
            break
    if not needed:
        return NOTHING
    return Drawn(len(needed), float(np.mean(np.array(needed) <= 0.0)), cut)


def _needed(task: Task, net: Architecture, seed: int) -> float:
    """log(weights that one network needs to be connected / weights left)."""
    model, example, paths = _made(net, seed)
    data = None
    if task.criterion.needs_data:
        shape = net.input_shape
        inputs = torch.from_numpy(np.array(task.data.inputs, dtype=np.float64))
        if not net.is_chain:
            inputs = inputs.reshape(-1, shape.channels, *shape.space)
        data = (inputs, torch.from_numpy(np.array(task.data.targets, dtype=np.int64)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores = layer_scores(model, task.criterion, data, example_input=example, device=device, seed=seed)
    # Indexed once: some criteria compute their scores anew each time.
    scores = [scores[i] for i in range(len(scores))]
    number = fewest_connected(paths, scores, _PLENTY * task.left)
    # What the whole network does not do either takes more weights than it has.
    return math.log(min(number, math.e * net.n_weights) / task.left)


def fewest_connected(paths: Paths, scores: Sequence[torch.Tensor], plenty: float = 0.0) -> float:
    """Number of weights, in the order of their scores, with which every layer has one on a path.

    Exact for a chain of layers. Otherwise to some 5 %, and inf where the whole network is not connected.

    Args:
        plenty: fewer are not looked for by search.
    """
    total = sum(score.numel() for score in scores)
    if isinstance(paths, ChainPaths):
        limit = paths.bottleneck(scores)
        return float(sum(int(ranking.count(ranking.entries(score) >= limit)) for score in scores))

    def connects(number: int) -> bool:
        (limit,) = ranking.thresholds(scores, [total - number])
        return all(bool(path.any()) for path in paths.on_path(ranking.masks(scores, limit)))

    low, whole = math.log(max(plenty, len(scores))), math.log(total)
    high = whole
    while high - low > _RESOLUTION:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if connects(round(math.exp(middle))) else (middle, high)
    if high == whole and not connects(total):
        return math.inf
    return math.exp(0.5 * (low + high))


def _enough(task: Task, net: Architecture, counts: Array | None, seed: int, parts: Sequence[float]) -> float:
    """The part of the weights with which a network has one on a path in every layer, or inf.

    Args:
        parts: that are tried, in this order.
    """
    model, example, paths = _made(net, seed)
    for part in parts:
        fewer = None if counts is None else np.ceil(part * counts).astype(np.int64)
        masks: Any = measure_pruning(
            model,
            task.sparsity if fewer is None else 1.0 - fewer.sum() / net.n_weights,
            criterion=task.criterion,
            data=task.data,
            example_input=example,
            seed=seed,
            collapse=False,
            allocation=fewer,
        ).masks
        on = paths.on_path([torch.from_numpy(mask) for mask in masks.values()])
        if all(bool(path.any()) for path in on):
            return 1.0 if fewer is None or counts is None else float(fewer.sum() / counts.sum())
    return math.inf


def _made(net: Architecture, seed: int) -> tuple[Any, Any, Paths]:
    """A network, one input of its shape where it needs one, and the paths through it."""
    model = net.to_torch(seed)
    example = None if net.is_chain else example_shape(net)
    return model, example, Paths.through(model, prunable_weights(model), example)
