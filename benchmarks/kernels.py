"""Kernels of 100 digits through 30 layers, against neural-tangents in its own environment.

usage: python -m benchmarks.kernels

Both compute the covariance after the last layer's weights in float64, from the same inputs, on the same
machine in the same run; neural-tangents is compiled and warmed up before it is timed. Its closed forms are
compared with ours as they are; for tanh it has a Gauss–Hermite rule of degree 25, and errors are against a
propagation at tolerance 1e-12.
"""

from __future__ import annotations

import time

import numpy as np

import eoc_theory.signals.data
from eoc_theory.gaussian.duals import propagate_kernel

from . import peers

LAYERS, REPEATS = 30, 20
# (σ_w, σ_b): on the edge of chaos or next to it, so that no kernel degenerates.
POINTS = {"relu": (2**0.5, 0.0), "erf": (1.1, 0.1), "gelu": (1.4, 0.2), "tanh": (1.30415, 0.2)}


def main() -> None:
    x, _ = eoc_theory.signals.data.digits(n=100)
    given = {"x": x, "layers": LAYERS, "repeats": 5, "names": list(POINTS)}
    for name, (sigma_w, sigma_b) in POINTS.items():
        given |= {f"{name}_sigma_w": sigma_w, f"{name}_sigma_b": sigma_b}
    theirs = peers.run("neural_tangents", "neural_tangents_kernels.py", **given)
    titles = ("ours", "with φ′", "theirs", "ratio", "our error", "their error")
    print(" " * 6 + "".join(f"{title:>13}" for title in titles))
    for name, (sigma_w, sigma_b) in POINTS.items():
        K = sigma_b**2 + sigma_w**2 * x @ x.T / x.shape[1]
        seconds, kernel = timed(name, K, sigma_w, sigma_b, False)
        both, _ = timed(name, K, sigma_w, sigma_b, True)
        peer = float(np.median(theirs[f"{name}_seconds"]))
        exact = propagate_kernel(name, K, sigma_w, sigma_b, LAYERS, tolerance=1e-12, derivative=False).K[-1]
        ours, other = (np.abs(k - exact).max() for k in (kernel, theirs[f"{name}_kernel"]))
        print(
            f"{name:6}{1e3 * seconds:11.2f}ms{1e3 * both:11.2f}ms{1e3 * peer:11.1f}ms{peer / seconds:12.1f}x"
            f"{ours:13.1e}{other:13.1e}"
        )


def timed(
    name: str, K: np.ndarray, sigma_w: float, sigma_b: float, derivative: bool
) -> tuple[float, np.ndarray]:
    """Median seconds of a propagation, and its last kernel."""
    import numba  # noqa: F401  (a warm process: the compiled loop is used from the first layer on)

    seconds = []
    result = propagate_kernel(name, K, sigma_w, sigma_b, LAYERS, derivative=derivative)
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = propagate_kernel(name, K, sigma_w, sigma_b, LAYERS, derivative=derivative)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result.K[-1]


if __name__ == "__main__":
    main()
