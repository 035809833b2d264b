"""Networks of a source with other scales: layers multiplied by factors, and factors that make signals even.

Even signals are those of LSUV (Mishkin & Matas 2016, section 3): each layer's weights are divided by the root
mean square of what they make of the layer's input, in the order of the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...base.isolation import converted, seeded
from ...layers import WeightLayer
from ...propagation.observed import Runs, scaled_layer
from ..batches import Batch
from ..models import PrunableWeight, weight_attributes
from ..multiply import multiply_weight
from .observe import MOST_INPUTS, first_tensor
from .sources import Source

Array = np.ndarray


class Itself:
    """One network, as it is."""

    is_built = False

    def __init__(
        self, model: Any, weights: Sequence[PrunableWeight], layers: tuple[WeightLayer, ...]
    ) -> None:
        self._model, self._weights = model, list(weights)
        self.layers, self.laws_known = layers, False
        self.notes: tuple[str, ...] = ()

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """A double of it."""
        return _double(self._model, self._weights)


class Rescaled:
    """Networks of another source, each layer's weights multiplied by a factor of its own."""

    def __init__(self, source: Source, factors: Array, units: Sequence[Runs] | None = None) -> None:
        """`factors` has shape (L,); `units` are the output units that each is for, () for all."""
        self._source, self._factors = source, factors
        self._units = [()] * len(factors) if units is None else units
        self.layers = tuple(map(scaled_layer, source.layers, factors, self._units))
        # Of a law are the weights of units that all have one scale.
        self.laws_known, self.notes = source.laws_known and not any(self._units), source.notes
        self.is_built = source.is_built

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """The other source's network of the same stream, rescaled."""
        model, weights = self._source.network(stream)
        for weight, factor, runs in zip(weights, self._factors, self._units, strict=True):
            if factor != 1.0:
                multiply_weight(weight, float(factor), runs)
        return model, weights


def even_factors(sampler: Any, networks: int, seed: int) -> Array:
    """Factors for the weights of each layer that make the mean square of W h equal 1, (L,).

    1 for weights that are not a Linear or convolution layer's own, to which the output is not proportional,
    or that no signal reaches. Geometric means over `networks` networks.
    """
    batch = sampler.batch.part(slice(0, MOST_INPUTS))

    def even(index: int) -> Array:
        model, weights = sampler.source.network([seed, 0x746F7263, index])
        return _even(model, weights, batch, sampler.device, seed)

    found = sampler.each(even, range(networks), batch.size)
    return np.exp(np.mean(np.log(found), axis=0))


def _even(model: Any, weights: Sequence[PrunableWeight], batch: Batch, device: Any, seed: int) -> Array:
    twin = converted(model, device, torch.float64)
    factors = np.ones(len(weights))
    handles = []

    def hook(at: int, weight: PrunableWeight) -> Any:
        def rescale(module: Any, args: Any, output: Any) -> Any:
            value = first_tensor(output)
            if value is not output:
                return None
            bias = _bias(module)
            linear = value - bias
            if factors[at] == 1.0:
                square = float(linear.square().mean())
                factors[at] = square**-0.5 if np.isfinite(square) and square > 0.0 else 1.0
            return linear * factors[at] + bias

        return rescale

    for at, weight in enumerate(weights):
        if is_scalable(weight):
            handles.append(twin.of(weight.module).register_forward_hook(hook(at, weight)))
    with seeded(seed), torch.no_grad():
        batch.to(next(twin.model.parameters()).device, torch.float64).call(twin.model)
    return factors


def is_scalable(weight: PrunableWeight) -> bool:
    """Whether a factor of the weights is one of the module's output, but for the bias."""
    return weight.is_plain and weight_attributes(weight.module) == ("weight",)


def _bias(module: Any) -> Any:
    bias = getattr(module, "bias", None)
    if bias is None:
        return 0.0
    if isinstance(module, torch.nn.modules.conv._ConvNd):
        return bias.reshape(-1, *(1 for _ in module.kernel_size))
    return bias


def _double(model: Any, weights: Sequence[PrunableWeight]) -> tuple[Any, list[PrunableWeight]]:
    twin = converted(model)
    placed = [
        replace(w, module=twin.of(w.module), holder=None if w.holder is None else twin.of(w.holder))
        for w in weights
    ]
    return twin.model, placed
