"""Predictions without data on graphs of layers, against networks that are really built, scored and pruned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_criteria import DATA_FREE_CRITERIA
from scipy.integrate import quad

from eoc_theory.activations import activation
from eoc_theory.criteria.distributions.magnitudes import HalfNormal, OnSphere, TruncatedHalfNormal, Uniform
from eoc_theory.criteria.synflow.mean_flow import mean_flow, mean_magnitude
from eoc_theory.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Flatten,
    MaxPool,
    Nonlinearity,
    PadChannels,
    Shape,
    Subsample,
    Sum,
    WeightLayer,
)
from eoc_theory.networks.architecture import Architecture
from eoc_theory.networks.builders import cnn, resnet, vgg
from eoc_theory.networks.graph import GraphBuilder
from eoc_theory.pruning.data_free import collapse_data_free, predict_data_free

SPARSITIES = np.array([0.5, 0.8, 0.95])
RELU = activation("relu")


def conv(name: str, channels: int, out: int, kernel: int = 3, stride: int = 1, **options) -> Convolution:
    """A square convolution with half padding, σ_w = √2 unless told otherwise."""
    groups = options.pop("groups", 1)
    law = options.pop("law", "normal")
    weight = WeightLayer(
        name, channels // groups * kernel**2, out, 2**0.5, 0.0, RELU, law, kernel=(kernel, kernel)
    )
    settings = {"padding": ((kernel // 2,) * 2,) * 2, "dilation": (1, 1), "groups": groups} | options
    return Convolution(name, weight, (stride, stride), **settings)


def dense(name: str, fan_in: int, fan_out: int) -> Dense:
    return Dense(name, WeightLayer(name, fan_in, fan_out, 1.0, 0.0))


def every_layer() -> Architecture:
    """Strides, dilation, circular padding, all pools, a scaled sum, padded channels, a concatenation."""
    b = GraphBuilder(Shape(3, (15, 15)))
    b.add(conv("stem", 3, 8, 5))
    start = b.add(MaxPool("max", (3, 3), (2, 2), (1, 1), (1, 1)))
    b.add(conv("one", 8, 8, dilation=(2, 2), padding=((2, 2), (2, 2))), start)
    b.add(BatchNorm("norm", True))
    branch = b.add(conv("two", 8, 8, padding_mode="circular"))
    both = b.add(Sum("sum", (1.0, -0.5)), start, branch)
    short = b.add(PadChannels("pad", 4, 4), b.add(Subsample("half", (2, 2)), both))
    wide = b.add(conv("three", 8, 16, stride=2), both)
    joined = b.add(Sum("sum2", (1.0, 1.0)), short, wide)
    pooled = b.add(AveragePool("average", (2, 2), (2, 2), (0, 0)), joined)
    left, right = b.add(conv("four", 16, 6, 1), pooled), b.add(conv("five", 16, 10), pooled)
    b.add(Concatenate("cat"), left, right)
    b.add(conv("six", 16, 16, groups=4))
    b.add(Nonlinearity("relu", RELU))
    b.add(AdaptiveAveragePool("two by one", (2, 1)))
    b.add(Flatten("flat"))
    b.add(dense("fc", 32, 5))
    return Architecture.from_graph(b.build())


def zeros(net: Architecture):
    """One input, for its shape."""
    import torch

    return torch.zeros(1, net.input_shape.channels, *net.input_shape.space)


def layer_totals(net: Architecture) -> np.ndarray:
    """Log of the sum of the mean scores of every layer, (L,)."""
    return np.array(
        [
            np.log(mean_magnitude(layer)[0] * layer.n_weights * f.tap.mean()) + f.log_scale
            for layer, f in zip(net.layers, mean_flow(net), strict=True)
        ]
    )


@pytest.mark.parametrize("law", [HalfNormal(), Uniform(), TruncatedHalfNormal(), OnSphere(2), OnSphere(7)])
def test_magnitude_laws_agree_with_themselves_and_their_draws(law) -> None:
    p = np.array([0.95, 0.5, 0.1, 0.01])
    x = law.upper_quantile(p)
    np.testing.assert_allclose(law.survival(x), p, rtol=1e-9)
    step = 1e-6
    slope = (law.survival(x * (1 - step)) - law.survival(x * (1 + step))) / (2 * step)
    np.testing.assert_allclose(law.log_density(x), slope, rtol=1e-3)
    for limit in (0.0, *x[:2]):
        area = quad(law.survival, limit, 50, limit=300, points=[1.0, 1.5, 2.0, 3.0])[0]
        above = limit * float(law.survival(np.array(limit))) + area
        assert float(law.partial_mean(np.array(limit))) * law.mean == pytest.approx(above, rel=1e-5)
    draws = law.draw(np.random.default_rng(0), 200_000, np.float64)
    assert np.mean(draws**2) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose([(draws > t).mean() for t in x], p, atol=0.004)


@pytest.mark.parametrize(
    "net",
    [
        cnn(6, 12, input_shape=(3, 9, 9), padding_mode="zeros", strides=(2,), head="flatten"),
        cnn(5, 10, input_shape=(2, 8, 8), padding_mode="circular", pool=(1,)),
        vgg(11, width=4),
    ],
    ids=["zeros", "circular", "vgg"],
)
def test_a_chain_conserves_the_total_score(net: Architecture) -> None:
    """Tanaka et al. 2020, theorem 1: every layer of a chain has the same total."""
    totals = layer_totals(net)
    np.testing.assert_allclose(totals, totals[0], atol=1e-9)


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
def test_a_cut_through_a_residual_network_holds_the_whole_score(shortcut: str) -> None:
    net = resnet(8, width=6, shortcut=shortcut, input_shape=(3, 8, 8))
    totals = dict(zip(net.weight_layers, np.exp(layer_totals(net) - layer_totals(net)[-1]), strict=True))
    names = list(totals)
    assert totals[names[0]] == pytest.approx(1.0, rel=0.02)  # the stem carries all, as the last layer does
    shares = [share for name, share in totals.items() if name not in (names[0], names[-1])]
    assert all(share < 1.0 for share in shares)
    if shortcut == "conv":
        graph = net.graph
        assert graph is not None
        small = [totals[layer.name] for layer in net.layers if layer.kernel == (1, 1)]
        before = [
            totals[net.layers[k - 1].name] for k, layer in enumerate(net.layers) if layer.kernel == (1, 1)
        ]
        assert len(small) == 2
        np.testing.assert_allclose(np.add(small, before), 1.0, rtol=0.02)


def test_depth_does_not_overflow() -> None:
    totals = layer_totals(cnn(400, 200, input_shape=(3, 8, 8), padding_mode="zeros"))
    assert totals[0] > np.log(1e300)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-9)


def test_mean_scores_of_every_kind_of_layer() -> None:
    """All weights of a layer equal: the mean network is the network, but for profiles that meet in sums."""
    torch = pytest.importorskip("torch")
    from eoc_theory.pytorch.positive_network import flow_scores

    net = every_layer()
    assert net.graph is not None
    weights = {
        layer.name: torch.full(layer.weight_shape, mean_magnitude(layer)[0], dtype=torch.float64)
        for layer in net.layers
    }
    real = [s.numpy() for s in flow_scores(net.graph, weights)]
    flow = mean_flow(net)
    found = []
    for layer, f in zip(net.layers, flow, strict=True):
        rows = f.row.reshape(f.groups, -1)
        columns = f.column.reshape(f.groups, -1)
        cells = (rows[:, :, None] * columns[:, None, :]).reshape(layer.fan_out, layer.channels_in)
        scores = np.exp(f.log_scale - flow[0].log_scale) * cells[:, :, None] * f.tap
        found.append(mean_magnitude(layer)[0] * scores.reshape(layer.weight_shape))
    factor = real[0].sum() / found[0].sum()
    for layer, r, f in zip(net.layers, real, found, strict=True):
        assert np.abs(f * factor - r).mean() < 0.06 * r.mean(), layer.name
        assert f.sum() * factor == pytest.approx(r.sum(), rel=0.02), layer.name


@pytest.mark.parametrize("law", ["normal", "uniform", "truncated", "orthogonal"])
def test_magnitude_and_one_shot_synflow_match_pruned_networks(law: str) -> None:
    pytest.importorskip("torch")
    from eoc_theory.pytorch.measure.measure import measure_pruning

    net = resnet(8, width=12, input_shape=(3, 12, 12), law=law)
    for criterion in ("magnitude", "synflow-oneshot"):
        measured = [
            measure_pruning(
                net.to_torch(seed=seed), SPARSITIES, criterion=criterion, example_input=zeros(net)
            )
            for seed in range(8)
        ]
        kept = np.mean([m.kept for m in measured], axis=0)
        error = np.abs(predict_data_free(net, SPARSITIES, criterion).kept - kept)
        # Small layers are what few seeds leave uncertain.
        assert (error @ net.weights).max() / net.n_weights < 0.004
        assert error.mean() < 0.01
        left = np.log10([1 - m.critical_sparsity for m in measured])
        drawn = np.log10(1 - collapse_data_free(net, criterion, samples=500).critical_sparsity)
        assert abs(np.median(left) - np.median(drawn)) < 0.15


def test_fixed_densities_keep_what_the_measured_pruner_keeps() -> None:
    pytest.importorskip("torch")
    from eoc_theory.pytorch.measure.measure import measure_pruning

    net = vgg(11, width=8)
    model = net.to_torch(seed=0)
    for criterion in ("erk", "uniform", "smart-ratio", "smart-ratio(power=2)"):
        measured = measure_pruning(model, SPARSITIES, criterion=criterion)
        predicted = predict_data_free(net, SPARSITIES, criterion)
        assert np.abs((predicted.kept - measured.kept) * net.weights).max() <= 1.0 + 1e-9
        drawn = collapse_data_free(net, criterion, samples=1).critical_sparsity[0]
        assert drawn == pytest.approx(measured.critical_sparsity, abs=2 / net.n_weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        resnet(8, width=10, input_shape=(3, 12, 12)),
        cnn(5, 20, input_shape=(3, 10, 10), padding_mode="zeros", head="flatten"),
    ],
    ids=["resnet", "cnn"],
)
def test_a_hundred_rounds_of_synflow_match_pruned_networks(net: Architecture) -> None:
    pytest.importorskip("torch")
    from eoc_theory.pytorch.measure.measure import measure_pruning

    s = [0.9]
    kept = np.mean(
        [
            measure_pruning(
                net.to_torch(seed=seed), s, criterion="synflow", collapse=False, example_input=zeros(net)
            ).kept
            for seed in range(2)
        ],
        axis=0,
    )
    error = np.abs(predict_data_free(net, s, "synflow").kept - kept)
    assert error.mean() < 0.015


def test_a_network_is_pruned_as_its_positions_would_have_it() -> None:
    """The same weights, with signals as products of channels and positions, and in truth."""
    torch = pytest.importorskip("torch")
    from eoc_theory.criteria.synflow.graph import Run
    from eoc_theory.criteria.synflow.sampled_flow import plan_of
    from eoc_theory.pytorch.positive_network import flow_scores

    net = resnet(8, width=8, input_shape=(3, 10, 10))
    graph, n, rounds = net.graph, net.n_weights, 20
    assert graph is not None
    run = Run(plan_of(net), np.random.default_rng(0))
    weights = {
        layer.name: torch.from_numpy(
            entries.value.reshape(layer.weight_shape).astype(float) * layer.weight_std
        )
        for layer, entries in zip(net.layers, run.entries.values(), strict=True)
    }
    for k in range(1, rounds + 1):
        left = round(n * 0.1 ** (k / rounds))
        scores = flow_scores(graph, weights)
        flat = torch.cat(
            [
                torch.where(weights[l.name] > 0, s, -1.0).ravel()
                for l, s in zip(graph.weight_layers, scores, strict=True)
            ]
        )
        limit = flat.sort(descending=True).values[left - 1]
        for layer, score in zip(graph.weight_layers, scores, strict=True):
            weights[layer.name] = weights[layer.name] * (score >= limit)
        run.round(left)
    real = np.array([int((weights[name] > 0).sum()) for name in net.weight_layers])
    assert abs(int(run.sizes().sum()) - left) <= 0.002 * left
    assert np.abs(run.sizes() - real).sum() < 0.03 * left


@pytest.mark.slow
def test_shortcut_convolutions_vanish() -> None:
    net = resnet(14, width=16, input_shape=(3, 16, 16))
    small = np.array([layer.kernel == (1, 1) for layer in net.layers])
    beside = np.flatnonzero(small) - 1
    for criterion in ("synflow-oneshot", "synflow"):
        kept = predict_data_free(net, 0.9, criterion).kept[0]
        assert (kept[small] < 0.3 * kept[beside]).all()


def test_wide_levels_are_sampled_and_stand_for_all() -> None:
    from eoc_theory.criteria.synflow import graph as graph_synflow
    from eoc_theory.criteria.synflow.sampled_flow import plan_of

    net = cnn(4, 48, input_shape=(3, 8, 8), padding_mode="zeros")
    path, reported = graph_synflow.schedule(np.log([0.2, 0.05]), 12)
    found = [
        np.mean(
            [graph_synflow._follow(plan, np.random.default_rng([1, r]), path, reported) for r in range(6)],
            axis=0,
        )
        for plan in (plan_of(net), plan_of(net, 16))
    ]
    assert plan_of(net, 16).sampled < 0.5 * net.n_weights
    assert np.abs(found[0] - found[1]).mean() < 0.012


@st.composite
def small_graphs(draw) -> Architecture:
    """A few layers of few channels: strides, windows, groups, sums, pools, any law."""
    space = draw(st.integers(1, 6))
    channels = draw(st.integers(1, 4))
    b = GraphBuilder(Shape(channels, (space, space)))
    for k in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "residual", "concatenate", "max", "average", "pad", "group"]))
        law = draw(st.sampled_from(["normal", "uniform", "truncated", "orthogonal"]))
        last = len(b.nodes) - 1
        shape = _shape(b)
        kernel = draw(st.sampled_from([1, 3]))
        if kind == "conv":
            b.add(
                conv(
                    f"c{k}", shape.channels, draw(st.integers(1, 5)), kernel, draw(st.integers(1, 2)), law=law
                )
            )
        elif kind == "group":
            b.add(conv(f"c{k}", shape.channels, 2 * shape.channels, kernel, groups=shape.channels, law=law))
        elif kind == "residual":
            branch = b.add(conv(f"c{k}", shape.channels, shape.channels, kernel, law=law))
            b.add(Sum(f"s{k}", (1.0, draw(st.sampled_from([1.0, 0.1, -2.0])))), last, branch)
        elif kind == "concatenate":
            branch = b.add(conv(f"c{k}", shape.channels, 2, kernel, law=law))
            b.add(Concatenate(f"k{k}"), last, branch)
        elif kind == "max" and shape.space[0] > 1:
            b.add(MaxPool(f"p{k}", (2, 2), (2, 2), (0, 0), (1, 1)))
        elif kind == "average" and shape.space[0] > 1:
            b.add(AveragePool(f"p{k}", (2, 2), (1, 1), (1, 1)))
        else:
            b.add(PadChannels(f"p{k}", 1, 0))
    shape = _shape(b)
    b.add(Flatten("flat"))
    b.add(dense("fc", shape.size, draw(st.integers(1, 3))))
    return Architecture.from_graph(b.build())


def _shape(b: GraphBuilder) -> Shape:
    """Shape of the last node so far."""
    shapes: list[Shape] = []
    for node in b.nodes:
        shapes.append(node.layer.output_shape(*(shapes[k] for k in node.inputs)))
    return shapes[-1]


@settings(max_examples=40, deadline=None)
@given(small_graphs(), st.sampled_from(DATA_FREE_CRITERIA), st.floats(0, 0.999))
def test_any_graph_at_any_sparsity(net: Architecture, criterion: str, s: float) -> None:
    left = net.n_weights - round(s * net.n_weights)
    p = predict_data_free(net, s, criterion)
    assert (p.kept * net.weights).sum() == pytest.approx(left, rel=1e-6, abs=1e-9)
    for values in (p.kept, p.empty_probability, p.collapse_probability):
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-12).all()
    assert np.isfinite(p.kept_std).all()
    drawn = collapse_data_free(net, criterion, samples=3)
    assert ((drawn.critical_sparsity > 0) & (drawn.critical_sparsity <= 1)).all()
    assert drawn.weakest_layer.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("criterion", DATA_FREE_CRITERIA)
def test_seeds_give_the_same_bits_and_the_scale_of_all_weights_does_not_matter(criterion: str) -> None:
    one, two = (cnn(3, 8, input_shape=(2, 6, 6), activation="relu", sigma_w=w) for w in (0.5, 2.0))
    kept = [predict_data_free(net, [0.5, 0.95], criterion, seed=4).kept for net in (one, one, two)]
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_allclose(kept[0], kept[2], atol=2e-3)
    assert all(a >= b for a, b in itertools.pairwise(kept[0].sum(axis=1)))
