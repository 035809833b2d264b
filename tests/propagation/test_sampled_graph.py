"""Sampled networks: values and gradients against torch, and the statistics of their scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eoc_theory import activation
from eoc_theory.criteria import criterion
from eoc_theory.errors import ArgumentError, DataError, ModelError
from eoc_theory.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
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
    PadChannels,
    Shape,
    Subsample,
    Sum,
    WeightLayer,
)
from eoc_theory.layers.activation_tables import evaluate
from eoc_theory.layers.sampled_weights import Draw
from eoc_theory.networks.graph import Graph, GraphBuilder
from eoc_theory.propagation.infinite_width import loss_gradient
from eoc_theory.propagation.sampled_graph import (
    OutOfRangeError,
    Scaled,
    layer_samples,
    own_scores,
    run_backwards,
    run_forwards,
    sample_networks,
)
from eoc_theory.propagation.score_grid import GRID
from eoc_theory.signals.data import DataSummary

torch = pytest.importorskip("torch")
F = torch.nn.functional

RELU, TANH = activation("relu"), activation("tanh")
ROOT_2 = math.sqrt(2)


def convolution(
    name, channels, outputs, kernel=(3, 3), *, stride=None, padding=None, dilation=None, groups=1,
    mode="zeros", sigma_w=ROOT_2, sigma_b=0.0, law="normal",
):  # fmt: skip
    axes = len(kernel)
    fan_in = channels // groups * math.prod(kernel)
    return Convolution(
        name,
        WeightLayer(name, fan_in, outputs, sigma_w, sigma_b, None, law, kernel),
        stride or (1,) * axes,
        padding or tuple(((k - 1) // 2,) * 2 for k in kernel),
        dilation or (1,) * axes,
        groups,
        mode,
    )


def dense(name, fan_in, fan_out, *, sigma_w=ROOT_2, sigma_b=0.0, law="normal"):
    return Dense(name, WeightLayer(name, fan_in, fan_out, sigma_w, sigma_b, None, law))


# --- each layer in torch, batch first, with random numbers of the same stream -------------------------------


def torch_layer(layer, inputs, draw, weights):
    """The layer's value by torch's functions; the weights it draws are put into `weights`."""
    x = inputs[0]
    axes = x.ndim - 2
    if isinstance(layer, (Dense, Convolution)):
        drawn = draw.weights(layer.weight, getattr(layer, "groups", 1))
        w = torch.tensor(drawn.reshape(layer.weight.weight_shape), requires_grad=True)
        weights.append(w)
        b = draw.biases(layer.weight)
        b = None if b is None else torch.tensor(b)
        if isinstance(layer, Dense):
            return F.linear(x, w, b)
        pads = [side for pair in reversed(layer.padding) for side in pair]
        mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
        convolve = {1: F.conv1d, 2: F.conv2d}[axes]
        wide = F.pad(x, pads, mode=mode)
        return convolve(wide, w, b, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)
    if isinstance(layer, Nonlinearity):
        return layer.activation.to_torch()(x)
    if isinstance(layer, Dropout):
        if not layer.training:
            return x
        batch, channels, *space = x.shape
        shape = (channels, *(1 for _ in space), batch) if layer.channelwise else (channels, *space, batch)
        mask = np.moveaxis(draw.uniform(shape) >= layer.p, -1, 0)
        return x * torch.tensor(mask) / (1 - layer.p)
    if isinstance(layer, (BatchNorm, LayerNorm, GroupNorm)):
        channels = x.shape[1]
        own = tuple(x.shape[1:]) if isinstance(layer, LayerNorm) else (channels,)
        drawn_as = (*own, 1) if isinstance(layer, LayerNorm) else (channels, *(1,) * (axes + 1))
        beta = draw.normal(drawn_as, layer.shift).reshape(own) if layer.shift > 0 else np.zeros(own)
        beta = torch.tensor(beta).to(x.dtype)
        gamma = torch.full(own, layer.gain, dtype=x.dtype)
        if isinstance(layer, LayerNorm):
            return F.layer_norm(x, own, gamma, beta, layer.eps)
        if isinstance(layer, GroupNorm):
            return F.group_norm(x, layer.groups, gamma, beta, layer.eps)
        mean, var = (
            torch.zeros(channels, dtype=x.dtype),
            torch.full((channels,), layer.variance, dtype=x.dtype),
        )
        return F.batch_norm(x, mean, var, gamma, beta, training=layer.training, eps=layer.eps)
    if isinstance(layer, AveragePool):
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d}[axes]
        return pool(x, layer.kernel, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)
    if isinstance(layer, AdaptiveAveragePool):
        return {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d}[axes](x, layer.output)
    if isinstance(layer, MaxPool):
        pool = {1: F.max_pool1d, 2: F.max_pool2d}[axes]
        return pool(x, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    if isinstance(layer, Sum):
        return sum(c * value for c, value in zip(layer.coefficients, inputs, strict=True))
    if isinstance(layer, Concatenate):
        return torch.cat(inputs, dim=1)
    if isinstance(layer, Flatten):
        return torch.flatten(x, 1)
    if isinstance(layer, Subsample):
        return x[(..., *(slice(None, None, s) for s in layer.stride))]
    if isinstance(layer, PadChannels):
        return F.pad(x, [0, 0] * axes + [layer.before, layer.after])
    assert isinstance(layer, Identity)
    return x


def batch_first(values):
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def largest_error(found, wanted):
    """Largest difference, relative to the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def image(channels, *space, batch=4, seed=0):
    return np.random.default_rng(seed).standard_normal((channels, *space, batch))


