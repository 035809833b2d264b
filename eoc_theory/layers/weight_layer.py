"""A layer's weights: their number, scales and law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..activations import Activation
from ..base.boundary import public

WeightLaw = Literal["normal", "uniform", "truncated", "orthogonal"]
PaddingMode = Literal["zeros", "circular", "reflect"]

#: "truncated" cuts a normal law at so many of the uncut law's standard deviations, as torch does.
CUT = 2.0
#: P(|Z| < CUT), and the standard deviation that a standard normal has left when it is cut there, 0.87963.
INSIDE_CUT = math.erf(CUT / math.sqrt(2))
CUT_STD = math.sqrt(1 - 2 * CUT * math.exp(-(CUT**2) / 2) / (math.sqrt(2 * math.pi) * INSIDE_CUT))


@public
@dataclass(frozen=True)
class WeightLayer:
    """The weights of a layer ``y = W h + b`` and the distribution they are sampled from.

    ``W_ij`` has mean 0 and variance ``sigma_w**2 / fan_in``, ``b_i`` variance ``sigma_b**2``.

    Attributes:
        name: of the layer, as in the model.
        fan_in: inputs of one output unit: features, or channels/groups × kernel size of a convolution.
        fan_out: output units: features, or channels.
        sigma_w, sigma_b: scales.
        activation: the activation that follows, None after the last layer or where there is none.
        law: of the weights: "normal", "uniform", "truncated" (normal, cut at two standard deviations of the
            uncut law) or "orthogonal" (rows or columns orthogonal, all of one length).
        kernel: extent of a convolution's kernel, () for a fully connected layer.
    """

    name: str
    fan_in: int
    fan_out: int
    sigma_w: float
    sigma_b: float
    activation: Activation | None = None
    law: WeightLaw = "normal"
    kernel: tuple[int, ...] = ()

    @property
    def n_weights(self) -> int:
        """Number of weights that pruning can remove (biases are not counted)."""
        return self.fan_in * self.fan_out

    @property
    def weight_std(self) -> float:
        """Standard deviation of one weight, σ_w/√fan_in."""
        return self.sigma_w / np.sqrt(self.fan_in)

    @property
    def channels_in(self) -> int:
        """Input features, or channels in one group of a convolution."""
        return self.fan_in // math.prod(self.kernel)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight tensor."""
        return (self.fan_out, self.channels_in, *self.kernel)


def outside_entries(at: np.ndarray, extent: int, mode: PaddingMode) -> np.ndarray:
    """Which entry along an axis stands at each place, places beyond `extent` among them; −1 for a zero."""
    if mode == "circular":
        return at % extent
    if mode == "reflect":
        period = max(2 * (extent - 1), 1)
        folded = np.abs(at) % period
        return np.where(folded >= extent, period - folded, folded)
    return np.where((at >= 0) & (at < extent), at, -1)
