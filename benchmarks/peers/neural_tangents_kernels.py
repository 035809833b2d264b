"""Runs inside the peer's own environment: kernels of a batch through a deep network by neural-tangents.

usage: python neural_tangents_kernels.py INPUT.npz OUTPUT.npz

INPUT holds x (B, features), layers, repeats, sigma_w, sigma_b and names; for each name OUTPUT holds the
kernel after the last layer's weights and the seconds of each repetition after compilation.
"""

from __future__ import annotations

import sys
import time

import jax  # pyright: ignore[reportMissingImports]
import numpy as np

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402  # pyright: ignore[reportMissingImports]
from neural_tangents import stax  # noqa: E402  # pyright: ignore[reportMissingImports]

NONLINEARITIES = {
    "relu": lambda: stax.Relu(),
    "erf": lambda: stax.Erf(),
    "gelu": lambda: stax.Gelu(),
    "tanh": lambda: stax.ElementwiseNumerical(jnp.tanh, deg=25),
}


def main(source: str, target: str) -> None:
    given = np.load(source)
    x = jnp.asarray(given["x"])
    results = {}
    for name in given["names"]:
        sigma_w, sigma_b = float(given[f"{name}_sigma_w"]), float(given[f"{name}_sigma_b"])
        layers = []
        for _ in range(int(given["layers"])):
            layers += [stax.Dense(1, W_std=sigma_w, b_std=sigma_b), NONLINEARITIES[str(name)]()]
        layers.append(stax.Dense(1, W_std=sigma_w, b_std=sigma_b))
        kernel_fn = jax.jit(stax.serial(*layers)[2], static_argnames=("get",))
        kernel = kernel_fn(x, None, get="nngp").block_until_ready()
        seconds = []
        for _ in range(int(given["repeats"])):
            start = time.perf_counter()
            kernel = kernel_fn(x, None, get="nngp").block_until_ready()
            seconds.append(time.perf_counter() - start)
        results[f"{name}_kernel"] = np.asarray(kernel)
        results[f"{name}_seconds"] = np.array(seconds)
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
