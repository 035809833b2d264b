"""A network of which the weight layers are known, and not what connects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..layers import WeightLayer
from .layer_list import LayerList


@dataclass(frozen=True, eq=False)
class UnreadNetwork(LayerList):
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

    def summarise(self, data: Any = None, *, seed: int = 0) -> Any:
        """The batch that scores are computed on, which the sampler holds."""
        return self.sampler.batch
