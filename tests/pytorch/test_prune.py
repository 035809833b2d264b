"""Masks on a model, and the rescaling of what they left."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ArgumentError, ModelError  # noqa: E402
from eoc_theory.pytorch.initialize import initialize_  # noqa: E402
from eoc_theory.pytorch.measure.measure import measure_pruning  # noqa: E402
from eoc_theory.pytorch.prune import prune_  # noqa: E402
from eoc_theory.pytorch.rescale import rescale_  # noqa: E402


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
    return float((weight.detach().square().mean() * weight[0].numel()).sqrt())


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


# --- convolutions -------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Grouped and depthwise convolutions, batch normalisation, a scaled residual branch."""

    def __init__(self, norm=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 32, 3, stride=2, groups=4)
        self.point = nn.Conv2d(32, 32, 1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        x = torch.tanh(self.norm(self.stem(x)))
        x = torch.tanh(self.grouped(torch.tanh(self.depthwise(x))))
        return self.fc(torch.tanh(x + 0.5 * self.point(x)).mean(dim=(2, 3)))


LAYERS = ("stem", "depthwise", "grouped", "point", "fc")


def masks_of(model, kept=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.random(model.get_submodule(name).weight.shape) < kept for name in LAYERS}


def train(model, steps=2):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(6) % 5).backward()
        optimiser.step()
    return images


def test_masked_convolutions_train_copy_and_save():
    torch.manual_seed(0)
    model = Branches()
    masks = masks_of(model)
    prune_(model, masks)
    images = train(model)
    # Right after a training step, when the masked weights belong to autograd's graph.
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    fresh = prune_(Branches(), masks_of(model, 0.9, seed=1))
    fresh.load_state_dict(model.state_dict())
    expected = model.eval()(images)
    for other in (twin, loaded, fresh):
        torch.testing.assert_close(other.eval()(images), expected)
    before = model.stem.weight_orig.clone()
    train(twin.train())
    assert torch.equal(model.stem.weight_orig, before) and not torch.equal(twin.stem.weight_orig, before)
    for name, mask in masks.items():
        for each in (model, twin):
            assert bool((each.get_submodule(name).weight[~torch.as_tensor(mask)] == 0).all())


def test_torch_masks_further_what_was_masked_here():
    torch.manual_seed(0)
    model = Branches()
    masks = masks_of(model)
    prune_(model, masks)
    prune.l1_unstructured(model.grouped, "weight", amount=0.5)
    kept = int(masks["grouped"].sum())
    assert int(model.grouped.weight_mask.sum()) == kept - round(kept / 2)
    images = train(model)
    expected = model.eval()(images)
    for name in LAYERS:
        prune.remove(model.get_submodule(name), "weight")
    torch.testing.assert_close(model(images), expected)
    assert not prune.is_pruned(model)
    assert set(dict(model.named_parameters())) == set(dict(Branches().named_parameters()))


def test_gradients_flow_through_masked_weights_only():
    torch.manual_seed(1)
    model = Branches()
    masks = masks_of(model)
    prune_(model, masks)
    train(model, steps=1)
    for name, mask in masks.items():
        gradient = model.get_submodule(name).weight_orig.grad
        assert bool((gradient[~torch.as_tensor(mask)] == 0).all()) and bool((gradient != 0).any())
    # A penalty on the weights that a pass has used reaches the parameters.
    model.zero_grad()
    model(torch.randn(2, 3, 8, 8))
    model.stem.weight.square().sum().backward()
    torch.testing.assert_close(
        model.stem.weight_orig.grad, 2 * model.stem.weight_orig.detach() * torch.as_tensor(masks["stem"])
    )


def test_no_memory_is_kept_by_a_masked_weights_pass():
    model = prune_(nn.Linear(3, 2), {"weight": np.ones((2, 3), dtype=bool)})
    model(torch.randn(1, 3)).sum().backward()
    used = weakref.ref(model.weight)
    gc.disable()
    try:
        model(torch.randn(1, 3))
        assert used() is None
    finally:
        gc.enable()


