"""Runs inside the peer's own environment: local C maps by dks.

usage: python dks_maps.py INPUT.npz OUTPUT.npz

INPUT holds names and correlations c; for each name OUTPUT holds C(c) at q = 1 and the seconds of each value.
"""

from __future__ import annotations

import sys
import time

import autograd.numpy as anp  # pyright: ignore[reportMissingImports]
import numpy as np
from autograd.scipy.special import erf  # pyright: ignore[reportMissingImports]
from dks.base import activation_transform  # pyright: ignore[reportMissingImports]

FUNCTIONS = {
    "tanh": anp.tanh,
    "softplus": lambda x: anp.logaddexp(x, 0.0),
    "elu": lambda x: anp.where(x > 0, x, anp.exp(anp.minimum(x, 0.0)) - 1),
    "erf": erf,
}


def main(source: str, target: str) -> None:
    given = np.load(source)
    results = {}
    for name in map(str, given["names"]):
        values, seconds = [], []
        for c in given["c"]:
            start = time.perf_counter()
            values.append(activation_transform._calc_c_map(FUNCTIONS[name], c=float(c)))
            seconds.append(time.perf_counter() - start)
        results[f"{name}_values"], results[f"{name}_seconds"] = np.array(values), np.array(seconds)
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