def conv_cases():
    yield convolution("c", 3, 5), (3, 6, 7)
    yield convolution("c", 3, 9, sigma_b=0.5), (3, 6, 7)
    yield convolution("c", 6, 3, (3, 2), padding=((1, 0), (0, 0))), (6, 5, 7)
    yield convolution("c", 4, 4, (5, 1), padding=((0, 0), (2, 1))), (4, 5, 7)
    yield convolution("c", 4, 6, stride=(2, 2)), (4, 7, 8)
    yield convolution("c", 4, 6, stride=(3, 1), padding=((0, 0), (3, 3))), (4, 9, 8)
    yield convolution("c", 4, 6, (1, 1), stride=(2, 2)), (4, 8, 7)
    yield convolution("c", 4, 6, (1, 1), padding=((0, 0), (0, 0))), (4, 8, 7)
    yield convolution("c", 4, 6, (1, 1), padding=((1, 1), (0, 2))), (4, 5, 4)
    yield convolution("c", 2, 3, dilation=(2, 3), padding=((2, 2), (3, 3))), (2, 8, 9)
    yield convolution("c", 2, 3, dilation=(2, 1), stride=(2, 2), padding=((2, 2), (1, 1))), (2, 8, 9)
    yield convolution("c", 6, 4, groups=2), (6, 5, 5)
    yield convolution("c", 6, 6, groups=6), (6, 5, 5)
    yield convolution("c", 4, 12, groups=4, stride=(2, 2)), (4, 5, 6)
    yield convolution("c", 6, 9, (1, 1), groups=3, padding=((0, 0), (0, 0))), (6, 4, 4)
    for mode in ("circular", "reflect"):
        yield convolution("c", 3, 4, mode=mode), (3, 6, 5)
        yield convolution("c", 3, 9, (5, 3), mode=mode, stride=(2, 1)), (3, 6, 5)
        yield convolution("c", 3, 4, (5,), mode=mode, padding=((3, 1),)), (3, 9)
    yield convolution("c", 3, 4, (3,), sigma_b=0.1), (3, 9)
    yield convolution("c", 3, 4, (4,), stride=(2,), padding=((1, 2),)), (3, 9)
    # Rows of several blocks, the last one incomplete.
    yield convolution("c", 24, 20), (24, 37, 36)
    yield convolution("c", 24, 20, stride=(2, 1)), (24, 74, 36)


