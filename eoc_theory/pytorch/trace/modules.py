"""Torch's modules, and what subclasses of them may change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from ...errors import ModelError
from ...layers import (
    BatchNorm,
    Convolution,
    Dense,
    GroupNorm,
    LayerNorm,
    PaddingMode,
    WeightLayer,
)
from ...layers.register import ModuleKind, add_kind, kind_of_class, layer_of
from . import entrywise, functions, reshaping, windows
from .recorder import Recorder
from .signals import Signal
from .weights import Weights, read_weights


def kind_of(recorder: Recorder, module: nn.Module) -> ModuleKind | None:
    """How to read a module; None for one whose ``forward`` is to be traced.

    Raises:
        ModelError: a module of torch's own that the theory does not describe, or a subclass of a layer with
            weights that computes something else.
    """
    kind = kind_of_class(type(module))
    if kind is not None and kind.layer is not None:
        return kind if _changed_method(module, kind) is None else None
    for refused, why in REFUSED:
        if isinstance(module, refused):
            raise recorder.refuse(f"{_torch_name(module)} cannot be read{f': {why}' if why else ''}")
    if kind is not None:
        changed = _changed(module, kind)
        if changed is not None and kind.strict:
            raise recorder.refuse(
                f"{type(module).__name__} overrides {changed} of torch.nn.{kind.base.__name__}, so it "
                "may compute something else"
            )
        return kind if changed is None else None
    own = type(module).__module__.startswith(("torch.nn", "torch.ao.nn"))
    if own and not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise recorder.refuse(f"{_torch_name(module)} cannot be read")
    return None


def _torch_name(module: nn.Module) -> str:
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch."):
            return f"torch.nn.{kind.__name__}"
    return type(module).__name__


def read_module(recorder: Recorder, kind: ModuleKind, module: nn.Module, given: Sequence[Any]) -> Signal:
    """What a module makes of tensors.

    Raises:
        ModelError: it takes others.
    """
    if kind.layer is not None:
        return _described(recorder, kind, module, [recorder.position(value) for value in given])
    if len(given) != 1:
        raise recorder.refuse(f"takes one tensor, got {len(given)} arguments")
    assert kind.read is not None
    return kind.read(recorder, module, recorder.check(given[0]))


def _described(recorder: Recorder, kind: ModuleKind, module: nn.Module, inputs: list[int]) -> Signal:
    """The value of the layer that a user's class is."""
    name = layer_name(recorder) if kind.weights else recorder.label()
    layer = layer_of(kind, module, name, tuple(recorder.shapes[i] for i in inputs))
    weighted = layer.weighted
    if weighted is None:
        return recorder.add(layer, *inputs)
    weights = _read_once(recorder, name, module, bias="bias" in _parameters_of(module))
    if weights.shape != weighted.weight.weight_shape:
        raise recorder.refuse(
            f"has a weight of shape {weights.shape}, and the layer registered for it one of shape "
            f"{weighted.weight.weight_shape}"
        )
    scales = replace(weighted.weight, name=name, sigma_w=weights.sigma_w, sigma_b=weights.sigma_b)
    return recorder.add(weighted.with_weight(scales), *inputs)


def _parameters_of(module: nn.Module) -> set[str]:
    """Names of parameters, without the ending that a mask gives them."""
    return {name.removesuffix("_orig") for name in module._parameters}


def _changed(module: nn.Module, kind: ModuleKind) -> str | None:
    """The first method that is not the base class's own, or a parameter that a property stands for."""
    return "weight" if hasattr(type(module), "weight") else _changed_method(module, kind)


def _changed_method(module: nn.Module, kind: ModuleKind) -> str | None:
    for method in (*kind.methods, "__call__"):
        if method in module.__dict__ or getattr(type(module), method) is not getattr(kind.base, method):
            return method
    return None


def layer_name(recorder: Recorder) -> str:
    """Qualified name of the module that is being called, "weight" for a model that is one layer."""
    return recorder.stack[-1][0] or "weight"


