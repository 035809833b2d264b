"""Dual activations E[φ^(m)(u) φ^(n)(v)] that are known in closed form.

Sources: Cho & Saul 2009 (arc-cosine kernels), Williams 1997 (erf), Tsuchida et al. 2021 (GELU); the
    derivatives are Price's theorem, ∂E[f(u) g(v)]/∂E[uv] = E[f'(u) g'(v)] and ∂E[f(u) g(v)]/∂q_b = ½ E[f(u)
    g''(v)], applied to them. Everything is written in quantities that keep their digits at c = ±1: ε = 1 −
    c, the determinant, the angle.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np

from ...activations.core import Activation
from .pairs import Array, Pairs

Dual = Callable[[Pairs, int, int], "tuple[Array, Array] | None"]
"""(pairs, order_a, order_b) → (value, sum of the magnitudes of its terms); None where no form is known."""


def closed_dual(
    activation: Activation, pairs: Pairs, order_a: int, order_b: int
) -> tuple[Array, Array] | None:
    """Value and size of its largest terms (what rounding errors are relative to), or None without a closed
    form.
    """
    form = activation.closed_form or _further_form(activation)
    if form is None:
        return None
    family = FAMILIES.get(form[0])
    return None if family is None else family(*form[1:])(pairs, order_a, order_b)


def _further_form(activation: Activation) -> tuple[Any, ...] | None:
    """Forms that only products of two need, and so are not marked in the catalogue."""
    if activation.oscillation and activation.name.partition("(")[0] == "snake":
        return ("snake", 0.5 * activation.oscillation)
    return None


def leaky(left: float, right: float) -> Dual:
    """φ = m x + d |x|: only products of equal parity survive."""
    mean, half = 0.5 * (right + left), 0.5 * (right - left)

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        scale = np.sqrt(p.q_a) * np.sqrt(p.q_b)
        if m > 1 or n > 1:
            return np.zeros(p.c.shape), np.zeros(p.c.shape)
        if (m, n) == (0, 0):
            linear = mean**2 * scale * p.c
            absolute = half**2 * scale * (2 / np.pi) * (p.sine + p.c * (0.5 * np.pi - p.angle))
            return linear + absolute, np.abs(linear) + half**2 * scale
        if (m, n) == (1, 1):
            return mean**2 + half**2 * (1 - 2 * p.angle / np.pi), np.full(p.c.shape, mean**2 + half**2)
        # m E|u| · d + …: E[φ(u) φ'(v)] = m d (E|u| + E[u sign v])
        value = mean * half * np.sqrt((p.q_a if m == 0 else p.q_b) * 2 / np.pi) * p.one_plus_c
        return value, np.abs(value)

    return dual


def step(left: float, right: float) -> Dual:
    """φ = m + d sign(x). The point mass in φ' is not counted: derivatives are those almost everywhere, 0."""
    mean, half = 0.5 * (right + left), 0.5 * (right - left)

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        if m or n:
            return np.zeros(p.c.shape), np.zeros(p.c.shape)
        return mean**2 + half**2 * (1 - 2 * p.angle / np.pi), np.full(p.c.shape, mean**2 + half**2)

    return dual


def erf(scale: float) -> Dual:
    """φ = erf(w x)."""

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        # With u → w√2 u: erf(u/√2).
        q_a, q_b, k = 2 * scale**2 * p.q_a, 2 * scale**2 * p.q_b, 2 * scale**2 * p.covariance
        determinant = 1 + q_a + q_b + 4 * scale**4 * p.determinant
        if (m + n) % 2:
            return np.zeros(p.c.shape), np.zeros(p.c.shape)
        if (m, n) == (0, 0):
            value = (2 / np.pi) * np.arctan2(k, np.sqrt(determinant))
        elif (m, n) == (1, 1):
            value = 2 * scale**2 * (2 / np.pi) / np.sqrt(determinant)
        elif (m, n) == (2, 2):
            value = 4 * scale**4 * (2 / np.pi) * k / determinant**1.5
        elif (m, n) in ((0, 2), (2, 0)):
            other = q_b if n == 2 else q_a
            value = -2 * scale**2 * (2 / np.pi) * k / ((1 + other) * np.sqrt(determinant))
        else:
            return None
        return value, np.abs(value)

    return dual


def gelu() -> Dual:
    """φ = x P(Z ≤ x)."""

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        if m != n or m > 2:
            return None
        a, b, k = 1 + p.q_a, 1 + p.q_b, p.covariance
        product = p.q_a * p.q_b
        determinant = 1 + p.q_a + p.q_b + p.determinant
        root = np.sqrt(determinant)
        bend = (1 - product) / (a * b)
        rest = (2 + p.q_a + p.q_b) / (a * b)  # bend + 1
        if m == 0:
            # q_a q_b + k² (1 − q_a q_b)/(ab) loses its digits for large variances, 1 − D (1 − q_a q_b)/(ab)
            # for small.
            numerator = np.where(product < 1, product + k**2 * bend, 1 - determinant * bend)
            terms = (0.25 * k, numerator / root / (2 * np.pi), k * np.arctan2(k, root) / (2 * np.pi))
        elif m == 1:
            terms = (
                np.full(k.shape, 0.25),
                np.arctan2(k, root) / (2 * np.pi),
                k * (1 / determinant + rest) / root / (2 * np.pi),
            )
        else:
            terms = (
                (1 / determinant + rest + 1) / root / (2 * np.pi),
                k**2 * (3 / determinant + rest) / determinant**1.5 / (2 * np.pi),
            )
        return sum(terms[1:], terms[0]), sum((np.abs(t) for t in terms), np.zeros(k.shape))

    return dual