LAYERS = [
    *conv_cases(),
    (dense("d", 7, 5), (7,)),
    (dense("d", 7, 5, sigma_b=1.0), (7,)),
    *((Nonlinearity("a", activation(a)), (3, 5, 6)) for a in (
        "relu", "tanh", "leaky_relu(0.1)", "gelu", "hardtanh", "elu", "sigmoid", "abs",
    )),
    (Dropout("p", 0.3), (3, 5, 6)),
    (Dropout("p", 0.3, channelwise=True), (3, 5, 6)),
    (Dropout("p", 0.3, training=False), (3, 5, 6)),
    (BatchNorm("n", True), (3, 5, 6)),
    (BatchNorm("n", True, gain=1.5, shift=0.3), (3,)),
    (BatchNorm("n", False, gain=1.5, shift=0.3, variance=2.0), (3, 5)),
    (LayerNorm("n", gain=0.7, shift=0.2), (3, 5, 6)),
    (LayerNorm("n"), (8,)),
    (GroupNorm("n", 2, gain=0.7, shift=0.2), (6, 5, 4)),
    (GroupNorm("n", 6), (6, 5)),
    (AveragePool("p", (2, 2), (2, 2), (0, 0)), (3, 6, 7)),
    (AveragePool("p", (3, 2), (2, 1), (1, 1)), (3, 6, 7)),
    (AveragePool("p", (3, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False), (3, 6, 8)),
    (AveragePool("p", (3,), (2,), (1,), ceil_mode=True), (3, 8)),
    (AdaptiveAveragePool("p", (1, 1)), (3, 5, 6)),
    (AdaptiveAveragePool("p", (3, 4)), (3, 5, 6)),
    (AdaptiveAveragePool("p", (2,)), (3, 5)),
    (MaxPool("p", (2, 2), (2, 2), (0, 0), (1, 1)), (3, 6, 7)),
    (MaxPool("p", (3, 3), (2, 2), (1, 1), (1, 1)), (3, 6, 7)),
    (MaxPool("p", (3, 2), (1, 2), (1, 1), (2, 1), ceil_mode=True), (3, 6, 7)),
    (MaxPool("p", (3,), (2,), (1,), (1,), ceil_mode=True), (3, 8)),
    (Subsample("s", (2, 3)), (3, 5, 6)),
    (PadChannels("z", 1, 2), (3, 5, 6)),
    (Flatten("f"), (3, 5, 6)),
    (Identity("i"), (3, 5, 6)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("layer", "shape"), LAYERS, ids=[f"{type(l).__name__}-{n}" for n, (l, _) in enumerate(LAYERS)]
)
def test_layer_is_torchs(layer, shape, dtype):
    check_layer(layer, [image(*shape).astype(dtype)], dtype)


@pytest.mark.parametrize("layer", [Sum("s", (1.0, -0.5, 1.0)), Concatenate("c")])
def test_joining_layer_is_torchs(layer):
    check_layer(layer, [image(3, 4, 5, seed=seed) for seed in range(3)], np.float64)


def test_max_pooling_sends_ties_where_torch_does():
    x = np.random.default_rng(0).integers(0, 3, (2, 7, 8, 3)).astype(float)
    check_layer(MaxPool("p", (3, 3), (2, 2), (1, 1), (1, 1)), [x], np.float64)


def check_layer(layer, inputs, dtype):
    """Values, inputs' gradients and scores; nothing written into what was given."""
    kept = [x.copy() for x in inputs]
    value, memory = layer.forward_values(inputs, Draw(np.random.default_rng(5), dtype))
    shapes = [Shape(len(x), x.shape[1:-1]) for x in inputs]
    wanted_shape = layer.output_shape(*shapes)
    assert value.shape == (wanted_shape.channels, *wanted_shape.space, inputs[0].shape[-1])
    assert value.dtype == dtype
    weights = []
    given = [torch.tensor(batch_first(x), requires_grad=True) for x in inputs]
    wanted = torch_layer(layer, given, Draw(np.random.default_rng(5), dtype), weights)
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    assert largest_error(batch_first(value), wanted.detach().numpy()) < tolerance
    gradient = np.random.default_rng(1).standard_normal(value.shape).astype(dtype)
    own = gradient.copy()
    wanted.backward(torch.tensor(batch_first(gradient)))
    found = layer.backward_values(memory, gradient)
    assert len(found) == len(inputs)
    for back, x in zip(found, given, strict=True):
        assert back.dtype == dtype
        assert largest_error(batch_first(back), x.grad.numpy()) < tolerance
    if weights:
        back, scores = layer.backward_scores(memory, gradient)
        assert np.array_equal(back, found[0])
        product = (weights[0] * weights[0].grad).detach().numpy()
        assert largest_error(scores.reshape(product.shape), product) < tolerance
    assert np.array_equal(gradient, own)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, kept, strict=True))


