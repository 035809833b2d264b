"""The base class of all layer types: its name, the shape of its output, and its behaviour in each theory.

A layer describes; it holds no weights. One class a layer type, each in one place with everything the theory
needs of it: its output's shape, kernels forwards and backwards (`forward_kernel`, `backward_kernel`), what it
makes of channels that are drawn (`forward_values`, `backward_values`) and the positive means of SynFlow
(`forward_means`, `backward_means`). What others ask of a layer is a property or a method with a default, that
of a layer which passes its input on; nobody asks for its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import Activation
from ..errors import ModelError
from ..signals.means import Magnitudes, Means
from ..signals.parts import InputPart
from ..signals.shape import Shape
from .random_numbers import Draw
from .sampled_channels import Channels, Segment
from .weight_layer import WeightLayer

if TYPE_CHECKING:
    from ..signals.fields import Gradient, Pairs, Signal

Array = np.ndarray
#: The width of a narrower network for one of the network at hand, a multiple of a number.
Width = Callable[[int, int], int]


@dataclass(frozen=True)
class Layer(ABC):
    """A node's computation; `name` is where it stands in the model."""

    name: str

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the value for inputs of these shapes.

        Raises:
            ModelError: inputs that do not fit, naming the layer.
        """

    @abstractmethod
    def forward_kernel(self, signals: Sequence[Signal], pairs: Pairs) -> tuple[Signal, Any]:
        """The distribution of the value for inputs of these distributions, and what the backward pass needs.

        At infinite width, and taking the values of different inputs to the layer as independent.
        """

    @abstractmethod
    def backward_kernel(self, memory: Any, gradient: Gradient, pairs: Pairs) -> list[Gradient]:
        """The distribution of the loss's derivative by each input, for that by the value.

        Under gradient independence: weights used backwards are independent of those used forwards.
        """

    # --- what others ask ---

    @property
    def weighted(self) -> Weighted | None:
        """Itself where it has weights that pruning ranks."""
        return None

    @property
    def nonlinearity(self) -> Activation | None:
        """The activation that it applies to every entry."""
        return None

    @property
    def normalises(self) -> str:
        """What its statistics are taken over, "batch", "layer" or "group"; "" where it does not normalise."""
        return ""

    @property
    def batch_statistics(self) -> bool | None:
        """Of a batch normalisation: whether it takes the batch's own statistics, not the running ones."""
        return None

    @property
    def sets_scale(self) -> bool:
        """Whether its value has the same scale whatever that of its input is."""
        return bool(self.normalises) and self.batch_statistics is not False

    @property
    def mode(self) -> bool | None:
        """Training mode (True) or evaluation mode; None where it is the same in both."""
        return self.batch_statistics

    @property
    def dropout(self) -> float:
        """Probability with which it drops an entry, 0 in evaluation mode."""
        return 0.0

    @property
    def adds(self) -> bool:
        """Whether its value is the sum of its inputs times `factors`."""
        return False

    def factors(self, inputs: int) -> tuple[float, ...]:
        """What each of so many inputs is multiplied by."""
        return (1.0,) * inputs

    def with_factors(self, factors: tuple[float, ...]) -> Layer:
        """The same sum with other factors."""
        raise self.refuse("no factors", factors)

    @property
    def is_silent(self) -> bool:
        """Whether it multiplies something by 0, so that no gradient passes there."""
        return False

    def heard(self, factor: float) -> Layer:
        """The same with γ = 1 where that is 0, and with `factor` for factors that are 0."""
        return self

    @property
    def has_kernels(self) -> bool:
        """Whether its kernels follow from those of its inputs, kind of pair by kind of pair."""
        return True

    @property
    def moves_channels(self) -> bool:
        """Whether its channels are some of its input's, in any order: those `channels_taken`."""
        return False

    def channels_taken(self, count: int) -> Array:
        """Which of the input's `count` channels its own are; all, of layers that do not move them."""
        return np.arange(count)

    def with_scores_times(self, factor: float) -> Layer:
        """The same with attention's scores, where it has any, multiplied by a factor."""
        return self

    @property
    def attends(self) -> bool:
        """Whether its inputs' values say which positions it takes values from."""
        return False

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices, heads of its inputs, that depend on the input."""
        return False

    @property
    def head_groups(self) -> int:
        """Of what has heads: groups of them that share keys and values; 0 of any other layer."""
        return 0

    def scores(self, inputs: Sequence[Array]) -> Array:
        """Of attention: what its softmax is given for values of its inputs, (heads, B, …, queries, keys)."""
        raise self.refuse("no queries and keys", f"{len(inputs)} inputs")

    @property
    def is_random(self) -> bool:
        """Whether its value is of random numbers of its own, independent of its input's in each channel."""
        return self.weighted is not None

    @property
    def vocabulary(self) -> int:
        """Token numbers that it takes as its input, from 0; 0 where it takes no such numbers."""
        return 0

    @property
    def tells_padding(self) -> bool:
        """Whether its value says which of an input's tokens are padding: 0 for those, 1 for the others."""
        return False

    @property
    def absent_tokens(self) -> tuple[int, ...]:
        """Of the input: token numbers that none of a network's inputs may hold."""
        return ()

    @property
    def input_parts(self) -> tuple[InputPart, ...]:
        """Of the input: what it consists of, where a network takes several."""
        return ()

    @property
    def keeps_vectors(self) -> bool:
        """Whether it makes of a vector the same vector."""
        return False

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        """Mean square of its value for inputs of these mean squares, terms of sums as uncorrelated."""
        return inputs[0]

    def variance_gain(self, mean_square: float) -> float:
        """Mean square derivative by its one input of this mean square; nan where that is not all there is."""
        return 1.0

    def kernel_gain(self, memory: Any) -> float | None:
        """What `backward_kernel` multiplies second moments by, where that is part of χ."""
        return None

    def kernel_entries(self, inputs: Sequence[Shape], value: Shape) -> int:
        """Pairs of positions that its `forward_kernel` about keeps for the way back, of one kind of pair."""
        return 0

    def narrowed(self, inputs: Sequence[Shape], whole: Sequence[Shape], value: Shape, width: Width) -> Layer:
        """The layer of a narrower network.

        Args:
            inputs: shapes of its inputs there, and `whole` here.
            value: shape of its value here.
            width: the width for one of here, a multiple of a number.

        Raises:
            ModelError: its groups of channels cannot be narrowed.
        """
        return self

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        """The classes of its channels, of which SynFlow's sampled network has a few each."""
        return inputs[0]

    def build(self, shape: Shape) -> Any:
        """A new torch module of it, for values of `shape`; only of layers that the library has no form of.

        Parameters are drawn afterwards: `weight` and `bias` of a layer with weights by its law.
        """
        raise ModelError(f"layer {self.name!r} ({type(self).__name__}) has no torch form")

    # --- helpers ---

    def refuse(self, wanted: str, given: object) -> ModelError:
        """The error of an input that does not fit."""
        return ModelError(f"layer {self.name!r} ({type(self).__name__}) takes {wanted}, got {given}")

    def one(self, inputs: tuple[Shape, ...]) -> Shape:
        """The only input."""
        if len(inputs) != 1:
            raise self.refuse("one input", len(inputs))
        return inputs[0]

    def forward_values(self, inputs: list[Array], draw: Draw) -> tuple[Array, Any]:
        """The value of channels that are drawn, and what the backward pass needs of the forward pass.

        Of layers without weights: what weights make of channels is drawn by
        `eoc_theory.propagation.gaussian_graph`.

        Values have shape (channels, *space, batch): with the batch last, entries that belong together in
        convolutions, pooling and channel statistics are neighbours in memory, a fully connected layer is one
        matrix product, and flattening, channels first as torch does it, moves nothing.

        Args:
            inputs: values of the nodes before; never written to.
            draw: source of shifts and masks; its dtype is that of the values.
        """
        raise self.refuse("no channels that are drawn", type(self).__name__)

    def backward_values(self, memory: Any, gradient: Array) -> list[Array]:
        """The gradient of each input from that of the output; exact, linear in `gradient`.

        `gradient` is never written to, and an array returned may be `gradient` itself.
        """
        raise self.refuse("no channels that are drawn", type(self).__name__)

    def forward_means(self, inputs: Sequence[Means], magnitudes: Magnitudes) -> tuple[Means, Any]:
        """The positive signal in SynFlow's network, and what the backward pass needs of the forward pass.

        By default the identity, which is what that network makes of activations, normalisation and dropout.

        Args:
            inputs: signals of the nodes before.
            magnitudes: mean and relative variance of a weight layer's |W|.
        """
        return inputs[0], None

    def backward_means(self, memory: Any, signal: Means, magnitudes: Magnitudes) -> list[Means]:
        """What each input's entry sends on to the outputs, from what this layer's entries send on."""
        return [signal]


