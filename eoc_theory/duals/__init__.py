"""Gaussian expectations of products, E[f(u) g(v)]: one pair to 1e-12, or a batch's whole covariance fast."""

from .covariance import CovarianceMaps, covariance_maps

__all__ = ["CovarianceMaps", "covariance_maps"]
