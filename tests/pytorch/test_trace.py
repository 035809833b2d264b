"""Torch models read into graphs: they compute what the model does, or it is refused by name."""

from __future__ import annotations

import copy
import math
import pickle
import random
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from graph_values import graph_output  # noqa: E402
from hypothesis import event, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from models import (  # noqa: E402
    MLP,
    VGG,
    ZOO,
    DepthwiseSeparable,
    LeNet,
    PlainCNN,
    ResNet,
    StableResNet,
    WithSubclasses,
)  # fmt: skip
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import prune as _prune  # noqa: E402, F401

from eoc_theory.errors import ModelError  # noqa: E402
from eoc_theory.layers import (  # noqa: E402
    AdaptiveAveragePool,
    BatchNorm,
    ChannelScale,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    Input,
    MaxPool,
    Nonlinearity,
    PadChannels,
    Shape,
    StochasticDepth,
    Subsample,
    Sum,
)  # fmt: skip
from eoc_theory.networks.architecture import Architecture  # noqa: E402
from eoc_theory.pytorch.models import prunable_weights  # noqa: E402
from eoc_theory.pytorch.trace import trace  # noqa: E402


class Model(nn.Module):
    """Parts by name and a forward pass given as a function of the module and its input."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def kinds(graph):
    return [type(node.layer) for node in graph.nodes]


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return model


def assert_reads(model, shape, seed=0):
    """The graph computes what the model does, on inputs that no padding or order leaves alike."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    graph = trace(model, x)
    with torch.no_grad():
        expected = copy.deepcopy(model)(x.clone())
        found = graph_output(graph, model, x)
    assert float(expected.std()) > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    return graph


