"""The critical sparsity of pruning in rounds, where each final sparsity has a schedule of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def searched_critical_sparsity(
    whole: list[int], left_at: Callable[[int], list[int]], resolution: float = 0.0
) -> tuple[float, int]:
    """The sparsity from which pruning in rounds leaves a layer empty; and that layer.

    The numbers of weights left that empty a layer are taken for one interval. Where they are not, as beside
    shortcuts, the end is found of the part where a layer collapses under the schedule of fewest weights: a
    prediction has to search as a measurement does.

    Args:
        whole: weights of each layer.
        left_at: number of weights to keep → numbers left in each layer in the end, or at the end of the first
            round that empties one.
        resolution: relative error allowed in the number of weights left; 0: exact to one weight.
    """
    n, fewest = sum(whole), len(whole)

    def emptied_layer(kept: int) -> tuple[int | None, int]:
        """The first layer that collapses on the way to `kept` weights, and the number left then."""
        left = left_at(kept)
        return (int(np.argmin(left)) if min(left) == 0 else None), sum(left)

    if 0 in whole or fewest == n:
        return 0.0 if 0 in whole else 1 - (fewest - 1) / n, int(np.argmin(whole))
    # Fewer weights than layers leave one empty; all weights, none.
    weakest, guess = emptied_layer(fewest - 1)
    assert weakest is not None
    emptied, safe, step = fewest - 1, n, 1.15
    # Away from the guess in growing steps until both ends are known.
    while emptied < guess < safe and (emptied < fewest or safe == n):
        found, left = emptied_layer(guess)
        if found is None:
            safe, guess = guess, int(guess / step)
        else:
            weakest, emptied, guess = found, guess, max(left, int(guess * step))
        step *= step
    while safe - emptied > max(1, resolution * emptied):
        middle = round(math.sqrt(safe * max(emptied, 1)))
        middle = min(max(middle, emptied + 1), safe - 1)
        found, _ = emptied_layer(middle)
        if found is None:
            safe = middle
        else:
            emptied, weakest = middle, found
    return 1 - emptied / n, weakest
