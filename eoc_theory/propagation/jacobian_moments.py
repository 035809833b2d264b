"""Singular values of the Jacobian of a chain of layers: mean square and variance, also at finite width.

With J_l = W^l D_{l-1} J_{l-1}, D the diagonal of φ'(y), and M_l = J_l J_lᵀ (N_l × N_l), N = fan_in of layer l
and weights that are independent of each other, of variance σ_w²/N and kurtosis κ, it holds for B = D M D that

    tr M_l / N_l  = σ_w² tr B / N,
    tr M_l² / N_l = σ_w⁴ [ (tr B / N)² + (N_l + 1)/N · tr B²/N + (κ − 3)/N · Σ_i B_ii²/N ],

exactly in the mean over W^l. Taking D as independent of J_{l-1}, as Pennington, Schoenholz & Ganguli 2017
("Resurrecting the sigmoid", section 2.3) do, tr B²/N follows from E[φ'²], E[φ'⁴] and from what M_{l-1} has on
its diagonal. For square normal layers and N → ∞ that is their σ²_JJᵀ. The last term is that of masks: where
few weights are left, κ is 3 over the fraction kept, and N must be large for the limit to hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..gaussian.expectations import evaluate
from ..layers import WeightLayer
from ..networks.architecture import Architecture
from .chain_kernels import Pass

Array = np.ndarray


@dataclass(frozen=True)
class JacobianMoments:
    """Of the squared singular values s² of the Jacobian from the input to the logits, and of single layers.

    Attributes:
        log_mean: log of the mean of s² over the logits.
        variance: of s², over the square of its mean.
        chi: mean s² of ∂y^l/∂y^{l-1} (of ∂y^1/∂x in the first layer), (L,).
        layer_variance: variance of s² of W^l over the square of its mean, (L,).
    """

    log_mean: float
    variance: float
    chi: Array
    layer_variance: Array


def jacobian_moments(net: Architecture, chain: Pass, kurtosis: Sequence[float]) -> JacobianMoments:
    """The moments of a chain, of which `chain` is a pass of the data, whose weights have these kurtoses (L,).

    The slopes are those of the mean variance of the inputs' pre-activations.
    """
    log_mean, second, diagonal = 0.0, 1.0, 1.0
    slope, spread = 1.0, 1.0
    chi, own = [], []
    for layer, step, excess in zip(net.layers, chain.forwards(), np.asarray(kurtosis) - 3.0, strict=True):
        # tr B²/N and ΣB_ii²/N over (tr B/N)².
        entries = spread * diagonal
        second, diagonal = _through(layer, entries + (second - diagonal), entries, excess)
        own.append(_through(layer, 1.0, 1.0, excess)[0] - 1.0)
        chi.append(layer.sigma_w**2 * slope)
        log_mean += math.log(chi[-1]) if chi[-1] > 0.0 else -math.inf
        if step.activation is not None:
            q = np.array([float(np.diagonal(step.kernel.values).mean())])
            moments = evaluate(step.activation, q, ("dphi2", "dphi4"))
            slope = float(moments["dphi2"][0][0])
            spread = float(moments["dphi4"][0][0]) / slope**2 if slope > 0.0 else 1.0
    return JacobianMoments(log_mean, second - 1.0, np.array(chi), np.array(own))


def _through(layer: WeightLayer, square: float, entries: float, excess: float) -> tuple[float, float]:
    """tr M²/N_l and ΣM_ii²/N_l over (tr M/N_l)², of M = W B Wᵀ, from those of B.

    tr M fluctuates from network to network where there are few rows; what that adds to the means of squares
    is no variance within a network, and is taken out.
    """
    rows, columns = layer.fan_out, layer.fan_in
    own = (2.0 * square + excess * entries) / columns
    apart = own * (1.0 - 1.0 / rows)
    return 1.0 + (rows - 1.0) / columns * square + apart, 1.0 + apart