# --- whole networks -----------------------------------------------------------------------------------------


def resnet(scale=1.0, training=True, widths=(6, 8), act=RELU, space=(8, 8)):
    build = GraphBuilder(Shape(3, space))

    def unit(name, channels, outputs, source, stride=1):
        convolved = build.add(convolution(name, channels, outputs, stride=(stride, stride)), source)
        return build.add(BatchNorm(f"{name}.norm", training), convolved)

    x = build.add(Nonlinearity("a", act), unit("stem", 3, widths[0], 0))
    channels = widths[0]
    for number, width in enumerate(widths):
        name, stride = f"block{number}", 2 if number else 1
        y = build.add(Nonlinearity("a", act), unit(f"{name}.1", channels, width, x, stride))
        y = unit(f"{name}.2", width, width, y)
        if number:
            x = build.add(convolution(f"{name}.short", channels, width, (1, 1), stride=(2, 2)), x)
        x = build.add(Nonlinearity("a", act), build.add(Sum("add", (1.0, scale)), x, y))
        channels = width
    pooled = build.add(AdaptiveAveragePool("pool", (1, 1)), x)
    build.add(Flatten("flat"), pooled)
    build.add(dense("fc", channels, 5))
    return build.build()


def vgg():
    build = GraphBuilder(Shape(3, (8, 8)))
    channels = 3
    for number, width in enumerate((6, 10)):
        build.add(convolution(f"conv{number}", channels, width, sigma_b=0.1, law="uniform"))
        build.add(Nonlinearity("a", RELU))
        build.add(MaxPool("pool", (2, 2), (2, 2), (0, 0), (1, 1)))
        channels = width
    build.add(Flatten("flat"))
    build.add(dense("fc1", 40, 12, law="orthogonal"))
    build.add(Nonlinearity("a", TANH))
    build.add(Dropout("drop", 0.4))
    build.add(dense("fc2", 12, 5, law="truncated"))
    return build.build()


def densenet():
    build = GraphBuilder(Shape(4, (6, 6)))
    x, channels = 0, 4
    for number in range(3):
        y = build.add(GroupNorm(f"norm{number}", 2, shift=0.1), x)
        y = build.add(Nonlinearity("a", RELU), y)
        y = build.add(convolution(f"conv{number}", channels, 4, mode="circular"), y)
        x = build.add(Concatenate("cat"), x, y)
        channels += 4
    build.add(convolution("transition", channels, 6, groups=2, law="orthogonal"), x)
    short = build.add(PadChannels("pad", 1, 1), build.add(Subsample("every", (2, 2)), 0))
    build.add(AveragePool("pool", (2, 2), (2, 2), (0, 0)), len(build.nodes) - 3)
    build.add(Sum("add", (1.0, 0.5)), len(build.nodes) - 1, short)
    build.add(Flatten("flat"))
    build.add(LayerNorm("last"))
    build.add(dense("fc", 54, 5))
    return build.build()


