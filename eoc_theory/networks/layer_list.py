"""What all networks are: weight layers in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..layers import WeightLayer


class LayerList:
    """A network's weight layers, first to last."""

    layers: tuple[WeightLayer, ...]

    def __iter__(self) -> Iterator[WeightLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def depth(self) -> int:
        """Number of weight layers L."""
        return len(self.layers)

    @property
    def weight_layers(self) -> tuple[str, ...]:
        """Names of the weight layers, first to last."""
        return tuple(layer.name for layer in self.layers)

    @property
    def weight_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Extents of each layer's weight: outputs, inputs, kernel."""
        return tuple(layer.weight_shape for layer in self.layers)

    @property
    def weights(self) -> np.ndarray:
        """Number of weights in each layer, shape (L,)."""
        return np.array([layer.n_weights for layer in self.layers], dtype=np.int64)

    @property
    def n_weights(self) -> int:
        """Number of weights in the whole network."""
        return int(self.weights.sum())
