"""Kernels of a batch known by two numbers only: variance and correlation of its inputs.

For exchangeable inputs every kernel has two entries, one for the same input and one for two different inputs,
and sums over the batch need no B × B matrices: ``Σ_ab Γ_ab H_ab = B Γ_s H_s + B(B−1) Γ_d H_d``. The labels
enter through Γ_d alone, as a mean over pairs of one class and of two. See `eoc_theory.propagation` for the
notation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import checks
from .architecture import Architecture
from .boundary import public
from .errors import ArgumentError
from .propagation import LOGIT_DRAWS, backward_kernels, chain_only, forward_kernels, loss_gradient

Array = np.ndarray


@public
@dataclass(frozen=True)
class SummaryPropagation:
    """What an exchangeable batch becomes, layer by layer, at infinite width; arrays of shape (L,).

    Attributes:
        layers: names, first to last.
        q: variance of the pre-activations.
        c: correlation of two different inputs' pre-activations.
        gradient_same: Γ_s, up to exp(log_gradient).
        gradient_different: Γ_d, up to the same.
        log_gradient: the scale taken out.
        log_moment: log m^l of the scores.
    """

    layers: tuple[str, ...]
    q: Array
    c: Array
    gradient_same: Array
    gradient_different: Array
    log_gradient: Array
    log_moment: Array


@public
def propagate_summary(
    net: Architecture,
    *,
    variance: float = 1.0,
    correlation: float = 0.0,
    batch: int = 100,
    seed: int = 0,
) -> SummaryPropagation:
    """Kernels, gradient kernels and score moments of a batch of exchangeable inputs with balanced labels.

    Args:
        net: fully connected layers one after the other.
        variance: mean square x·x/features of an input, > 0.
        correlation: of two different inputs, in [−1/(B−1), 1].
        batch: number B of inputs, at least 2.
        seed: of the draws of the logits.

    Raises:
        ArgumentError: an argument outside the above.
    """
    net = chain_only(net)
    variance = checks.positive("variance", variance)
    batch = checks.integer("batch", batch, minimum=2)
    seed = checks.integer("seed", seed, minimum=0)
    correlation = checks.finite("correlation", correlation)
    if not -1.0 / (batch - 1) <= correlation <= 1.0:
        raise ArgumentError(
            f"correlation must lie in [-1/(batch-1), 1], got {correlation:g} for batch {batch}"
        )
    pair = variance * np.array([[1.0, correlation], [correlation, 1.0]])
    kernels, inputs, slopes = forward_kernels(net, pair)
    same, different = _loss_gradient(kernels[-1], batch, net.out_features, seed)
    loss = np.array([[same, different], [different, same]])
    gradients, log_gradient = backward_kernels(net, slopes, loss)
    products = gradients * inputs
    moment = batch * (products[:, 0, 0] + (batch - 1) * products[:, 0, 1])
    variance_of_weights = np.array([layer.sigma_w**2 / layer.fan_in for layer in net.layers])
    return SummaryPropagation(
        layers=net.weight_layers,
        q=kernels[:, 0, 0],
        c=kernels[:, 0, 1] / kernels[:, 0, 0],
        gradient_same=gradients[:, 0, 0],
        gradient_different=gradients[:, 0, 1],
        log_gradient=log_gradient,
        log_moment=np.log(np.maximum(moment, np.finfo(float).tiny) * variance_of_weights) + log_gradient,
    )


def _loss_gradient(kernel: Array, batch: int, classes: int, seed: int) -> tuple[float, float]:
    """Γ^L_s and the mean of Γ^L_d over all pairs, from draws of exchangeable logits."""
    rng = np.random.default_rng([seed, 0x73756D])
    own, shared = kernel[0, 0], kernel[0, 1]
    common = np.sqrt(max(shared, 0.0)) * rng.standard_normal((LOGIT_DRAWS, 1, classes))
    # With a negative correlation the batch's sum fluctuates less than that of independent inputs.
    single = rng.standard_normal((LOGIT_DRAWS, batch, classes)) * np.sqrt(max(own - shared, 0.0))
    if shared < 0:
        mean = single.mean(axis=1, keepdims=True)
        single += mean * (np.sqrt(max(own + (batch - 1) * shared, 0.0) / (own - shared)) - 1.0)
    delta = loss_gradient(common + single, np.arange(batch) % classes)
    same = float(np.mean(delta**2))
    whole = float(np.mean(delta.sum(axis=1) ** 2))
    return same, (whole - batch * same) / (batch * (batch - 1))