def data(graph, batch=6, seed=0):
    rng = np.random.default_rng(seed)
    return DataSummary(rng.standard_normal((batch, graph.input_shape.size)), np.arange(batch) % 5, 5)


def as_images(graph, batch):
    shape = graph.input_shape
    return batch.inputs.T.reshape(shape.channels, *shape.space, batch.size)


def torch_scores(graph: Graph, batch, draw):
    """W g of every weight layer by autograd."""
    values, weights = [torch.tensor(batch_first(as_images(graph, batch)).astype(draw.dtype))], []
    for node in graph.nodes[1:]:
        values.append(torch_layer(node.layer, [values[source] for source in node.inputs], draw, weights))
    F.cross_entropy(values[-1], torch.tensor(batch.targets)).backward()
    return values[-1].detach().numpy(), [(w * w.grad).detach().numpy().reshape(len(w), -1) for w in weights]


def numpy_scores(graph, batch, draw):
    logits, memories = run_forwards(graph, as_images(graph, batch), draw)
    sent = loss_gradient(logits.T.astype(float), batch.targets).T
    return logits.T, {n: s for n, s, _ in run_backwards(graph, memories, sent, draw.dtype)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "graph",
    [resnet(), resnet(scale=0.5, training=False), resnet(act=TANH), vgg(), densenet()],
    ids=["resnet", "resnet-evaluation", "resnet-tanh", "vgg", "densenet"],
)
def test_scores_are_torchs(graph, dtype):
    batch = data(graph)
    logits, found = numpy_scores(graph, batch, Draw(np.random.default_rng(3), dtype))
    wanted_logits, wanted = torch_scores(graph, batch, Draw(np.random.default_rng(3), dtype))
    tolerance = 1e-5 if dtype == np.float32 else 1e-11
    assert largest_error(logits, wanted_logits) < tolerance
    assert sorted(found) == list(range(len(wanted))) == list(range(len(graph.weighted)))
    for number, scores in enumerate(wanted):
        assert largest_error(np.ldexp(found[number].values, found[number].exponent), scores) < tolerance


def test_statistics_are_those_of_the_scores():
    """Every layer small enough to be taken whole; a ReLU network with pixels that are always 0 has zeros."""
    graph = vgg()
    batch = data(graph)
    batch = DataSummary(batch.inputs * (np.arange(192) > 63), batch.targets, 5)  # no first channel
    networks = sample_networks(graph, batch, 2, seed=7, criterion=criterion("snip"))
    assert len(networks) == 2 and all(len(network.signs[0]) == 4 for network in networks)
    for index, network in enumerate(networks):
        (samples,) = network.signs
        draw = Draw(np.random.default_rng([7, 0x67726170, index]), np.float64)
        _, scores = torch_scores(graph, batch, draw)
        for number, own in enumerate(scores):
            sizes = np.abs(own).ravel()
            sample = samples[number]
            assert sample.log_rms == pytest.approx(0.5 * np.log(np.mean(sizes**2)), abs=1e-4)
            assert sample.share == pytest.approx(np.mean(sizes > 0), abs=1e-12)
            alive = np.sort(np.log(sizes[sizes > 0])) - sample.log_rms
            exceeded = 1.0 - np.searchsorted(alive, GRID, side="right") / len(alive)
            assert sample.tail == pytest.approx(exceeded, abs=0.01 + 2.0 / len(alive))
            largest = np.log(np.abs(own).reshape(len(own), -1).max(axis=1)) - sample.log_rms
            assert sample.row_maxima == pytest.approx(largest, abs=1e-4)
        assert samples[0].share <= 2 / 3 + 1e-12


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tails_of_scores_of_many_sizes(dtype, signed):
    """With strong rows and columns, as gradients have, and with a third of zeros; more negative ones."""
    rng = np.random.default_rng(0)
    rows, columns = np.exp(2 * rng.standard_normal((300, 1))), np.exp(2 * rng.standard_normal(600))
    columns[::3] = 0.0
    scores = (1e-7 * rows * columns * (rng.standard_normal((300, 600)) - 0.5)).astype(dtype)
    samples = layer_samples(Scaled(scores, 40), signed=signed)
    log_rms = 0.5 * np.log(np.mean(scores.astype(float) ** 2))
    for sample, counted in zip(samples, (scores, -scores) if signed else (np.abs(scores),), strict=True):
        assert sample.log_rms == pytest.approx(log_rms + 40 * np.log(2))
        assert sample.share == pytest.approx(np.mean(counted > 0))
        alive = np.sort(np.log(counted[counted > 0].astype(float))) - log_rms
        exceeded = 1.0 - np.searchsorted(alive, GRID, side="right") / len(alive)
        assert sample.tail == pytest.approx(exceeded, abs=0.003)
        assert sample.row_maxima == pytest.approx(
            np.log(counted.max(axis=1).astype(float)) - log_rms, abs=1e-5
        )


