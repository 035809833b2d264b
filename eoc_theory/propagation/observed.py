"""What signals and gradients are at each weight layer of a network: in sampled networks, or by theory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..layers import WeightLayer

Array = np.ndarray
#: Output units from … up to, one run after the other; () for all of them.
Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ScoreScale:
    """How large the scores of one attention are, and which weights set that.

    Attributes:
        std: standard deviation of the scores that a query gives the keys it sees.
        degree: with all of `weights` multiplied by a factor, the scores are multiplied by its power of this:
            2 where queries and keys have weights, 1 where one of them has.
        weights: names of the weights that make queries and keys, and the output units that are theirs.
    """

    std: float
    degree: int
    weights: Mapping[str, Runs]


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


def scaled_layer(layer: WeightLayer, factor: float, units: Runs = ()) -> WeightLayer:
    """A layer after its weights, or those of some output units, are multiplied: the scale of all together."""
    share = sum(stop - start for start, stop in units) / layer.fan_out or 1.0
    return replace(layer, sigma_w=layer.sigma_w * math.sqrt(1.0 + share * (float(factor) ** 2 - 1.0)))


def as_runs(chosen: Array) -> Runs:
    """Whether each unit is chosen, (units,) of booleans, as runs."""
    flags = np.asarray(chosen, dtype=bool)
    if flags.all():
        return ()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


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
