"""Kernels over positions, layer by layer, against sampled wide networks; and what is refused."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sampled_kernels import differences, make_batch, predicted, sampled

import eoc_theory as eoc
from eoc_theory import activation
from eoc_theory.errors import ModelError
from eoc_theory.layers import (
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
    PadChannels,
    PositionwiseDense,
    Product,
    Resize,
    Shape,
    StochasticDepth,
    Subsample,
    Sum,
    Transpose,
    WeightLayer,
)
from eoc_theory.layers.position_kernels import gather, scatter
from eoc_theory.networks.architecture import Architecture
from eoc_theory.networks.graph import GraphBuilder
from eoc_theory.propagation import kernel_memory
from eoc_theory.propagation.graph_kernels import propagate_graph

WIDTH = 400
RELU, TANH = activation("relu"), activation("tanh")


def conv(
    name, given, made, kernel=(3, 3), stride=1, padding=1, dilation=1, groups=1, mode="zeros", sigma_w=1.4
):
    axes = len(kernel)
    weight = WeightLayer(name, given // groups * math.prod(kernel), made, sigma_w, 0.2, kernel=kernel)
    pads = ((padding, padding),) * axes
    return Convolution(name, weight, (stride,) * axes, pads, (dilation,) * axes, groups, mode)


def pointwise(name, given, made, sigma_w=1.0):
    return conv(name, given, made, (1, 1), padding=0, sigma_w=sigma_w)


def finish(builder, head="mean"):
    """The graph with a dense layer on the mean over positions, or on all of them."""
    shapes = []
    for node in builder.nodes:
        shapes.append(node.layer.output_shape(*(shapes[i] for i in node.inputs)))
    shape = shapes[-1]
    if head == "mean":
        builder.add(AdaptiveAveragePool("mean", (1,) * len(shape.space)))
        shape = Shape(shape.channels, (1,))
    builder.add(Flatten("flat"))
    builder.add(Dense("fc", WeightLayer("fc", shape.size, WIDTH, 1.2, 0.1)))
    return builder.build()


def chain(space, *layers, head="mean"):
    builder = GraphBuilder(Shape(WIDTH, space))
    for layer in layers:
        builder.add(layer)
    return finish(builder, head)


def act(name, function=RELU):
    return Nonlinearity(name, function)


def residual():
    """The mean of the rectified stream is not 0; the branch ends without an activation, as they do."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    net.add(conv("stem", WIDTH, WIDTH))
    stream = net.add(act("r0"))
    net.add(conv("c1", WIDTH, WIDTH))
    net.add(act("r1"))
    branch = net.add(conv("c2", WIDTH, WIDTH))
    net.add(Sum("sum", (1.0, 0.7)), stream, branch)
    net.add(conv("c3", WIDTH, WIDTH))
    return finish(net)