def _weighted(recorder: Recorder, module: Any, kernel: tuple[int, ...]) -> WeightLayer:
    name = layer_name(recorder)
    weights = _read_once(recorder, name, module)
    return WeightLayer(
        name, weights.fan_in, weights.shape[0], weights.sigma_w, weights.sigma_b, kernel=kernel
    )


def _read_once(recorder: Recorder, name: str, module: Any, *, bias: bool = True) -> Weights:
    if name in recorder.weights:
        raise recorder.refuse("is called twice: weights that are used more than once cannot be read")
    weights = recorder.weights[name] = read_weights(name, module, bias=bias)
    return weights


def _linear(recorder: Recorder, module: Any, input: Signal) -> Signal:
    position = recorder.position(input)
    shape = recorder.shapes[position]
    if shape.space:
        raise recorder.refuse(
            f"Linear is read on vectors, got a tensor of shape {recorder.text(input)} (flatten it before)"
        )
    if shape.channels != module.in_features:
        raise _misfit(recorder, position, f"{shape.channels} features", f"{module.in_features}")
    return recorder.add(Dense(layer_name(recorder), _weighted(recorder, module, ())), position)


def _misfit(recorder: Recorder, position: int, given: str, taken: str) -> ModelError:
    """Shapes that do not fit; before the first weights it is the example's fault."""
    if recorder.weights:
        return recorder.refuse(f"takes {taken}, got {given}")
    if recorder.note:
        return recorder.refuse(f"takes {taken}, got {given} ({recorder.note})")
    return ModelError(f"example_input has {given}, the first layer {layer_name(recorder)!r} takes {taken}")


def _convolution(recorder: Recorder, module: Any, input: Signal) -> Signal:
    kernel = tuple(module.kernel_size)
    axes = len(kernel)
    position, around = recorder.unpadded(input)
    shape = recorder.shapes[position]
    if len(shape.space) != axes or shape.channels != module.in_channels:
        raise _misfit(
            recorder,
            position,
            f"shape {recorder.text(input)}",
            f"{module.in_channels} channels over {axes} axes",
        )
    if module.padding_mode not in ("zeros", "circular", "reflect"):
        raise recorder.refuse(
            f"padding_mode must be 'zeros', 'circular' or 'reflect', got {module.padding_mode!r}"
        )
    # What torch computed from padding = "same", "valid" or numbers; the last axis stands first.
    both = module._reversed_padding_repeated_twice
    padding = tuple((int(both[2 * i]), int(both[2 * i + 1])) for i in reversed(range(axes)))
    mode = module.padding_mode
    if around is not None:
        if any(map(any, padding)) and not mode == around[0] == "zeros":
            raise recorder.refuse(f"pads with mode {mode!r} what was padded with mode {around[0]!r} before")
        mode = around[0]
        padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(padding, around[1], strict=True))
    for extent, pads in zip(shape.space, padding, strict=True):
        if mode != "zeros" and max(pads) > extent - (mode == "reflect"):
            raise recorder.refuse(f"pads {max(pads)} positions, {mode!r}, to an image of {extent}")
    layer = Convolution(
        layer_name(recorder),
        _weighted(recorder, module, kernel),
        tuple(module.stride),
        padding,
        tuple(module.dilation),
        module.groups,
        cast(PaddingMode, mode),
    )
    return recorder.add(layer, position)


# --- normalisation ---


def _rms(module: Any, name: str, default: float) -> float:
    value = module._parameters.get(name)
    if value is None:
        return default
    return math.sqrt(float(value.detach().double().square().mean()))


def _batch_norm(recorder: Recorder, module: Any, input: Signal) -> Signal:
    position = recorder.position(input)
    shape = recorder.shapes[position]
    if shape.channels != module.num_features:
        raise recorder.refuse(f"takes {module.num_features} channels, got shape {recorder.text(input)}")
    variance = module._buffers.get("running_var")
    training = module.training or variance is None
    layer = BatchNorm(
        recorder.label(),
        training,
        _rms(module, "weight", 1.0),
        _rms(module, "bias", 0.0),
        1.0 if training or variance is None else float(variance.double().mean()),
        module.eps,
    )
    return recorder.add(layer, position)


