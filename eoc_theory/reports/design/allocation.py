"""An allocation of weights to layers: the criterion's global ranking above a floor for each layer.

Every layer keeps at least its floor; what is left of the budget goes by the global ranking. With g_l(t) the
number of layer l's scores above t that is k_l = max(g_l(t), floor_l), t such that Σ k_l is the budget. Among
all allocations that respect the floors this one keeps the largest total score: a weight would have to go from
a score above t to one below it.

The floor is a part of what Erdős–Rényi-kernel densities (Evci et al. 2020) give the layer, the same number of
weights for each unit wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...criteria.distributions import densities
from ...networks.architecture import Architecture

Array = np.ndarray

#: The floors' part of an Erdős–Rényi-kernel allocation.
FLOOR = 0.5
#: Fewest weights of a layer, the first of these that the floors' part of the budget has for all: with one
#: each a branch that a shortcut goes round can lose its path.
FEWEST = (4, 2, 1)
#: Budgets at which the global ranking is asked for, a decade apart in so many steps, over so many decades.
_STEPS, _DECADES = 6, 3


def floors(net: Architecture, budget: int) -> Array:
    """Fewest weights that each layer keeps, int64 (L,): FLOOR of an ERK allocation, and FEWEST.

    Less where the budget, of L weights or more, does not have that.
    """
    even = densities.kept_counts(net.weights, densities.erdos_renyi_kernel(net.weight_shapes), budget)
    share = np.floor(FLOOR * even).astype(np.int64)
    fewest = next((few for few in FEWEST if few * net.depth <= FLOOR * budget), 1)
    found = np.maximum(np.minimum(fewest, net.weights), share)
    return found if found.sum() <= budget else np.ones_like(found)


def share_out(expected: Array, least: Array, weights: Array, ranked: Callable[[Array], Array]) -> Array:
    """Numbers of weights, int64 (L,), that sum to what `expected` does: the global ranking above `least`.

    Args:
        expected: mean numbers that the global ranking leaves in each layer, (L,).
        least: floors, (L,).
        weights: of each layer, (L,).
        ranked: the same as `expected` for smaller budgets (m,), shape (m, L).
    """
    budget = round(float(expected.sum()))
    if (expected >= least).all():
        return rounded(expected, budget, weights)
    decades = np.arange(1, _STEPS * _DECADES + 1) / _STEPS
    budgets = np.unique(np.maximum(1.0, budget * 10.0**-decades))[::-1]
    curve = np.concatenate([expected[None], ranked(budgets), np.zeros_like(expected)[None]])
    # Fewer weights in all leave no layer more.
    curve = np.minimum.accumulate(curve, axis=0)
    low, high = 0.0, float(len(curve) - 1)
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = np.maximum(_between(curve, middle), least).sum()
        low, high = (middle, high) if total > budget else (low, middle)
    return rounded(np.maximum(_between(curve, high), least), budget, weights)


def _between(curve: Array, place: float) -> Array:
    """Rows of `curve` at a place between them."""
    first = min(int(place), len(curve) - 2)
    return curve[first] + (place - first) * (curve[first + 1] - curve[first])


def rounded(numbers: Array, budget: int, weights: Array) -> Array:
    """Whole numbers that sum to `budget`, each rounded up or down where that is possible.

    The largest remainders are rounded up; none exceeds its layer's number of weights.
    """
    numbers = np.minimum(numbers, weights)
    found = np.floor(numbers + 1e-9).astype(np.int64)
    while (missing := budget - int(found.sum())) > 0:
        room = np.flatnonzero(found < weights)
        order = room[np.argsort(found[room] - numbers[room], kind="stable")]
        found[order[:missing]] += 1
    while (excess := int(found.sum()) - budget) > 0:
        order = np.argsort(numbers - found, kind="stable")
        order = order[found[order] > int((found > 1).any())]
        found[order[:excess]] -= 1
    return found
