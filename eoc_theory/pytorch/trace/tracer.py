"""Reads the operations of an exported model, one by one, into a graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export.graph_signature import InputKind
from torch.fx.node import map_arg
from torch.utils._pytree import tree_unflatten

from ...base.isolation import Twin
from ...errors import EOCError, ModelError
from ...layers import Shape
from ...networks.graph import Graph
from ...signals.data import are_several
from ..models import chain, prunable_weights, taken, weight_classes

# Imported for the readers that they register, too.
from . import (  # noqa: F401
    activations,
    arithmetic,
    attention,
    constants,
    joining,
    linear,
    normalisation,
    pooling,
    randomness,
    readers,
    reshaping,
    tokens,
)
from . import layout as lay
from .checking import check_whole, layers_with_weights
from .exporting import OUTSIDE, Exported, exported, no_draws
from .graph_passes import finish, used_weights
from .layout import BATCH
from .recorder import Recorder, describe
from .values import Constant, Mask, Signal, Unreadable


def trace_model(model: Any, example_input: Any, known: Mapping[str, Any]) -> Graph:
    """The graph of a model; see `eoc_theory.pytorch.trace.trace`."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_whole(model)
    expected = layers_with_weights(model)
    sizes, note = _input_sizes(model, example_input)
    # Two inputs or more: a batch of one could be taken for an axis to be squeezed.
    sizes = (max(sizes[0], 2), *sizes[1:])
    whole = _takes_tokens(model, sizes)
    found = exported(model, sizes, lambda: first_layer_of(model, sizes), note, whole=whole)
    # Padding is read as a mask of attention where it is that alone, else as tokens that are absent.
    patterns = [_padding_pattern(sizes), None] if whole and sizes[1] > 1 else [None]
    for pattern in patterns:
        recorder = Recorder(Shape(sizes[1], tuple(sizes[2:])), sizes[0], type(model).__name__)
        recorder.takes_tokens, recorder.known, recorder.padding = whole, known, pattern
        try:
            with torch.inference_mode(False), torch.no_grad():
                output, beside = _Reading(recorder, found).output()
            logits = _logits(recorder, output)
            _refuse_auxiliary(recorder, logits, beside, expected)
            return finish(recorder, logits, expected)
        except ModelError:
            if pattern is None or recorder.padding_token is None:
                raise
    raise AssertionError("a last pattern that is none")


def _padding_pattern(sizes: tuple[int, ...]) -> torch.Tensor:
    """Booleans (batch, tokens) that nothing else in a model is, some of each row false: tokens that count."""
    pattern = torch.rand(sizes, generator=torch.Generator().manual_seed(0)) < 0.5
    pattern[:, 0], pattern[0, -1], pattern[1:, -1] = False, True, False
    return pattern


def _refuse_auxiliary(recorder: Recorder, logits: int, beside: list[Any], expected: list[str]) -> None:
    """Refuse weights of heads whose outputs stand beside the logits: their own loss counts as well."""
    unused = [name for name in expected if name not in used_weights(recorder.nodes, logits)]
    if unused and any(isinstance(value, Signal) for value in beside):
        raise ModelError(
            f"the weights of layer {unused[0]!r} lead to an output beside the logits, an auxiliary head, "
            "whose loss counts as well: the theory has one output (method='sampled' has them all)"
        )


def _logits(recorder: Recorder, output: Any) -> int:
    """The node of the logits."""
    if isinstance(output, Unreadable):
        raise output.error
    recorder.path, recorder.in_leaf, recorder.operation = "", False, "output"
    if not isinstance(output, Signal):
        raise ModelError(f"model must return one tensor of logits, got {describe(output)}")
    output = recorder.settled(output)
    if _are_of_tokens(recorder, output):
        return recorder.position(output)
    if output.shape.space or output.padding is not None or len(output.layout) != 2 or (
        output.layout[0] != lay.whole(BATCH, recorder.batch)
    ):  # fmt: skip
        raise ModelError(
            f"model must return logits as vectors, (B, classes), got a tensor of shape "
            f"{recorder.text(output)} (flatten it)"
        )
    return recorder.position(output)