# --- networks as others write them ---


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_graph_computes_what_the_model_does(name, training):
    factory, shape = ZOO[name]
    torch.manual_seed(1)
    # LeNet's F.dropout draws in training mode.
    model = without_dropout(factory().train(training and name != "LeNet"))
    graph = assert_reads(model, shape)
    assert graph.input_shape == Shape(shape[0], shape[1:])
    assert sorted(w.name for w in graph.weight_layers) == sorted(w.name for w in prunable_weights(model))
    assert {node.layer.training for node in graph.nodes if isinstance(node.layer, BatchNorm)} <= {training}
    names = [node.layer.name for node in graph.nodes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_model_is_left_as_it_was(name):
    factory, shape = ZOO[name]
    model = factory().train()
    before = copy.deepcopy(model.state_dict())
    attributes = [sorted(module.__dict__) for module in model.modules()]
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    trace(model, torch.zeros(1, *shape))
    assert torch.equal(torch.random.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert all(torch.equal(a, before[key]) for key, a in model.state_dict().items())
    assert [sorted(module.__dict__) for module in model.modules()] == attributes
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_basic_block_node_by_node():
    graph = trace(ResNet(blocks=(1, 1), width=4, shortcut="pad"), (1, 3, 8, 8))
    found = [(type(node.layer).__name__, node.layer.name, node.inputs) for node in graph.nodes]
    assert found == [
        ("Input", "input", ()),
        ("Convolution", "conv1", (0,)),
        ("BatchNorm", "bn1", (1,)),
        ("Nonlinearity", "relu", (2,)),
        ("Convolution", "stages.0.0.conv1", (3,)),
        ("BatchNorm", "stages.0.0.bn1", (4,)),
        ("Nonlinearity", "stages.0.0.relu", (5,)),
        ("Convolution", "stages.0.0.conv2", (6,)),
        ("BatchNorm", "stages.0.0.bn2", (7,)),
        ("Sum", "stages.0.0.add", (8, 3)),
        ("Nonlinearity", "stages.0.0.relu#2", (9,)),
        ("Convolution", "stages.1.0.conv1", (10,)),
        ("BatchNorm", "stages.1.0.bn1", (11,)),
        ("Nonlinearity", "stages.1.0.relu", (12,)),
        ("Convolution", "stages.1.0.conv2", (13,)),
        ("BatchNorm", "stages.1.0.bn2", (14,)),
        ("Subsample", "stages.1.0.shortcut.getitem", (10,)),
        ("PadChannels", "stages.1.0.shortcut.pad", (16,)),
        ("Sum", "stages.1.0.add", (15, 17)),
        ("Nonlinearity", "stages.1.0.relu#2", (18,)),
        ("AveragePool", "avg_pool2d", (19,)),
        ("Flatten", "view", (20,)),
        ("Dense", "linear", (21,)),
    ]
    assert graph.shapes[10] == Shape(4, (8, 8)) and graph.shapes[18] == Shape(8, (4, 4))
    assert [w.fan_in for w in graph.weight_layers] == [27, 36, 36, 36, 72, 8]
    assert {w.activation.name for w in graph.weight_layers[:-1]} == {"relu"}
    assert graph.weight_layers[-1].activation is None


def test_scales_of_residual_branches_become_coefficients():
    graph = trace(StableResNet(blocks=4), (1, 3, 8, 8))
    sums = [node.layer.coefficients for node in graph.nodes if isinstance(node.layer, Sum)]
    assert sums == [(1.0, 0.5)] * 4
    names = [node.layer.name for node in graph.nodes if isinstance(node.layer, Nonlinearity)]
    assert names == ["relu", "relu#2", "relu#3", "relu#4", "relu#5"]


def test_activations_written_out_are_recognised():
    graph = trace(WithSubclasses(), (1, 3, 8, 8))
    assert [layer.activation.name for layer in graph.weight_layers[:-1]] == ["silu", "hardswish", "silu"]
    assert kinds(graph)[-3:] == [AdaptiveAveragePool, Flatten, Dense]


def test_max_pooling_stands_after_a_rising_activation():
    graph = trace(LeNet().eval(), (1, 1, 32, 32))
    order = [k for k in kinds(graph) if k in (Convolution, Nonlinearity, MaxPool)]
    assert order == [Convolution, Nonlinearity, MaxPool] * 2 + [Nonlinearity] * 2
    model = Model(
        lambda m, x: m.b(F.gelu(F.max_pool2d(m.a(x), 2)).flatten(1)), a=nn.Conv2d(1, 3, 3), b=nn.Linear(12, 2)
    )
    assert kinds(assert_reads(model, (1, 6, 6)))[2:4] == [MaxPool, Nonlinearity]


def test_plain_chains_have_no_graph():
    net = Architecture.from_torch(MLP(), (1, 1, 8, 8))
    assert net.graph is None and net.weight_layers == ("hidden.0", "hidden.1", "out")
    assert Architecture.from_torch(MLP().eval()).in_features == 64
    assert Architecture.from_torch(PlainCNN(), (1, 3, 8, 8)).graph is not None


def test_modes_are_those_of_each_module():
    def make():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Flatten(), nn.Dropout(0.0),
            nn.Linear(16, 2),
        )  # fmt: skip

    model = make()
    model[1].eval()
    with torch.no_grad():
        model[1].weight.fill_(2.0)
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        model[1].running_var.copy_(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    graph = trace(model, (1, 3, 6, 6))
    first, second = (node.layer for node in graph.nodes if isinstance(node.layer, BatchNorm))
    assert (first.training, first.gain, first.shift, first.variance) == (False, 2.0, 0.5, 3.0)
    assert (second.training, second.gain, second.variance) == (True, 1.0, 1.0)
    (dropout,) = (node.layer for node in graph.nodes if isinstance(node.layer, Dropout))
    assert (dropout.p, dropout.training, dropout.channelwise) == (0.3, True, True)
    graph = trace(make().eval(), (1, 3, 6, 6))
    assert [node.layer.training for node in graph.nodes if isinstance(node.layer, BatchNorm)] == [False, True]
    assert Dropout not in kinds(graph) and Identity not in kinds(graph)


@pytest.mark.parametrize(
    ("forward", "changed"),
    [
        (lambda m, x: m.b((y := m.a(x)) + torch.relu_(y)), "twice relu"),
        (lambda m, x: m.b((y := m.a(x)) + F.relu(y, inplace=True)), "twice relu"),
        (lambda m, x: m.b((y := m.a(x)) + F.relu(y)), "y + relu"),
        (lambda m, x: m.b((y := m.a(x)) + y.mul_(0.5)), "halved, twice"),
        (lambda m, x: m.b(torch.tanh(y := m.a(x)) + m.act(y)), "relu inside of a sum, in place"),
        (lambda m, x: m.b(torch.tanh(y := m.a(x)) + y), "y + tanh y"),
        (lambda m, x: m.b(-torch.tanh((1 - m.a(x)) / 3)), "tanh of 1 - y"),
        (lambda m, x: m.b(torch.where((y := m.a(x)) > 0.1, y, 0.3 * y)), "a jump"),
        (lambda m, x: m.b(F.relu(m.a(x)) ** 2), "squared relu"),
        (lambda m, x: m.b(torch.clamp(m.a(x), -0.2, 0.3)), "clamp"),
        (lambda m, x: m.b(np.float64(2.0) * m.a(x).tanh() - m.a2(x) * np.sqrt(2)), "NumPy's numbers"),
        (lambda m, x: m.b(m.scale * torch.tanh(m.a(x))), "a parameter"),
        (lambda m, x: m.b(torch.sigmoid(m.scale) * torch.tanh(m.a(x))), "a parameter's function"),
        (lambda m, x: m.b(torch.tanh(m.a(x)).clone().mul_(2.0) + m.a2(x)), "a copy"),
        (lambda m, x: m.b(torch.sub(torch.tanh(m.a(x)), m.a2(x), alpha=0.25)), "alpha"),
        (lambda m, x: m.b(sum([torch.tanh(m.a(x)), m.a2(x)])), "sum from 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.parametrize("scale", [0.7])
def test_memory_and_arithmetic_are_followed(forward, changed, scale):
    torch.manual_seed(2)
    parts = {"a": nn.Linear(6, 40), "b": nn.Linear(40, 4)}
    if "a2" in forward.__code__.co_names:
        parts["a2"] = nn.Linear(6, 40)
    model = Model(forward, **parts)
    model.act = nn.ReLU(inplace=True)
    model.scale = nn.Parameter(torch.tensor(scale))
    assert_reads(model, (6,))


def test_a_tensor_changed_through_a_view_is_refused():
    def forward(m, x):
        y = m.a(x)
        flat = y.flatten(1)
        flat.tanh_()
        return m.b(torch.relu(y).flatten(1))

    model = Model(forward, a=nn.Conv2d(1, 2, 3), b=nn.Linear(8, 2))
    with pytest.raises(ModelError, match=r"'relu' in the model .*changed in place through another view"):
        trace(model, (1, 1, 4, 4))


extents, seeds = st.integers(5, 9), st.integers(0, 1000)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_convolution_and_pooling_is_read_as_torch_computes_it(data):
    """Strides, dilations, groups, every kind of padding, odd extents, both poolings."""
    axes = data.draw(st.integers(1, 2))
    space = tuple(data.draw(extents) for _ in range(axes))
    each = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    groups = data.draw(st.sampled_from([1, 2, 4]))
    same = data.draw(st.booleans())
    conv = (nn.Conv1d, nn.Conv2d)[axes - 1](
        4, 4 * data.draw(st.integers(1, 2)), each(1, 4), stride=1 if same else each(1, 3),
        padding="same" if same else each(0, 2), dilation=1 if same else each(1, 2), groups=groups,
        padding_mode=data.draw(st.sampled_from(["zeros", "circular", "reflect"])),
        bias=data.draw(st.booleans()),
    )  # fmt: skip
    pool = data.draw(st.sampled_from(["avg", "max", "adaptive", "none"]))
    kernel, stride, ceil = (
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 3)),
        data.draw(st.booleans()),
    )
    padding = data.draw(st.integers(0, kernel // 2))
    modules = {
        "avg": (nn.AvgPool1d, nn.AvgPool2d)[axes - 1](
            kernel, stride, padding, ceil_mode=ceil, count_include_pad=data.draw(st.booleans())
        ),
        "max": (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](kernel, stride, padding, ceil_mode=ceil),
        "adaptive": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[axes - 1](data.draw(st.integers(1, 3))),
        "none": nn.Identity(),
    }
    body = nn.Sequential(conv, nn.Tanh(), modules[pool], nn.Flatten())
    try:
        features = body(torch.zeros(1, 4, *space)).shape[1]
    except RuntimeError:
        return  # an image smaller than the kernel or its padding
    model = nn.Sequential(body, nn.Linear(features, 3)).double()
    x = torch.randn(2, 4, *space, dtype=torch.float64)
    graph = trace(model, x)
    with torch.no_grad():
        torch.testing.assert_close(graph_output(graph, model, x), model(x), rtol=1e-9, atol=1e-11)


STEPS = (
    "linear", "relu", "relu_", "relu inplace", "tanh", "add", "iadd", "add_", "sub", "scale", "mul_", "swish",
    "clone", "identity", "view", "drop", "norm", "cat",
)  # fmt: skip


IN_PLACE = ("relu inplace", "iadd", "add_", "mul_")


class Program(nn.Module):
    """A random program on a few variables, some of which share memory; its logits depend on all of them."""

    def __init__(self, steps, width=5):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(nn.Linear(width, width) for step, *_ in steps if step == "linear")
        self.mixed = nn.ModuleList(nn.Linear(2 * width, width) for step, *_ in steps if step == "cat")
        values = 1 + sum(step not in IN_PLACE for step, *_ in steps)
        self.first, self.last = nn.Linear(width, width), nn.Linear(values * width, 3)
        self.act, self.same, self.drop = nn.ReLU(inplace=True), nn.Identity(), nn.Dropout().eval()
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        layers, mixed = iter(self.layers), iter(self.mixed)
        v = [self.first(x)]
        for step, i, j in self.steps:
            a, b = v[i % len(v)], v[j % len(v)]
            if step == "linear":
                v.append(next(layers)(a))
            elif step == "relu":
                v.append(F.relu(a))
            elif step == "relu_":
                v.append(torch.relu_(a))
            elif step == "relu inplace":
                self.act(a)
            elif step == "tanh":
                v.append(a.tanh())
            elif step == "add":
                v.append(a + b)
            elif step == "iadd":
                a += b
            elif step == "add_":
                a.add_(b, alpha=0.5)
            elif step == "sub":
                v.append(torch.sub(a, b))
            elif step == "scale":
                v.append(0.7 * a)
            elif step == "mul_":
                a *= 0.8
            elif step == "swish":
                v.append(a * torch.sigmoid(a))
            elif step == "clone":
                v.append(a.clone())
            elif step == "identity":
                v.append(self.same(a))
            elif step == "view":
                v.append(a.view(a.size(0), -1))
            elif step == "drop":
                v.append(self.drop(a))
            elif step == "norm":
                v.append(self.norm(a))
            elif step == "cat":
                v.append(next(mixed)(torch.cat([a, b], -1)))
        return self.last(torch.cat(v, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), max_size=9),
    st.randoms(),
)
def test_random_programs_are_read_right_or_refused(steps, rng):
    torch.manual_seed(rng.randrange(1000))
    model = Program(steps).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x.clone())
    try:
        graph = trace(model, x)
    except ModelError as error:
        event(re.sub(r"'.*|layer.*", "", str(error)))
        return
    event("read")
    torch.testing.assert_close(graph_output(graph, model, x), expected, rtol=1e-9, atol=1e-10)


def test_shapes_may_be_tensors_arrays_and_tuples():
    model = PlainCNN(depth=2)
    graphs = [trace(model, x) for x in (torch.zeros(1, 3, 8, 8), np.zeros((5, 3, 8, 8)), (2, 3, 8, 8))]
    assert graphs[0] == graphs[1] == graphs[2]
    assert pickle.loads(pickle.dumps(graphs[0])).shapes == graphs[0].shapes


def test_flat_inputs_can_be_made_images():
    layers = dict(conv=nn.Conv2d(1, 4, 3), fc=nn.Linear(4 * 36, 3))
    model = Model(lambda m, x: m.fc(torch.tanh(m.conv(x.view(-1, 1, 8, 8))).flatten(1)), **layers)
    assert assert_reads(model, (64,)).input_shape == Shape(1, (8, 8))
    model = Model(lambda m, x: m.fc(torch.tanh(m.conv(x.unsqueeze(1))).flatten(1)), **layers)
    assert assert_reads(model, (8, 8)).input_shape == Shape(1, (8, 8))
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)
    )
    assert assert_reads(model, (64,)).input_shape == Shape(1, (8, 8))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3)), lambda x: x.mean(-1).mean(-1), lambda x: x.flatten(2).mean(2),
        lambda x: x.view(x.size(0), x.size(1), -1).mean(-1), lambda x: x.flatten(2).tanh().amax(2),
        lambda x: torch.mean(x.reshape(len(x), x.shape[1], -1), dim=2, keepdim=True).squeeze(-1),
        lambda x: torch.amax(x, (2, 3), keepdim=True)[:, :, 0, 0], lambda x: x.sum((-1, -2)) / 9,
        lambda x: F.avg_pool2d(x, 3).view(-1, np.prod(x.shape[1:]) // 9),
        lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), lambda x: F.max_pool2d(x, x.shape[-2:])[..., 0, 0],
        lambda x: F.avg_pool2d(x, x.size(-1)).squeeze(3).squeeze(2),
        lambda x: x.mean(3, True).mean(2).flatten(1),
        lambda x: nn.functional.adaptive_avg_pool2d(x, (1, None)).mean(dim=3).view(x.shape[0], x.shape[1]),
    ],
)  # fmt: skip
def test_means_over_positions_in_every_spelling(pool):
    torch.manual_seed(0)
    model = Model(
        lambda m, x: m.c(torch.tanh(m.b(pool(m.a(x))))),
        a=nn.Conv2d(2, 6, 3),
        b=nn.Linear(6, 4),
        c=nn.Linear(4, 2),
    )
    assert_reads(model, (2, 5, 5))


