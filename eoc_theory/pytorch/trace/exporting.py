"""The ATen graph of a model, by torch.export, made on a double with values that have no numbers."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import threading
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ...base.isolation import RandomStates, Twin
from ...errors import EOCError, ModelError
from ..models import taken, weight_classes
from .call import Call
from .opaque import Opaque

#: torch.export keeps settings of the process while it runs.
_ONE_AT_A_TIME = threading.Lock()
#: Modules of one model that may turn out to be beyond export, one by one.
_MOST_TRIES = 64
OUTSIDE = "it uses .data, or a tensor kept from another call, which cannot be read"
_OWN_GRADIENT = "an autograd.Function has a gradient of its own"


@dataclass(frozen=True)
class Exported:
    """A model's operations.

    Attributes:
        program: the ``torch.export.ExportedProgram``.
        model: the double that was exported.
        opaque: its modules that are one operation each.
        failures: of those that export could not follow, why, by their numbers.
        call: what it was called with.
    """

    program: Any
    model: nn.Module
    opaque: Opaque
    failures: dict[int, str]
    call: Call


def exported(model: nn.Module, call: Call, first: Any) -> Exported:
    """The operations of a model on what it is called with.

    Args:
        first: a function without arguments that gives the layer with weights that runs first, or None.

    Raises:
        ModelError: the forward pass cannot be followed; the message says in which module.
    """
    twin = _double(model)
    double = twin.model
    opaque, failures = Opaque(), {}
    opaque.registered(double)
    with _ONE_AT_A_TIME:
        for _ in range(_MOST_TRIES):
            try:
                program = _program(double, call)
                module, problem = _own_gradient_in(program, double), _OWN_GRADIENT
                if module is None:
                    opaque.restore()
                    return Exported(program, double, opaque, failures, call)
            except EOCError:
                raise
            except Exception as error:  # whatever the model's own code raises
                module, problem = _failed_in(error, double), _said(error)
                _refuse_misfit(error, module, model, twin, first, call.note)
            leaf = module is not None and next(module.children(), None) is None and module is not double
            if not leaf or module in opaque:
                raise ModelError(f"{place(double, module)}: forward cannot be traced: {problem}")
            assert module is not None
            failures[len(opaque.modules)] = problem
            opaque.activation(module)
    raise ModelError(f"{place(double, double)}: forward cannot be traced")


def _double(model: nn.Module) -> Twin:
    """A double whose parameters and buffers are the model's own, but for what torch.export cannot take."""
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def shared(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in own and not tensor.is_inference():
            return tensor
        with torch.inference_mode(False):
            made = tensor.detach().clone()
        return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made

    return Twin(model, shared)


def _program(model: nn.Module, call: Call) -> Any:
    first = next(model.parameters())
    modes = torch.inference_mode(False), torch.enable_grad()
    with _stored_values_dropped(model), no_draws(), quiet(), modes[0], modes[1]:
        args, kwargs = call.arguments(first.dtype, first.device)
        return torch.export.export(model, args, kwargs, strict=False)


@contextlib.contextmanager
def _stored_values_dropped(model: nn.Module) -> Iterator[None]:
    """Have a forward pass leave no tensors on the model's modules, which older versions of torch refuse."""
    forward, own = model.forward, "forward" in model.__dict__

    @functools.wraps(forward)
    def clean(*args: Any, **kwargs: Any) -> Any:
        before = [(module, dict(module.__dict__)) for module in model.modules()]
        try:
            return _plain(forward(*args, **kwargs))
        finally:
            for module, attributes in before:
                module.__dict__.clear()
                module.__dict__.update(attributes)

    model.__dict__["forward"] = clean
    try:
        yield
    finally:
        if own:
            model.__dict__["forward"] = forward
        else:
            del model.__dict__["forward"]


def _plain(output: Any) -> Any:
    """An output that names its logits as a dict of its tensors, without what torch.export does not know."""
    logits = None if isinstance(output, (torch.Tensor, tuple)) else getattr(output, "logits", None)
    if not isinstance(logits, torch.Tensor) or not hasattr(output, "__dict__"):
        return output
    return {name: value for name, value in vars(output).items() if _are_tensors(value)}


def _are_tensors(value: Any) -> bool:
    return all(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))


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
def quiet() -> Iterator[None]:
    """Without what torch prints and warns of a model that it cannot follow."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# --- gradients of a user's own ---


def _own_gradient_in(program: Any, model: nn.Module) -> nn.Module | None:
    """A module with operations inside of a user's autograd.Function, whose gradient need not be theirs."""
    lines = _lines_of_own_functions(torch.autograd.Function)
    if not lines:
        return None
    modules = dict(model.named_modules())
    for node in program.graph.nodes:
        for file, line in re.findall(r'File "([^"]*)", line (\d+)', node.meta.get("stack_trace") or ""):
            if (file, int(line)) in lines:
                stack = node.meta.get("nn_module_stack")
                path = next(reversed(stack.values()))[0].partition("@")[0] if stack else ""
                return modules.get(path, model)
    return None


def _lines_of_own_functions(base: type) -> set[tuple[str, int]]:
    """Files and lines of the forward passes of all autograd.Functions that are not torch's."""
    found: set[tuple[str, int]] = set()
    for kind in base.__subclasses__():
        found |= _lines_of_own_functions(kind)
        code = getattr(kind.__dict__.get("forward"), "__func__", None)
        code = getattr(code, "__code__", None)
        if code is not None and not str(kind.__module__).startswith("torch."):
            found |= {(code.co_filename, line) for _, _, line in code.co_lines() if line is not None}
    return found


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
    text = str(error)
    if "fake tensor in the exported program" in text:
        return OUTSIDE
    computed = ("data-dependent", "Boolean value of Tensor", "cannot be converted to Scalar")
    if any(sign in text for sign in computed) or "DataDependent" in type(error).__name__:
        return "the forward pass depends on computed values (dynamic control flow), which cannot be read"
    problem = " ".join(text.split())[:160] or "no message"
    return f"{type(error).__name__}: {problem}"


def _refuse_misfit(
    error: BaseException, module: Any, model: nn.Module, twin: Twin, first: Any, note: str
) -> None:  # fmt: skip
    """Say of inputs that do not fit the first layer with weights that it is the example's fault."""
    if not isinstance(module, weight_classes()):
        return
    frame = next(
        (f for f in _frames(error) if f.f_locals.get("self") is module and "input" in f.f_locals), None
    )
    given = None if frame is None else tuple(getattr(frame.f_locals["input"], "shape", ()))
    channels, axes = taken(module)
    fits = given is None or ((given[-1:] if not axes else given[1:2]) == (channels,) and (
        not axes or len(given) == axes + 2
    ))  # fmt: skip
    if fits or given is None:
        return
    name = next(name for name, other in twin.model.named_modules() if other is module)
    wanted = f"{channels} channels over {axes} axes" if axes else f"{channels}"
    shown = (
        f"shape (B, {', '.join(map(str, given[1:]))})" if axes or len(given) != 2 else f"{given[1]} features"
    )
    if note or first() is not twin.original(module):
        raise ModelError(
            f"{place(twin.model, module)}: takes {wanted}, got {shown}{f' ({note})' if note else ''}"
        ) from error
    raise ModelError(
        f"example_input has {shown}, the first layer {name or 'weight'!r} takes {wanted}"
    ) from error
