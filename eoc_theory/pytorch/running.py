"""Run a user's model: whatever its forward pass raises becomes one error that says where."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..base.boundary import memory_ended
from ..errors import DataError, EOCError, ModelError
from .lazy import torch

#: What inputs of a wrong shape, type or number raise in torch's layers.
_ABOUT_INPUTS = (RuntimeError, ValueError, IndexError)


def run_model(
    model: Any,
    inputs: Any,
    name: str = "data (or example_input)",
    keywords: Mapping[str, Any] | None = None,
) -> Any:
    """What `model` returns for a batch of inputs.

    Args:
        model: a torch module.
        inputs: one tensor, or a tuple of positional inputs.
        name: the argument that they come from, for messages.
        keywords: inputs by name.

    Raises:
        DataError: inputs that the model does not take. ModelError: any other exception of its own code.
    """
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    keywords = keywords or {}
    try:
        return model(*args, **keywords)
    except (EOCError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        where = failing_module(model, error)
        if isinstance(error, _ABOUT_INPUTS) and not isinstance(error, NotImplementedError):
            raise DataError(
                f"{name} must be inputs that the model takes, got {_shapes(args, keywords)} "
                f"({where}: {_reason(error)})"
            ) from error
        raise ModelError(f"model's forward pass fails in {where}: {_reason(error)}") from error


@contextmanager
def backward_pass() -> Iterator[None]:
    """Say of what the model's own backward pass raises inside that it is the model's.

    Raises:
        ModelError: autograd cannot differentiate the model: a layer that works in place overwrote what
            another one needs, or an operation or a hook of the model's own fails.
    """
    try:
        yield
    except (EOCError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if memory_ended(error):
            raise
        raise ModelError(f"model's backward pass fails: {_reason(error)}") from error


def bind_inputs(model: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    """Whether the forward pass can be called with these inputs, as far as its signature shows."""
    return _misfit(model, args, keywords) is None


def check_takes(model: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Raises ModelError where the forward pass cannot be called with these inputs and no more."""
    error = _misfit(model, args, keywords)
    if error is None:
        return
    kind = type(model).__name__
    if len(args) == 1 and not keywords:
        raise ModelError(f"model must take one batch of inputs: {kind}, {error}") from None
    given = ", ".join([f"{len(args)} by position"] * bool(args) + list(map(repr, keywords)))
    raise ModelError(f"model must take the inputs of the data ({given}): {kind}, {error}") from None


def _misfit(model: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> TypeError | None:
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None  # compiled: it has none to show
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        return error
    return None


def _shapes(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """Shapes and types of inputs, for messages."""

    def shape(value: Any) -> str:
        if not isinstance(value, torch.Tensor):
            return repr(value)[:40]
        return f"shape {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"

    return ", ".join([*map(shape, args), *(f"{name}: {shape(value)}" for name, value in keywords.items())])


def failing_module(model: Any, error: BaseException) -> str:
    """The innermost module of `model` that was running when the error was raised, for messages."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = model, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module) and id(owner) in names:
            found = owner
        trace = trace.tb_next
    name, kind = names[id(found)], type(found).__name__
    return f"module {name!r} ({kind})" if name else f"the model ({kind})"


def _reason(error: BaseException) -> str:
    """The message's first line that says something, and the kind of error where the message is short."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    text = next((line for line in lines if line), "")[:200]
    plain = type(error) in (RuntimeError, ValueError) and text
    return text if plain else f"{type(error).__name__}: {text}" if text else type(error).__name__