@pytest.mark.parametrize(
    "moved",
    [
        lambda m, x: torch.cat([m.c(x), x], 2), lambda m, x: torch.cat([x, m.c(x[..., :2])], 3),
        lambda m, x: m.d(x.reshape(len(x), 12, 1, 3)), lambda m, x: x[:, :, 1], lambda m, x: m.c(x)[..., -1],
        lambda m, x: m.c(x.mean((2, 3), keepdim=True)).expand(-1, -1, 4, 4),
        lambda m, x: m.c(x.amax(3, keepdim=True)).expand_as(x),
    ],
)  # fmt: skip
def test_positions_joined_cut_and_repeated(moved):
    torch.manual_seed(0)
    parts = {"c": nn.Conv2d(4, 4, 1), "d": nn.Conv2d(12, 4, 1)}
    used = {name: part for name, part in parts.items() if name in moved.__code__.co_names}
    model = Model(
        lambda m, x: m.fc(torch.tanh(moved(m, m.a(x))).flatten(2).mean(2)),
        a=nn.Conv2d(2, 4, 3),
        fc=nn.Linear(4, 2),
        **used,
    )
    assert_reads(model, (2, 5, 5))


def test_shortcuts_of_zeros_in_every_spelling():
    def cat_zeros(m, x):
        y = torch.tanh(m.a(x))
        return m.b((m.c(y) + torch.cat((y, torch.zeros_like(y)), 1)).mean((2, 3)))

    def cat_times_zero(m, x):
        y = torch.tanh(m.a(x))
        return m.b((m.c(y) + torch.cat((y, y.mul(0)), 1)).mean((2, 3)))

    def cat_tensor(m, x):
        y = torch.tanh(m.a(x))
        zeros = torch.zeros(y.size(0), m.c.out_channels - y.shape[1], y.size(2), y.size(3), dtype=y.dtype)
        return m.b((m.c(y) + torch.cat([y, zeros], dim=1)).mean((2, 3)))

    for forward in (cat_zeros, cat_times_zero, cat_tensor):
        model = Model(forward, a=nn.Conv2d(1, 3, 3), c=nn.Conv2d(3, 6, 1), b=nn.Linear(6, 2))
        graph = trace(model, (1, 1, 6, 6))
        (pad,) = (node.layer for node in graph.nodes if isinstance(node.layer, PadChannels))
        assert (pad.before, pad.after) == (0, 3)
    model = Model(
        lambda m, x: m.b(m.a(x)[..., ::2, ::3].flatten(1)), a=nn.Conv2d(1, 3, 3), b=nn.Linear(3 * 3 * 2, 2)
    )
    (layer,) = (n.layer for n in assert_reads(model, (1, 8, 8)).nodes if isinstance(n.layer, Subsample))
    assert layer.stride == (2, 3)


