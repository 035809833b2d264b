"""Runs a model's forward pass once on values that carry shapes, by torch.fx."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Tracer

from ...activations import activation
from ...base.isolation import Twin, converted, parameters_shared
from ...errors import ActivationError, EOCError, ModelError
from ...layers import Shape
from ...networks.graph import Graph
from ..models import chain, prunable_weights, taken, weight_classes

# Imported for the readers that they register, too.
from . import arithmetic, entrywise, functions, joining, modules, reductions, reshaping, windows  # noqa: F401
from .graph_passes import finish
from .isolation import Guard, check_whole, no_draws
from .proxies import Traced, holds_signal, values
from .recorder import Recorder, describe
from .signals import Signal, Zeros


def trace_model(model: Any, example_input: Any = None) -> Graph:
    """The graph of a model; see `eoc_theory.pytorch.trace.trace`."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_whole(model)
    sizes, note = _input_sizes(model, example_input)
    # Two inputs or more: a batch of one could be taken for an axis to be squeezed.
    recorder = Recorder(Shape(sizes[1], tuple(sizes[2:])), max(sizes[0], 2), type(model).__name__, note)
    tracer, _ = _followed(recorder, model)
    with no_draws(), torch.inference_mode(False), torch.enable_grad(), Guard(tracer.model, recorder):
        output = tracer.run()
    if not isinstance(output, Signal):
        raise ModelError(f"model must return one tensor of logits, got {_kind_of_output(output)}")
    recorder.stack, recorder.operation = [], "output"
    if len(output.sizes) > 1 or output.padding is not None:
        raise ModelError(
            f"model must return logits as vectors, (B, classes), got a tensor of shape "
            f"{recorder.text(output)} (flatten it)"
        )
    return finish(
        recorder, recorder.position(output), [weight.name or "weight" for weight in tracer.prunable]
    )


#: Extent of the images tried on a model of which no input's shape is known.
_EXTENT = 32


class _Met(BaseException):
    """Ends a trace at a weight layer; no error, so that no model's own code catches it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def first_layer_of(model: nn.Module, example: Any = None) -> nn.Module | None:
    """The Linear or convolution layer that a model runs first; see `eoc_theory.pytorch.trace.first_layer`."""
    weighted = [w.module for w in prunable_weights(model) if isinstance(w.module, weight_classes())]
    model = getattr(model, "_orig_mod", model)  # of a compiled model, which would be compiled for nothing
    guesses = [] if example is None else [batch_shape_of(example)]
    try:
        # A row of layers runs as it is registered.
        row = next((module for _, module in chain(model) if module in weighted), None)
    except ModelError:
        row = None
    if row is not None:
        return row
    for module in weighted:
        channels, axes = taken(module)
        guesses.append((2, channels, *(_EXTENT,) * axes))
    for sizes in dict.fromkeys(guesses):
        recorder = Recorder(Shape(sizes[1], tuple(sizes[2:])), max(sizes[0], 2), type(model).__name__)
        tracer, twin = _followed(recorder, model, until_weights=True)
        try:
            with no_draws(), torch.inference_mode(False), torch.enable_grad(), Guard(tracer.model, recorder):
                tracer.run()
        except _Met as met:
            return twin.original(met.module)
        except EOCError:
            continue
    return None


def _kind_of_output(output: Any) -> str:
    if isinstance(output, (tuple, list, dict)):
        return f"a {type(output).__name__} of {len(output)}"
    return describe(output)


def _input_sizes(model: nn.Module, example: Any) -> tuple[tuple[int, ...], str]:
    """Shape of a batch, and a note for errors where it was assumed."""
    if example is not None:
        return batch_shape_of(example), ""
    first = first_layer_of(model)
    for name, module in model.named_modules():
        # A forward pass that cannot be followed so far is tried as it is registered: the trace tells why.
        if first is not None and module is not first:
            continue
        if not isinstance(module, weight_classes()):
            continue
        channels, axes = taken(module)
        if not axes:
            note = f"no example_input was given, so vectors of {channels} features were assumed"
            return (2, channels), note
        raise ModelError(
            f"example_input is needed: the first layer {name!r} is {type(module).__name__}, which "
            "does not tell the extent of its inputs"
        )
    raise ModelError("model has no Linear or convolution layer")


def batch_shape_of(example: Any) -> tuple[int, ...]:
    """The shape of a batch of inputs; see `eoc_theory.pytorch.trace.batch_shape`."""
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


class _Holder(nn.Module):
    """The model as a part of another, so that a model that is a single layer is called as a module too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

        self.returned: list[Any] = []

    def forward(self, x: Any) -> Any:
        self.returned.append(self.model(x))


