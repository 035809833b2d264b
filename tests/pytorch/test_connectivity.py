"""Paths from the input to the logits through what pruning leaves, and masks chosen on them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ArgumentError, ModelError  # noqa: E402
from eoc_theory.layers import Dense, Shape, Sum, WeightLayer  # noqa: E402
from eoc_theory.networks.graph import GraphBuilder  # noqa: E402
from eoc_theory.pytorch.measure.connectivity import (  # noqa: E402
    ChainPaths,
    GraphPaths,
    Paths,
    connected_weights,
)
from eoc_theory.pytorch.measure.layerwise import _covering, best_masks, path_masks, synflow_layers  # noqa: E402
from eoc_theory.pytorch.measure.scoring import synflow_start  # noqa: E402
from eoc_theory.pytorch.models import prunable_weights  # noqa: E402


def on_paths(masks: list[np.ndarray]) -> list[np.ndarray]:
    """The weights on paths, by walking every path of a small chain."""
    used = [np.zeros_like(mask) for mask in masks]

    def walk(layer: int, unit: int, taken: list[tuple[int, int, int]]) -> None:
        if layer == len(masks):
            for at, i, j in taken:
                used[at][i, j] = True
            return
        for i in np.flatnonzero(masks[layer][:, unit]):
            walk(layer + 1, int(i), [*taken, (layer, int(i), unit)])

    for unit in range(masks[0].shape[1]):
        walk(0, unit, [])
    return used


def random_masks(rng: np.random.Generator, density: float = 0.3) -> list[np.ndarray]:
    sizes = (4, 6, 5, 6, 3)
    return [rng.random((b, a)) < density for a, b in pairwise(sizes)]


@pytest.mark.parametrize("seed", range(12))
def test_both_ways_of_finding_ways_agree_with_walking_them(seed):
    masks = random_masks(np.random.default_rng(seed))
    model = nn.Sequential(*(nn.Linear(mask.shape[1], mask.shape[0]) for mask in masks))
    tensors = [torch.from_numpy(mask) for mask in masks]
    expected = on_paths(masks)
    weights = prunable_weights(model)
    chain = Paths.through(model, weights)
    assert isinstance(chain, ChainPaths)
    build = GraphBuilder(Shape(4))
    for index, mask in enumerate(masks):
        name = str(index)
        build.add(Dense(name, WeightLayer(name, mask.shape[1], mask.shape[0], 1.0, 0.0, None)))
    graph = GraphPaths(chain.names, build.build())
    for ways in (chain, graph):
        for found, wanted in zip(ways.on_path(tensors), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted)
    counts = connected_weights(model, dict(zip(chain.names, masks, strict=True)))
    assert list(counts.values()) == [int(one.sum()) for one in expected]


def test_a_shortcut_goes_round_an_emptied_branch():
    net = eoc.resnet(8, width=4, normalisation=None, input_shape=(3, 8, 8), classes=4)
    model = net.to_torch(0)
    example = (1, 3, 8, 8)
    whole = connected_weights(model, example_input=example)
    assert list(whole.values()) == net.weights.tolist()
    emptied = net.weight_layers[2]
    masks = {emptied: np.zeros(net.layers[2].weight_shape, dtype=bool)}
    left = connected_weights(model, masks, example_input=example)
    assert left[emptied] == 0
    # The layer before it in the same branch leads nowhere now; all others do as before.
    assert left[net.weight_layers[1]] == 0
    assert all(left[name] == whole[name] for name in net.weight_layers if name not in net.weight_layers[1:3])


@pytest.mark.parametrize("seed", range(6))
def test_paths_through_a_layer_are_those_of_walking_them(seed):
    """a, then b and c with a shortcut round them, then d: ways a-d and ways a-b-c-d."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (5, 3), "b": (4, 5), "c": (5, 4), "d": (2, 5)}
    masks = {name: rng.random(shape) < 0.3 for name, shape in shapes.items()}
    build = GraphBuilder(Shape(3))
    last = {}
    for name, (units, inputs) in shapes.items():
        if name == "d":
            build.add(Sum("sum", (1.0, 1.0)), last["a"], last["c"])
        last[name] = build.add(Dense(name, WeightLayer(name, inputs, units, 1.0, 0.0, None)))
    ways = GraphPaths(tuple(shapes), build.build())
    a, b, c, d = (mask.astype(float) for mask in masks.values())
    long = "ji,bj,kb,ok->"
    wanted = {
        # Every way, of either kind, goes through a and d.
        "a": [
            np.einsum(long + "ji", a, b, c, d) + np.einsum("ji,oj->ji", a, d),
            *(np.einsum(long + own, a, b, c, d) for own in ("bj", "kb")),
            np.einsum(long + "ok", a, b, c, d) + np.einsum("ji,oj->oj", a, d),
        ],
        "b": [np.einsum(long + own, a, b, c, d) for own in ("ji", "bj", "kb", "ok")],
    }
    wanted |= {"c": wanted["b"], "d": wanted["a"]}
    tensors = [torch.from_numpy(mask) for mask in masks.values()]
    for index, name in enumerate(shapes):
        for found, expected in zip(ways.on_path_through(tensors, index), wanted[name], strict=True):
            np.testing.assert_array_equal(found.numpy(), expected > 0)