def test_halves_of_the_inputs():
    """The ratio is that of the gradients of the halves, taken apart and together."""
    graph = vgg()
    batch = data(graph)
    first = batch.size // 2
    logits, memories = run_forwards(
        graph, as_images(graph, batch), Draw(np.random.default_rng(3), np.float64)
    )
    sent = loss_gradient(logits.T, batch.targets).T
    found = {
        n: (s, r)
        for n, s, r in run_backwards(graph, list(memories), sent, np.float64, halves=([1, 3], first))
    }
    assert np.isnan(found[0][1]) and np.isnan(found[2][1])
    # The last layer's gradient is a product of what the inputs sent back and what arrived.
    weights, x = memories[graph.weighted[3]].memory
    parts = [weights * (sent[:, chosen] @ x[:, chosen].T) for chosen in (slice(0, first), slice(first, None))]
    assert found[3][1] == pytest.approx(
        ((parts[0] - parts[1]) ** 2).sum() / ((parts[0] + parts[1]) ** 2).sum()
    )
    assert largest_error(np.ldexp(found[3][0].values, found[3][0].exponent), parts[0] + parts[1]) < 1e-11


def test_networks_take_turns_in_the_batch():
    graph = vgg()
    batch = data(graph)
    order, half = batch.in_turn(), batch.size // 2
    several = sample_networks(graph, batch, 2, 5, inputs=half, criterion=criterion("snip"))
    second = sample_networks(graph, batch.take(order[half : 2 * half]), 2, 5, criterion=criterion("snip"))[1]
    for one, other in zip(several[1].signs[0], second.signs[0], strict=True):
        assert one.log_rms == pytest.approx(other.log_rms, abs=1e-5)


def test_layer_without_scores():
    (sample,) = layer_samples(Scaled(np.zeros((3, 4), np.float32)))
    assert sample.log_rms == -np.inf and sample.share == 0.0 and not sample.tail.any()
    assert (sample.row_maxima == -np.inf).all()


@pytest.mark.parametrize("name", ["vgg", "resnet", "densenet", "tanh"])
def test_curvature_scores_are_those_of_double_backpropagation(name):
    """W ∘ Hess·g, gates and maxima fixed, against torch's second derivative."""
    graph = {"vgg": vgg, "resnet": resnet, "densenet": densenet, "tanh": lambda: resnet(act=TANH)}[name]()
    batch = data(graph)
    stream = [5, 1]
    found = own_scores(criterion("grasp"), graph, as_images(graph, batch), batch.targets, stream)
    draw = Draw(np.random.default_rng(stream), np.float64)
    values, weights = [torch.tensor(batch_first(as_images(graph, batch)).astype(float))], []
    for node in graph.nodes[1:]:
        values.append(torch_layer(node.layer, [values[source] for source in node.inputs], draw, weights))
    loss = F.cross_entropy(values[-1], torch.tensor(batch.targets))
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    half = 0.5 * sum((g**2).sum() for g in gradients)
    products = [
        (w * h).detach().numpy() for w, h in zip(weights, torch.autograd.grad(half, weights), strict=True)
    ]
    scale = max(np.abs(p).max() for p in products) / max(np.abs(s.values).max() for s in found)
    for scores, wanted in zip(found, products, strict=True):
        # The scale common to all layers carries no meaning.
        assert largest_error(scores.values * scale, wanted.reshape(scores.values.shape)) < 1e-4


