"""Where sampled networks come from: one model's weights drawn anew, or a factory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ...base.isolation import converted
from ...errors import ModelError
from ...layers import WeightLayer
from ..factories import made, takes_seed
from ..models import PrunableWeight, prunable_weights
from .laws import ParameterLaw, read_laws
from .redraw import redraw_


class Source(Protocol):
    """Makes networks."""

    @property
    def layers(self) -> tuple[WeightLayer, ...]:
        """The ranked layers, whose distributions count where `laws_known`."""
        ...

    @property
    def laws_known(self) -> bool: ...
    @property
    def is_built(self) -> bool:
        """Whether its networks are what `Architecture.to_torch` makes, and of no further use."""
        ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """A model and its ranked weights; `stream` are whole numbers that name the network."""
        ...


class Redrawn:
    """Networks like one model, its parameters drawn from the distributions that its own show."""

    is_built = False

    def __init__(self, model: Any, weights: Sequence[PrunableWeight]) -> None:
        self._model, self._weights = model, list(weights)
        self._laws = read_laws(model, weights)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        laws = [self._laws[names[id(weight.tensor)]] for weight in weights]
        self.layers = tuple(weight_layer(w, law) for w, law in zip(weights, laws, strict=True))
        self.laws_known = all(law.is_known for law in laws) and all(w.is_plain for w in weights)
        self.notes = _shuffled_notes(self._weights, laws)
        sizes = [w.size for w in weights]
        shuffled = sum(size for size, law in zip(sizes, laws, strict=True) if law.law == "shuffled")
        #: Whether most of the weights follow no known distribution.
        self.is_trained = 2 * shuffled > sum(sizes)

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """A double of the model with other values."""
        twin = converted(self._model)
        redraw_(twin.model, self._laws, stream)
        weights = [
            replace(w, module=twin.of(w.module), holder=None if w.holder is None else twin.of(w.holder))
            for w in self._weights
        ]
        return twin.model, weights


def _shuffled_notes(weights: Sequence[PrunableWeight], laws: Sequence[ParameterLaw]) -> tuple[str, ...]:
    names = [w.name for w, law in zip(weights, laws, strict=True) if law.law == "shuffled"]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"the weights of {names[0]!r}{more} follow no known distribution (trained?): sampled networks have "
        "the same values in another order within each row",
    )


class Made:
    """Networks that a function makes."""

    is_built = False

    def __init__(
        self,
        factory: Callable[..., Any],
        first: Any,
        weights: Sequence[PrunableWeight],
        known: Mapping[str, ParameterLaw],
    ) -> None:
        """`first` is a network that it made, with its ranked weights; `known` are laws that were recorded."""
        self._factory, self._seeded = factory, takes_seed(factory)
        paths = {id(module): path for path, module in first.named_modules()}
        self._places = [
            (w, paths[id(w.module)], None if w.holder is None else paths[id(w.holder)]) for w in weights
        ]
        self._shapes = [tuple(w.tensor.shape) for w in weights]
        names = {id(parameter): name for name, parameter in first.named_parameters()}
        own = [names[id(weight.tensor)] for weight in weights]
        # Where a law is not recorded one network shows its scale, with an error that others need not have.
        read = {} if all(name in known for name in own) else read_laws(first, weights)
        laws = [known.get(name) or read[name] for name in own]
        self.layers = tuple(weight_layer(w, law) for w, law in zip(weights, laws, strict=True))
        recorded = all(name in known and known[name].is_known for name in own)
        self.laws_known = recorded and all(weight.is_plain for weight in weights)
        self.notes: tuple[str, ...] = ()

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """A new network of the factory's."""
        (seed,) = np.random.SeedSequence(stream).generate_state(1)
        model = made(self._factory, int(seed) >> 1, self._seeded)
        weights = []
        for (weight, path, holder), shape in zip(self._places, self._shapes, strict=True):
            try:
                own = replace(
                    weight,
                    module=model.get_submodule(path),
                    holder=None if holder is None else model.get_submodule(holder),
                )
                fits = tuple(own.tensor.shape) == shape
            except AttributeError:
                fits = False
            if not fits:
                raise ModelError(
                    f"net must make the same layers every time, got another {weight.name!r} the second time"
                )
            weights.append(own)
        return model, weights


def weight_layer(weight: PrunableWeight, law: ParameterLaw) -> WeightLayer:
    """A ranked weight as plain data; of an unknown law the scale alone is right."""
    shape = tuple(weight.tensor.shape)
    # Of a matrix (inputs, outputs), as transformers' Conv1D has it, the units come last.
    rows, columns = (shape[0] if shape else 1), math.prod(shape[1:])
    fan_in, fan_out = (rows, columns) if len(shape) == 2 and weight.unit_axes[1] else (columns, rows)
    bias = weight.bias
    spread = 0.0 if bias is None else float(bias.detach().double().square().mean().sqrt())
    scale = law.std if law.std else float(weight.tensor.detach().double().square().mean().sqrt())
    known: Any = law.law if law.law in ("normal", "uniform", "truncated", "orthogonal") else "normal"
    return WeightLayer(
        name=weight.label,
        fan_in=fan_in,
        fan_out=fan_out,
        sigma_w=scale * math.sqrt(fan_in),
        sigma_b=spread if math.isfinite(spread) else 0.0,
        law=known,
        kernel=shape[2:],
    )


@dataclass(frozen=True)
class Built:
    """Networks of an architecture, with weights sampled from its initialisation."""

    net: Any
    layers: tuple[WeightLayer, ...]
    laws_known: bool = True
    notes: tuple[str, ...] = ()

    is_built = True

    def network(self, stream: list[int]) -> tuple[Any, list[PrunableWeight]]:
        """A new torch model of it."""
        (seed,) = np.random.SeedSequence(stream).generate_state(1)
        model = self.net.to_torch(int(seed) >> 1)
        weights = {w.name: w for w in prunable_weights(model)}
        return model, [weights[layer.name] for layer in self.layers]
