"""Pruning real networks by gradients in rounds: after each the scores are computed anew on what is left.

Iterative SNIP and FORCE (de Jorge et al. 2021): the density falls by the same factor in each round. Under
FORCE a removed weight has a score still, that of its gradient in the network without it, and may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..lazy import torch
from . import ranking

#: Scores of all layers for masks of what is left, None for all.
Scores = Callable[["Sequence[torch.Tensor] | None"], "Sequence[torch.Tensor]"]


def schedule(weights: int, left: int, rounds: int) -> list[int]:
    """Number of weights left after each round: the density falls by the same factor in each."""
    density = left / weights
    return [round(weights * density ** (k / rounds)) for k in range(1, rounds)] + [left]


def masks_in_rounds(
    scores: Scores, left: int, rounds: int, *, regrows: bool, stop_when_empty: bool = False
) -> list[torch.Tensor]:
    """Masks of the `left` weights that are left in the end.

    Args:
        scores: computes scores; weights that may never come back have the score −∞.
        left: number of weights to leave.
        rounds: of pruning.
        regrows: whether what a round removed may come back.
        stop_when_empty: end after the first round that leaves a layer without weights.
    """
    masks: list[torch.Tensor] | None = None
    first = scores(None)
    total = sum(score.numel() for score in first)
    for number, keep in enumerate(schedule(total, left, rounds)):
        found = first if number == 0 else scores(masks)
        if masks is not None and not regrows:
            found = [
                score.masked_fill(~mask.to(score.device), -torch.inf)
                for score, mask in zip(found, masks, strict=True)
            ]
        (limit,) = ranking.thresholds(found, [total - keep])
        masks = [
            mask.reshape(score.shape) for mask, score in zip(ranking.masks(found, limit), found, strict=True)
        ]
        if stop_when_empty and not all(bool(mask.any()) for mask in masks):
            break
    assert masks is not None
    return masks


def counts(masks: Sequence[torch.Tensor]) -> list[int]:
    """Number of weights left in each layer."""
    return [int(mask.sum()) for mask in masks]
