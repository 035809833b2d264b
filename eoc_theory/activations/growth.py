"""How fast a function grows, from its size at points far out."""

from __future__ import annotations

import math

from .core import Growth

ORDER = {"polynomial": 0, "exponential": 1, "gaussian": 2}


def classify(logs: tuple[float, float, float], far: float) -> Growth:
    """The growth class from log|φ| at far/4, far/2 and far.

    A polynomial adds the same to log|φ| at each doubling, an exponential twice as much each time, a Gaussian
    four times. Degrees are rounded up to halves, so that a logarithm counts as a square root.
    """
    if not all(map(math.isfinite, logs)):
        return Growth("polynomial", degree=0.0)
    first, second = min(logs[1] - logs[0], 1e300), min(logs[2] - logs[1], 1e300)
    ratio = second / first if first > 0 else math.inf
    if second < 0.02 or ratio < 1.5 or (second < 8.0 and far > 100.0):
        return Growth("polynomial", degree=max(0.0, math.ceil(2.0 * second / math.log(2.0) - 0.1) / 2.0))
    # The difference of differences is free of a power of x before the exponential.
    if ratio < 3.0:
        return Growth("exponential", rate=float(f"{(second - first) / (0.25 * far):.9g}"))
    if ratio < 5.0:
        return Growth("gaussian", rate=float(f"{(second - first) / (0.5625 * far * far):.9g}"))
    return Growth("gaussian", rate=math.inf)


def faster(a: Growth, b: Growth) -> Growth:
    """The faster of two growths."""
    return max(a, b, key=lambda g: (ORDER[g.kind], g.rate, g.degree))