def test_a_model_that_stores_values_is_given_back_clean():
    def forward(m, x):
        m.features = torch.tanh(m.a(x))
        m.calls = m.calls + 1
        return m.b(m.features)

    model = Model(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2), calls=0)
    trace(model, (1, 3))
    assert not hasattr(model, "features") and model.calls == 0


def test_shape_dependent_control_flow_is_followed():
    def forward(m, x):
        while x.shape[-1] > 4:
            x = F.avg_pool2d(x, 2)
        if x.dim() == 4 and len(x) > 0:
            x = torch.tanh(m.a(x))
        return m.b(x.view(x.size(0), -1))

    model = Model(forward, a=nn.Conv2d(1, 2, 3), b=nn.Linear(8, 2))
    assert_reads(model, (1, 16, 16))


def test_own_activations_that_cannot_be_traced_are_sampled():
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.tanh(x) + 0.1 * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (1.1 - torch.tanh(x) ** 2)

    class Own(nn.Module):
        def forward(self, x):
            return Function.apply(x)

    graph = assert_reads(nn.Sequential(nn.Linear(5, 7), Own(), nn.Linear(7, 2)), (5,))
    assert graph.weight_layers[0].activation(np.array([1.0])) == pytest.approx(math.tanh(1.0) + 0.1)


def test_straight_through_gradients_are_refused():
    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.tanh(x)

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Own(nn.Module):
        def forward(self, x):
            return Sign.apply(x)

    with pytest.raises(ModelError, match=r"module '1' .Own.: forward cannot be traced"):
        trace(nn.Sequential(nn.Linear(5, 7), Own(), nn.Linear(7, 2)), (1, 5))


def test_prelu_and_learned_slopes():
    graph = trace(nn.Sequential(nn.Linear(5, 7), nn.PReLU(init=0.4), nn.Linear(7, 2)), (1, 5))
    assert graph.weight_layers[0].activation.slopes == pytest.approx((0.4, 1.0))
    with pytest.raises(ModelError, match=r"module '1' .PReLU.*one slope"):
        trace(nn.Sequential(nn.Linear(5, 7), nn.PReLU(7), nn.Linear(7, 2)), (1, 5))


class Block(Model):
    """A module in the middle of a model, for the place in messages."""


# --- layers whose forward pass is their owner's, and weights that are computed ---


class WeightStandardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.effective(), self.bias, self.stride, self.padding)

    def effective(self):
        w = self.weight
        mean, deviation = w.mean((1, 2, 3), keepdim=True), w.std((1, 2, 3), keepdim=True)
        return (w - mean) / (deviation + 1e-5)


class OtherConvForward(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, 2.0 * weight, bias)

    def effective(self):
        return 2.0 * self.weight


class Plain(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def effective(self):
        return self.weight


class Masked(nn.Conv2d):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("mask", (torch.rand(self.weight.shape) < 0.7).float())

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)

    def effective(self):
        return self.weight * self.mask


class WeightNormed(nn.Conv2d):
    def __new__(cls, *args):
        return nn.utils.parametrizations.weight_norm(nn.Conv2d(*args))


class SpectrallyNormed(nn.Conv2d):
    def __new__(cls, *args):
        return nn.utils.parametrizations.spectral_norm(nn.Conv2d(*args))


def effective_weight(layer):
    return (layer.effective() if hasattr(layer, "effective") else layer.weight).detach().double()


@pytest.mark.parametrize(
    "kind", [WeightStandardised, OtherConvForward, Plain, Masked, WeightNormed, SpectrallyNormed]
)
def test_effective_weights_have_their_own_law(kind):
    torch.manual_seed(0)
    layer = kind(8, 16, 3).eval()
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), layer, nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    read = trace(model, (1, 1, 5, 5)).weight_layers[1]
    weight = effective_weight(layer)
    assert read.name == "2" and (read.fan_in, read.fan_out, read.kernel) == (72, 16, (3, 3))
    assert read.sigma_w == pytest.approx(math.sqrt(72 * float(weight.square().mean())), rel=1e-5)
    bias = float(layer.bias.detach().double().square().mean())
    assert read.sigma_b == pytest.approx(math.sqrt(bias), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_weight_norm_by_hooks():
    layer = nn.utils.weight_norm(nn.Linear(40, 30))
    read = trace(nn.Sequential(layer, nn.ReLU(), nn.Linear(30, 2)), (1, 40)).weight_layers[0]
    assert read.name == "0" and read.sigma_w == pytest.approx(
        math.sqrt(40 * float(layer.weight.detach().double().square().mean())), rel=1e-5
    )


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


class WrittenNorm(nn.BatchNorm2d):
    def forward(self, x):
        training = self.training
        mean, variance = (None, None) if training else (self.running_mean, self.running_var)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training, 0.1, self.eps)