def _are_of_tokens(recorder: Recorder, output: Signal) -> bool:
    """Whether it is a vector of logits for every token of an input, where tokens attend: (B, T, classes)."""
    if not any(node.layer.attends for node in recorder.nodes):
        return False
    shape = output.shape
    layout = (
        lay.whole(BATCH, recorder.batch),
        *(lay.whole(axis, extent) for axis, extent in enumerate(shape.space, 1)),
        lay.whole(lay.CHANNELS, shape.channels),
    )
    return len(shape.space) == 1 and output.padding is None and tuple(output.layout) == layout


class _Reading:
    """The values of an exported model's nodes, in their order."""

    def __init__(self, recorder: Recorder, found: Exported) -> None:
        self.recorder, self.found = recorder, found
        self.signature = found.program.graph_signature
        self.leaves = {name: _is_leaf(module) for name, module in found.model.named_modules()}
        self.kinds = {name: type(module).__name__ for name, module in found.model.named_modules()}
        tensors = dict(found.model.named_parameters(remove_duplicate=False))
        recorder.parameters = tensors
        recorder.ranked = frozenset(
            f"{name}.weight"
            for name, module in found.model.named_modules()
            if isinstance(module, weight_classes())
        )
        own = [*found.model.parameters(), *found.model.buffers()]
        recorder.memory = frozenset(t.untyped_storage().data_ptr() for t in own)
        recorder.opaque, recorder.activations = found.opaque, found.failures

    def output(self) -> tuple[Any, list[Any]]:
        """The logits that the model returns, and what it returns beside them."""
        graph = self.found.program.graph
        specs = {spec.arg.name: spec for spec in self.signature.input_specs if hasattr(spec.arg, "name")}
        changed = _changed_placeholders(graph)
        inputs = [
            self._input(specs[node.name], node.name in changed)
            for node in graph.nodes
            if node.op == "placeholder"
        ]
        results = self._run(self.found.program.graph_module, inputs)
        tree = self.found.program.call_spec.out_spec
        wanted = [
            value
            for value, spec in zip(results, self.signature.output_specs, strict=True)
            if spec.kind.name == "USER_OUTPUT"
        ]
        whole = tree_unflatten(wanted, tree)
        logits = _chosen(whole)
        return logits, [value for value in wanted if value is not logits]

    def _input(self, spec: Any, changed: bool) -> Any:
        recorder = self.recorder
        if spec.kind is InputKind.USER_INPUT:
            shape = recorder.shapes[0]
            return Signal(0, shape, recorder.standard(shape), 0)
        program = self.found.program
        if spec.kind is InputKind.PARAMETER:
            tensor = recorder.parameters[spec.target].detach()
            return Constant(tensor, frozenset({spec.target}), spec.target)
        if spec.kind is InputKind.BUFFER:
            tensor = self.found.model.get_buffer(spec.target).detach()
            return Constant(tensor.clone() if changed else tensor)
        tensor = program.constants[spec.target]
        if isinstance(tensor, FakeTensor):
            raise ModelError(f"{recorder.place}: forward cannot be traced: {OUTSIDE}")
        return Constant(tensor.detach().clone())

    def _run(self, module: Any, inputs: list[Any]) -> list[Any]:
        """The outputs of a graph of operations."""
        values: dict[Any, Any] = {}
        given = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = _attribute(module, node.target)
            elif node.op == "output":
                (results,) = map_arg(node.args, lambda n: values[n])
                return list(results) if isinstance(results, (list, tuple)) else [results]
            else:
                values[node] = self._called(node, values)
        raise AssertionError("a graph without outputs")

    def _called(self, node: Any, values: dict[Any, Any]) -> Any:
        args = map_arg(node.args, lambda n: values[n])
        kwargs = map_arg(node.kwargs, lambda n: values[n])
        target = node.target
        if target is operator.getitem:
            return args[0] if isinstance(args[0], Unreadable) else args[0][args[1]]
        self._enter(node)
        try:
            if isinstance(target, torch._ops.HigherOrderOperator):
                return self._part(node, args)
            if not isinstance(target, torch._ops.OpOverload):
                raise self.recorder.refuse("cannot be read: it depends on computed numbers")
            return readers.call(self.recorder, target, args, kwargs)
        except constants.ModelChangedError:
            raise
        except ModelError as error:
            return readers.spoilt(target, args, error)
        except EOCError:
            raise
        except Exception as error:
            what = " ".join(str(error).split())[:160]
            return readers.spoilt(target, args, self.recorder.refuse(f"cannot be read: {what}"))

    def _enter(self, node: Any) -> None:
        """Note which module an operation belongs to."""
        recorder = self.recorder
        stack = node.meta.get("nn_module_stack")
        path = next(reversed(stack.values()))[0] if stack else ""
        path = path.partition("@")[0]
        recorder.path, recorder.in_leaf = path, self.leaves.get(path, False)
        recorder.module = self.kinds.get(path, recorder.kind)
        recorder.operation = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
        first = node.args[0] if node.args else None
        recorder.once = len(getattr(first, "users", ())) == 1

    def _part(self, node: Any, args: tuple[Any, ...]) -> Any:
        """A part of the forward pass under a setting: without gradients, in lower precision."""
        name = node.target.__name__
        at = next(i for i, arg in enumerate(args) if isinstance(arg, torch.fx.GraphModule))
        module, inner = args[at], list(args[at + 1 :])
        if name == "wrap_with_set_grad_enabled" and not args[0]:
            if constants.only_constants(inner) and not any(isinstance(a, Unreadable) for a in inner):
                return constants.run(module, inner)
            self._enter(next((n for n in module.graph.nodes if n.op == "call_function"), node))
            raise ModelError(f"{self.recorder.place}: runs without gradients (torch.no_grad)")
        if name not in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            raise self.recorder.refuse("cannot be read")
        return self._run(module, inner)


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module is torch's own, or does what its base class of torch's does."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    kind = type(module).forward
    return str(getattr(kind, "__module__", "")).startswith("torch.nn") and not isinstance(module, containers)


