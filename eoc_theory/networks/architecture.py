"""A network as plain data: weight layers with their shapes, initialisation and activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..activations import Activation, activation
from ..base import checks
from ..base.boundary import public
from ..base.upward import upward
from ..errors import ArgumentError, ModelError, TooLargeError
from ..errors.text import printable, shortened
from ..layers import Shape, WeightLaw, WeightLayer
from ..mean_field.edge_of_chaos import edge_of_chaos
from ..signals.data import DEFAULT_BATCH, as_data
from .graph import Graph
from .layer_list import LayerList
from .queries import absent_tokens, stand_in_size, vocabulary_of

if TYPE_CHECKING:
    from ..signals.data import DataSummary

Init = Literal["eoc", "kaiming", "pytorch"] | tuple[float, float]

#: Bias scale of the edge-of-chaos initialisation where none is asked for: the paper's 0.2 for a general
#: activation; a positively homogeneous one is critical at 0 only.
DEFAULT_SIGMA_B = 0.2
#: Weights of a network, which are counted in 64 bits.
MOST_WEIGHTS = 2**62
#: Characters of a name that a `repr` shows.
LONGEST_SHOWN = 100
#: Layers of a network, at most.
MOST_LAYERS = 100_000


@public
@dataclass(frozen=True, repr=False)
class Architecture(LayerList):
    """A network as plain data: its weight layers, first to last, and the graph that connects them.

    Attributes:
        layers: the weight layers.
        graph: all that happens between input and logits; None for a chain of fully connected layers, each
            followed by its activation.
        name: what texts and pictures call it, "" for none; networks are equal whatever they are called.
    """

    layers: tuple[WeightLayer, ...]
    graph: Graph | None = None
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        checks.text("name", self.name)
        if not (isinstance(self.layers, tuple) and all(isinstance(one, WeightLayer) for one in self.layers)):
            raise ModelError(f"layers must be a tuple of WeightLayer, got {checks.shown(self.layers)}")
        if sum(layer.fan_in * layer.fan_out for layer in self.layers) >= MOST_WEIGHTS:
            raise TooLargeError(f"layers must hold fewer than {MOST_WEIGHTS:.2g} weights in all")
        if not self.is_chain:
            if _checked_graph(self.graph).weight_layers != self.layers:
                raise ModelError("layers must be the weight layers of graph, in its order")
            return
        if not self.layers:
            raise ModelError("layers must hold at least one weight layer, got none")
        for before, after in pairwise(self.layers):
            if before.fan_out != after.fan_in:
                raise ModelError(
                    f"layers do not fit: {before.name} has fan_out {before.fan_out}, "
                    f"{after.name} has fan_in {after.fan_in}"
                )
            if before.activation is None:
                raise ModelError(f"layer {before.name} has no activation and is not the last layer")

    @classmethod
    def from_graph(cls, graph: Graph, name: str = "") -> Architecture:
        """The architecture of a graph; one that is a plain chain of fully connected layers becomes that."""
        chain = _checked_graph(graph).as_chain()
        return cls(graph.weight_layers, graph, name) if chain is None else cls(chain, name=name)

    def __repr__(self) -> str:
        named = shortened(printable(self.name), LONGEST_SHOWN) if self.name else "a network"
        return f"<Architecture: {named}, {self.depth} weight layers, {self.n_weights} weights>"

    @property
    def is_chain(self) -> bool:
        """Whether it is fully connected layers one after the other, each followed by its activation."""
        return self.graph is None

    def as_graph(self) -> Graph:
        """The network as a graph, also where it is a chain."""
        return self.graph or Graph.of_chain(self.layers)

    @property
    def input_shape(self) -> Shape:
        """Channels and extent of one input."""
        return Shape(self.layers[0].fan_in) if self.is_chain else self.as_graph().input_shape

    @property
    def in_features(self) -> int:
        """Entries of one input."""
        return self.input_shape.size

    @property
    def out_features(self) -> int:
        """Number of logits, of each token where every token has its own."""
        return self.layers[-1].fan_out if self.is_chain else self.as_graph().output_shape.channels

    def propagate(self, data: Any = None, *, seed: int = 0) -> Any:
        """Compute q, c, χ and score moments of each layer at infinite width.

        A chain of fully connected layers is computed over all pairs of the batch's inputs
        (`eoc_theory.propagation.infinite_width.propagate`), any other network over pairs of positions and
        kinds of pairs of inputs (`eoc_theory.propagation.graph_kernels.propagate_graph`), and one with
        attention over all pairs of inputs and tokens of drawn channels
        (`eoc_theory.propagation.channel_kernels.propagate_channels`).
        """
        return upward("Architecture.propagate")(self, data, seed=seed)

    def summarise(self, data: Any = None, *, seed: int = 0) -> DataSummary:
        """The batch that scores are computed on: `data`, checked against the first and the last layer."""
        seed = checks.integer("seed", seed, minimum=0)
        vocabulary = 0 if self.is_chain else vocabulary_of(self.as_graph())
        return as_data(
            data,
            in_features=self.in_features,
            classes=self.out_features,
            seed=seed,
            vocabulary=vocabulary,
            absent=absent_tokens(self.as_graph()) if vocabulary else (),
            tokens=0 if self.is_chain else math.prod(self.as_graph().output_shape.space or (0,)),
            stand_in=DEFAULT_BATCH if self.is_chain else stand_in_size(self.as_graph()),
            parts=() if self.is_chain else self.as_graph().nodes[0].layer.input_parts,
        )

    @classmethod
    def from_torch(cls, model: Any, example_input: Any = None) -> Architecture:
        """Read the architecture of a torch model, with scales and distributions from its weights."""
        return upward("Architecture.from_torch")(model, example_input)

    def to_torch(self, seed: int = 0) -> Any:
        """Build a torch module of this architecture, with weights sampled from its initialisation."""
        check_drawn(self, 4)
        return upward("Architecture.to_torch")(self, seed=seed)


def check_drawn(net: Architecture, each: float) -> None:
    """Refuse to sample weights that need more memory than one request may, at `each` bytes a weight.

    Raises:
        TooLargeError: it would.
    """
    what = f"drawing the {net.n_weights} weights of a network of depth {net.depth}"
    checks.memory(what, each * net.n_weights, "a narrower or shallower one")


def _checked_graph(graph: Any) -> Graph:
    if not isinstance(graph, Graph):
        raise ModelError(f"graph must be a Graph, got {checks.shown(graph)}")
    return graph


def init_scales(
    act: Activation, init: Init, *, sigma_b: float | None = None, fan_in: int | None = None
) -> tuple[float, float]:
    """(σ_w, σ_b) of an initialisation.

    ``"eoc"`` is the stable edge-of-chaos point at `sigma_b` (default 0 for a positively homogeneous
    activation, else 0.2); ``"kaiming"`` He et al. 2015, σ_w = √2 without biases; ``"pytorch"`` the default of
    ``torch.nn.Linear``, kaiming_uniform with a = √5: σ_w² = 1/3 and biases uniform on ±1/√fan_in.

    Raises ArgumentError for another `init`, NoCriticalPointError where the activation has no such point.
    """
    if isinstance(init, str):
        checks.one_of("init", init, ("eoc", "kaiming", "pytorch"))
        if init == "kaiming":
            return float(np.sqrt(2.0)), 0.0
        if init == "pytorch":
            width = checks.integer("fan_in", fan_in, minimum=1)
            return float(np.sqrt(1 / 3)), float(np.sqrt(1 / (3 * width)))

        if sigma_b is None:
            sigma_b = 0.0 if act.is_homogeneous else DEFAULT_SIGMA_B
        point = edge_of_chaos(act, sigma_b=checks.non_negative("sigma_b", sigma_b))
        return float(point.sigma_w), float(point.sigma_b)
    if isinstance(init, (tuple, list)) and len(init) == 2:
        return checks.positive("init[0]", init[0]), checks.non_negative("init[1]", init[1])
    raise ArgumentError(
        f"init must be 'eoc', 'kaiming', 'pytorch' or a pair (sigma_w, sigma_b), got {checks.shown(init)}"
    )


@public
def mlp(
    depth: int,
    width: int,
    *,
    activation: Any = "tanh",
    in_features: int = 64,
    out_features: int = 10,
    init: Init = "eoc",
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    law: WeightLaw | None = None,
) -> Architecture:
    """Build a fully connected network of `depth` weight layers with `width` units in each hidden layer.

    Args:
        depth: number L of weight layers, at least 1; the last one has no activation.
        width: units in each hidden layer.
        activation: anything `eoc.activation` takes.
        in_features, out_features: inputs and classes.
        init: "eoc", "kaiming", "pytorch" or (σ_w, σ_b); see `init_scales`.
        sigma_w: with `sigma_b`, sets the scales directly instead of `init`.
        sigma_b: bias scale of init="eoc".
        law: distribution of the weights, "normal" or "uniform"; by default "uniform" for init="pytorch", else
            "normal".

    Raises:
        ArgumentError: an argument outside the above. NoCriticalPointError: init="eoc" has no solution.
    """
    depth = checks.integer("depth", depth, minimum=1, maximum=MOST_LAYERS)
    width = checks.integer("width", width, minimum=1)
    in_features = checks.integer("in_features", in_features, minimum=1)
    out_features = checks.integer("out_features", out_features, minimum=1)
    if law is None:
        law = "uniform" if isinstance(init, str) and init == "pytorch" else "normal"
    checks.one_of("law", law, ("normal", "uniform"))
    act = _activation(activation)
    if sigma_w is not None:
        init = (checks.positive("sigma_w", sigma_w), checks.non_negative("sigma_b", sigma_b or 0.0))
    sizes = [in_features] + [width] * (depth - 1) + [out_features]
    scales = {n: init_scales(act, init, sigma_b=sigma_b, fan_in=n) for n in set(sizes[:-1])}
    return Architecture(
        tuple(
            WeightLayer(
                name=f"layers.{index}",
                fan_in=fan_in,
                fan_out=fan_out,
                sigma_w=scales[fan_in][0],
                sigma_b=scales[fan_in][1],
                activation=act if index < depth - 1 else None,
                law=law,
            )
            for index, (fan_in, fan_out) in enumerate(pairwise(sizes))
        ),
        name=f"{act.name} MLP, {depth} layers of width {width}" if depth > 1 else f"{act.name} MLP, 1 layer",
    )


# `mlp` has a parameter of that name, as the public contract wants.
_activation = activation
