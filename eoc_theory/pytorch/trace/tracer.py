"""Reads the operations of an exported model, one by one, into a graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export.graph_signature import InputKind
from torch.fx.node import map_arg
from torch.utils._pytree import tree_unflatten

from ...base.isolation import Twin
from ...errors import EOCError, ModelError
from ...layers import Input, PartOfInput, Shape
from ...networks.graph import Graph, Node
from ...signals.parts import MASKS, InputPart
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
from .call import Call, GivenInput, batch_shape_of, is_several, several
from .checking import check_whole, layers_with_weights
from .exporting import OUTSIDE, Exported, exported, no_draws, quiet
from .graph_passes import finish, used_weights
from .known import told
from .layout import BATCH
from .recorder import Recorder, describe
from .values import Constant, Mask, Signal, Unreadable


def trace_model(
    model: Any, example_input: Any, known: Mapping[str, Any], only_structure: bool = False
) -> Graph:
    """The graph of a model; see `eoc_theory.pytorch.trace.trace`."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_whole(model)
    recorded = (known, only_structure, layers_with_weights(model))
    if not is_several(example_input):
        sizes, note = _input_sizes(model, example_input)
        call = Call.of_one(sizes, _takes_tokens(model, sizes), note)
        return _traced(model, call, *recorded)
    return _of_calls(model, _typed(model, several(model, example_input)), recorded)


def _typed(model: nn.Module, call: Call) -> list[Call]:
    """With types of those inputs whose shapes alone are known: the first is tokens where there is a table,
    the others are whole numbers, booleans or real numbers."""
    first, *rest = call.inputs
    if first.dtype is None and _takes_tokens(model, first.sizes):
        call = call.with_dtypes({first.at: torch.long})
    open_ = [one.at for one in rest if one.dtype is None]
    kinds = (torch.long, torch.bool, next(model.parameters()).dtype)
    return [call.with_dtypes(dict.fromkeys(open_, kind)) for kind in kinds] if open_ else [call]


def _of_calls(model: nn.Module, calls: list[Call], recorded: Any) -> Graph:
    """The first of the calls that can be read; the error of the first where none can."""
    errors = []
    for call in calls:
        try:
            return _traced(model, call, *recorded)
        except ModelError as error:
            errors.append(error)
    raise errors[0]


def _traced(
    model: nn.Module, call: Call, known: Mapping[str, Any], only_structure: bool, expected: list[str]
) -> Graph:
    """The graph for what the inputs may be, and for padding read as what is told of it, or as absent."""
    sizes = call.inputs[0].sizes
    found = exported(model, call, lambda: first_layer_of(model, sizes) if call.single else None)
    error: ModelError | None = None
    whole = any(one.dtype is torch.long for one in call.inputs)
    for roles in call.readings(_looked_up(found, call)):
        for patterns in (True, False) if whole else (False,):
            recorder = Recorder(_shape(call), call.batch, type(model).__name__)
            recorder.known, recorder.patterns = known, patterns
            recorder.only_structure = only_structure
            try:
                with torch.inference_mode(False), torch.no_grad():
                    output, beside = _Reading(recorder, found, _taken(recorder, call, roles)).output()
                logits = _logits(recorder, output)
                _refuse_auxiliary(recorder, logits, beside, expected)
                return finish(recorder, logits, expected)
            except ModelError as problem:
                error = error or problem
                if not any(isinstance(key, tuple) for key in recorder.told):
                    break
    assert error is not None
    raise error


def _shape(call: Call) -> Shape:
    if call.single:
        return Shape(call.inputs[0].sizes[1], tuple(call.inputs[0].sizes[2:]))
    return Shape(sum(one.part("values").size for one in call.inputs))


def _taken(recorder: Recorder, call: Call, roles: tuple[str, ...]) -> list[Any]:
    """The values of a call's inputs, as the nodes of their parts or as what is told of padding."""
    if call.single:
        if call.inputs[0].dtype is torch.long:
            recorder.inputs.add(0)
        shape = recorder.shapes[0]
        return [Signal(0, shape, recorder.standard(shape), 0)]
    parts = tuple(one.part(role) for one, role in zip(call.inputs, roles, strict=True))
    recorder.nodes[0] = Node(Input("input", recorder.shapes[0], parts=parts))
    start, values = 0, []
    for one, part in zip(call.inputs, parts, strict=True):
        values.append(_part_of(recorder, one, part, start))
        start += part.size
    return values


def _part_of(recorder: Recorder, one: GivenInput, part: InputPart, start: int) -> Any:
    """The value of one of several inputs."""
    if part.role == "fixed":
        assert one.alike is not None
        return Constant(one.alike.expand(one.sizes).clone())
    extents = one.sizes[1:] or (1,)
    if part.role == "values":
        made = recorder.add(PartOfInput(part.name, start, Shape(extents[0], tuple(extents[1:]))), 0)
        if one.dtype is torch.long and len(one.sizes) == 2:
            recorder.inputs.add(recorder.position(made))
        return made if len(one.sizes) > 1 else replace(made, layout=made.layout[:1])
    source = recorder.position(recorder.add(PartOfInput(part.name, start, Shape(part.size)), 0))
    inner = tuple(n for n in one.sizes[1:] if n > 1)
    closed = told(recorder, part.name, (one.sizes[0], *inner), source, 0).closed.reshape(one.sizes)
    # Not −∞ itself, of which differences are no numbers.
    counts, padding = (max(value, -1e9) for value in MASKS[part.role])
    kind = one.dtype or torch.float32
    marks = torch.where(closed, padding, counts).to(kind), torch.full(one.sizes, counts, dtype=kind)
    return Constant(marks[0], known=marks[1])


#: Operations that leave numbers what they are.
_KEEPING = (
    "view",
    "reshape",
    "_unsafe_view",
    "to",
    "_to_copy",
    "clone",
    "detach",
    "unsqueeze",
    "squeeze",
    "expand",
)


def _looked_up(found: Exported, call: Call) -> set[int]:
    """Which of a call's inputs are the numbers of a table's rows."""
    return {number for number, node in _placeholders(found, call).items() if _leads_to_table(node)}


def _leads_to_table(node: torch.fx.Node) -> bool:
    for user in node.users:
        name = str(getattr(user.target, "__name__", user.target)).partition(".")[0]
        if name == "embedding" and len(user.args) > 1 and user.args[1] is node:
            return True
        if name in _KEEPING and _leads_to_table(user):
            return True
    return False


def _placeholders(found: Exported, call: Call) -> dict[int, torch.fx.Node]:
    """The nodes of a call's inputs, by their numbers in it."""
    program = found.program
    names = [
        spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    ]
    args, kwargs = tree_unflatten(names, program.call_spec.in_spec)
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    ordered = iter(args)
    return {
        number: nodes[kwargs[one.name] if one.by_name else next(ordered)]
        for number, one in enumerate(call.inputs)
    }


def _refuse_auxiliary(recorder: Recorder, logits: int, beside: list[Any], expected: list[str]) -> None:
    """Refuse weights of heads whose outputs stand beside the logits: their own loss counts as well."""
    used = used_weights(recorder.nodes, logits)
    unused = [name for name in expected if name not in used]
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

    def __init__(self, recorder: Recorder, found: Exported, taken: list[Any]) -> None:
        self.recorder, self.found = recorder, found
        nodes = _placeholders(found, found.call)
        self.taken = {nodes[number].name: value for number, value in enumerate(taken)}
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
            return self.taken[spec.arg.name] if spec.arg.name in self.taken else spec.arg.value
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
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with quiet(), no_draws(), torch.inference_mode(False), fake as mode:
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
