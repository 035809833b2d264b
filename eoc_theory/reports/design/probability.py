"""Probabilities from few networks, with the interval that holds nine in ten of them.

A network is disconnected when it needs more weights than it has: when x, the logarithm of the number that it
needs over the number left, is positive. From one initialisation to the next x is close to normal, for paths
as for layers (`tests/reports/test_design_probability.py`), with a standard deviation σ between 0.04 and 0.7.
So a few values of x say more than as many answers to "is it disconnected?", all of which may be no.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from ...pruning.prediction import silverman

Array = np.ndarray

#: Part of the cases in which an interval is to hold the true probability.
LEVEL = 0.9
#: Standard deviation of the prior of log σ about what is expected.
WIDTH = 0.4
#: σ where ranking looks at no gradients: 0.07 to 0.18 in six families of networks.
INDEPENDENT = 0.1
#: With gradients the last path is lost before the last weight of a layer, and less by chance the earlier: σ
#: is that of the critical sparsity, log(1 − s_cr), over 1 + this times the distance of their means.
_NARROWING = 0.45
_GRID = np.linspace(math.log(0.01), math.log(3.0), 241)


@dataclass(frozen=True)
class Chance:
    """A probability, and the interval of LEVEL about it; nan where nothing is known."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def at_most(self, other: Chance) -> Chance:
        """The same, of an event that comes with `other` only."""
        if math.isnan(other.value):
            return self
        return Chance(*(min(a, b) for a, b in zip(self._parts, other._parts, strict=True)))

    @property
    def _parts(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


UNKNOWN, NEVER = Chance(math.nan, math.nan, math.nan), Chance(0.0, 0.0, 0.0)


def expected_spread(needed: Array, limits: Array | None) -> float:
    """σ to expect of paths, where `needed` are the values of x that were sampled.

    Args:
        needed: x of the sampled networks, (k,).
        limits: the same logarithms for layers instead of paths, as predicted, any number of them; None where
            ranking looks at no gradients.
    """
    if limits is None:
        return INDEPENDENT
    apart = max(0.0, float(np.mean(needed)) - float(np.mean(limits)))
    return max(float(np.std(limits)), 0.02) / (1.0 + _NARROWING * apart)


def positive(needed: Sequence[float] | Array, spread: float) -> Chance:
    """P(x > 0) for one more sample of a normal x, from the samples `needed` (k,), k ≥ 1.

    The prior is flat for the mean, and normal for log σ about log `spread`. The value is that of the
    predictive distribution, the interval that of Φ(mean/σ) under the posterior.
    """
    x = np.asarray(needed, dtype=float)
    k, mean, sigma = len(x), float(np.mean(x)), np.exp(_GRID)
    squares = float(((x - mean) ** 2).sum())
    prior = -0.5 * ((_GRID - math.log(spread)) / WIDTH) ** 2
    log_weight = prior - (k - 1) * _GRID - 0.5 * squares / sigma**2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    value = float(weight @ ndtr(mean / (sigma * math.sqrt(1.0 + 1.0 / k))))
    ends = []
    for level in (0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL):
        low, high = -400.0, 400.0  # mean/σ is mean/σ of the draws ± 1/√k
        for _ in range(60):
            middle = 0.5 * (low + high)
            under = float(weight @ ndtr((middle - mean / sigma) * math.sqrt(k)))
            low, high = (middle, high) if under < level else (low, middle)
        ends.append(float(ndtr(0.5 * (low + high))))
    # Where the posterior leans far to one side its mean can be beyond either end.
    return Chance(value, min(ends[0], value), max(ends[1], value))


def share(happened: int, number: int) -> Chance:
    """The share of `number` networks in which it happened, with Wilson's interval (1927)."""
    if number == 0:
        return UNKNOWN
    z = float(ndtri(0.5 + 0.5 * LEVEL))
    p = happened / number
    middle = (p + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(p * (1 - p) / number + z * z / (4 * number * number))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Chance(p, 0.0 if happened == 0 else low, 1.0 if happened == number else high)


def smooth_share(draws: Array, limit: float, independent: int) -> float:
    """P(x > limit) from samples of x, taken from a smooth distribution.

    A normal kernel about each, narrowed so that mean and variance stay those of the sample (Silverman's
    bandwidth); few samples do not show what one network in a hundred does.

    Args:
        draws: of x, (n,).
        limit: in x.
        independent: how many of them are independent of each other.
    """
    mean, deviation = float(draws.mean()), float(draws.std())
    if deviation < 1e-9:
        return float(mean > limit)
    width, shrink = silverman(independent)
    centres = mean + shrink * (draws - mean)
    return float(ndtr((centres - limit) / (shrink * width * deviation)).mean())
