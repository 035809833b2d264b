"""What a model is called with while it is read: one input or several, of which shapes and types count."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import ModelError
from ...signals.data import are_several
from ...signals.parts import InputPart
from .nodes import describe

#: Readings of a model's masks that are tried, at most.
_MOST_READINGS = 24
#: Examples that a model is read with at least where padding is told from tokens.
_ENOUGH = 8


@dataclass(frozen=True)
class GivenInput:
    """A tensor that a model is called with.

    Attributes:
        name: of the argument; "" for the only one.
        at: its place among the arguments.
        by_name: whether it is given by name.
        sizes: its shape, the batch first where it has one (`has_batch`).
        dtype: None where a shape alone was given.
        values: where they were given.
    """

    name: str
    at: int
    by_name: bool
    sizes: tuple[int, ...]
    dtype: torch.dtype | None
    values: torch.Tensor | None = None
    has_batch: bool = True

    @property
    def alike(self) -> torch.Tensor | None:
        """Its values where they are the same for all examples, of one example."""
        if self.values is None or not self.has_batch:
            return self.values
        same = len(self.values) and bool((self.values == self.values[:1]).all())
        return self.values[0] if same else None

    def roles(self) -> list[str]:
        """What it may be beside a first input, most likely first; see `InputPart`."""
        inner = [n for n in self.sizes[1:] if n > 1]
        found: list[str] = []
        if self.has_batch and len(inner) in (1, 2):
            real = self.dtype is not None and self.dtype.is_floating_point
            of_bool = self.dtype is torch.bool
            found = (
                ["closes", "keeps"]
                if of_bool
                else ["added", "keeps", "closes"]
                if real
                else ["keeps", "closes"]
            )
            found = [role for role in found if self._may_be(role)]
        if self.alike is not None:
            found.append("fixed")
        if self.has_batch and (self.dtype is None or self.dtype.is_floating_point):
            found.append("values")
        return found

    def _may_be(self, role: str) -> bool:
        if self.values is None:
            return True
        values = self.values.double()
        if role == "added":
            return bool(((values == 0.0) | (values < -1.0)).all())
        return bool(((values == 0.0) | (values == 1.0)).all())

    def part(self, role: str) -> InputPart:
        """What it is among a network's inputs."""
        fixed: tuple[float, ...] = ()
        if role == "fixed":
            assert self.alike is not None
            fixed = tuple(map(float, self.alike.double().reshape(-1)))
        return InputPart(
            self.name, self.sizes[1:] if self.has_batch else self.sizes, self.at, role, fixed=fixed
        )


