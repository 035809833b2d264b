"""Two signals in wide random networks, for figures of correlations.

Given what enters a layer, its pre-activations are independent pairs of normals whose covariance is that of
the inputs: drawing those is drawing the network, at the cost of its width instead of its weights.
"""

from __future__ import annotations

import numpy as np

import eoc_theory as eoc

Array = np.ndarray


def sampled_gaps(
    net: eoc.MeanField, gap: float, depth: int, *, width: int, networks: int, seed: int
) -> Array:
    """1 − c of two signals in layers 1 to `depth` of sampled networks, `gap` in the first one's law.

    Dropout masks are drawn for each of the two. Returns shape (networks, depth).
    """
    rng, act = np.random.default_rng(seed), net.activation
    # Under masks of their own even equal signals differ; the first layer has not met any.
    covariance = net.q_star * np.array([[1.0, 1.0 - gap], [1.0 - gap, 1.0]])
    covariance = np.broadcast_to(covariance, (networks, 2, 2))
    found = np.empty((networks, depth))
    for layer in range(depth):
        z = rng.standard_normal((networks, 2, width))
        first = np.sqrt(covariance[:, 0, 0])
        along = covariance[:, 0, 1] / first
        across = np.sqrt(np.maximum(covariance[:, 1, 1] - along**2, 0.0))
        y = np.stack([first[:, None] * z[:, 0], along[:, None] * z[:, 0] + across[:, None] * z[:, 1]], axis=1)
        unit = y / np.sqrt((y * y).sum(axis=2, keepdims=True))
        # From the difference of the unit vectors, which keeps small gaps.
        found[:, layer] = 0.5 * ((unit[:, 0] - unit[:, 1]) ** 2).sum(axis=1)
        h = act(y)
        if net.dropout:
            h = h * ((rng.random(h.shape) >= net.dropout) / (1.0 - net.dropout))
        covariance = net.sigma_b**2 + net.sigma_w**2 / width * (h @ h.swapaxes(1, 2))
    return found
