"""Rescaling by the signal: what each layer gives is what it gave before pruning, whatever the mask."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ArgumentError, DataError, EmptyLayerError, ModelError  # noqa: E402
from paper_checks.pruned_networks import Chain  # noqa: E402

IMAGES = eoc.digits_images(20, (1, 8, 8))


def seen(model, inputs, look, whole=False):
    """`look` of every layer and its output, by names; `whole` with what was removed still there."""
    found, hooks = {}, []
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))}
    masks = {n: m.weight_mask.clone() for n, m in layers.items() if hasattr(m, "weight_mask")}
    for name, layer in layers.items():
        hooks.append(
            layer.register_forward_hook(lambda m, _, y, name=name: found.__setitem__(name, look(m, y)))
        )
        if whole and name in masks:
            layer.weight_mask.fill_(1.0)
    with torch.no_grad():
        model(torch.as_tensor(inputs, dtype=torch.float32))
    for hook in hooks:
        hook.remove()
    for name, mask in masks.items() if whole else ():
        layers[name].weight_mask.copy_(mask)
    return found


def signals(model, inputs, whole=False):
    """Mean square of every layer's output without its bias; `whole` with what was removed still there."""

    def strength(module, output):
        bias = torch.zeros(output.shape[1]) if module.bias is None else module.bias
        axes = (1,) * (output.ndim - 2)
        return float((output - bias.view(1, -1, *axes)).double().square().mean())

    return seen(model, inputs, strength, whole)


def outputs(model, inputs, whole=False):
    """What every layer gives, (units, …); `whole` with what was removed still there."""

    def by_unit(module, output):
        return output.double().movedim(-1 if isinstance(module, nn.Linear) else 1, 0).flatten(1)

    return seen(model, inputs, by_unit, whole)


def pruned(net, sparsity=0.8, data=IMAGES, **options):
    model = net.to_torch(0)
    masks = eoc.measure_pruning(model, sparsity, data=data, collapse=False, device="cpu", **options).masks
    return eoc.prune_(model, masks)


