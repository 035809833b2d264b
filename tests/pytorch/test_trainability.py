"""Jacobians and tangent kernels of networks, against plain torch and against theory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, EOCError

INPUTS = np.random.default_rng(0).standard_normal((12, 20))
DATA = (INPUTS, np.arange(12) % 5)


def by_hand(model: Any, inputs: torch.Tensor, masks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (n, K) and tangent kernel of the kept weights (n, n), one backward pass at a time."""
    weights = [model.get_submodule(name).weight for name in masks]
    values, gradients = [], []
    for i in range(len(inputs)):
        x = inputs[i : i + 1].clone().requires_grad_(True)
        out = model(x)[0]
        rows, flat = [], []
        for logit in out:
            found = torch.autograd.grad(logit, [x, *weights], retain_graph=True)
            rows.append(found[0].flatten())
            flat.append(torch.cat([g[m] for g, m in zip(found[1:], masks.values(), strict=True)]))
        values.append(torch.linalg.svdvals(torch.stack(rows)).detach().numpy())
        gradients.append(torch.stack(flat))
    stacked = torch.stack(gradients)
    return np.array(values), torch.einsum("acp,bcp->ab", stacked, stacked).numpy() / stacked.shape[1]


def masked(model: Any, part: float) -> dict[str, torch.Tensor]:
    """Random masks, and the model's removed weights at 0."""
    generator = torch.Generator().manual_seed(1)
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            masks[name] = torch.rand(module.weight.shape, generator=generator) < part
    return masks


def small_convolutional() -> Any:
    torch.manual_seed(3)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_measures_what_plain_torch_does(kind: str) -> None:
    if kind == "dense":
        model, inputs = eoc.mlp(4, 15, in_features=20, out_features=5).to_torch(1), torch.tensor(INPUTS)
    else:
        model, inputs = small_convolutional(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    masks = masked(model, 0.5)
    found = eoc.trainability(model, masks, data=(inputs, torch.zeros(len(inputs)).long()), dtype="float64")
    model = model.double()
    before = {name: module.weight.detach().clone() for name, module in model.named_modules() if name in masks}
    for name, mask in masks.items():
        model.get_submodule(name).weight.data.mul_(mask)
    values, kernel = by_hand(model, inputs, masks)
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-10, atol=1e-12)
    scale = np.trace(kernel) / len(kernel)
    np.testing.assert_allclose(found.kernel, kernel / scale, rtol=1e-9, atol=1e-12)
    assert found.kernel_log_scale == pytest.approx(np.log(scale), rel=1e-9)
    assert found.jacobian_mean == pytest.approx(np.mean(values**2), rel=1e-9)
    np.testing.assert_allclose(found.kept, [mask.double().mean().item() for mask in masks.values()])
    for name, gain, variance in zip(found.layers, found.layer_gain, found.layer_variance, strict=True):
        weight = (before[name] * masks[name]).flatten(1)
        square = torch.linalg.svdvals(weight).square()
        rows = len(weight)
        assert gain == pytest.approx(float(square.sum() / rows), rel=1e-9)
        assert variance == pytest.approx(float(square.square().sum() / rows) / gain**2 - 1.0, rel=1e-7)


def test_chi_is_the_mean_square_of_each_layers_jacobian() -> None:
    model = eoc.mlp(3, 15, in_features=20, out_features=5).to_torch(1).double()
    found = eoc.trainability(model, data=DATA)
    first, second = model[0][0], model[0][2]
    y = first(torch.tensor(INPUTS))
    each = [
        torch.linalg.matrix_norm(torch.func.jacfwd(lambda v: second(torch.tanh(v)))(row)).square() / 15
        for row in y
    ]
    assert found.chi[1] == pytest.approx(float(torch.stack(each).mean().detach()), rel=1e-9)
    assert found.chi[0] == pytest.approx(float(first.weight.square().sum() / 15), rel=1e-9)


def test_a_mask_in_the_model_counts_and_the_model_is_left_alone() -> None:
    model = eoc.mlp(4, 15, in_features=20, out_features=5).to_torch(1)
    masks = {name: mask.numpy() for name, mask in masked(model, 0.5).items()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    given = eoc.trainability(model, masks, data=DATA)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert eoc.trainability(eoc.prune_(model, masks), data=DATA) == given
    assert given.kept.max() < 0.7


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("sparsity", "criterion"), [(0.0, "random"), (0.9, "random"), (0.9, "magnitude")])
def test_prediction_agrees_with_networks(activation: str, sparsity: float, criterion: str) -> None:
    net = eoc.mlp(5, 200, in_features=20, out_features=5, activation=activation)
    theory = eoc.trainability(net, sparsity=sparsity, criterion=criterion, data=DATA)
    seeds, measured = 8, []
    for seed in range(seeds):
        model = net.to_torch(seed)
        masks = eoc.measure_pruning(
            model, sparsity, criterion=criterion, seed=seed, collapse=False, device="cpu"
        ).masks
        measured.append(eoc.trainability(model, masks, data=DATA, device="cpu"))

    def mean(name: str) -> Any:
        return np.mean([getattr(one, name) for one in measured], axis=0)

    np.testing.assert_allclose(mean("layer_gain"), theory.layer_gain, rtol=0.13)
    np.testing.assert_allclose(mean("layer_variance"), theory.layer_variance, rtol=0.1, atol=0.04)
    np.testing.assert_allclose(mean("chi"), theory.chi, rtol=0.15)
    error = np.std([one.jacobian_log_mean for one in measured], ddof=1) / np.sqrt(seeds)
    assert abs(mean("jacobian_log_mean") - theory.jacobian_log_mean) < 0.1 + 3 * error
    assert mean("jacobian_variance") == pytest.approx(theory.jacobian_variance, rel=0.25)
    assert mean("kernel_log_scale") == pytest.approx(theory.kernel_log_scale, abs=0.25)
    assert np.abs(mean("kernel") - theory.kernel).mean() < 0.06
    assert mean("off_diagonal") == pytest.approx(theory.off_diagonal, abs=0.06)
    # A matrix of n inputs has a wider spectrum at finite width.
    assert 0.9 < mean("kernel_condition") / theory.kernel_condition < 2.0


