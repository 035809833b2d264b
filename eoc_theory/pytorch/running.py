"""Run a user's model: whatever its forward pass raises becomes one error that says where."""

from __future__ import annotations

from typing import Any

from ..errors import DataError, EOCError, ModelError
from .models import require_torch

#: What inputs of a wrong shape, type or number raise in torch's layers.
_ABOUT_INPUTS = (RuntimeError, ValueError, IndexError)


def run_model(model: Any, inputs: Any, name: str = "data (or example_input)") -> Any:
    """What `model` returns for a batch of inputs; `name` is the argument they come from.

    Raises:
        DataError: inputs that the model does not take. ModelError: any other exception of its own code.
    """
    torch = require_torch()
    try:
        return model(inputs)
    except (EOCError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        where = failing_module(model, error)
        if isinstance(error, _ABOUT_INPUTS) and not isinstance(error, NotImplementedError):
            raise DataError(
                f"{name} must be inputs that the model takes, got shape {tuple(inputs.shape)} of "
                f"{str(inputs.dtype).removeprefix('torch.')} ({where}: {_reason(error)})"
            ) from error
        raise ModelError(f"model's forward pass fails in {where}: {_reason(error)}") from error


def failing_module(model: Any, error: BaseException) -> str:
    """The innermost module of `model` that was running when the error was raised, for messages."""
    torch = require_torch()
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
