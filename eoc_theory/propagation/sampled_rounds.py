"""Sampled networks that are pruned in rounds: after each the scores are computed anew on what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from ..errors import ModelError
from ..networks.graph import Graph
from .carried_values import OutOfRangeError
from .sampled_graph import Displaced, Scaled, Scoring, gradients, scored

Array = np.ndarray


class InRounds(Scoring, Protocol):
    """A criterion that prunes in rounds."""

    @property
    def rounds(self) -> int: ...
    @property
    def regrows(self) -> bool: ...


def schedule(weights: int, left: int, rounds: int) -> list[int]:
    """Number of weights left after each round: the density falls by the same factor in each."""
    density = left / weights
    return [round(weights * density ** (k / rounds)) for k in range(1, rounds)] + [left]


@np.errstate(all="ignore")
def left_in_rounds(
    criterion: InRounds,
    graph: Graph,
    images: Array,
    targets: Array,
    stream: list[int],
    left: int,
    *,
    stop_when_empty: bool = False,
) -> Array:
    """Numbers of weights that one network keeps in each layer, (L,), `left` in all.

    Args:
        criterion: scores by gradients, and how it prunes.
        graph: the network; images (channels, *space, B) and targets (B,): the batch.
        stream: of the network's random numbers.
        left: weights left in the end.
        stop_when_empty: end after the first round that leaves a layer without weights.

    Raises:
        ModelError: values beyond the range of floats.
    """
    for dtype in (np.float32, np.float64):
        try:
            counts = None
            for counts in _rounds(criterion, graph, images, targets, stream, left, dtype):
                if stop_when_empty and not counts.all():
                    break
            assert counts is not None
            return counts
        except OutOfRangeError:
            continue
    raise ModelError("values of a sampled network leave the range of floats: use a smaller sigma_w or depth")


def _rounds(
    criterion: InRounds,
    graph: Graph,
    images: Array,
    targets: Array,
    stream: list[int],
    left: int,
    dtype: type,
) -> Iterator[Array]:
    """Counts of the layers (L,) after each round."""
    names = [layer.name for layer in graph.weight_layers]
    total = sum(layer.n_weights for layer in graph.weight_layers)
    whole: list[Array] = []
    masks: dict[str, Array] = {}
    for keep in schedule(total, left, criterion.rounds):
        draw = Displaced(np.random.default_rng(stream), dtype, masks=masks)
        pairs = gradients(criterion, graph, images, targets, draw)
        whole = whole or [weights for weights, _ in pairs]
        scores = [
            scored(criterion, weights if criterion.regrows else pair[0], pair[1])
            for weights, pair in zip(whole, pairs, strict=True)
        ]
        chosen = largest(scores, [] if criterion.regrows else list(masks.values()), keep)
        masks = dict(zip(names, chosen, strict=True))
        yield np.array([mask.sum() for mask in chosen])


def largest(scores: Sequence[Scaled], alive: Sequence[Array], keep: int) -> list[Array]:
    """Masks of the `keep` largest scores of all layers, each in a unit of its own; ties by position.

    Args:
        alive: masks of what may be kept, none for all.
    """
    unit = max((score.normalised().exponent for score in scores if score.values.any()), default=0)
    flat = np.concatenate(
        [np.ldexp(score.values, max(score.exponent - unit, -4000)).ravel() for score in scores]
    )
    if alive:
        flat[~np.concatenate([mask.ravel() for mask in alive])] = -np.inf
    chosen = np.zeros(flat.size, dtype=bool)
    if keep:
        chosen[np.argpartition(-flat, keep - 1)[:keep]] = True
    ends = np.cumsum([score.values.size for score in scores])[:-1]
    return [
        part.reshape(score.values.shape) for part, score in zip(np.split(chosen, ends), scores, strict=True)
    ]