def shortcuts():
    net = GraphBuilder(Shape(WIDTH, (6, 6)))
    net.add(conv("stem", WIDTH, WIDTH))
    stream = net.add(act("r0"))
    branch = net.add(conv("c1", WIDTH, 2 * WIDTH, stride=2))
    net.add(Subsample("sub", (2, 2)), stream)
    padded = net.add(PadChannels("pad", WIDTH // 2, WIDTH // 2))
    total = net.add(Sum("sum", (1.0, 0.5)), padded, branch)
    other = net.add(pointwise("c2", 2 * WIDTH, WIDTH))
    net.add(Concatenate("cat"), other, total)
    net.add(conv("c3", 3 * WIDTH, WIDTH))
    return finish(net)


def squeeze_excite():
    """A gate of one number a channel and input, which depends on the mean over positions."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    net.add(conv("stem", WIDTH, WIDTH))
    stream = net.add(act("r0"))
    net.add(AdaptiveAveragePool("squeeze", (1, 1)))
    net.add(pointwise("a", WIDTH, WIDTH // 2, sigma_w=2.0))
    net.add(act("r1"))
    net.add(pointwise("b", WIDTH // 2, WIDTH, sigma_w=2.0))
    gate = net.add(act("gate", activation("sigmoid")))
    net.add(Product("excite"), stream, gate)
    net.add(conv("c1", WIDTH, WIDTH))
    return finish(net)


def gated():
    """Halves of the channels, one of them through an activation, multiplied."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    both = net.add(conv("stem", WIDTH, 2 * WIDTH))
    value = net.add(ChannelSlice("value", 0, WIDTH), both)
    half = net.add(ChannelSlice("half", WIDTH, 2 * WIDTH), both)
    gate = net.add(act("gate", TANH), half)
    net.add(Product("glu"), value, gate)
    net.add(conv("c1", WIDTH, WIDTH))
    return finish(net)


def attended():
    """A factor for each position, of one channel."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    stream = net.add(conv("stem", WIDTH, WIDTH))
    net.add(pointwise("place", WIDTH, 1, sigma_w=1.5))
    where = net.add(act("where", activation("sigmoid")))
    net.add(Product("attend"), stream, where)
    net.add(pointwise("c1", WIDTH, WIDTH))
    return finish(net)


def channels_last():
    """ConvNeXt's block: convolution in groups, norm and products over the channels, a factor, dropped."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    stream = net.add(conv("stem", WIDTH, WIDTH))
    net.add(conv("c1", WIDTH, WIDTH, groups=4))
    net.add(ChannelNorm("norm", 1.2, 0.3))
    net.add(PositionwiseDense("up", WeightLayer("up", WIDTH, 2 * WIDTH, 1.2, 0.2)))
    net.add(act("r"))
    net.add(PositionwiseDense("down", WeightLayer("down", 2 * WIDTH, WIDTH, 1.5, 0.0)))
    net.add(ChannelScale("layerscale", 0.6))
    branch = net.add(StochasticDepth("drop", 0.3))
    net.add(Sum("sum", (1.0, 1.0)), stream, branch)
    net.add(ChannelScale("affine", 0.9, 0.4))
    net.add(pointwise("c2", WIDTH, WIDTH))
    return finish(net)


def shuffled():
    """ShuffleNet's unit: half of the channels pass, the other half is convolved, then all are mixed."""
    net = GraphBuilder(Shape(WIDTH, (5, 5)))
    net.add(conv("stem", WIDTH, WIDTH))
    stream = net.add(act("r0"))
    kept = net.add(ChannelSlice("kept", 0, WIDTH // 2), stream)
    half = net.add(ChannelSlice("half", WIDTH // 2, WIDTH), stream)
    net.add(conv("c1", WIDTH // 2, WIDTH // 2, sigma_w=2.0), half)
    branch = net.add(act("r1"))
    net.add(Concatenate("cat"), kept, branch)
    net.add(ChannelShuffle("shuffle", (2, WIDTH // 2), (1, 0)))
    net.add(pointwise("c2", WIDTH, WIDTH))
    return finish(net)


def mixer():
    """A mixer's block: a product over the positions of every channel, then one over the channels."""
    net = GraphBuilder(Shape(WIDTH, (8, 8)))
    stream = net.add(conv("stem", WIDTH, WIDTH, padding=1))
    net.add(ChannelNorm("norm"))
    net.add(Transpose("tokens", (WIDTH,)))
    net.add(PositionwiseDense("t1", WeightLayer("t1", 64, 256, 1.4, 0.2)))
    net.add(act("r"))
    net.add(PositionwiseDense("t2", WeightLayer("t2", 256, 64, 1.4, 0.1)))
    mixed = net.add(Transpose("back", (8, 8)))
    net.add(Sum("sum", (1.0, 1.0)), stream, mixed)
    net.add(PositionwiseDense("c1", WeightLayer("c1", WIDTH, WIDTH, 1.2, 0.1)))
    net.add(act("t", TANH))
    return finish(net)


NETWORKS = {
    "zeros": lambda: chain(
        (5, 5), conv("c1", WIDTH, WIDTH), act("r"), conv("c2", WIDTH, WIDTH), act("t", TANH)
    ),
    "circular": lambda: chain(
        (5, 5),
        conv("c1", WIDTH, WIDTH, mode="circular"),
        act("t", TANH),
        conv("c2", WIDTH, WIDTH),
        head="flat",
    ),
    "reflect, dilated, strided": lambda: chain(
        (6, 6),
        conv("c1", WIDTH, WIDTH, padding=2, dilation=2, mode="reflect"),
        act("r"),
        conv("c2", WIDTH, WIDTH, stride=2),
        act("t", TANH),
        head="flat",
    ),
    "one axis": lambda: chain(
        (16,),
        conv("c1", WIDTH, WIDTH, (3,), stride=2),
        act("r"),
        AveragePool("pool", (3,), (2,), (1,)),
        conv("c2", WIDTH, WIDTH, (3,)),
    ),
    "groups": lambda: chain(
        (5, 5), conv("c1", WIDTH, WIDTH, groups=2), act("r"), conv("c2", WIDTH, WIDTH, groups=2)
    ),
    "averages": lambda: chain(
        (6, 6),
        conv("c1", WIDTH, WIDTH),
        act("r"),
        AveragePool("pool", (2, 2), (2, 2), (0, 0)),
        conv("c2", WIDTH, WIDTH),
        AdaptiveAveragePool("adaptive", (2, 2)),
        pointwise("c3", WIDTH, WIDTH),
    ),
    "maxima": lambda: chain(
        (6, 6),
        conv("c1", WIDTH, WIDTH),
        act("r"),
        MaxPool("pool", (2, 2), (2, 2), (0, 0), (1, 1)),
        conv("c2", WIDTH, WIDTH),
    ),
    "overlapping maxima": lambda: chain(
        (6, 6),
        conv("c1", WIDTH, WIDTH),
        MaxPool("pool", (3, 3), (2, 2), (1, 1), (1, 1)),
        pointwise("c2", WIDTH, WIDTH),
        act("t", TANH),
    ),
    "layer norm": lambda: chain(
        (5, 5), conv("c1", WIDTH, WIDTH), LayerNorm("norm", 1.3), act("r"), pointwise("c2", WIDTH, WIDTH)
    ),
    "group norm": lambda: chain(
        (5, 5), conv("c1", WIDTH, WIDTH), GroupNorm("norm", 4), act("r"), pointwise("c2", WIDTH, WIDTH)
    ),
    "batch norm": lambda: chain(
        (5, 5),
        conv("c1", WIDTH, WIDTH),
        BatchNorm("bn1", True),
        act("r1"),
        conv("c2", WIDTH, WIDTH),
        BatchNorm("bn2", True, gain=1.2),
        act("r2"),
    ),
    "batch norm, evaluation": lambda: chain(
        (5, 5),
        conv("c1", WIDTH, WIDTH),
        BatchNorm("bn1", False, 1.2, variance=2.0),
        act("r1"),
        conv("c2", WIDTH, WIDTH),
    ),
    "dropout": lambda: chain(
        (5, 5),
        conv("c1", WIDTH, WIDTH),
        act("r"),
        Dropout("d1", 0.3),
        conv("c2", WIDTH, WIDTH),
        act("t", TANH),
        Dropout("d2", 0.3, channelwise=True),
        pointwise("c3", WIDTH, WIDTH),
    ),
    "residual": residual,
    "shortcuts": shortcuts,
    "squeeze and excite": squeeze_excite,
    "gated linear unit": gated,
    "factors of positions": attended,
    "channels last": channels_last,
    "shuffled": shuffled,
    "other extents": lambda: chain(
        (5, 5),
        conv("c1", WIDTH, WIDTH),
        act("r"),
        Pad("pad", ((1, 0), (2, -1))),
        Resize("up", (9, 10), "linear"),
        conv("c2", WIDTH, WIDTH, stride=2),
        Resize("nearest", (7, 7)),
        pointwise("c3", WIDTH, WIDTH),
    ),
}


#: Masks of whole inputs, and a gate of one channel, average out over networks alone.
SEEDS = {"channels last": 32, "factors of positions": 50}
ONE_CHANNEL = ("place", "where")


@pytest.mark.parametrize("name", NETWORKS)
def test_against_sampled_networks(name):
    """Every node's kernels, forwards and backwards, for every kind of pair; the moments of all scores."""
    graph = NETWORKS[name]()
    batch = make_batch(WIDTH, graph.input_shape.space, members=2)
    signals, theory = predicted(graph, batch)
    measured = sampled(graph, batch, signals, SEEDS.get(name, 8))
    for node, wanted, found in zip(graph.nodes, theory, measured, strict=True):
        # The groups of "flat" are positions, which are the inner axis of the values; one channel is no mean.
        if node.layer.name == "flat" or node.layer.name in ONE_CHANNEL:
            continue
        parts = list(zip(wanted.value, found.value, strict=True))
        if wanted.gradient:
            parts += zip(wanted.gradient, found.gradient, strict=True)
        for kernel, sample in parts:
            apart, _ = differences(kernel, sample)
            assert max(apart) < 0.12, (node.layer.name, apart)
        if wanted.log_moment is not None:
            assert found.log_moment == pytest.approx(wanted.log_moment, abs=0.12), node.layer.name


def test_products_over_positions():
    """Tokens of one input are fewer than channels: what two have in common is a sampling error's size."""
    graph = mixer()
    batch = make_batch(WIDTH, graph.input_shape.space, members=2)
    signals, theory = predicted(graph, batch)
    measured = sampled(graph, batch, signals, 8)
    for node, wanted, found in zip(graph.nodes, theory, measured, strict=True):
        if node.layer.name == "flat":
            continue
        for kernel, sample in zip(wanted.value, found.value, strict=True):
            assert np.abs(np.array(differences(kernel, sample)[1]) - 1).max() < 0.12, node.layer.name
        if wanted.log_moment is not None:
            assert found.log_moment == pytest.approx(wanted.log_moment, abs=0.15), node.layer.name


def test_depthwise_channels_keep_their_own_law():
    """A few weights make a depthwise channel: it is Gaussian no more, but its kernel is as predicted."""
    graph = chain((5, 5), conv("c1", WIDTH, WIDTH, groups=WIDTH), pointwise("c2", WIDTH, WIDTH))
    batch = make_batch(WIDTH, (5, 5), members=2)
    signals, theory = predicted(graph, batch)
    measured = sampled(graph, batch, signals, 8)
    for wanted, found in zip(theory, measured, strict=True):
        for kernel, sample in zip(wanted.value, found.value, strict=True):
            if kernel.shape[1] > 1:
                assert max(differences(kernel, sample)[0]) < 0.12
        if wanted.log_moment is not None:
            assert found.log_moment == pytest.approx(wanted.log_moment, abs=0.12)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("space", [(7,), (5, 6)])
def test_sums_over_shifts_are_those_of_every_tap(space, mode, stride, dilation):
    layer = conv("c", 4, 4, (3,) * len(space), stride, 2, dilation, mode=mode)
    taps = [layer.taps(axis, n) for axis, n in enumerate(space)]
    rng = np.random.default_rng(0)
    size = math.prod(space)
    kernel = rng.standard_normal((2, size, size))
    windows = layer.windows(space)
    wide = np.zeros((2, size + 1, size + 1))
    wide[:, :size, :size] = kernel
    wanted = sum(wide[:, tap[:, None], tap] for tap in windows)
    found = gather(kernel, space, taps)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    other = rng.standard_normal(found.shape)
    assert np.vdot(found, other) == pytest.approx(np.vdot(kernel, scatter(other, space, taps)))


def chi(net):
    return propagate_graph(net).chi[:-1]


def test_chi_is_one_on_the_edge_of_chaos():
    small = (3, 8, 8)
    plain = chi(eoc.cnn(6, 32, activation="relu", padding_mode="zeros", input_shape=small))
    np.testing.assert_allclose(plain, 1.0, rtol=1e-5)
    untouched = chi(eoc.resnet(8, normalisation=None, input_shape=(3, 16, 16)))
    # Gates that stand behind a sum are open more often than half the time.
    np.testing.assert_allclose(untouched[:2], 1.0, rtol=1e-4)
    assert np.all(untouched >= 1.0 - 1e-4)
    deep = chi(eoc.cnn(14, 32, activation="tanh", input_shape=small))
    assert deep[-1] == pytest.approx(1.0, abs=0.005)
    default = chi(eoc.cnn(6, 32, activation="relu", init="pytorch", input_shape=small))
    np.testing.assert_allclose(default, 1 / 6, rtol=1e-5)


def test_normalisation_is_part_of_chi():
    """σ_w² E[φ'²] over the variance that is divided by; batch statistics leave out what is common to all."""
    for norm, low, high in (("layer", 0.999, 1.001), ("group", 1.0, 1.1), ("batch", 1.1, 4.0)):
        found = propagate_graph(eoc.vgg(11, width=16, normalisation=norm))
        assert low < found.chi[1] * found.q[1] < high, norm  # σ_w² E[φ'²] = 2 · ½


def test_precision_is_doubled_where_single_does_not_hold():
    loud = eoc.cnn(8, 16, activation="relu", sigma_w=60.0, sigma_b=0.0, input_shape=(3, 12, 12))
    quiet = eoc.cnn(8, 16, activation="relu", sigma_w=math.sqrt(2), sigma_b=0.0, input_shape=(3, 12, 12))
    difference = propagate_graph(loud).q / propagate_graph(quiet).q
    np.testing.assert_allclose(difference, 1800.0 ** np.arange(1, 9), rtol=1e-3)


def test_propagation_from_several_threads():
    net = eoc.resnet(8, width=8, input_shape=(3, 24, 24))
    alone = propagate_graph(net).log_moment
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: propagate_graph(net).log_moment, range(6)):
            np.testing.assert_array_equal(found, alone)


def small(*nodes):
    """A network of 4 channels over 4×4; nodes are layers with the positions of their inputs."""
    net = GraphBuilder(Shape(4, (4, 4)))
    for layer, *inputs in nodes:
        net.add(layer, *inputs)
    net.add(Flatten("flat"))
    net.add(Dense("fc", WeightLayer("fc", 64, 3, 1.0, 0.0)))
    return Architecture.from_graph(net.build())


def test_sums_of_values_that_depend_on_each_other_are_refused():
    for middle in (act("twice"), Identity("same")):
        net = small((conv("c", 4, 4),), (middle,), (Sum("skip", (1.0, 1.0)), 1, 2))
        with pytest.raises(ModelError, match=r"layer 'skip' \(Sum\) adds values that depend on each other"):
            propagate_graph(net)
    branches = small((conv("c", 4, 4),), (conv("d", 4, 4),), (Sum("skip", (1.0, 1.0)), 1, 2))
    assert np.isfinite(propagate_graph(branches).log_moment).all()


def test_a_variance_beyond_all_floats_is_refused_with_its_layer():
    with pytest.raises(ModelError, match=r"variance at layer second exceeds"):
        propagate_graph(small((conv("first", 4, 4, sigma_w=1e50),), (conv("second", 4, 4, sigma_w=1e50),)))


def test_a_layer_that_leads_nowhere_is_refused():
    net = GraphBuilder(Shape(4, (4, 4)))
    used = net.add(conv("used", 4, 4))
    net.add(conv("lost", 4, 4))
    net.add(Flatten("flat"), used)
    net.add(Dense("fc", WeightLayer("fc", 64, 3, 1.0, 0.0)))
    with pytest.raises(ModelError, match=r"layer 'lost' does not lead to the output"):
        propagate_graph(Architecture.from_graph(net.build()))


@pytest.mark.parametrize("held", [1, 1 << 14, 1 << 17])
def test_backwards_in_stretches_as_in_one(held, monkeypatch):
    net = eoc.resnet(14, width=4, input_shape=(1, 8, 8))
    whole = propagate_graph(net)
    monkeypatch.setattr(kernel_memory, "WHOLE_BYTES", 0)
    monkeypatch.setattr(kernel_memory, "HELD_BYTES", held)
    stretches = propagate_graph(net)
    np.testing.assert_array_equal(stretches.log_moment, whole.log_moment)
    np.testing.assert_array_equal(stretches.q, whole.q)
