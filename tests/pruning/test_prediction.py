"""Predictions against really pruned networks, and the invariants that every prediction keeps."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_criteria import CRITERIA
from sampled_networks import sampled_network
from scipy.special import erfc

import eoc_theory as eoc
from eoc_theory.criteria.distributions.gradients import Draws, ScoreLaws, layer_sampler, max_law
from eoc_theory.errors import ArgumentError, ModelError
from eoc_theory.networks.architecture import mlp
from eoc_theory.propagation.conditioned_chain import sample_scales
from eoc_theory.propagation.infinite_width import propagate
from eoc_theory.propagation.scale_statistics import GAUSSIAN_MEAN_LOG, participation
from eoc_theory.propagation.score_grid import GRID, STEP
from eoc_theory.pruning.allocation import kept_fractions, mean_network, threshold
from eoc_theory.pruning.collapse import paper_bound
from eoc_theory.pruning.prediction import network_laws, predict_pruning

SPARSITIES = (0.3, 0.7, 0.95)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_kept_fractions_add_up(criterion):
    net = mlp(5, 30, activation="tanh")
    result = predict_pruning(net, SPARSITIES, criterion=criterion, data=eoc.digits(30))
    assert result.kept.shape == (3, 5)
    total = result.kept @ net.weights / net.n_weights
    assert total == pytest.approx(1 - np.array(SPARSITIES), abs=5e-3)
    assert ((result.kept >= 0) & (result.kept <= 1)).all()
    assert (result.kept_std >= 0).all() and (result.empty_probability >= 0).all()
    assert (result.collapse_probability >= result.empty_probability.max(axis=1) - 1e-9).all()


@pytest.mark.parametrize(
    ("activation", "init", "depth"),
    [("tanh", "eoc", 12), ("relu", "eoc", 12), ("tanh", (1.0, 0.2), 12), ("elu", (1.3, 0.2), 8)],
)
def test_snip_against_sampled_networks(activation, init, depth):
    """Width 80, 30 seeds: the mean to 0.02 a layer on average, the spread to a third."""
    net = mlp(depth, 80, activation=activation, init=init)
    data = eoc.digits(40)
    predicted = predict_pruning(net, 0.8, data=data)
    kept = [pruned(net, data, 0.8, seed) for seed in range(30)]
    assert np.abs(predicted.kept - np.mean(kept, axis=0)).mean() < 0.02
    assert predicted.kept_std.mean() == pytest.approx(np.std(kept, axis=0, ddof=1).mean(), rel=0.34)


def pruned(net, data, sparsity, seed):
    """Kept per layer of one network scored in NumPy."""
    from eoc_theory.propagation.infinite_width import loss_gradient

    rng = np.random.default_rng(seed)
    h, layers = data[0], []
    for layer in net.layers:
        w = rng.standard_normal((layer.fan_out, layer.fan_in)) * layer.weight_std
        y = h @ w.T + layer.sigma_b * rng.standard_normal(layer.fan_out)
        layers.append((w, h, y))
        h = layer.activation(y) if layer.activation else y
    delta = loss_gradient(h, data[1])
    scores = []
    for index in range(net.depth - 1, -1, -1):
        w, below, _ = layers[index]
        scores.append(np.abs(w * (delta.T @ below)).ravel())
        if index:
            slope = net.layers[index - 1].activation.derivative(1)
            delta = (delta @ w) * slope(layers[index - 1][2])
    scores = scores[::-1]
    pooled = np.concatenate(scores)
    cut = np.partition(pooled, round(sparsity * len(pooled)))[round(sparsity * len(pooled))]
    return np.array([np.mean(s >= cut) for s in scores])


def test_conditioned_chain_has_the_spread_of_real_networks():
    """ReLU as deep as wide, one input: plain gradient independence would overstate it by a third or more."""
    net = mlp(40, 40, activation="relu")
    data = eoc.digits(10)
    data = (data[0][:1], data[1][:1])
    batch = net.summarise(data)
    kernels = propagate(net, batch)
    chain = sample_scales(net, batch, kernels.top, 240, seed=0).log_rms
    rng = np.random.default_rng(0)
    real = 0.5 * np.log([sampled_network(net, *data, rng)[0] for _ in range(240)])
    spread = [np.std(a - a.mean(axis=1, keepdims=True), axis=0) for a in (chain, real)]
    assert spread[0].mean() == pytest.approx(spread[1].mean(), rel=0.12)
    assert np.std(chain, axis=0).mean() == pytest.approx(np.std(real, axis=0).mean(), rel=0.15)


def test_results_do_not_depend_on_workers():
    net = mlp(6, 20, activation="tanh")
    batch = net.summarise(eoc.digits(8))
    top = propagate(net, batch).top
    one, two = (sample_scales(net, batch, top, 20, seed=5, workers=n) for n in (1, 3))
    assert np.array_equal(one.quantiles, two.quantiles) and np.array_equal(one.log_rms, two.log_rms)
    # More samples are a continuation of fewer.
    assert np.array_equal(sample_scales(net, batch, top, 9, seed=5).log_rms, one.log_rms[:9])


def test_same_seed_same_bits():
    net = mlp(4, 20)
    a, b = (predict_pruning(net, 0.9, data=eoc.digits(20), seed=2) for _ in range(2))
    assert np.array_equal(a.kept, b.kept) and np.array_equal(a.kept_std, b.kept_std)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.lists(st.floats(-20, 20), min_size=2, max_size=6),
    dead=st.floats(0, 0.9),
    sparsity=st.floats(0, 0.999),
)
def test_threshold_splits_any_laws(scale, dead, sparsity):
    """Σ n_l kept_l = (1−s) Σ n_l, whatever the scales and the atoms at zero."""
    depth = len(scale)
    tail = np.tile(erfc(np.exp(GRID) / 2**0.5), (depth, 1))
    laws = ScoreLaws(np.array(scale), np.full(depth, 1 - dead), tail, tail)
    weights = np.arange(1, depth + 1) * 1000
    network = mean_network(laws, weights)
    s = np.array([sparsity])
    kept = kept_fractions(network, s, threshold(network, s))[0, 0]
    assert kept @ weights / weights.sum() == pytest.approx(1 - sparsity, abs=1e-4)
    order = np.argsort(scale)
    assert (np.diff(kept[order]) > -1e-6).all()


@pytest.mark.parametrize("clustered", [False, True])
def test_law_of_the_largest_score(clustered):
    """Layers of 40 rows with row maxima on an exponential law, alone or with a factor common to the layer."""
    rng = np.random.default_rng(0)

    def layers(number):
        common = rng.normal(0, 0.3, (number, 1)) if clustered else 0.0
        return rng.exponential(0.3, (number, 40)) + common

    bins = np.clip((layers(64) - GRID[0]) / STEP + 0.5, 0, len(GRID) - 1).astype(np.int64)
    cdf = max_law(bins, 40)
    largest = layers(4000).max(axis=1)
    assert (np.diff(cdf) >= -1e-12).all() and cdf[-1] == pytest.approx(1.0)
    assert np.interp(0.5, cdf, GRID) == pytest.approx(np.median(largest), abs=0.1)
    if not clustered:
        for p in (0.1, 0.9):
            assert np.interp(np.quantile(largest, p), GRID, cdf) == pytest.approx(p, abs=0.06)


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_sampled_layers_have_the_scores_of_real_ones(law):
    """The layer before the last of a wide network: quantiles of |W g| relative to its scale, to 4 %."""
    net = mlp(3, 150, activation="relu", law=law, sigma_w=2**0.5)
    data = eoc.digits(40)
    batch = net.summarise(data)
    kernels = propagate(net, batch)
    sample = layer_sampler(net, batch, kernels, 1, Draws(1))
    sampled = np.concatenate([sample(repeat).ravel() for repeat in range(20)])
    real = np.concatenate([hidden_scores(net, data, np.random.default_rng(seed)) for seed in range(20)])
    levels = (0.5, 0.9, 0.99)
    assert np.quantile(sampled, levels) == pytest.approx(np.quantile(real, levels), rel=0.08)
    assert np.mean(sampled == 0) == pytest.approx(np.mean(real == 0), abs=0.02)


def hidden_scores(net, data, rng):
    """|W g| over √(Var W · mean g²) in the second layer of one real network, by torch."""
    torch = pytest.importorskip("torch")
    model = net.to_torch(int(rng.integers(1 << 30))).double()
    weight = [p for p in model.parameters() if p.ndim == 2][1]
    inputs, targets = torch.tensor(data[0]), torch.tensor(data[1])
    loss = torch.nn.functional.cross_entropy(model(inputs), targets)
    (g,) = torch.autograd.grad(loss, weight)
    scores = (weight * g).abs() / (weight.std() * (g**2).mean().sqrt())
    return scores.detach().numpy().ravel()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_grasp_keeps_what_real_networks_keep(activation):
    """With signs: negative scores go first, then those of dead units, which are 0, then positive ones."""
    pytest.importorskip("torch")
    net, data = mlp(6, 40, activation=activation), eoc.digits(50)
    sparsity = [0.0, 0.2, 0.5, 0.9]
    result = predict_pruning(net, sparsity, criterion="grasp", data=data)
    assert result.kept[0] == pytest.approx(1.0)
    measured = [
        eoc.measure_pruning(net.to_torch(seed), sparsity, criterion="grasp", data=data, masks=False).kept
        for seed in range(10)
    ]
    assert np.abs(result.kept - np.mean(measured, axis=0)).mean(axis=1).max() < 0.02


def test_without_data():
    result = predict_pruning(mlp(4, 20, in_features=12, out_features=3), 0.9)
    assert result.kept.shape == (4,) and isinstance(result.collapse_probability, float)


def test_table_and_json():
    result = predict_pruning(mlp(3, 10), [0.5, 0.9], criterion="magnitude")
    frame = result.to_frame()
    names = ["layer", "weights", "sparsity", "kept", "kept_std", "empty_probability", "zero_scores"]
    assert list(frame.columns) == names
    assert len(frame) == 6
    assert json.loads(result.to_json())["kept"] == result.kept.tolist()
    # JSON knows no nan.
    unknown = replace(result, kept_error=np.array([0.1, np.nan]), kept_error_bound=np.nan)
    assert unknown.to_dict()["kept_error"] == [0.1, None]
    assert json.loads(unknown.to_json())["kept_error_bound"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"net": 3},
            "net must be an Architecture, a torch.nn.Module or a function that returns one, got int",
        ),
        ({"sparsity": 1.0}, r"sparsity must be a number in \[0, 1\), got 1"),
        ({"sparsity": []}, "sparsity must hold at least one number"),
        ({"criterion": "obd"}, "criterion must be one of 'snip', 'grasp'"),
        ({"samples": 1}, "samples must be a whole number >= 2, got 1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        predict_pruning(**{"net": mlp(2, 4), "sparsity": 0.5, **arguments})


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (2, 3)])
def test_tiny_networks(shape):
    depth, width = shape
    result = predict_pruning(mlp(depth, width), 0.5, data=eoc.digits(20))
    assert np.isfinite(result.kept).all() and np.isfinite(result.kept_std).all()


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_layers_of_few_weights_vary_no_more_than_they_can(width, sparsity):
    found = predict_pruning(mlp(3, width, activation="relu"), sparsity, data=eoc.digits(20))
    assert (found.kept_std <= np.sqrt(found.kept * (1.0 - found.kept)) + 1e-12).all()
    assert (found.empty_probability <= 1.0 - found.kept + 1e-12).all()


def test_collapse_against_sampled_networks():
    """40 seeds: the median of log₁₀(1 − s_cr) to 0.2, and probabilities that agree with the samples."""
    pytest.importorskip("torch")
    net, data = mlp(10, 60, activation="tanh"), eoc.digits(40)
    predicted = eoc.predict_collapse(net, data=data)
    measured = np.array(
        [
            eoc.measure_pruning(net.to_torch(seed), 0.5, data=data, masks=False).critical_sparsity
            for seed in range(40)
        ]
    )
    error = np.log10(1 - predicted.quantile(0.5)) - np.log10(1 - np.median(measured))
    assert abs(error) < 0.2
    inside = np.mean((measured >= predicted.quantile(0.05)) & (measured <= predicted.quantile(0.95)))
    assert inside > 0.65


def test_collapse_law_is_a_law():
    result = eoc.predict_collapse(mlp(6, 20, activation="relu"), data=eoc.digits(20), samples=16)
    levels = np.linspace(0, 1, 9)
    assert (np.diff(result.quantile(levels)) >= 0).all()
    assert result.probability(0.0) == 0.0 and result.probability(1.0) == 1.0
    assert result.weakest_probability.sum() == pytest.approx(1.0)
    assert result.weakest_layer in result.layers
    assert result.critical_sparsity == pytest.approx(result.samples.mean())
    assert json.loads(result.to_json())["weakest_layer"] == result.weakest_layer
    assert "NaN" not in replace(result, median_error=np.nan).to_json()
    with pytest.raises(ArgumentError, match=r"p must lie in \[0, 1\]"):
        result.quantile(1.5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_scores_that_are_all_0_are_refused(criterion):
    # One logit is always right: no gradient, whatever the weights.
    net = eoc.mlp(3, 10, activation="relu", in_features=5, out_features=1)
    data = np.random.default_rng(0).normal(size=(8, 5)), np.zeros(8, dtype=int)
    calls = (
        lambda: eoc.predict_pruning(net, 0.75, criterion=criterion),
        lambda: eoc.predict_collapse(net, criterion=criterion),
        lambda: eoc.diagnose(net, criterion=criterion),
        lambda: eoc.design(net, 0.75, criterion=criterion),
        lambda: eoc.compare(net, 0.75, criterion=criterion, seeds=1),
        lambda: eoc.measure_pruning(net.to_torch(0), 0.5, criterion=criterion, data=data),
    )
    for call in calls:
        with pytest.raises(ModelError, match=r"scores are 0, so that there is nothing to rank.*one logit"):
            call()


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_seeds_are_whole_numbers(seed):
    net = eoc.mlp(3, 10, activation="tanh", in_features=5)
    calls = (
        lambda: eoc.predict_pruning(net, 0.5, seed=seed),
        lambda: eoc.predict_collapse(net, seed=seed),
        lambda: net.propagate(seed=seed),
        lambda: eoc.propagate_summary(net, seed=seed),
    )
    for call in calls:
        with pytest.raises(ArgumentError, match="seed must be a whole number >= 0, got"):
            call()


def test_deep_ordered_networks_collapse_at_the_input():
    result = eoc.predict_collapse(mlp(60, 50, activation="tanh", init=(0.7, 0.1)), data=eoc.digits(20))
    assert result.weakest_probability[:20].sum() > 0.95
    assert result.critical_sparsity < 0.5


def test_laws_of_both_kinds_share_their_weights():
    laws, wide = network_laws(mlp(4, 20), eoc.digits(20), samples=4)
    assert len(laws.t) == 4 and len(wide.t) == 1 and np.array_equal(laws.weights, wide.weights)


@pytest.mark.parametrize("sigma_w", [0.6, 0.1, 10.0])
def test_signals_of_any_size_in_homogeneous_networks(sigma_w):
    """Without biases a ReLU network's scores differ between layers as on the edge of chaos, however small."""
    data = eoc.digits(20)
    networks = [mlp(60, 60, activation="relu", init=(s, 0.0)) for s in (sigma_w, 2**0.5)]
    scales = []
    for net in networks:
        batch = net.summarise(data)
        # Logits of one size: only the path to them differs.
        top = propagate(networks[1], batch).top
        log_rms = sample_scales(net, batch, top, 32, seed=0).log_rms
        scales.append((log_rms - log_rms[:, :1]).mean(axis=0))
    assert scales[0][:-1] == pytest.approx(scales[1][:-1], abs=1.5)
    assert np.isfinite(scales[0]).all()