MODELS = {
    "mlp": lambda: eoc.mlp(5, 40, activation="tanh", in_features=64),
    "cnn": lambda: eoc.cnn(4, 8, activation="relu", input_shape=(1, 8, 8)),
    "resnet": lambda: eoc.resnet(8, width=4, normalisation=None, input_shape=(1, 8, 8)),
    "normalised": lambda: eoc.resnet(8, width=4, input_shape=(1, 8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_gives_what_it_gave_before_pruning(name):
    net = MODELS[name]()
    inputs = IMAGES[0].reshape(len(IMAGES[0]), -1) if name == "mlp" else IMAGES[0]
    model = pruned(net)
    wanted, before = signals(model, inputs, whole=True), signals(model, inputs)
    # Running statistics have moved; that a rescaling moves them must be seen.
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    biases = {k: v.detach().clone() for k, v in model.named_parameters() if k.endswith("bias")}
    state, gradients = torch.random.get_rng_state(), [p.grad for p in model.parameters()]
    report = eoc.rescale_(model, by="signal", data=IMAGES)
    assert torch.equal(torch.random.get_rng_state(), state) and gradients == [None] * len(gradients)
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert all(torch.equal(v, biases[k]) for k, v in model.named_parameters() if k.endswith("bias"))
    found = signals(model, inputs)
    assert set(found) == set(report.layers)
    for layer in report.layers:
        assert found[layer] == pytest.approx(wanted[layer], rel=1e-4)
    # It had something to do, in most layers.
    assert sum(before[layer] < 0.8 * wanted[layer] for layer in report.layers) > len(report.layers) / 2
    np.testing.assert_allclose(report.factors, report.sigma_w_after / report.sigma_w_before)
    np.testing.assert_allclose(eoc.rescale_(model, by="signal", data=IMAGES).factors, 1.0, rtol=1e-4)


def test_removed_weights_stay_removed_and_kept_ones_share_a_factor():
    model = pruned(MODELS["cnn"]())
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    report = eoc.rescale_(model, by="signal", data=IMAGES[0])
    for name, factor in zip(report.layers, report.factors, strict=True):
        torch.testing.assert_close(layers[name].weight.detach(), before[name] * float(factor))
        assert not layers[name].weight_orig[layers[name].weight_mask == 0].any()
    assert (report.factors != 1).all()


def test_relu_networks_pruned_by_snip_are_critical_again():
    """The paper's factor sends their gradients up by e to the power of more than 1 a layer."""
    net, data = eoc.mlp(40, 100, activation="relu"), eoc.digits(100)
    act = net.layers[0].activation
    exponents = {}
    for by in ("weights", "signal"):
        model = pruned(net, 0.9, data)
        eoc.rescale_(model, by=by, data=data if by == "signal" else None)
        exponents[by] = Chain.of_model(model, act).gradient_exponent(data)
    assert exponents["weights"] > 1.0
    assert abs(exponents["signal"]) < 0.1


def test_factors_are_those_of_the_paper_check():
    net, data = eoc.mlp(8, 60, activation="relu"), eoc.digits(50)
    act = net.layers[0].activation
    assert act is not None
    full = Chain.of_model(net.to_torch(0), act)
    model = pruned(net, 0.9, data)
    wanted = Chain.of_model(model, act).with_signal_of(full, data[0])
    eoc.rescale_(model, by="signal", data=data)
    found = Chain.of_model(model, act)
    for one, other in zip(found.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-8)


def test_the_same_as_rescaling_by_weights_where_the_mask_knows_nothing():
    net, data = eoc.mlp(6, 400, activation="tanh"), eoc.digits(50)
    factors = [
        eoc.rescale_(pruned(net, 0.7, data, criterion="random"), by=by, data=given).factors
        for by, given in (("weights", None), ("signal", data))
    ]
    # The last layer has few units.
    np.testing.assert_allclose(factors[0][:-1], factors[1][:-1], rtol=0.06)


def test_layers_without_a_mask_follow_the_others():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 4))
    eoc.prune_(model, {"2": np.random.default_rng(0).random((50, 50)) < 0.2})
    report = eoc.rescale_(model, by="signal", data=eoc.digits(30))
    assert report.factors[0] == pytest.approx(1.0, abs=1e-12)
    assert 1.5 < report.factors[1] < 3.5 and report.factors[2] == pytest.approx(1.0, abs=0.3)


def test_images_for_linear_layers_are_flattened():
    net = MODELS["mlp"]()
    flat = IMAGES[0].reshape(-1, 64)
    factors = [
        eoc.rescale_(pruned(net, data=(flat, IMAGES[1])), by="signal", data=given).factors
        for given in (IMAGES[0], flat, torch.as_tensor(flat), (IMAGES[0], IMAGES[1]))
    ]
    for other in factors[1:]:
        np.testing.assert_array_equal(other, factors[0])


def test_dropout_draws_the_same_in_both_passes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 4))
    eoc.prune_(model, {"0": np.random.default_rng(0).random((50, 64)) < 0.5})
    first = eoc.rescale_(model, by="signal", data=eoc.digits(10)).factors
    second = eoc.rescale_(model, by="signal", data=eoc.digits(10)).factors
    assert first[0] > 1.2
    np.testing.assert_allclose(second, 1.0, rtol=1e-5)


