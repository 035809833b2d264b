"""Positive signals through a network of absolute weights: one number a channel times one a position.

SynFlow (Tanaka et al. 2020) sends ones through the network with |W| in place of W, activations, normalisation
and biases left out. All addends are positive, so over many channels the signal at a position concentrates: it
is close to a product of what the channel carries and a profile over positions, which falls towards zero
padding. Both factors are kept relative to their means, and the scale apart as a logarithm, so that no depth
overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray

#: Mean and relative variance of |W| of a weight layer (a `WeightLayer`).
Magnitudes = Callable[[Any], tuple[float, float]]


@dataclass(frozen=True)
class Means:
    """A positive signal: e^log_scale · amplitude_c · profile_p at channel c and position p.

    Attributes:
        amplitude: shape (channels,), mean 1; zeros where there is no signal.
        profile: shape of the positions, () for a vector; mean 1.
        log_scale: −∞ where there is no signal.
        variance: relative variance of the amplitudes from channel to channel in networks of this one's width;
            0 where the amplitudes themselves are those of a sampled network.
    """

    amplitude: Array
    profile: Array
    log_scale: float = 0.0
    variance: float = 0.0

    @classmethod
    def of(cls, amplitude: Array, profile: Array, log_scale: float = 0.0, variance: float = 0.0) -> Means:
        """The signal amplitude ⊗ profile · e^log_scale, its factors of any scale."""
        a, p = float(amplitude.sum()) / amplitude.size, float(profile.sum()) / profile.size
        if not (a > 0 and p > 0 and log_scale > -math.inf):
            return cls(np.zeros(amplitude.shape), np.ones(profile.shape), -math.inf)
        return cls(amplitude / a, profile / p, log_scale + math.log(a) + math.log(p), variance)

    @classmethod
    def ones(cls, channels: int, space: tuple[int, ...]) -> Means:
        """1 everywhere."""
        return cls(np.ones(channels), np.ones(space))

    def scaled(self, factor: float) -> Means:
        """The signal times |factor|."""
        if factor == 0:
            return Means.of(0.0 * self.amplitude, self.profile)
        return Means(self.amplitude, self.profile, self.log_scale + math.log(abs(factor)), self.variance)

    @staticmethod
    def shares(signals: Sequence[Means]) -> tuple[Array, float]:
        """The signals' sizes relative to the largest one, and its logarithm (0 where all are 0)."""
        logs = np.array([signal.log_scale for signal in signals])
        top = float(logs.max())
        top = top if np.isfinite(top) else 0.0
        return np.exp(logs - top), top

    @staticmethod
    def total(signals: Iterable[Means]) -> Means:
        """The sum of signals of one shape, as the product that has the sum's means over channels and
        positions."""
        signals = tuple(signals)
        if len(signals) == 1:
            return signals[0]
        share, top = Means.shares(signals)
        whole = float(share.sum())
        if whole == 0:
            return signals[0]
        amplitude, profile, variance = 0.0, 0.0, 0.0
        for part, signal in zip((share / whole).tolist(), signals, strict=True):
            amplitude = amplitude + part * signal.amplitude
            profile = profile + part * signal.profile
            variance += part**2 * signal.variance
        return Means(np.asarray(amplitude), np.asarray(profile), top + float(np.log(whole)), variance)

    @staticmethod
    def concatenated(signals: Sequence[Means]) -> Means:
        """Channels one after the other, with one profile for all: their mean."""
        share, top = Means.shares(signals)
        amplitude = np.concatenate([w * x.amplitude for w, x in zip(share, signals, strict=True)])
        weight = share * [x.amplitude.sum() for x in signals]
        weight = weight / max(float(weight.sum()), 1e-300)
        profile = np.tensordot(weight, np.array([x.profile for x in signals]), 1)
        variance = float(weight @ [x.variance for x in signals])
        return Means.of(amplitude, profile, top, variance)

    def separably(self, matrices: Sequence[Array]) -> Means:
        """The profile multiplied by a matrix (outputs, inputs) along each axis."""
        profile = self.profile
        for axis, matrix in enumerate(matrices):
            profile = np.moveaxis(np.tensordot(matrix, profile, (1, axis)), 0, axis)
        return Means.of(self.amplitude, profile, self.log_scale, self.variance)


def window_indices(taps: Sequence[Array], space: tuple[int, ...]) -> Array:
    """Flat positions that each tap of a window sees, (taps, outputs); the number of positions if none.

    Args:
        taps: for each axis, positions (outputs, kernel), −1 outside.
        space: extent along each axis.
    """
    flat = np.zeros((1, 1), dtype=np.int64)
    outside = np.zeros((1, 1), dtype=bool)
    for along, extent in zip(taps, space, strict=True):
        at = along.T  # (kernel, outputs)
        shape = (flat.shape[0] * at.shape[0], flat.shape[1] * at.shape[1])
        flat = (flat[:, None, :, None] * extent + np.maximum(at, 0)[None, :, None]).reshape(shape)
        outside = (outside[:, None, :, None] | (at < 0)[None, :, None]).reshape(shape)
    return np.where(outside, int(np.prod(space)), flat)


def look(profile: Array, windows: Array, outside: float = 0.0) -> Array:
    """What each tap sees of a profile, (taps, outputs)."""
    return np.append(profile.reshape(-1), outside)[windows]


def spread(values: Array, windows: Array, space: tuple[int, ...]) -> Array:
    """The transpose of `look`, summed over taps: values (taps, outputs) to a profile of shape `space`."""
    size = int(np.prod(space))
    summed = np.bincount(windows.reshape(-1), values.reshape(-1), minlength=size + 1)
    return summed[:size].reshape(space)
