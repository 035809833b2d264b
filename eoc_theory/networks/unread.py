"""A network of which the weight layers are known, and not what connects them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..layers import WeightLayer


@dataclass(frozen=True, eq=False)
class UnreadNetwork:
    """A network that no graph describes: what is asked of it comes from sampled networks.

    Attributes:
        layers: its weight layers, of which shapes and, where `laws_known`, distributions count.
        sampler: what samples networks like it; see `eoc_theory.pytorch.sample.sampler.Sampler`.
        laws_known: whether the weights of every layer are independent and of a `WeightLaw`.
        reason: why it is not described.
    """

    layers: tuple[WeightLayer, ...]
    sampler: Any
    laws_known: bool
    reason: str = ""

    #: No chain of fully connected layers, as far as is known.
    is_chain = False

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
        """Names of the weight layers, in the order of the model's modules."""
        return tuple(layer.name for layer in self.layers)

    @property
    def weights(self) -> np.ndarray:
        """Number of weights in each layer, shape (L,)."""
        return np.array([layer.n_weights for layer in self.layers], dtype=np.int64)

    @property
    def n_weights(self) -> int:
        """Number of weights in the whole network."""
        return int(self.weights.sum())

    def summarise(self, data: Any = None, *, seed: int = 0) -> Any:
        """The batch that scores are computed on, which the sampler holds."""
        return self.sampler.batch
