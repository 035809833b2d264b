"""Correlation maps C(c) = E[φ(u)φ(v)]/E[φ(u)²] at q = 1, against dks (PyPI) in its own environment.

usage: python -m benchmarks.correlation_maps

dks integrates each point by scipy's dblquad; here a point is one call of `dual`, and a table serves a
thousand.
"""

from __future__ import annotations

import time

import numpy as np

from eoc_theory.gaussian.duals import DualTable, dual
from eoc_theory.gaussian.duals.single import spectrum
from eoc_theory.gaussian.duals.table import _table

from . import peers

NAMES = ("tanh", "softplus", "elu", "erf")
POINTS = (-0.9, -0.3, 0.4, 0.8, 0.99)


def main() -> None:
    theirs = peers.run("dks", "dks_maps.py", names=list(NAMES), c=np.array(POINTS))
    print(
        f"{'':9} {'ours':>10} {'theirs':>10} {'ratio':>9} {'difference':>11} {'a table and 1000 points':>24}"
    )
    for name in NAMES:
        seconds, values = [], []
        for c in POINTS:
            spectrum.cache_clear()  # as for the first point of a new activation
            start = time.perf_counter()
            values.append(float(dual(name, 1.0, 1.0, c).value) / float(dual(name, 1.0, 1.0, 1.0).value))
            seconds.append(time.perf_counter() - start)
        _table.cache_clear()
        start = time.perf_counter()
        DualTable(name, 1.0).phi(np.linspace(-1, 1, 1000))
        table = time.perf_counter() - start
        ours, peer = float(np.median(seconds)), float(np.median(theirs[f"{name}_seconds"]))
        difference = np.abs(np.array(values) - theirs[f"{name}_values"]).max()
        print(
            f"{name:9} {1e3 * ours:8.2f}ms {1e3 * peer:8.1f}ms {peer / ours:8.0f}x {difference:11.1e} "
            f"{1e3 * table:22.1f}ms"
        )


if __name__ == "__main__":
    main()