def _layer_norm(recorder: Recorder, module: Any, input: Signal) -> Signal:
    position = recorder.position(input)
    sizes = recorder.check(input).sizes
    if tuple(module.normalized_shape) != sizes:
        raise recorder.refuse(
            f"LayerNorm over {tuple(module.normalized_shape)} of a tensor of shape {recorder.text(input)} "
            "cannot be read; over all but the batch it can"
        )
    gain, shift = _rms(module, "weight", 1.0), _rms(module, "bias", 0.0)
    return recorder.add(LayerNorm(recorder.label(), gain, shift, module.eps), position)


def _group_norm(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return _grouped(recorder, module, input, module.num_groups, module.num_channels)


def _instance_norm(recorder: Recorder, module: Any, input: Signal) -> Signal:
    if module._buffers.get("running_mean") is not None and not module.training:
        raise recorder.refuse("InstanceNorm with running statistics cannot be read in evaluation mode")
    channels = recorder.check(input).shape.channels
    if module._parameters.get("weight") is None:
        return _grouped(recorder, module, input, channels, channels)
    return _grouped(recorder, module, input, module.num_features, module.num_features)


def _grouped(recorder: Recorder, module: Any, input: Signal, groups: int, channels: int) -> Signal:
    position = recorder.position(input)
    shape = recorder.shapes[position]
    if shape.channels != channels:
        raise recorder.refuse(f"takes {channels} channels, got shape {recorder.text(input)}")
    if shape.size == groups:
        raise recorder.refuse(f"normalises single values of shape {recorder.text(input)}, which leaves zeros")
    gain, shift = _rms(module, "weight", 1.0), _rms(module, "bias", 0.0)
    return recorder.add(GroupNorm(recorder.label(), groups, gain, shift, module.eps), position)


# --- the others ---


def _axes(module: Any) -> int:
    """1 or 2, from the class's name."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch.nn") and kind.__name__[-2:] in ("1d", "2d"):
            return int(kind.__name__[-2])
    raise TypeError(type(module).__name__)


def _average_pool(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return windows.average_pool(
        recorder, input, _axes(module), module.kernel_size, module.stride, module.padding, module.ceil_mode,
        module.count_include_pad, getattr(module, "divisor_override", None),
    )  # fmt: skip


def _max_pool(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return windows.max_pool(
        recorder, input, _axes(module), module.kernel_size, module.stride, module.padding, module.dilation,
        module.ceil_mode, module.return_indices,
    )  # fmt: skip


def _adaptive_average_pool(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return windows.adaptive_average_pool(recorder, input, _axes(module), module.output_size)


def _adaptive_max_pool(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return windows.adaptive_max_pool(
        recorder, input, _axes(module), module.output_size, module.return_indices
    )


def _dropout(recorder: Recorder, module: Any, input: Signal) -> Signal:
    channelwise = not isinstance(module, nn.Dropout)
    return _maybe_in_place(
        recorder, module, input, entrywise.dropout(recorder, input, module.p, module.training, channelwise)
    )


def _alpha_dropout(recorder: Recorder, module: Any, input: Signal) -> Signal:
    if module.training and module.p > 0:
        raise recorder.refuse(f"{type(module).__name__} cannot be read in training mode")
    return recorder.same(input)


def _flatten(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return functions.READERS["flatten"](recorder, input, module.start_dim, module.end_dim)


def _unflatten(recorder: Recorder, module: Any, input: Signal) -> Signal:
    if module.dim != 1 or isinstance(module.unflattened_size[0], (tuple, list)):
        raise recorder.refuse("Unflatten is read for dimension 1 and sizes given as numbers")
    sizes = (recorder.batch, *module.unflattened_size, *recorder.check(input).sizes[1:])
    return reshaping.reshaped(recorder, recorder.check(input), sizes)


def _identity(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return recorder.same(input)


def _zero_pad(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return functions.READERS["pad"](
        recorder, input, module.padding, "constant", getattr(module, "value", 0.0)
    )


def _reflection_pad(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return functions.READERS["pad"](recorder, input, module.padding, "reflect")


def _circular_pad(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return functions.READERS["pad"](recorder, input, module.padding, "circular")


def _activation(recorder: Recorder, module: Any, input: Signal) -> Signal:
    return _maybe_in_place(recorder, module, input, recorder.nonlinearity(input, module))


def _rrelu(recorder: Recorder, module: Any, input: Signal) -> Signal:
    if module.training and module.lower != module.upper:
        raise recorder.refuse("RReLU has random slopes in training mode; in evaluation mode it can be read")
    return _activation(recorder, module, input)


def _maybe_in_place(recorder: Recorder, module: Any, input: Signal, result: Signal) -> Signal:
    return functions.overwrite(input, result) if getattr(module, "inplace", False) else result


_CONVOLUTION = ("forward", "_conv_forward")
_ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip

for _kind in (
    ModuleKind(nn.Linear, _linear, strict=True),
    ModuleKind(nn.Conv1d, _convolution, methods=_CONVOLUTION, strict=True),
    ModuleKind(nn.Conv2d, _convolution, methods=_CONVOLUTION, strict=True),
    ModuleKind(nn.BatchNorm1d, _batch_norm, strict=True),
    ModuleKind(nn.BatchNorm2d, _batch_norm, strict=True),
    ModuleKind(nn.LayerNorm, _layer_norm, strict=True),
    ModuleKind(nn.GroupNorm, _group_norm, strict=True),
    ModuleKind(nn.InstanceNorm1d, _instance_norm, methods=("forward", "_apply_instance_norm"), strict=True),
    ModuleKind(nn.InstanceNorm2d, _instance_norm, methods=("forward", "_apply_instance_norm"), strict=True),
    *(ModuleKind(base, _average_pool) for base in (nn.AvgPool1d, nn.AvgPool2d)),
    *(ModuleKind(base, _max_pool) for base in (nn.MaxPool1d, nn.MaxPool2d)),
    *(ModuleKind(base, _adaptive_average_pool) for base in (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)),
    *(ModuleKind(base, _adaptive_max_pool) for base in (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)),
    *(ModuleKind(base, _dropout) for base in (nn.Dropout, nn.Dropout1d, nn.Dropout2d)),
    *(ModuleKind(base, _alpha_dropout) for base in (nn.AlphaDropout, nn.FeatureAlphaDropout)),
    ModuleKind(nn.Flatten, _flatten),
    ModuleKind(nn.Unflatten, _unflatten),
    ModuleKind(nn.Identity, _identity),
    *(ModuleKind(base, _zero_pad) for base in (nn.ConstantPad1d, nn.ConstantPad2d)),
    *(ModuleKind(base, _reflection_pad) for base in (nn.ReflectionPad1d, nn.ReflectionPad2d)),
    *(ModuleKind(base, _circular_pad) for base in (nn.CircularPad1d, nn.CircularPad2d)),
    ModuleKind(nn.RReLU, _rrelu),
    *(ModuleKind(base, _activation) for base in _ELEMENTWISE),
):
    add_kind(_kind)

_LOGITS = "the theory takes logits: give the model without it"
REFUSED: tuple[tuple[Any, str], ...] = (
    ((nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin), _LOGITS),
    (nn.modules.conv._ConvTransposeNd, "transposed convolutions are not described"),
    (nn.Conv3d, "convolutions over one or two axes are"),
    (nn.modules.batchnorm.BatchNorm3d, "normalisation over one or two axes is"),
    ((nn.RNNBase, nn.RNNCellBase), "recurrent layers are not described"),
    ((nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
      nn.TransformerEncoder, nn.TransformerDecoder), "attention is not described"),
    ((nn.Embedding, nn.EmbeddingBag), "inputs must be numbers, not indices"),
    (nn.Bilinear, "products of two inputs are not described"),
    (torch.jit.ScriptModule, "give the model before torch.jit"),
    ((nn.DataParallel, nn.parallel.DistributedDataParallel), "give the model inside, .module"),
    (LazyModuleMixin, "its shape is not known: call the model once before"),
)  # fmt: skip
