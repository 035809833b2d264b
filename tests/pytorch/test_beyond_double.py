"""Scores of models that are no plain chains, where double precision does not hold them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ModelError  # noqa: E402


class Own(nn.Module):
    """A chain with a forward pass of its own, so that it is not known to be one."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x) * 1.0


def chain(depth, factor, *, bias=False, width=12):
    """ReLU layers in double precision whose signal changes by about `factor`/√6 a layer."""
    torch.manual_seed(depth)
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=bias), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 5, bias=bias)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


def data(size=20, width=12):
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((size, width)))
    return inputs, torch.arange(size) % 5


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize(("depth", "factor"), [(60, 1e-4), (200, 0.15), (234, 0.15), (20, 1.0)])
def test_faint_scores_are_those_of_the_same_chain(depth, factor, criterion):
    model = chain(depth, factor, width=30)
    batch = data(width=30)
    carried = eoc.measure_pruning(model, 0.9, data=batch, criterion=criterion)
    raised = eoc.measure_pruning(Own(model), 0.9, data=batch, criterion=criterion)
    assert raised.kept == pytest.approx(carried.kept, abs=1e-3)
    moments = [m - m[-1] for m in (raised.log_score_moments, carried.log_score_moments)]
    assert moments[0] == pytest.approx(moments[1], abs=1e-6)


@pytest.mark.parametrize("depth", [300, 500])
def test_a_signal_below_the_range_is_told_by_its_layer(depth):
    with pytest.raises(ModelError, match=r"the signal falls under 1e-300 at layer 'body\.\d+'"):
        eoc.measure_pruning(Own(chain(depth, 0.1, width=30)), 0.9, data=data(width=30))


def test_a_network_that_is_dead_is_called_dead():
    model = Own(chain(3, 1.0))
    with torch.no_grad():
        model.body[0].weight.copy_(-model.body[0].weight.abs())
    inputs, targets = data()
    with pytest.raises(ModelError, match=r"nothing to rank.*no gradient reaches"):
        eoc.measure_pruning(model, 0.9, data=(inputs.abs(), targets))


def test_gradients_that_cancel_are_noted_and_warn_nobody():
    torch.manual_seed(0)
    layers = []
    for _ in range(40):
        layers += [nn.Linear(12, 12), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(12, 5))
    with torch.no_grad():
        model[-1].weight.mul_(1e-6)
        model[-1].bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = eoc.measure_pruning(model, 0.5, data=data(), dtype="float32")
        assert "cancels over the batch" in found.notes[0]
        eoc.compare(lambda seed: model, 0.5, data=data(), seeds=2)


def sharing(how):
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    store = torch.randn(200)
    if how == "one parameter":
        second.weight = first.weight
    elif how == "apart in one storage":
        first.weight = nn.Parameter(store[:36].view(6, 6))
        second.weight = nn.Parameter(store[36:72].view(6, 6))
    elif how == "same":
        second.weight = nn.Parameter(first.weight.detach())
    elif how == "transposed":
        second.weight = nn.Parameter(first.weight.detach().T)
    else:
        first.weight = nn.Parameter(store[:36].view(6, 6))
        second.weight = nn.Parameter(store[30:66].view(6, 6))
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("how", ["same", "transposed", "overlapping"])
def test_weights_that_share_memory_are_refused_by_name(how):
    model = sharing(how)
    batch = torch.randn(9, 6), torch.arange(9) % 3
    before = model[0].weight.detach().clone()
    for call in (
        lambda: eoc.measure_pruning(model, 0.5, data=batch),
        lambda: eoc.predict_pruning(model, 0.5),
        lambda: eoc.diagnose(model),
        lambda: eoc.initialize_(model),
        lambda: eoc.Architecture.from_torch(model),
    ):
        with pytest.raises(ModelError, match="'0' and '2' share memory"):
            call()
    assert torch.equal(before, model[0].weight)


