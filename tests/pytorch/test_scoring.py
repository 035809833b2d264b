"""Scores against their definitions: by hand, by finite differences, by conservation laws."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.errors import ModelError  # noqa: E402
from eoc_theory.pytorch.measure import gradient_scores, ranking, scoring  # noqa: E402
from eoc_theory.pytorch.measure.measure import measure_pruning  # noqa: E402
from eoc_theory.pytorch.measure.synflow_rounds import ChainFlow, synflow_critical_sparsity, synflow_rounds  # noqa: E402


def network(sizes=(7, 9, 8, 4), activation=nn.Tanh, seed=0, gain=1.0, bias=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        linear = nn.Linear(n_in, n_out, dtype=dtype)
        with torch.no_grad():
            linear.weight.normal_(0, gain / n_in**0.5, generator=generator)
            linear.bias.normal_(0, 1, generator=generator).mul_(bias)
        parts += [linear, activation()]
    return nn.Sequential(*parts[:-1])


def batch(features=7, classes=4, n=12, seed=1):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, features))), torch.arange(n) % classes


def linears(model):
    return [m for m in model if isinstance(m, nn.Linear)]


def scores_of(model, criterion, data):
    return scoring.layer_scores(model, criterion, data)


def loss_of(model, data):
    return nn.functional.cross_entropy(model(data[0]), data[1])


def test_snip_is_weight_times_gradient():
    model, data = network(), batch()
    scores = scores_of(model, "snip", data)
    loss_of(model, data).backward()
    for layer, score in zip(linears(model), scores, strict=True):
        torch.testing.assert_close(
            score, (layer.weight * layer.weight.grad).abs().detach(), rtol=1e-12, atol=0
        )


def test_grasp_is_weight_times_hessian_times_gradient():
    model, data = network(), batch()
    scores = scores_of(model, "grasp", data)
    weights = [m.weight for m in linears(model)]
    direction = [g.detach() for g in torch.autograd.grad(loss_of(model, data), weights)]
    norm = sum(float(g.square().sum()) for g in direction) ** 0.5
    step = 1e-5

    def gradient_at(shift):
        moved = network()
        for layer, g in zip(linears(moved), direction, strict=True):
            layer.weight.data += shift * g / norm
        return torch.autograd.grad(loss_of(moved, data), [m.weight for m in linears(moved)])

    up, down = gradient_at(step), gradient_at(-step)
    for w, score, a, b in zip(weights, scores, up, down, strict=True):
        expected = (w * (a - b) / (2 * step)).detach()
        torch.testing.assert_close(score, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sizes", [(7, 9, 8, 4), (5, 6, 3)])
def test_synflow_is_weight_times_derivative_of_the_positive_linear_network(sizes):
    model = network(sizes)
    scores = scores_of(model, "synflow-oneshot", None)
    magnitudes = [m.weight.detach().abs().requires_grad_() for m in linears(model)]
    signal = torch.ones(sizes[0], dtype=torch.float64)
    for a in magnitudes:
        signal = a @ signal
    flow = signal.sum()
    for a, g, score in zip(magnitudes, torch.autograd.grad(flow, magnitudes), scores, strict=True):
        torch.testing.assert_close(score, (a * g / flow).detach(), rtol=1e-12, atol=0)


def test_synflow_conserves_the_flow_at_depth_200():
    model = network((30,) + (40,) * 199 + (10,), gain=5.0)  # the raw product is about 1e370
    scores = scoring.layer_scores(model, "synflow-oneshot", None)
    assert len(scores) == 200
    for score in scores:
        assert bool(torch.isfinite(score).all())
        assert float(score.sum()) == pytest.approx(1.0, abs=1e-12)
    assert min(synflow_rounds(ChainFlow(magnitudes_of(model)), 250_000).left()) > 0


def magnitudes_of(model):
    return [m.weight.detach().abs().numpy() for m in linears(model)]


def synflow_rounds_reference(magnitudes, removed, rounds):
    """Masks on dense matrices, scores by automatic differentiation, a full sort each round."""
    masks = [np.ones(m.shape, dtype=bool) for m in magnitudes]
    n = sum(m.size for m in magnitudes)
    for k in range(1, rounds + 1):
        keep = n - removed if k == rounds else round(n * (1 - removed / n) ** (k / rounds))
        left = [torch.from_numpy(m * a).requires_grad_() for m, a in zip(magnitudes, masks, strict=True)]
        signal = torch.ones(magnitudes[0].shape[1], dtype=torch.float64)
        for a in left:
            signal = a @ signal
        gradients = torch.autograd.grad(signal.sum(), left)
        flat = torch.cat([(a * g).detach().ravel() for a, g in zip(left, gradients, strict=True)]).numpy()
        chosen = np.zeros(n, dtype=bool)
        chosen[np.argsort(flat, kind="stable")[n - keep :]] = True
        masks = [
            c.reshape(m.shape)
            for c, m in zip(np.split(chosen, np.cumsum([m.size for m in masks])[:-1]), masks, strict=True)
        ]
    return masks


@pytest.mark.parametrize("density", [0.6, 0.1, 0.02])
def test_synflow_rounds_match_dense_masks_and_full_sorts(density):
    magnitudes = [m.weight.detach().abs().numpy() for m in linears(network((20, 30, 25, 10)))]
    n = sum(m.size for m in magnitudes)
    removed = n - round(density * n)
    expected = synflow_rounds_reference(magnitudes, removed, 20)
    found = synflow_rounds(ChainFlow(magnitudes), removed, 20)
    assert found.left() == [int(m.sum()) for m in expected]
    for mask, right in zip(found.masks(), expected, strict=True):
        np.testing.assert_array_equal(mask.numpy(), right)


def test_synflow_empties_a_layer_exactly_at_its_critical_sparsity():
    magnitudes = [m.weight.detach().abs().numpy() for m in linears(network((8, 12, 9, 5)))]
    n = sum(m.size for m in magnitudes)
    critical, weakest = synflow_critical_sparsity(lambda: ChainFlow(magnitudes))
    k = round(critical * n)
    assert synflow_rounds(ChainFlow(magnitudes), k).left()[weakest] == 0
    assert min(synflow_rounds(ChainFlow(magnitudes), k - 1).left()) > 0


def test_erk_and_uniform_scores_give_their_densities():
    model = network((30, 50, 40, 10))
    for criterion in ("uniform", "erk"):
        scores = scoring.layer_scores(model, criterion, None, seed=3)
        (threshold,) = ranking.thresholds(scores, [3300])
        kept = threshold.kept / [1500, 2000, 400]
        raw = np.ones(3) if criterion == "uniform" else np.array([80 / 1500, 90 / 2000, 50 / 400])
        scale = kept[0] / raw[0]
        np.testing.assert_allclose(kept, np.minimum(1, scale * raw), atol=2e-3)


def test_float32_is_left_where_it_underflows_or_cancels(monkeypatch):
    # Ordered, with logits near 0: inputs become equal, and their gradients cancel over balanced labels.
    model, data = network((7,) + (20,) * 40 + (4,), gain=0.5, dtype=torch.float32), batch()
    model[-1].weight.data *= 1e-6
    model[-1].bias.data *= 0
    expected = scoring.layer_scores(model, "snip", data, dtype="float64")
    monkeypatch.setattr(gradient_scores, "_FLOAT64_LIMIT", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scoring.layer_scores(model, "snip", data, dtype="auto")
        assert found[0].dtype == torch.float64
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
    healthy = network((7, 20, 20, 4), gain=1.3, dtype=torch.float32)
    assert scoring.layer_scores(healthy, "snip", data, dtype="auto")[0].dtype == torch.float32
    said: list[str] = []
    scoring.layer_scores(model, "snip", data, dtype="float32", notes=said)
    assert "cancels" in said[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = measure_pruning(model, 0.5, data=data, dtype="float32")
    assert measured.notes[0] == said[0]


def test_an_overflowing_signal_is_an_error():
    model = network((7,) + (20,) * 400 + (4,), activation=nn.ReLU, gain=20.0)
    assert all(torch.isfinite(score).all() for score in scoring.layer_scores(model, "snip", batch()))

    class Own(nn.Sequential):
        """What is no plain chain has no scale that could be carried."""

    with pytest.raises(ModelError, match="overflow"):
        scoring.layer_scores(Own(*model), "snip", batch())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("criterion", ["snip", "grasp", "magnitude", "synflow", "synflow-oneshot"])
def test_weights_that_are_not_finite_are_named(wrong, criterion):
    """One nan among 72 weights: SynFlow took it for 0 and pruned."""
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = wrong
    with pytest.raises(ModelError, match=r"layer '2'.* must be"):
        measure_pruning(model, 0.5, criterion=criterion, data=batch())
