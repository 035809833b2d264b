"""A 200 × 200 phase diagram with q*, χ, c*, ξ_q and ξ_c, against pointwise scipy.

usage: python -m benchmarks.phase_diagrams

Pointwise: q* by brentq on the variance map with quad, χ by quad, and in the chaotic phase c* by brentq with
    the
correlation map as a double Gauss–Hermite sum of 60² nodes. It is timed on a sample of the grid's points.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import optimize
from scipy.integrate import quad

import eoc_theory as eoc

#: (The signature that scipy declares is narrower than what it takes.)
brentq: Any = optimize.brentq
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expectation(f, q: float) -> float:
    root = q**0.5
    return quad(lambda z: np.exp(-0.5 * z * z) * f(root * z), -10, 10, epsabs=1e-11)[0] / (2 * np.pi) ** 0.5


def pointwise(phi, slope, sigma_w: float, sigma_b: float) -> tuple[float, float, float]:
    """q*, χ, c* of one point."""

    def excess(q: float) -> float:
        return sigma_b**2 + sigma_w**2 * expectation(lambda x: phi(x) ** 2, q) - q

    q = brentq(excess, 1e-9, 50.0)
    chi = sigma_w**2 * expectation(lambda x: slope(x) ** 2, q)
    if chi <= 1:
        return q, chi, 1.0
    u = q**0.5 * NODES[:, None]

    def correlation(c: float) -> float:
        v = q**0.5 * (c * NODES[:, None] + (1 - c * c) ** 0.5 * NODES[None, :])
        mean = ((phi(u) * phi(v)) @ WEIGHTS) @ WEIGHTS
        return (sigma_b**2 + sigma_w**2 * mean) / q - c

    return q, chi, brentq(correlation, 0.0, 1 - 1e-9) if correlation(1 - 1e-9) < 0 else 1.0


def main() -> None:
    sigma_w, sigma_b = np.linspace(0.5, 3.0, 200), np.linspace(0.05, 0.5, 200)
    act = eoc.activation("tanh")
    eoc.phase_diagram(act, sigma_w=sigma_w, sigma_b=sigma_b)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        diagram = eoc.phase_diagram(act, sigma_w=sigma_w, sigma_b=sigma_b)
        seconds.append(time.perf_counter() - start)
    rng = np.random.default_rng(0)
    picked = [(int(i), int(j)) for i, j in rng.integers(0, 200, (40, 2))]
    start = time.perf_counter()
    values = [pointwise(act, act.derivative(1), sigma_w[i], sigma_b[j]) for i, j in picked]
    single = (time.perf_counter() - start) / len(picked)
    shape = np.shape(diagram.q_star)
    # Rows of the arrays are σ_b or σ_w, as the diagram's axes say: find which by the reference.
    error = min(
        max(abs(np.asarray(diagram.q_star)[a] - v[0]) for a, v in zip(order, values, strict=True))
        for order in (picked, [(j, i) for i, j in picked])
    )
    ours = float(np.median(seconds))
    print(f"{shape[0]} x {shape[1]} points: {ours:.3f} s; pointwise scipy {40_000 * single:.0f} s for all,")
    print(f"ratio {40_000 * single / ours:.0f}x; largest difference of q* {error:.1e}")


if __name__ == "__main__":
    main()