class _ModelTracer(Tracer):
    """Calls readers for leaf modules and functions instead of noting them down for later.

    With `until_weights` the first layer with weights ends it, and is told by `_Met`.
    """

    def __init__(self, recorder: Recorder, model: nn.Module, *, until_weights: bool = False) -> None:
        super().__init__()
        self.recorder = recorder
        self.model = model
        self.until_weights = until_weights
        self.prunable = prunable_weights(model)
        first = self.prunable[0].tensor
        self.dtype, self.device = first.dtype, first.device

    def run(self) -> Any:
        """What the model returns, tensors as signals."""
        holder = _Holder(self.model)
        try:
            self.trace(holder)
        except EOCError:
            raise
        except Exception as error:  # whatever the model's own code raises
            raise self._failure(error) from error
        return values(holder.returned[-1])

    def _failure(self, error: Exception) -> ModelError:
        problem = " ".join(str(error).split())[:160] or "no message"
        return ModelError(
            f"{self.recorder.place}: forward cannot be traced: {type(error).__name__}: {problem}"
        )

    def _refuse_cut_gradients(self) -> None:
        if not torch.is_grad_enabled():
            raise ModelError(f"{self.recorder.place}: runs without gradients (torch.no_grad)")

    # --- what torch.fx calls ---

    def proxy(self, node: Any) -> Any:
        return Traced(node, self, node.meta["value"])

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val

    def to_bool(self, obj: Any) -> bool:
        raise ModelError(
            f"{self.recorder.place}: the forward pass depends on computed values (dynamic control flow), "
            "which cannot be read"
        )

    def iter(self, obj: Any) -> Any:
        raise ModelError(f"{self.recorder.place}: a loop over a tensor's entries cannot be read")

    def create_arg(self, a: Any) -> Any:
        return None  # the graph of torch.fx is not used

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:  # fmt: skip
        if kind == "placeholder":
            value: Any = Signal(0, self.recorder.shapes[0], 0)
        else:
            _refuse_own_gradients()
            self._refuse_cut_gradients()
            value = functions.call(self.recorder, target, values(args), values(kwargs))
        return self._wrap(value)

    def _wrap(self, value: Any) -> Any:
        if not isinstance(value, (Signal, Zeros)):
            return value
        node = self.graph.create_node("call_function", _wrapped_value)
        node.meta["value"] = value
        return self.proxy(node)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        paths = self.submodule_paths or {}
        recorder = self.recorder
        if m not in paths or not holds_signal((args, kwargs)):
            return forward(*args, **kwargs)
        if self.until_weights and isinstance(m, weight_classes()):
            raise _Met(m)
        name = paths[m].partition(".")[2]
        recorder.stack.append((name, type(m).__name__))
        try:
            recorder.in_leaf = True
            self._refuse_cut_gradients()
            kind = modules.kind_of(recorder, m)
            if kind is None:
                recorder.in_leaf = False
                return self._call_inside(m, forward, args, kwargs)
            given = values((*args, *kwargs.values()))
            return self._wrap(modules.read_module(recorder, kind, m, given))
        except EOCError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        finally:
            recorder.in_leaf = False
            recorder.stack.pop()

    def _call_inside(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if next(m.children(), None) is not None or len(args) != 1 or kwargs or m is self.model:
            return forward(*args, **kwargs)
        # An activation of the user's own may be beyond tracing, with its own autograd function, say.
        try:
            return forward(*args, **kwargs)
        except EOCError:
            raise
        except Exception:
            self.recorder.in_leaf = True
            signal = values(args[0])
            if not isinstance(signal, Signal) or not _acts_entry_by_entry(m, signal.sizes):
                self.recorder.in_leaf = False
                raise
            return self._wrap(self.recorder.nonlinearity(signal, m))


def _followed(
    recorder: Recorder, model: nn.Module, *, until_weights: bool = False
) -> tuple[_ModelTracer, Twin]:
    """What follows a double of the model, and the double: a forward pass may store values on itself."""
    twin = parameters_shared(model)
    return _ModelTracer(recorder, twin.model, until_weights=until_weights), twin


def _refuse_own_gradients() -> None:
    """An error inside of a user's autograd.Function, whose gradient need not be its forward pass's."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not _ModelTracer.run.__code__:
        if frame.f_code.co_name == "apply" and frame.f_code.co_filename == torch.autograd.function.__file__:
            raise TypeError("an autograd.Function has a gradient of its own")
        frame = frame.f_back


def _wrapped_value() -> None:
    """The target of all nodes in the graph of torch.fx, which only carries values along."""


def _acts_entry_by_entry(module: nn.Module, sizes: tuple[int, ...]) -> bool:
    """Whether a module is one function of every entry, tried on numbers of the shape that it gets.

    Its gradient must be that function's derivative: a straight-through estimator's is not.
    """
    try:
        act = activation(module)
        frozen = converted(module, "cpu", torch.float64).model.eval()
        generator = torch.Generator().manual_seed(0)
        x = 2.0 * torch.randn(3, *sizes, generator=generator, dtype=torch.float64)
        x.requires_grad_()
        y = frozen(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        points = x.detach().numpy()
        return (
            y.shape == x.shape
            and bool(np.allclose(y.detach().numpy(), act(points), rtol=1e-9, atol=1e-9))
            and bool(np.allclose(slope.numpy(), act.derivative(1)(points), rtol=1e-5, atol=1e-6))
        )
    except (ActivationError, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False
