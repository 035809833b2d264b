"""The claims that are checked, in the order in which they are shown. A new one is added here."""

from __future__ import annotations

from . import (
    convergence_rates,
    eoc_constants,
    gradient_independence,
    relu_point,
    sbp_bound,
    score_moments,
    surviving_connections,
)
from .claim import Claim

CLAIMS: tuple[Claim, ...] = (
    eoc_constants.CLAIM,
    relu_point.CLAIM,
    convergence_rates.CLAIM,
    score_moments.CLAIM,
    gradient_independence.CLAIM,
    sbp_bound.CLAIM,
    surviving_connections.CLAIM,
)
