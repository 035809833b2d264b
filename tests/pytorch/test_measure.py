"""Measured pruning: exact counts, an untouched model, every criterion, clear errors."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from known_criteria import CRITERIA  # noqa: E402
from torch import nn  # noqa: E402

from eoc_theory.errors import ArgumentError, DataError, EOCError, ModelError  # noqa: E402
from eoc_theory.pruning.prediction import predict_pruning  # noqa: E402
from eoc_theory.pytorch.measure.measure import measure_pruning  # noqa: E402
from eoc_theory.reports.compare import compare  # noqa: E402


def model_and_data(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5))
    rng = np.random.default_rng(seed)
    return model, (rng.standard_normal((25, 12)), np.arange(25) % 5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_removes_exactly_the_asked_number(criterion):
    model, data = model_and_data()
    sparsities = np.array([0.0, 0.33, 0.8, 0.97])
    result = measure_pruning(model, sparsities, criterion=criterion, data=data, seed=4)
    assert result.layers == ("0", "2", "4")
    assert result.weights.tolist() == [360, 600, 100]
    assert result.kept.shape == (4, 3)
    for s, kept, masks in zip(sparsities, result.kept, result.masks, strict=True):
        assert round(float(kept @ result.weights)) == 1060 - round(s * 1060)
        for name, share, mask in zip(result.layers, kept, masks.values(), strict=True):
            assert mask.mean() == pytest.approx(share, abs=1e-12), name
    again = measure_pruning(model, 0.8, criterion=criterion, data=data, seed=4)
    np.testing.assert_array_equal(again.kept, result.kept[2])
    assert all((again.masks[name] == result.masks[2][name]).all() for name in result.layers)
    frame = result.to_frame()
    assert len(frame) == 12
    assert frame["kept_weights"].iloc[:3].tolist() == [360, 600, 100]


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "synflow"])
def test_critical_sparsity_is_where_a_layer_is_emptied(criterion):
    model, data = model_and_data()
    critical = measure_pruning(model, 0.5, criterion=criterion, data=data, seed=2)
    n = 1060
    k = round(critical.critical_sparsity * n)
    around = measure_pruning(model, np.array([k - 1, k]) / n, criterion=criterion, data=data, seed=2)
    assert around.kept[0].min() > 0
    assert around.kept[1].min() == 0
    assert around.layers[int(around.kept[1].argmin())] == critical.weakest_layer


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "random"])
def test_the_model_is_left_as_it_was(criterion):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 30),
        nn.BatchNorm1d(30),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(30, 20),
        nn.Tanh(),
        nn.Linear(20, 5),
    )
    if criterion == "synflow":
        model = nn.Sequential(model[0], model[2], model[4], model[5], model[6])
    data = model_and_data()[1]
    model.train()
    model[0].eval()
    model[0].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first = measure_pruning(model, 0.6, criterion=criterion, data=data)
    second = measure_pruning(model, 0.6, criterion=criterion, data=data)
    np.testing.assert_array_equal(first.kept, second.kept)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    parameters = list(model.parameters())
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(p.grad is None for p in parameters[1:])


def test_score_moments_and_zeros():
    model, data = model_and_data()
    with torch.no_grad():
        model[2].weight[3] = 0
        model[2].bias[3] = -1.0  # this unit is dead: its row and the next layer's column score 0
    result = measure_pruning(model, 0.5, data=data)
    assert result.zero_scores[1] >= 1 / 20
    assert result.zero_scores[2] >= 1 / 20
    inputs, targets = (torch.as_tensor(part) for part in data)
    double = copy.deepcopy(model).double()
    nn.functional.cross_entropy(double(inputs), targets).backward()
    layers = (double[0], double[2], double[4])
    expected = [float((m.weight * m.weight.grad).detach().square().mean().log()) for m in layers]
    np.testing.assert_allclose(result.log_score_moments, expected, rtol=1e-10)


def test_without_data_standard_normal_inputs_are_drawn_from_the_seed():
    model, _ = model_and_data()
    first, second = (measure_pruning(model, 0.5, seed=s) for s in (0, 0))
    np.testing.assert_array_equal(first.kept, second.kept)
    assert not np.array_equal(first.kept, measure_pruning(model, 0.5, seed=1).kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": [0.5, -0.1]}, "sparsity"),
        ({"sparsity": []}, "sparsity"),
        ({"criterion": "snp"}, "criterion"),
        ({"data": (np.ones((25, 11)), np.arange(25) % 5)}, "features"),
        ({"data": (np.ones((25, 12)), np.arange(25))}, "targets"),
        ({"data": 3}, "data"),
        ({"data": (np.full((25, 12), np.nan), np.arange(25) % 5)}, "inputs"),
        ({"device": "quantum"}, "device"),
        ({"device": "meta"}, "device"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": -1}, "seed"),
        ({"model": nn.ReLU()}, "model"),
        ({"model": "resnet"}, "model"),
    ],
)
def test_unusable_arguments_are_named(change, message):
    model, data = model_and_data()
    arguments = {"model": model, "sparsity": 0.5, "data": data, **change}
    with pytest.raises(EOCError, match=message) as caught:
        measure_pruning(arguments.pop("model"), arguments.pop("sparsity"), **arguments)
    assert isinstance(caught.value, (ArgumentError, DataError, ModelError))
    assert "\n" not in str(caught.value)


def test_convolutions_are_measured_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5))
    data = (np.random.default_rng(0).standard_normal((15, 1, 8, 8)), np.arange(15) % 5)
    result = measure_pruning(model, 0.5, data=data)
    assert result.weights.tolist() == [54, 1080]
    assert result.masks["0"].shape == (6, 1, 3, 3)


def test_large_networks_in_float32_agree_with_float64():
    # More weights than float64 and a plain partition are used for: the other path of both choices.
    torch.manual_seed(0)
    sizes = [64] + [800] * 8 + [10]
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        parts += [nn.Linear(n_in, n_out), nn.Tanh()]
    model = nn.Sequential(*parts[:-1])
    with torch.no_grad():
        for module in parts[::2]:
            module.weight.mul_(3**0.5 * 1.3)
    data = (np.random.default_rng(0).standard_normal((40, 64)), np.arange(40) % 10)
    fast = measure_pruning(model, [0.7, 0.98], data=data)
    exact = measure_pruning(model, [0.7, 0.98], data=data, dtype="float64")
    assert fast.weights.sum() > 4_000_000
    for s, kept in zip((0.7, 0.98), fast.kept, strict=True):
        assert round(float(kept @ fast.weights)) == fast.weights.sum() - round(s * int(fast.weights.sum()))
    np.testing.assert_allclose(fast.kept, exact.kept, atol=2e-5)
    assert fast.critical_sparsity == pytest.approx(exact.critical_sparsity, abs=1e-5)
    np.testing.assert_allclose(fast.log_score_moments, exact.log_score_moments, atol=1e-4)
    different = [np.mean(fast.masks[0][name] != exact.masks[0][name]) for name in fast.layers]
    assert max(different) < 1e-4


class _Unfriendly(torch.autograd.Function):
    """Twice its argument, with a backward pass that fails."""

    @staticmethod
    def forward(ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(ctx, gradient):
        raise KeyError("unfriendly")


class _Fails(nn.Module):
    def forward(self, x):
        return _Unfriendly.apply(x)


@pytest.mark.parametrize("call", [measure_pruning, predict_pruning, compare])
@pytest.mark.parametrize("kind", ["overwrites", "raises"])
def test_a_backward_pass_that_fails_is_the_models(call, kind):
    inner = [nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)] if kind == "overwrites" else [_Fails()]
    model = nn.Sequential(nn.Linear(8, 12), *inner, nn.Linear(12, 3))
    data = (np.random.default_rng(0).standard_normal((12, 8)), np.arange(12) % 3)
    more = {} if call is measure_pruning else {"method": "sampled"}
    with pytest.raises(ModelError, match="model's backward pass fails"):
        call(model, 0.5, data=data, **more)
