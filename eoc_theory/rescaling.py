"""Bringing a pruned network back to its scale: the rescaling trick (Hayou et al. 2021, section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from .activations import activation
from .errors import ModelError
from .torch_models import activations_between, require_torch
from .torch_weights import fan_in

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rescaling:
    """What :func:`rescale_` did, for the L weight layers.

    Attributes:
        layers: names of the weight layers.
        factors: ρ^l, by which the kept weights were multiplied, (L,).
        sigma_w_before, sigma_w_after: effective σ_w = √(fan_in · mean(W² mask)), (L,).
        chi_before, chi_after: χ^l = (σ_w^l)² E[φ'(√q^{l−1} Z)²] with q propagated from `q_input` through the
            effective scales; NaN for the first layer, which no activation precedes, (L,).
    """

    layers: tuple[str, ...]
    factors: np.ndarray
    sigma_w_before: np.ndarray
    sigma_w_after: np.ndarray
    chi_before: np.ndarray
    chi_after: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer."""
        import pandas as pd

        columns = ("factors", "sigma_w_before", "sigma_w_after", "chi_before", "chi_after")
        return pd.DataFrame({"layer": self.layers, **{name: getattr(self, name) for name in columns}})


def rescale_(model: Any, *, sigma_w: float | None = None, q_input: float = 1.0) -> Rescaling:
    """Multiply the kept weights of each layer in place so that its effective σ_w is what it was before
    pruning.

    ρ^l = σ_w / √(fan_in · mean_ij(W²_ij mask_ij)), biases untouched. A network that was on the edge of chaos
    before pruning is on it again. Removed weights become 0 under their mask, so that a second call changes
    nothing.

    Args:
        model: a chain of Linear layers with masks from :func:`prune_` or ``torch.nn.utils.prune``.
        sigma_w: the scale to restore, for all layers; None: each layer's own √(fan_in · mean W²) before the
            mask.
        q_input: mean squared input, for the χ that are reported.

    Raises:
        ModelError: no mask and no `sigma_w`, a layer without a kept weight, or not a chain of Linear layers.
        The model is then left as it was.
    """
    torch = require_torch()
    if sigma_w is not None:
        sigma_w = checks.positive("sigma_w", sigma_w)
    q_input = checks.positive("q_input", q_input)
    modules = activations_between(model)
    masked = [hasattr(module, "weight_orig") for _, module, _ in modules]
    if sigma_w is None and not any(masked):
        raise ModelError("model has no pruned layer; prune it first (prune_), or give sigma_w")
    acts = [None if follower is None else activation(follower) for _, _, follower in modules[:-1]]
    before, after, biases = [], [], []
    for name, module, _ in modules:
        if not isinstance(module, torch.nn.Linear):
            raise ModelError(f"layer {name!r} must be Linear, got {type(module).__name__}")
        full, kept = _mean_squares(module)
        if kept == 0:
            raise ModelError(f"layer {name!r} has no weight left: no rescaling brings back an emptied layer")
        n = fan_in(module.weight)
        before.append(math.sqrt(n * kept))
        after.append(math.sqrt(n * full) if sigma_w is None else sigma_w)
        biases.append(0.0 if module.bias is None else float(module.bias.detach().double().square().mean()))
    factors = np.array(after) / np.array(before)
    with torch.no_grad():
        for (_, module, _), factor in zip(modules, factors, strict=True):
            if hasattr(module, "weight_orig"):
                module.weight_orig.mul_(module.weight_mask).mul_(float(factor))
                # The product that the next forward pass would make anyway, for who reads `weight` before it.
                module.weight = module.weight_orig * module.weight_mask
            else:
                module.weight.mul_(float(factor))
    return Rescaling(
        layers=tuple(name or "weight" for name, _, _ in modules),
        factors=factors,
        sigma_w_before=np.array(before),
        sigma_w_after=np.array(after),
        chi_before=_chi(before, biases, acts, q_input),
        chi_after=_chi(after, biases, acts, q_input),
    )


def _mean_squares(module: Any) -> tuple[float, float]:
    """Mean W² of a layer without and with its mask."""
    if not hasattr(module, "weight_orig"):
        value = float(module.weight.detach().double().square().mean())
        return value, value
    square = module.weight_orig.detach().double().square()
    return float(square.mean()), float((square * module.weight_mask).mean())


def _chi(sigma_w: list[float], bias_variances: list[float], acts: list[Any], q: float) -> np.ndarray:
    """χ^l of each layer under its own σ_w, and the mean squared bias; q^0 is the mean squared input."""
    from .gaussian import moments

    chi = np.full(len(sigma_w), np.nan)
    signal = q
    for layer, (scale, bias) in enumerate(zip(sigma_w, bias_variances, strict=True)):
        if layer > 0 and acts[layer - 1] is not None:
            expected = moments(acts[layer - 1], q)
            signal = float(expected.phi2.value)
            chi[layer] = scale**2 * float(expected.dphi2.value)
        elif layer > 0:
            signal, chi[layer] = q, scale**2
        q = bias + scale**2 * signal
    return chi
