"""Predictions for convolutional, residual and normalised networks, against really pruned ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ModelError
from eoc_theory.layers import BatchNorm, Convolution, GroupNorm
from eoc_theory.networks.downsample import within_reach
from eoc_theory.networks.narrow import narrowed
from eoc_theory.signals.data import DataSummary, digits_images

SPARSITIES = np.array([0.8, 0.95])


def images(size: int, inputs: int = 50):
    return digits_images(inputs, (3, size, size), seed=0)


NETWORKS = {
    "cnn": lambda: eoc.cnn(6, 48, activation="tanh", input_shape=(3, 12, 12)),
    "relu-cnn-zeros": lambda: eoc.cnn(
        6, 48, activation="relu", input_shape=(3, 12, 12), padding_mode="zeros"
    ),
    "strided-flat": lambda: eoc.cnn(6, 48, input_shape=(3, 12, 12), strides=(1,), head="flatten"),
    "pooled": lambda: eoc.cnn(6, 48, activation="relu", input_shape=(3, 12, 12), pool=(2,)),
    "resnet": lambda: eoc.resnet(8, width=8, input_shape=(3, 16, 16)),
    "stable-resnet": lambda: eoc.resnet(8, width=8, input_shape=(3, 16, 16), scaling="stable"),
    "group-resnet": lambda: eoc.resnet(8, width=16, input_shape=(3, 16, 16), normalisation="group"),
    "option-a": lambda: eoc.resnet(8, width=8, input_shape=(3, 16, 16), shortcut="pad"),
    "vgg": lambda: eoc.vgg(11, width=8, input_shape=(3, 32, 32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kept_is_what_real_networks_keep(name, criterion):
    """Mean over six seeds; their own standard error is up to 0.01."""
    pytest.importorskip("torch")
    net = NETWORKS[name]()
    data = images(net.input_shape.space[0])
    prediction = eoc.predict_pruning(net, SPARSITIES, criterion=criterion, data=data)
    measured = [
        eoc.measure_pruning(net.to_torch(seed), SPARSITIES, criterion=criterion, data=data, masks=False).kept
        for seed in range(6)
    ]
    error = np.abs(prediction.kept - np.mean(measured, axis=0)).mean()
    assert error < (0.03 if criterion == "snip" else 0.05)


def modern(seed: int):
    """Gates, channels last, a factor of a branch, shuffled and passed channels, in plain torch."""
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    class Block(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(c, c, 3, padding=1, groups=c), nn.LayerNorm(c)
            self.up, self.down = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
            self.squeeze, self.excite = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)
            self.factor = nn.Parameter(torch.full((c,), 0.5))

        def forward(self, x):
            y = F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
            y = (self.down(y) * self.factor).permute(0, 3, 1, 2)
            gate = self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
            return x + y * torch.sigmoid(gate)

    class Shuffled(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(c // 2, c // 2, 3, padding=1), nn.BatchNorm2d(c // 2)

        def forward(self, x):
            kept, half = x.chunk(2, 1)
            y = torch.cat([kept, F.relu(self.norm(self.conv(half)))], 1)
            return y.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)

    torch.manual_seed(seed)
    stem = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    body = [Block(32), Shuffled(32), nn.Conv2d(32, 48, 2, 2), Block(48), Shuffled(48)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["snip", "magnitude", "synflow-oneshot"])
def test_kept_of_gates_shuffles_and_channels_last(criterion):
    pytest.importorskip("torch")
    data = images(12)
    prediction = eoc.predict_pruning(modern(0), SPARSITIES, criterion=criterion, data=data)
    measured = [
        eoc.measure_pruning(modern(seed), SPARSITIES, criterion=criterion, data=data, masks=False)
        for seed in range(8)
    ]
    assert prediction.layers == measured[0].layers and len(prediction.layers) == 15
    assert np.abs(prediction.kept - np.mean([m.kept for m in measured], axis=0)).mean() < 0.015


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_a_prediction_adds_up(criterion):
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8))
    prediction = eoc.predict_pruning(net, SPARSITIES, criterion=criterion, data=images(8), seed=3)
    share = net.weights / net.n_weights
    assert prediction.kept @ share == pytest.approx(1.0 - SPARSITIES, abs=2e-3)
    assert ((prediction.kept_std >= 0) & (prediction.empty_probability >= 0)).all()
    assert prediction.samples >= 2
    assert any("training mode" in note for note in prediction.notes)
    assert json.loads(prediction.to_json())["notes"] == list(prediction.notes)
    again = eoc.predict_pruning(net, SPARSITIES, criterion=criterion, data=images(8), seed=3)
    assert np.array_equal(prediction.kept, again.kept) and np.array_equal(prediction.kept_std, again.kept_std)
    other = eoc.predict_pruning(net, SPARSITIES, criterion=criterion, data=images(8), seed=4)
    assert not np.array_equal(prediction.kept, other.kept)


def test_few_removed_weights_under_signed_scores():
    """Below the share of negative scores only those go, so that every layer keeps its positive ones."""
    net = eoc.cnn(4, 16, input_shape=(3, 8, 8))
    prediction = eoc.predict_pruning(net, [0.0, 0.2, 0.4, 0.6], criterion="grasp", data=images(8))
    share = net.weights / net.n_weights
    assert prediction.kept @ share == pytest.approx([1.0, 0.8, 0.6, 0.4], abs=0.02)
    assert prediction.kept[0] == pytest.approx(1.0, abs=1e-6)
    assert (prediction.empty_probability[:3] == 0).all()


def test_collapse_of_a_residual_network():
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8))
    found = eoc.predict_collapse(net, data=images(8), samples=4)
    assert 0.5 < found.quantile(0.1) <= found.critical_sparsity <= found.quantile(0.95) <= 1.0
    assert found.weakest_probability.sum() == pytest.approx(1.0)
    assert found.bound is None


def test_a_traced_model_is_predicted_like_its_architecture():
    pytest.importorskip("torch")
    net = eoc.cnn(4, 64, input_shape=(3, 8, 8), activation="relu")
    data = images(8)
    model = net.to_torch(0)
    read = eoc.Architecture.from_torch(model, np.zeros((1, 3, 8, 8), np.float32))
    assert read.graph is not None and net.graph is not None
    assert [type(node.layer) for node in read.graph.nodes] == [type(node.layer) for node in net.graph.nodes]
    one, other = (eoc.predict_pruning(n, 0.9, data=data, samples=4).kept for n in (net, read))
    assert one == pytest.approx(other, abs=0.02)


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
@pytest.mark.parametrize("normalisation", ["batch", "group", None])
def test_narrowed_graphs_keep_their_form(shortcut, normalisation):
    net = eoc.resnet(14, width=64, shortcut=shortcut, normalisation=normalisation)
    assert net.graph is not None
    graph = narrowed(net.graph, 0.5)
    assert [type(n.layer) for n in graph.nodes] == [type(n.layer) for n in net.graph.nodes]
    assert graph.input_shape == net.graph.input_shape and graph.output_shape == net.graph.output_shape
    for shape, whole in zip(graph.shapes[1:-1], net.graph.shapes[1:-1], strict=True):
        assert shape.space == whole.space and 2 * shape.channels == whole.channels
    for node, before in zip(graph.nodes, net.graph.nodes, strict=True):
        if isinstance(node.layer, GroupNorm):
            assert isinstance(before.layer, GroupNorm) and 2 * node.layer.groups == before.layer.groups


def test_large_images_are_taken_at_lower_resolution():
    net = eoc.resnet(18, form="imagenet", width=8, classes=10, input_shape=(3, 96, 96))
    inputs = np.random.default_rng(0).standard_normal((20, 3, 96, 96))
    batch = DataSummary(inputs.reshape(20, -1), np.arange(20) % 10, 10)
    small, reduced, notes = within_reach(net, batch)
    assert small.input_shape.space == (48, 48) and notes == ("images of 3x96x96 taken at 3x48x48",)
    assert small.layers == net.layers
    assert np.mean(reduced.inputs**2) == pytest.approx(np.mean(inputs**2))
    prediction = eoc.predict_pruning(net, 0.9, data=(inputs, batch.targets), samples=2)
    assert notes[0] in prediction.notes
    # A dense layer on every position's entries ties the network to its resolution.
    flat = eoc.cnn(3, 4, input_shape=(3, 80, 80), head="flatten")
    assert within_reach(flat, None)[0] is flat


def test_evaluation_mode_is_said():
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8), training=False)
    assert any("evaluation mode" in note for note in eoc.predict_pruning(net, 0.5, samples=2).notes)


def test_a_depthwise_network_is_predicted():
    from eoc_theory.layers import (
        AdaptiveAveragePool,
        Dense,
        Flatten,
        Nonlinearity,
        Shape,
        WeightLayer,
    )
    from eoc_theory.networks.graph import GraphBuilder

    relu = eoc.activation("relu")
    build = GraphBuilder(Shape(3, (8, 8)))

    def convolution(name, channels, outputs, kernel, groups=1):
        weight = WeightLayer(
            name, channels // groups * kernel**2, outputs, 2**0.5, 0.0, relu, kernel=(kernel,) * 2
        )
        pad = ((kernel // 2,) * 2,) * 2
        build.add(Convolution(name, weight, (1, 1), pad, (1, 1), groups))
        build.add(BatchNorm(f"{name}.norm", True))
        build.add(Nonlinearity(f"{name}.relu", relu))

    convolution("stem", 3, 32, 3)
    for block in range(2):
        convolution(f"depth{block}", 32, 32, 3, groups=32)
        convolution(f"point{block}", 32, 32, 1)
    build.add(AdaptiveAveragePool("pool", (1, 1)))
    build.add(Flatten("flatten"))
    build.add(Dense("fc", WeightLayer("fc", 32, 10, 1.0, 0.0)))
    net = eoc.Architecture.from_graph(build.build())
    prediction = eoc.predict_pruning(net, 0.5, data=images(8))
    # A depthwise layer has few weights with large gradients.
    assert prediction.kept[1] > prediction.kept[2] and prediction.kept[3] > prediction.kept[4]
    assert narrowed(net.graph, 0.5).weight_layers[1].fan_out == 16


def test_values_that_depend_on_each_other_are_not_added():
    from eoc_theory.layers import Dense, Nonlinearity, Shape, Sum, WeightLayer
    from eoc_theory.networks.graph import GraphBuilder

    build = GraphBuilder(Shape(10))
    hidden = build.add(Dense("first", WeightLayer("first", 10, 20, 1.0, 0.0)))
    bent = build.add(Nonlinearity("relu", eoc.activation("relu")), hidden)
    build.add(Sum("both", (1.0, 1.0)), hidden, bent)
    build.add(Dense("last", WeightLayer("last", 20, 5, 1.0, 0.0)))
    with pytest.raises(ModelError, match=r"'both'.*depend"):
        eoc.Architecture.from_graph(build.build()).propagate()


def test_networks_that_shrink_fast_are_taken_by_uneven_squares():
    """Three poolings behind a stride of four leave nothing of a quarter of 224 positions, and do of 64."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Dropout(), nn.Linear(288, 10),
    ).eval()  # fmt: skip
    inputs = np.random.default_rng(0).standard_normal((6, 3, 224, 224)).astype(np.float32)
    data = inputs, np.arange(6) % 10
    net = eoc.Architecture.from_torch(model, inputs[:1])
    assert within_reach(net, data)[0] is net
    small, batch, notes = within_reach(net, data, less=True)
    assert notes == ("images of 3x224x224 taken at 3x64x64",)
    assert batch.inputs.shape == (6, 3 * 64**2)
    assert np.mean(batch.inputs**2) == pytest.approx(np.mean(inputs**2), rel=1e-6)
    assert [layer.name for layer in small.layers] == [layer.name for layer in net.layers]
    found = net.propagate(data)
    assert notes[0] in found.notes and np.isfinite(found.log_moment).all()


def test_means_over_uneven_stretches_are_those_of_their_entries():
    from eoc_theory.networks.downsample import _averaged

    images = np.random.default_rng(0).standard_normal((2, 3, 22, 5))
    for few in (22, 15, 11, 8, 7, 3, 1):
        found = _averaged(images, few, 2)
        assert found.shape == (2, 3, few, 5)
        constant = _averaged(np.ones((1, 1, 22)), few, 2)[0, 0]
        # The last of equal stretches may be short, and counts what it has not as zeros.
        assert constant[:-1] == pytest.approx(1.0) and 0 < constant[-1] <= 1.0 + 1e-12
        if 22 % few == 0:
            expected = images.reshape(2, 3, few, 22 // few, 5).mean(axis=3)
            assert found == pytest.approx(expected)
