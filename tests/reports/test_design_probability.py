"""Probabilities from few draws, and what the draws are: how many weights a network needs to be connected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

import eoc_theory as eoc
from eoc_theory.reports.design.probability import (
    INDEPENDENT,
    LEVEL,
    NEVER,
    UNKNOWN,
    WIDTH,
    Chance,
    expected_spread,
    positive,
    share,
    smooth_share,
)
from eoc_theory.reports.design.task import DRAWN, MOST, budget


@pytest.mark.parametrize(("happened", "number"), [(0, 1), (0, 8), (2, 8), (5, 5), (30, 400)])
def test_shares_have_wilsons_interval(happened, number):
    found = share(happened, number)
    wanted = binomtest(happened, number).proportion_ci(LEVEL, method="wilson")
    assert found.value == happened / number
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_nothing_drawn_is_nothing_known():
    assert np.isnan([share(0, 0).value, *share(0, 0).interval]).all()
    some = Chance(0.3, 0.1, 0.6)
    assert some.at_most(UNKNOWN) is some
    assert some.at_most(Chance(0.2, 0.15, 0.5)) == Chance(0.2, 0.1, 0.5)
    assert some.at_most(NEVER) == NEVER


@pytest.mark.parametrize("k", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("rank", [-2.0, -0.5, 1.0])
def test_nine_intervals_in_ten_hold_the_probability(k, rank):
    """Networks as the prior has them, whose mean/σ is `rank`: P(x > 0) = Φ(rank)."""
    rng = np.random.default_rng([k, int(10 * rank) % 100])
    true, held, low = float(norm.cdf(rank)), 0, 0
    trials = 150
    for _ in range(trials):
        sigma = 0.2 * np.exp(WIDTH * rng.standard_normal())
        found = positive(sigma * (rank + rng.standard_normal(k)), 0.2)
        assert found.low <= found.value <= found.high
        held += found.low <= true <= found.high
        low += found.high < true
    # Four standard errors, and as often too low as too high.
    assert abs(held / trials - LEVEL) < 4 * np.sqrt(0.09 / trials)
    assert low / trials < 0.05 + 4 * np.sqrt(0.0475 / trials)


def test_more_draws_tell_more():
    rng = np.random.default_rng(0)
    draws = -0.5 + 0.25 * rng.standard_normal(32)
    widths = [np.subtract(*positive(draws[:k], 0.2).interval[::-1]) for k in (1, 4, 32)]
    assert widths[0] > widths[1] > widths[2]
    # Far on either side there is no doubt, however few.
    assert positive([-3.0], 0.2).high < 1e-4 and positive([3.0], 0.2).low > 1 - 1e-4
    # Draws that all agree say less of σ than the prior does.
    assert positive([-0.1] * 3, 0.2).value > 0.1


def test_the_spread_to_expect():
    limits = np.random.default_rng(0).normal(-6.0, 0.5, 1000)
    near, far = (expected_spread(np.array([mean]), limits) for mean in (-6.5, -3.0))
    assert near == pytest.approx(limits.std()) and far < 0.5 * near
    assert expected_spread(np.array([-3.0]), None) == INDEPENDENT


def test_shares_of_a_smooth_law():
    draws = np.random.default_rng(1).normal(2.0, 0.3, 4000)
    for limit in (1.5, 2.0, 2.6):
        assert smooth_share(draws, limit, 64) == pytest.approx(norm.sf((limit - 2.0) / 0.3), abs=0.02)
    assert 0 < smooth_share(draws, 5.0, 64) < 1e-9
    assert smooth_share(np.full(5, 1.0), 0.5, 5) == 1.0 and smooth_share(np.full(5, 1.0), 1.5, 5) == 0.0


def test_budgets():
    assert budget(1.0) == (DRAWN, MOST)
    assert budget(1e12) == (1, 1)
    few, many = budget(1e10)
    assert few == 5 and few <= many == 10


# --- real networks ------------------------------------------------------------------------------------------


def test_the_fewest_weights_that_connect():
    torch = pytest.importorskip("torch")
    from eoc_theory.networks.graph import Graph
    from eoc_theory.pytorch.measure.connectivity import ChainPaths, GraphPaths, Paths
    from eoc_theory.pytorch.measure.ranking import masks, thresholds
    from eoc_theory.pytorch.models import prunable_weights
    from eoc_theory.reports.design.sampled_networks import fewest_connected

    net = eoc.mlp(6, 15, activation="tanh", in_features=10, out_features=4)
    model = net.to_torch(0)
    chain = Paths.through(model, prunable_weights(model))
    assert isinstance(chain, ChainPaths)
    graph = GraphPaths(chain.names, Graph.of_chain(net.layers))
    rng = np.random.default_rng(0)
    for _ in range(3):
        scores = [torch.from_numpy(rng.standard_normal(layer.weight_shape)) for layer in net]
        number = fewest_connected(chain, scores)
        for left, whole in ((number, True), (number - 1, False)):
            (limit,) = thresholds(scores, [net.n_weights - int(left)])
            on = chain.on_path(masks(scores, limit))
            assert all(bool(way.any()) for way in on) == whole
        # By search, where there are more ways than one beside another.
        assert fewest_connected(graph, scores) == pytest.approx(number, rel=0.06)
        assert fewest_connected(graph, scores, 3 * number) == pytest.approx(3 * number, rel=0.06)
    # A layer that is gone.
    scores[2][:] = -torch.inf
    assert fewest_connected(chain, scores) == net.n_weights


def test_numbers_for_each_layer_with_weights_to_spare_and_without():
    pytest.importorskip("torch")
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8), classes=4)
    spare, bare = (eoc.design(net, s, criterion="random", networks=2).chosen for s in (0.95, 0.9975))
    assert spare.allocation == bare.allocation == "layerwise"
    assert spare.connected == bare.connected == 1.0
    # With half of them they are connected still; one a layer cannot be halved.
    assert spare.cut_interval[1] < 0.05
    assert bare.cut_interval == share(0, 2).interval


CASES = {
    "ordered tanh": (eoc.mlp(15, 40, activation="tanh", init=(0.5, 0.1)), "snip", 0.72),
    "critical tanh": (eoc.mlp(15, 40, activation="tanh", init=(1.1934, 0.1)), "snip", 0.967),
    "default ReLU": (eoc.mlp(15, 40, activation="relu", init="pytorch"), "snip", 0.89),
    "magnitude": (eoc.mlp(10, 100, activation="relu"), "magnitude", 0.99),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_probabilities_of_really_pruned_networks_lie_in_their_intervals(case):
    """At sparsities where about half of the networks are disconnected, the hardest to tell."""
    pytest.importorskip("torch")
    net, criterion, sparsity = CASES[case]
    data = net.summarise(eoc.digits(50))
    before = eoc.design(net, sparsity, criterion=criterion, data=data, max_collapse_probability=0.5).before
    empty = cut = 0
    number = 40
    for seed in range(1000, 1000 + number):
        model = net.to_torch(seed)
        found = eoc.measure_pruning(
            model, sparsity, criterion=criterion, data=data, seed=seed, collapse=False
        )
        assert isinstance(found.masks, dict)
        empty += bool((found.kept == 0).any())
        cut += not all(eoc.connected_weights(model, found.masks).values())
    assert before.drawn >= 4
    for happened, (low, high) in ((empty, before.collapse_interval), (cut, before.cut_interval)):
        error = 2.0 * np.sqrt(0.25 / number)
        assert low - error <= happened / number <= high + error
