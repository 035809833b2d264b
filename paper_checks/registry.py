"""The claims that are checked, in the order in which they are shown. A new one is added here."""

from __future__ import annotations

from . import (
    convergence_rates,
    critical_depth,
    dropout,
    eoc_constants,
    gradient_independence,
    hessian_moments,
    image_tables,
    magnitude_bound,
    relu_point,
    rescaling,
    rescaling_after_snip,
    rescaling_training,
    residual_networks,
    sbp_bound,
    score_moments,
    score_moments_cnn,
    surviving_connections,
    weight_laws,
)
from .claim import Claim

CLAIMS: tuple[Claim, ...] = (
    eoc_constants.CLAIM,
    relu_point.CLAIM,
    convergence_rates.CLAIM,
    score_moments.CLAIM,
    score_moments_cnn.CLAIM,
    hessian_moments.CLAIM,
    gradient_independence.CLAIM,
    sbp_bound.CLAIM,
    critical_depth.CLAIM,
    magnitude_bound.CLAIM,
    rescaling.CLAIM,
    rescaling_after_snip.CLAIM,
    rescaling_training.CLAIM,
    residual_networks.CLAIM,
    image_tables.CLAIM,
    surviving_connections.CLAIM,
    weight_laws.CLAIM,
    dropout.CLAIM,
)
