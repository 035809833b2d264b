"""Sampled networks of the tests' own, to hold predictions against."""

from __future__ import annotations

import numpy as np

from eoc_theory.propagation.infinite_width import loss_gradient


def sampled_network(net, inputs, targets, rng):
    """One network in NumPy: scores' mean square by layer, K^l and δ^l of the batch."""
    h, layers = inputs, []
    for layer in net.layers:
        w = rng.standard_normal((layer.fan_out, layer.fan_in)) * layer.weight_std
        y = h @ w.T + layer.sigma_b * rng.standard_normal(layer.fan_out)
        layers.append((w, h, y))
        h = layer.activation(y) if layer.activation else y
    delta = loss_gradient(h, targets)
    moments, kernels, deltas = [], [], []
    for index in range(net.depth - 1, -1, -1):
        w, below, y = layers[index]
        moments.append(np.mean((w * (delta.T @ below)) ** 2))
        kernels.append(y @ y.T / y.shape[1])
        deltas.append(delta)
        if index:
            previous = layers[index - 1]
            slope = net.layers[index - 1].activation.derivative(1)
            delta = (delta @ w) * slope(previous[2])
    return np.array(moments[::-1]), np.array(kernels[::-1]), deltas[::-1]