def test_in_a_row_of_layers_every_way_goes_through_each():
    ways, _ = chain_of(3, 6)
    masks = [torch.from_numpy(np.random.default_rng(0).random((6, 6)) < 0.3) for _ in range(3)]
    for one, other in zip(ways.on_path_through(masks, 1), ways.on_path(masks), strict=True):
        assert bool((one == other).all())


def test_masks_that_the_model_carries():
    model = eoc.mlp(3, 8, activation="relu", in_features=5, out_features=2).to_torch(0)
    mask = np.zeros((8, 5), dtype=bool)
    mask[3, 1] = True
    eoc.prune_(model, {"layers.0": mask})
    assert connected_weights(model) == {"layers.0": 1, "layers.1": 8, "layers.2": 16}


def test_wrong_masks_are_one_line():
    model = eoc.mlp(2, 8, activation="relu", in_features=5, out_features=2).to_torch(0)
    with pytest.raises(ArgumentError, match="masks must name layers of the model, got 'other'"):
        connected_weights(model, {"other": np.ones((8, 5))})
    with pytest.raises(ArgumentError, match=r"must have shape \(8, 5\), got \(5, 8\)"):
        connected_weights(model, {"layers.0": np.ones((5, 8))})
    with pytest.raises(ArgumentError, match=r"masks\['layers\.0'\] must be an array of 0 and 1, got str"):
        connected_weights(model, {"layers.0": "all"})
    # What measure_pruning gives for several sparsities.
    several = eoc.measure_pruning(model, [0.5, 0.6], criterion="magnitude").masks
    with pytest.raises(ArgumentError, match="masks must be a dict of arrays by layer name, got tuple"):
        connected_weights(model, several)  # type: ignore[arg-type]


def test_an_example_that_is_none_is_one_line():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    assert connected_weights(model, example_input=[1, 3, 4, 4]) == {"0": 108, "2": 32}
    for example in (5, "4x4"):
        with pytest.raises(ModelError, match="example_input must be a batch of inputs"):
            connected_weights(model, example_input=example)
    with pytest.raises(ModelError, match=r"example_input .*is needed") as raised:
        connected_weights(model)
    assert "synflow" not in str(raised.value)


# --- masks on ways ------------------------------------------------------------------------------------------


def chain_of(depth: int, width: int, seed: int = 0):
    model = eoc.mlp(depth, width, activation="tanh", in_features=width, out_features=width).to_torch(seed)
    weights = prunable_weights(model)
    return Paths.through(model, weights), [weight.tensor.detach().abs() for weight in weights]


