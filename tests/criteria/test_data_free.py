"""Predictions for criteria without data, against networks that are really pruned and against exact laws."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from known_criteria import DATA_FREE_CRITERIA

from eoc_theory.criteria import criterion as criterion_
from eoc_theory.errors import ArgumentError
from eoc_theory.networks.architecture import Architecture, WeightLayer, mlp
from eoc_theory.pruning.data_free import collapse_data_free, predict_data_free

SPARSITIES = np.array([0.5, 0.7, 0.9, 0.98])
RANKED = ("magnitude", "random", "synflow-oneshot")


@functools.cache
def network(depth: int, width: int, law: str = "normal") -> Architecture:
    return mlp(depth, width, init=(1.3, 0.2), law=law)  # type: ignore[arg-type]


def magnitudes(net: Architecture, rng: np.random.Generator) -> list[np.ndarray]:
    """|W| of a freshly drawn network, (fan_out, fan_in) each."""
    result = []
    for layer in net.layers:
        shape = (layer.fan_out, layer.fan_in)
        draw = rng.standard_normal(shape) if layer.law == "normal" else rng.uniform(-(3**0.5), 3**0.5, shape)
        result.append(np.abs(draw) * layer.weight_std)
    return result


def synflow_scores(weights: list[np.ndarray]) -> list[np.ndarray]:
    """|W_ij| R_i F_j, each layer scaled to total 1 (its total is the same in all layers)."""
    forward, backward = [np.ones(weights[0].shape[1])], [np.ones(weights[-1].shape[0])]
    for w in weights[:-1]:
        forward.append(w @ forward[-1])
        forward[-1] /= forward[-1].sum() or 1.0
    for w in weights[:0:-1]:
        backward.append(w.T @ backward[-1])
        backward[-1] /= backward[-1].sum() or 1.0
    scores = [w * f * r[:, None] for w, f, r in zip(weights, forward, reversed(backward), strict=True)]
    return [s / (s.sum() or 1.0) for s in scores]


def pruned_synflow(weights: list[np.ndarray], kept: int, rounds: int) -> np.ndarray:
    """Weights each layer keeps under Tanaka's algorithm, in plain NumPy."""
    weights = [w.copy() for w in weights]
    n = sum(w.size for w in weights)
    for r in range(1, rounds + 1):
        left = kept if r == rounds else round(n * (kept / n) ** (r / rounds))
        scores = synflow_scores(weights)
        flat = np.concatenate(
            [np.where(w > 0, s, -1.0).ravel() for w, s in zip(weights, scores, strict=True)]
        )
        lowest = np.argpartition(flat, n - left)[: n - left]
        stays = np.ones(n, dtype=bool)
        stays[lowest] = False
        start = 0
        for w in weights:
            w *= stays[start : start + w.size].reshape(w.shape)
            start += w.size
    return np.array([(w > 0).sum() for w in weights])


def ranked_scores(net: Architecture, criterion: str, rng: np.random.Generator) -> list[np.ndarray]:
    if criterion == "random":
        return [rng.random(int(n)) for n in net.weights]
    weights = magnitudes(net, rng)
    return weights if criterion == "magnitude" else synflow_scores(weights)


def measure(
    net: Architecture, criterion: str, seeds: int, sparsities: np.ndarray = SPARSITIES
) -> tuple[np.ndarray, np.ndarray]:
    """Kept (seeds, n_s, L) and s_cr (seeds,) of really ranked networks."""
    kept, critical = [], []
    for seed in range(seeds):
        scores = ranked_scores(net, criterion, np.random.default_rng([17, seed]))
        flat = np.sort(np.concatenate([s.ravel() for s in scores]))
        limits = [flat[round(s * len(flat)) - 1] for s in sparsities]
        kept.append([[np.mean(s > t) for s in scores] for t in limits])
        critical.append(np.mean(flat <= min(s.max() for s in scores)))
    return np.array(kept), np.array(critical)


