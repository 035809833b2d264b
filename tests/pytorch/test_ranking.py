"""The global threshold against a plain sort, with ties; the exact critical sparsity against trying every
sparsity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from eoc_theory.pytorch.measure import ranking  # noqa: E402


def layers_of(values, cuts):
    parts = np.split(np.asarray(values, dtype=np.float64), sorted(cuts))
    return [torch.from_numpy(p) for p in parts if len(p)]


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
    everything, mask = torch.cat(scores).numpy(), torch.cat(kept).numpy()
    if 0 < k < n:
        assert everything[mask].min() >= everything[~mask].max()


def test_ties_are_shared_evenly_between_layers():
    scores = [torch.zeros(1000), torch.cat([torch.zeros(500), torch.ones(500)])]
    (threshold,) = ranking.thresholds(scores, [900])
    counts = threshold.kept
    # 1500 ties, 600 of them survive: 40 % of each layer's own.
    assert counts.tolist() == [400, 700]


def test_a_sample_agrees_with_sorting_everything(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(300, 400, generator=generator).abs() * s for s in (1.0, 1e-3, 30.0)]
    scores[1][:100] = 0.0
    scores[2][:50] = 7.5  # atoms at the end and in the middle
    removed = [0, 1, 1000, 39_999, 40_001, 200_000, 270_000, 359_999, 360_000]
    everything = torch.cat([s.flatten() for s in scores]).sort().values
    for sorted_at_most in (10**7, 4096, 100):
        monkeypatch.setattr(ranking, "_SORTED", sorted_at_most)
        for k, found in zip(removed, ranking.thresholds(scores, removed), strict=True):
            assert found.value == (float(everything[k - 1]) if k else -np.inf)
            assert [int((s > found.value).sum()) for s in scores] == found.above.tolist()
            assert found.kept.sum() == 360_000 - k
            assert [int(m.sum()) for m in ranking.masks(scores, found)] == found.kept.tolist()


@pytest.mark.parametrize("part", [slice(-500, None), slice(0, 500)])
def test_an_unlucky_sample_is_noticed(monkeypatch, part):
    scores = [torch.rand(90_000, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    everything = torch.cat(scores).sort().values
    sizes = np.array([90_000, 90_000])
    monkeypatch.setattr(ranking, "_sample", lambda scores: (everything[part], sizes))
    (found,) = ranking.thresholds(scores, [90_000])
    assert found.value == float(everything[89_999])
    assert found.kept.sum() == 90_000


def test_critical_sparsity_is_the_first_that_empties_a_layer():
    rng = np.random.default_rng(1)
    scores = [torch.from_numpy(rng.random(n) * s) for n, s in ((40, 1.0), (60, 0.7), (30, 0.9))]
    critical, weakest = ranking.critical_sparsity(scores)
    counts = [t.kept for t in ranking.thresholds(scores, range(131))]
    first = next(k for k, c in enumerate(counts) if c.min() == 0)
    assert critical == first / 130
    assert weakest == int(counts[first].argmin())
