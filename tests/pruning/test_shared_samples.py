"""Networks that two predictions both need are sampled once, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.criteria import criterion
from eoc_theory.propagation import sampled_graph
from eoc_theory.propagation.sampled_graph import sample_networks, shared_samples


def network():
    return eoc.resnet(8, width=4, input_shape=(1, 8, 8))


@pytest.fixture
def counted(monkeypatch):
    """The streams of all networks that are sampled."""
    drawn = []
    real = sampled_graph._sample

    def counting(rule, graph, images, targets, stream):
        drawn.append(tuple(stream))
        return real(rule, graph, images, targets, stream)

    monkeypatch.setattr(sampled_graph, "_sample", counting)
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
    net = network()
    assert net.graph is not None
    first, second = (net.summarise(None, seed=seed) for seed in (0, 1))
    with shared_samples():
        few = sample_networks(net.graph, first, 2, 0, inputs=10, criterion=criterion("snip"))
        more = sample_networks(net.graph, first, 3, 0, inputs=10, criterion=criterion("snip"))
        assert more[:2] == few
        assert len(counted) == 3
        for batch, seed, inputs in ((second, 0, 10), (first, 1, 10), (first, 0, 20)):
            before = len(counted)
            sample_networks(net.graph, batch, 2, seed, inputs=inputs, criterion=criterion("snip"))
            assert len(counted) == before + 2
        wider = eoc.resnet(8, width=5, input_shape=(1, 8, 8))
        assert wider.graph is not None
        sample_networks(wider.graph, first, 2, 0, inputs=10, criterion=criterion("snip"))
        assert len(counted) == 11


def test_a_diagnosis_samples_no_network_twice(counted):
    outlooks = 1 if eoc.diagnose(network(), None, sparsity=0.9).after is None else 2
    # The network and the one with its cure have the same streams.
    assert len(counted) == outlooks * len(set(counted))
