"""The ATen graph of a model, by torch.export, made on a double with values that have shapes and no numbers."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...base.isolation import RandomStates, Twin, parameters_shared
from ...errors import EOCError, ModelError
from ..models import taken, weight_classes
from .opaque import Opaque

#: torch.export keeps settings of the process while it runs.
_ONE_AT_A_TIME = threading.Lock()
#: Modules of one model that may turn out to be beyond export, one by one.
_MOST_TRIES = 64


@dataclass(frozen=True)
class Exported:
    """A model's operations.

    Attributes:
        program: the ``torch.export.ExportedProgram``.
        model: the double that was exported.
        opaque: its modules that are one operation each.
        failures: of those that export could not follow, why, by their numbers.
    """

    program: Any
    model: nn.Module
    opaque: Opaque
    failures: dict[int, str]


def exported(model: nn.Module, sizes: tuple[int, ...], first: Any, note: str = "") -> Exported:
    """The operations of a model on a batch of these sizes.

    Args:
        first: a function without arguments that gives the layer with weights that runs first.
        note: what was assumed of the input, for errors.

    Raises:
        ModelError: the forward pass cannot be followed; the message says in which module.
    """
    twin = parameters_shared(model)
    double = twin.model
    opaque, failures = Opaque(), {}
    opaque.registered(double)
    with _ONE_AT_A_TIME:
        for _ in range(_MOST_TRIES):
            try:
                return Exported(_program(double, sizes, opaque), double, opaque, failures)
            except EOCError:
                raise
            except _OwnGradient as met:
                module, problem = met.module, "an autograd.Function has a gradient of its own"
                own = True
            except Exception as error:  # whatever the model's own code raises
                module, problem, own = _failed_in(error, double), _said(error), False
                _refuse_misfit(error, module, model, twin, sizes, first, note)
            leaf = module is not None and next(module.children(), None) is None and module is not double
            if not leaf or module in opaque:
                raise ModelError(f"{place(double, module)}: forward cannot be traced: {problem}")
            assert module is not None
            failures[len(opaque.modules)] = problem
            opaque.activation(module, own)
    raise ModelError(f"{place(double, double)}: forward cannot be traced")


def _program(model: nn.Module, sizes: tuple[int, ...], opaque: Opaque) -> Any:
    first = next(model.parameters())
    with no_draws(), _quiet(), torch.inference_mode(False), torch.enable_grad(), _OwnGradients(model):
        x = torch.zeros((), dtype=first.dtype, device=first.device).expand(sizes)
        return torch.export.export(model, (x,), strict=False)


@contextlib.contextmanager
def no_draws() -> Iterator[None]:
    """Refuse models that draw random numbers outside of torch, and give the states back."""
    states = RandomStates()
    try:
        yield
        if not states.same():
            raise ModelError("model draws random numbers in its forward pass, which cannot be read")
    finally:
        states.restore()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export prints and warns of a model that it cannot follow."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# --- gradients of a user's own ---


class _OwnGradient(BaseException):
    """Ends an export in a module that has an autograd.Function; no error, so that no model's code catches it."""

    def __init__(self, module: nn.Module | None) -> None:
        super().__init__()
        self.module = module


class _OwnGradients(TorchFunctionMode):
    """Stops at operations inside of a user's autograd.Function, whose gradient need not be theirs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.known = {id(module) for module in model.modules()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame, inside = sys._getframe(1), False
        while frame is not None and frame.f_code is not _program.__code__:
            code = frame.f_code
            inside = inside or code.co_name == "apply" and code.co_filename == torch.autograd.function.__file__
            if inside and id(frame.f_locals.get("self")) in self.known:
                raise _OwnGradient(frame.f_locals["self"])
            frame = frame.f_back
        if inside:
            raise _OwnGradient(None)
        return func(*args, **(kwargs or {}))


# --- failures ---


def place(model: nn.Module, module: nn.Module | None) -> str:
    """Where in the model a module is, for messages."""
    for name, other in model.named_modules():
        if name and other is module:
            return f"module {name!r} ({type(module).__name__})"
    return f"the model ({type(model).__name__})"


def _frames(error: BaseException) -> Iterator[types.FrameType]:
    """The frames of an error, innermost first."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return reversed(found)  # type: ignore[return-value]


def _failed_in(error: BaseException, model: nn.Module) -> nn.Module | None:
    """The innermost of the model's modules that were being called."""
    known = {id(module): module for module in model.modules()}
    for frame in _frames(error):
        module = known.get(id(frame.f_locals.get("self")))
        if module is not None:
            return module
    return None


def _said(error: BaseException) -> str:
    if "data-dependent" in str(error) or type(error).__name__.startswith("DataDependent"):
        return (
            "the forward pass depends on computed values (dynamic control flow), which cannot be read"
        )
    problem = " ".join(str(error).split())[:160] or "no message"
    return f"{type(error).__name__}: {problem}"


def _refuse_misfit(
    error: BaseException, module: Any, model: nn.Module, twin: Twin, sizes: tuple[int, ...], first: Any,
    note: str,
) -> None:  # fmt: skip
    """Say of inputs that do not fit the first layer with weights that it is the example's fault."""
    if not isinstance(module, weight_classes()):
        return
    frame = next((f for f in _frames(error) if f.f_locals.get("self") is module and "input" in f.f_locals), None)
    given = None if frame is None else tuple(getattr(frame.f_locals["input"], "shape", ()))
    channels, axes = taken(module)
    fits = given is None or (given[-1:] if not axes else given[1:2]) == (channels,) and (
        not axes or len(given) == axes + 2
    )  # fmt: skip
    if fits or given is None:
        return
    name = next(name for name, other in twin.model.named_modules() if other is module)
    wanted = f"{channels} channels over {axes} axes" if axes else f"{channels}"
    shown = f"shape (B, {', '.join(map(str, given[1:]))})" if axes or len(given) != 2 else f"{given[1]} features"
    if note or first() is not twin.original(module):
        raise ModelError(
            f"{place(twin.model, module)}: takes {wanted}, got {shown}{f' ({note})' if note else ''}"
        ) from error
    raise ModelError(
        f"example_input has {shown}, the first layer {name or 'weight'!r} takes {wanted}"
    ) from error
