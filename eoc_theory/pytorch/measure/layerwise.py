"""Ranking layer by layer: each keeps as many weights as an allocation says, on paths through the network.

A layer's best scores alone are not enough. SNIP's are large for units that pass much on or are much listened
to, seldom for both alike: 60 layers of 100 tanh units on the edge of chaos have no path left from input
to logits at a sparsity of 98 %, every layer having dozens of weights still
(tests/reports/test_design_networks.py). So weights are chosen among those that lie on a path: density falls
in steps, after each of which the layers rank those weights alone that what they have left can reach and pass
on. A step that loses a layer's last path is taken back and halved; when that does not help, the layers take
turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base import checks
from ...errors import ArgumentError
from ..lazy import torch
from ..models import PrunableWeight
from . import ranking
from .synflow_rounds import SYNFLOW_ROUNDS, Flow

if TYPE_CHECKING:
    from .connectivity import Paths

#: Steps in which density falls, and the smallest part of one that is tried.
STEPS = 20
_SMALLEST = 1.0 / 32.0


def layer_counts(
    allocation: Any, names: Sequence[str], weights: Sequence[PrunableWeight], total: int
) -> np.ndarray:
    """How many weights each layer of a model keeps under an allocation, int64 (L,).

    Args:
        allocation: a `Design` or anything else with `layers` and `kept_weights`, or the numbers alone.
        names: of the model's layers, in its order.
        weights: the layers' weights.
        total: how many are kept in all.

    Raises:
        ArgumentError: other layers, more than there are in a layer (under a mask: left in it), another total.
    """
    if hasattr(allocation, "kept_weights") and hasattr(allocation, "layers"):
        if sorted(allocation.layers) != sorted(names):
            raise ArgumentError(
                f"allocation must be for the model's {len(names)} layers {_few(names)}, "
                f"got one for {len(allocation.layers)}: {_few(allocation.layers)}"
            )
        of = dict(zip(allocation.layers, allocation.kept_weights, strict=True))
        allocation = [of[name] for name in names]
    try:
        shape = np.shape(allocation)
    except Exception:
        shape = "of unequal rows"
    if shape != (len(names),):
        raise ArgumentError(
            f"allocation must hold one number of weights for each of the {len(names)} layers, "
            f"got shape {shape}"
        )
    counts = np.array([checks.integer("allocation", count, minimum=0) for count in allocation])
    for name, count, weight in zip(names, counts, weights, strict=True):
        if count > weight.left:
            raise ArgumentError(
                f"allocation must keep at most the {weight.left} weights of {name!r}, got {count}"
            )
    if counts.sum() != total:
        raise ArgumentError(f"allocation must keep {total} weights in all, got {counts.sum()}")
    return counts


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def best_masks(scores: Sequence[torch.Tensor], kept: Sequence[int] | np.ndarray) -> list[torch.Tensor]:
    """Each layer's best `kept[l]` scores, ties as `ranking` has them, whatever the paths."""
    found = []
    for score, count in zip(scores, kept, strict=True):
        (limit,) = ranking.thresholds([score], [score.numel() - int(count)])
        found += ranking.masks([score], limit)
    return found


def path_masks(
    paths: Paths, scores: Sequence[torch.Tensor], kept: Sequence[int] | np.ndarray
) -> list[torch.Tensor]:
    """Each layer's best `kept[l]` scores among those on paths from the input to the logits.

    Where fewer lie on paths than a layer is to keep, the best of the others make up the number; where there
    is no path, as under a layer that keeps nothing, all are chosen by score alone.

    Args:
        paths: of the network.
        scores: one tensor a layer; -inf for weights that are gone.
        kept: how many each layer keeps.

    Returns:
        boolean tensors of the scores' shapes.
    """
    # Indexed once: some criteria compute their scores anew each time.
    scores = [scores[i] for i in range(len(scores))]
    wanted = np.asarray(kept, dtype=np.int64)
    sizes = np.array(ranking.sizes_of(scores), dtype=np.int64)
    eligible = [torch.isfinite(score) for score in scores]
    passing = paths.on_path(eligible)
    # A shortcut may keep the network whole while a branch is lost: each layer that can keeps a path.
    passable = [bool(path.any()) for path in passing]
    if not any(passable) or not wanted.all():
        return best_masks(scores, wanted)
    done, step = 0.0, 1.0 / STEPS
    while done < 1.0:
        goal = min(1.0, done + step)
        counts = np.ceil(sizes * (wanted / sizes) ** goal - 1e-9).astype(np.int64)
        counts = np.maximum(counts, wanted)
        # Ties count in the end alone; until then they stay.
        pick = _best if goal == 1.0 else _at_least
        chosen = [pick(*layer) for layer in zip(scores, eligible, counts, strict=True)]
        found = paths.on_path(chosen)
        if [bool(path.any()) for path in found] == passable:
            passing, done = found, goal
        elif step > _SMALLEST / STEPS:
            step /= 2.0
            continue
        else:
            passing, done = _one_by_one(paths, scores, eligible, wanted), 1.0
        # What lies off the paths is gone, so that what takes its place must not lean on it.
        eligible = [a & b for a, b in zip(eligible, paths.open_to(passing), strict=True)]
    chosen = [
        kept | _best(score, open_ & ~kept, missing)
        for kept, score, open_, missing in zip(
            passing, scores, eligible, _missing(passing, wanted), strict=True
        )
    ]
    return [
        mask if missing == 0 else mask | _best(score, torch.isfinite(score) & ~mask, missing)
        for score, mask, missing in zip(scores, chosen, _missing(chosen, wanted), strict=True)
    ]


