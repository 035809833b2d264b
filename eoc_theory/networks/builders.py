"""Builders of the convolutional networks of the pruning literature: plain, VGG and residual."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..activations import Activation
from ..activations import activation as _activation
from ..base import checks
from ..base.boundary import public
from ..errors import ArgumentError
from ..layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Nonlinearity,
    PadChannels,
    PaddingMode,
    Shape,
    Subsample,
    Sum,
    WeightLaw,
    WeightLayer,
)
from .architecture import Architecture, Init, init_scales
from .graph import GraphBuilder

Normalisation = Literal["batch", "group", "layer"]
Scaling = Literal["none", "stable", "decreasing"]

#: Weight layers of a convolutional network, at most.
MOST_LAYERS = 10_000
#: Channels in one group of normalisation="group": Wu & He 2018 find 16 a group as good as 32 groups, and it
#: leaves narrow networks more than one channel to average over.
GROUP_CHANNELS = 16

#: Convolutions in each of the five blocks of a VGG (Simonyan & Zisserman 2015, table 1). Deeper ones go on as
#: 13, 16 and 19 do, with more convolutions in the last three blocks.
VGG_BLOCKS = {
    11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4),
    34: (2, 2, 9, 9, 9), 49: (2, 2, 14, 14, 14),
}  # fmt: skip

#: Residual blocks in each of the four stages of an ImageNet ResNet (He et al. 2016, table 1).
IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
}  # fmt: skip


@public
def cnn(
    depth: int,
    channels: int,
    *,
    activation: Any = "tanh",
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    kernel: int = 3,
    padding_mode: PaddingMode = "circular",
    strides: Collection[int] | None = None,
    pool: Collection[int] | None = None,
    head: Literal["average", "flatten"] = "average",
    init: Init = "eoc",
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    law: WeightLaw | None = None,
) -> Architecture:
    """Build a plain convolutional network of `depth` weight layers: depth − 1 convolutions and a dense layer.

    This is the form of Hayou et al. 2021, section 2: the same number of channels and the same kernel
    everywhere, and a periodic boundary. The paper leaves open what turns the last channels into logits; here
    it is the mean over all positions and a dense layer, as in Xiao et al. 2018. Layers are named "convs.0",
    "convs.1", …, "fc".

    Args:
        depth: number L of weight layers, at least 2.
        channels: of every convolution.
        activation: anything `eoc.activation` takes; after every convolution.
        input_shape: channels and extent of an input: (C, H, W), or (C, length) for one axis.
        classes: number of logits.
        kernel: extent of the kernels along each axis, odd, so that the padding (kernel − 1)/2 keeps extents.
        padding_mode: "circular", "zeros" or "reflect".
        strides: the convolutions, counted from 0, that take every second position.
        pool: the convolutions whose activation a 2×2 average pooling follows.
        head: "average" (mean over positions, then dense) or "flatten" (dense on all positions' entries).
        init, sigma_w, sigma_b, law: as in `eoc.mlp`; law also "truncated" or "orthogonal".

    Raises:
        ArgumentError: an argument outside the above. ModelError: images that become too small.
        NoCriticalPointError: init="eoc" has no solution.
    """
    depth = checks.integer("depth", depth, minimum=2, maximum=MOST_LAYERS)
    channels = checks.integer("channels", channels, minimum=1)
    shape = _input_shape(input_shape, axes=(1, 2))
    axes = len(shape.space)
    kernel = checks.integer("kernel", kernel, minimum=1)
    if not kernel % 2:
        raise ArgumentError(f"kernel must be odd, got {kernel}")
    checks.one_of("padding_mode", padding_mode, ("circular", "zeros", "reflect"))
    checks.one_of("head", head, ("average", "flatten"))
    strided = _positions("strides", strides, depth - 1)
    pooled = _positions("pool", pool, depth - 1)
    weights = _Weights(_activation(activation), init, sigma_w, sigma_b, law)
    net = _Builder(shape, weights)
    for index in range(depth - 1):
        stride = 2 if index in strided else 1
        net.convolution(f"convs.{index}", channels, kernel, stride, padding_mode)
        net.nonlinearity(f"activations.{index}")
        if index in pooled:
            two, none = (2,) * axes, (0,) * axes
            net.add(AveragePool(f"pools.{index}", two, two, none))
    if head == "average":
        net.add(AdaptiveAveragePool("pool", (1,) * axes))
    net.classifier("fc", classes)
    return net.architecture(f"{weights.activation.name} CNN, {depth} layers of {channels} channels")


@public
def vgg(
    depth: Literal[11, 13, 16, 19, 34, 49] = 16,
    *,
    width: int = 64,
    normalisation: Normalisation | None = "batch",
    training: bool = True,
    activation: Any = "relu",
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    init: Init = "eoc",
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    law: WeightLaw | None = None,
) -> Architecture:
    """Build a VGG network in its form for small images.

    It has five blocks of 3×3 convolutions with zero padding, of `width`, 2, 4, 8 and 8 times as many
    channels, each followed by a 2×2 maximum. Then come the mean over the positions that are left (one, for
    images of 32×32) and one dense layer, instead of the three of the ImageNet form. Modules are numbered as
    in a ``torch.nn.Sequential``: "features.0", "features.1", …, "classifier".

    Args:
        depth: 11, 13, 16 or 19, as in Simonyan & Zisserman 2015, counted with their three dense layers; 34
            or 49, deeper by the rule that leads from 13 to 19: 5 or 10 more convolutions than VGG-19 in each
            of the last three blocks.
        width: channels of the first block.
        normalisation: after each convolution: "batch", "group" (16 channels a group), "layer" or None.
        training: whether batch normalisation uses the batch's own statistics.
        activation: anything `eoc.activation` takes.
        input_shape: channels, height and width; at least 32 each way.
        classes: number of logits.
        init, sigma_w, sigma_b, law: as in `eoc.mlp`; law also "truncated" or "orthogonal".

    Raises:
        ArgumentError: an argument outside the above. NoCriticalPointError: init="eoc" has no solution.
    """
    checks.one_of("depth", depth, tuple(VGG_BLOCKS))
    width = checks.integer("width", width, minimum=1)
    shape = _input_shape(input_shape, axes=(2,))
    if min(shape.space) < 32:
        raise ArgumentError(f"input_shape must be at least 32 each way for a VGG, got {shape}")
    net = _Builder(
        shape, _Weights(_activation(activation), init, sigma_w, sigma_b, law), normalisation, training
    )
    index = 0
    for block, count in enumerate(VGG_BLOCKS[depth]):
        for _ in range(count):
            net.convolution(f"features.{index}", width * min(2**block, 8), 3)
            index += 1
            if normalisation is not None:
                net.normalisation(f"features.{index}")
                index += 1
            net.nonlinearity(f"features.{index}")
            index += 1
        net.add(MaxPool(f"features.{index}", (2, 2), (2, 2), (0, 0), (1, 1)))
        index += 1
    net.add(AdaptiveAveragePool("pool", (1, 1)))
    net.classifier("classifier", classes)
    return net.architecture(f"VGG-{depth}")


@public
def resnet(
    depth: int = 20,
    *,
    width: int | None = None,
    normalisation: Normalisation | None = "batch",
    scaling: Scaling = "none",
    shortcut: Literal["conv", "pad"] = "conv",
    training: bool = True,
    activation: Any = "relu",
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    form: Literal["cifar", "imagenet"] = "cifar",
    init: Init = "eoc",
    sigma_w: float | None = None,
    sigma_b: float | None = None,
    law: WeightLaw | None = None,
) -> Architecture:
    """Build a residual network: blocks φ(s(x) + c·f(x)), f of two or three convolutions, s the shortcut.

    form="cifar" (He et al. 2016, section 4.2): a 3×3 convolution, three stages of n = (depth − 2)/6 blocks of
    two 3×3 convolutions with `width`, 2 and 4 times as many channels, the mean over positions, a dense layer.
    form="imagenet" (table 1 there): a 7×7 convolution of stride 2, a 3×3 maximum of stride 2, four stages,
    whose blocks are of two 3×3 convolutions for depth 18 and 34, else of 1×1, 3×3 and 1×1 with four times as
    many channels at the end (the stride in the 3×3). Zero padding everywhere. Names are "conv1",
    "stages.0.1.conv2", "stages.1.0.shortcut.0", …, "fc".

    Args:
        depth: 6n + 2 (20, 32, 44, 50, 56, 104, 110, …); for form="imagenet" 18, 34, 50, 101 or 152.
        width: channels of the first stage, 16 (imagenet: 64) by default; Hayou et al. 2021 use 32.
        normalisation: after each convolution: "batch", "group" (16 channels a group), "layer" or None.
        scaling: the branch's factor c: "none", 1; "stable", 1/√(number of blocks); "decreasing",
            1/(√l·log(l + 1)) in block l = 1, 2, … (Hayou et al. 2021 and the authors' code).
        shortcut: where the shape changes: "conv", a 1×1 convolution with its normalisation, or "pad", every
            second position and channels of zeros (He et al.'s option A).
        training: whether batch normalisation uses the batch's own statistics.
        activation: anything `eoc.activation` takes.
        input_shape: channels, height and width; (3, 32, 32), (imagenet: (3, 224, 224)) by default.
        classes: number of logits, 10 (imagenet: 1000) by default.
        init, sigma_w, sigma_b, law: as in `eoc.mlp`; law also "truncated" or "orthogonal". The scale of a
            branch's weights does not depend on `scaling`.

    Raises:
        ArgumentError: an argument outside the above. NoCriticalPointError: init="eoc" has no solution.
    """
    checks.one_of("form", form, ("cifar", "imagenet"))
    checks.one_of("scaling", scaling, ("none", "stable", "decreasing"))
    checks.one_of("shortcut", shortcut, ("conv", "pad"))
    imagenet = form == "imagenet"
    blocks = _residual_blocks(depth, imagenet)
    if width is None:
        width = 64 if imagenet else 16
    width = checks.integer("width", width, minimum=1)
    if input_shape is None:
        input_shape = (3, 224, 224) if imagenet else (3, 32, 32)
    weights = _Weights(_activation(activation), init, sigma_w, sigma_b, law)
    net = _Builder(_input_shape(input_shape, axes=(2,)), weights, normalisation, training)
    net.convolution("conv1", width, *((7, 2) if imagenet else (3, 1)))
    net.normalisation(net.norm_name("", 1))
    net.nonlinearity("act1")
    if imagenet:
        net.add(MaxPool("maxpool", (3, 3), (2, 2), (1, 1), (1, 1)))
    total, number = sum(blocks), 0
    for stage, count in enumerate(blocks):
        for block in range(count):
            number += 1
            factor = {
                "none": 1.0,
                "stable": 1 / math.sqrt(total),
                "decreasing": 1 / (math.sqrt(number) * math.log(number + 1)),
            }[scaling]
            net.residual_block(
                f"stages.{stage}.{block}.",
                width * 2**stage,
                stride=2 if stage and not block else 1,
                factor=factor,
                shortcut=shortcut,
                bottleneck=imagenet and depth >= 50,
            )
    net.add(AdaptiveAveragePool("pool", (1, 1)))
    net.classifier("fc", (1000 if imagenet else 10) if classes is None else classes)
    return net.architecture(f"{'stable ' if scaling == 'stable' else ''}ResNet-{depth}")


def _residual_blocks(depth: int, imagenet: bool) -> tuple[int, ...]:
    """Residual blocks in each stage."""
    if imagenet:
        return IMAGENET_BLOCKS[checks.one_of("depth", depth, tuple(IMAGENET_BLOCKS))]
    depth = checks.integer("depth", depth, minimum=8, maximum=MOST_LAYERS)
    if (depth - 2) % 6:
        near = depth - (depth - 2) % 6
        raise ArgumentError(f"depth must be 6n + 2, such as {near} or {near + 6}, got {depth}")
    return ((depth - 2) // 6,) * 3


def _input_shape(given: Sequence[int], axes: tuple[int, ...]) -> Shape:
    wanted = " or ".join("(C, H, W)" if n == 2 else "(C, length)" for n in reversed(axes))
    if isinstance(given, Shape):
        given = (given.channels, *given.space)
    channels, *space = checks.extents("input_shape", given, [n + 1 for n in axes], wanted)
    return Shape(channels, tuple(space))


def _positions(name: str, given: Collection[int] | None, count: int) -> frozenset[int]:
    """Indices of convolutions."""
    if given is None:
        return frozenset()
    listed = checks.items(name, given, "indices of convolutions such as (1, 3)", MOST_LAYERS)
    found = frozenset(checks.integer(f"{name}[{i}]", n, minimum=0) for i, n in enumerate(listed))
    if found and max(found) >= count:
        raise ArgumentError(f"{name} must be indices of the {count} convolutions, got {max(found)}")
    return found


@dataclass(frozen=True)
class _Weights:
    """The distribution that the weights of all layers are sampled from."""

    activation: Activation
    init: Init
    sigma_w: float | None
    sigma_b: float | None
    law: WeightLaw | None

    def __post_init__(self) -> None:
        if self.law is not None:
            checks.one_of("law", self.law, ("normal", "uniform", "truncated", "orthogonal"))

    def layer(
        self, name: str, fan_in: int, fan_out: int, kernel: tuple[int, ...] = (), last: bool = False
    ) -> WeightLayer:
        init = self.init
        if self.sigma_w is not None:
            init = checks.positive("sigma_w", self.sigma_w), checks.non_negative("sigma_b", self.sigma_b or 0)
        sigma_w, sigma_b = init_scales(self.activation, init, sigma_b=self.sigma_b, fan_in=fan_in)
        law = self.law or ("uniform" if init == "pytorch" else "normal")
        after = None if last else self.activation
        return WeightLayer(name, fan_in, fan_out, sigma_w, sigma_b, after, law, kernel)


class _Builder:
    """A `GraphBuilder` that knows the shape at each node and the network's habits."""

    def __init__(
        self,
        shape: Shape,
        weights: _Weights,
        normalisation: Normalisation | None = None,
        training: bool = True,
    ) -> None:
        if normalisation is not None:
            checks.one_of("normalisation", normalisation, ("batch", "group", "layer"))
        training = checks.flag("training", training)
        self._graph = GraphBuilder(shape)
        self._shapes = [shape]
        self._weights = weights
        self._kind, self._training = normalisation, training

    @property
    def here(self) -> int:
        """The last node."""
        return len(self._shapes) - 1

    def shape(self, node: int | None = None) -> Shape:
        return self._shapes[self.here if node is None else node]

    def add(self, layer: Layer, *inputs: int) -> int:
        sources = inputs or (self.here,)
        self._shapes.append(layer.output_shape(*(self._shapes[i] for i in sources)))
        return self._graph.add(layer, *sources)

    def convolution(
        self,
        name: str,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding_mode: PaddingMode = "zeros",
        source: int | None = None,
    ) -> int:
        """A convolution with padding that keeps extents (but for its stride)."""
        source = self.here if source is None else source
        shape = self.shape(source)
        axes, pad = len(shape.space), (kernel - 1) // 2
        weight = self._weights.layer(name, shape.channels * kernel**axes, channels, (kernel,) * axes)
        layer = Convolution(
            name, weight, (stride,) * axes, ((pad, pad),) * axes, (1,) * axes, padding_mode=padding_mode
        )
        return self.add(layer, source)

    def norm_name(self, prefix: str, number: int) -> str:
        return f"{prefix}{'bn' if self._kind == 'batch' else 'norm'}{number}"

    def normalisation(self, name: str) -> int:
        """The normalisation asked for, if any."""
        if self._kind == "batch":
            return self.add(BatchNorm(name, training=self._training))
        if self._kind == "group":
            channels = self.shape().channels
            groups = channels // GROUP_CHANNELS if channels % GROUP_CHANNELS == 0 else 1
            return self.add(GroupNorm(name, groups))
        return self.add(LayerNorm(name)) if self._kind == "layer" else self.here

    def nonlinearity(self, name: str) -> int:
        return self.add(Nonlinearity(name, self._weights.activation))

    def classifier(self, name: str, classes: int) -> int:
        """A dense layer on all entries."""
        classes = checks.integer("classes", classes, minimum=1)
        self.add(Flatten("flatten"))
        return self.add(Dense(name, self._weights.layer(name, self.shape().channels, classes, last=True)))

    def residual_block(
        self, prefix: str, channels: int, *, stride: int, factor: float, shortcut: str, bottleneck: bool
    ) -> int:
        start = self.here
        steps = [(channels, 3, stride), (channels, 3, 1)]
        if bottleneck:
            steps = [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)]
        for number, (width, kernel, step) in enumerate(steps, start=1):
            self.convolution(f"{prefix}conv{number}", width, kernel, step)
            self.normalisation(self.norm_name(prefix, number))
            if number < len(steps):
                self.nonlinearity(f"{prefix}act{number}")
        end, width = self.here, self.shape().channels
        past = start
        if self.shape(start) != self.shape(end) and shortcut == "conv":
            self.convolution(f"{prefix}shortcut.0", width, 1, stride, source=start)
            past = self.normalisation(f"{prefix}shortcut.1")
        elif self.shape(start) != self.shape(end):
            if stride > 1:
                past = self.add(Subsample(f"{prefix}subsample", (stride, stride)), start)
            missing = width - self.shape(start).channels
            past = self.add(PadChannels(f"{prefix}pad", missing // 2, missing - missing // 2), past)
        self.add(Sum(f"{prefix}add", (1.0, factor)), past, end)
        return self.nonlinearity(f"{prefix}act{len(steps)}")

    def architecture(self, name: str) -> Architecture:
        return Architecture.from_graph(self._graph.build(), name)
