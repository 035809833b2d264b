"""σ_w of the edge of chaos as a gain for the initialisers of torch, JAX, Flax and Keras."""

from __future__ import annotations

import math
from typing import Any

from ..base import checks
from ..base.boundary import public
from ..errors import ArgumentError
from .edge_of_chaos import CriticalPoint, edge_of_chaos


@public
class Gain(float):
    """σ_w on the edge of chaos, a float: the gain by which weights of variance 1/fan_in are multiplied.

    It takes the place of ``torch.nn.init.calculate_gain``: ``torch.nn.init.orthogonal_(weight, gain=gain)``,
    ``xavier_normal_(weight, gain=gain)`` for layers as wide as their input, ``normal_(weight,
    std=gain.std(fan_in))``. Biases are sampled with standard deviation `sigma_b`.

    Attributes:
        point: the critical point, with its variance q and error.
    """

    point: CriticalPoint

    def __new__(cls, point: CriticalPoint) -> Gain:
        if not isinstance(point, CriticalPoint):
            raise ArgumentError(f"point must be a CriticalPoint, got {checks.shown(point)}")
        return super().__new__(cls, point.sigma_w)

    def __init__(self, point: CriticalPoint) -> None:
        self.point = point

    def __getnewargs__(self) -> tuple[CriticalPoint]:
        return (self.point,)

    def __repr__(self) -> str:
        return f"Gain({float(self)!r}, activation={self.point.activation.name!r}, sigma_b={self.sigma_b!r})"

    __str__ = float.__repr__

    @property
    def sigma_w(self) -> float:
        """The gain as a plain float."""
        return float(self)

    @property
    def sigma_b(self) -> float:
        """Standard deviation of the biases that belongs to it."""
        return self.point.sigma_b

    @property
    def variance_scaling(self) -> dict[str, Any]:
        """Keywords of ``jax.nn.initializers.variance_scaling`` and ``keras.initializers.VarianceScaling``.

        ``scale`` σ_w², ``mode`` "fan_in" and ``distribution`` "truncated_normal": the weights then have
        variance σ_w²/fan_in in all of these libraries, which make up for the truncation.
        """
        return {"scale": float(self) ** 2, "mode": "fan_in", "distribution": "truncated_normal"}

    def std(self, fan_in: int) -> float:
        """Standard deviation σ_w/√fan_in of the weights of a layer.

        Raises:
            ArgumentError: `fan_in` is not a whole number ≥ 1.
        """
        return float(self) / math.sqrt(checks.integer("fan_in", fan_in, 1))


@public
def gain(
    activation: Any, sigma_b: float | None = None, *, q: float | None = None, dropout: float = 0.0
) -> Gain:
    """σ_w of the edge of chaos, as the gain that initialisers take.

    Args:
        activation: anything :func:`eoc_theory.activation` accepts.
        sigma_b: standard deviation of the biases, ≥ 0; 0 unless `q` is given.
        q: variance of the pre-activations, > 0, instead: the gain's `sigma_b` is then what belongs to it.
        dropout: probability p of dropping an activation, in [0, 1); see :func:`eoc_theory.edge_of_chaos`.

    Returns:
        A float with `.variance_scaling`, keywords for JAX, Flax and Keras, `.std(fan_in)` and `.sigma_b`.

    Raises:
        NoCriticalPointError: the activation has no edge of chaos there; the message says which points exist.
        ArgumentError: an argument is out of range, or both `sigma_b` and `q` are given.
    """
    return Gain(edge_of_chaos(activation, sigma_b=sigma_b, q=q, dropout=dropout))