def test_results_do_not_depend_on_workers_or_on_the_number_of_samples():
    graph = resnet()
    batch = data(graph)
    results = [
        sample_networks(graph, batch, samples, 3, workers=workers, criterion=criterion("snip"))
        for samples, workers in ((5, 1), (5, 2), (3, 2))
    ]
    for name in ("log_rms", "share", "tail", "row_maxima"):
        first, second, fewer = (
            [np.concatenate([np.ravel(getattr(s, name)) for s in network.signs[0]]) for network in result]
            for result in results
        )
        assert np.array_equal(first, second) and np.array_equal(first[:3], fewer)
    assert len({network.signs[0][0].log_rms for network in results[0]}) == 5


def chain(depth, sigma_w, act, width=8, sigma_b=0.0):
    build = GraphBuilder(Shape(3, (6, 6)))
    for number in range(depth - 1):
        build.add(convolution(f"c{number}", width if number else 3, width, sigma_w=sigma_w, sigma_b=sigma_b))
        build.add(Nonlinearity("a", act))
    build.add(AdaptiveAveragePool("p", (1, 1)))
    build.add(Flatten("f"))
    build.add(dense("fc", width, 5, sigma_w=1.0))
    return build.build()


@pytest.mark.parametrize(
    ("sigma_w", "act", "tolerance"),
    # Rounding errors of a chaotic network grow as differences between inputs do: in single precision its last
    # layers are those of another network of the same law.
    [(0.5, TANH, 0.02), (3.0, TANH, 1.5), (0.9, RELU, 0.02), (2.5, RELU, 0.02)],
    ids=["ordered", "chaotic", "vanishing", "exploding"],
)
def test_deep_networks_keep_their_scale(sigma_w, act, tolerance):
    """100 layers whose gradients, or whose values too, leave single precision, against torch in double."""
    graph = chain(100, sigma_w, act, sigma_b=0.0 if act is RELU else 0.2)
    batch = data(graph, batch=3)
    # The softmax of an exploding network is saturated; the sign has a gradient at any scale.
    try:
        single = moments(graph, batch, np.float32)
    except OutOfRangeError:
        single = moments(graph, batch, np.float64)
    draw = Draw(np.random.default_rng([0, 0x67726170, 0]), np.float64)
    values, weights = [torch.tensor(batch_first(as_images(graph, batch)))], []
    for node in graph.nodes[1:]:
        values.append(torch_layer(node.layer, [values[source] for source in node.inputs], draw, weights))
    values[-1].backward(torch.sign(values[-1].detach()))
    products = [(w.detach() * w.grad).numpy() for w in weights]
    wanted = np.array([0.5 * math.log(np.mean(product**2)) for product in products])
    largest = max(abs(float(values[-1].detach().abs().log().mean())), np.ptp(wanted))
    assert largest > math.log(1e10)  # else nothing would have had to be carried
    assert single == pytest.approx(wanted, abs=tolerance)
    # Rounding grows with chaos, and moves all layers together.
    assert np.mean(single - wanted) == pytest.approx(0.0, abs=tolerance / 2)
    assert moments(graph, batch, np.float64) == pytest.approx(wanted, abs=1e-3)


def moments(graph, batch, dtype):
    """log_rms of every layer for the sign of the logits sent back."""
    draw = Draw(np.random.default_rng([0, 0x67726170, 0]), dtype)
    logits, memories = run_forwards(graph, as_images(graph, batch), draw)
    found = {n: s for n, s, _ in run_backwards(graph, memories, np.sign(logits), dtype)}
    return np.array([layer_samples(found[number])[0].log_rms for number in range(len(found))])