@pytest.mark.parametrize("how", ["one parameter", "apart in one storage"])
def test_weights_that_are_tied_or_apart_are_measured(how):
    batch = torch.randn(9, 6), torch.arange(9) % 3
    found = eoc.measure_pruning(sharing(how), 0.5, data=batch)
    assert found.weights.sum() == (54 if how == "one parameter" else 90)


@pytest.mark.filterwarnings("error")
def test_tables_have_the_fraction_of_scores_that_are_0():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias[:3] = -100.0
    batch = torch.randn(9, 6), torch.arange(9) % 3
    for found in (
        eoc.measure_pruning(model, [0.5, 0.8], data=batch),
        eoc.predict_pruning(eoc.mlp(3, 8, activation="relu", in_features=6), [0.5, 0.8]),
    ):
        column = found.to_frame()["zero_scores"].to_numpy().reshape(2, 3)
        assert np.array_equal(column, np.tile(found.zero_scores, (2, 1))) and column.max() > 0
    rounds = eoc.predict_pruning(eoc.mlp(3, 8), 0.5, criterion="synflow")
    assert np.isnan(rounds.to_frame()["zero_scores"]).all()


@pytest.mark.parametrize(
    "normed",
    [nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
)
def test_weights_that_are_made_of_others_count_at_what_they_are_made_of(normed):
    torch.manual_seed(0)
    model = nn.Sequential(normed(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    found = eoc.measure_pruning(model, 0.5, data=(x, y))
    # The largest parameter of the first layer with two dimensions is what its weight is made of.
    first = max((p for p in model[0].parameters() if p.ndim == 2), key=lambda p: p.numel())
    loss = nn.functional.cross_entropy(model(x), y)
    weights = (first, model[2].weight)
    gradients = torch.autograd.grad(loss, weights)
    scores = [(w * g).abs() for w, g in zip(weights, gradients, strict=True)]
    cut = torch.cat([s.flatten() for s in scores]).sort().values[26]
    assert found.layers == ("0", "2")
    assert np.allclose(found.kept, [float((s > cut).double().mean()) for s in scores], atol=1e-12)


def test_inputs_of_0_are_diagnosed_where_biases_make_a_signal():
    """Any cure takes the biases away, and with them all that there is to rank."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    found = eoc.diagnose(model, data=(torch.zeros(12, 6), torch.arange(12) % 3), sparsity=0.5)
    assert found.cure is None and found.after is None
    assert found.before.zero_scores[0] == 1.0


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("power", [-600, 60, 130, 400, 600])
def test_data_of_any_scale_have_one_ranking(convolutional, power):
    """Signals so large that gradients by them vanish: logits as small, and as many layers, as before."""
    torch.manual_seed(0)
    first = torch.nn.Conv2d(3, 6, 3, bias=False) if convolutional else torch.nn.Linear(48, 8, bias=False)
    parts = [first, torch.nn.ReLU()]
    for _ in range(6):
        parts += [torch.nn.Linear(24 if convolutional else 8, 8, bias=False), torch.nn.ReLU()]
        if convolutional:
            parts[-2:] = [torch.nn.Conv2d(6, 6, 1, bias=False), torch.nn.ReLU()]
    parts += [torch.nn.Flatten(), torch.nn.Linear(24 if convolutional else 8, 5, bias=False)]
    model = torch.nn.Sequential(*parts).double()
    x = torch.randn(10, *((3, 4, 4) if convolutional else (48,)), dtype=torch.float64) * 1e-9
    y = torch.arange(10) % 5
    reference = eoc.measure_pruning(model, 0.8, data=(x, y))
    # What comes larger leaves smaller: the logits are those of before.
    with torch.no_grad():
        model[2].weight.mul_(2.0**-power)
    scaled = eoc.measure_pruning(model, 0.8, data=(x * 2.0**power, y))
    assert scaled.kept == pytest.approx(reference.kept, abs=1e-3)
