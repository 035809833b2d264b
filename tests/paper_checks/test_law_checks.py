"""What the checks of weight laws and dropout, and the figures of correlations, rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from figures.dropout import _decay
from figures.pairs import sampled_gaps
from paper_checks.claim import Verdict
from paper_checks.dropout import CLAIM as DROPOUT
from paper_checks.dropout import longest, sampled
from paper_checks.weight_laws import HEAVY, LAWS, NORMAL, first_order, measured


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_laws_have_mean_0_variance_1_and_the_kurtosis_they_say(law):
    drawn = law.draw(np.random.default_rng(0), (1000, 1000))
    assert abs(drawn.mean()) < 0.005
    assert np.mean(drawn**2) == pytest.approx(1.0, abs=0.02)
    # The fourth moment of the t law has no variance itself.
    assert np.mean(drawn**4) - 3.0 == pytest.approx(
        law.kurtosis, rel=0.25 if "Student" in law.name else 0.03, abs=0.02
    )


def test_law_without_variance():
    wide, narrow = (np.mean(HEAVY.draw(np.random.default_rng(0), (n,)) ** 2) for n in (1_000_000, 1_000))
    assert wide > 3 * narrow


def test_kurtosis_moves_the_fixed_point_as_its_first_order_says():
    sparse = LAWS[-1]
    x, width = sparse.kurtosis / 60, 60
    found = [measured(law, width, 500)[:, :2] for law in (sparse, NORMAL)]
    gap = found[0].mean(axis=0) - found[1].mean(axis=0)
    error = np.hypot(*(one.std(axis=0, ddof=1) / math.sqrt(500) for one in found))
    expected = np.array(first_order()) * x
    assert np.all(np.abs(gap - expected) < 4 * error + 0.15 * np.abs(expected))
    assert np.all(np.abs(gap) > 4 * error)


def test_sampled_gradients_grow_as_those_of_torch():
    """Twice the same weights: growth by the loop of the check and by autograd."""
    torch = pytest.importorskip("torch")
    net, width = eoc.MeanField("tanh", 1.4, 0.0, dropout=1e-12), 50
    found = sampled(net, width, 1, shared=True)[0]
    rng = np.random.default_rng([0, width])
    common, own = rng.standard_normal((width, 1)), rng.standard_normal((width, 2))
    y = torch.tensor(np.sqrt(net.q_star) * (np.sqrt(0.8) * common + np.sqrt(0.2) * own))
    steps = []
    for layer in range(32):
        rng.random((width, 2))
        weights = torch.tensor(rng.standard_normal((width, width)) * (net.sigma_w / np.sqrt(width)))
        if layer >= 20:
            y.requires_grad_()
            y.retain_grad() if not y.is_leaf else None
            steps.append(y)
        y = weights @ torch.tanh(y)
        rng.standard_normal((width, 1))
    y.backward(torch.tensor(rng.standard_normal((width, 2))))
    logs = [math.log(float((step.grad**2).mean())) for step in steps]
    assert found[2] == pytest.approx((logs[0] - logs[-1]) / 11, rel=1e-9)


def test_the_longest_memory_is_near_the_stationary_point():
    assert 1.0 <= longest(eoc.edge_of_chaos("erf", sigma_b=0.2, dropout=0.2)) < 1.05


def test_pairs_drawn_from_their_covariance_are_those_of_drawn_weights():
    net, width, depth, networks = eoc.MeanField("tanh", 1.5, 0.3, dropout=0.2), 40, 5, 2000
    gaps = sampled_gaps(net, 0.4, depth, width=width, networks=networks, seed=0)
    rng = np.random.default_rng(1)
    z = rng.standard_normal((networks, width, 2))
    y = math.sqrt(net.q_star) * np.stack([z[..., 0], 0.6 * z[..., 0] + 0.8 * z[..., 1]], axis=-1)
    for layer in range(depth):
        c = (y[..., 0] * y[..., 1]).sum(axis=1) / np.sqrt(np.prod((y * y).sum(axis=1), axis=-1))
        mine, theirs = gaps[:, layer], 1.0 - c
        error = math.hypot(mine.std(), theirs.std()) / math.sqrt(networks)
        assert abs(mine.mean() - theirs.mean()) < 4.5 * error
        assert mine.std() == pytest.approx(theirs.std(), rel=0.1)
        h = np.tanh(y) * ((rng.random(y.shape) >= 0.2) / 0.8)
        weights = rng.standard_normal((networks, width, width)) * (net.sigma_w / math.sqrt(width))
        y = weights @ h + net.sigma_b * rng.standard_normal((networks, width, 1))


def test_decay_of_an_exponential_is_its_depth():
    c = 0.3 + 0.7 * np.exp(-np.arange(120) / 7.5)
    assert _decay(np.tile(c, (3, 1))) == pytest.approx(7.5, rel=1e-3)


@pytest.mark.slow
def test_quick_dropout_claim_has_its_recorded_verdict():
    assert DROPOUT.check(True).verdict is DROPOUT.recorded is Verdict.HOLDS
