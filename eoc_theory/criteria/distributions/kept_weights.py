"""How large the weights are that a criterion keeps in one layer: moments of W under its mask.

By chance all weights are alike; by magnitude the largest stay; by a product |W g| of the weight and an
independent normal gradient a weight stays with the probability that |g| exceeds t/|W|.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import erfc

from .magnitudes import MagnitudeLaw

Array = np.ndarray

#: How weights are chosen in a layer.
Choice = Literal["chance", "magnitude", "product"]
#: Sizes |W| that are told apart, and the largest, in standard deviations.
_SIZES, _FARTHEST = 20_000, 9.0


class KeptWeights(NamedTuple):
    """Of one layer.

    Attributes:
        second: E[W² mask] over E[W²].
        kurtosis: E[W⁴ mask] over E[W² mask]², which is large where few weights are left.
    """

    second: float
    kurtosis: float


def kept_weights(law: MagnitudeLaw, density: float, choice: Choice) -> KeptWeights:
    """Moments of weights of which the fraction `density`, in (0, 1], is kept."""
    edges = np.linspace(0.0, _FARTHEST, _SIZES + 1)
    size = 0.5 * (edges[1:] + edges[:-1])
    mass = -np.diff(law.survival(edges))
    if choice == "chance" or density >= 1.0:
        stays = np.full_like(size, min(density, 1.0))
    else:
        stays = _largest(mass, density) if choice == "magnitude" else _by_product(size, mass, density)
    second = float(mass @ (stays * size**2))
    return KeptWeights(second / float(mass @ size**2), float(mass @ (stays * size**4)) / second**2)


def _largest(mass: Array, density: float) -> Array:
    """The part of each size's weights that are among the largest."""
    above = mass[::-1].cumsum()[::-1] - mass
    return np.clip((density - above) / np.maximum(mass, np.finfo(float).tiny), 0.0, 1.0)


def _by_product(size: Array, mass: Array, density: float) -> Array:
    """P(|g| > t/|W|) for each size, t such that the mean is the density."""

    def stays(log_t: float) -> Array:
        return erfc(math.exp(log_t) / (math.sqrt(2.0) * size))

    low, high = -40.0, math.log(10.0 * _FARTHEST)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mass @ stays(middle) > density else (low, middle)
    return stays(0.5 * (low + high))