@pytest.mark.parametrize("criterion", RANKED)
@pytest.mark.parametrize(
    ("depth", "width", "law"), [(10, 100, "normal"), (30, 100, "normal"), (10, 60, "uniform")]
)
def test_ranked_criteria_match_pruned_networks(criterion: str, depth: int, width: int, law: str) -> None:
    net = network(depth, width, law)
    kept, _ = measure(net, criterion, 40)
    predicted = predict_data_free(net, SPARSITIES, criterion)
    assert np.abs(predicted.kept - kept.mean(axis=0)).mean() < 0.0015
    assert np.abs(predicted.kept - kept.mean(axis=0)).max() < 0.01
    measured = np.sqrt(kept.var(axis=0, ddof=1).mean(axis=1))
    # Of the spread, 40 seeds × 10 layers tell about a twentieth.
    np.testing.assert_allclose(np.sqrt((predicted.kept_std**2).mean(axis=1)), measured, rtol=0.25)


@pytest.mark.parametrize("criterion", RANKED)
@pytest.mark.parametrize(("depth", "width"), [(10, 60), (30, 40)])
def test_critical_sparsity_of_ranked_criteria(criterion: str, depth: int, width: int) -> None:
    net = network(depth, width)
    _, critical = measure(net, criterion, 150)
    drawn = collapse_data_free(net, criterion, samples=2000)
    log_kept, log_drawn = np.log10(1 - critical), np.log10(1 - drawn.critical_sparsity)
    assert abs(np.median(log_kept) - np.median(log_drawn)) < 0.1
    low, high = np.quantile(log_drawn, [0.1, 0.9])
    assert 0.65 <= np.mean((log_kept >= low) & (log_kept <= high)) <= 0.95
    assert drawn.weakest_layer.sum() == pytest.approx(1.0)


@pytest.mark.slow
def test_iterative_synflow_matches_pruned_networks() -> None:
    net = network(6, 50)
    kept = np.array(
        [
            [
                pruned_synflow(
                    magnitudes(net, np.random.default_rng(seed)),
                    net.n_weights - round(s * net.n_weights),
                    100,
                )
                for s in (0.5, 0.9)
            ]
            for seed in range(10)
        ]
    )
    kept = kept / net.weights
    predicted = predict_data_free(net, [0.5, 0.9], "synflow")
    error = np.abs(predicted.kept - kept.mean(axis=0))
    assert error.mean() < 0.005 and error.max() < 0.02
    measured = np.sqrt(kept.var(axis=0, ddof=1).mean(axis=1))
    np.testing.assert_allclose(np.sqrt((predicted.kept_std**2).mean(axis=1)), measured, rtol=0.4)


def test_synflow_of_few_rounds_follows_its_schedule() -> None:
    net = network(5, 60)
    predicted = predict_data_free(net, 0.9, criterion_("synflow", rounds=3)).kept[0]
    kept = [
        pruned_synflow(
            magnitudes(net, np.random.default_rng(seed)), net.n_weights - round(0.9 * net.n_weights), 3
        )
        for seed in range(12)
    ]
    measured = np.mean(kept, axis=0) / net.weights
    assert np.abs(predicted - measured).max() < 0.012
    # Neither one round nor many keep the same.
    for rounds in (1, 100):
        other = predict_data_free(net, 0.9, criterion_("synflow", rounds=rounds)).kept[0]
        assert np.abs(other - measured).max() > 0.015


def test_one_round_of_synflow_is_the_one_shot_criterion() -> None:
    net = network(6, 50)
    once = predict_data_free(net, SPARSITIES, criterion_("synflow", rounds=1))
    np.testing.assert_array_equal(once.kept, predict_data_free(net, SPARSITIES, "synflow-oneshot").kept)


