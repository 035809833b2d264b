"""What layers answer when they are asked, against what they do to numbers."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch_layers import WeightedInTorch

import eoc_theory as eoc
from eoc_theory import layers
from eoc_theory.layers import (
    AdaptiveAveragePool,
    Attention,
    AveragePool,
    BatchNorm,
    ByCount,
    ChannelMean,
    ChannelNorm,
    ChannelScale,
    ChannelShuffle,
    ChannelSlice,
    ClassToken,
    Concatenate,
    Convolution,
    CountEmbedding,
    Dense,
    Dropout,
    Embedding,
    FixedFilter,
    FixedValue,
    Flatten,
    Gather,
    GroupNorm,
    HeadProduct,
    Identity,
    JoinPositions,
    KnownTokens,
    Layer,
    LayerNorm,
    Length,
    Matrix,
    MaxPool,
    Nonlinearity,
    OnlyKnown,
    Pad,
    PadChannels,
    PartOfInput,
    Pick,
    PickKnown,
    PositionEmbedding,
    PositionTable,
    PositionwiseDense,
    Product,
    Reciprocal,
    Resize,
    Rotary,
    Scatter,
    Shape,
    Sinusoids,
    Softmax,
    StochasticDepth,
    Subsample,
    Sum,
    Transpose,
    UnitLength,
    WeightLayer,
)
from eoc_theory.layers.random_numbers import Draw
from eoc_theory.networks import queries
from eoc_theory.networks.graph import GraphBuilder
from eoc_theory.signals.fields import Field, Gradient, Pairs

PACKAGE = Path(eoc.__file__).parent
SHAPE = Shape(12, (6, 6))


def weights(name, fan_in, fan_out, kernel=(), sigma_b=0.0):
    return WeightLayer(name, fan_in, fan_out, 1.3, sigma_b, kernel=kernel)


def convolution(groups=1, stride=1, sigma_b=0.0):
    weight = weights("conv", 9 * 12 // groups, 24, (3, 3), sigma_b)
    return Convolution("conv", weight, (stride,) * 2, ((1, 1),) * 2, (1, 1), groups, "circular")


#: One of every type, or several where they answer differently, and what shape they take.
MADE = [
    (Dense("dense", weights("dense", 40, 30)), (Shape(40),)),
    (Dense("biased", weights("biased", 40, 30, sigma_b=0.5)), (Shape(40),)),
    (convolution(), (SHAPE,)),
    (convolution(groups=3), (SHAPE,)),
    (convolution(stride=2, sigma_b=0.3), (SHAPE,)),
    (BatchNorm("bn", True, gain=0.7, shift=0.2), (SHAPE,)),
    (BatchNorm("bn", False, gain=0.7, variance=2.0), (SHAPE,)),
    (LayerNorm("ln", gain=1.4, shift=0.3), (SHAPE,)),
    (GroupNorm("gn", 3, gain=0.6), (SHAPE,)),
    (Nonlinearity("relu", eoc.activation("relu")), (SHAPE,)),
    (Nonlinearity("tanh", eoc.activation("tanh")), (SHAPE,)),
    (Dropout("drop", 0.3), (SHAPE,)),
    (Dropout("off", 0.3, training=False), (SHAPE,)),
    (Sum("scale", (0.4,)), (SHAPE,)),
    (Sum("sum", (1.0, -0.5)), (SHAPE, SHAPE)),
    (Concatenate("cat"), (SHAPE, Shape(20, (6, 6)))),
    (AveragePool("avg", (2, 2), (2, 2), (0, 0)), (SHAPE,)),
    (AdaptiveAveragePool("mean", (1, 1)), (SHAPE,)),
    (MaxPool("max", (2, 2), (2, 2), (0, 0), (1, 1)), (SHAPE,)),
    (Flatten("flat"), (SHAPE,)),
    (Identity("same"), (SHAPE,)),
    (Subsample("every", (2, 2)), (SHAPE,)),
    (PadChannels("pad", 3, 1), (SHAPE,)),
    (PositionwiseDense("tokens", weights("tokens", 12, 20, sigma_b=0.4)), (SHAPE,)),
    (ChannelNorm("cn", gain=1.2, shift=0.3), (SHAPE,)),
    (ChannelNorm("rms", gain=1.2, centred=False), (SHAPE,)),
    (Attention("attention", 2, 2, 0.1), (SHAPE, SHAPE, SHAPE)),
    (Embedding("words", 100, 12, 0.6), (Shape(40),)),
    (KnownTokens("known", 99), (Shape(40),)),
    (PartOfInput("mask", 3, Shape(5, (4,))), (Shape(40),)),
    (CountEmbedding("counted", 12, 0.6), (Shape(1, (40,)),)),
    (OnlyKnown("cleared"), (Shape(12, (40,)), Shape(1, (40,)))),
    (ByCount("mean"), (Shape(12), Shape(1, (40,)))),
    (PickKnown("last known"), (Shape(12, (40,)), Shape(1, (40,)))),
    (PositionEmbedding("positions", 0.6), (SHAPE,)),
    (PositionEmbedding("type", 0.6, shared=True), (SHAPE,)),
    (Sinusoids("waves", 0.5), (SHAPE,)),
    (ClassToken("class", 0.6), (SHAPE,)),
    (Rotary("rotary", 6, (1.0, 0.1)), (SHAPE,)),
    (Attention("windows", 2, 2, 0.1, windows=4), (SHAPE, SHAPE, SHAPE)),
    (Attention("channelwise", 2, 2, 0.1, channelwise=True), (SHAPE, SHAPE, SHAPE)),
    (Gather("shifted", (6, 6), (*range(1, 36), 0), 36), (SHAPE,)),
    (JoinPositions("joined"), (SHAPE, Shape(12, (5,)))),
    (UnitLength("cosines", 2), (SHAPE,)),
    (UnitLength("covariances", 2, over_positions=True), (SHAPE,)),
    (PositionTable("coordinates", Matrix.of(np.random.default_rng(0).random((40, 36)))), (SHAPE,)),
    (FixedValue("table", Matrix.of(np.random.default_rng(0).random((5, 36))), (6, 6)), (SHAPE,)),
    (Pick("last", -1), (SHAPE,)),
    (Attention("biased", 2, 2, 0.1, biased=True), (SHAPE, SHAPE, SHAPE, Shape(2, (36, 36)))),
    (HeadProduct("scores", "pc", "cp", 6, 2), (SHAPE, SHAPE)),
    (HeadProduct("mixed", "pp", "pc", 9, 2, 4), (Shape(2, (4, 9, 9)), SHAPE)),
    (HeadProduct("covariances", "cp", "pc", 36, 2), (SHAPE, SHAPE)),
    (HeadProduct("linear", "pc", "cc", 6, 2), (SHAPE, Shape(72))),
    (Softmax("branches", (1, 3, 4)), (SHAPE,)),
    (Softmax("keys", (6, 6, 1), over_positions=True), (SHAPE,)),
    (Length("lengths"), (SHAPE,)),
    (ChannelMean("channels"), (SHAPE,)),
    (Reciprocal("one over"), (SHAPE,)),
    (Scatter("patches", (3, 3), (*range(9), *range(8), -1) * 2), (SHAPE,)),
    (FixedFilter("blur", ((0.25, 0.5, 0.25),) * 2, (2, 2), (1, 1), (1, 1)), (SHAPE,)),
    (ChannelScale("layerscale", 0.7), (SHAPE,)),
    (ChannelScale("affine", 0.7, 0.4), (SHAPE,)),
    (ChannelSlice("half", 0, 6), (SHAPE,)),
    (ChannelShuffle("shuffle", (3, 4), (1, 0)), (SHAPE,)),
    (Product("product"), (SHAPE, SHAPE)),
    (Product("gate"), (SHAPE, Shape(12))),
    (StochasticDepth("depth", 0.3), (SHAPE,)),
    (Resize("up", (12, 12)), (SHAPE,)),
    (Transpose("tokens", (12,)), (SHAPE,)),
    (Pad("padded", ((1, 0), (2, 1))), (SHAPE,)),
    (Pad("cropped", ((-1, 0), (1, -2)), "reflect"), (SHAPE,)),
]
IDS = [f"{type(layer).__name__}-{layer.name}-{i}" for i, (layer, _) in enumerate(MADE)]
each = pytest.mark.parametrize(("layer", "shapes"), MADE, ids=IDS)


def values(shapes, batch=400, scale=1.0):
    rng = np.random.default_rng(3)
    return [scale * rng.standard_normal((s.channels, *s.space, batch)) for s in shapes]


def run(layer, inputs, seed=1):
    draw = Draw(np.random.default_rng(seed), np.float64)
    if layer.weighted is not None:
        drawn = WeightedInTorch(layer, inputs[0], draw)
        return drawn.value, drawn
    return layer.forward_values(inputs, draw)


def test_every_layer_type_is_here():
    types = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, Layer)}
    assert types - {type(layer) for layer, _ in MADE} == {Layer, layers.Weighted, layers.Input}


@each
def test_layers_that_set_the_scale_forget_that_of_their_input(layer, shapes):
    if isinstance(layer, FixedValue):
        pytest.skip("takes nothing from its input")
    inputs = values(shapes, 20)
    plain, large = run(layer, inputs)[0], run(layer, [64.0 * x for x in inputs])[0]
    assert np.allclose(large, plain, rtol=1e-3, atol=1e-3) == layer.sets_scale
    assert bool(layer.normalises) or not layer.sets_scale


@each
def test_mean_squares_are_those_of_sampled_networks(layer, shapes):
    if isinstance(layer, (Reciprocal, ByCount)):
        pytest.skip("of values that vary little")
    if isinstance(layer, (AveragePool, AdaptiveAveragePool, MaxPool)):
        pytest.skip("of values that vary over positions, pooling leaves less")
    scales = (0.8, 1.7, 1.2, 0.9)[: len(shapes)]
    inputs = [s * x for s, x in zip(scales, values(shapes), strict=True)]
    squares = [s**2 for s in scales]
    measured = np.mean([np.square(run(layer, inputs, seed)[0]).mean() for seed in range(60)])
    assert measured == pytest.approx(layer.mean_square(squares, shapes), rel=0.06)


@each
def test_variance_gains_are_mean_squares_of_derivatives(layer, shapes):
    gain = layer.variance_gain(0.8**2)
    if math.isnan(gain) or layer.weighted is not None or layer.dropout:
        several = len(shapes) > 1 or not layer.has_kernels or isinstance(layer, Pick)
        assert several or layer.sets_scale or layer.weighted is not None or layer.dropout
        return
    if isinstance(
        layer,
        (AveragePool, AdaptiveAveragePool, MaxPool, Subsample, Resize, Pad, ChannelSlice, FixedFilter),
    ):
        pytest.skip("of one position by one position")
    value, memory = run(layer, values(shapes, scale=0.8))
    (back,) = layer.backward_values(memory, np.random.default_rng(0).standard_normal(value.shape))
    assert np.square(back).mean() == pytest.approx(gain, rel=0.03)


@each
def test_kernel_gains_are_what_gradients_are_multiplied_by(layer, shapes):
    """Of activations and normalisations; nothing else is part of χ."""
    if (layer.nonlinearity is None and not layer.normalises) or not layer.has_kernels:
        assert layer.kernel_gain(None) is None
        return
    batch = 400
    pairs = Pairs(1 - np.eye(batch, dtype=int), np.array([batch, batch**2 - batch]))
    # Independent inputs, and gradients of variance 1.
    moment = np.array([0.64, 0.0])[:, None, None]
    _, memory = layer.forward_kernel([(Field(3000, moment, np.zeros(1), ()),)], pairs)
    (back,) = layer.backward_kernel(memory, Gradient((moment / 0.64,), None), pairs)
    assert back.groups[0][0, 0, 0] == pytest.approx(layer.kernel_gain(memory), rel=0.01)


@each
def test_modes(layer, shapes):
    flags = {"training"} & {f for f in vars(layer)}
    assert (layer.mode is not None) == bool(flags)
    if flags:
        other = replace(layer, training=not layer.training)
        assert other.mode is not layer.mode
        assert (other.batch_statistics is None) == (layer.batch_statistics is None)


@each
def test_factors_are_what_sums_multiply_by(layer, shapes):
    factors = layer.factors(len(shapes))
    assert len(factors) == len(shapes)
    if layer.adds:
        inputs = values(shapes, 5)
        total = sum(c * x for c, x in zip(factors, inputs, strict=True))
        assert np.allclose(run(layer, inputs)[0], total)
        doubled = layer.with_factors(tuple(2 * c for c in factors))
        assert np.allclose(run(doubled, inputs)[0], 2 * total)
    else:
        assert set(factors) == {1.0}
        with pytest.raises(eoc.EOCError, match=layer.name):
            layer.with_factors(factors)


@pytest.mark.parametrize(
    "layer",
    [
        Sum("s", (1.0, 0.0)), Sum("s", (0.0,)), BatchNorm("b", True, gain=0.0), LayerNorm("l", gain=0.0),
        GroupNorm("g", 2, gain=0.0),
    ],
)  # fmt: skip
def test_silent_layers_are_heard_again(layer):
    assert layer.is_silent and not layer.heard(0.5).is_silent
    assert layer.heard(0.5).heard(0.1) == layer.heard(0.5)
    if layer.adds:
        assert layer.heard(0.5).factors(0) == tuple(c or 0.5 for c in layer.factors(0))
    else:
        assert layer.heard(0.5).gain == 1.0


@each
def test_layers_that_are_not_silent_stay_as_they_are(layer, shapes):
    assert not layer.is_silent and layer.heard(0.5) == layer


@each
def test_what_keeps_vectors_does(layer, shapes):
    if layer.keeps_vectors:
        x = values([Shape(7)], 3)
        assert np.array_equal(run(layer, x)[0], x[0])


@each
def test_narrowed_layers_fit_narrowed_inputs(layer, shapes):
    narrow = tuple(replace(s, channels=max(s.channels // 2, 1)) for s in shapes)
    value = layer.output_shape(*shapes)
    if isinstance(layer, ChannelMean):
        with pytest.raises(eoc.EOCError, match="cannot be fewer"):
            layer.narrowed(narrow, shapes, value, lambda width, multiple: width // 2)
        return
    made = layer.narrowed(narrow, shapes, value, lambda width, multiple: width // 2 // multiple * multiple)
    half = replace(value, channels=value.channels // 2)
    if isinstance(layer, (Embedding, CountEmbedding)):  # takes numbers, not channels
        narrow, half = shapes, Shape(6, (40,))
    if isinstance(layer, (KnownTokens, PartOfInput)):
        narrow, half = shapes, value
    if isinstance(layer, Transpose):  # the channels are the positions of its value
        half = Shape(value.channels, (narrow[0].channels,))
    if isinstance(layer, FixedValue):  # has numbers of its own
        half = value
    assert made.output_shape(*narrow) == half


def test_no_layer_type_is_asked_for_elsewhere():
    """No `isinstance` and no `match` on layer types outside of the layers and what reads torch's modules."""
    types = {
        name for name, kind in vars(layers).items() if isinstance(kind, type) and issubclass(kind, Layer)
    }
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        if place.parts[0] == "layers" or place.parts[:2] == ("pytorch", "trace"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked = node.args[1]
            elif isinstance(node, ast.MatchClass):
                asked = node.cls
            else:
                continue
            if types & {n.id for n in ast.walk(asked) if isinstance(n, ast.Name)}:
                found.append(f"{place}:{node.lineno}")
    # That a graph begins with an Input.
    assert [one.partition(":")[0] for one in found] == ["networks/graph.py"]


# --- queries ------------------------------------------------------------------------------------------------


def graph(*between, sigma_b=0.0):
    build = GraphBuilder(Shape(8))
    build.add(Dense("first", weights("first", 8, 8, sigma_b=sigma_b)))
    for layer in between:
        build.add(layer)
    build.add(Nonlinearity("phi", eoc.activation("relu")))
    build.add(Dense("last", weights("last", 8, 3)))
    return build.build()


@pytest.mark.parametrize(
    ("between", "sigma_b", "anywhere", "scale", "divided"),
    [
        ((), 0.0, False, False, False),
        ((BatchNorm("n", True),), 0.3, True, True, True),
        ((BatchNorm("n", False),), 0.0, True, False, False),
        ((LayerNorm("n"),), 0.0, True, True, True),
        ((LayerNorm("n"),), 0.3, True, True, False),
        ((Dropout("d", 0.5), GroupNorm("n", 2)), 0.0, True, True, True),
        ((Sum("s", (2.0,)), LayerNorm("n")), 0.0, True, True, True),
    ],
)
def test_what_is_normalised(between, sigma_b, anywhere, scale, divided):
    net = graph(*between, sigma_b=sigma_b)
    assert queries.is_normalised(net) == anywhere
    assert queries.scale_is_normalised(net, 1) == scale and not queries.scale_is_normalised(
        net, len(net.nodes) - 1
    )
    assert queries.is_divided_out(net, 1, sigma_b**2) == divided
    assert queries.feeds_weights(net, 1) and not queries.feeds_weights(net, len(net.nodes) - 1)


def test_part_that_dropout_leaves():
    build = GraphBuilder(Shape(8))
    build.add(Dropout("a", 0.5))
    build.add(Identity("same"))
    build.add(Dropout("b", 0.2))
    build.add(Dropout("off", 0.9, training=False))
    position = build.add(Dense("first", weights("first", 8, 8)))
    build.add(Dense("last", weights("last", 8, 3)))
    net = build.build()
    assert queries.let_through(net, position) == pytest.approx(0.4)
    assert queries.let_through(net, position + 1) == 1.0
