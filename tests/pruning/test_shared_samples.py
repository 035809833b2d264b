"""Networks that two predictions both need are sampled once, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.criteria import criterion
from eoc_theory.propagation.shared import shared_samples
from eoc_theory.pruning.graph_distributions import as_sampled

pytest.importorskip("torch")


def network(width=4):
    return eoc.resnet(8, width=width, input_shape=(1, 8, 8))


@pytest.fixture
def counted(monkeypatch):
    """The streams of all networks that are sampled."""
    from eoc_theory.pytorch.sample.sampler import Sampler

    drawn = []
    real = Sampler._network

    def counting(self, rule, inputs, seed, index):
        drawn.append((rule.label, inputs, seed, index))
        return real(self, rule, inputs, seed, index)

    monkeypatch.setattr(Sampler, "_network", counting)
    return drawn


def test_both_predictions_are_the_same_bits(counted):
    net = network()
    alone = eoc.predict_pruning(net, 0.9), eoc.predict_collapse(net)
    apart = len(counted)
    with shared_samples():
        together = eoc.predict_pruning(net, 0.9), eoc.predict_collapse(net)
    for name in ("kept", "kept_std", "empty_probability"):
        np.testing.assert_array_equal(getattr(alone[0], name), getattr(together[0], name))
    np.testing.assert_array_equal(alone[1].samples, together[1].samples)
    once = counted[apart:]
    assert len(set(once)) == len(once) < apart
    eoc.predict_pruning(net, 0.9)
    assert len(counted) > apart + len(once)  # nothing is kept afterwards


def test_only_the_same_networks_on_the_same_batch_are_shared(counted):
    net, rule = network(), criterion("snip")
    first, second = (net.summarise(None, seed=seed) for seed in (0, 1))

    def sample(net, batch, samples, seed):
        return as_sampled(net, batch, seed=seed).sampler.sample(rule, samples, seed, 4, 16).networks

    with shared_samples():
        few, more = (sample(net, first, samples, 0) for samples in (2, 3))
        assert more[:2] == few
        assert len(counted) == 3
        for batch, seed in ((second, 0), (first, 1)):
            before = len(counted)
            sample(net, batch, 2, seed)
            assert len(counted) == before + 2
        sample(network(5), first, 2, 0)
        assert len(counted) == 9


def test_a_diagnosis_samples_no_network_twice(counted):
    outlooks = 1 if eoc.diagnose(network(), None, sparsity=0.9).after is None else 2
    # The network and the one with its cure have the same streams.
    assert len(counted) == outlooks * len(set(counted))
