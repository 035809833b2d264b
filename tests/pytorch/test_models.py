"""Networks built from a description, read back, and set to the edge of chaos."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.errors import ArgumentError, ModelError  # noqa: E402
from eoc_theory.mean_field.edge_of_chaos import edge_of_chaos  # noqa: E402
from eoc_theory.networks.architecture import Architecture, WeightLayer, mlp  # noqa: E402
from eoc_theory.pruning.prediction import predict_pruning  # noqa: E402
from eoc_theory.pytorch.initialize import initialize_  # noqa: E402
from eoc_theory.pytorch.measure.measure import measure_pruning  # noqa: E402
from eoc_theory.pytorch.models import build_model  # noqa: E402
from eoc_theory.pytorch.prune import prune_  # noqa: E402


def test_a_built_model_follows_the_description_and_the_seed():
    net = mlp(4, 300, activation="tanh", in_features=20, out_features=7, init=(1.5, 0.3))
    state = torch.random.get_rng_state()
    model = net.to_torch(seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    names = [f"layers.{i}.{p}" for i in range(4) for p in ("weight", "bias")]
    assert [name for name, _ in model.named_parameters()] == names
    assert [type(m) for m in model.layers][1::2] == [nn.Tanh] * 3
    weight, bias = model.layers[2].weight, model.layers[2].bias
    assert float(weight.std()) == pytest.approx(1.5 / 300**0.5, rel=0.01)
    assert float(bias.std()) == pytest.approx(0.3, rel=0.15)
    again, other = net.to_torch(seed=5), net.to_torch(seed=6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(weight, other.layers[2].weight)
    assert model(torch.zeros(3, 20)).shape == (3, 7)


def test_uniform_weights_are_bounded_and_zero_biases_are_there():
    net = mlp(3, 200, activation="relu", init=(2**0.5, 0.0), law="uniform")
    model = net.to_torch(seed=0)
    weight = model.get_submodule("layers.1").weight
    assert float(weight.abs().max()) <= (6 / 200) ** 0.5
    assert float(weight.std()) == pytest.approx((2 / 200) ** 0.5, rel=0.01)
    assert float(model.get_submodule("layers.1").bias.abs().max()) == 0


@pytest.mark.parametrize("law", ["normal", "uniform"])
@pytest.mark.parametrize("act", ["tanh", "relu", "gelu", "leaky_relu(0.2)", "elu(0.7)"])
def test_reading_back_what_was_built(law, act):
    net = mlp(4, 150, activation=act, init=(1.4, 0.25), law=law)
    model = net.to_torch(seed=1)
    found = Architecture.from_torch(model, np.zeros((3, 64)))
    assert found.weight_layers == net.weight_layers
    x = np.linspace(-2, 2, 9)
    for layer, right in zip(found, net, strict=True):
        assert (layer.fan_in, layer.fan_out, layer.law) == (right.fan_in, right.fan_out, right.law)
        assert layer.sigma_w == pytest.approx(1.4, rel=0.08)
        assert layer.sigma_b == pytest.approx(0.25, rel=0.6)
        assert (layer.activation is None) == (right.activation is None)
        if layer.activation is not None:
            np.testing.assert_allclose(layer.activation(x), right.activation(x), rtol=1e-12, atol=1e-15)


def test_torch_defaults_are_read_as_uniform_in_the_ordered_phase():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    net = Architecture.from_torch(model, torch.zeros(5, 8, 8))
    assert net.weight_layers == ("1", "3", "5")
    for layer in net:
        assert layer.law == "uniform"
        assert layer.sigma_w == pytest.approx((1 / 3) ** 0.5, rel=0.05)
        assert layer.sigma_b == pytest.approx((1 / (3 * layer.fan_in)) ** 0.5, rel=0.35)


def test_adjacent_linear_layers_have_the_identity_between_them():
    net = Architecture.from_torch(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    assert net.layers[0].activation is not None
    assert net.layers[0].activation(np.array([1.5])) == 1.5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU()), "end with"),
        (nn.Sequential(nn.ReLU(), nn.Linear(4, 5)), "before the first"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), "Conv2d"),
        (nn.TransformerEncoderLayer(8, 2), "MultiheadAttention"),
        (nn.Sequential(nn.ReLU()), "Linear|weight layer"),
    ],
)
def test_unreadable_models_are_named(model, message):
    with pytest.raises(ModelError, match=message) as caught:
        Architecture.from_torch(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_an_activation_of_a_dropped_out_activation_is_read(training):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 150),
        nn.ReLU(),
        nn.Dropout(),
        nn.Tanh(),
        nn.Linear(150, 150),
        nn.ReLU(),
        nn.Linear(150, 5),
    ).train(training)
    data = np.random.default_rng(0).standard_normal((40, 20)), np.arange(40) % 5
    theory, sampled = (
        predict_pruning(model, 0.8, data=data, method=method) for method in ("theory", "sampled")
    )
    assert np.abs(theory.kept - sampled.kept).max() < 0.04


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2)), "layer '1' is not initialised"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, device="meta")), "'1' .*the meta device"),
    ],
)
@pytest.mark.parametrize("criterion", ["snip", "magnitude", "synflow", "random"])
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_weights_without_values_are_named(make, message, criterion):
    data = (np.zeros((2, 4)), np.array([0, 1]))
    with pytest.raises(ModelError, match=message):
        measure_pruning(make(), 0.5, criterion=criterion, data=data)
    with pytest.raises(ModelError, match=message):
        prune_(make(), {"0": np.ones((4, 4))})


def test_an_example_input_that_does_not_fit_is_an_error():
    with pytest.raises(ModelError, match="example_input"):
        Architecture.from_torch(nn.Linear(4, 3), np.zeros((2, 5)))


def test_layer_names_that_no_sequential_has_are_errors():
    layers = [WeightLayer(name, 4, 4, 1.0, 0.0, None) for name in ("a.0", "b.0")]
    with pytest.raises(ModelError, match="names"):
        build_model(layers)


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_initialising_puts_a_model_on_the_edge_of_chaos(law):
    model = nn.Sequential(nn.Linear(64, 400), nn.Tanh(), nn.Linear(400, 400), nn.ELU(), nn.Linear(400, 10))
    assert initialize_(model, sigma_b=0.2, law=law, seed=1) is model
    tanh, elu = (edge_of_chaos(name, sigma_b=0.2).sigma_w for name in ("tanh", "elu"))
    found = Architecture.from_torch(model)
    np.testing.assert_allclose([layer.sigma_w for layer in found], [tanh, elu, elu], rtol=0.04)
    assert {layer.law for layer in found} == {law}
    assert found.layers[1].sigma_b == pytest.approx(0.2, rel=0.15)
    first = [p.clone() for p in model.parameters()]
    initialize_(model, sigma_b=0.2, law=law, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, model.parameters(), strict=True))


def test_relu_is_initialised_as_he_et_al():
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    torch.manual_seed(0)
    initialize_(model)
    for layer in Architecture.from_torch(model):
        assert layer.sigma_w == pytest.approx(2**0.5, rel=0.05)
        assert layer.sigma_b == 0


def test_initialising_refuses_what_it_cannot_do_and_leaves_the_model():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ArgumentError, match="law"):
        initialize_(model, law="cauchy")
    with pytest.raises(ArgumentError, match="sigma_b"):
        initialize_(model, sigma_b=-1)
    with pytest.raises(ModelError, match="activation"):
        initialize_(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
