"""Kernels of a batch of which only two numbers are known: variance and correlation of its inputs.

For exchangeable inputs every kernel has two entries, one for the same input and one for two different inputs,
and sums over the batch need no B × B matrices: ``Σ_ab Γ_ab H_ab = B Γ_s H_s + B(B−1) Γ_d H_d``. The labels
enter through Γ_d alone, as a mean over pairs of one class and of two. See
`eoc_theory.propagation.infinite_width` for the notation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..base.result import Result
from ..base.tables import layer_frame
from ..errors import ArgumentError
from ..networks.architecture import Architecture
from .chain_kernels import Kernel, forward_steps, split
from .infinite_width import LOGIT_DRAWS, backward_step, chain_only, ends, loss_gradient

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray

_EPS = float(np.finfo(float).eps)


@public
@dataclass(frozen=True, repr=False, eq=False)
class SummaryPropagation(Result):
    """The kernels of an exchangeable batch, layer by layer, at infinite width; arrays of shape (L,).

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

    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""
        names = ("q", "c", "gradient_same", "gradient_different", "log_gradient", "log_moment")
        return layer_frame(self, names)

    def _headline(self) -> str:
        return f"{len(self.layers)} layers of {ends(self.q, 'q')}, {ends(self.c, 'c')}"


@public
def propagate_summary(
    net: Architecture,
    *,
    variance: float = 1.0,
    correlation: float = 0.0,
    batch: int = 100,
    seed: int = 0,
) -> SummaryPropagation:
    """Compute kernels and score moments of a batch of exchangeable inputs with balanced labels.

    Args:
        net: fully connected layers one after the other.
        variance: mean square x·x/features of an input, > 0.
        correlation: of two different inputs, in [−1/(B−1), 1].
        batch: number B of inputs, at least 2.
        seed: of the sampled logits.

    Raises:
        ArgumentError: an argument outside the above.
    """
    net = chain_only(net)
    variance = checks.positive("variance", variance)
    batch = checks.integer("batch", batch, minimum=2)
    seed = checks.integer("seed", seed, minimum=0)
    checks.memory(f"batch {batch}", 24.0 * LOGIT_DRAWS * batch * net.out_features, "a smaller one")
    correlation = checks.finite("correlation", correlation)
    if not -1.0 / (batch - 1) <= correlation <= 1.0:
        raise ArgumentError(
            f"correlation must lie in [-1/(batch-1), 1], got {correlation:g} for batch {batch}"
        )
    pair = variance * np.array([[1.0, correlation], [correlation, 1.0]])
    steps = list(forward_steps(net, Kernel(pair)))
    last = steps[-1].kernel
    same, different = _loss_gradient(last.values, last.exponent, batch, net.out_features, seed)
    current, total = np.array([[same, different], [different, same]]), 0.0
    gradients, log_gradient, log_moment = np.empty((net.depth, 2)), np.empty(net.depth), np.empty(net.depth)
    for index in range(net.depth - 1, -1, -1):
        step, layer = steps[index], net.layers[index]
        current, more = backward_step(net, index, current, step.slopes)
        total += more
        own, other = current[0] * step.inputs.values[0]
        moment = max(
            batch * (own + (batch - 1) * other), _EPS * batch * (abs(own) + (batch - 1) * abs(other))
        )
        sigma_w, power = split(layer.sigma_w)
        gradients[index], log_gradient[index] = current[0], total
        log_moment[index] = np.log(moment * (sigma_w**2 / layer.fan_in)) + total
        log_moment[index] += 2 * (power + step.inputs.exponent) * np.log(2.0)
    return SummaryPropagation(
        layers=net.weight_layers,
        q=np.array([np.ldexp(step.kernel.values[0, 0], 2 * step.kernel.exponent) for step in steps]),
        c=np.array([step.kernel.values[0, 1] / step.kernel.values[0, 0] for step in steps]),
        gradient_same=gradients[:, 0],
        gradient_different=gradients[:, 1],
        log_gradient=log_gradient,
        log_moment=log_moment,
    )


def _loss_gradient(kernel: Array, exponent: int, batch: int, classes: int, seed: int) -> tuple[float, float]:
    """Γ^L_s and the mean of Γ^L_d over all pairs, from samples of exchangeable logits · 2^exponent."""
    rng = np.random.default_rng([seed, 0x73756D])
    own, shared = kernel[0, 0], kernel[0, 1]
    common = np.sqrt(max(shared, 0.0)) * rng.standard_normal((LOGIT_DRAWS, 1, classes))
    # With a negative correlation the batch's sum fluctuates less than that of independent inputs.
    single = rng.standard_normal((LOGIT_DRAWS, batch, classes)) * np.sqrt(max(own - shared, 0.0))
    if shared < 0:
        mean = single.mean(axis=1, keepdims=True)
        single += mean * (np.sqrt(max(own + (batch - 1) * shared, 0.0) / (own - shared)) - 1.0)
    logits = common + single
    if exponent:
        logits = np.ldexp(logits, int(np.clip(exponent, -1000, 900)))
    delta = loss_gradient(logits, np.arange(batch) % classes)
    same = float(np.mean(delta**2))
    whole = float(np.mean(delta.sum(axis=1) ** 2))
    return same, (whole - batch * same) / (batch * (batch - 1))