READ_INSIDE = {
    "x + 0": (lambda m, x: torch.relu(m.d(m.c(x) + 0)), dict(c=nn.Conv2d(4, 4, 1), d=nn.Dropout(0.0))),
    "relu of relu": (lambda m, x: torch.relu(torch.relu(m.c(x))), dict(c=nn.Conv2d(4, 4, 1))),
    "relu of pooled relus": (
        lambda m, x: torch.relu(F.max_pool2d(torch.relu(m.c(x)), 2) + torch.relu(F.avg_pool2d(x, 2))),
        dict(c=nn.Conv2d(4, 4, 1)),
    ),
    "tanh of relu": (lambda m, x: torch.tanh(torch.relu(m.c(x))), dict(c=nn.Conv2d(4, 4, 1))),
    "gate": (lambda m, x: x * torch.sigmoid(m.gate(x)), dict(gate=nn.Conv2d(4, 4, 1))),
    "squeeze-excite": (
        lambda m, x: (y := m.c(x)) * torch.sigmoid(m.b(torch.relu(m.a(y.mean((2, 3), keepdim=True))))),
        dict(c=nn.Conv2d(4, 4, 1), a=nn.Conv2d(4, 2, 1), b=nn.Conv2d(2, 4, 1)),
    ),
    "squeeze-excite by Linear": (
        lambda m, x: (y := m.c(x)) * torch.sigmoid(m.b(torch.relu(m.a(y.mean((2, 3)))))).view(-1, 4, 1, 1),
        dict(c=nn.Conv2d(4, 4, 1), a=nn.Linear(4, 3), b=nn.Linear(3, 4)),
    ),
    "a factor of positions": (lambda m, x: m.c(x) * torch.sigmoid(m.g(x)), dict(c=nn.Conv2d(4, 4, 1),
        g=nn.Conv2d(4, 1, 3, padding=1))),
    "glu": (lambda m, x: (p := m.c(x).chunk(2, 1))[0] * torch.sigmoid(p[1]), dict(c=nn.Conv2d(4, 8, 1))),
    "channels last": (
        lambda m, x: m.b(F.gelu(m.a(m.n(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2),
        dict(n=nn.LayerNorm(4), a=nn.Linear(4, 12), b=nn.Linear(12, 4)),
    ),
    "tokens": (
        lambda m, x: m.a(m.n(x.flatten(2).transpose(1, 2))).mean(1)[:, :, None, None] * 1.0,
        dict(n=nn.LayerNorm(4), a=nn.Linear(4, 12)),
    ),
    "mixer": (
        lambda m, x: (y := x.flatten(2).transpose(1, 2))
        + m.b(F.gelu(m.a(m.n(y).transpose(1, 2)))).transpose(1, 2),
        dict(n=nn.LayerNorm(4), a=nn.Linear(16, 6), b=nn.Linear(6, 16)),
    ),
    "gate of tokens": (
        lambda m, x: (y := m.c(x.flatten(2).transpose(1, 2)).chunk(2, -1))[0]
        * m.a(m.n(y[1]).transpose(1, 2)).transpose(1, 2),
        dict(n=nn.LayerNorm(3), c=nn.Linear(4, 6), a=nn.Linear(16, 16)),
    ),
    "rows of tokens": (
        lambda m, x: m.a(x.permute(0, 2, 3, 1).reshape(-1, 4)).view(len(x), 4, 4, 6).permute(0, 3, 1, 2),
        dict(a=nn.Linear(4, 6)),
    ),
    "flattened channels last": (lambda m, x: m.c(x).permute(0, 2, 3, 1), dict(c=nn.Conv2d(4, 4, 1))),
    "shuffle": (
        lambda m, x: m.c(x.view(len(x), 2, 2, 4, 4).transpose(1, 2).reshape(len(x), 4, 4, 4)),
        dict(c=nn.Conv2d(4, 6, 3, groups=2)),
    ),
    "halves": (
        lambda m, x: torch.cat([(p := x.chunk(2, 1))[1], m.c(p[0])], 1), dict(c=nn.Conv2d(2, 5, 3, padding=1))
    ),
    "parts": (
        lambda m, x: torch.cat([m.c(part) if i else part for i, part in enumerate(x.split([1, 3], 1))], 1),
        dict(c=nn.Conv2d(3, 3, 1)),
    ),
    "every other channel": (lambda m, x: m.c(x[:, ::2]), dict(c=nn.Conv2d(2, 3, 1))),
    "twice as large": (lambda m, x: m.c(F.interpolate(x, scale_factor=2)), dict(c=nn.Conv2d(4, 4, 3))),
    "bilinear": (lambda m, x: F.interpolate(x, size=(7, 9), mode="bilinear"), {}),
    "aligned": (
        lambda m, x: F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True), {}
    ),
    "as it was": (lambda m, x: m.up(x), dict(up=nn.Upsample(scale_factor=1))),
    "own weights": (lambda m, x: F.conv2d(x, m.w), dict(w=nn.Parameter(torch.randn(5, 4, 1, 1)))),
    "matrix product": (lambda m, x: m.c(x).mean((2, 3)) @ m.w.T, dict(w=nn.Parameter(torch.randn(6, 4)),
        c=nn.Conv2d(4, 4, 1))),
    "maxima of two": (lambda m, x: m.p(m.c(x))[0], dict(p=nn.MaxPool2d(2, return_indices=True),
        c=nn.Conv2d(4, 4, 1))),
    "eight channels": (lambda m, x: x.view(x.size(0), 8, 2, 4), {}),
    "norm and activation": (lambda m, x: m.n(m.c(x)), dict(n=NormAndActivation(4), c=nn.Conv2d(4, 4, 1))),
    "norm written out": (lambda m, x: m.n(m.c(x)), dict(n=WrittenNorm(4), c=nn.Conv2d(4, 4, 1))),
    "length of channels": (lambda m, x: x / x.norm(dim=1, keepdim=True), {}),
    "layerscale of ones": (lambda m, x: x + m.c(x) * m.g, dict(c=nn.Conv2d(4, 4, 1),
        g=nn.Parameter(0.3 * torch.ones(4, 1, 1)))),
    "padded before pooling": (
        lambda m, x: F.max_pool2d(F.pad(m.c(x), (0, 1, 1, 0)), 3, 2), dict(c=nn.Conv2d(4, 4, 1))
    ),
    "reflected": (lambda m, x: F.pad(m.c(x), (1, 2, 0, 1), mode="reflect") * 2, dict(c=nn.Conv2d(4, 4, 1))),
    "−∞ around": (
        lambda m, x: F.max_pool2d(F.pad(m.c(x), (0, 1, 0, 1), value=-math.inf), 3, 2),
        dict(c=nn.Conv2d(4, 4, 1)),
    ),
    "−∞ on all sides": (
        lambda m, x: F.max_pool2d(F.pad(m.c(x), (1, 1, 1, 1), value=-math.inf), 3, 2),
        dict(c=nn.Conv2d(4, 4, 1)),
    ),
    "crop": (lambda m, x: m.c(x[:, :, 1:, ::2]), dict(c=nn.Conv2d(4, 4, 1))),
    "shifted": (lambda m, x: F.avg_pool2d(F.pad(m.c(x), (-1, 1, -1, 1)), 1, 2), dict(c=nn.Conv2d(4, 4, 1))),
    "asymmetric": (lambda m, x: m.c(F.pad(x, (0, 1, 2, 1))), dict(c=nn.Conv2d(4, 4, 3, stride=2))),
    "negative": (lambda m, x: -m.c(x) / 3 + x, dict(c=nn.Conv2d(4, 4, 1))),
    "squared sums": (lambda m, x: m.c(x).pow(2) + 1, dict(c=nn.Conv2d(4, 4, 1))),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", READ_INSIDE)
def test_what_the_graph_says_is_what_the_model_does(name, training):
    torch.manual_seed(1)
    forward, parts = READ_INSIDE[name]
    block = Block(forward, **copy.deepcopy(parts))
    stem = nn.Conv2d(1, 4, 3, padding=1)
    features = nn.Sequential(stem, nn.ReLU(), block, nn.Flatten())(torch.zeros(2, 1, 4, 4)).shape[1]
    model = nn.Sequential(stem, nn.ReLU(), block, nn.Flatten(), nn.Linear(features, 3))
    model.train(training)
    graph = assert_reads(model, (1, 4, 4))
    names = [node.layer.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    wanted = {name for name, p in model.named_parameters() if p.dim() > 1 and not name.endswith(".g")}
    read = {layer.name for layer in graph.weight_layers}
    assert read == {name.removesuffix(".weight") for name in wanted}


def test_weights_under_a_factor_that_is_0_are_multiplied_by_it():
    """SkipInit: a branch is silent at first, and its weights are there."""

    def forward(m, x):
        return x + F.conv2d(x, m.g * m.c.weight, m.c.bias)

    conv = nn.Conv2d(4, 4, 1)
    nn.init.zeros_(conv.bias)
    block = Block(forward, c=conv, g=nn.Parameter(torch.zeros(4, 1, 1, 1)))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), block, nn.Flatten(), nn.Linear(16, 2))
    graph = trace(model, (1, 1, 4, 4))
    assert [n.layer.coefficients for n in graph.nodes if isinstance(n.layer, Sum)] == [(1.0, 0.0)]
    assert graph.weight_layers[1].sigma_w == pytest.approx(
        math.sqrt(4 * float(conv.weight.detach().double().square().mean())), rel=1e-6
    )


def test_factors_for_each_channel_count_by_their_mean_square():
    gamma = nn.Parameter(torch.tensor([1.0, 2.0, 0.0, 2.0]).view(4, 1, 1))
    block = Block(lambda m, x: x + m.g * m.c(x) + m.g, c=nn.Conv2d(4, 4, 1), g=gamma)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), block, nn.Flatten(), nn.Linear(16, 2))
    scale, shift = (n.layer for n in trace(model, (1, 1, 4, 4)).nodes if isinstance(n.layer, ChannelScale))
    assert (scale.gain, scale.shift) == (1.5, 0.0) and (shift.gain, shift.shift) == (1.0, 1.5)


