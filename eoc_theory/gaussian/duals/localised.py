"""E[φ'(u) φ'(v)] at large variances, for smooth activations that saturate: φ' lives on a short stretch then.

At variance q the pair (u, v) spreads over √q, while φ' of tanh is 0 to rounding beyond |x| = 22. In x and y
themselves, not in units of √q, the integrand is f(x) f(y) times a Gaussian: analytic, and gone at the ends of
one fixed grid, on which the trapezoidal rule converges exponentially (Trefethen & Weideman 2014). The grid
does not depend on q or on the correlation c. Where u − v has a spread w = √(q (1 − c²)) under the grid's
steps, y is c x + w t with t standard normal, and the rule over t is exact to rounding because f is flat on
the scale w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...activations.core import Activation
from .pairs import Array
from .quadrature import FLAT_NODES, FLAT_WEIGHTS

#: |φ'| over its largest value that counts as 0.
NEGLIGIBLE = 1e-19
#: Steps in units of the activation's length scale, coarsest first, and ends of the grid.
STEPS = (0.4, 0.2, 0.1, 0.05)
ENDS = (12.0, 24.0, 48.0)
#: Two steps that agree so well, relative to the integral of |f| or f², are fine enough.
AGREE = 4e-16
#: Spread of u − v, in steps, from which the grid resolves the Gaussian between x and y.
RESOLVED = 2.0


@dataclass(frozen=True)
class LocalisedSlope:
    """φ' on a grid outside of which it vanishes.

    Attributes:
        x: the grid, evenly spaced, shape (n,).
        f: φ' on it.
        step: of the grid.
        end: it covers [−end, end].
    """

    activation: Activation
    x: Array
    f: Array
    step: float
    end: float

    def dual(self, q: float, theta: Array) -> Array:
        """E[φ'(u) φ'(v)] at variances q and c = cos θ, 0 < θ < π, of θ's shape."""
        result = np.empty_like(theta)
        here = self.f * np.exp(-0.5 * self.x**2 / q)
        for i, angle in enumerate(theta.tolist()):
            c, spread = math.cos(angle), math.sqrt(q) * math.sin(angle)
            if spread < RESOLVED * self.step:
                y = c * self.x[:, None] + spread * FLAT_NODES
                given = self.activation.derivative(1)(y) @ FLAT_WEIGHTS[:, 0]
            else:
                apart = (self.x - c * self.x[:, None]) / spread
                given = np.exp(-0.5 * apart**2) @ self.f * (self.step / (spread * math.sqrt(2.0 * math.pi)))
            result[i] = float(here @ given)
        return result * (self.step / math.sqrt(2.0 * math.pi * q))


def localised_slope(activation: Activation, q: float) -> LocalisedSlope | None:
    """φ' on such a grid; None where φ has kinks, φ' does not vanish soon, or √q is not beyond its stretch."""
    found = _grid(activation)
    return found if found is not None and q >= found.end**2 else None


@lru_cache(maxsize=64)
def _grid(activation: Activation) -> LocalisedSlope | None:
    """A smooth activation's φ' on a grid, where it dies out on both sides; None where it does not."""
    if activation.kinks or activation.oscillation:
        return None
    slope, length = activation.derivative(1), activation.length_scale
    for end in (length * end for end in ENDS):
        with np.errstate(all="ignore"):
            outside = np.abs(slope(np.outer([-1.0, 1.0], np.geomspace(end, 1e12 * end, 2000))))
            largest = float(np.abs(slope(np.linspace(-end, end, 2001))).max())
        if 0.0 < largest < math.inf and bool(np.all(outside <= NEGLIGIBLE * largest)):
            break
    else:
        return None
    for step in (length * step for step in STEPS):
        count = math.ceil(end / step)
        x = np.arange(-count, count + 1, dtype=np.float64) * step
        f, between = slope(x), slope(x[:-1] + 0.5 * step)
        agree = (
            abs(float(np.sum(f**k) - np.sum(between**k))) <= AGREE * float(np.sum(np.abs(f) ** k))
            for k in (1, 2)
        )
        if all(agree):
            return LocalisedSlope(activation, x, np.asarray(f, np.float64), step, end)
    return None