def _attribute(module: Any, target: str) -> Any:
    value = module
    for part in target.split("."):
        value = getattr(value, part)
    return Constant(value.detach().clone()) if isinstance(value, torch.Tensor) else value


def _changed_placeholders(graph: Any) -> set[str]:
    """Names of the inputs that operations in place lead to."""
    changed = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not any(
            a.alias_info is not None and a.alias_info.is_write for a in schema.arguments
        ):
            continue
        while isinstance(node, torch.fx.Node) and node.op == "call_function" and node.args:
            node = node.args[0]
        if isinstance(node, torch.fx.Node):
            changed.add(node.name)
    return changed


def _chosen(output: Any) -> Any:
    """The logits of an output that names them."""
    if isinstance(output, (Signal, Constant, Mask, Unreadable)):
        return output
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    if named is not None:
        return named
    if isinstance(output, (tuple, list, dict)):
        kind = type(output).__name__
        raise ModelError(f"model must return one tensor of logits, got a {kind} of {len(output)}")
    return output


# --- the layer that runs first ---

#: Extent of the images tried on a model of which no input's shape is known.
_EXTENT = 32


class _Met(BaseException):
    """Ends a forward pass at a weight layer; no error, so that no model's own code catches it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _stop(module: nn.Module, args: Any) -> None:
    raise _Met(module)


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
        with no_draws(), torch.inference_mode(False), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            twin = Twin(model, lambda tensor: _fake(mode, tensor))
            for module in twin.model.modules():
                if isinstance(module, weight_classes()):
                    module.register_forward_pre_hook(_stop, prepend=True)
            first = next(twin.model.parameters())
            try:
                dtype = torch.long if _takes_tokens(model, sizes) else first.dtype
                twin.model(torch.zeros(max(sizes[0], 2), *sizes[1:], dtype=dtype, device=first.device))
            except _Met as met:
                return twin.original(met.module)
            except Exception:  # whatever the model's own code raises on a guess
                continue
    return None


def _fake(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    made = mode.from_tensor(tensor.detach())
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


# --- the input ---


def _takes_tokens(model: nn.Module, sizes: tuple[int, ...]) -> bool:
    """Whether vectors of inputs are token numbers."""
    return len(sizes) == 2 and any(isinstance(module, nn.Embedding) for module in model.modules())


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
    if isinstance(example, Mapping) or are_several(example):
        raise ModelError(
            "example_input must be one batch of inputs for a model that is read, got several or inputs by "
            "name: the theory describes no attention mask and no second input; method='sampled' takes them"
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
