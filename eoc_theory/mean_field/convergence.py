"""How correlations approach 1 with depth on the edge of chaos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation
from ..base.boundary import public
from ..gaussian.expectations import evaluate

Array = NDArray[np.float64]


@public
@dataclass(frozen=True)
class Convergence:
    """How correlations approach 1 with depth l on the edge of chaos: 1 − c^l ~ constant / l^exponent.

    Attributes:
        kind: "smooth" (φ' has no jumps: exponent 1, constant 2E[φ'²]/(q E[φ''²])), "kinked" (φ' jumps by Δ_k
            at x_k: exponent 2, constant 4/κ², κ = (√2/3π) σ_w² Σ Δ_k² exp(−x_k²/2q); ReLU: 9π²/2), or
            "linear" (φ is linear and correlations stay: exponent 0, constant nan), or "exponential" (under
            dropout correlations approach c* < 1 by a factor a layer; see `CriticalPoint.c_star` and
            `.depth_scale`: exponent 0, constant nan).
        exponent: 0, 1 or 2.
        constant: the law's constant; inf where the limit q → 0 makes φ linear.

    Source: Hayou, Doucet & Rousseau 2019, propositions 3 and 4; the kinked law for kinks off 0 from the
    expansion 1 − C(1−ε) = ε − κ ε^{3/2} + O(ε²).
    """

    kind: Literal["smooth", "kinked", "linear", "exponential"]
    exponent: int
    constant: float

    def __call__(self, depth: ArrayLike) -> Array:
        """The law's 1 − c at the given depths."""
        return np.asarray(self.constant / np.asarray(depth, dtype=np.float64) ** self.exponent)[()]


def convergence_law(act: Activation, q: float, sigma_w: float) -> Convergence:
    """The rate law of 1 − c at a critical point with variance q and that σ_w."""
    jumps = act.jumps(1)
    if np.any(jumps):
        kinks = np.array(act.kinks)
        with np.errstate(divide="ignore", invalid="ignore"):
            # At q = 0 only a kink at 0 is seen.
            weight = np.where(kinks == 0.0, 1.0, np.exp(-0.5 * kinks**2 / q) if q > 0.0 else 0.0)
        kappa = math.sqrt(2.0) / (3.0 * math.pi) * sigma_w**2 * float(np.sum(jumps**2 * weight))
        if kappa > 0.0:
            return Convergence("kinked", 2, 4.0 / kappa**2)
        # The kinks are so far out that floats do not see them.
        return Convergence("smooth", 1, math.inf)
    found = evaluate(act, np.array([q]), ("dphi2", "ddphi2"))
    curvature = float(found["ddphi2"][0][0])
    if act.is_homogeneous or (curvature == 0.0 and q > 0.0):
        return Convergence("linear", 0, math.nan)
    scale = q * curvature
    return Convergence("smooth", 1, 2.0 * float(found["dphi2"][0][0]) / scale if scale > 0.0 else math.inf)
