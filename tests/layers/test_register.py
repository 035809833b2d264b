"""Layers of one's own, registered by a file outside the package, against what real networks keep."""

from __future__ import annotations

import importlib
import math
import sys

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, CallbackError, EOCError, ModelError
from eoc_theory.layers import Convolution, Dense, Dropout, Nonlinearity, Shape, Sum, WeightLayer, register
from eoc_theory.networks.graph import GraphBuilder

torch = pytest.importorskip("torch")
nn = torch.nn

#: What a user writes in a project of their own.
OWN = '''
import torch
from dataclasses import dataclass

import numpy as np
import eoc_theory as eoc
from eoc_theory.layers import Dense, Layer, Sum, WeightLayer


class MyLinear(torch.nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n_out, n_in) * (2 / n_in) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


def dense(module, name, shapes):
    n_out, n_in = module.weight.shape
    return Dense(name, WeightLayer(name, n_in, n_out, 1.0, 0.0))


eoc.register_layer(MyLinear, dense, weights=True)


class Bare(MyLinear):
    """Without a bias; its forward pass is beyond torch.fx."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        del self.bias

    def forward(self, x):
        assert float(x.detach().abs().sum()) >= 0
        return x @ self.weight.T


eoc.register_layer(Bare, dense, weights=True)


class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x.mul(torch.tensor([self.factor], dtype=x.dtype, device=x.device).item())


eoc.register_layer(Scale, lambda module, name, shapes: Sum(name, (module.factor,)))


class FlipSigns(torch.nn.Module):
    """Every other feature times −1."""

    def forward(self, x):
        signs = torch.ones(x.shape[1], dtype=x.dtype, device=x.device)
        signs[1::2] = -1
        return x * signs


@dataclass(frozen=True)
class Flipped(Layer):
    """The same second moments: half of the channels change their signs. A layer type in full."""

    def output_shape(self, *inputs):
        return self.one(inputs)

    def forward_kernel(self, signals, pairs):
        return signals[0], None

    def backward_kernel(self, memory, gradient, pairs):
        return [gradient]

    def forward_values(self, inputs, draw):
        return self._flip(inputs[0]), None

    def backward_values(self, memory, gradient):
        return [self._flip(gradient)]

    def _flip(self, x):
        signs = np.where(np.arange(len(x)) % 2, -1, 1).astype(x.dtype)
        return x * signs.reshape(-1, *(1,) * (x.ndim - 1))

    def build(self, shape):
        return FlipSigns()


eoc.register_layer(FlipSigns, Flipped)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The classes that a file outside the package registers."""
    (tmp_path / "own_layers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(register._KINDS)
    yield importlib.import_module("own_layers")
    register._KINDS.clear()
    register._KINDS.update(before)
    sys.modules.pop("own_layers", None)


@pytest.fixture
def kinds():
    """The register, given back as it was."""
    before = dict(register._KINDS)
    yield
    register._KINDS.clear()
    register._KINDS.update(before)


WIDTH, DEPTH = 32, 6


def network(own, linear, between, seed):
    torch.manual_seed(seed)
    parts = [linear(64, WIDTH), nn.ReLU()]
    for _ in range(DEPTH - 2):
        parts += [linear(WIDTH, WIDTH), *between(), nn.ReLU()]
    return nn.Sequential(*parts, linear(WIDTH, 10))


NETWORKS = {
    "own linear layers": ("MyLinear", lambda own: []),
    "beyond torch.fx": ("Bare", lambda own: []),
    "scaled": ("MyLinear", lambda own: [own.Scale(0.8)]),
    "a layer type in full": ("MyLinear", lambda own: [own.FlipSigns()]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("criterion", ["snip", "grasp", "magnitude", "synflow-oneshot", "synflow(rounds=5)"])
def test_own_layers_are_predicted_and_measured(own, name, criterion):
    linear, between = NETWORKS[name]
    data = eoc.digits(n=60)
    models = [network(own, getattr(own, linear), lambda: between(own), seed) for seed in range(10)]
    net = eoc.Architecture.from_torch(models[0], (2, 64))
    predicted = eoc.predict_pruning(net, 0.8, criterion=criterion, data=data)
    measured = [
        eoc.measure_pruning(m, 0.8, criterion=criterion, data=data, masks=False, device="cpu") for m in models
    ]
    assert predicted.layers == measured[0].layers and len(predicted.layers) == DEPTH
    assert np.abs(predicted.kept - np.mean([m.kept for m in measured], axis=0)).mean() < 0.03


def test_own_linear_layers_are_read_as_torchs_are(own):
    """Same weights, same architecture, whatever the class is called."""
    model = network(own, own.MyLinear, lambda: [own.Scale(0.5)], 0)
    plain = nn.Sequential(
        *(nn.Linear(m.weight.shape[1], len(m.weight)) if isinstance(m, own.MyLinear) else m for m in model)
    )
    plain.load_state_dict(model.state_dict())
    assert eoc.Architecture.from_torch(model) == eoc.Architecture.from_torch(plain)
    one, other = (eoc.diagnose(m, criterion="magnitude") for m in (model, plain))
    assert one.to_frame().equals(other.to_frame())


def test_own_layers_become_torch_modules(own):
    """A layer type of one's own builds itself; one of the library's is torch's own module."""
    model = network(own, own.MyLinear, lambda: [own.FlipSigns()], 0)
    net = eoc.Architecture.from_torch(model)
    built = net.to_torch(1)
    flips = [m for m in built.modules() if isinstance(m, own.FlipSigns)]
    assert len(flips) == DEPTH - 2 and sum(isinstance(m, nn.Linear) for m in built.modules()) == DEPTH
    again = eoc.Architecture.from_torch(built, (2, 64))
    kinds = [[type(node.layer) for node in n.as_graph().nodes] for n in (net, again)]
    assert kinds[0] == kinds[1]
    x = torch.randn(4, 64)
    state = dict(zip(model.state_dict(), built.state_dict().values(), strict=True))
    model.load_state_dict(state)
    assert torch.allclose(model(x), built(x), atol=1e-6)


@pytest.mark.parametrize("linear", ["MyLinear", "Bare"])
def test_own_layers_are_initialised_pruned_and_rescaled(own, linear):
    model = network(own, getattr(own, linear), list, 0)
    eoc.initialize_(model, seed=1)
    scales = [
        float(m.weight.detach().std()) * math.sqrt(m.weight.shape[1]) for m in model if hasattr(m, "weight")
    ]
    assert np.allclose(scales, math.sqrt(2.0), rtol=0.12)
    measured = eoc.measure_pruning(model, 0.8, criterion="magnitude", device="cpu")
    eoc.prune_(model, measured.masks)
    kept = [float((m.weight != 0).double().mean()) for m in model if hasattr(m, "weight")]
    assert np.allclose(kept, measured.kept)
    rescaled = eoc.rescale_(model)
    assert all(factor > 1 for factor in np.ravel(list(rescaled.factors)))


def test_a_subclass_with_another_forward_pass_is_traced(own):
    """Registered is what the class computes, not what its subclasses do."""

    class Twice(own.Scale):
        def forward(self, x):
            return 2.0 * self.factor * x

    model = nn.Sequential(nn.Linear(8, 8), Twice(0.5), nn.ReLU(), nn.Linear(8, 3))
    sums = [n.layer for n in eoc.Architecture.from_torch(model).as_graph().nodes if isinstance(n.layer, Sum)]
    assert math.prod(layer.coefficients[0] for layer in sums) == pytest.approx(1.0)


class Mine(nn.Module):
    """Something to register."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return x @ self.weight.T


@pytest.mark.parametrize(
    ("module", "layer", "options", "said"),
    [
        (3, Dense, {}, "module must be a subclass of torch.nn.Module, got 3"),
        (Mine(), Dense, {}, "module must be a subclass"),
        (dict, Dense, {}, "module must be a subclass"),
        (nn.Linear, Dense, {}, "a class of your own, got torch's Linear"),
        (Mine, 7, {}, r"a function of \(module, name, shapes\), got 7"),
        (Mine, nn.Linear, {}, "got the class Linear"),
        (Mine, Dense, {"weights": 2}, "weights must be True or False, got 2"),
    ],
)
def test_what_cannot_be_registered(kinds, module, layer, options, said):
    before = dict(register._KINDS)
    with pytest.raises(ArgumentError, match=said) as caught:
        eoc.register_layer(module, layer, **options)
    assert "\n" not in str(caught.value) and register._KINDS == before


class Undeclared(Sum):
    """Not a dataclass of its own."""


def dense(name, n_in=8, n_out=8):
    return Dense(name, WeightLayer(name, n_in, n_out, 1.0, 0.0))


@pytest.mark.parametrize(
    ("layer", "weights", "said"),
    [
        (lambda m, n, s: None, True, "must return an eoc_theory.layers.Layer, got None"),
        (lambda m, n, s: Sum(n, (1.0,)), True, "has no weights: register it with weights=False"),
        (lambda m, n, s: dense("other"), True, "must have the name '1', got 'other'"),
        (lambda m, n, s: dense(n, 8, 9), True, r"weight of shape \(8, 8\).*one of shape \(9, 8\)"),
        (lambda m, n, s: dense(n, 7, 8), True, "takes vectors of 7 features"),
        (lambda m, n, s: Sum(n, (1.0, 2.0)), False, "takes 2 inputs"),
        (lambda m, n, s: Undeclared(n, (1.0,)), False, "must return a dataclass, and Undeclared is none"),
        (lambda m, n, s: m.missing, True, "AttributeError"),
        (lambda m: dense("1"), True, "TypeError"),
        (Dense, True, "TypeError"),
    ],
)
def test_registrations_that_do_not_fit_are_told_in_one_line(kinds, layer, weights, said):
    eoc.register_layer(Mine, layer, weights=weights)
    model = nn.Sequential(nn.Linear(8, 8), Mine(), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(EOCError, match=said) as caught:
        eoc.Architecture.from_torch(model)
    assert isinstance(caught.value, (ModelError, CallbackError)) and "\n" not in str(caught.value)


def test_weights_that_are_not_declared_are_told(kinds):
    eoc.register_layer(Mine, lambda m, n, s: dense(n))
    model = nn.Sequential(nn.Linear(8, 8), Mine(), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ModelError, match="has weights: register it with weights=True"):
        eoc.Architecture.from_torch(model)


def test_registering_again_replaces(kinds):
    for factor in (2.0, 3.0):
        eoc.register_layer(Mine, lambda m, n, s, factor=factor: Sum(n, (factor,)))
    model = nn.Sequential(nn.Linear(8, 8), Mine(), nn.ReLU(), nn.Linear(8, 3))
    layers = [node.layer for node in eoc.Architecture.from_torch(model).as_graph().nodes]
    assert Sum("1", (3.0,)) in layers


def test_a_layer_without_a_torch_form_is_refused_by_name():
    from eoc_theory.layers.elementwise import Dropout as Base

    class Odd(Base):
        def build(self, shape):
            return super(Dropout, self).build(shape)

    build = GraphBuilder(Shape(4))
    build.add(dense("a", 4, 4))
    build.add(Nonlinearity("phi", eoc.activation("relu")))
    build.add(Odd("odd", 0.5))
    build.add(dense("b", 4, 2))
    with pytest.raises(ModelError, match=r"'odd' .* has no torch form"):
        eoc.Architecture.from_graph(build.build()).to_torch()


def test_importing_the_register_needs_no_torch():
    import subprocess

    code = "import sys, eoc_theory as eoc; eoc.register_layer; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_convolution_that_gives_the_logits_keeps_their_number_when_narrowed():
    from eoc_theory.layers import Flatten
    from eoc_theory.networks.narrow import narrowed

    build = GraphBuilder(Shape(3, (1, 1)))
    one = ((1, 1), ((0, 0), (0, 0)), (1, 1))
    build.add(Convolution("a", WeightLayer("a", 3, 256, 1.0, 0.0, kernel=(1, 1)), *one))
    build.add(Nonlinearity("phi", eoc.activation("relu")))
    build.add(Convolution("b", WeightLayer("b", 256, 10, 1.0, 0.0, kernel=(1, 1)), *one))
    build.add(Flatten("flat"))
    narrow = narrowed(build.build(), 0.5)
    assert [layer.fan_out for layer in narrow.weight_layers] == [128, 10]


@pytest.mark.parametrize("by", ["weights", "signal"])
def test_modules_without_biases_are_rescaled_and_diagnosed(own, by):
    """Modules of one's own may have no attribute `bias` at all."""
    data = eoc.digits(n=40)
    model = network(own, own.Bare, list, 0)
    eoc.prune_(model, eoc.measure_pruning(model, 0.5, criterion="magnitude", device="cpu").masks)
    with torch.no_grad():
        for module in model:
            if isinstance(module, own.Bare):
                module.weight_orig.mul_(0.5)
    before = model(torch.as_tensor(data[0], dtype=torch.float32)).std()
    eoc.rescale_(model, by=by, data=data if by == "signal" else None)
    assert model(torch.as_tensor(data[0], dtype=torch.float32)).std() > before
    assert eoc.diagnose(model, data=data, criterion="magnitude").layers == tuple("0 2 4 6 8 10".split())
