"""From some inputs of a batch to all of them, where the inputs' gradients nearly cancel."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.propagation import channel_plan
from eoc_theory.propagation.part_of_batch import PartOfBatch, by_kind, pairs_of
from eoc_theory.signals.data import DataSummary


def test_pairs_of_each_kind():
    labels = np.array([0, 1, 0, 2, 0])
    np.testing.assert_array_equal(pairs_of(labels), [5, 6, 14])
    products = np.arange(25.0).reshape(5, 5)
    same = labels[:, None] == labels
    expected = [np.trace(products), products[same].sum() - np.trace(products), products[~same].sum()]
    np.testing.assert_allclose(by_kind(products, labels), expected)


def batch_of(labels: np.ndarray) -> DataSummary:
    return DataSummary(np.zeros((len(labels), 1)), labels, 10)


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
    found = PartOfBatch.of(batch_of(labels[chosen]), batch_of(labels), sent, errors=True)
    assert found is not None
    growth = found.growth(by_kind(part, labels[chosen]))
    # Of what nearly cancels altogether the chance of the draws is a larger part.
    assert growth == pytest.approx(whole.sum() / part.sum(), rel=0.05 if common < 0.95 else 0.35)


def test_all_of_a_batch_and_targets_of_tokens_need_none():
    labels = np.arange(20) % 10
    sent = [np.zeros((10, 20))]
    assert PartOfBatch.of(batch_of(labels), batch_of(labels), sent, errors=True) is None
    tokens = DataSummary(np.zeros((4, 3)), np.zeros((4, 3), dtype=int), 10)
    more = DataSummary(np.zeros((8, 3)), np.zeros((8, 3), dtype=int), 10)
    assert PartOfBatch.of(tokens, more, [np.zeros((10, 3, 4))], errors=True) is None


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
