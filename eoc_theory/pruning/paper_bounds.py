"""The two bounds of Hayou, Ton, Doucet & Teh, *Robust Pruning at Initialization* (ICLR 2021), on E[s_cr].

s_cr is the smallest sparsity at which some layer has lost all its weights. Both bounds are leading terms: the
theorems add a remainder whose constant they do not give. Its order is returned beside the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erf, log_ndtr

from ..base import checks
from ..base.boundary import public
from ..base.result import Result
from ..base.tables import frame
from ..base.typing import DataFrame
from ..errors import ArgumentError
from ..networks.architecture import Architecture

Array = np.ndarray

#: The widest layer whose number of weights, its square, is a float like any other.
WIDEST = 1e100


@public
@dataclass(frozen=True, repr=False, eq=False)
class SnipBound(Result):
    """Bound on E[s_cr] of SNIP off the edge of chaos; floats, or arrays where the arguments were.

    Attributes:
        value: (1/L)(1 + log(κLN²)/κ); infinite where the theorem is void.
        remainder: 1/(κ² √(LN²)), the order of what the theorem adds.
        kappa: κ = |log χ|/8.
        binding: whether `value` says anything, i.e. is below 1.
    """

    value: float | Array
    remainder: float | Array
    kappa: float | Array

    @property
    def binding(self) -> bool | Array:
        below = np.asarray(self.value) < 1.0
        return below if below.ndim else bool(below)

    def to_frame(self) -> DataFrame:
        """One row a bound."""
        names = ("value", "remainder", "kappa", "binding")
        columns = np.broadcast_arrays(*(np.asarray(getattr(self, name)) for name in names))
        return frame({name: column.ravel() for name, column in zip(names, columns, strict=True)})

    def _told(self) -> dict[str, Any]:
        return {"binding": self.binding}

    def _headline(self) -> str:
        values = np.ravel(self.value)
        if values.size == 1:
            return f"E[s_cr] <= {values[0]:.6g}{'' if np.all(self.binding) else ', which says nothing'}"
        return f"{values.size} bounds on E[s_cr], {values.min():.6g} to {values.max():.6g}"


@public
@dataclass(frozen=True, repr=False, eq=False)
class MagnitudeBound(Result):
    """Bound on E[s_cr] of magnitude pruning of a network with one layer of smallest weights.

    Attributes:
        value: inf_ε { x + ζ N²/(1 + γ^{2−ε}) (1 − x)^{1 + γ^{2−ε}} } with x = x_{ε,γ}; infinite where the
            theorem is void (no single layer has the smallest weights: γ = 1).
        whole: w + (1 − w) · value, w = ζ_l0/Σζ: the same with layer l0's own weights counted; see
            `magnitude_bound`.
        remainder: 1/√(LN²), the order of what the theorem adds.
        epsilon, x: where the infimum is taken (NaN where void).
        gamma: γ = min_{l≠l0} α_l0/α_l.
        layer: the index l0.
        binding: whether `value` says anything, i.e. is below 1.
    """

    value: float
    whole: float
    remainder: float
    epsilon: float
    x: float
    gamma: float
    layer: int

    @property
    def binding(self) -> bool:
        return self.value < 1.0

    def to_frame(self) -> DataFrame:
        """One row with all that is known of the bound."""
        names = ("value", "whole", "remainder", "epsilon", "x", "gamma", "layer", "binding")
        return frame({name: [getattr(self, name)] for name in names})

    def _told(self) -> dict[str, Any]:
        return {"binding": self.binding}

    def _headline(self) -> str:
        return f"E[s_cr] <= {self.value:.6g}{'' if self.binding else ', which says nothing'}"


@public
def snip_bound(
    depth: int | Array,
    width: float | Array,
    chi: float | Array | None = None,
    *,
    kappa: float | Array | None = None,
) -> SnipBound:
    """E[s_cr] ≤ (1/L)(1 + log(κLN²)/κ) + O(1/(κ² √(LN²))), κ = |log χ|/8: the paper's theorem for SBP.

    For fully connected and convolutional networks off the edge of chaos, whose score moments m^l fall or
    grow like χ^{L−l}. On the edge of chaos κ = 0 and there is no bound. The formula falls with κ only from
    κLN² = e on; below, where its logarithm is not large and the remainder exceeds it by far, the theorem says
    nothing and the value is infinite.

    Args:
        depth: number L of layers. width: N, a layer having N² weights. chi: χ > 0. All of them broadcast.
        kappa: κ ≥ 0 itself, instead of `chi`.

    Raises:
        ArgumentError: values outside, or not exactly one of `chi` and `kappa`.
    """
    if (chi is None) == (kappa is None):
        raise ArgumentError(
            f"exactly one of chi and kappa must be given, got chi={checks.shown(chi)}, "
            f"kappa={checks.shown(kappa)}"
        )
    L = _array("depth", depth, 1.0)
    N = _array("width", width, 1.0)
    if chi is not None:
        k = np.abs(np.log(_array("chi", chi, 0.0, strict=True))) / 8.0
    else:
        k = _array("kappa", kappa, 0.0)
    try:
        np.broadcast_shapes(L.shape, N.shape, k.shape)
    except ValueError:
        raise ArgumentError(
            f"depth, width and {'kappa' if chi is None else 'chi'} must have shapes that broadcast, "
            f"got {L.shape}, {N.shape} and {k.shape}"
        ) from None
    if N.max() > WIDEST:
        raise ArgumentError(f"width must be at most {WIDEST:g}, got {N.max():g}")
    weights = L * N**2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = (1.0 + np.log(k * weights) / k) / L
        value = np.where(k * weights >= np.e, value, np.inf)
        remainder = 1.0 / (k**2 * np.sqrt(weights))
    return SnipBound(_plain(value), _plain(remainder), _plain(k))


@public
def magnitude_bound(alphas: Array, zetas: Array, width: float) -> MagnitudeBound:
    """The paper's theorem for magnitude pruning (MBP), for Gaussian weights.

    Layer l has n_l = ζ_l N² weights with standard deviation ∝ 1/α_l; l0 is the one with the largest α. With
    γ = min_{l≠l0} α_l0/α_l > 1, Q_x the x-quantile of |Z| and, for ε in (0, 2),
    x_{ε,γ} = inf{y: for all x > y, γ Q_x > Q_{1−(1−x)^{γ^{2−ε}}}},

        E[s_cr] ≤ inf_ε { x_{ε,γ} + ζ_l0 N²/(1 + γ^{2−ε}) (1 − x_{ε,γ})^{1 + γ^{2−ε}} } + O(1/√(LN²)).

    How it is computed. With u(t) = −log P(|Z| > t) and t = Q_x the condition reads u(γt) > γ^{2−ε} u(t). The
    exponent log(u(γt)/u(t))/log γ rises from 1 at t = 0 to 2, so x_{ε,γ} = P(|Z| ≤ t) at the t where it is
    2 − ε (and 0 for ε ≥ 1), and the infimum is over t ≥ 0 of
    P(|Z| ≤ t) + ζN²/(1 + r) P(|Z| > t) P(|Z| > γt), r = u(γt)/u(t).

    What it leaves out. The theorem's value bounds the fraction of the *other* layers that is removed: with T
    the largest |W| of layer l0, E[P(|W_l| ≤ T)] ≤ x + ∫_x^1 n_l0 P(|Z| > γ Q_y) dy, and beyond x the
    condition bounds the integrand by n_l0 (1 − y)^{γ^{2−ε}}. When layer l0 collapses its own n_l0 weights are
    removed as well, so E[s_cr] ≤ w + (1 − w) · value with w = n_l0/n, for every N, without remainder. In
    networks of few layers with a large γ the difference is far above O(1/√(LN²)): three layers of 60 × 60, γ
    = 4: E[s_cr] = 0.77, the theorem's value is 0.675 with a remainder of order 0.01, `whole` is 0.783.

    Args:
        alphas: α_l > 0, (L,), L ≥ 2. zetas: ζ_l > 0, (L,). width: N ≥ 1.

    Raises:
        ArgumentError: values outside, or shapes that differ.
    """
    alpha = _array("alphas", alphas, 0.0, strict=True)
    zeta = _array("zetas", zetas, 0.0, strict=True)
    width = checks.positive("width", width)
    if not 1 <= width <= WIDEST:
        raise ArgumentError(f"width must lie between 1 and {WIDEST:g}, got {width:g}")
    if alpha.ndim != 1 or len(alpha) < 2 or alpha.shape != zeta.shape:
        raise ArgumentError(
            f"alphas and zetas must be of one shape (L,), L >= 2, got {alpha.shape} and {zeta.shape}"
        )
    layer = int(alpha.argmax())
    gamma = float(alpha[layer] / np.delete(alpha, layer).max())
    remainder = float(1.0 / np.sqrt(len(alpha) * width**2))
    # Equal up to rounding is equal: α comes from square roots.
    if gamma <= 1.0 + 1e-12:
        return MagnitudeBound(np.inf, np.inf, remainder, np.nan, np.nan, gamma, layer)
    size = float(zeta[layer] * width**2)

    def bracket(log_t: float | Array) -> Array:
        t = np.exp(log_t)
        ratio = _log_tail(gamma * t) / _log_tail(t)
        return erf(t / np.sqrt(2)) + size / (1 + ratio) * np.exp(-_log_tail(t) - _log_tail(gamma * t))

    grid = np.linspace(np.log(1e-12), np.log(40.0), 2000)
    best = int(np.argmin(bracket(grid)))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found: Any = minimize_scalar(bracket, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    log_t = found.x if found.fun <= bracket(grid[best]) else grid[best]
    t = float(np.exp(log_t))
    exponent = float(np.log(_log_tail(gamma * t) / _log_tail(t)) / np.log(gamma))
    value = float(bracket(log_t))
    share = size / float(zeta.sum() * width**2)
    return MagnitudeBound(
        value=value,
        whole=share + (1 - share) * value,
        remainder=remainder,
        epsilon=2 - exponent,
        x=float(erf(t / np.sqrt(2))),
        gamma=gamma,
        layer=layer,
    )


def bound_for(net: Architecture, criterion: str, chi: float | None = None) -> SnipBound | MagnitudeBound:
    """The paper's bound for a network; N² is its mean number of weights a layer.

    Args:
        net: the network. criterion: "snip" or "magnitude".
        chi: χ of its initialisation, for snip.

    Raises:
        ArgumentError: another criterion, χ missing, or weights that are not normal (magnitude).
    """
    checks.one_of("criterion", criterion, ("snip", "magnitude"))
    if criterion == "snip":
        if chi is None:
            raise ArgumentError("chi must be a number > 0 for criterion 'snip', got None")
        return snip_bound(net.depth, np.sqrt(net.n_weights / net.depth), chi)
    if any(layer.law != "normal" for layer in net.layers):
        raise ArgumentError("law must be 'normal' in every layer for the magnitude bound, got 'uniform'")
    if net.depth == 1:
        raise ArgumentError("depth must be at least 2 for the magnitude bound, got 1")
    width = np.sqrt(net.n_weights / net.depth)
    return magnitude_bound(
        1.0 / np.array([layer.weight_std for layer in net.layers]), net.weights / width**2, width
    )


def _log_tail(t: Array | float) -> Array:
    """u(t) = −log P(|Z| > t), accurate for small t (where it is ~ t √(2/π)) and for large."""
    t = np.asarray(t, dtype=float)
    small = -np.log1p(-erf(np.minimum(t, 1.0) / np.sqrt(2)))
    return np.where(t < 1.0, small, -(np.log(2.0) + log_ndtr(-t)))


def _array(name: str, value: object, minimum: float, *, strict: bool = False) -> Array:
    array = checks.numbers_of(name, value)
    wrong = ~np.isfinite(array) | ((array <= minimum) if strict else (array < minimum))
    if array.size == 0 or wrong.any():
        shown = "nothing" if array.size == 0 else f"{array[wrong].flat[0]:g}"
        raise ArgumentError(f"{name} must be {'>' if strict else '>='} {minimum:g} and finite, got {shown}")
    return array


def _plain(array: Array) -> float | Array:
    return array if array.ndim else float(array)