def drop_path(kept):
    return lambda m, x: x + m.c(x).div(kept) * (kept + torch.rand(len(x), 1, 1, 1)).floor_()


@pytest.mark.parametrize(
    ("forward", "kind", "factor"),
    [
        (
            lambda m, x: x + m.c(x) * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8).div_(0.8),
            StochasticDepth,
            1.0,
        ),
        (drop_path(0.8), StochasticDepth, 1.0),
        (lambda m, x: x + m.c(x) * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8), StochasticDepth, 0.8),
        (lambda m, x: x + m.c(x) * torch.empty_like(x).bernoulli_(0.8).div_(0.8), Dropout, 1.0),
        (lambda m, x: x + m.c(x) * torch.rand_like(x).add(0.8).floor() / 0.8, Dropout, 1.0),
    ],
)
def test_masks_drawn_by_hand_are_dropout(forward, kind, factor):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), Block(forward, c=nn.Conv2d(4, 4, 1)), nn.Flatten(), nn.Linear(16, 2)
    )
    state = torch.random.get_rng_state()
    graph = trace(model, (3, 1, 4, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    (layer,) = (node.layer for node in graph.nodes if isinstance(node.layer, Dropout))
    assert type(layer) is kind and layer.p == pytest.approx(0.2) and not layer.channelwise
    factors = [node.layer.coefficients[-1] for node in graph.nodes if isinstance(node.layer, Sum)]
    assert math.prod(factors) == pytest.approx(factor)


# --- what is refused, and how ---


class Quiet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(4, 4, 1)

    @torch.no_grad()
    def forward(self, x):
        return self.c(x)


class Fitted(nn.Linear):
    """Ten numbers of whatever vectors come, so that no change of shape before it matters."""

    def forward(self, x):
        return F.linear(F.pad(x, (0, 4096 - x.shape[1])), self.weight, self.bias)


def inside(forward, **parts):
    """A network whose third module is a block with this forward pass, on 4×4 images of four channels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Block(forward, **parts), nn.Flatten(), Fitted(4096, 2)
    )


CONTROL = "module '2' .Block.*dynamic control flow"
REFUSED_INSIDE = {
    "transposed": (lambda m, x: m.up(x), dict(up=nn.ConvTranspose2d(4, 4, 1)),
        "module '2.up' .ConvTranspose2d.*transposed"),
    "lstm": (lambda m, x: m.rnn(x[:, 0])[0], dict(rnn=nn.LSTM(4, 4)), "'getitem' in module '2'"),
    "recurrent": (lambda m, x: m.rnn(x.flatten(2))[0], dict(rnn=nn.LSTM(16, 4)),
        "module '2.rnn' .LSTM.*recurrent"),
    "trilinear": (lambda m, x: F.interpolate(x[:, :, None], scale_factor=2, mode="trilinear")[:, :, 0], {},
        "'upsample_trilinear3d' in module '2'"),
    "einsum": (lambda m, x: torch.einsum("bchw,cd->bdhw", x, torch.ones(4, 4)), {},
        "'einsum' in module '2' .Block."),
    "softmax": (lambda m, x: torch.log_softmax(x, 1), {}, "'log_softmax' in module '2'.*logits"),
    "attention": (lambda m, x: x @ x, {}, "'matmul' in module '2'"),
    "constant weights": (lambda m, x: F.conv2d(x, torch.randn(4, 4, 1, 1)), {}, "random numbers"),
    "fixed weights": (lambda m, x: F.conv2d(x, torch.ones(4, 4, 1, 1)), {},
        "'conv2d' in module '2'.*got none"),
    "length of rows": (lambda m, x: x / x.norm(dim=(1, 2), keepdim=True), {}, "in module '2'"),
    "mixed batch": (lambda m, x: m.c(x.reshape(1, -1, 4, 4)).reshape(len(x), 4, 4, 4),
        dict(c=nn.Conv2d(8, 8, 1)), "module '2.c' .Conv2d."),
    "setitem": (lambda m, x: [x.__setitem__((0, 0), 1.0), x][1], {}, "changed in place"),
    "pad with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), {}, "'pad' in module '2'.*zeros only"),
    "values": (lambda m, x: x if x.sum() > 0 else -x, {}, CONTROL),
    "flow": (lambda m, x: x if x.mean((2, 3)) > 0 else -x, {}, CONTROL),
    "loop": (lambda m, x: next(y for y in x), {}, "module '2' .Block."),
    "item": (lambda m, x: x * float(x.mean((2, 3)).sum()), {}, CONTROL),
    "detach": (lambda m, x: x.detach(), {}, "'detach' in module '2'"),
    "no gradients": (lambda m, x: m.quiet(x), dict(quiet=Quiet()), "module '2.quiet.c' .Conv2d.*no_grad"),
    "data": (lambda m, x: x.data + 0, {}, "uses [.]data"),
    "alpha dropout": (lambda m, x: m.d(x), dict(d=nn.AlphaDropout()),
        "module '2.d' .AlphaDropout.*training"),
    "rrelu": (lambda m, x: m.r(x), dict(r=nn.RReLU()), "module '2.r' .RReLU.*random"),
    "own error": (lambda m, x: x + undefined_name, {},  # noqa: F821 # pyright: ignore
        "module '2' .Block.: forward cannot be traced: NameError"),
    "draws": (lambda m, x: x * torch.rand(()), {}, "random numbers"),
    "drawn number": (lambda m, x: x * float(torch.rand(())), {}, CONTROL),
    "python draws": (lambda m, x: x if random.random() < 2 else -x, {}, "random numbers"),
    "numpy draws": (lambda m, x: x * np.random.rand(), {}, "random numbers"),
    "noise": (lambda m, x: x + torch.randn_like(x), {}, "'randn_like' in module '2'"),
    "batch noise": (lambda m, x: x * torch.empty(1, 1, 1, 1).bernoulli_(0.5), {}, "several inputs at once"),
    "one table for all positions and channels": (
        lambda m, x: x + m.p, dict(p=nn.Parameter(torch.ones(4, 1, 1) + torch.arange(16.0).view(1, 4, 4))),
        "'add' in module '2'"),
    "replicate": (
        lambda m, x: m.c(x), dict(c=nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate")),
        "module '2.c'.*replicate"
    ),
    "layer norm": (lambda m, x: m.n(x), dict(n=nn.LayerNorm(4)), "module '2.n' .LayerNorm."),
    "indices": (
        lambda m, x: m.p(x)[1] * 1.0, dict(p=nn.MaxPool2d(1, return_indices=True)),
        "module '2.p' .MaxPool2d.*return_indices"
    ),
    "twice": (lambda m, x: m.c(m.c(x).relu()), dict(c=nn.Conv2d(4, 4, 1)), "'2.c' .Conv2d.*twice"),
    "twice scaled": (
        lambda m, x: m.c(F.conv2d(x, 2.0 * m.c.weight)), dict(c=nn.Conv2d(4, 4, 1)), "'2.c' .Conv2d.*twice"
    ),
    "unused": (lambda m, x: x, dict(c=nn.Conv2d(4, 4, 1)), "does not depend on the weights of layer '2.c'"),
    "lazy": (lambda m, x: m.c(x), dict(c=nn.LazyConv2d(4, 1)), "2.c"),
    "instance norm": (
        lambda m, x: m.n(x), dict(n=nn.InstanceNorm2d(4, track_running_stats=True).eval()),
        "'2.n' .InstanceNorm2d."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_INSIDE)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_read_is_named_with_its_place(name):
    forward, parts, message = REFUSED_INSIDE[name]
    model = inside(forward, **parts)
    state = torch.random.get_rng_state()
    with pytest.raises(ModelError, match=message) as caught:
        Architecture.from_torch(model, torch.zeros(2, 1, 4, 4))
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_parameters_are_not_changed_by_a_model_that_would():
    model = inside(lambda m, x: [m.n.data.add_(1), x][1], n=nn.Parameter(torch.zeros(1)))
    with pytest.raises(ModelError, match=r"uses [.]data"):
        trace(model, (1, 1, 4, 4))
    assert float(model[2].n.detach()) == 0.0


def test_buffers_are_not_changed_by_a_model_that_counts():
    model = inside(lambda m, x: [m.n.add_(1), x * 2.0][1])
    model[2].register_buffer("n", torch.zeros(1))
    trace(model, (1, 1, 4, 4))
    assert float(model[2].n) == 0.0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2), nn.LogSoftmax(1)),
         "'3' .LogSoftmax.*without it"),
        (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2), nn.Sigmoid()),
         "end with a layer of logits.*'3'"),
        (Model(lambda m, x: (m.a(x), m.a(x)), a=nn.Linear(5, 2)), "one tensor.*tuple of 2"),
        (Model(lambda m, x: (m.a(x), m.b(x)), a=nn.Linear(5, 2), b=nn.Linear(5, 2)),
         "one tensor.*tuple of 2"),
        (Model(lambda m, x: {"scores": m.a(x)}, a=nn.Linear(5, 2)), "one tensor.*dict of 1"),
        (Model(lambda m, x: 3.0, a=nn.Linear(5, 2)), "one tensor of logits, got 3.0"),
        (Model(lambda m, x: m.a(x) + x, a=nn.Linear(5, 5)), "the input between the last weights"),
        (nn.ReLU(), "no Linear or convolution"),
        (nn.Bilinear(2, 2, 2), "the model .Bilinear.*input2"),
        (nn.Embedding(3, 2), "must return logits as vectors"),
    ],
)  # fmt: skip
def test_unusable_models(model, message):
    with pytest.raises(ModelError, match=message) as caught:
        trace(model, (2, 5))
    assert "\n" not in str(caught.value)


class WithProperty(nn.Linear):
    """Weights that are computed each time they are asked for."""

    @property
    def weight(self):
        return 2.0 * self._parameters["weight"]

    @weight.setter
    def weight(self, value):
        self.register_parameter("weight", value)


def test_weights_behind_a_property_are_read_as_they_act():
    layer = nn.Linear(4, 2)
    plain = trace(nn.Sequential(nn.Flatten(), layer), (1, 4)).weight_layers
    layer.__class__ = WithProperty
    (doubled,) = trace(nn.Sequential(nn.Flatten(), layer), (1, 4)).weight_layers
    assert doubled.name == "1" and doubled.sigma_w == pytest.approx(2 * plain[0].sigma_w, rel=1e-6)


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 2)

        def forward(self, x, y):
            return self.a(x) + y

    with pytest.raises(ModelError, match=r"the model .Two.*'y'"):
        trace(Two(), (2, 5))


def test_spatial_outputs_must_be_flattened():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ModelError, match=r"got a tensor of shape \(B, 3, 1, 1\) .*flatten"):
        trace(model, (1, 1, 6, 6))
    assert trace(nn.Sequential(model, nn.Flatten()), (1, 1, 6, 6)).output_shape == Shape(3)


def test_shared_weights_and_backward_hooks_are_refused():
    model = MLP(depth=4, width=12, inputs=12)
    model.hidden[1].weight = model.hidden[0].weight
    with pytest.raises(ModelError, match=r"hidden.1"):
        trace(model, (1, 12))
    model = MLP()
    handle = model.out.weight.register_hook(lambda gradient: 0.0 * gradient)
    with pytest.raises(ModelError, match=r"module 'out' .Linear. has a backward hook"):
        trace(model, (1, 64))
    handle.remove()
    trace(model, (1, 64))


def test_forward_hooks_are_read_as_what_they_do():
    model = MLP().double()
    model.out.register_forward_hook(lambda module, args, out: 2 * out)
    x = torch.randn(4, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(graph_output(trace(model, x), model, x), model(x))


def test_an_example_input_is_asked_for_where_it_is_needed():
    with pytest.raises(ModelError, match=r"example_input is needed: the first layer 'features.0' is Conv2d"):
        trace(PlainCNN())
    with pytest.raises(ModelError, match="example_input must be a batch"):
        trace(PlainCNN(), np.zeros(5))
    with pytest.raises(
        ModelError, match=r"example_input has shape .B, 1, 8, 8., the first layer 'features.0' takes 3"
    ):
        trace(PlainCNN(), np.zeros((1, 1, 8, 8)))
    with pytest.raises(ModelError, match=r"example_input is needed: the first layer 'conv' is Conv2d"):
        trace(Model(lambda m, x: m.fc(m.conv(x).flatten(1)), fc=nn.Linear(24, 2), conv=nn.Conv2d(1, 2, 3)))
    with pytest.raises(ModelError, match="vectors of 24 features were assumed"):
        trace(Model(lambda m, x: m.fc(torch.cat([x, x], 1)), fc=nn.Linear(24, 2)))
    with pytest.raises(ModelError, match=r"module 'conv' .Conv2d.*[kK]ernel size"):
        trace(Model(lambda m, x: m.conv(x).flatten(1), conv=nn.Conv2d(1, 1, 3)), (1, 1, 2, 2))


# --- the law of the weights ---


def law_of(module, shape=None):
    layers = Architecture.from_torch(module, shape).layers
    return layers[0].law


def deep(layer):
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(layer.out_features, 10))


@pytest.mark.parametrize(
    ("initialise", "law"),
    [
        (lambda w: nn.init.normal_(w, std=0.02), "normal"),
        (lambda w: nn.init.kaiming_uniform_(w, a=5**0.5), "uniform"),
        (lambda w: nn.init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04), "truncated"),
        (lambda w: nn.init.trunc_normal_(w, std=0.02), "normal"),
        (lambda w: nn.init.orthogonal_(w, gain=1.4), "orthogonal"),
    ],
)
@pytest.mark.parametrize("size", [(30, 40), (300, 200)])
def test_laws_are_told_apart(initialise, law, size):
    for seed in range(5):
        torch.manual_seed(seed)
        layer = nn.Linear(*size)
        initialise(layer.weight)
        assert law_of(deep(layer)) == law
        assert law_of(deep(layer).double()) == law


def test_convolutions_with_orthogonal_weights():
    conv = nn.Conv2d(8, 16, 3)
    nn.init.orthogonal_(conv.weight, gain=2.0)
    layer = Architecture.from_torch(
        nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)), (1, 8, 6, 6)
    ).layers[0]
    assert layer.law == "orthogonal"
    assert layer.sigma_w == pytest.approx(2.0, rel=1e-6)
    assert law_of(deep(nn.Linear(64, 64)).half()) == "uniform"


def test_small_layers_have_the_law_of_the_whole_model():
    for seed in range(20):
        torch.manual_seed(seed)
        model = DepthwiseSeparable(4)
        assert {layer.law for layer in Architecture.from_torch(model, (1, 3, 8, 8))} == {"uniform"}
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight)
        assert {layer.law for layer in Architecture.from_torch(model, (1, 3, 8, 8))} == {"normal"}


def test_a_single_small_layer_is_normal_where_nothing_says_otherwise():
    torch.manual_seed(0)
    for _ in range(100):
        layer = nn.Linear(3, 2, bias=False)
        nn.init.normal_(layer.weight)
        assert Architecture.from_torch(layer).layers[0].law == "normal"


def test_no_ordinary_initialisation_is_refused():
    """Six sampling errors: small layers, single rows and single columns pass, always."""
    for seed in range(8):
        torch.manual_seed(seed)
        for layer in (nn.Linear(3, 1), nn.Linear(1, 4), nn.Linear(2, 2), nn.Linear(50, 50)):
            for initialise in (nn.init.normal_, nn.init.xavier_uniform_, nn.init.orthogonal_):
                initialise(layer.weight)
                trace(layer, (1, layer.in_features))


def test_scales_are_those_of_the_weights_and_masks_count_as_zero():
    torch.manual_seed(0)
    model = PlainCNN(depth=2, width=20)
    conv = model.features[2]
    layer = trace(model, (1, 3, 6, 6)).weight_layers[1]
    assert layer.sigma_w == pytest.approx(
        math.sqrt(180 * float(conv.weight.detach().double().square().mean())), rel=1e-12
    )
    assert layer.sigma_b == pytest.approx(
        float(conv.bias.detach().double().square().mean()) ** 0.5, rel=1e-12
    )
    nn.utils.prune.l1_unstructured(conv, "weight", amount=0.5)
    pruned = trace(model, (1, 3, 6, 6)).weight_layers[1]
    kept = (conv.weight_orig * conv.weight_mask).detach().double()
    assert pruned.sigma_w == pytest.approx(math.sqrt(180 * float(kept.square().mean())), rel=1e-12)
    # The mask counts from the moment it is set, not from the next forward pass.
    conv.weight_mask.zero_()
    conv.weight_mask[:, :, 1, 1] = 1.0
    assert trace(model, (1, 3, 6, 6)).weight_layers[1].sigma_w < pruned.sigma_w


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.fill_(0.1), "'1.conv' are constant, 0.1 .*mean zero"),
        (lambda w: w.add_(0.1), "'1.conv' have mean 0.09.* mean zero"),
        (lambda w: w.fill_(math.nan), "'1.conv' must be finite"),
        (lambda w: w[0, 0, 0].fill_(math.inf), "'1.conv' must be finite"),
        (lambda w: w.copy_(0.1 * torch.sign(w)), "'1.conv' have kurtosis 1:"),
        (nn.init.dirac_, "'1.conv' are 0 at 8 of 9 taps"),
    ],
)
def test_weights_that_the_theory_cannot_describe_are_refused(change, message):
    torch.manual_seed(0)
    block = Block(lambda m, x: m.conv(x), conv=nn.Conv2d(8, 8, 3))
    model = nn.Sequential(nn.Conv2d(1, 8, 3), block, nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    with torch.no_grad():
        change(block.conv.weight)
    with pytest.raises(ModelError, match=message):
        trace(model, (1, 1, 8, 8))


def test_tiny_and_huge_weights_keep_their_scale():
    for scale in (1e-30, 1e-12, 1e12, 1e18):
        layer = nn.Linear(100, 100)
        nn.init.normal_(layer.weight)
        with torch.no_grad():
            layer.weight.mul_(scale)
        found = trace(layer, (1, 100)).weight_layers[0]
        assert found.sigma_w == pytest.approx(10 * scale, rel=0.05) and found.law == "normal"


def test_groups_count_in_fan_in():
    torch.manual_seed(0)
    depthwise, pointwise = trace(DepthwiseSeparable(40), (1, 3, 8, 8)).weight_layers[1:3]
    assert (depthwise.fan_in, depthwise.fan_out, depthwise.kernel) == (9, 40, (3, 3))
    assert (pointwise.fan_in, pointwise.fan_out) == (40, 80)
    assert depthwise.sigma_w == pytest.approx(3**-0.5, rel=0.15)


def test_built_models_are_read_back():
    import eoc_theory as eoc
    from eoc_theory.networks.builders import resnet

    net = resnet(20, width=4, scaling="stable")
    found = Architecture.from_torch(
        net.to_torch(seed=0), (1, *[net.input_shape.channels, *net.input_shape.space])
    )
    assert found.weight_layers == net.weight_layers
    assert found.graph is not None and net.graph is not None
    assert [n.layer.coefficients for n in found.graph.nodes if isinstance(n.layer, Sum)] == [
        pytest.approx(n.layer.coefficients) for n in net.graph.nodes if isinstance(n.layer, Sum)
    ]
    assert eoc.mlp(3, 10).to_torch()


def test_vgg_layers_and_activations():
    graph = trace(VGG(16).eval(), (1, 3, 32, 32))
    assert len(graph.weight_layers) == 15
    assert [w.name for w in graph.weight_layers][-2:] == ["classifier.1", "classifier.3"]
    assert all(w.activation is not None and w.activation.name == "relu" for w in graph.weight_layers[:-1])
    assert isinstance(graph.nodes[0].layer, Input) and isinstance(graph.nodes[-1].layer, Dense)
    assert GroupNorm not in kinds(graph)
