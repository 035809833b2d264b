"""The global threshold against a plain sort, with ties; the exact critical sparsity against trying every
sparsity."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eoc_theory import ranking


def layers_of(values, cuts):
    parts = np.split(np.asarray(values, dtype=np.float64), sorted(cuts))
    return [p for p in parts if len(p)]


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(
        st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0, float("-inf")]) | st.floats(-5, 5), min_size=3, max_size=60
    ),
    cut=st.integers(1, 2),
    share=st.floats(0, 1),
)
def test_exactly_k_lowest_are_removed(values, cut, share):
    scores = layers_of(values, [cut, cut + 1])
    n = len(values)
    k = round(share * n)
    (threshold,) = ranking.thresholds(scores, [k])
    kept = ranking.masks(scores, threshold)
    counts = threshold.kept
    assert [int(m.sum()) for m in kept] == counts.tolist()
    assert counts.sum() == n - k
    everything, mask = np.concatenate([s for s in scores]), np.concatenate(kept)
    if 0 < k < n:
        assert everything[mask].min() >= everything[~mask].max()


def test_ties_are_shared_evenly_between_layers():
    scores = [np.zeros(1000), np.concatenate([np.zeros(500), np.ones(500)])]
    (threshold,) = ranking.thresholds(scores, [900])
    counts = threshold.kept
    # 1500 ties, 600 of them survive: 40 % of each layer's own.
    assert counts.tolist() == [400, 700]


def test_bracketing_agrees_with_partition(monkeypatch):
    rng = np.random.default_rng(0)
    scores = [(np.abs(rng.standard_normal((300, 400))) * s).astype(np.float32) for s in (1.0, 1e-3, 30.0)]
    scores[1][:100] = 0.0
    removed = [0, 1, 1000, 39_999, 40_001, 200_000, 359_999, 360_000]
    expected = ranking.thresholds(scores, removed)
    assert [int(t.kept.sum()) for t in expected] == [360_000 - k for k in removed]
    monkeypatch.setattr(ranking, "_PARTITION_LIMIT", 0)
    monkeypatch.setattr(ranking, "_SAMPLE", 2000)
    for found, right in zip(ranking.thresholds(scores, removed), expected, strict=True):
        assert found.value == right.value
        assert found.kept.tolist() == right.kept.tolist()
        assert [int(m.sum()) for m in ranking.masks(scores, found)] == right.kept.tolist()


def test_critical_sparsity_is_the_first_that_empties_a_layer():
    rng = np.random.default_rng(1)
    scores = [rng.random(n) * s for n, s in ((40, 1.0), (60, 0.7), (30, 0.9))]
    critical, weakest = ranking.critical_sparsity(scores)
    counts = [t.kept for t in ranking.thresholds(scores, range(131))]
    first = next(k for k, c in enumerate(counts) if c.min() == 0)
    assert critical == first / 130
    assert weakest == int(counts[first].argmin())
