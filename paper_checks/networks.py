"""Fully connected networks with real sampled weights, in plain NumPy and many at a time.

They share no code with the theory but the activations, so that what they show is evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eoc_theory.networks.architecture import Architecture
from eoc_theory.signals.data import DataSummary

Array = np.ndarray


@dataclass(frozen=True)
class Sampled:
    """S networks of one architecture after a forward pass.

    Attributes:
        weights: W^l, each of shape (S, fan_out, fan_in).
        preactivations: y^l, each of shape (S, fan_out, B).
        outputs: h^0 … h^{L−1}, each of shape (S, fan_in, B).
    """

    weights: list[Array]
    preactivations: list[Array]
    outputs: list[Array]


def sample_weights(net: Architecture, networks: int, rng: np.random.Generator) -> list[Array]:
    """Normal weights of every layer, each of shape (networks, fan_out, fan_in)."""
    return [
        rng.standard_normal((networks, layer.fan_out, layer.fan_in)) * layer.weight_std
        for layer in net.layers
    ]


def forward(net: Architecture, batch: DataSummary, networks: int, seed: int) -> Sampled:
    """`networks` networks drawn under `seed`, run on the batch."""
    rng = np.random.default_rng([seed, 0])
    weights = sample_weights(net, networks, rng)
    h = np.broadcast_to(batch.inputs.T, (networks, *batch.inputs.T.shape))
    outputs, preactivations = [h], []
    for layer, W in zip(net.layers, weights, strict=True):
        bias = layer.sigma_b * rng.standard_normal((networks, layer.fan_out, 1))
        preactivations.append(W @ outputs[-1] + bias)
        if layer.activation is not None:
            outputs.append(layer.activation(preactivations[-1]))
    return Sampled(weights, preactivations, outputs)


def log_score_moments(
    net: Architecture, batch: DataSummary, sampled: Sampled, *, independent: int | None = None
) -> Array:
    """log of the mean over a layer's weights of (W g)², shape (S, L); g is the mean cross-entropy's gradient.

    `independent`: a seed; the gradient then travels back, and is weighted, with weights drawn anew under it.
    That is gradient independence made real.
    """
    logits = sampled.preactivations[-1]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta = shifted / shifted.sum(axis=1, keepdims=True)
    delta[:, batch.targets, np.arange(batch.size)] -= 1.0
    delta /= batch.size
    weights = sampled.weights
    if independent is not None:
        weights = sample_weights(net, len(logits), np.random.default_rng([independent, 1]))
    moments = np.empty((len(logits), net.depth))
    log_scale = np.zeros(len(logits))
    for number in range(net.depth - 1, -1, -1):
        # Deep gradients leave the range of floats: their scale is carried apart.
        scale = np.sqrt(np.mean(delta**2, axis=(1, 2)))
        delta = delta / scale[:, None, None]
        log_scale += np.log(scale)
        gradient = delta @ sampled.outputs[number].swapaxes(1, 2)
        scores = (weights[number] * gradient) ** 2
        moments[:, number] = np.log(scores.mean(axis=(1, 2))) + 2.0 * log_scale
        act = net.layers[number - 1].activation if number else None
        if act is not None:
            slope = act.derivative(1)(sampled.preactivations[number - 1])
            delta = (weights[number].swapaxes(1, 2) @ delta) * slope
    return moments
