"""What signals and gradients are at each weight layer of a network: in sampled networks, or by theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Observed:
    """Signals of L weight layers in a network, or their means over networks (of logarithms, for sizes).

    Attributes:
        signal: mean square of the layer's output, (L,); nan for layers that were not run.
        gradient: mean square of the loss's gradient by that output, (L,).
        entries: entries of the output for one input, (L,).
        order: place of the layer in the forward pass, (L,), from 0 on.
        token_similarity: mean cosine between the output's tokens of one input, (L,); nan without tokens.
        input_similarity: mean cosine between the outputs of two inputs, (L,).
        attention: names of the modules that attend, in the order of the forward pass.
        attention_entropy: of each, the mean entropy of a query's weights over that of equal weights, (A,).
        residual: positions of the layers that end a branch of a residual sum.
    """

    signal: Array
    gradient: Array
    entries: Array
    order: Array
    token_similarity: Array
    input_similarity: Array
    attention: tuple[str, ...] = ()
    attention_entropy: Array = field(default_factory=lambda: np.zeros(0))
    residual: tuple[int, ...] = ()

    @property
    def has_tokens(self) -> bool:
        """Whether some layer's outputs are tokens, more than one for each input."""
        return bool(np.isfinite(self.token_similarity).any())

    @property
    def by_depth(self) -> Array:
        """Positions of the layers that were run, in the order of the forward pass."""
        order = np.argsort(self.order, kind="stable")
        return order[np.isfinite(self.signal[order])]


def mean_of(networks: Sequence[Observed]) -> Observed:
    """What several networks show: geometric means of sizes, means of the rest."""
    first = networks[0]

    def mean(name: str) -> Array:
        return np.mean([getattr(one, name) for one in networks], axis=0)

    def geometric(name: str) -> Array:
        with np.errstate(divide="ignore"):
            return np.exp(np.mean([np.log(getattr(one, name)) for one in networks], axis=0))

    same = all(one.attention == first.attention for one in networks)
    return replace(
        first,
        signal=geometric("signal"),
        gradient=geometric("gradient"),
        token_similarity=mean("token_similarity"),
        input_similarity=mean("input_similarity"),
        attention_entropy=mean("attention_entropy") if same else first.attention_entropy,
    )
