"""What a comparison is of: networks for seeds, and the network that is predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..networks.architecture import Architecture
from ..networks.resolve import Network, Options, as_network, is_model
from ..networks.unread import UnreadNetwork
from ..pytorch.factories import made
from ..pytorch.inputs import example_shape
from ..pytorch.models import prunable_weights
from ..pytorch.read import read_network

#: Of streams of measured networks, so that none is one of the sampled networks that predict.
_MEASURED = 0x6D656173


@dataclass
class Subject:
    """Networks that are measured, and what they are predicted from.

    Attributes:
        make: seed → model.
        batch: what both are computed on.
        example: shows the shape of inputs; None where `batch` does.
        net: what is predicted; None: the mean of the measured networks, as they are read.
        read: those networks.
        reader: reads one.
    """

    make: Callable[[int], Any]
    batch: Any
    example: Any
    net: Network | None = None
    read: list[Architecture] = field(default_factory=list)
    reader: Callable[[Any], Architecture] | None = None

    @classmethod
    def of(cls, factory: Any, data: Any, options: Options, first: int) -> Subject:
        """The subject of a comparison; `first` is the first seed that will be measured.

        Raises:
            ArgumentError, DataError, ModelError: as `as_network`.
        """
        if isinstance(factory, Architecture):
            net = as_network(factory, data, options)
            return cls(factory.to_torch, net.summarise(data), example_shape(factory), net)
        if is_model(factory):
            net = as_network(factory, data, options)
            from ..pytorch.sample.sources import Redrawn  # torch at its top

            source = Redrawn(factory, prunable_weights(factory))
            return cls(lambda seed: source.network([seed, _MEASURED])[0], *_inputs(net, data, options), net)

        def model(seed: int) -> Any:
            return made(factory, seed, name="factory")

        shown = model(first)
        one = as_network(shown, data, options)
        if isinstance(one, UnreadNetwork):
            net = as_network(factory, data, options)
            return cls(model, *_inputs(net, data, options), net)

        def read(model: Any) -> Architecture:
            return read_network(model, data, options.example_input)

        return cls(model, *_inputs(one, data, options), reader=read)

    @property
    def needs_models(self) -> bool:
        """Whether the network is predicted from the measured ones."""
        return self.net is None

    def model(self, seed: int) -> Any:
        """The network of a seed."""
        model = self.make(seed)
        if self.reader is not None:
            self.read.append(self.reader(model))
        return model

    def only(self, count: int) -> None:
        """Forget all but the first networks."""
        del self.read[count:]

    def network(self) -> Network:
        """What is predicted."""
        return _average(self.read) if self.net is None else self.net


def _inputs(net: Network, data: Any, options: Options) -> tuple[Any, Any]:
    """The batch, and what shows the shape of its inputs; of several inputs the data themselves."""
    batch = net.summarise(data)
    if isinstance(net, Architecture) and net.as_graph().nodes[0].layer.input_parts:
        return (batch if data is None else data), options.example_input
    return batch, example_shape(net) if isinstance(net, Architecture) else options.example_input


def _average(nets: list[Architecture]) -> Architecture:
    """The network whose variances σ_w², σ_b² are the mean of the given ones, layer by layer.

    Laws and all that has no weights are those of the first.
    """
    first = nets[0]
    if any(_structure(net) != _structure(first) for net in nets):
        raise ModelError("factory must return the same layers for every seed")

    def mean_scale(index: int, name: str) -> float:
        return float(np.sqrt(np.mean([getattr(net.layers[index], name) ** 2 for net in nets])))

    layers = tuple(
        replace(layer, sigma_w=mean_scale(i, "sigma_w"), sigma_b=mean_scale(i, "sigma_b"))
        for i, layer in enumerate(first.layers)
    )
    if first.is_chain:
        return Architecture(layers, name=first.name)
    graph = first.as_graph().with_weights({layer.name: layer for layer in layers})
    return Architecture.from_graph(graph, first.name)


def _structure(net: Architecture) -> tuple[Any, ...]:
    """What must be the same for every seed: the layers, their shapes and how they are connected."""
    nodes = net.as_graph().nodes
    return (
        tuple((layer.name, layer.weight_shape) for layer in net.layers),
        tuple((type(node.layer), node.inputs) for node in nodes),
    )