def test_wide_and_deep_synflow_is_represented_by_few_layers_and_neurons() -> None:
    """The sampled chain against the whole one: same kept fractions at both ends and between."""
    from eoc_theory.criteria.synflow import chain as synflow

    net = network(40, 40)
    kept = np.array([net.n_weights // 10])
    reduced, reduced_std, _, _ = synflow.allocate(net, kept, 30, np.random.default_rng(0))
    sizes = np.array([64, *[40] * 39, 10])
    path = np.log(kept[0] / net.n_weights) * np.arange(1, 31) / 30
    from eoc_theory.criteria.synflow._chain_kernel import synflow_chain

    one = np.ones(40, dtype=np.int64)
    whole = np.array(
        [
            synflow_chain(
                np.abs(np.random.default_rng(seed).standard_normal(net.n_weights, dtype=np.float32)),
                sizes, one, one, one, np.ones(40), np.ones(40), path, np.array([30]),
            )[0]
            for seed in range(12)
        ]
    )  # fmt: skip
    assert np.abs(reduced[0] - whole.mean(axis=0)).mean() < 0.004
    middle = slice(4, -4)
    spread = np.sqrt(whole[:, middle].var(axis=0, ddof=1).mean())
    assert np.sqrt((reduced_std[0, middle] ** 2).mean()) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("depth", [1, 4, 10])
def test_iterative_synflow_collapses_at_the_last_moment(depth: int) -> None:
    """As long as there is a weight for each layer, each keeps one; fewer cannot do."""
    net = network(depth, 12)
    drawn = collapse_data_free(net, "synflow", samples=200)
    left = np.rint((1 - drawn.critical_sparsity) * net.n_weights)
    assert left.min() == depth - 1 and np.median(left) <= 1.1 * (depth - 1)
    if depth == 4:
        for seed in range(3):
            weights = magnitudes(net, np.random.default_rng(seed))
            assert pruned_synflow(weights, depth, 100).min() == 1
    # Deep in the safe region, and where there are fewer weights than layers.
    some = predict_data_free(net, [0.5, 1 - (depth - 0.9) / net.n_weights], "synflow")
    assert some.collapse_probability[0] == 0
    assert some.collapse_probability[1] == 1
    assert (some.empty_probability <= some.collapse_probability[:, None] + 1e-12).all()


def test_random_pruning_is_hypergeometric() -> None:
    net = mlp(3, 6, in_features=8, out_features=3, init=(1.0, 0.0))
    n, sizes = net.n_weights, net.weights
    s = np.array([0.3, 0.8, 0.95, 1 - 3 / n])
    left = n - np.array([round(x * n) for x in s])
    predicted = predict_data_free(net, s, "random")
    for i, k in enumerate(left):
        law = [scipy.stats.hypergeom(n, int(size), int(k)) for size in sizes]
        np.testing.assert_allclose(predicted.kept[i], [m.mean() for m in law] / sizes, rtol=1e-10)
        np.testing.assert_allclose(predicted.kept_std[i], [m.std() for m in law] / sizes, rtol=0.02)
        np.testing.assert_allclose(
            predicted.empty_probability[i], [m.pmf(0) for m in law], rtol=1e-8, atol=1e-12
        )
        # Inclusion and exclusion over which of the three layers are empty.
        total = 0.0
        for subset in range(1, 8):
            chosen = [l for l in range(3) if subset >> l & 1]
            total -= (-1) ** len(chosen) * scipy.stats.hypergeom(n, int(sizes[chosen].sum()), int(k)).pmf(0)
        assert predicted.collapse_probability[i] == pytest.approx(total, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("criterion", ["magnitude", "synflow-oneshot"])
def test_probability_of_collapse_agrees_with_the_critical_sparsity(criterion: str) -> None:
    net = network(8, 30)
    drawn = collapse_data_free(net, criterion, samples=4000).critical_sparsity
    s = np.quantile(drawn, [0.1, 0.3, 0.5, 0.7, 0.9])
    predicted = predict_data_free(net, s, criterion)
    shares = np.array([np.mean(drawn <= x) for x in s])
    np.testing.assert_allclose(predicted.collapse_probability, shares, atol=0.06)
    assert (predicted.empty_probability.max(axis=1) <= predicted.collapse_probability + 1e-12).all()
    assert (predicted.empty_probability.sum(axis=1) >= predicted.collapse_probability - 1e-9).all()


def test_uniform_keeps_the_same_fraction_everywhere() -> None:
    net = network(10, 100)
    predicted = predict_data_free(net, SPARSITIES, "uniform")
    assert np.abs(predicted.kept - (1 - SPARSITIES)[:, None]).max() <= 1 / net.weights.min()
    assert (predicted.kept_std == 0).all() and (predicted.collapse_probability == 0).all()


def test_erk_densities_are_proportional_until_full() -> None:
    net = mlp(4, 50, in_features=300, out_features=5, init=(1.0, 0.0))
    raw = np.array([(layer.fan_in + layer.fan_out) / layer.n_weights for layer in net.layers])
    for s, kept in zip(SPARSITIES, predict_data_free(net, SPARSITIES, "erk").kept, strict=True):
        full = kept > 1 - 1e-9
        epsilon = kept[~full] / raw[~full]
        np.testing.assert_allclose(epsilon, epsilon.mean(), rtol=0.02)
        assert (raw[full] * epsilon.mean() >= 0.98).all()
        assert (kept * net.weights).sum() == pytest.approx(net.n_weights - round(s * net.n_weights), abs=1e-6)


@pytest.mark.parametrize("criterion", ["uniform", "erk"])
def test_fixed_densities_by_brute_force(criterion: str) -> None:
    net = mlp(3, 9, in_features=7, out_features=4, init=(1.0, 0.0))
    wants = [
        float(layer.n_weights) if criterion == "uniform" else float(layer.fan_in + layer.fan_out)
        for layer in net.layers
    ]
    # The score of the j-th weight of a layer in random order.
    scores = [q / (np.arange(n) + 0.5) for q, n in zip(wants, net.weights, strict=True)]
    flat = np.sort(np.concatenate(scores))[::-1]
    top = min(s.max() for s in scores)
    drawn = collapse_data_free(net, criterion, samples=3)
    np.testing.assert_allclose(drawn.critical_sparsity, np.mean(flat <= top), rtol=1e-12)
    for k in range(1, net.n_weights):
        kept = predict_data_free(net, 1 - k / net.n_weights, criterion).kept[0] * net.weights
        sure = np.array([(s > flat[k - 1] * (1 + 1e-12)).sum() for s in scores])
        most = np.array([(s > flat[k - 1] * (1 - 1e-12)).sum() for s in scores])
        assert kept.sum() == pytest.approx(k)
        assert (kept >= sure - 1e-9).all() and (kept <= most + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=7),
    st.sampled_from(DATA_FREE_CRITERIA),
    st.sampled_from(["normal", "uniform"]),
    st.floats(0, 0.999),
)
def test_any_network_at_any_sparsity(widths: list[int], criterion: str, law: str, s: float) -> None:
    act = network(2, 3).layers[0].activation
    last = len(widths) - 2
    net = Architecture(
        tuple(
            WeightLayer(f"l{i}", a, b, 1.0 + 0.3 * i, 0.0, act if i < last else None, law)  # type: ignore[arg-type]
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
    )
    left = net.n_weights - round(s * net.n_weights)
    p = predict_data_free(net, s, criterion)
    assert (p.kept * net.weights).sum() == pytest.approx(left, rel=1e-6, abs=1e-9)
    for values in (p.kept, p.empty_probability, p.collapse_probability):
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-12).all()
    assert np.isfinite(p.kept_std).all()
    drawn = collapse_data_free(net, criterion, samples=20).critical_sparsity
    assert ((drawn > 0) & (drawn <= 1)).all()


def test_scale_of_all_weights_does_not_matter() -> None:
    narrow, wide = mlp(5, 30, init=(0.5, 0.0)), mlp(5, 30, init=(2.0, 0.0))
    for criterion in DATA_FREE_CRITERIA:
        first, second = (predict_data_free(net, [0.5, 0.9], criterion).kept for net in (narrow, wide))
        np.testing.assert_allclose(first, second, rtol=1e-9)


@pytest.mark.parametrize("criterion", DATA_FREE_CRITERIA)
def test_seeds_give_the_same_bits(criterion: str) -> None:
    net = network(5, 20)
    one, two = (predict_data_free(net, [0.5, 0.99], criterion, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.kept, two.kept)
    np.testing.assert_array_equal(one.kept_std, two.kept_std)
    first, second = (collapse_data_free(net, criterion, samples=10, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.critical_sparsity, second.critical_sparsity)


def test_nothing_removed() -> None:
    net = network(4, 15)
    for criterion in DATA_FREE_CRITERIA:
        p = predict_data_free(net, 0.0, criterion)
        np.testing.assert_array_equal(p.kept, 1.0)
        np.testing.assert_array_equal(p.kept_std, 0.0)
        np.testing.assert_array_equal(p.collapse_probability, 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda net: predict_data_free(net, 0.5, "snip"),
        lambda net: predict_data_free(net, 1.0, "random"),
        lambda net: predict_data_free(net, [], "random"),
        lambda net: predict_data_free(net, [[0.5]], "random"),
        lambda net: predict_data_free(net, 0.5, criterion_("synflow", rounds=0)),
        lambda net: predict_data_free(net, 0.5, "synflow", seed=-1),
        lambda net: collapse_data_free(net, "grasp"),
        lambda net: collapse_data_free(net, "random", samples=0),
    ],
)
def test_unusable_arguments_are_one_line(call) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(network(3, 10))
    assert "\n" not in str(caught.value)
