"""Chances of collapse that are computed when first read, and what one request leaves for the next."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.propagation import shared

NET = eoc.mlp(12, 24, activation="tanh", in_features=20)
SPARSITIES = [0.5, 0.985, 0.992]


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return rng.standard_normal((30, 20)), np.arange(30) % 10


@pytest.fixture(autouse=True)
def nothing_recent():
    shared.forget_recent()


def waits(found: eoc.PruningPrediction) -> bool:
    return "collapse_probability" not in vars(found)


def test_what_is_read_later_is_what_predict_collapse_says(data):
    found = eoc.predict_pruning(NET, SPARSITIES, data=data)
    assert waits(found)
    chances = found.collapse_probability
    assert not waits(found)
    assert 0.0 < chances[-1] < 1.0
    assert np.array_equal(chances[1:], eoc.predict_collapse(NET, data=data).probability(SPARSITIES[1:]))
    assert found.empty_probability.shape == (3, NET.depth)
    assert (found.empty_probability <= chances[:, None]).all()


def test_data_that_change_before_they_are_read_do_not_count(data):
    inputs, targets = data[0].copy(), data[1].copy()
    found, expected = (eoc.predict_pruning(NET, 0.97, data=one) for one in ((inputs, targets), data))
    inputs[:], targets[:] = 7.0, 0
    shared.forget_recent()
    assert waits(found)
    assert found == expected


@pytest.mark.parametrize(
    "double",
    [copy.copy, copy.deepcopy, replace, lambda it: pickle.loads(pickle.dumps(it)), lambda it: by_json(it)],
    ids=["copy", "deepcopy", "replace", "pickle", "json"],
)
def test_doubles_hold_what_was_to_be_read_later(data, double):
    found = eoc.predict_pruning(NET, 0.97, data=data)
    twin = double(found)
    assert not waits(twin)
    assert twin == found
    assert set(vars(twin)) == {field.name for field in fields(twin)}


def by_json(found):
    return eoc.PruningPrediction.from_json(found.to_json())


def test_threads_that_read_together_read_the_same(data):
    found = eoc.predict_pruning(NET, 0.97, data=data)
    with ThreadPoolExecutor(4) as pool:
        seen = set(pool.map(lambda _: found.collapse_probability, range(4)))
    assert len(seen) == 1


def test_no_attribute_is_made_up(data):
    with pytest.raises(AttributeError, match="no attribute 'kept_on'"):
        eoc.predict_pruning(NET, 0.97, data=data).kept_on  # noqa: B018


def test_a_second_request_says_the_same_as_a_first(data):
    first = eoc.predict_pruning(NET, SPARSITIES, data=data), eoc.predict_collapse(NET, data=data)
    again = eoc.predict_pruning(NET, SPARSITIES, data=data), eoc.predict_collapse(NET, data=data)
    shared.forget_recent()
    fresh = eoc.predict_pruning(NET, SPARSITIES, data=data), eoc.predict_collapse(NET, data=data)
    assert first == again == fresh


def test_a_result_that_is_written_to_changes_no_other(data):
    first, expected = (eoc.predict_collapse(NET, data=data) for _ in range(2))
    first.samples[:] = 0.0
    first.weakest_probability[:] = 0.0
    assert eoc.predict_collapse(NET, data=data) == expected


def test_other_data_seeds_and_networks_are_told_apart(data):
    other = data[0] + 1.0, data[1]
    wider = eoc.mlp(12, 25, activation="tanh", in_features=20)
    kept = [
        eoc.predict_pruning(net, 0.9, data=given, seed=seed).kept.tolist()
        for net, given, seed in ((NET, data, 0), (NET, other, 0), (NET, data, 1), (wider, data, 0))
    ]
    assert len(set(map(tuple, kept))) == 4


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(shared, "RECENT_BYTES", 10_000)
    for size in range(50):
        shared.made_recently(("test", size), lambda: np.zeros(100))
    held = shared.made_recently(("test", 49), lambda: np.ones(100))
    assert not held.any() and not held.flags.writeable
    assert shared.made_recently(("test", 0), lambda: np.ones(100)).all()
    assert sum(size for _, size in shared._RECENT.values()) <= 10_000
    # What alone is more than that is handed on and not kept.
    assert len(shared.made_recently("large", lambda: np.zeros(2_000))) == 2_000
    assert not shared._RECENT
