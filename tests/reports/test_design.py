"""`design`: budgets, floors, the order of its options, faces, errors; real networks in the file beside."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.criteria.distributions import densities
from eoc_theory.errors import ArgumentError, EOCError, ModelError
from eoc_theory.reports.design.allocation import FLOOR, floors, rounded, share_out

ORDERED = eoc.mlp(12, 30, activation="tanh", init=(0.4, 0.1), in_features=20, out_features=5)
RELU = eoc.mlp(8, 20, activation="relu", init="pytorch", in_features=20, out_features=5)


# --- sharing ------------------------------------------------------------------------------------------------


@given(
    weights=st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    part=st.floats(0.0, 1.0),
    seed=st.integers(0, 10_000),
)
def test_rounding_sums_to_the_budget_and_stays_near(weights, part, seed):
    sizes = np.array(weights)
    budget = max(1, int(part * sizes.sum()))
    raw = np.random.default_rng(seed).random(len(sizes)) * sizes
    numbers = np.minimum(raw * (budget / raw.sum()), sizes) if raw.sum() > 0 else np.zeros(len(sizes))
    found = rounded(numbers, budget, sizes)
    assert found.sum() == budget
    assert (found >= 0).all() and (found <= sizes).all()
    if abs(numbers.sum() - budget) < 1e-6:
        assert np.abs(found - numbers).max() < 1.0 + 1e-6


@given(
    decay=st.floats(0.0, 1.0),
    depth=st.integers(2, 40),
    width=st.integers(5, 60),
    density=st.floats(0.002, 0.9),
)
def test_layers_get_their_floors_and_the_others_what_the_ranking_leaves_them(decay, depth, width, density):
    net = eoc.mlp(depth, width, activation="tanh", in_features=2 * width, out_features=5)
    budget = max(depth, round(density * net.n_weights))
    scale = np.exp(-decay * np.arange(depth)[::-1])

    def ranked(budgets: np.ndarray) -> np.ndarray:
        """Layers of exponential scores at these scales, ranked together."""
        low, high = np.full(len(budgets), -100.0), np.full(len(budgets), 10.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            kept = net.weights * np.exp(-np.exp(middle)[:, None] / scale)
            over = kept.sum(axis=1) > budgets
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return net.weights * np.exp(-np.exp(high)[:, None] / scale)

    expected = ranked(np.array([float(budget)]))[0]
    expected *= budget / expected.sum()
    least = floors(net, budget)
    found = share_out(expected, least, net.weights, ranked)
    assert found.sum() == budget
    assert (found >= np.minimum(least, net.weights)).all() and (found <= net.weights).all()
    # Nothing is gained above the floor.
    gains = (found > least) & (found > expected + 1.0)
    assert not gains.any()


@given(density=st.floats(0.001, 1.0), width=st.integers(4, 50), depth=st.integers(1, 30))
def test_floors_fit_into_the_budget(density, width, depth):
    net = eoc.mlp(depth, width, activation="relu", in_features=30, out_features=7)
    budget = max(depth, round(density * net.n_weights))
    least = floors(net, budget)
    assert least.sum() <= budget and (least >= 1).all() and (least <= net.weights).all()
    even = densities.kept_counts(net.weights, densities.erdos_renyi_kernel(net.weight_shapes), budget)
    if least.sum() > depth:
        assert (least >= np.floor(FLOOR * even)).all()


# --- designs ------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(first=st.floats(0.3, 0.997), second=st.floats(0.3, 0.997))
def test_allocations_sum_to_what_is_left_and_fall_with_sparsity(first, second):
    net = eoc.mlp(8, 20, activation="relu", in_features=200, out_features=5)
    low, high = sorted((first, second))
    found = [eoc.design(net, s, criterion="magnitude", networks=0) for s in (low, high)]
    for one, s in zip(found, (low, high), strict=True):
        for candidate in one.candidates:
            assert candidate.kept_weights.sum() == net.n_weights - round(s * net.n_weights)
            assert (candidate.kept_weights <= net.weights).all()
    more, fewer = (
        next(c.kept_weights for c in one.candidates if c.allocation == "layerwise") for one in found
    )
    # To the one weight that rounding moves.
    assert (fewer <= more + 1).all()
    assert fewer.min() >= 1


def test_for_training_each_layer_has_its_weights_on_paths_and_units_their_scale():
    net = eoc.mlp(5, 40, activation="relu", in_features=20, out_features=5)
    found = eoc.design(net, 0.95, goal="training", networks=1)
    assert found.feasible and found.allocation == "layerwise" and found.criterion == "synflow"
    assert (found.kept_weights >= floors(net, int(found.kept_weights.sum()))).all()
    assert "allocation=design" in found.steps[0] and found.steps[1] == "eoc.rescale_(model, by='units')"
    assert "For training" in found.verdict and "equal parts" in found.verdict
    assert eoc.Design.from_json(found.to_json()) == found
    names = {"eoc": eoc, "model": net.to_torch(1), "design": found, "data": net.summarise()}
    for step in found.steps:
        exec(step, names)
    kept = [
        int((w != 0).sum())
        for n, w in names["model"].named_modules()
        for w in [getattr(w, "weight", None)]
        if w is not None
    ]
    assert kept == list(found.kept_weights)


def test_for_training_convolutions_get_their_moments():
    net = eoc.cnn(3, 8, activation="relu", input_shape=(1, 8, 8))
    images = eoc.digits_images(20, (1, 8, 8))
    found = eoc.design(net, 0.8, goal="training", data=images, networks=0)
    # Without sampled networks nothing is feasible by paths; what is to be done is the same.
    assert found.rescale_by == "moments" and "mean 0 over the data" in found.verdict + found.to_json()
    model = net.to_torch(0)
    names = {"eoc": eoc, "model": model, "design": found, "data": images}
    for step in found.steps:
        exec(step, names)
    assert sum(int((m.weight != 0).sum()) for m in model.modules() if hasattr(m, "weight")) == int(
        found.kept_weights.sum()
    )
    assert eoc.design(net, 0.8, data=images, networks=0).rescale_by == "signal"


def test_for_training_normalised_layers_keep_their_scale_and_attention_is_ranked_globally():
    residual = eoc.design(
        eoc.resnet(8, width=4, input_shape=(1, 8, 8), classes=4),
        0.9,
        criterion="magnitude",
        goal="training",
        networks=0,
    )
    assert residual.normalised and len(residual.steps) == 1 and "divides their scale out" in residual.verdict
    vit = eoc.vit(None, depth=1, width=8, heads=2, patch=4, input_shape=(1, 8, 8), classes=3, sigma_w=1.0)
    found = eoc.design(vit, 0.3, goal="training", max_collapse_probability=0.9)
    assert found.criterion == "snip" and found.allocation == "global" and not found.normalised
    with pytest.raises(ArgumentError, match="goal must be one of"):
        eoc.design(vit, 0.3, goal="speed")  # type: ignore[arg-type]


def test_what_is_well_stays_as_it_is():
    net = eoc.mlp(5, 40, activation="relu", in_features=20, out_features=5)
    found = eoc.design(net, 0.5)
    assert found.feasible and found.chosen is found.before and found.allocation == "global"
    assert found.initialisation is None and found.architecture is net
    assert found.collapse_probability <= 0.01
    assert len(found.steps) == 2 and "initialize_" not in found.steps[0]
    assert "Nothing needs to change" in found.verdict
    # The alternative is the same allocation, fixed.
    other = next(c for c in found.candidates if c.allocation == "layerwise")
    assert other.moved < 0.01
    np.testing.assert_allclose(other.kept, found.kept, atol=0.01)


def test_an_ordered_network_is_put_on_the_edge_of_chaos():
    found = eoc.design(ORDERED, 0.7, networks=0)
    assert found.before.collapse_probability > 0.5
    assert found.feasible and found.allocation == "global"
    # The nearest of the biases' scales that helps: its own.
    assert found.initialisation == (pytest.approx(eoc.edge_of_chaos("tanh", sigma_b=0.1).sigma_w), 0.1)
    layer = found.architecture.layers[3]
    assert (layer.sigma_w, layer.sigma_b) == found.initialisation
    assert found.critical_sparsity > 0.9 > 0.7 > found.critical_sparsity_before
    law = eoc.predict_collapse(found.architecture)
    assert found.critical_sparsity == law.quantile(0.5)
    assert law.probability(0.7) == 0 and found.collapse_interval[1] < 1e-3
    assert "eoc.initialize_(model, sigma_b=0.1)" in found.steps[0]


def test_beyond_every_initialisation_each_layer_gets_its_number():
    found = eoc.design(ORDERED, 0.99, networks=0)
    assert found.feasible and found.allocation == "layerwise"
    assert found.kept_weights.min() >= 1
    assert found.kept_weights.sum() == ORDERED.n_weights - round(0.99 * ORDERED.n_weights)
    np.testing.assert_array_equal(found.kept * found.weights, found.kept_weights)
    assert found.collapse_probability == 0.0
    assert found.critical_sparsity == 1 - (ORDERED.depth - 1) / ORDERED.n_weights
    moved = [c.moved for c in found.candidates if c.allocation == "layerwise"]
    assert found.chosen.moved <= min(moved) + 0.01
    # The ordered network would have to move more.
    assert max(moved) == next(
        c.moved for c in found.candidates if c.allocation == "layerwise" and c.initialisation is None
    )


def test_fewer_weights_than_layers():
    net = eoc.mlp(50, 4, activation="relu", in_features=4, out_features=4)
    found = eoc.design(net, 0.95, criterion="magnitude")
    assert found.kept_weights.sum() == 40
    assert not found.feasible and found.allocation == "global"
    assert "50 layers cannot share so few weights" in found.verdict
    assert "eoc." not in str(found)
    assert not any(c.allocation == "layerwise" for c in found.candidates)
    # A layer is empty for certain, which no one who bears less than that is to be told is well.
    borne = eoc.design(net, 0.95, criterion="magnitude", max_collapse_probability=0.999999)
    small = eoc.mlp(5, 10, activation="tanh", in_features=5, out_features=10)
    for one in (borne, eoc.design(small, 0.99, max_collapse_probability=0.99, networks=0)):
        assert not one.feasible and one.collapse_probability == 1.0


@pytest.mark.parametrize("criterion", ["synflow-oneshot", "random", "uniform", "erk"])
def test_where_scales_do_not_matter_no_initialisation_is_tried(criterion):
    found = eoc.design(ORDERED, 0.997, criterion=criterion, networks=0)
    assert all(candidate.initialisation is None for candidate in found.candidates)


def test_one_scale_for_all_layers_does_not_matter_to_magnitude():
    found = eoc.design(ORDERED, 0.97, criterion="magnitude", networks=0)
    assert all(candidate.initialisation is None for candidate in found.candidates)
    # Scales that differ from layer to layer do.
    nn = pytest.importorskip("torch").nn
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5))
    model[0].weight.data *= 0.01
    found = eoc.design(model, 0.9, criterion="magnitude", networks=0)
    assert found.initialisation is not None and found.allocation == "global"


def test_normalised_networks_have_no_scale_to_set():
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8), classes=4)
    found = eoc.design(net, 0.98, criterion="magnitude", networks=0)
    assert [c.initialisation for c in found.candidates] == [None, None]


@pytest.mark.parametrize("method", ["theory", "sampled"])
def test_the_method_is_that_of_the_predictions(method):
    found = eoc.design(ORDERED, 0.9, method=method)
    assert found.method == found.to_dict()["method"] == method
    best = eoc.predict_collapse(found.before.architecture, method=method)
    assert found.critical_sparsity_before == best.quantile(0.5)
    # Theory samples nothing, so that what is disconnected stays unknown.
    assert np.isnan(found.cut_probability) == (method == "theory")
    with pytest.raises(ArgumentError, match="method must be"):
        eoc.design(ORDERED, 0.9, method="guessed")


def test_networks_with_attention_are_ranked_at_once():
    net = eoc.transformer(2, 16, heads=2, vocabulary=20, tokens=6, classes=4)
    rng = np.random.default_rng(0)
    data = rng.integers(20, size=(12, 6)), np.arange(12) % 4
    found = eoc.design(net, 0.8, data=data)
    assert found.allocation == "global" and np.isnan(found.cut_probability)
    measured = eoc.measure_pruning(net.to_torch(0), 0.8, data=data)
    with pytest.raises(ModelError, match="paths through a network with attention"):
        eoc.connected_weights(net.to_torch(0), measured.masks, example_input=data[0])


def test_the_same_bits_again():
    first, second = (eoc.design(RELU, 0.97, networks=2, seed=3) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_the_steps_are_code_that_carries_it_out():
    torch = pytest.importorskip("torch")
    data = eoc.digits(50)
    model = eoc.mlp(10, 60, activation="relu", init="pytorch").to_torch(0)
    found = eoc.design(model, 0.97, data=data, networks=1)
    assert found.initialisation is not None
    for step in found.steps:
        exec(step, {"eoc": eoc, "model": model, "design": found, "data": data})
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    left = sum(int((layer.weight != 0).sum()) for layer in linear)
    assert left == found.kept_weights.sum()
    # The signal has the strength of a critical ReLU network's before pruning, up to its width.
    signal = torch.as_tensor(data[0], dtype=torch.float32)
    for layer in linear[:-1]:
        signal = torch.relu(layer(signal))
    strength = float(linear[-1](signal).detach().square().mean())
    assert 0.05 < strength < 20.0


def test_the_steps_tell_the_extent_of_images():
    torch = pytest.importorskip("torch")
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3))
    draws = torch.Generator().manual_seed(3)
    data = (torch.randn(12, 1, 8, 8, generator=draws), torch.arange(12) % 3)
    # So that the network as it is loses a layer in one of three.
    for layer, sigma in ((model[0], 0.02), (model[3], 3.0)):
        nn.init.normal_(layer.weight, std=sigma, generator=draws)
        nn.init.normal_(layer.bias, std=0.1, generator=draws)
    found = eoc.design(model, 0.95, data=data, networks=0)
    assert found.initialisation is not None
    for step in found.steps[:2]:
        exec(step, {"eoc": eoc, "model": model, "design": found, "data": data})
    left = sum(int((layer.weight != 0).sum()) for layer in (model[0], model[3]))
    assert left == found.kept_weights.sum()


def test_the_steps_keep_every_digit_of_the_sparsity():
    # With six of them other numbers of weights would be left than the design has, or none.
    for sparsity in (0.987654321, 0.9999999):
        (call,) = (step for step in eoc.design(RELU, sparsity, networks=0).steps if "measure_pruning" in step)
        assert f", {sparsity!r}, " in call


# --- faces --------------------------------------------------------------------------------------------------


def test_text_frame_json_and_picture(tmp_path):
    found = eoc.design(RELU, 0.97, networks=1)
    text = str(found)
    assert all(step in text for step in found.steps)
    assert "as it is, global" in text and "chosen" in text
    assert max(map(len, found.verdict.split())) < 40
    layers = found.to_frame()
    assert list(layers["layer"]) == list(RELU.weight_layers)
    assert layers["kept_weights"].sum() == found.kept_weights.sum()
    options = found.to_frame("candidates")
    assert len(options) == len(found.candidates) and options["chosen"].sum() == 1
    data = json.loads(found.to_json())
    assert data["kept_weights"] == found.kept_weights.tolist()
    assert data["allocation"] == found.allocation and data["feasible"] is True
    assert data["before"]["collapse_probability"] == found.before.collapse_probability
    for name in ("collapse", "cut"):
        value, interval = data[f"{name}_probability"], data[f"{name}_interval"]
        assert interval[0] <= value <= interval[1]
        ends = options[[f"{name}_low", f"{name}_high"]].to_numpy()[options["chosen"]]
        assert ends.tolist() == [interval]
    path = tmp_path / "design.png"
    assert found.plot(path) is not None and path.stat().st_size > 1000
    with pytest.raises(ArgumentError, match="of must be one of 'layers', 'candidates'"):
        found.to_frame("rows")  # type: ignore[arg-type]


def test_words_for_what_few_networks_tell():
    # Networks at the sparsity that disconnects some of them: two say little, and it is said.
    net = eoc.mlp(8, 40, activation="tanh", in_features=20, out_features=5)
    found = eoc.design(net, 0.96, networks=2, max_collapse_probability=0.4)
    assert found.chosen is found.before and found.cut_interval[1] > 0.4
    low, high = (f"{end:.2f}" for end in found.cut_interval)
    assert f"({low}–{high}), from 2 sampled networks" in found.verdict.replace("(0–", "(0.00–")
    assert "2 sampled networks leave open whether that is more than the 0.4 asked for" in found.verdict
    assert "in brackets: the range that holds the probability in nine cases of ten" in str(found)
    sure = eoc.design(net, 0.5, networks=2)
    assert "open" not in sure.verdict


def test_more_networks_are_sampled_where_few_do_not_tell():
    pytest.importorskip("torch")
    net = eoc.mlp(8, 40, activation="tanh", in_features=20, out_features=5)
    # All too few weights, plenty, and in between.
    for sparsity, drawn in ((0.98, {4}), (0.5, {8}), (0.96, set(range(9, 33)))):
        before = eoc.design(net, sparsity, max_collapse_probability=0.05).before
        assert before.drawn in drawn
        if before.drawn < 32:
            assert before.cut_interval[0] > 0.05 or before.cut_interval[1] <= 0.05


def test_progress_is_told():
    said: list[str] = []
    eoc.design(RELU, 0.9, networks=2, progress=said.append)
    assert said[0] == "as it is, global" and any("network 2 of" in text for text in said)
    with pytest.raises(ArgumentError, match="progress must be None or a function of a text, got 3"):
        eoc.design(RELU, 0.9, progress=3)  # type: ignore[arg-type]


def test_without_torch_nothing_is_sampled(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = eoc.design(RELU, 0.5)
    assert found.feasible and np.isnan(found.chosen.connected) and found.chosen.drawn == 0
    assert "sampled" not in found.verdict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity must be a number in"),
        ({"sparsity": [0.5, 0.6]}, "sparsity must be a number in"),
        ({"criterion": "size"}, "criterion must be one of"),
        ({"max_collapse_probability": 1.5}, "max_collapse_probability must be"),
        ({"networks": -1}, "networks must be a whole number >= 0"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"net": "relu"}, "net must be an Architecture or a torch.nn.Module, got str"),
        ({"data": (np.zeros((3, 7)), np.zeros(3, dtype=int))}, "7 features"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    arguments = {"net": ORDERED, "sparsity": 0.9} | arguments
    with pytest.raises(EOCError, match=message) as raised:
        eoc.design(arguments.pop("net"), arguments.pop("sparsity"), **arguments)
    assert "\n" not in str(raised.value)


def test_a_pruned_model_is_refused():
    pytest.importorskip("torch")
    model = ORDERED.to_torch(0)
    eoc.prune_(model, {"layers.0": np.eye(30, 20)})
    with pytest.raises(ModelError, match="net must not be pruned yet"):
        eoc.design(model, 0.9)


# --- the command --------------------------------------------------------------------------------------------

NET = ["--activation", "relu", "--depth", "8", "--width", "20", "--in-features", "10"]


def test_the_command(capsys, tmp_path):
    path = tmp_path / "design.svg"
    assert main(["design", *NET, "--sparsity", "0.8", "--networks", "1", "--plot", str(path)]) == 0
    out = capsys.readouterr().out
    assert "as it is, global" in out and "layers.7" in out and str(path) in out and path.exists()
    assert "in brackets: the range" in out and "eoc.prune_(model, " in out
    assert main(["design", *NET, "--sparsity", "0.8", "--networks", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    net = eoc.mlp(8, 20, activation="relu", in_features=10)
    assert found == json.loads(eoc.design(net, 0.8, networks=0).to_json())


OWN = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 4))
"""


def test_the_command_for_a_model_of_ones_own(capsys, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(OWN)
    spec = f"{tmp_path / 'nets.py'}:make"
    assert main(["design", spec, "--sparsity", "0.9", "--networks", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{spec}; snip, uncorrelated inputs\n") and "eoc.prune_(model, " in out
    assert main(["design", spec, "--sparsity", "0.9", "--networks", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == ["0", "2", "4"]
    for options, message in (
        ([spec, "--depth", "3"], "depth describes a network, and MODULE:FACTORY"),
        ([spec, "--kind", "cnn"], "kind describes a network, and MODULE:FACTORY"),
        ([spec, "--input-shape", "7"], "--input-shape has 7 features"),
        (["--width", "3", "--activation", "relu"], "depth must be given, --depth L, or a model of your own"),
        ([*NET, "--input-shape", "7"], "--input-shape goes with MODULE:FACTORY only"),
    ):
        assert main(["design", *options, "--sparsity", "0.9"]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sparsity", "1.2"], "sparsity must be"),
        (["--sparsity", "0.8", "--max-collapse-probability", "2"], "--max-collapse-probability must be"),
        ([], "--sparsity"),
    ],
)
def test_the_commands_errors(capsys, options, message):
    assert main(["design", *NET, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