def _one_by_one(
    paths: Paths, scores: Sequence[torch.Tensor], eligible: list[torch.Tensor], wanted: np.ndarray
) -> list[torch.Tensor]:
    """Each layer's best weights on paths in turn, those with the fewest first, the others being whole still.

    In a row of layers this never loses the last path. Where shortcuts go round a branch, the best weights of
    another layer can be such that all paths through the branch are lost: then that layer keeps, before its
    best, weights on paths through the branch.
    """
    passing = paths.on_path(eligible)
    for index in np.argsort(wanted, kind="stable"):
        passing = _thinned(paths, scores[index], passing, int(index), int(wanted[index]))
    return passing


def _thinned(
    paths: Paths, score: torch.Tensor, passing: list[torch.Tensor], index: int, count: int
) -> list[torch.Tensor]:
    """What is on paths when layer `index` keeps `count` weights of those in `passing`, all on paths."""
    own, needed = passing[index], {}
    while True:
        chosen = _covering(score, own, list(needed.values()), count)
        found = paths.on_path([*passing[:index], chosen, *passing[index + 1 :]])
        lost = [
            at
            for at, (before, after) in enumerate(zip(passing, found, strict=True))
            if at not in needed and bool(before.any()) and not bool(after.any())
        ]
        if not lost:
            return found
        for at in lost:
            needed[at] = paths.on_path_through(passing, at)[index]


def _covering(
    score: torch.Tensor, eligible: torch.Tensor, needed: list[torch.Tensor], count: int
) -> torch.Tensor:
    """The best `count` of the eligible scores, but first one of each of the sets `needed` of them.

    Few weights serve many sets: in turn that which is in most of the sets not served yet, the best of these.
    """
    chosen = torch.zeros_like(eligible)
    missing = [among for among in needed if bool(among.any())]
    while missing and int(chosen.count_nonzero()) < count:
        served = torch.stack(missing).sum(dim=0)
        one = _best(score, served == served.max(), 1)
        chosen |= one
        missing = [among for among in missing if not bool((among & one).any())]
    return chosen | _best(score, eligible & ~chosen, count - int(chosen.count_nonzero()))


def _missing(masks: Sequence[torch.Tensor], wanted: np.ndarray) -> list[int]:
    return [
        int(count) - int(ranking.count(ranking.entries(mask)))
        for mask, count in zip(masks, wanted, strict=True)
    ]


def _at_least(score: torch.Tensor, eligible: torch.Tensor, count: int) -> torch.Tensor:
    """The eligible scores that are not below the best `count` of them."""
    flat = ranking.entries(score)
    among = flat[ranking.entries(eligible)]
    if len(among) <= count:
        return eligible
    limit = ranking.smallest([among], len(among) - int(count) + 1)
    return eligible & torch.as_tensor(flat >= limit).reshape(score.shape)


def _best(score: torch.Tensor, eligible: torch.Tensor, count: int) -> torch.Tensor:
    """The best `count` of the eligible scores, or all of them."""
    among = score[eligible]
    if among.numel() <= count:
        return eligible
    (limit,) = ranking.thresholds([among], [among.numel() - int(count)])
    (chosen,) = ranking.masks([among], limit)
    mask = torch.zeros_like(eligible)
    mask[eligible] = chosen
    return mask


def synflow_layers(flow: Flow, kept: Sequence[int] | np.ndarray, rounds: int = SYNFLOW_ROUNDS) -> Flow:
    """Iterative SynFlow with `kept[l]` weights left in layer l, the densities falling by a factor a round.

    A weight on no path scores 0 and goes first, so that paths stay.

    Args:
        flow: the whole network; it is changed and returned.
        kept: how many each layer keeps.
    """
    sizes = np.array(flow.sizes, dtype=np.int64)
    wanted = np.asarray(kept, dtype=np.int64)
    for k in range(1, rounds + 1):
        counts = wanted if k == rounds else np.rint(sizes * (wanted / sizes) ** (k / rounds)).astype(np.int64)
        flow.keep(best_masks(flow.scores(), np.minimum(np.maximum(counts, wanted), flow.left())))
    return flow
