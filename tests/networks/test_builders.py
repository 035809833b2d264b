"""Convolutional, VGG and residual networks: shapes, counts, scales and the errors a user meets."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, EOCError
from eoc_theory.layers import (
    AveragePool,
    BatchNorm,
    Convolution,
    GroupNorm,
    LayerNorm,
    MaxPool,
    PadChannels,
    Subsample,
    Sum,
)


def kinds(net, kind):
    return [node.layer for node in net.graph.nodes if isinstance(node.layer, kind)]


def test_cnn_is_the_papers():
    net = eoc.cnn(5, 16)
    assert net.depth == 5
    assert net.weight_layers == ("convs.0", "convs.1", "convs.2", "convs.3", "fc")
    assert net.weights.tolist() == [27 * 16, 144 * 16, 144 * 16, 144 * 16, 160]
    convolutions = kinds(net, Convolution)
    assert {layer.padding_mode for layer in convolutions} == {"circular"}
    assert {layer.padding for layer in convolutions} == {((1, 1), (1, 1))}
    assert net.layers[0].sigma_w == pytest.approx(1.3041458400565116, rel=1e-9)
    assert [layer.activation is None for layer in net] == [False] * 4 + [True]
    assert str(net.graph.shapes[-4]) == "16x32x32"


def test_cnn_strides_pools_and_head():
    net = eoc.cnn(6, 8, strides=(1,), pool=(3,), head="flatten", padding_mode="zeros", kernel=5)
    assert [layer.stride[0] for layer in kinds(net, Convolution)] == [1, 2, 1, 1, 1]
    assert [layer.name for layer in kinds(net, AveragePool)] == ["pools.3"]
    assert net.layers[-1].fan_in == 8 * 8 * 8
    assert net.layers[1].fan_in == 8 * 25


def test_cnn_over_one_axis():
    net = eoc.cnn(3, 4, input_shape=(2, 20), classes=3)
    assert net.layers[0].weight_shape == (4, 2, 3)
    assert net.out_features == 3 and net.in_features == 40


@pytest.mark.parametrize(("depth", "weights"), [(11, 8), (13, 10), (16, 13), (19, 16), (34, 31), (49, 46)])
def test_vgg_has_one_dense_layer_in_place_of_three(depth, weights):
    net = eoc.vgg(depth)
    assert net.depth == weights + 1
    assert [layer.fan_out for layer in net][:: weights - 1][:2] == [64, 512]
    assert len(kinds(net, MaxPool)) == 5 and len(kinds(net, BatchNorm)) == weights
    assert net.weight_layers[:2] == ("features.0", "features.4" if depth == 11 else "features.3")
    assert net.layers[-1].fan_in == 512


# Weights without biases and normalisation, counted by hand from the papers' tables: He et al. 2016 table 6
# gives 0.27, 0.46, 0.66, 0.85 and 1.7 million for shortcuts without parameters.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_residual_networks_have_the_papers_size(depth, millions):
    net = eoc.resnet(depth, shortcut="pad")
    assert net.depth == depth
    assert net.n_weights / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.006)


@pytest.mark.parametrize("depth", [32, 50, 104])
def test_residual_networks_of_the_pruning_paper(depth):
    net = eoc.resnet(depth, width=32, scaling="stable")
    blocks = (depth - 2) // 2
    assert {layer.fan_out for layer in net} == {32, 64, 128, 10}
    sums = kinds(net, Sum)
    assert len(sums) == blocks
    assert all(layer.coefficients == (1.0, 1 / math.sqrt(blocks)) for layer in sums)
    assert net.depth == depth + 2


# torchvision's parameter counts, less its normalisation layers' and the last biases.
@pytest.mark.parametrize(
    ("depth", "parameters", "normalised", "last"),
    [(18, 11_689_512, 4_800, 512), (34, 21_797_672, 8_512, 512), (50, 25_557_032, 26_560, 2048)],
)
def test_imagenet_forms_have_torchvisions_size(depth, parameters, normalised, last):
    net = eoc.resnet(depth, form="imagenet")
    assert net.n_weights == parameters - 2 * normalised - 1000
    assert (
        sum(
            net.graph.shapes[i].channels
            for i, node in enumerate(net.graph.nodes)
            if isinstance(node.layer, BatchNorm)
        )
        == normalised
    )
    assert net.layers[-1].fan_in == last and net.out_features == 1000
    assert str(net.input_shape) == "3x224x224"


def test_decreasing_scaling():
    sums = kinds(eoc.resnet(20, scaling="decreasing"), Sum)
    expected = [1 / (math.sqrt(n) * math.log(n + 1)) for n in range(1, 10)]
    np.testing.assert_allclose([layer.coefficients[1] for layer in sums], expected)
    assert {layer.coefficients[0] for layer in sums} == {1.0}


def test_shortcuts():
    conv = eoc.resnet(20)
    assert [n for n in conv.weight_layers if "shortcut" in n] == [f"stages.{s}.0.shortcut.0" for s in (1, 2)]
    pad = eoc.resnet(20, shortcut="pad")
    assert [(p.before, p.after) for p in kinds(pad, PadChannels)] == [(8, 8), (16, 16)]
    assert [s.stride for s in kinds(pad, Subsample)] == [(2, 2), (2, 2)]
    deep = eoc.resnet(50, form="imagenet", shortcut="pad")
    # The first stage grows channels without a stride.
    assert len(kinds(deep, PadChannels)) == 4 and len(kinds(deep, Subsample)) == 3


def test_normalisation():
    assert {layer.training for layer in kinds(eoc.resnet(8, training=False), BatchNorm)} == {False}
    assert [layer.groups for layer in kinds(eoc.resnet(8, normalisation="group"), GroupNorm)] == (
        [1] * 3 + [2] * 3 + [4] * 3
    )
    assert [layer.groups for layer in kinds(eoc.vgg(11, width=12, normalisation="group"), GroupNorm)][:3] == [
        1,
        1,
        3,
    ]
    assert len(kinds(eoc.vgg(11, normalisation="layer"), LayerNorm)) == 8
    plain = eoc.resnet(8, normalisation=None)
    assert not kinds(plain, (BatchNorm, GroupNorm, LayerNorm))


def test_scales_and_laws():
    relu = eoc.vgg(11)
    np.testing.assert_allclose([layer.sigma_w for layer in relu], math.sqrt(2))
    torch_default = eoc.cnn(4, 8, init="pytorch")
    assert {layer.law for layer in torch_default} == {"uniform"}
    np.testing.assert_allclose(
        [layer.sigma_b for layer in torch_default], [1 / math.sqrt(3 * n) for n in (27, 72, 72, 8)]
    )
    given = eoc.resnet(8, sigma_w=1.1, sigma_b=0.3, law="orthogonal")
    assert {(layer.sigma_w, layer.sigma_b, layer.law) for layer in given} == {(1.1, 0.3, "orthogonal")}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: eoc.cnn(1, 8), "depth must be a whole number >= 2, got 1"),
        (lambda: eoc.cnn(3, 0), "channels must be a whole number >= 1"),
        (lambda: eoc.cnn(3, 8, kernel=2), "kernel must be odd, got 2"),
        (lambda: eoc.cnn(3, 8, strides=(2,)), "strides must be indices of the 2 convolutions, got 2"),
        (lambda: eoc.cnn(3, 8, pool=1), r"pool must be indices of convolutions such as \(1, 3\), got 1"),
        (lambda: eoc.cnn(3, 8, input_shape=(3,)), r"input_shape must be \(C, H, W\) or \(C, length\)"),
        (lambda: eoc.cnn(3, 8, input_shape="3,4,5"), "input_shape must be"),
        (lambda: eoc.cnn(3, 8, input_shape=(3, 0, 4)), r"input_shape\[1\] must be a whole number >= 1"),
        (lambda: eoc.cnn(9, 8, pool=range(6)), "pools.5"),
        (lambda: eoc.cnn(3, 8, padding_mode="same"), "padding_mode must be one of"),
        (lambda: eoc.cnn(3, 8, law="cauchy"), "law must be one of"),
        (lambda: eoc.cnn(3, 8, init="he"), "init must be one of"),
        (lambda: eoc.vgg(12), "depth must be one of 11, 13, 16, 19, 34, 49, got 12"),
        (lambda: eoc.vgg(11, input_shape=(1, 28, 28)), "input_shape must be at least 32 each way"),
        (lambda: eoc.vgg(11, normalisation="instance"), "normalisation must be one of"),
        (lambda: eoc.resnet(21), r"depth must be 6n \+ 2, such as 20 or 26, got 21"),
        (lambda: eoc.resnet(20, form="imagenet"), "depth must be one of 18, 34"),
        (lambda: eoc.resnet(20, scaling="half"), "scaling must be one of"),
        (lambda: eoc.resnet(20, shortcut="none"), "shortcut must be one of"),
        (lambda: eoc.resnet(20, training=1), "training must be True or False, got 1"),
        (lambda: eoc.resnet(20, classes=0), "classes must be a whole number >= 1"),
    ],
)
def test_errors_name_the_argument(build, message):
    with pytest.raises((ArgumentError, EOCError), match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
