"""Phase diagrams over σ_w and σ_b: fixed points, phases and depth scales (Schoenholz et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..activations import Activation
from ..activations import activation as resolve
from ..base import checks
from ..base.boundary import public
from ..base.result import Drawable
from ..base.tables import Table, frame
from ..errors import ArgumentError, TooLargeError
from .maps import correlations, noisy_correlations, phases, scale, slopes
from .variance import limits

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Rows and columns of a phase diagram that are shown as text.
SHOWN_GRID = 8
#: Points of a phase diagram: some 250 bytes and 5 µs each.
MOST_POINTS = 10_000_000


@public
@dataclass(frozen=True, repr=False, eq=False)
class PhaseDiagram(Drawable):
    """Mean-field quantities on a grid; every array but the axes has shape (len(sigma_b), len(sigma_w)).

    Attributes:
        activation: the activation function.
        sigma_w, sigma_b: the axes.
        q_star: variance reached from q = 1; 0 where it dies out, inf where it grows without bound.
        chi: σ_w² E[φ'²]/(1−p) at q*; at 0 and inf its limit.
        variance_slope: V'(q*).
        c_star: correlation reached from below 1: 1 where χ ≤ 1, the fixed point c* < 1 in the chaotic phase
            and everywhere under dropout (with a separate mask for each signal).
        xi_q: depth scale of the variance in layers, 1/|log V'(q*)| (inf where V' = 1; where q* = inf, of
            growth).
        xi_c: depth scale of correlations in layers, 1/|log χ| in the ordered, −1/log C'(c*) in the chaotic
            phase and under dropout, inf where critical.
        phase: "ordered", "critical" (|χ − 1| ≤ 1e-5) or "chaotic". Under dropout correlations have no phases,
            and gradients are "vanishing", "stationary" or "exploding".
        dropout: probability p of dropping an activation.
    """

    activation: Activation
    sigma_w: Array
    sigma_b: Array
    q_star: Array
    chi: Array
    variance_slope: Array
    c_star: Array
    xi_q: Array
    xi_c: Array
    phase: NDArray[np.str_]
    dropout: float = 0.0

    def to_frame(self) -> pd.DataFrame:
        """One row a point, σ_b by σ_b."""
        names = ("q_star", "chi", "variance_slope", "c_star", "xi_q", "xi_c", "phase")
        axes = {
            "sigma_w": np.tile(self.sigma_w, len(self.sigma_b)),
            "sigma_b": np.repeat(self.sigma_b, len(self.sigma_w)),
        }
        return frame({**axes, **{name: np.ravel(getattr(self, name)) for name in names}})

    def _headline(self) -> str:
        noise = f" under dropout {self.dropout:g}" if self.dropout else ""
        shares = ", ".join(f"{np.mean(self.phase == name):.0%} {name}" for name in np.unique(self.phase))
        return (
            f"{self.activation.name}, phase diagram{noise}: {len(self.sigma_w)} x {len(self.sigma_b)} "
            f"points, {shares}"
        )

    def _table(self) -> Table:
        """The phase and the depth scale ξ_c on a coarse grid."""
        rows, columns = (_few(len(axis)) for axis in (self.sigma_b, self.sigma_w))
        cells = tuple(
            (f"{self.sigma_b[i]:.3g}", *(f"{self.phase[i, j]} {self.xi_c[i, j]:.3g}" for j in columns))
            for i in rows
        )
        heads = ("sigma_b \\ sigma_w", *(f"{self.sigma_w[j]:.3g}" for j in columns))
        return Table(heads, cells, note="phase, and the depth scale xi_c of correlations in layers")


@public
def phase_diagram(
    activation: Any, *, sigma_w: ArrayLike, sigma_b: ArrayLike, dropout: float = 0.0
) -> PhaseDiagram:
    """Compute the phase diagram of an activation over σ_w and σ_b.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        sigma_w: standard deviations of the weights times √fan_in, > 0, 1-D.
        sigma_b: standard deviations of the biases, ≥ 0, 1-D.
        dropout: probability p of dropping an activation, in [0, 1); see :class:`eoc_theory.MeanField`.

    Raises:
        ArgumentError: an axis is not 1-D, empty, not finite or out of range, or the probability is.
    """
    act = resolve(activation)
    weights = _axis("sigma_w", sigma_w, positive=True)
    biases = _axis("sigma_b", sigma_b, positive=False)
    dropout = checks.fraction("dropout", dropout)
    points = weights.size * biases.size
    if points > MOST_POINTS:
        raise TooLargeError(
            f"sigma_w and sigma_b must make at most {MOST_POINTS} points, got {weights.size} × {biases.size}"
        )
    # What variances and gradients see of the weights' scale.
    seen = weights / np.sqrt(1.0 - dropout)
    q = limits(act, seen, biases).T
    weight = np.broadcast_to(seen**2, q.shape)
    chi, variance_slope = slopes(act, q, weight)
    if dropout:
        own = np.broadcast_to(weights**2, q.shape)
        c_star, slope = (
            values.reshape(q.shape)
            for values in noisy_correlations(act, q.reshape(-1), own.reshape(-1), dropout)
        )
    else:
        c_star, slope = correlations(act, q, weight, chi)
    xi_q, xi_c = scale(variance_slope), scale(slope)
    return PhaseDiagram(
        act, weights, biases, q, chi, variance_slope, c_star, xi_q, xi_c, phases(chi, dropout), dropout
    )


def _few(count: int) -> list[int]:
    """Up to SHOWN_GRID indices from first to last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, SHOWN_GRID))})


def _axis(name: str, values: ArrayLike, *, positive: bool) -> Array:
    accepted = "a 1-D array of numbers > 0" if positive else "a 1-D array of numbers >= 0"
    array = checks.numbers_of(name, values, accepted)
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"{name} must be {accepted}, got shape {array.shape}")
    wrong = array[~(np.isfinite(array) & (array > 0.0 if positive else array >= 0.0))]
    if len(wrong):
        raise ArgumentError(f"{name} must be {accepted}, got {wrong[0]:g}")
    return array