def _waves(p: Pairs, w_a: float, w_b: float) -> tuple[Array, Array]:
    """E[cos(w_a u) cos(w_b v)] and E[sin(w_a u) sin(w_b v)] without cancellation or overflow."""
    s_a, s_b = w_a * np.sqrt(p.q_a), w_b * np.sqrt(p.q_b)
    cross = 2 * s_a * s_b
    apart = (s_a - s_b) ** 2 + cross * p.one_minus_c  # variance of w_a u − w_b v
    together = (s_a - s_b) ** 2 + cross * p.one_plus_c
    near, far = np.exp(-0.5 * apart), np.exp(-0.5 * together)
    sine = np.where(
        p.c >= 0, -0.5 * near * np.expm1(-cross * np.abs(p.c)), 0.5 * far * np.expm1(-cross * np.abs(p.c))
    )
    return 0.5 * (near + far), sine


def wave(frequency: float, shift: int) -> Dual:
    """φ = sin(w x + shift π/2): sin for shift 0, cos for shift 1."""

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        i, j = (m + shift) % 4, (n + shift) % 4
        if (i - j) % 2:
            return np.zeros(p.c.shape), np.zeros(p.c.shape)
        cosine, sine = _waves(p, frequency, frequency)
        value = cosine if i % 2 else sine
        value = value * (-1 if (i in (2, 3)) != (j in (2, 3)) else 1) * frequency ** (m + n)
        return value, np.abs(value)

    return dual


def exponential(rate: float) -> Dual:
    """φ = exp(r x)."""

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        exponent = 0.5 * rate**2 * (p.q_a + p.q_b + 2 * p.covariance)
        with np.errstate(over="ignore"):
            value = rate ** (m + n) * np.exp(exponent)
        # Rounding the exponent moves the value by that much relatively.
        return value, np.abs(value) * (1 + exponent)

    return dual


def polynomial(*coefficients: float) -> Dual:
    """φ = Σ c_k x^k by Mehler's formula, which is finite here."""

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        a, b = hermite_of_polynomial(coefficients, p.q_a, m), hermite_of_polynomial(coefficients, p.q_b, n)
        value, size, power = np.zeros(p.c.shape), np.zeros(p.c.shape), np.ones(p.c.shape)
        for k in range(min(len(a), len(b))):
            value += a[k][0] * b[k][0] * power
            size += a[k][1] * b[k][1] * np.abs(power)
            power = power * p.c
        return value, size

    return dual


def hermite_of_polynomial(coefficients: tuple[float, ...], q: Array, order: int) -> list[tuple[Array, Array]]:
    """Normalised Hermite coefficients of the order-th derivative at variance q, each with its terms'
    magnitude.
    """
    result = []
    degree = len(coefficients) - 1 - order
    for k in range(degree + 1):
        value, size = np.zeros(q.shape), np.zeros(q.shape)
        for power in range(k, degree + 1, 2):
            # z^power = Σ_k power!/(2^((power−k)/2) ((power−k)/2)! k!) He_k
            pairs = (power - k) // 2
            number = factorial(power) / (2**pairs * factorial(pairs) * factorial(k)) * factorial(k) ** 0.5
            number *= factorial(power + order) / factorial(power) * float(coefficients[power + order])
            term = number * np.sqrt(q) ** power
            value += term
            size += np.abs(term)
        result.append((value, size))
    return result


def snake(rate: float) -> Dual:
    """φ = x + h(x), h = sin²(a x)/a = (1 − cos w x)/w with w = 2a: an odd part and an even one."""
    w = 2 * rate

    def dual(p: Pairs, m: int, n: int) -> tuple[Array, Array] | None:
        if m > n:
            swapped = dual(Pairs(p.q_b, p.q_a, p.c, p.one_minus_c, p.one_plus_c), n, m)
            return swapped
        cosine, sine = _waves(p, w, w)
        mean_a, mean_b = -np.expm1(-0.5 * w**2 * p.q_a), -np.expm1(-0.5 * w**2 * p.q_b)  # w E h
        # E[cos cos] − E[cos] E[cos], a square and so without cancellation.
        apart = w**2 * (
            (np.sqrt(p.q_a) - np.sqrt(p.q_b)) ** 2 + 2 * np.sqrt(p.q_a * p.q_b) * (1 - np.abs(p.c))
        )
        shared = 0.5 * np.exp(-0.5 * apart) * np.expm1(-(w**2) * np.abs(p.covariance)) ** 2
        if (m, n) == (0, 0):
            terms = (p.covariance, mean_a * mean_b / w**2, shared / w**2)
        elif (m, n) == (0, 1):
            terms = (mean_a / w, w * p.covariance * (1 - mean_b))
        elif (m, n) == (1, 1):
            terms = (np.ones(p.c.shape), sine)
        elif (m, n) == (0, 2):
            terms = (mean_a * (1 - mean_b), -shared)
        elif (m, n) == (1, 2):
            terms = (w * (1 - mean_b),)
        elif (m, n) == (2, 2):
            terms = (w**2 * cosine,)
        else:
            return None
        return sum(terms[1:], terms[0]), sum((np.abs(t) for t in terms), np.zeros(p.c.shape))

    return dual


FAMILIES: dict[str, Callable[..., Dual]] = {
    "leaky": leaky,
    "step": step,
    "erf": erf,
    "gelu": gelu,
    "sin": lambda w: wave(w, 0),
    "cos": lambda w: wave(w, 1),
    "exp": exponential,
    "polynomial": polynomial,
    "snake": snake,
}
