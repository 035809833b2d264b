"""A network as a graph: which layers feed which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import ModelError
from ..layers import Dense, Input, Layer, Nonlinearity, Shape, Weighted, WeightLayer


@dataclass(frozen=True)
class Node:
    """A layer and the nodes whose values it takes, by their positions in the graph."""

    layer: Layer
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after its inputs: the first is the input, the last the logits."""

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0].layer, Input):
            raise ModelError("nodes must begin with an Input")
        for position, node in enumerate(self.nodes):
            if any(not 0 <= source < position for source in node.inputs):
                raise ModelError(f"node {node.layer.name!r} must come after its inputs, got {node.inputs}")
        names = [layer.name for layer in self.weight_layers]
        if not names:
            raise ModelError("nodes must hold at least one Dense or Convolution layer, got none")
        if len(set(names)) < len(names):
            raise ModelError("each layer's weights must be used once, got the same name twice")
        space = self.output_shape.space
        if len(space) > 1 or (space and not any(node.layer.attends for node in self.nodes)):
            raise ModelError(
                "the last node must give logits as a vector, or one vector a token where tokens attend, got "
                f"shape {self.output_shape}"
            )

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of every node's value."""
        found: list[Shape] = []
        for node in self.nodes:
            found.append(node.layer.output_shape(*(found[source] for source in node.inputs)))
        return tuple(found)

    @property
    def input_shape(self) -> Shape:
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Positions of the nodes with weights."""
        return tuple(i for i, node in enumerate(self.nodes) if node.layer.weighted is not None)

    @cached_property
    def weight_layers(self) -> tuple[WeightLayer, ...]:
        """The weights of those nodes."""
        return tuple(self.weighted_layer(i).weight for i in self.weighted)

    def weighted_layer(self, position: int) -> Weighted:
        """The layer of a node with weights."""
        layer = self.nodes[position].layer.weighted
        assert layer is not None, f"node {position} has no weights"
        return layer

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For every node, the nodes that take its value, once for each time they do."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for source in node.inputs:
                found[source].append(position)
        return tuple(map(tuple, found))

    def with_weights(self, weights: Mapping[str, WeightLayer]) -> Graph:
        """The same graph with other weights in the layers that `weights` names; shapes must stay.

        Raises:
            ModelError: a name that no layer with weights has, or weights of another shape.
        """
        known = {layer.name: layer for layer in self.weight_layers}
        for name, weight in weights.items():
            if name not in known or weight.weight_shape != known[name].weight_shape:
                wanted = (
                    f"shape {known[name].weight_shape}" if name in known else "one of " + ", ".join(known)
                )
                raise ModelError(f"weights must fit the graph: {name!r} must be {wanted}")
        nodes = list(self.nodes)
        for position in self.weighted:
            layer = self.weighted_layer(position)
            weight = weights.get(layer.weight.name, layer.weight)
            nodes[position] = replace(nodes[position], layer=layer.with_weight(weight))
        return Graph(tuple(nodes))

    @classmethod
    def of_chain(cls, layers: Sequence[WeightLayer]) -> Graph:
        """Fully connected layers one after the other, each followed by its activation."""
        build = GraphBuilder(Shape(layers[0].fan_in))
        for layer in layers:
            build.add(Dense(layer.name, layer))
            if layer.activation is not None:
                build.add(Nonlinearity(f"{layer.name}.activation", layer.activation))
        return build.build()

    def as_chain(self) -> tuple[WeightLayer, ...] | None:
        """The weight layers, each with the activation after it, if nothing else changes a value."""
        layers: list[WeightLayer] = []
        after: list[bool] = []
        for position, node in enumerate(self.nodes):
            layer = node.layer
            if position and node.inputs != (position - 1,):
                return None
            if layer.weighted is not None and layer.weighted.is_dense:
                if layers and not after[-1]:
                    return None
                layers.append(layer.weighted.weight)
                after.append(False)
            elif layer.nonlinearity is not None and layers and not after[-1]:
                if layers[-1].activation != layer.nonlinearity:
                    return None
                after[-1] = True
            elif not layer.keeps_vectors:
                return None
        return None if not layers or after[-1] else tuple(layers)


class GraphBuilder:
    """Collects nodes one by one; each call returns the position of the node that it added."""

    def __init__(self, shape: Shape, name: str = "input") -> None:
        self.nodes = [Node(Input(name, shape))]

    def add(self, layer: Layer, *inputs: int) -> int:
        """A node that takes the values of the nodes at `inputs`; by default that of the last node."""
        self.nodes.append(Node(layer, inputs or (len(self.nodes) - 1,)))
        return len(self.nodes) - 1

    def build(self) -> Graph:
        """The graph of all nodes so far, the last one its output."""
        return Graph(tuple(self.nodes))
