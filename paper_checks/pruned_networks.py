"""Fully connected networks with given weights: what a mask and a rescaling do to signals and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import eoc_theory as eoc
from eoc_theory.activations import Activation
from eoc_theory.networks.architecture import Architecture
from eoc_theory.propagation.infinite_width import loss_gradient
from eoc_theory.pytorch.lazy import require_torch

from .picture import Picture, Series

Array = np.ndarray
Batch = tuple[Array, Array]


@dataclass(frozen=True)
class Chain:
    """One network: its weights (fan_out, fan_in) and biases (fan_out, 1), first layer to last."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: Activation

    @classmethod
    def of_model(cls, model: Any, activation: Activation) -> Chain:
        """Copies of the weights of a torch model of Linear layers."""
        torch = require_torch()
        linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        weights = tuple(module.weight.detach().double().numpy().copy() for module in linear)
        biases = tuple(
            np.zeros((len(weight), 1))
            if module.bias is None
            else module.bias.detach().double().numpy()[:, None].copy()
            for module, weight in zip(linear, weights, strict=True)
        )
        return cls(weights, biases, activation)

    def preactivations(self, inputs: Array) -> list[Array]:
        """y^l, each (fan_out, B), for inputs (B, features)."""
        found, h = [], inputs.T
        for weight, bias in zip(self.weights, self.biases, strict=True):
            found.append(weight @ h + bias)
            h = self.activation(found[-1])
        return found

    def outputs(self, inputs: Array) -> list[Array]:
        """What each layer takes: h^0 … h^{L−1}."""
        return [inputs.T, *map(self.activation, self.preactivations(inputs)[:-1])]

    def log_gradients(self, batch: Batch) -> Array:
        """log of the mean squared gradient by y^l of the mean cross-entropy, less that of the last layer."""
        found = self.preactivations(batch[0])
        delta = loss_gradient(found[-1].T, batch[1]).T
        delta = delta / np.sqrt(np.mean(delta**2))
        log_squares = [0.0]
        for number in range(len(self.weights) - 1, 0, -1):
            slope = self.activation.derivative(1)(found[number - 1])
            delta = (self.weights[number].T @ delta) * slope
            size = np.sqrt(np.mean(delta**2))
            if size == 0:
                # Nothing comes further back: a layer has collapsed, or its units are all off.
                return np.array([-np.inf] * number + log_squares[::-1])
            delta = delta / size
            log_squares.append(log_squares[-1] + 2.0 * float(np.log(size)))
        return np.array(log_squares[::-1])

    def gradient_exponent(self, batch: Batch) -> float:
        """−d log E[δ²]/dl over the middle three fifths of the layers: log χ of the network as it is."""
        log_squares = self.log_gradients(batch)
        first, last = middle(len(log_squares))
        return float(log_squares[first] - log_squares[last]) / (last - first)

    def middle_variance(self, batch: Batch) -> float:
        """Mean squared pre-activation of the middle layer."""
        return float(np.mean(self.preactivations(batch[0])[len(self.weights) // 2] ** 2))

    def distance(self, other: Chain) -> float:
        """The largest difference of two weights of the same place, beside the largest weight."""
        pairs = list(zip(self.weights, other.weights, strict=True))
        return float(
            max(np.abs(own - its).max() for own, its in pairs) / max(np.abs(a).max() for a, _ in pairs)
        )

    def masked(self, masks: list[Array]) -> Chain:
        return replace(self, weights=tuple(w * m for w, m in zip(self.weights, masks, strict=True)))

    def with_scale_of(self, other: Chain) -> Chain:
        """Each layer multiplied by one number, so that it has the mean squared weight of `other`'s."""
        weights = [
            own * np.sqrt(np.mean(wanted**2) / np.mean(own**2))
            for own, wanted in zip(self.weights, other.weights, strict=True)
        ]
        return replace(self, weights=tuple(weights))

    def with_scale(self, sigma_w: float) -> Chain:
        """Each layer multiplied by one number, so that √(fan_in · mean W²) is σ_w."""
        weights = [own * (sigma_w / np.sqrt(own.shape[1] * np.mean(own**2))) for own in self.weights]
        return replace(self, weights=tuple(weights))

    def with_rows_of(self, sigma_w: float) -> Chain:
        """Each row that is not empty multiplied so that the sum of its squares is σ_w²."""
        weights = []
        for own in self.weights:
            sums = np.sum(own**2, axis=1, keepdims=True)
            weights.append(own * np.where(sums > 0, sigma_w / np.sqrt(np.where(sums > 0, sums, 1.0)), 0.0))
        return replace(self, weights=tuple(weights))

    def with_signal_of(self, other: Chain, inputs: Array) -> Chain:
        """Each layer in turn multiplied so that W h has the mean square that it has in `other`."""
        weights, h = [], inputs.T
        for own, bias, wanted, before in zip(
            self.weights, self.biases, other.weights, other.outputs(inputs), strict=True
        ):
            signal = own @ h
            weights.append(own * np.sqrt(np.mean((wanted @ before) ** 2) / np.mean(signal**2)))
            h = self.activation(weights[-1] @ h + bias)
        return replace(self, weights=tuple(weights))


def middle(depth: int) -> tuple[int, int]:
    """First and last of the layers that exponents are fitted over."""
    return depth // 5, 4 * depth // 5


def masks_of(model: Any, sparsity: float, criterion: str, data: Batch, seed: int) -> list[Array]:
    """What a criterion keeps of a model's layers."""
    found = eoc.measure_pruning(
        model, sparsity, criterion=criterion, data=data, seed=seed, collapse=False
    ).masks
    assert isinstance(found, dict)
    return list(found.values())


def critical_sparsities(
    net: Architecture, seeds: int, data: Batch | None = None, criterion: str = "snip"
) -> Array:
    """s_cr of real networks, shape (seeds,); on 100 digits unless `data` are given."""
    asked: dict[str, Any] = {"criterion": criterion, "data": eoc.digits(100) if data is None else data}
    return np.array(
        [
            eoc.measure_pruning(net.to_torch(seed), 0.5, **asked, masks=False).critical_sparsity
            for seed in range(seeds)
        ]
    )


def gradient_series(titles: Sequence[str], chains: Sequence[Chain], batch: Batch) -> list[Series]:
    """log10 of each network's mean squared gradient by hidden layer, beside that of the last one."""
    found = []
    for colour, (title, chain) in enumerate(zip(titles, chains, strict=True)):
        values = chain.log_gradients(batch)[:-1] / np.log(10.0)
        if np.isfinite(values[-1]):
            values -= values[-1]
        found.append(
            Series(title.replace("σ_w", "σ$_w$"), np.arange(1, len(values) + 1), values, colour=colour)
        )
    return found


def gradient_picture(caption: str, series: Sequence[Series]) -> Picture:
    """Those lines."""
    return Picture(caption, "layer l", "log$_{10}$ E[(δ$^l$)²] / E[(δ$^{L-1}$)²]", tuple(series))


def alignment(full: Chain, pruned: Chain, batch: Batch) -> float:
    """log of what the order of the masks adds to χ: mean over the middle layers.

    A unit that the mask leaves a mean squared incoming weight r_i and outgoing weight c_i lets a share
    r_i c_i φ'(y_i)² of the gradient through. Were the three independent over units, the mean of the product
    would be the product of means; the logarithm of the quotient is what the pruned network's exponent has
    beyond that of a network with the same scale and a mask that knows nothing.
    """
    slopes = [
        np.mean(full.activation.derivative(1)(y) ** 2, axis=1) for y in full.preactivations(batch[0])[:-1]
    ]
    first, last = middle(len(full.weights))
    found = []
    for layer in range(first, last):
        rows = np.mean(pruned.weights[layer] ** 2, axis=1)
        columns = np.mean(pruned.weights[layer + 1] ** 2, axis=0)
        gate = slopes[layer]
        found.append(np.log((rows * columns * gate).mean() / (rows.mean() * columns.mean() * gate.mean())))
    return float(np.mean(found))