@dataclass(frozen=True)
class Call:
    """All that a model is called with.

    Attributes:
        inputs: the tensors, in the order of the model's arguments.
        others: numbers, texts and None that are passed as they are, by the arguments' names.
        batch: number of examples.
        note: what was assumed, for errors.
    """

    inputs: tuple[GivenInput, ...]
    others: Mapping[str, Any]
    batch: int
    note: str = ""

    @classmethod
    def of_one(cls, sizes: tuple[int, ...], whole: bool, note: str = "") -> Call:
        """Of one input; `whole` numbers, or real ones."""
        batch = max(sizes[0], _ENOUGH if whole and sizes[1] > 1 else 2)
        one = GivenInput("", 0, False, (batch, *sizes[1:]), torch.long if whole else None)
        return cls((one,), {}, batch, note)

    @property
    def single(self) -> bool:
        """Whether it is one input by position, of whatever name."""
        return len(self.inputs) == 1 and not self.inputs[0].by_name and not self.others

    def with_dtypes(self, dtypes: Mapping[int, torch.dtype]) -> Call:
        """With types for those of which the shape alone was given, by their places."""
        return replace(
            self, inputs=tuple(replace(one, dtype=dtypes.get(one.at, one.dtype)) for one in self.inputs)
        )

    def arguments(self, dtype: torch.dtype, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tensors of these sizes without memory, real ones of `dtype`, by position and by name."""

        def made(one: GivenInput) -> torch.Tensor:
            kind = dtype if one.dtype is None or one.dtype.is_floating_point else one.dtype
            return torch.zeros((), dtype=kind, device=device).expand(one.sizes)

        args = tuple(made(one) for one in self.inputs if not one.by_name)
        return args, {**{one.name: made(one) for one in self.inputs if one.by_name}, **self.others}

    def readings(self, looked_up: set[int]) -> Iterator[tuple[str, ...]]:
        """What the inputs are taken for, likely ones first; `looked_up` are the numbers of a table's rows."""
        choices = []
        for number, one in enumerate(self.inputs):
            plain = number in looked_up or not choices
            choices.append(["values"] if plain and one.has_batch else one.roles())
        for one, roles in zip(self.inputs, choices, strict=True):
            if not roles:
                raise ModelError(
                    f"input {one.name!r} of shape {one.sizes} is no mask of tokens, no token numbers and not "
                    "the same for all examples: the theory describes no other (method='sampled' takes it)"
                )
        for number, roles in enumerate(product(*choices)):
            if number < _MOST_READINGS:
                yield roles


def several(model: nn.Module, example: Any) -> Call:
    """The call of an example with several inputs: a tuple of them, or by name.

    Raises:
        ModelError: inputs that are no tensors, or that the model does not take.
    """
    names = _names(model)
    by_name = isinstance(example, Mapping)
    entries = list(example.items()) if by_name else [
        (names[at] if at < len(names) else f"argument {at + 1}", value) for at, value in enumerate(example)
    ]  # fmt: skip
    inputs, others = [], {}
    for number, (name, value) in enumerate(entries):
        if not isinstance(name, str):
            raise ModelError("example_input must have names of the model's inputs for keys, got others")
        at = names.index(name) if name in names else number if not by_name else len(names) + number
        if value is None or isinstance(value, (bool, int, float, str)):
            if not by_name and value is not None:
                raise ModelError(f"example_input must hold tensors or their shapes, got {describe(value)}")
            others[name] = value
        else:
            inputs.append(_input(name, at, by_name, value))
    if not inputs:
        raise ModelError("example_input must hold a tensor or its shape, got none")
    # By position others may stand in between: all are given by name where names are known.
    inputs.sort(key=lambda one: one.at)
    if others and not by_name:
        inputs = [replace(one, by_name=True) for one in inputs]
    return _batched(inputs, others)


def _batched(inputs: list[GivenInput], others: dict[str, Any]) -> Call:
    """Every input that has as many rows as the first with as many as are needed."""
    own = inputs[0].sizes[0]
    batch, made = max(own, _ENOUGH), []
    for one in inputs:
        if one.sizes[:1] == (own,):
            made.append(replace(one, sizes=(batch, *one.sizes[1:])))
        else:
            made.append(replace(one, has_batch=False))
    return Call(tuple(made), others, batch)


def _names(model: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def _input(name: str, at: int, by_name: bool, value: Any) -> GivenInput:
    if isinstance(value, (tuple, list)) and value and all(_is_whole(n) for n in value):
        return GivenInput(name, at, by_name, tuple(map(int, value)), None)
    try:
        tensor = torch.as_tensor(value if isinstance(value, torch.Tensor) else np.asarray(value)).detach()
    except Exception:
        raise ModelError(
            f"input {name!r} of example_input must be a tensor or a shape, got {describe(value)}"
        ) from None
    if not tensor.dim() or not tensor.numel():
        raise ModelError(f"input {name!r} of example_input must be a batch, got shape {tuple(tensor.shape)}")
    whole = not tensor.is_floating_point() and tensor.dtype is not torch.bool
    values = None if tensor.is_meta else tensor.cpu()
    return GivenInput(name, at, by_name, tuple(tensor.shape), torch.long if whole else tensor.dtype, values)


def is_several(example: Any) -> bool:
    """Whether an example has several inputs, or inputs by name; tuples of shapes are such, too."""
    if isinstance(example, Mapping) or are_several(example):
        return True
    return isinstance(example, tuple) and len(example) > 1 and all(
        isinstance(one, (tuple, list)) and one and all(map(_is_whole, one)) for one in example
    )  # fmt: skip


def batch_shape_of(example: Any) -> tuple[int, ...]:
    """The shape of a batch of inputs; see `eoc_theory.pytorch.trace.batch_shape`."""
    if is_several(example):
        raise ModelError(
            "example_input must be one batch of inputs for this, got several or inputs by name, as an "
            "attention mask is; method='sampled' takes them"
        )
    if isinstance(example, (tuple, list)) and example and all(_is_whole(n) for n in example):
        sizes = tuple(int(n) for n in example)
    else:
        try:
            sizes = tuple(int(n) for n in getattr(example, "shape", None) or np.shape(example))
        except Exception:
            sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise ModelError(
            "example_input must be a batch of inputs, (B, features), (B, C, length) or (B, C, height, width),"
            f" got {'shape ' + str(sizes) if sizes else describe(example)}"
        )
    return sizes


def _is_whole(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)
