"""From some inputs of a batch to all of them, where the inputs' gradients nearly cancel."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.propagation import channel_plan
from eoc_theory.propagation.logit_gradients import LogitGradients, by_kind, pairs_of
from eoc_theory.pruning.graph_theory import theory_laws
from eoc_theory.signals.data import DataSummary


def test_pairs_of_each_kind():
    labels = np.array([0, 1, 0, 2, 0])
    np.testing.assert_array_equal(pairs_of(labels), [5, 6, 14])
    products = np.arange(25.0).reshape(5, 5)
    same = labels[:, None] == labels
    expected = [np.trace(products), products[same].sum() - np.trace(products), products[~same].sum()]
    np.testing.assert_allclose(by_kind(products, labels), expected)


def batch_of(labels: np.ndarray, classes: int = 10) -> DataSummary:
    return DataSummary(np.zeros((len(labels), 1)), labels, classes)


@pytest.mark.parametrize("common", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("size", [32, 37, 64, 100])
def test_growth_is_that_of_gradients_with_a_common_part(common, size):
    """g_a = (√κ u + √(1−κ) u_a) ⊗ e_a with e = softmax − onehot: G is known for any batch."""
    rng = np.random.default_rng(size)
    labels = np.arange(size) % 10
    chosen = batch_of(labels).in_turn()[:16]
    p = rng.dirichlet(np.full(10, 30.0), size=(200, size))
    errors = (p - np.eye(10)[labels]).transpose(0, 2, 1)
    whole = []
    for error in errors:
        products = error.T @ error
        whole.append(np.where(np.eye(size, dtype=bool), products, common * products))
    whole = np.mean(whole, axis=0)
    part = whole[np.ix_(chosen, chosen)]
    sent = [error[:, chosen] / 16 for error in errors]
    found = LogitGradients.of(batch_of(labels[chosen]), batch_of(labels), sent, errors=True)
    assert found is not None
    growth = found.growth(by_kind(part, labels[chosen]))
    # Of what nearly cancels altogether the chance of the draws is a larger part.
    assert growth == pytest.approx(whole.sum() / part.sum(), rel=0.05 if common < 0.95 else 0.35)


@pytest.mark.parametrize("common", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("inputs", [40, 16])
def test_fluctuation_is_that_of_networks_with_their_own_logits(common, inputs):
    """E[|Σ g|² | e] = κ |Σ e|² + (1 − κ) Σ |e|² for the gradients of the test above; logits all alike."""
    rng = np.random.default_rng(inputs)
    labels = np.arange(40) % 4
    logits = rng.standard_normal((300, 4, 1)) + 0.02 * rng.standard_normal((300, 4, 40))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    errors = p - np.eye(4)[:, labels]
    expected = common * (errors.sum(axis=2) ** 2).sum(axis=1) + (1 - common) * (errors**2).sum(axis=(1, 2))
    chosen = batch_of(labels, 4).in_turn()[:inputs]
    part = np.array([error[:, chosen] for error in errors])
    whole = np.mean([error.T @ error for error in part], axis=0)
    sums = by_kind(np.where(np.eye(inputs, dtype=bool), whole, common * whole), labels[chosen])
    sent = [error / inputs for error in part]
    top = LogitGradients.of(batch_of(labels[chosen], 4), batch_of(labels, 4), sent, errors=True)
    assert top is not None and top.is_part == (inputs < 40)
    found = top.fluctuation(sums)
    assert found.mean() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=0.15)


def test_all_of_a_batch_grows_no_more_and_targets_of_tokens_have_none():
    labels = np.arange(20) % 10
    sent = [np.random.default_rng(0).standard_normal((10, 20))]
    whole = LogitGradients.of(batch_of(labels), batch_of(labels), sent, errors=False)
    assert whole is not None and whole.growth(np.array([1.0, -0.2, -0.7])) == 1.0
    tokens = DataSummary(np.zeros((4, 3)), np.zeros((4, 3), dtype=int), 10)
    more = DataSummary(np.zeros((8, 3)), np.zeros((8, 3), dtype=int), 10)
    assert LogitGradients.of(tokens, more, [np.zeros((10, 3, 4))], errors=True) is None


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, {"v o up down": (0.8, 1.4), "q k": (0.5, 1.6)}),
        ({"sigma_qk": 40.0}, {"v o up down": (0.6, 1.6), "q k": (0.6, 1.6)}),
        ({"sigma_qk": 40.0, "causal": True, "kv_heads": 2}, {"v o up down": (0.5, 1.6), "q k": (0.5, 1.6)}),
    ],
)
def test_networks_differ_as_sampled_ones_do(options, limits):
    """By few logits where tokens are alike; by few queries of each head where attention is sharp."""
    torch = pytest.importorskip("torch")
    net = eoc.transformer(3, 64, heads=4, vocabulary=50, tokens=12, **options)
    ids = np.random.default_rng(0).integers(50, size=(20, 12)).astype(float)
    labels = np.arange(20) % 10
    logs = []
    for seed in range(40):
        model = net.to_torch(seed)
        loss = torch.nn.functional.cross_entropy(model(torch.as_tensor(ids)), torch.as_tensor(labels))
        weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
        gradients = torch.autograd.grad(loss, weights)
        squares = [(w.detach() * g).square().mean() for w, g in zip(weights, gradients, strict=True)]
        logs.append(np.log([float(one) for one in squares]))
    measured = np.array(logs)
    laws = theory_laws(net, "snip", (ids, labels), seed=0).laws[0]
    theory = 2.0 * (laws.t - laws.u)[:, :, len(laws.u[0]) // 2]
    names = np.array([name.rpartition(".")[2] for name in net.weight_layers])
    for kinds, (low, high) in limits.items():
        own = np.isin(names, kinds.split())
        ratio = theory[:, own].mean(axis=1).std() / measured[:, own].mean(axis=1).std()
        assert low < ratio < high, (kinds, ratio)


@pytest.mark.parametrize("options", [{}, {"residual": "stable"}, {"readout": "last", "causal": True}])
def test_moments_from_a_part_are_those_from_all(options, monkeypatch):
    """Tokens become alike, and a mean over them makes the inputs' gradients cancel."""
    net = eoc.transformer(4, 64, vocabulary=50, tokens=12, **options)
    ids = np.random.default_rng(0).integers(50, size=(48, 12)).astype(float)
    data = ids, np.arange(48) % 10
    moments = []
    for inputs in (48, 16):
        monkeypatch.setattr(channel_plan, "MOST_INPUTS", inputs)
        moments.append(net.propagate(data).log_moment)
    whole, part = (found - found[-1] for found in moments)
    assert np.abs(part - whole).max() < 0.35
    assert np.abs(part - whole).mean() < 0.1
