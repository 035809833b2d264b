"""Masks on a model, and the rescaling of what they left."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from eoc_theory.errors import ArgumentError, ModelError  # noqa: E402
from eoc_theory.masking import prune_  # noqa: E402
from eoc_theory.measuring import measure_pruning  # noqa: E402
from eoc_theory.rescaling import rescale_  # noqa: E402


def pruned(sparsity=0.7, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 60), nn.Tanh(), nn.Linear(60, 50), nn.Tanh(), nn.Linear(50, 5))
    data = (np.random.default_rng(seed).standard_normal((25, 12)), np.arange(25) % 5)
    measured = measure_pruning(model, sparsity, data=data)
    assert prune_(model, measured.masks) is model
    return model, measured, data


def test_masked_weights_are_zero_and_stay_zero_in_training():
    model, measured, data = pruned()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    inputs, targets = torch.as_tensor(data[0]).float(), torch.as_tensor(data[1])
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    model(inputs)
    for name, mask in measured.masks.items():
        weight = model.get_submodule(name).weight.detach().numpy()
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != 0).all()


def test_state_dict_deep_copy_and_torch_tools_keep_working():
    model, measured, data = pruned()
    inputs = torch.as_tensor(data[0]).float()
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(inputs), model(inputs))
    other, _, _ = pruned(seed=1)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(inputs), model(inputs))
    expected = model(inputs)
    for name in measured.masks:
        prune.remove(model.get_submodule(name), "weight")
    torch.testing.assert_close(model(inputs), expected)
    assert set(dict(model.named_parameters())) == {f"{i}.{p}" for i in (0, 2, 4) for p in ("weight", "bias")}


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "magnitude", "random"])
def test_pruning_again_removes_more_and_revives_nothing(criterion):
    model, first, data = pruned()
    weight = model[0].weight
    second = measure_pruning(model, 0.9, data=data, criterion=criterion)
    assert model[0].weight is weight
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
    prune_(model, second.masks)
    assert int(sum(model[i].weight_mask.sum() for i in (0, 2, 4))) == round(second.kept @ second.weights)


def test_wrong_masks_leave_the_model_alone():
    fresh = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    good = {"0": np.ones((4, 3), dtype=bool)}
    for bad in ({"1": np.ones(3)}, {"2": np.ones((4, 2))}, {"2": np.full((2, 4), 0.5)}):
        with pytest.raises(ArgumentError, match="masks"):
            prune_(fresh, {**good, **bad})
        assert not prune.is_pruned(fresh)


def scale_of(weight):
    return float((weight.detach().square().mean() * weight.shape[1]).sqrt())


def test_rescaling_restores_the_scale_and_a_second_call_changes_nothing():
    model, _, _ = pruned()
    full = [scale_of(model[i].weight_orig) for i in (0, 2, 4)]
    biases = [model[i].bias.detach().clone() for i in (0, 2, 4)]
    kept = {i: model[i].weight.detach().clone() for i in (0, 2, 4)}
    report = rescale_(model)
    np.testing.assert_allclose(report.sigma_w_after, full, rtol=1e-5)
    for i, rho, sigma_w in zip((0, 2, 4), report.factors, full, strict=True):
        torch.testing.assert_close(model[i].weight, kept[i] * rho)
        assert scale_of(model[i].weight) == pytest.approx(sigma_w)
        assert rho > 0.5
    assert all(torch.equal(model[i].bias, b) for i, b in zip((0, 2, 4), biases, strict=True))
    assert np.isnan(report.chi_before[0])
    ratio = report.sigma_w_after / report.sigma_w_before
    np.testing.assert_allclose(ratio, report.factors)
    np.testing.assert_allclose(rescale_(model).factors, 1.0, rtol=1e-6)
    assert list(report.to_frame()["layer"]) == ["0", "2", "4"]


def test_rescaled_relu_network_is_critical_again():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(40, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    prune_(model, measure_pruning(model, 0.8, criterion="random").masks)
    report = rescale_(model)
    np.testing.assert_allclose(report.chi_before[1:], 0.2, atol=0.03)
    np.testing.assert_allclose(report.chi_after[1:], 1.0, atol=0.05)


def test_rescaling_refuses_an_emptied_layer_and_an_unpruned_model():
    model, _, _ = pruned()
    before = copy.deepcopy(model.state_dict())
    prune_(model, {"2": np.zeros((50, 60), dtype=bool)})
    with pytest.raises(ModelError, match="'2'"):
        rescale_(model)
    assert torch.equal(model[0].weight_orig, before["0.weight_orig"])
    with pytest.raises(ModelError, match="prune"):
        rescale_(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
