"""What layers make of channels and of gradients, against torch."""

from __future__ import annotations

import numpy as np
import pytest
from torch_layers import batch_first, convolution, largest_error, torch_layer

from eoc_theory import activation
from eoc_theory.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Concatenate,
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
)
from eoc_theory.layers.activation_tables import evaluate
from eoc_theory.layers.random_numbers import Draw
from eoc_theory.propagation.gaussian_graph import weight_gradient

torch = pytest.importorskip("torch")


def image(channels, *space, batch=4, seed=0):
    return np.random.default_rng(seed).standard_normal((channels, *space, batch))


LAYERS = [
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
    given = [torch.tensor(batch_first(x), requires_grad=True) for x in inputs]
    wanted = torch_layer(layer, given, Draw(np.random.default_rng(5), dtype), [])
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
    assert np.array_equal(gradient, own)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, kept, strict=True))


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


@pytest.mark.parametrize(("layer", "shape"), list(conv_cases()))
def test_gradients_of_convolutions_are_torchs(layer, shape):
    x = image(*shape)
    weights = []
    value = torch_layer(
        layer, [torch.tensor(batch_first(x))], Draw(np.random.default_rng(5), np.float64), weights
    )
    delta = image(*value.shape[1:], seed=2)
    value.backward(torch.tensor(batch_first(delta)))
    found = weight_gradient(layer, delta, x)
    assert largest_error(found, weights[0].grad.numpy().reshape(found.shape)) < 1e-11


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