def test_few_random_weights_lose_every_way_and_are_chosen_so_that_all_lie_on_one():
    ways, scores = chain_of(60, 40)
    kept = np.full(60, 28)  # less than one for each unit: a random graph falls apart
    plain = ways.on_path(best_masks(scores, kept))
    assert not any(mask.any() for mask in plain)
    chosen = path_masks(ways, scores, kept)
    assert [int(mask.sum()) for mask in chosen] == kept.tolist()
    on = ways.on_path(chosen)
    # All, but for the few that a narrow end has no room for.
    assert sum(int(way.sum()) for way in on) >= 0.98 * kept.sum()
    assert all(way.any() for way in on)


def test_where_all_lie_on_paths_the_best_scores_are_chosen():
    ways, scores = chain_of(3, 20)
    kept = np.array([300, 300, 300])
    for one, other in zip(path_masks(ways, scores, kept), best_masks(scores, kept), strict=True):
        assert bool((one == other).all())


def test_one_weight_a_layer_is_a_way():
    ways, scores = chain_of(12, 10)
    chosen = path_masks(ways, scores, np.ones(12, dtype=int))
    assert [int(way.sum()) for way in ways.on_path(chosen)] == [1] * 12


def test_what_cannot_lie_on_a_way_makes_up_the_number():
    ways, scores = chain_of(3, 10)
    # A single unit passes on in the middle: 10 of the last layer's weights can be on ways.
    chosen = path_masks(ways, scores, [1, 1, 30])
    assert [int(mask.sum()) for mask in chosen] == [1, 1, 30]
    assert [int(way.sum()) for way in ways.on_path(chosen)] == [1, 1, 10]
    # Without any weight in a layer there is no way, and scores alone decide.
    none = path_masks(ways, scores, [5, 0, 5])
    assert bool((none[0] == best_masks(scores, [5, 0, 5])[0]).all())
    assert [int(mask.sum()) for mask in none] == [5, 0, 5]


@pytest.mark.parametrize("each", [2, 3])
def test_no_branch_loses_its_way_to_a_shortcut(each):
    net = eoc.resnet(20, width=8, input_shape=(3, 8, 8))
    model = net.to_torch(0)
    ways = Paths.through(model, prunable_weights(model), (1, 3, 8, 8))
    rng = np.random.default_rng(each)
    for _ in range(2):
        scores = [torch.from_numpy(rng.random(layer.weight_shape)) for layer in net]
        chosen = path_masks(ways, scores, [each] * net.depth)
        assert [int(mask.sum()) for mask in chosen] == [each] * net.depth
        # Not only one of each layer: all.
        assert [int(way.sum()) for way in ways.on_path(chosen)] == [each] * net.depth


def test_a_layer_serves_as_many_others_as_its_number_allows():
    score = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.1])
    sets = [
        torch.tensor(one, dtype=torch.bool) for one in ([0, 0, 1, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0])
    ]
    all_ = torch.ones(5, dtype=torch.bool)
    found = [_covering(score, all_, sets, count).int().tolist() for count in (1, 2, 3)]
    assert found == [[0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 1, 0]]
    assert _covering(score, all_, [], 2).int().tolist() == [1, 1, 0, 0, 0]


def test_ties_and_gone_weights():
    ways, scores = chain_of(3, 10)
    tied = [torch.zeros_like(score) for score in scores]
    assert [int(mask.sum()) for mask in path_masks(ways, tied, [20, 20, 20])] == [20, 20, 20]
    scores[0][:, :5] = -torch.inf
    chosen = path_masks(ways, scores, [50, 20, 20])
    assert int(chosen[0].sum()) == 50 and not chosen[0][:, :5].any()


@pytest.mark.parametrize("kept", [[40, 30, 20], [3, 3, 3], [400, 400, 400]])
def test_synflow_by_layers_keeps_the_numbers_and_the_ways(kept):
    model = eoc.mlp(3, 20, activation="relu", in_features=20, out_features=20).to_torch(0)
    weights = prunable_weights(model)
    masks = synflow_layers(synflow_start(model, weights), kept).masks()
    assert [int(mask.sum()) for mask in masks] == kept
    on = Paths.through(model, weights).on_path(masks)
    assert all(int(way.sum()) >= 0.8 * count for way, count in zip(on, kept, strict=True))