def test_variance_of_deep_square_networks_is_that_of_pennington() -> None:
    # σ²_JJᵀ for normal weights at χ = 1: L·E[φ'⁴]/E[φ'²]² of deep ReLU networks, a term 1 the first layer's.
    net = eoc.mlp(9, 4000, in_features=4000, out_features=4000, activation="relu")
    found = eoc.trainability(net, data=(np.ones((2, 4000)), np.array([0, 1])))
    assert found.jacobian_variance == pytest.approx(1 + 8 * 2, rel=0.02)
    assert found.jacobian_mean == pytest.approx(2.0)


def test_snip_is_predicted_by_its_kept_fractions_and_says_so() -> None:
    net = eoc.mlp(5, 100, in_features=20, out_features=5)
    found = eoc.trainability(net, sparsity=0.9, criterion="snip", data=DATA, method="theory")
    kept = eoc.predict_pruning(net, 0.9, criterion="snip", data=DATA).kept
    np.testing.assert_allclose(found.kept, kept)
    assert "independent" in found.notes[0]


@pytest.mark.parametrize(("criterion", "off"), [("snip", 1.0), ("synflow", 0.3)])
def test_networks_whose_masks_gather_on_units_are_sampled(criterion: str, off: float) -> None:
    """In ReLU networks the theory of independent masks says too small a log of mean s²; samples do not."""
    net = eoc.mlp(5, 40, in_features=20, out_features=5, activation="relu")
    found, theory = (
        eoc.trainability(net, sparsity=0.8, criterion=criterion, data=DATA, seed=3, method=method)
        for method in ("auto", "theory")
    )
    measured = []
    for seed in range(8):
        model = net.to_torch(1000 + seed)
        masks = eoc.measure_pruning(
            model, 0.8, criterion=criterion, data=DATA, seed=seed, collapse=False, device="cpu"
        ).masks
        values, kernel = by_hand(model.double(), torch.as_tensor(INPUTS), pruned_by(model, masks))
        eigenvalues = np.linalg.eigvalsh(kernel)
        measured.append((np.log(np.mean(values**2)), np.log(eigenvalues[-1] / eigenvalues[0])))
    (mean, condition), error = np.median(measured, axis=0), np.std(measured, axis=0) / np.sqrt(5.0)
    assert found.method == "sampled" and found.criterion == criterion
    assert abs(found.jacobian_log_mean - mean) < 0.1 + 3.0 * error[0]
    assert abs(np.log(found.kernel_condition) - condition) < 0.1 + 3.0 * error[1]
    assert mean - theory.jacobian_log_mean > off


def pruned_by(model: Any, masks: Any) -> dict[str, torch.Tensor]:
    """The masks as tensors, once the model's removed weights are 0."""
    found = {name: torch.as_tensor(mask).bool() for name, mask in masks.items()}
    for name, mask in found.items():
        model.get_submodule(name).weight.data[~mask] = 0.0
    return found


def test_logits_of_more_than_16_are_thinned_out_and_token_ids_have_no_jacobian() -> None:
    many = eoc.trainability(torch.nn.Linear(20, 40), data=(INPUTS, np.arange(12)))
    assert many.singular_values.shape == (12, 16)
    assert "16 of 40" in " ".join(many.notes)
    model = torch.nn.Sequential(torch.nn.Embedding(9, 6), torch.nn.Flatten(), torch.nn.Linear(18, 4))
    tokens = (np.random.default_rng(0).integers(0, 9, (5, 3)), np.arange(5) % 4)
    found = eoc.trainability(model, data=tokens)
    assert found.singular_values.size == 0 and np.isnan(found.jacobian_condition)
    assert np.trace(found.kernel) == pytest.approx(5.0)


def test_a_collapsed_network_has_no_condition_number() -> None:
    model = eoc.mlp(3, 10, in_features=20, out_features=5).to_torch(0)
    masks = {name: torch.zeros_like(mask) for name, mask in masked(model, 0.5).items()}
    found = eoc.trainability(model, masks, data=DATA)
    assert found.jacobian_mean == 0.0 and found.effective_rank == 0.0 and found.kernel_condition == np.inf


def test_arguments() -> None:
    net = eoc.mlp(3, 10, in_features=20, out_features=5)
    with pytest.raises(ArgumentError, match="masks go with a torch model"):
        eoc.trainability(net, {})
    with pytest.raises(ArgumentError, match="sparsity goes with an Architecture"):
        eoc.trainability(net.to_torch(0), sparsity=0.5)
    with pytest.raises(EOCError, match="fully connected"):
        eoc.trainability(eoc.cnn(3, 4, input_shape=(1, 8, 8)), method="theory")
    with pytest.raises(ArgumentError, match="method goes with an Architecture"):
        eoc.trainability(net.to_torch(0), method="sampled")
    assert eoc.trainability(eoc.cnn(3, 4, input_shape=(1, 8, 8)), inputs=4).method == "sampled"
