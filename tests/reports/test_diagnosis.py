"""Diagnosis: what is read from a network, what is judged wrong, and whether the cure is what it says."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import eoc_theory as eoc
from eoc_theory.base.formatting import sparsity as presented
from eoc_theory.errors import ArgumentError, ModelError
from eoc_theory.reports.diagnosis.findings import is_exploding
from eoc_theory.reports.diagnosis.initialisation import (
    EDGE,
    KAIMING,
    KAIMING_OUT,
    LECUN,
    PYTORCH,
    XAVIER,
    read,
    recognise_all,
)
from eoc_theory.reports.diagnosis.remedies import cures, with_stable_branches
from eoc_theory.reports.diagnosis.table import columns

DEPTH, WIDTH = 20, 40


def ordered() -> eoc.Architecture:
    return eoc.mlp(DEPTH, WIDTH, activation="relu", init="pytorch")


@pytest.fixture(scope="module")
def sick() -> eoc.Diagnosis:
    return eoc.diagnose(ordered(), sparsity=0.9)


@pytest.fixture(scope="module")
def well() -> eoc.Diagnosis:
    return eoc.diagnose(eoc.mlp(6, 60, activation="relu"), sparsity=0.8)


# --- the findings -------------------------------------------------------------------------------------------


def test_pytorch_default_is_ordered_and_collapses(sick):
    assert sick.problems == ("ordered", "collapse")
    np.testing.assert_allclose(sick.chi[:-1], 1 / 6, rtol=1e-6)
    assert np.isnan(sick.chi[-1]) and np.isnan(sick.sigma_w_edge[-1])
    np.testing.assert_allclose(sick.sigma_w_edge[:-1], math.sqrt(2), rtol=1e-9)
    # χ to the power of the depth: from layer to layer the scores' moment grows by 1/χ.
    step = np.diff(sick.log10_moment)[6:-1]
    np.testing.assert_allclose(step, math.log10(6), rtol=0.05)
    emptied = sick.before.emptied
    assert len(emptied) > 3 and emptied.tolist() == list(range(len(emptied)))
    for told in (
        "PyTorch's default",
        "ordered for relu",
        "χ = 0.17",
        f"the first {len(emptied)} of {DEPTH} layers",
    ):
        assert told in sick.verdict, sick.verdict


def test_the_cure_is_predicted_by_building_it(sick):
    assert sick.cure.steps == ("eoc.initialize_(model)",)
    net = eoc.mlp(DEPTH, WIDTH, activation="relu", init="eoc")
    same = eoc.predict_pruning(net, 0.9)
    np.testing.assert_allclose(sick.after.kept, same.kept)
    assert sick.after.collapse_probability == pytest.approx(same.collapse_probability)
    collapse = eoc.predict_collapse(net)
    assert sick.after.critical_sparsity == pytest.approx(collapse.quantile(0.5))
    assert sick.after.critical_sparsity > sick.critical_sparsity
    assert f"{presented(sick.after.critical_sparsity)} instead of" in sick.verdict


def test_the_prediction_as_found_is_predict_pruning(sick):
    same = eoc.predict_pruning(ordered(), 0.9)
    np.testing.assert_array_equal(sick.kept, same.kept)
    np.testing.assert_array_equal(sick.kept_std, same.kept_std)
    np.testing.assert_array_equal(sick.empty_probability, same.empty_probability)
    assert sick.collapse_probability == same.collapse_probability
    moment = ordered().propagate().log_moment
    np.testing.assert_allclose(sick.log10_moment, (moment - moment[-1]) / math.log(10))


def test_nothing_is_wrong_on_the_edge(well):
    assert well.problems == () and well.cure is None and well.after is None
    assert well.verdict.startswith("Nothing is wrong")
    assert "edge of chaos of relu" in well.verdict and "Kaiming" in well.verdict
    assert not well.off.any()


def test_chaos_is_told_from_order():
    net = eoc.mlp(10, 40, activation="tanh", init=(3.0, 0.0))
    found = eoc.diagnose(net, sparsity=0.9)
    assert found.problems[0] == "chaotic"
    assert found.chi[2:-1].min() > 1 and "chaotic for tanh" in found.verdict
    assert found.cure.steps == ("eoc.initialize_(model, sigma_b=0.2)",)
    point = eoc.edge_of_chaos("tanh", sigma_b=0.2)
    np.testing.assert_allclose(found.after.sigma_w, point.sigma_w)
    np.testing.assert_allclose(found.after.sigma_b, 0.2)


def test_a_scale_that_homogeneity_divides_out_does_no_harm():
    # Without biases SNIP's |W g| in a ReLU network does not see which of its layers holds a scale.
    found = [eoc.diagnose(with_scale(position, 0.5), sparsity=0.8) for position in (1, 3)]
    assert found[1].off.tolist() == [False, False, False, True, False, False]
    assert found[1].problems == () and "harmless" in found[1].verdict
    assert "layers.3 (σ_w = 0.5, on the edge 1.414)" in found[1].verdict
    np.testing.assert_allclose(found[1].kept, found[0].kept, atol=0.01)


def with_scale(position: int, sigma_w: float) -> eoc.Architecture:
    """A critical ReLU network with another scale in one layer."""
    layers = list(eoc.mlp(6, WIDTH, activation="relu").layers)
    layers[position] = replace(layers[position], sigma_w=sigma_w)
    return eoc.Architecture(tuple(layers))


def test_a_sparsity_too_high_for_the_edge_is_said_so():
    found = eoc.diagnose(eoc.mlp(5, 30, activation="relu"), sparsity=0.998)
    assert found.problems == ("collapse",) and found.cure is None
    assert "The scales are not to blame" in found.verdict


def test_a_cure_that_is_not_enough_names_a_safe_sparsity():
    found = eoc.diagnose(ordered(), sparsity=0.999)
    assert found.after.collapse_probability > 0.5
    assert "Even so s = 0.999 is too much" in found.verdict
    safe = found.after.safe_sparsity
    assert found.after.collapse.probability(safe) <= 0.06 < 0.5 < found.after.collapse.probability(0.999)
    assert f"up to s = {presented(safe)} fewer than 5 %" in found.verdict


def test_an_activation_without_an_edge_of_chaos():
    found = eoc.diagnose(eoc.mlp(5, 40, activation="softplus", init="pytorch"), sparsity=0.9)
    assert np.isnan(found.sigma_w_edge).all() and found.cure is None
    assert "softplus has no edge of chaos" in found.verdict and "no critical scale" in found.verdict


@pytest.mark.parametrize("criterion", ["magnitude", "random", "synflow-oneshot"])
def test_criteria_without_data(criterion):
    found = eoc.diagnose(eoc.mlp(4, 40, activation="tanh"), sparsity=0.7, criterion=criterion)
    same = eoc.predict_pruning(eoc.mlp(4, 40, activation="tanh"), 0.7, criterion=criterion)
    np.testing.assert_array_equal(found.kept, same.kept)
    assert criterion in found.verdict


def test_a_single_layer_and_a_linear_network():
    assert "single weight layer" in eoc.diagnose(eoc.mlp(1, 1, in_features=30)).verdict
    linear = eoc.diagnose(eoc.mlp(3, 30, activation="identity", init=(1.0, 0.0)), sparsity=0.5)
    assert linear.problems == () and "edge of chaos of identity" in linear.verdict


def test_data_and_seed():
    net = eoc.mlp(3, 30)
    inputs, targets = eoc.digits(40)
    found = eoc.diagnose(net, data=(inputs, targets), sparsity=0.5, seed=3)
    assert not found.synthetic and "stand in" not in found.verdict
    np.testing.assert_array_equal(
        found.kept, eoc.predict_pruning(net, 0.5, data=(inputs, targets), seed=3).kept
    )
    again = eoc.diagnose(net, data=(inputs, targets), sparsity=0.5, seed=3)
    assert again.to_json() == found.to_json()


# --- names of initialisations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma_w", "law", "fan", "name"),
    [
        (math.sqrt(1 / 3), "uniform", (100, 100), PYTORCH),
        (math.sqrt(1 / 3), "normal", (100, 100), ""),
        (math.sqrt(2), "normal", (100, 50), KAIMING),
        (2.0, "normal", (100, 50), KAIMING_OUT),
        (math.sqrt(4 / 3), "uniform", (100, 50), XAVIER),
        (1.0, "normal", (100, 50), LECUN),
        (1.3, "normal", (100, 50), EDGE),
        (0.8, "normal", (100, 50), ""),
    ],
)
def test_initialisations_are_recognised(sigma_w, law, fan, name):
    layer = eoc.WeightLayer("fc", *fan, sigma_w=sigma_w, sigma_b=0.0, law=law)
    assert recognise_all([layer], np.array([1.3])) == (name,)


# --- graphs -------------------------------------------------------------------------------------------------


def test_normalised_layers_have_no_scale_to_set():
    reading = read(eoc.vgg(11))
    assert reading.normalised.tolist() == [True] * 8 + [False]
    assert reading.batch_norms == (8, 0) and not reading.scaled.any()
    assert cures(eoc.vgg(11), reading) == []
    evaluation = read(eoc.vgg(11, training=False))
    assert evaluation.batch_norms == (0, 8) and evaluation.scaled.sum() == 8
    assert read(eoc.vgg(11, normalisation="group")).normalised.sum() == 8


def test_residual_sums_are_found_with_their_branch():
    for scaling, scale in (("none", 1.0), ("stable", 1 / 3)):
        net = eoc.resnet(20, normalisation=None, scaling=scaling)
        joins = read(net).joins
        assert [join.scale for join in joins] == pytest.approx([scale] * 9)
        # The branch is the way through the block's convolutions.
        assert all(join.branch == 1 for join in joins)


def test_the_stable_cure_is_the_stable_resnet():
    net = eoc.resnet(20, normalisation=None)
    stable = eoc.resnet(20, normalisation=None, scaling="stable")
    assert with_stable_branches(net, read(net)).graph == stable.graph
    offered = cures(net, read(net), redraw=False)
    assert [cure.net.graph == stable.graph for cure in offered] == [True]
    assert cures(stable, read(stable), redraw=False) == []


def test_kinds_of_layers():
    kinds = read(eoc.resnet(20)).kinds
    assert kinds[0] == "Conv 3x3" and kinds[-1] == "Linear"
    assert "Conv 1x1 /2" in kinds and "Conv 3x3 /2" in kinds


def test_other_weights_on_a_graph():
    net = eoc.cnn(3, 8)
    changed = replace(net.layers[1], sigma_w=0.5)
    graph = net.graph.with_weights({"convs.1": changed})
    assert graph.weight_layers == (net.layers[0], changed, net.layers[2])
    with pytest.raises(ModelError, match=r"convs\.7"):
        net.graph.with_weights({"convs.7": changed})
    with pytest.raises(ModelError, match="shape"):
        net.graph.with_weights({"convs.0": changed})


def test_batch_norm_has_no_scale_and_a_mode():
    net = eoc.resnet(8, width=6, input_shape=(3, 8, 8))
    found = eoc.diagnose(net, sparsity=0.5)
    assert found.before.is_fine and found.problems == () and found.cure is None
    assert "no scale to set" in found.verdict and "training mode" in found.verdict
    assert "3 residual blocks" in found.verdict
    assert np.isnan(found.chi).all() and {column.cells[0] for column in columns(found)} >= {"any", "Conv 3x3"}
    # The scales indeed do nothing.
    scaled = {layer.name: replace(layer, sigma_w=3.0) for layer in net.layers[:-1]}
    other = eoc.Architecture.from_graph(net.graph.with_weights(scaled))
    moments = [given.propagate().log_moment for given in (net, other)]
    np.testing.assert_allclose(moments[0], moments[1], atol=0.01)


def test_unscaled_branches_explode_and_the_stable_network_does_not():
    net = eoc.resnet(32, width=6, input_shape=(3, 8, 8), normalisation=None)
    found = eoc.diagnose(net, sparsity=0.5, criterion="random")
    assert (
        found.problems == ("exploding",) and "15 residual blocks make the variance explode" in found.verdict
    )
    # Each block doubles the variance of a ReLU network at σ_w² = 2, but for what zero padding takes away.
    assert 2**9 < found.before.q.max() / found.before.q[0] < 2**16
    (step,) = found.cure.steps
    assert step.startswith("multiply each residual branch by 1/√15")
    assert found.after.q.max() / found.after.q[0] < 10


def test_explosion_needs_residual_sums(sick):
    grown = replace(sick.before, q=np.geomspace(1.0, 1e4, DEPTH))
    assert not is_exploding(sick.reading, grown)
    reading = replace(sick.reading, joins=read(eoc.resnet(20)).joins)
    assert is_exploding(reading, grown) and not is_exploding(reading, sick.before)


# --- results ------------------------------------------------------------------------------------------------


def test_frame_dict_and_json(sick, well):
    frame = sick.to_frame()
    assert len(frame) == DEPTH and list(frame["layer"]) == list(sick.layers)
    assert {"sigma_w_edge", "chi", "log10_moment", "kept_after"} <= set(frame.columns)
    assert "kept_after" not in well.to_frame().columns
    found = json.loads(sick.to_json())
    assert found["before"]["chi"][-1] is None and found["before"]["kept"] == sick.kept.tolist()
    assert found["cure"]["steps"] == list(sick.cure.steps)
    assert found["after"]["critical_sparsity"] == sick.after.critical_sparsity
    assert found["verdict"] == sick.verdict
    assert json.loads(well.to_json())["after"] is None


def test_print_shows_verdict_and_table(sick):
    text = str(sick)
    assert " ".join(text.split()).startswith(sick.verdict)
    assert max(map(len, text.splitlines())) < 150
    assert "layers.19" in text and f"of {DEPTH} layers" in text


def test_plot(sick, well, tmp_path):
    path = tmp_path / "diagnosis.svg"
    sick.plot(path)
    assert path.stat().st_size > 10_000
    assert len(well.plot().axes) == 4


# --- torch --------------------------------------------------------------------------------------------------


def chain(depth: int = 8, width: int = 40, bias: bool = True):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    hidden = [part for _ in range(depth - 2) for part in (nn.Linear(width, width, bias=bias), nn.Tanh())]
    return nn.Sequential(nn.Linear(16, width, bias=bias), nn.Tanh(), *hidden, nn.Linear(width, 10, bias=bias))


def test_a_torch_model_is_read_left_as_it_was_and_cured_as_said():
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = eoc.diagnose(model, sparsity=0.9)
    assert set(found.reading.names[:-1]) == {PYTORCH} and set(found.laws) == {"uniform"}
    assert found.problems[0] == "ordered"
    assert all((before[name] == value).all() for name, value in model.state_dict().items())
    # The cure does what it says.
    assert found.cure.steps == ("eoc.initialize_(model, sigma_b=0.2)",)
    cured = eoc.diagnose(eoc.initialize_(model, sigma_b=0.2, seed=0), sparsity=0.9)
    np.testing.assert_allclose(cured.sigma_w, found.after.sigma_w, rtol=0.08)
    np.testing.assert_allclose(cured.kept, found.after.kept, atol=0.05)
    assert "ordered" not in cured.problems and "collapse" not in cured.problems


def test_without_biases_none_are_asked_for():
    found = eoc.diagnose(chain(bias=False), sparsity=0.9)
    assert found.cure.steps == ("eoc.initialize_(model)",)
    assert not found.after.sigma_b.any()


def test_a_pruned_model_is_rescaled_not_drawn_anew():
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.nn.utils.prune")
    model = eoc.initialize_(chain(), sigma_b=0.2, seed=0)
    for module in model:
        if isinstance(module, torch.nn.Linear):
            torch.nn.utils.prune.random_unstructured(module, "weight", 0.8)
    found = eoc.diagnose(model, sparsity=0.95)
    assert found.problems[0] == "ordered" and found.cure.steps == ("eoc.rescale_(model)",)


def test_convolutions_need_an_example():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip
    with pytest.raises(ModelError, match="example_input"):
        eoc.diagnose(model, sparsity=0.5)
    found = eoc.diagnose(model, torch.zeros(1, 1, 8, 8), sparsity=0.5)
    assert found.kinds == ("Conv 3x3", "Conv 3x3", "Linear")
    # Data of that shape are an example themselves.
    inputs, targets = eoc.digits(20)
    given = eoc.diagnose(model, data=(inputs.reshape(-1, 1, 8, 8), targets), sparsity=0.5)
    assert given.kinds == found.kinds and not given.synthetic


def test_what_cannot_be_diagnosed():
    with pytest.raises(ArgumentError, match="model must be"):
        eoc.diagnose("nets:make")
    net = eoc.mlp(3, 10)
    with pytest.raises(ArgumentError, match="sparsity"):
        eoc.diagnose(net, sparsity=1.0)
    with pytest.raises(ArgumentError, match="criterion"):
        eoc.diagnose(net, criterion="obd")
    with pytest.raises(ArgumentError, match="seed"):
        eoc.diagnose(net, seed=-1)


def test_names_are_told_by_all_layers_together():
    """LeCun's scale is not Xavier's where layers are square, nor a scale of its own Kaiming's."""
    widths, layers = [30, *[100] * 19, 10], []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SELU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="linear")
        nn.init.zeros_(layers[-2].bias)
    net = eoc.Architecture.from_torch(nn.Sequential(*layers[:-1]))
    assert set(read(net).names) == {"LeCun"}
    small = [nn.Linear(4, 4) for _ in range(100)]
    for layer in small:
        nn.init.normal_(layer.weight)
    assert set(read(eoc.Architecture.from_torch(nn.Sequential(*small))).names) == {""}