@dataclass(frozen=True)
class Weighted(Layer):
    """A layer with weights; what it does to its input is linear in them."""

    weight: WeightLayer

    #: Groups of channels, each seen by its own outputs.
    groups = 1

    @property
    def weighted(self) -> Weighted | None:
        return self

    @property
    def is_dense(self) -> bool:
        """Whether it is the product W h + b with a vector, and nothing else."""
        return False

    @property
    @abstractmethod
    def kind(self) -> str:
        """What a table calls it: "Linear", "Conv 3x3 /2"."""

    def with_weight(self, weight: WeightLayer) -> Weighted:
        """The same with other weights."""
        return replace(self, weight=weight)

    def mean_square(self, inputs: Sequence[float], shapes: Sequence[Shape]) -> float:
        return self.weight.sigma_b**2 + self.weight.sigma_w**2 * inputs[0]

    def log_moment(self, memory: Any, gradient: Gradient, pairs: Pairs) -> float:
        """log E[(W g)²] of one weight's gradient g, from what `forward_kernel` kept and the gradient."""
        return memory.log_moment(self.weight, gradient, pairs)

    def windows(self, space: tuple[int, ...]) -> Array:
        """Flat input positions that each tap sees, (taps, positions); the number of positions if outside."""
        return np.zeros((1, 1), dtype=np.int64)

    def tap_shares(self, x: Means, sent: Means) -> Array:
        """Σ_p R(p) F(p + β) for each tap β, of what comes (`x`) and what its outputs send on, (taps,)."""
        return np.ones(1)

    def sampled_channels(
        self, channels: Channels, inputs: Sequence[Segment], shapes: Sequence[Shape]
    ) -> Segment:
        own = Segment([channels.new(self.weight.fan_out)])
        if self.groups > 1:
            channels.keep_whole(own, inputs[0])
        return own
