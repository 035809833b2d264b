"""Criteria that fix each layer's density and choose inside it by chance: uniform and erk.

Nothing here is random.

A layer's j-th weight in random order is kept once ε q_l reaches j − 1/2, q_l the number that it wants of a
unit of ε: all layers' wants grow in proportion until they are full, so what full layers cannot take goes to
the others.
"""

from __future__ import annotations

import math

import numpy as np

from ...networks.layer_list import LayerList

Array = np.ndarray


def kept_counts(weights: Array, q: Array, kept: int) -> Array:
    """Numbers each layer keeps, (L,), `kept` in all; a rest between equal wants is spread evenly."""
    low, high = 0.0, 2.0 * float((weights / q).max()) + 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if _reached(weights, q, middle).sum() < kept else (low, middle)
    sure = _reached(weights, q, low)
    tied = _reached(weights, q, high) - sure
    missing, ties = kept - int(sure.sum()), int(tied.sum())
    if ties == 0:
        return sure
    return sure + np.diff(np.cumsum(tied) * missing // ties, prepend=0)


def _reached(weights: Array, q: Array, epsilon: float) -> Array:
    return np.minimum(np.floor(epsilon * q + 0.5).astype(np.int64), weights)


def critical_sparsity(weights: Array, q: Array) -> tuple[float, Array]:
    """s_cr, and the layers that go first, bool (L,): those with the smallest q, at ε = 1/(2 q)."""
    weakest = q == q.min()
    # Left: weights with j − 1/2 < q_l/(2 q_min), strictly.
    left = np.minimum(np.ceil(q / (2.0 * q.min()) - 0.5).astype(np.int64), weights)
    left[weakest] = 0
    return 1.0 - float(left.sum()) / float(weights.sum()), weakest


def erdos_renyi_kernel(net: LayerList) -> Array:
    """q_l (L,): n_l times the layer's density, (the sum of its weight's extents)/n_l.

    Erdős–Rényi-kernel densities, (n_in + n_out)/(n_in n_out) for a fully connected layer and
    (n_in + n_out + k_h + k_w)/(n_in n_out k_h k_w) for a convolution: Evci et al. 2020, section 3.
    """
    return np.array([float(sum(layer.weight_shape)) for layer in net.layers])


def chance_scores(shape: tuple[int, ...], density: float, rng: np.random.Generator) -> Array:
    """Scores such that any global threshold gives layers their densities, in proportion to `density`.

    The j-th weight of a layer in random order is kept once the layer's wanted number ε·r·n reaches j − 1/2,
    with r the layer's density: its score is r·n/(j − 1/2).
    """
    size = math.prod(shape)
    return (density * size / (rng.permutation(size) + 0.5)).reshape(shape)