def without_signal():
    """What the first layer keeps feeds only units that the second layer does not listen to."""
    model = nn.Sequential(nn.Linear(64, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    first, second = np.zeros((4, 64), dtype=bool), np.zeros((3, 4), dtype=bool)
    first[0], second[:, 1] = True, True
    return eoc.prune_(model, {"0": first, "2": second})


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        # The axes of one unit's weights, once groups stand on an axis of their own.
        (lambda: nn.Linear(8, 12), (2,)),
        (lambda: nn.Conv2d(8, 12, 3, padding=1), (2, 3, 4)),
        (lambda: nn.Conv2d(8, 12, 3, padding=1, groups=4), (2, 3, 4)),
        (lambda: nn.ConvTranspose2d(8, 12, 3, padding=1, groups=2), (1, 3, 4)),
    ],
)
def test_by_the_units_each_that_keeps_weights_has_the_scale_of_one_before_pruning(layer, axes):
    torch.manual_seed(0)
    middle = layer()
    image = middle.weight.ndim == 4
    ends = (nn.Conv2d(8, 8, 1), nn.Conv2d(12, 4, 1)) if image else (nn.Linear(8, 8), nn.Linear(12, 4))
    model = nn.Sequential(ends[0], nn.ReLU(), middle, nn.ReLU(), ends[1])
    full = float(middle.weight.detach().square().mean())
    # Few weights in one unit, many in another; and none in the first.
    grouped = torch.rand(
        getattr(middle, "groups", 1),
        len(middle.weight) // getattr(middle, "groups", 1),
        *middle.weight.shape[1:],
    )
    units = 2 if getattr(middle, "transposed", False) else 1
    density = torch.linspace(0.2, 0.9, grouped.shape[units]).view(-1, *(1,) * (grouped.ndim - units - 1))
    kept = grouped < density
    kept.select(units, 0)[0] = False
    eoc.prune_(model, {"2": kept.view_as(middle.weight)})
    found = eoc.rescale_(model, by="units", example_input=(2, 8, 5, 5) if image else None)
    squares = middle.weight.detach().view_as(grouped).square()
    of_units = squares.sum(dim=axes)
    assert float(of_units[0, 0]) == 0.0
    alive = of_units[of_units > 0]
    assert len(alive) == of_units.numel() - 1
    # Units that are gone leave their part to no other.
    one = torch.tensor(full * grouped.numel() / of_units.numel())
    torch.testing.assert_close(alive, one.expand_as(alive), rtol=1e-5, atol=0.0)
    assert found.factors[1] == pytest.approx(found.sigma_w_after[1] / found.sigma_w_before[1])
    weight = middle.weight.detach().clone()
    eoc.rescale_(model, by="units", example_input=(2, 8, 5, 5) if image else None)
    torch.testing.assert_close(middle.weight.detach(), weight)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"by": "gradient"},
            ArgumentError,
            "by must be one of 'weights', 'units', 'signal', 'moments', got 'gradient'",
        ),
        ({"data": IMAGES[0]}, ArgumentError, "data goes with by='signal'"),
        ({"by": "units", "data": IMAGES[0]}, ArgumentError, "got data with by='units'"),
        (
            {"by": "signal", "data": IMAGES[0], "sigma_w": 1.0},
            ArgumentError,
            "sigma_w goes with by='weights' and 'units'",
        ),
        (
            {"by": "moments", "data": IMAGES[0], "sigma_w": 1.0},
            ArgumentError,
            "sigma_w goes with by='weights' and 'units', got 1.0 with by='moments'",
        ),
        ({"by": "moments"}, DataError, "data must be inputs (n, …) or (inputs, targets) for by='moments'"),
        ({"by": "signal"}, DataError, "data must be inputs (n, …) or (inputs, targets)"),
        ({"by": "signal", "data": np.ones(3)}, DataError, "got shape (3,)"),
        ({"by": "signal", "data": np.full((2, 64), np.nan)}, DataError, "got nan or inf"),
        ({"by": "signal", "data": np.ones((2, 64), dtype=complex)}, DataError, "data must hold real inputs"),
        ({"by": "signal", "data": np.ones((2, 63))}, DataError, "data must be inputs that the model takes"),
    ],
)
def test_errors_leave_the_model_as_it_was(options, error, message):
    model = pruned(MODELS["mlp"]())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    with pytest.raises(error, match=re.escape(message)):
        eoc.rescale_(model, **options)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    now = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    assert all(one is other for one, other in zip(weights, now, strict=True))
    assert not any(m._forward_hooks for m in model.modules())


def grouped():
    torch.manual_seed(0)
    stack = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU()]
    stack += [nn.Conv2d(12, 6, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(54, 10)]
    return nn.Sequential(*stack)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "grouped"])
def test_by_the_moments_each_unit_has_mean_0_and_the_mean_square_from_before(name):
    model = grouped() if name == "grouped" else MODELS[name]().to_torch(0)
    inputs = IMAGES[0].reshape(len(IMAGES[0]), -1) if name == "mlp" else IMAGES[0]
    masks = eoc.measure_pruning(model, 0.7, data=(inputs, IMAGES[1]), collapse=False, device="cpu").masks
    eoc.prune_(model, masks)
    wanted = {k: float(y.square().mean()) for k, y in outputs(model, inputs, whole=True).items()}
    state = torch.random.get_rng_state()
    report = eoc.rescale_(model, by="moments", data=inputs)
    assert torch.equal(torch.random.get_rng_state(), state)
    heard = 0
    for layer, y in outputs(model, inputs).items():
        module = model.get_submodule(layer)
        assert not module.weight_orig[module.weight_mask == 0].any()
        if module.bias is None:  # what comes through keeps its mean
            assert float(y.square().mean()) <= wanted[layer] * (1 + 1e-3)
            continue
        units = y.square().mean(dim=1)
        live = y.var(dim=1) > 1e-6 * wanted[layer]
        heard += int(live.sum())
        assert y.mean(dim=1)[live].abs().max() < 1e-3 * wanted[layer] ** 0.5
        np.testing.assert_allclose(units[live], wanted[layer], rtol=2e-3)
    assert heard > 10
    np.testing.assert_allclose(report.factors, report.sigma_w_after / report.sigma_w_before, rtol=1e-5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    eoc.rescale_(model, by="moments", data=inputs)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=2e-3, atol=1e-4)


