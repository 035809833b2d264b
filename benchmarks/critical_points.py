"""The edge of chaos of an activation, against nested root finding with scipy and against Monte Carlo.

usage: python -m benchmarks.critical_points

`quad + brentq` is how one does it with scipy alone, and generously: through the parametric form, one root in
q with two integrals a step. `nested` is the direct way, a root in σ_w around a root in q. The Monte-Carlo
iteration draws 500,000 samples a step for 200 steps, as published code for these constants does. Errors are
relative errors of σ_w against mpmath at 30 digits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from scipy import optimize
from scipy.integrate import quad

import eoc_theory as eoc

#: (The signature that scipy declares is narrower than what it takes.)
brentq: Any = optimize.brentq

SIGMA_B = 0.2
NAMES = ("tanh", "erf", "silu", "elu", "sin", "atan")
MONTE_CARLO = {"samples": 500_000, "steps": 200}


def gaussian(f: Callable[[float], float], q: float) -> float:
    """E[f(√q Z)²] by quad, split at 0 where the kinks of these activations are."""
    root = q**0.5
    density = (2 * np.pi) ** -0.5

    def integrand(z: float) -> float:
        return density * np.exp(-0.5 * z * z) * f(root * z) ** 2

    options = {"epsabs": 1e-13, "epsrel": 1e-12, "limit": 200}
    return quad(integrand, -12, 0, **options)[0] + quad(integrand, 0, 12, **options)[0]


def parametric(phi: Callable, slope: Callable, bracket: tuple[float, float]) -> float:
    """σ_w by one root in q of q − E[φ²]/E[φ'²] = σ_b²."""

    def excess(q: float) -> float:
        return q - gaussian(phi, q) / gaussian(slope, q) - SIGMA_B**2

    q = brentq(excess, *bracket, xtol=1e-14, rtol=1e-12)
    return gaussian(slope, q) ** -0.5


def nested(phi: Callable, slope: Callable, bracket: tuple[float, float], sigma: float) -> float:
    """σ_w by a root of χ = 1 around the fixed point q*(σ_w)."""

    def chi(sigma_w: float) -> float:
        q = brentq(lambda q: SIGMA_B**2 + sigma_w**2 * gaussian(phi, q) - q, *bracket, xtol=1e-14, rtol=1e-12)
        return sigma_w**2 * gaussian(slope, q) - 1

    return brentq(chi, 0.995 * sigma, 1.005 * sigma, xtol=1e-13, rtol=1e-12)


def monte_carlo(phi: Callable, slope: Callable, rng: np.random.Generator) -> float:
    """Alternate q ← σ_b² + σ_w² E[φ²] and σ_w² ← 1/E[φ'²] with sampled expectations."""
    q, sigma_w2 = 1.0, 1.0
    for _ in range(MONTE_CARLO["steps"]):
        x = q**0.5 * rng.standard_normal(MONTE_CARLO["samples"])
        sigma_w2 = 1.0 / np.mean(slope(x) ** 2)
        q = SIGMA_B**2 + sigma_w2 * np.mean(phi(x) ** 2)
    return sigma_w2**0.5


def oracle(name: str, q: float) -> float:
    """σ_w at 30 digits, by Newton's method from q."""
    functions = {
        "tanh": (mpmath.tanh, lambda x: mpmath.sech(x) ** 2),
        "erf": (mpmath.erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)),
        "silu": (
            lambda x: x / (1 + mpmath.exp(-x)),
            lambda x: 1 / (1 + mpmath.exp(-x)) + x * mpmath.exp(-x) / (1 + mpmath.exp(-x)) ** 2,
        ),
        "elu": (
            lambda x: x if x > 0 else mpmath.expm1(x),
            lambda x: mpmath.mpf(1) if x > 0 else mpmath.exp(x),
        ),
        "sin": (mpmath.sin, mpmath.cos),
        "atan": (mpmath.atan, lambda x: 1 / (1 + x * x)),
    }
    phi, slope = functions[name]

    def mean(f: Callable, q: Any) -> Any:
        root = mpmath.sqrt(q)
        points = [-14, -7, -3, 0, 3, 7, 14]
        return mpmath.quad(lambda z: mpmath.npdf(z) * f(root * z) ** 2, points)

    with mpmath.workdps(30):
        target = mpmath.mpf(SIGMA_B) ** 2
        root = mpmath.findroot(lambda t: t - mean(phi, t) / mean(slope, t) - target, mpmath.mpf(q))
        return float(mean(slope, root) ** -0.5)


def timed(call: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Median seconds, and the value."""
    seconds, value = [], 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), value


def main() -> None:
    print(f"{'':9} {'ours':>9} {'quad+brentq':>12} {'nested':>9} {'MC':>8} | relative errors", flush=True)
    for name in NAMES:
        act = eoc.activation(name)
        phi, slope = act, act.derivative(1)
        point = eoc.edge_of_chaos(act, sigma_b=SIGMA_B)
        exact = oracle(name, point.q)
        bracket = (0.8 * point.q, 1.25 * point.q)
        ours, mine = timed(lambda act=act: eoc.edge_of_chaos(act, sigma_b=SIGMA_B).sigma_w, 200)
        one, parametric_value = timed(lambda p=phi, s=slope, b=bracket: parametric(p, s, b), 3)
        two, nested_value = timed(
            lambda p=phi, s=slope, b=(0.6 * point.q, 1.6 * point.q), w=point.sigma_w: nested(p, s, b, w), 1
        )
        rng = np.random.default_rng(0)
        start = time.perf_counter()
        sampled = monte_carlo(phi, slope, rng)
        three = time.perf_counter() - start
        errors = [abs(v / exact - 1) for v in (mine, parametric_value, nested_value, sampled)]
        print(
            f"{name:9} {1e6 * ours:7.0f}us {one / ours:10.0f}x {two / ours:9.0f}x {three / ours:7.0f}x | "
            + " ".join(f"{e:.1e}" for e in errors),
            flush=True,
        )


if __name__ == "__main__":
    main()