def test_rescaling_convolutions():
    torch.manual_seed(2)
    model = Branches(norm=False)
    full = {name: scale_of(model.get_submodule(name).weight) for name in LAYERS}
    prune_(model, masks_of(model, 0.4))
    biases = model.grouped.bias.detach().clone()
    report = rescale_(model, example_input=torch.zeros(1, 3, 8, 8))
    assert report.layers == LAYERS and not report.normalised.any()
    np.testing.assert_allclose(report.sigma_w_after, list(full.values()), rtol=1e-5)
    for name in LAYERS:
        assert scale_of(model.get_submodule(name).weight) == pytest.approx(full[name], rel=1e-5)
    assert torch.equal(model.grouped.bias, biases)
    np.testing.assert_allclose(report.factors**2 * 0.4, 1.0, rtol=0.35)
    assert np.isnan(report.chi_before[0])
    assert (report.chi_before[1:] < report.chi_after[1:]).all()
    np.testing.assert_allclose(rescale_(model).factors, 1.0, rtol=1e-6)


def test_chi_of_a_rescaled_tanh_network_is_that_of_its_gradients():
    """χ as reported beside the ratio of mean squared gradients in the network itself."""
    torch.manual_seed(4)
    width, depth = 300, 8
    layers = [nn.Conv2d(200, width, 1), nn.Tanh()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 1), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 4, 3))
    initialize_(model, sigma_b=0.2, seed=0, example_input=(1, 200, 2, 2))
    rng = np.random.default_rng(0)
    prune_(model, {str(2 * i): rng.random((width, width, 1, 1)) < 0.3 for i in range(1, depth + 1)})
    images = torch.randn(40, 200, 2, 2)
    q_input = float(images.square().mean())

    def measured():
        values, x = [], images
        for module in list(model)[:-2]:
            x = module(x)
            if isinstance(module, nn.Conv2d):
                values.append(x)
        gradients = torch.autograd.grad((x * torch.randn_like(x)).sum(), values)
        squares = np.array([float(g.square().mean()) for g in gradients])
        return squares[:-1] / squares[1:]

    before = measured()
    report = rescale_(model, q_input=q_input, example_input=(1, 200, 2, 2))
    np.testing.assert_allclose(report.chi_before[1:-1], before, rtol=0.05)
    np.testing.assert_allclose(report.chi_after[1:-1], measured(), rtol=0.05)
    assert (report.chi_before[2:-1] < 0.5).all()
    np.testing.assert_allclose(report.chi_after[4:-1], 1.0, atol=0.05)


def test_normalised_layers_have_no_chi():
    model = Branches()
    prune_(model, masks_of(model))
    report = rescale_(model)
    assert report.normalised.tolist() == [True, False, False, False, False]
    assert np.isnan(report.chi_after[0]) and np.isfinite(report.chi_after[1:]).all()
    # In evaluation mode the running statistics do not follow the scale.
    model.eval()
    assert not rescale_(model).normalised.any()
    net = eoc.resnet(8, width=4).to_torch(0)
    report = rescale_(net, sigma_w=1.0)
    assert report.normalised[:-1].all() and not report.normalised[-1]
    np.testing.assert_allclose(report.sigma_w_after, 1.0)


def test_rescaling_errors_leave_the_model_as_it_was():
    model = Branches()
    masks = masks_of(model)
    prune_(model, {**masks, "grouped": np.zeros_like(masks["grouped"])})
    images = torch.randn(2, 3, 8, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    expected = model(images).detach()
    for options, error, message in (
        ({}, ModelError, "layer 'grouped' has no weight left"),
        ({"sigma_w": 0}, ArgumentError, "sigma_w"),
        ({"example_input": (1, 5, 8, 8)}, ModelError, "stem"),
    ):
        with pytest.raises(error, match=message):
            rescale_(model, **options)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running" not in k and "num" not in k)
    torch.testing.assert_close(model(images), expected)


def test_a_normalised_unit_that_is_left_nothing_is_refused():
    torch.manual_seed(0)
    layers = [torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 8)), torch.nn.Linear(8, 3)]
    model = torch.nn.Sequential(*layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = np.ones((8, 6), dtype=bool)
    mask[3, :] = False
    with pytest.raises(ModelError, match=r"masks\['0'\] must leave a weight in every unit"):
        eoc.prune_(model, {"0": mask})
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    mask[3, 2] = True
    assert torch.isfinite(eoc.prune_(model, {"0": mask})(torch.ones(2, 6))).all()


def test_spectral_normalisation_is_not_moved_by_masks():
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(6, 8))
    before = layer.parametrizations.weight[0]._u.clone()
    eoc.prune_(torch.nn.Sequential(layer), {"0": np.eye(8, 6, dtype=bool)})
    assert torch.equal(layer.parametrizations.weight[0]._u, before)
