"""Densely connected convolutional networks, in which each layer takes the outputs of all before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import eoc_theory as eoc
from eoc_theory.base import checks
from eoc_theory.errors import ArgumentError
from eoc_theory.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Flatten,
    Nonlinearity,
    Shape,
    WeightLayer,
)
from eoc_theory.networks.architecture import Architecture, init_scales
from eoc_theory.networks.graph import GraphBuilder

STAGES = 3


def densenet(
    depth: int,
    growth: int,
    *,
    activation: Any = "relu",
    input_shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    init: Any = "eoc",
    sigma_b: float | None = None,
    training: bool = True,
) -> Architecture:
    """A DenseNet for small images (Huang et al. 2017, section 3, without bottlenecks).

    A 3×3 convolution to 2·`growth` channels; three stages of layers (normalisation, activation, 3×3
    convolution to `growth` channels, put beside their input); between the stages a 1×1 convolution that keeps
    the number of channels and a 2×2 mean; then normalisation, activation, the mean over positions and a dense
    layer.

    Args:
        depth: weight layers, 3n + 4 for n layers in each stage.
        growth: channels that each layer adds.
        training: whether batch normalisation uses the batch's own statistics.
        activation, input_shape, classes, init, sigma_b: as of `eoc_theory.cnn`.

    Raises:
        ArgumentError: another depth.
    """
    depth = checks.integer("depth", depth, minimum=7)
    if (depth - 4) % STAGES:
        raise ArgumentError(f"depth must be 3n + 4, such as 13 or 22, got {depth}")
    act = eoc.activation(activation)
    shape = Shape(input_shape[0], tuple(input_shape[1:]))
    build, channels = GraphBuilder(shape), 2 * growth

    def convolution(name: str, inputs: int, outputs: int, kernel: int, *source: int) -> int:
        fan_in, pad = inputs * kernel**2, ((kernel - 1) // 2, (kernel - 1) // 2)
        scales = init_scales(act, init, sigma_b=sigma_b, fan_in=fan_in)
        weight = WeightLayer(name, fan_in, outputs, *scales, act, "normal", (kernel, kernel))
        return build.add(Convolution(name, weight, (1, 1), (pad, pad), (1, 1)), *source)

    def normalised(name: str, source: int) -> int:
        return build.add(
            Nonlinearity(f"{name}.act", act), build.add(BatchNorm(f"{name}.bn", training), source)
        )

    here = convolution("stem", shape.channels, channels, 3)
    for stage in range(STAGES):
        for layer in range((depth - 4) // STAGES):
            name = f"stages.{stage}.{layer}"
            new = convolution(f"{name}.conv", channels, growth, 3, normalised(name, here))
            here, channels = build.add(Concatenate(f"{name}.cat"), here, new), channels + growth
        if stage < STAGES - 1:
            name = f"transitions.{stage}"
            here = convolution(f"{name}.conv", channels, channels, 1, normalised(name, here))
            here = build.add(AveragePool(f"{name}.pool", (2, 2), (2, 2), (0, 0)), here)
    build.add(AdaptiveAveragePool("pool", (1, 1)), normalised("last", here))
    build.add(Flatten("flatten"))
    scales = init_scales(act, init, sigma_b=sigma_b, fan_in=channels)
    build.add(Dense("fc", WeightLayer("fc", channels, classes, *scales)))
    return Architecture.from_graph(build.build(), f"DenseNet-{depth}")