# --- measure_pruning with an allocation ---------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["snip", "grasp", "magnitude", "synflow", "random", "erk"])
def test_a_measured_allocation(criterion):
    net = eoc.mlp(4, 20, activation="tanh", in_features=12, out_features=5)
    model = net.to_torch(0)
    wanted = np.array([30, 20, 25, 46 - 12])
    sparsity = 1 - wanted.sum() / net.n_weights
    found = eoc.measure_pruning(model, sparsity, criterion=criterion, allocation=wanted)
    np.testing.assert_array_equal(np.rint(found.kept * found.weights), wanted)
    assert isinstance(found.masks, dict)
    assert [int(mask.sum()) for mask in found.masks.values()] == wanted.tolist()
    assert np.isnan(found.critical_sparsity) and found.weakest_layer == ""
    assert all(connected_weights(model, found.masks).values())
    again = eoc.measure_pruning(model, sparsity, criterion=criterion, allocation=wanted.tolist())
    assert isinstance(again.masks, dict)
    assert all((again.masks[name] == mask).all() for name, mask in found.masks.items())


def test_a_measured_allocation_of_a_graph():
    net = eoc.resnet(8, width=4, normalisation=None, input_shape=(3, 8, 8), classes=4)
    model = net.to_torch(0)
    wanted = np.maximum(4, net.weights // 100)
    sparsity = 1 - wanted.sum() / net.n_weights
    found = eoc.measure_pruning(model, sparsity, example_input=(1, 3, 8, 8), allocation=wanted)
    assert isinstance(found.masks, dict)
    counts = connected_weights(model, found.masks, example_input=(1, 3, 8, 8))
    assert all(counts.values())
    assert sum(counts.values()) >= 0.9 * wanted.sum()


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ([10, 10], "one number of weights for each of the 3 layers"),
        ([40, [10, 5], 5], "one number of weights for each of the 3 layers, got shape of unequal rows"),
        ([40, 10, 11], "must keep 60 weights in all, got 61"),
        ([59, 0.5, 0.5], "allocation must be a whole number"),
        ([70, -20, 10], "allocation must be a whole number >= 0"),
        ([0, 0, 60], "at most the 20 weights of 'layers.2'"),
    ],
)
def test_unusable_allocations_are_one_line(allocation, message):
    model = eoc.mlp(3, 10, activation="tanh", in_features=8, out_features=2).to_torch(0)
    with pytest.raises(ArgumentError, match=message) as raised:
        eoc.measure_pruning(model, 0.7, criterion="magnitude", allocation=allocation)
    assert "\n" not in str(raised.value)
    with pytest.raises(ArgumentError, match="sparsity must be one number"):
        eoc.measure_pruning(model, [0.7, 0.8], criterion="magnitude", allocation=allocation)


@pytest.mark.parametrize("criterion", ["magnitude", "synflow"])
def test_an_allocation_leaves_out_what_is_gone(criterion):
    model = eoc.mlp(3, 10, activation="tanh", in_features=8, out_features=2).to_torch(0)
    mask = np.zeros((10, 8), dtype=bool)
    mask[:, :2] = True
    eoc.prune_(model, {"layers.0": mask})
    # Few in the middle, so that of the first layer's weights many are on no way.
    found = eoc.measure_pruning(model, 0.8, criterion=criterion, allocation=[20, 5, 15])
    assert isinstance(found.masks, dict)
    assert not (found.masks["layers.0"] & ~mask).any()
    with pytest.raises(ArgumentError, match=r"at most the 20 weights of 'layers\.0', got 25"):
        eoc.measure_pruning(model, 0.7, criterion=criterion, allocation=[25, 20, 15])
