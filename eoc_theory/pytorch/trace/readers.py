"""The registry of readers, one for each ATen operation, and the call of one.

A reader takes the recorder and the operation's own arguments, under the names of its ATen schema (``self``
is ``input``), tensors being `Signal`s, `Constant`s or `Mask`s. It returns such a value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from ...errors import ModelError
from . import constants, known
from .recorder import Recorder
from .values import Constant, Lazy, Mask, Signal, Unreadable

Reader = Callable[..., Any]
READERS: dict[str, Reader] = {}

_LOGITS = "the theory takes logits: give the model without it"
_ATTENTION = "a product is read with weights, or head by head of two tensors computed from the input"
_RECURRENT = "recurrent layers are not described"
#: What to say of operations that are common and cannot be read.
HINTS = {
    "softmax": _LOGITS, "log_softmax": _LOGITS, "detach": "it cuts the gradient", "matmul": _ATTENTION,
    "bmm": _ATTENTION, "einsum": _ATTENTION,
    "conv3d": "convolutions over one or two axes are",
    "conv_transpose1d": "transposed convolutions are not described",
    "conv_transpose2d": "transposed convolutions are not described",
    "lstm": _RECURRENT, "gru": _RECURRENT, "rnn_tanh": _RECURRENT, "rnn_relu": _RECURRENT,
    "lstm_cell": _RECURRENT, "gru_cell": _RECURRENT, "rnn_tanh_cell": _RECURRENT, "rnn_relu_cell": _RECURRENT,
    "embedding_bag": "inputs must be numbers, not indices",
    "bilinear": "products of two inputs are not described",
}  # fmt: skip


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Register a reader for the ATen operations of these names, and for their forms that work in place."""

    def register(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return register


def call(recorder: Recorder, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of an ATen operation.

    Raises:
        ModelError: it cannot be read, or not with these arguments.
    """
    schema = target._schema
    name = schema.name.partition("::")[2]
    base = name.rstrip("_") if not name.startswith("_") else name
    recorder.operation = _NAMES.get(base) or base
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    given |= dict(zip((a.name for a in schema.arguments), args, strict=False))
    given |= kwargs
    _refuse_unreadable(given)
    first = given.get(schema.arguments[0].name) if schema.arguments else None
    in_place = bool(schema.arguments) and _writes(schema.arguments[0])
    if base in _PRODUCTS and isinstance(first, Constant) and not first.parameters and first.known is None:
        of_layer = _of_ranked_weights(recorder, given)
        source = recorder.given(first, channels_last=base == "linear") if of_layer else None
        given = given if source is None else {**given, schema.arguments[0].name: source}
    if base == "embedding" and _is_padded(base, given):
        return known.read(recorder, base, given)
    if base == "cat":
        # A cache of keys and values that is empty yet.
        given["tensors"] = [t for t in given["tensors"] if 0 not in t.sizes] or given["tensors"]
        if len(given["tensors"]) == 1:
            return given["tensors"][0]
    if constants.only_constants(given.values()) and not constants.is_random(target):
        return constants.computed(recorder, target, given, in_place)
    recorder.target = target
    padded = _is_padded(base, given)
    lazy = [value for value in _all(given) if isinstance(value, Lazy)]
    if lazy:
        result = NotImplemented if padded else lazy[0].read(recorder, base, _renamed(given))
        if result is not NotImplemented:
            return result
        given = {key: _settled(recorder, value) for key, value in given.items()}
    result = known.read(recorder, base, _renamed(given)) if padded else _read(recorder, base, target, given)
    if isinstance(first, Signal):
        return _in_memory(first, result, in_place, bool(schema.returns and schema.returns[0].alias_info))
    if in_place and isinstance(first, Constant) and not isinstance(result, Mask):
        raise recorder.refuse("changes a tensor that does not depend on the input by one that does")
    return result


def _read(recorder: Recorder, name: str, target: Any, given: dict[str, Any]) -> Any:
    """What the operation's reader makes of its arguments."""
    reader = READERS.get(name)
    if reader is None and torch.Tag.pointwise in target.tags:
        return _entrywise(recorder, target._schema, given)
    if reader is None:
        drawn = "draws random numbers, which cannot be read"
        what, hint = drawn if constants.is_random(target) else "cannot be read", HINTS.get(name)
        raise recorder.refuse(f"{what}; {hint}" if hint else what)
    given = _renamed(given)
    taken = inspect.signature(reader).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        given = {key: value for key, value in given.items() if key in taken}
    return reader(recorder, **given)


def _entrywise(recorder: Recorder, schema: Any, given: dict[str, Any]) -> Any:
    """The value of an operation that is known to act entry by entry."""
    arguments = [a for a in schema.arguments if a.name in given]
    args = [given[a.name] for a in arguments if not a.kwarg_only]
    return recorder.elementwise(*args, **{a.name: given[a.name] for a in arguments if a.kwarg_only})


#: Operations of weights, which come second.
_PRODUCTS = ("linear", "conv1d", "conv2d")


def _of_ranked_weights(recorder: Recorder, given: dict[str, Any]) -> bool:
    """Whether the weights are those of a layer that pruning ranks."""
    weight = given.get("weight")
    return isinstance(weight, Constant) and weight.parameter in recorder.ranked


#: Names under which operations are known to those who write models.
_NAMES = {"slice": "getitem", "select": "getitem", "index": "getitem"}


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _all(given: dict[str, Any]) -> Iterator[Any]:
    """All arguments, those in lists too."""
    for value in given.values():
        yield from value if isinstance(value, (list, tuple)) else (value,)


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names that readers give them."""
    return {("input" if key == "self" else key): value for key, value in given.items()}


def _settled(recorder: Recorder, value: Any) -> Any:
    """Tensors by themselves instead of parts of something."""
    if isinstance(value, (list, tuple)):
        return [_settled(recorder, item) for item in value]
    return value.settled(recorder) if isinstance(value, Lazy) else value


#: What is done to scores of attention with a mask of padding.
_MASKED = ("add", "masked_fill", "where", "baddbmm")


def _is_padded(name: str, given: dict[str, Any]) -> bool:
    """Whether an operation takes what is said of padding, but for attention and its scores."""
    told = any(isinstance(value, Constant) and value.known is not None for value in _all(given))
    of_scores = name in _MASKED and any(isinstance(v, Lazy) and v.takes_padding for v in _all(given))
    return told and not of_scores and name != "scaled_dot_product_attention"


def _refuse_unreadable(given: dict[str, Any]) -> None:
    for item in _all(given):
        if isinstance(item, Unreadable):
            raise item.error


def _in_memory(first: Signal, result: Any, in_place: bool, alias: bool) -> Any:
    """The result, in the memory where the operation puts it."""
    if in_place and isinstance(result, Signal):
        first.storage.version += 1
        return replace(result, storage=first.storage, version=first.storage.version)
    if isinstance(result, Signal) and result is not first and alias:
        return result.sharing(first)
    if isinstance(result, (list, tuple)) and alias:
        return [part.sharing(first) if isinstance(part, Signal) else part for part in result]
    return result


def spoilt(target: Any, args: tuple[Any, ...], error: ModelError) -> Unreadable:
    """The value of an operation that could not be read; what it should have changed has changed."""
    schema = getattr(target, "_schema", None)
    memory = getattr(args[0], "storage", None) if args else None
    if schema is None or not schema.arguments or memory is None:
        return Unreadable(error)
    if _writes(schema.arguments[0]):
        memory.version += 1
    return Unreadable(error, memory if any(r.alias_info is not None for r in schema.returns) else None)
