"""Closed forms for a whole batch: those of `closed_forms` in as few passes over (B, B) arrays as possible.

They are used where correlations come from a covariance matrix, whose own rounding is what limits them near
c = ±1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...activations.core import Activation
from .pairs import Array

Maps = tuple[Array, "Array | None"]

# Above this variance (of the scaled argument) 1 − r² loses more digits than a batch can do without.
LARGEST_VARIANCE = 1e4


def batch_form(activation: Activation, largest: float) -> Callable[[Array, Array, Array, bool], Maps] | None:
    """A function (K, q, c, derivative) → (φ map, φ' map) for the activation, or None."""
    form = activation.closed_form
    if form is None:
        return None
    if form[0] == "leaky":
        return lambda K, q, c, derivative: _leaky(K, q, c, derivative, form[1], form[2])
    if form[0] == "erf" and 2 * form[1] ** 2 * largest < LARGEST_VARIANCE:
        return lambda K, q, c, derivative: _erf(K, q, c, derivative, form[1])
    if form[0] == "gelu" and largest < LARGEST_VARIANCE:
        return _gelu
    return None


def _leaky(K: Array, q: Array, c: Array, derivative: bool, left: float, right: float) -> Maps:
    mean, half = 0.5 * (right + left), 0.5 * (right - left)
    complement = np.arcsin(c)  # π/2 − θ
    phi = c * c
    np.subtract(1.0, phi, out=phi)
    np.maximum(phi, 0.0, out=phi)
    np.sqrt(phi, out=phi)
    # √(q_i q_j) (sin θ + c (π/2 − θ))
    root = np.sqrt(q) * (half * np.sqrt(2 / np.pi))
    scaled = c * complement
    phi += scaled
    phi *= root * root[:, None]
    if mean:
        np.multiply(K, mean * mean, out=scaled)
        phi += scaled
    if not derivative:
        return phi, None
    complement *= half**2 * 2 / np.pi
    complement += mean**2
    return phi, complement


def _erf(K: Array, q: Array, c: Array, derivative: bool, scale: float) -> Maps:
    w = 2 * scale**2
    root = np.sqrt(w / (1 + w * q))
    ratio = (
        root * root[:, None]
    )  # the outer product first: that keeps symmetric arrays symmetric to the last bit
    ratio *= K
    phi = np.arcsin(ratio)
    phi *= 2 / np.pi
    if not derivative:
        return phi, None
    ratio *= ratio
    np.subtract(1.0, ratio, out=ratio)
    np.sqrt(ratio, out=ratio)
    outer = (root * (2 / np.pi)) * root[:, None]
    return phi, np.divide(outer, ratio, out=ratio)


def _gelu(K: Array, q: Array, c: Array, derivative: bool) -> Maps:
    inverse = 1 / np.sqrt(1 + q)
    spread = inverse * inverse[:, None]
    ratio = K * spread
    angle = np.arcsin(ratio)
    ratio *= ratio
    np.subtract(1.0, ratio, out=ratio)  # D/(ab)
    root = np.sqrt(ratio)
    # With s = 1/√(ab): numerator/√D is q_a q_b s/√ρ + K² s³ (1 − q_a q_b)/√ρ, ρ = D/(ab); the sum is
    # positive.
    flatness = q * inverse**2
    bend = spread * spread
    bend -= flatness * flatness[:, None]
    if q.max() < 1:
        numerator = K * K
        numerator *= bend
        numerator += q * q[:, None]
        numerator *= spread
    else:
        numerator = bend * ratio
        numerator /= spread
        np.subtract(spread, numerator, out=numerator)
    numerator /= root
    phi = K * angle
    phi += numerator
    phi *= 1 / (2 * np.pi)
    phi += 0.25 * K
    if not derivative:
        return phi, None
    # K (1/D + bend + 1)/√D with 1/D = s²/ρ
    bend += 1.0
    bend += spread * spread / ratio
    bend *= K
    bend /= root
    bend *= spread
    bend += angle
    bend *= 1 / (2 * np.pi)
    bend += 0.25
    return phi, bend