def test_by_the_moments_normalised_layers_are_left_to_their_normalisation():
    models = [pruned(MODELS["normalised"]()) for _ in range(2)]
    eoc.rescale_(models[0], by="moments", data=IMAGES)
    eoc.rescale_(models[1], by="weights", example_input=IMAGES[0].shape)
    for one, other in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        if "fc" not in one[0]:
            assert torch.equal(one[1], other[1]), one[0]


def test_deep_convolutions_tell_inputs_apart_after_their_moments_are_set():
    net, data = eoc.cnn(8, 16, activation="relu", input_shape=(1, 8, 8)), IMAGES
    alike = {}
    for by in ("units", "moments"):
        model = pruned(net, 0.9, data, criterion="synflow")
        eoc.rescale_(model, by=by, **({"data": data} if by == "moments" else {"example_input": (2, 1, 8, 8)}))
        seen = eoc.trainability(model, data=data, inputs=16, device="cpu")
        alike[by] = seen.kernel_condition
    assert alike["moments"] < 0.2 * alike["units"]


def test_a_layer_without_signal_is_named():
    model = without_signal()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(EmptyLayerError, match="layer '2' passes no finite signal"):
        eoc.rescale_(model, by="signal", data=eoc.digits(10))
    with pytest.raises(EmptyLayerError, match="layer '2' passes no finite signal that depends on the inputs"):
        eoc.rescale_(model, by="moments", data=eoc.digits(10))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    eoc.rescale_(model)  # each layer has weights left, and that is all the paper's factor asks


def test_a_model_that_is_not_pruned_is_refused():
    with pytest.raises(ModelError, match="prune it first"):
        eoc.rescale_(MODELS["mlp"]().to_torch(0), by="signal", data=IMAGES)


@pytest.mark.parametrize("by", ["weights", "signal"])
def test_layers_that_share_their_weights_are_named(by):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    model[2].weight = model[0].weight
    eoc.prune_(model, {"4": np.random.default_rng(0).random((4, 64)) < 0.5})
    with pytest.raises(ModelError, match="layer '2' shares its weights with another"):
        eoc.rescale_(model, by=by, data=eoc.digits(10) if by == "signal" else None)


def test_models_that_cannot_be_read_are_rescaled_too():
    """Of a recurrent layer by its weights, of layers with an output of their own by the signal."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 12, batch_first=True), nn.Linear(12, 4)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    x, y = torch.randn(40, 5, 6), torch.arange(40) % 4
    for by in ("weights", "signal"):
        model = Recurrent()
        eoc.prune_(model, eoc.measure_pruning(model, 0.5, data=(x, y)).masks)
        masked = {
            name: getattr(model.lstm, name).detach().clone() for name in ("weight_ih_l0", "weight_hh_l0")
        }
        found = eoc.rescale_(model, by=by, **({"data": x} if by == "signal" else {}))
        assert found.layers == ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "head")
        assert np.isnan(found.chi_after).all()
        model(x)
        for factor, (name, before) in zip(found.factors[:2], masked.items(), strict=True):
            original = getattr(model.lstm, f"{name}_orig") / factor
            assert torch.allclose(getattr(model.lstm, name), before * factor, atol=1e-6)
            assert float(original.square().sum()) == pytest.approx(float(before.square().sum()), rel=1e-5)
        if by == "weights":
            wanted = [1 / np.sqrt(before.square().mean() * 3 * 12) for before in masked.values()]
            assert found.factors[:2] == pytest.approx(
                [float(w) for w in wanted], rel=0.1
            )  # uniform on ±1/√12


def test_a_model_without_parameters_is_refused():
    for model in (nn.Sequential(), nn.Sequential(nn.ReLU())):
        with pytest.raises(ModelError, match="no Linear or convolution layer"):
            eoc.rescale_(model, example_input=torch.zeros(2, 8))
