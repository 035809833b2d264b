"""Gaussian expectations of products, E[f(u) g(v)]: one pair to 1e-12, or a batch's whole covariance fast."""

from .covariance import (
    CovarianceMaps,
    KernelPropagation,
    covariance_maps,
    propagate_kernel,
)
from .deficit import dual_deficit
from .single import dual
from .table import DualTable

__all__ = [
    "CovarianceMaps",
    "DualTable",
    "KernelPropagation",
    "covariance_maps",
    "dual",
    "dual_deficit",
    "propagate_kernel",
]