def test_gradients_of_any_size_add_up():
    a, b = Scaled(np.array([1.0, 2.0]), 10), Scaled(np.array([4.0, -8.0]), 8)
    total = a + b
    assert (np.ldexp(total.values, total.exponent) == [2048.0, 0.0]).all()
    far = Scaled(np.array([1.0, 1.0]), 10_000)
    assert (far + b).exponent == 10_000 and ((b + far).values == 1.0).all()
    tiny = Scaled(np.array([3e-30, 0.0], np.float32)).normalised()
    assert tiny.values.dtype == np.float32 and 0.5 <= tiny.values[0] < 1.0
    assert float(tiny.values[0]) * 2.0**tiny.exponent == pytest.approx(3e-30)


@pytest.mark.parametrize("law", ["normal", "uniform", "truncated", "orthogonal"])
@pytest.mark.parametrize(("fan_out", "fan_in", "groups"), [(60, 90, 1), (120, 50, 1), (60, 90, 3)])
def test_weights_have_their_law(law, fan_out, fan_in, groups):
    layer = WeightLayer("w", fan_in, fan_out, 1.5, 0.0, None, law)
    w = Draw(np.random.default_rng(0)).weights(layer, groups)
    assert w.shape == (fan_out, fan_in) and w.dtype == np.float32
    std = 1.5 / math.sqrt(fan_in)
    assert np.mean(w) == pytest.approx(0.0, abs=4 * std / math.sqrt(w.size))
    assert np.mean(w**2) == pytest.approx(std**2, rel=1e-5 if law == "orthogonal" else 0.06)
    if law == "uniform":
        assert np.abs(w).max() <= math.sqrt(3) * std * (1 + 1e-6)
    if law == "truncated":
        assert np.abs(w).max() == pytest.approx(2 * std / 0.87962566, rel=0.02)
    if law == "orthogonal":
        for block in np.split(w, groups):
            gram = block @ block.T if len(block) <= fan_in else block.T @ block
            assert gram == pytest.approx(gram[0, 0] * np.eye(len(gram)), abs=1e-5)


@pytest.mark.parametrize("name", ["tanh", "gelu", "swish", "softplus", "sin", "elu"])
@pytest.mark.parametrize("order", [0, 1])
def test_activations_in_single_precision(name, order):
    """By a table near the origin, themselves far out and in double precision."""
    act = activation(name)
    function = act.derivative(order)
    for size in (0.3, 3.0, 100.0):
        x = (size * np.random.default_rng(0).standard_normal((50, 2000))).astype(np.float32)
        assert largest_error(evaluate(act, x, order), function(x)) < 1e-6
    assert np.array_equal(evaluate(act, x.astype(float), order), function(x))
    special = evaluate(act, np.array([np.nan, 1e30, -1e30, 0.5], np.float32), 1)
    assert np.isnan(special[0])
    assert special[3] == pytest.approx(act.derivative(1)(0.5), abs=1e-6)


def test_both_precisions_are_one_network():
    graph = densenet()
    batch = data(graph)
    (single, _), (double, _) = (
        numpy_scores(graph, batch, Draw(np.random.default_rng(1), dtype))
        for dtype in (np.float32, np.float64)
    )
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert largest_error(single, double) < 1e-5


def test_errors():
    graph = resnet()
    batch = data(graph)

    with pytest.raises(ArgumentError, match="samples"):
        sample_networks(graph, batch, 0, 0, criterion=criterion("snip"))
    with pytest.raises(DataError, match="takes 192"):
        sample_networks(
            graph, DataSummary(np.ones((2, 5)), np.array([0, 1]), 5), 1, 0, criterion=criterion("snip")
        )
    with pytest.raises(ModelError, match="range of floats"):
        steep = chain(400, 20.0, activation("x*abs(x)"))
        sample_networks(steep, data(steep), 1, 0, criterion=criterion("snip"))
