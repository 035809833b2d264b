"""Masks that keep the same number of weights in each layer, but others.

What a criterion says of layers can be good where its choice within a layer is not. SNIP's fractions are: ReLU
networks of 40 layers with a tenth of their weights left train after its masks are rearranged, and hardly as
they are (`python -m paper_checks deep-sparse-training`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base import checks
from ..base.boundary import public
from .mask_files import as_masks

Array = np.ndarray

ARRANGEMENTS = ("random", "balanced")


@public
def rearrange_masks(
    masks: Mapping[str, Any], arrangement: str = "balanced", *, seed: int = 0
) -> dict[str, Array]:
    """Return masks that keep as many weights in each layer as the given ones, chosen by chance.

    Masks of SNIP gather on few units, and deep networks suffer from that. Rearranged at random they are those
    of random pruning with the layers' own densities. Balanced, each unit of a layer also keeps equally many
    weights to within one, and each of its inputs has equally many: no unit is left without weights while
    there are enough for all, and signals go evenly over all units (constant fan-in, as in Lasby et al.
    2024, and constant fan-out).

    Of a convolution units are output channels and inputs are input channels, and places in the kernel are
    left to chance. Of a grouped one the inputs of all groups that have the same place in their group count as
    one. A vector's are arranged at random.

    Args:
        masks: by layer name, as `PruningMeasurement.masks` and `masks_of` have them: arrays or tensors, true
            (or 1) where a weight is kept. Those of a network that was whole: what another mask removed
            before may be among the weights that are chosen.
        arrangement: "random" or "balanced".
        seed: of the choice.

    Returns:
        Boolean arrays of the same shapes by layer name, for :func:`prune_`. To keep the masks of some layers,
        put them back: ``{**rearrange_masks(masks), "head": masks["head"]}``.

    Raises:
        ArgumentError: masks that are no dict of arrays of 0 and 1, or another arrangement or seed.
    """
    given = as_masks(masks)
    checks.one_of("arrangement", arrangement, ARRANGEMENTS)
    rng = np.random.default_rng(checks.seed(seed))
    choose = _balanced if arrangement == "balanced" else _shuffled
    return {name: choose(mask, rng) for name, mask in given.items()}


def _shuffled(mask: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(mask.ravel()).reshape(mask.shape)


def _balanced(mask: Array, rng: np.random.Generator) -> Array:
    """As many kept weights as the mask has, evenly over the first axis and over the second."""
    if mask.ndim < 2 or mask.size == 0:
        return _shuffled(mask, rng)
    rows, columns = mask.shape[:2]
    kernel = mask.size // (rows * columns)
    counts = _balanced_counts(rows, columns, int(mask.sum()), rng)
    if kernel == 1:
        return (counts > 0).reshape(mask.shape)
    # Of each kernel the `count` places that a shuffle puts first.
    ranks = rng.random((rows, columns, kernel)).argsort(axis=2).argsort(axis=2)
    return (ranks < counts[:, :, None]).reshape(mask.shape)


def _balanced_counts(rows: int, columns: int, kept: int, rng: np.random.Generator) -> Array:
    """`kept` things dealt to cells such that rows, columns and cells each differ by one at most.

    Each row takes what is over from an even deal from the columns that have taken least. That is the
    construction of Havel and Hakimi for bipartite graphs, which never fails, whatever row comes next.
    """
    of_row = np.full(rows, kept // rows)
    of_row[rng.permutation(rows)[: kept % rows]] += 1
    even, over = np.divmod(of_row, columns)
    counts = np.repeat(even[:, None], columns, axis=1)
    taken = np.zeros(columns)
    for row in rng.permutation(rows):
        # The fractions break ties by chance.
        least = np.argpartition(taken + rng.random(columns), min(over[row], columns - 1))[: over[row]]
        counts[row, least] += 1
        taken[least] += 1.0
    return counts