def test_participation_counts_directions():
    one = np.ones((1, 6, 6))
    assert participation(one, one) == pytest.approx([1.0])
    assert participation(np.eye(6)[None], np.eye(6)[None]) == pytest.approx([6.0])
    z = np.random.default_rng(0).standard_normal(400_000)
    assert np.log(np.abs(z)).mean() == pytest.approx(GAUSSIAN_MEAN_LOG, abs=0.01)


def test_bound_is_given_where_the_theorem_applies():
    def bound(**init):
        return paper_bound(mlp(100, 100, **init), "snip")

    assert bound(activation="tanh", init=(0.5, 0.2)) == pytest.approx(0.665, abs=0.005)
    assert bound(activation="tanh") is None  # on the edge of chaos
    assert bound(activation="relu", init=(0.6, 0.0)) is None  # no fixed point of the variance
    assert paper_bound(mlp(5, 20), "random") is None


@pytest.mark.parametrize("first", ["convolution", "linear"])
def test_data_show_the_shape_of_a_torch_models_inputs(first):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    images = (np.random.default_rng(0).normal(size=(12, 1, 6, 6)), np.arange(12) % 4)
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4))
    # One that takes vectors is given its images flat, as measure_pruning does.
    linear = nn.Sequential(nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))
    model, example = (convolution, images[0]) if first == "convolution" else (linear, None)
    net = eoc.Architecture.from_torch(model, example)
    found, same = (eoc.predict_pruning(one, 0.5, data=images, samples=40) for one in (model, net))
    law, same_law = (eoc.predict_collapse(one, data=images, samples=40) for one in (model, net))
    if first == "linear":
        # A chain is read, and theory answers.
        assert np.array_equal(found.kept, same.kept) and found.method == same.method == "theory"
        assert np.array_equal(law.samples, same_law.samples)
    else:
        assert found.method == "sampled"
        # Two standard errors of 40 networks each, and what one layer's scale is off.
        assert np.allclose(found.kept, same.kept, atol=2.0 * max(found.kept_std) * math.sqrt(2 / 40) + 0.01)
        assert np.median(law.samples) == pytest.approx(np.median(same_law.samples), abs=0.05)
