"""Graphs as torch models, beside models of the same name written by hand in plain torch."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ModelError  # noqa: E402
from eoc_theory.layers import (  # noqa: E402
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    ChannelNorm,
    ChannelScale,
    ChannelShuffle,
    ChannelSlice,
    Concatenate,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    LayerNorm,
    MaxPool,
    Nonlinearity,
    Pad,
    PositionwiseDense,
    Product,
    Resize,
    Shape,
    StochasticDepth,
    Sum,
    WeightLayer,
)
from eoc_theory.networks.architecture import Architecture  # noqa: E402
from eoc_theory.networks.graph import GraphBuilder  # noqa: E402
from eoc_theory.pytorch.models import prunable_weights  # noqa: E402


class CNN(nn.Module):
    def __init__(self, depth, channels, stride_at=(), pool_at=(), mode="circular"):
        super().__init__()
        self.pool_at = pool_at
        sizes = [3] + [channels] * (depth - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2 if i in stride_at else 1, 1, padding_mode=mode)
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = torch.tanh(conv(x))
            if i in self.pool_at:
                x = F.avg_pool2d(x, 2)
        return self.fc(x.mean(dim=(2, 3)))


def vgg11(width):
    layers, channels = [], 3
    for block, count in enumerate((1, 1, 2, 2, 2)):
        for _ in range(count):
            out = width * min(2**block, 8)
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential()
    model.features = nn.Sequential(*layers)
    model.flatten = nn.Flatten()
    model.classifier = nn.Linear(channels, 10)
    return model


class Block(nn.Module):
    def __init__(self, channels, out, stride, factor, pad):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.factor, self.pad, self.stride, self.grow = factor, pad, stride, out - channels
        if stride > 1 and not pad:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 and self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow // 2, self.grow // 2))
        elif self.stride > 1:
            x = self.shortcut(x)
        return F.relu(x + self.factor * y)


class ResNet(nn.Module):
    def __init__(self, n, width, factor=1.0, pad=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, channels = [], width
        for stage in range(3):
            out, blocks = width * 2**stage, []
            for block in range(n):
                blocks.append(Block(channels, out, 2 if stage and not block else 1, factor, pad))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


PAIRS = {
    "cnn": (lambda: eoc.cnn(5, 8), lambda: CNN(5, 8)),
    "cnn with a stride and a pool": (
        lambda: eoc.cnn(5, 8, strides=(1,), pool=(2,), padding_mode="zeros"),
        lambda: CNN(5, 8, (1,), (2,), "zeros"),
    ),
    "vgg": (lambda: eoc.vgg(11, width=8), lambda: vgg11(8)),
    "resnet": (lambda: eoc.resnet(14, width=8), lambda: ResNet(2, 8)),
    "stable resnet": (
        lambda: eoc.resnet(14, width=8, scaling="stable", shortcut="pad"),
        lambda: ResNet(2, 8, 1 / math.sqrt(6), pad=True),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_builders_equal_models_written_by_hand(name):
    build, write = PAIRS[name]
    net = build()
    ours, theirs = net.to_torch(3), write()
    named = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert named == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert list(named) == list(theirs.state_dict()), "parameters come in the order of the forward pass"
    assert tuple(w.name for w in prunable_weights(ours)) == net.weight_layers
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images))


@pytest.mark.parametrize("name", PAIRS)
def test_copies_pickles_and_state_dicts(name):
    model = PAIRS[name][0]().to_torch(1)
    images = torch.randn(2, 3, 32, 32)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    expected = model.eval()(images)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False).eval()):
        assert list(twin.state_dict()) == list(model.state_dict())
        torch.testing.assert_close(twin(images), expected)


def test_seeds():
    net = eoc.resnet(8, width=4)
    before = torch.get_rng_state()
    first, same, other = (net.to_torch(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_modes_are_the_graphs():
    assert all(module.training for module in eoc.resnet(8, width=4).to_torch().modules())
    assert not any(module.training for module in eoc.resnet(8, width=4, training=False).to_torch().modules())


@pytest.mark.parametrize("law", ["normal", "uniform", "truncated", "orthogonal"])
def test_weights_have_the_scale_and_law_asked_for(law):
    model = eoc.cnn(4, 96, sigma_w=1.7, sigma_b=0.4, law=law, input_shape=(3, 8, 8)).to_torch(5)
    weight = model.get_submodule("convs.1").weight.detach().double()
    fan_in = 9 * 96
    square = weight.square()
    n = weight.numel()
    # Relative standard error of a mean square: √((kurtosis − 1)/n) ≤ √(2/n).
    assert float(square.mean()) * fan_in == pytest.approx(1.7**2, rel=5 * math.sqrt(2 / n))
    kurtosis = float(square.square().mean() / square.mean() ** 2)
    assert kurtosis == pytest.approx(
        {"normal": 3.0, "uniform": 1.8, "truncated": 2.3659, "orthogonal": 3.0}[law], abs=0.08
    )
    bias = model.get_submodule("convs.1").bias
    assert float(bias.detach().std()) == pytest.approx(0.4, rel=0.35)
    if law == "truncated":
        # Two standard deviations of the uncut law are 2/0.87963 of the law's own.
        assert float(weight.abs().max()) <= 2 * 1.7 / math.sqrt(fan_in) / 0.879625 * (1 + 1e-6)
    if law == "orthogonal":
        rows = weight.flatten(1)
        torch.testing.assert_close(
            rows @ rows.T, 1.7**2 * torch.eye(96, dtype=torch.float64), atol=1e-5, rtol=0
        )


def layer(name, fan_in, fan_out, kernel=(), sigma_b=0.0, law="normal"):
    return WeightLayer(name, fan_in, fan_out, 1.0, sigma_b, None, law, kernel)


def test_every_layer_type():
    relu = eoc.activation("relu")
    net = GraphBuilder(Shape(4, (9, 8)))
    start = net.add(
        Convolution("conv", layer("conv", 2 * 6, 6, (3, 2)), (2, 1), ((1, 2), (0, 1)), (1, 1), 2, "reflect")
    )
    net.add(BatchNorm("norm.batch", training=False, gain=0.5, shift=0.3, variance=4.0, eps=1e-3))
    net.add(Nonlinearity("act", relu))
    net.add(GroupNorm("norm.group", 3, gain=2.0))
    net.add(LayerNorm("norm.layer", gain=1.5))
    net.add(Dropout("drop", 0.25, training=False, channelwise=True))
    end = net.add(Identity("same"))
    net.add(Sum("sum", (0.5, 1.0, -2.0)), start, end, start)
    net.add(Concatenate("cat"), end, net.add(Nonlinearity("act", relu)))
    net.add(MaxPool("max", (2, 3), (2, 1), (1, 1), (1, 1), ceil_mode=True))
    net.add(AveragePool("mean", (2, 2), (1, 2), (0, 1), count_include_pad=False))
    net.add(Sum("scaled", (3.0,)))
    net.add(AdaptiveAveragePool("pool", (2, 1)))
    net.add(Flatten("flat"))
    net.add(Dense("fc", layer("fc", 24, 5, sigma_b=0.1)))
    graph = net.build()
    model = Architecture.from_graph(graph).to_torch(0)
    x = torch.randn(7, 4, 9, 8)

    conv, batch = model.conv, model.norm.batch
    # Its value is also added later, where a bias would count.
    assert conv.bias is not None and conv.groups == 2
    assert float(batch.weight.detach().mean()) == 0.5 and float(batch.running_var.mean()) == 4.0
    assert 0 < float(batch.bias.detach().abs().max()) < 1.5
    padded = F.pad(x, (0, 1, 1, 2), mode="reflect")
    y0 = F.conv2d(padded, conv.weight, stride=(2, 1), groups=2)
    y = y0 / math.sqrt(4.0 + 1e-3) * 0.5 + batch.bias[:, None, None]
    y = F.group_norm(F.relu(y), 3, torch.full((6,), 2.0), torch.zeros(6))
    y = F.layer_norm(y, y.shape[1:]) * 1.5
    z = 0.5 * y0 + y - 2.0 * y0
    z = torch.cat([y, F.relu(z)], 1)
    z = F.max_pool2d(z, (2, 3), (2, 1), (1, 1), ceil_mode=True)
    z = 3 * F.avg_pool2d(z, (2, 2), (1, 2), (0, 1), count_include_pad=False)
    z = model.fc(F.adaptive_avg_pool2d(z, (2, 1)).flatten(1))
    torch.testing.assert_close(model(x), z)
    assert graph.output_shape == Shape(5) and tuple(z.shape) == (7, 5)


def test_layers_that_torch_has_no_module_for_are_built_and_read_back():
    net = GraphBuilder(Shape(4, (6, 5)))
    net.add(Convolution("conv", layer("conv", 4, 8, (1, 1)), (1, 1), ((0, 0),) * 2, (1, 1)))
    net.add(ChannelNorm("norm", gain=1.5, eps=1e-3))
    stem = net.add(ChannelShuffle("shuffle", (2, 4), (1, 0)))
    half = net.add(ChannelSlice("half", 1, 7, 2), stem)
    net.add(PositionwiseDense("up", layer("up", 3, 8, sigma_b=0.2)), half)
    net.add(ChannelScale("scale", 0.5))
    branch = net.add(StochasticDepth("depth", 0.25, training=False))
    net.add(Pad("pad", ((1, 0), (0, -1))), branch)
    net.add(Resize("size", (6, 5), "linear"))
    pooled = net.add(AdaptiveAveragePool("pool", (1, 1)))
    gate = net.add(Flatten("vector"), pooled)
    net.add(Product("gate"), stem, gate)
    net.add(AdaptiveAveragePool("mean", (1, 1)))
    net.add(Flatten("flat"))
    net.add(Dense("fc", layer("fc", 8, 5)))
    graph = net.build()
    model = Architecture.from_graph(graph).to_torch(0)
    x = torch.randn(7, 4, 6, 5)

    y = F.conv2d(x, model.conv.weight, model.conv.bias).movedim(1, -1)
    y = F.layer_norm(y, (8,), torch.full((8,), 1.5), eps=1e-3).movedim(-1, 1)
    y = y.view(7, 2, 4, 6, 5).transpose(1, 2).reshape(7, 8, 6, 5)
    z = F.linear(y[:, 1:7:2].movedim(1, -1), model.up.weight, model.up.bias).movedim(-1, 1)
    z = F.interpolate(F.pad(0.5 * z, (0, -1, 1, 0)), (6, 5), mode="bilinear")
    y = y * z.mean((2, 3))[:, :, None, None]
    torch.testing.assert_close(model(x), model.fc(y.mean((2, 3))))

    again = Architecture.from_torch(model, x).as_graph()
    names = [type(node.layer).__name__ for node in graph.nodes]
    # Nothing is done in evaluation mode, nor by flattening what is then given its axes back; all
    # channels times one number are a sum of one.
    read = [type(node.layer).__name__ for node in again.nodes]
    names.remove("StochasticDepth")
    names.remove("Flatten")
    assert sorted(read) == sorted("Sum" if name == "ChannelScale" else name for name in names)
    assert [w.name for w in again.weight_layers] == ["conv", "up", "fc"]


def test_one_axis_and_circular_padding():
    net = eoc.cnn(4, 5, input_shape=(2, 12), strides=(1,), pool=(2,), activation="relu")
    model = net.to_torch(2)
    x = torch.randn(3, 2, 12)
    y = x
    for i, stride in enumerate((1, 2, 1)):
        conv = model.get_submodule(f"convs.{i}")
        y = torch.cat([y[..., -1:], y, y[..., :1]], -1)
        y = F.relu(F.conv1d(y, conv.weight, conv.bias, stride))
    y = model.fc(F.avg_pool1d(y, 2).mean(-1))
    torch.testing.assert_close(model(x), y)


def test_shared_names():
    tanh, relu = eoc.activation("tanh"), eoc.activation("relu")
    net = GraphBuilder(Shape(3))
    net.add(Dense("a", layer("a", 3, 4)))
    net.add(Nonlinearity("act", tanh))
    net.add(LayerNorm("norm"))
    net.add(Dense("b", layer("b", 4, 4)))
    net.add(Nonlinearity("act", tanh))
    net.add(Nonlinearity("act", relu))
    net.add(Dense("c", layer("c", 4, 2)))
    model = Architecture.from_graph(net.build()).to_torch(0)
    x = torch.randn(5, 3)
    expected = model.c(F.relu(torch.tanh(model.b(F.layer_norm(torch.tanh(model.a(x)), (4,))))))
    torch.testing.assert_close(model(x), expected)
    assert set(dict(model.named_children())) == {"a", "act", "norm", "b", "act_1", "c"}


def test_names_that_no_module_can_have():
    net = GraphBuilder(Shape(3))
    net.add(LayerNorm("norm"))
    net.add(Dense("a..b", layer("a..b", 3, 4)))
    with pytest.raises(ModelError, match=r"layer names must be like .* got 'a\.\.b'"):
        Architecture.from_graph(net.build()).to_torch()


def test_dtype_is_that_of_the_parameters():
    from eoc_theory.pytorch.models import build_model

    model = build_model(eoc.resnet(8, width=4), dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(torch.randn(2, 3, 32, 32).double()).dtype == torch.float64


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_activations_without_a_torch_form_of_their_own(kind):
    build = {"mlp": lambda a: eoc.mlp(3, 6, activation=a), "cnn": lambda a: eoc.cnn(3, 6, activation=a)}[kind]
    model = build("x/(1+exp(-x))").to_torch(0)
    twin = build("silu").to_torch(0)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 64) if kind == "mlp" else torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(x), twin(x), rtol=1e-5, atol=1e-6)
    assert np.isfinite(model(x).detach().numpy()).all()


@pytest.mark.parametrize(
    "build",
    [
        *(build for build, _ in PAIRS.values()),
        lambda: eoc.cnn(5, 8, strides=(1,), pool=(2,), head="flatten", activation="gelu", init="pytorch"),
        lambda: eoc.resnet(8, width=8, normalisation="group", scaling="decreasing", activation="tanh"),
        lambda: eoc.resnet(8, width=8, normalisation="layer", training=False),
        lambda: eoc.resnet(50, form="imagenet", width=4, input_shape=(3, 64, 64), training=False),
        lambda: eoc.vgg(13, width=4, normalisation=None, law="orthogonal"),
    ],
)
def test_models_are_read_back_layer_by_layer(build):
    """Every layer, its inputs and its activation; scales and laws are read from few weights, names of sums
    are the functions'."""
    net = build()
    model = net.to_torch(0)
    read = Architecture.from_torch(model, (2, net.input_shape.channels, *net.input_shape.space))
    assert read.weight_layers == net.weight_layers
    assert len(read.graph.nodes) == len(net.graph.nodes)
    for ours, theirs in zip(net.graph.nodes, read.graph.nodes, strict=True):
        assert ours.inputs == theirs.inputs
        layer, found = ours.layer, theirs.layer
        if isinstance(layer, (Convolution, Dense)):
            relative = 6 / math.sqrt(2 * layer.weight.n_weights)
            assert found.weight.sigma_w == pytest.approx(layer.weight.sigma_w, rel=relative)
            assert (found.weight.sigma_b > 0) == (layer.weight.sigma_b > 0)
            scales = {"sigma_w": 1.0, "sigma_b": 0.0, "law": "normal"}
            layer, found = (replace(one, weight=replace(one.weight, **scales)) for one in (layer, found))
        assert replace(found, name=layer.name) == layer


def test_a_chain_with_images_is_read_back_as_a_chain():
    net = eoc.mlp(4, 30, in_features=3 * 4 * 4)
    model = nn.Sequential(nn.Flatten(), net.to_torch(0))
    assert Architecture.from_torch(model, (2, 3, 4, 4)).graph is None
