"""Prediction beside measurement: the same batch, every seed, and numbers that agree."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.errors import ArgumentError, EOCError, ModelError  # noqa: E402
from eoc_theory.networks.architecture import Architecture, mlp  # noqa: E402
from eoc_theory.pytorch.measure.measure import measure_pruning  # noqa: E402
from eoc_theory.reports.compare import compare  # noqa: E402
from eoc_theory.signals.data import digits  # noqa: E402

NET = mlp(6, 120, activation="tanh", init=(1.3, 0.2))


@pytest.fixture(scope="module")
def comparison():
    pytest.importorskip("sklearn")
    return compare(NET, [0.5, 0.9], data=digits(100), seeds=6)


def test_measurements_are_those_of_single_seeds(comparison):
    assert comparison.kept.shape == (6, 2, 6)
    assert comparison.seeds.tolist() == list(range(6))
    single = measure_pruning(NET.to_torch(4), [0.5, 0.9], data=digits(100), seed=4)
    np.testing.assert_array_equal(comparison.kept[4], single.kept)
    assert comparison.critical_sparsity[4] == single.critical_sparsity
    assert comparison.complete


def test_prediction_agrees_with_experiment(comparison):
    assert comparison.mean_absolute_error < 0.025
    expected = np.abs(comparison.prediction.kept - comparison.kept.mean(axis=0)).mean()
    assert comparison.mean_absolute_error == pytest.approx(expected)
    low, high = comparison.collapse.quantile(np.array([0.001, 0.999]))
    # In units of log10(1 - s), as the tails of the law are.
    gap = np.log10(1 - np.median(comparison.critical_sparsity)) - np.log10(
        1 - comparison.collapse.quantile(0.5)
    )
    assert abs(gap) < 0.3
    assert low < high


def test_table_and_json(comparison):
    frame = comparison.to_frame()
    assert list(frame.columns) == [
        "layer", "weights", "sparsity", "predicted", "predicted_std", "measured", "measured_std", "error",
        "zero_scores",
    ]  # fmt: skip
    assert len(frame) == 12
    np.testing.assert_allclose(frame["measured"].to_numpy().reshape(2, 6), comparison.measured_kept)
    read = json.loads(comparison.to_json())
    assert read["mean_absolute_error"] == comparison.mean_absolute_error
    assert np.array(read["kept"]).shape == (6, 2, 6)
    assert read["prediction"]["layers"] == list(comparison.layers)


def test_a_function_of_the_seed_gives_models_and_their_average_scale():
    def factory(seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
        )

    seen = []
    found = compare(factory, 0.6, seeds=[3, 11, 5], progress=lambda done, total: seen.append((done, total)))
    assert found.seeds.tolist() == [3, 11, 5]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.kept.shape == (3, 3)
    assert found.mean_absolute_error < 0.05
    assert isinstance(found.sparsity, float)
    again = compare(factory, 0.6, seeds=[3, 11, 5])
    np.testing.assert_array_equal(found.kept, again.kept)
    np.testing.assert_array_equal(found.prediction.kept, again.prediction.kept)


@pytest.mark.parametrize("criterion", ["magnitude", "synflow-oneshot", "uniform", "erk", "random"])
def test_data_free_criteria_agree_closely(criterion):
    net = mlp(5, 200, activation="relu", init=(2**0.5, 0.0))
    found = compare(net, [0.5, 0.9], criterion=criterion, seeds=4)
    assert found.mean_absolute_error < 0.005


def test_an_interrupt_keeps_what_was_finished():
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    found = compare(mlp(3, 40, init=(1.3, 0.2)), 0.5, seeds=5, progress=interrupt)
    assert found.seeds.tolist() == [0, 1]
    assert not found.complete
    single = compare(mlp(3, 40, init=(1.3, 0.2)), 0.5, seeds=1)
    assert np.isnan(single.measured_std).all()
    assert json.loads(single.to_json())["measured_std"] is None


@pytest.fixture(scope="module")
def convolutional():
    from eoc_theory.networks.builders import cnn

    return cnn(4, 24, input_shape=(3, 8, 8))


@pytest.mark.parametrize("criterion", ["snip", "magnitude", "synflow-oneshot"])
def test_convolutional_networks_agree_with_experiment(convolutional, criterion):
    found = compare(convolutional, [0.5, 0.9], criterion=criterion, seeds=3)
    assert found.layers == convolutional.weight_layers
    assert found.mean_absolute_error < 0.03
    single = measure_pruning(
        convolutional.to_torch(1),
        [0.5, 0.9],
        criterion=criterion,
        data=convolutional.summarise(None),
        example_input=(1, 3, 8, 8),
        seed=1,
    )
    np.testing.assert_array_equal(found.kept[1], single.kept)


def test_a_function_of_the_seed_gives_convolutional_models(convolutional):
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((20, 3, 8, 8)), np.arange(20) % 10)
    drawn = compare(convolutional, 0.8, data=data, seeds=2)
    given = compare(convolutional.to_torch, 0.8, data=data, seeds=2)
    np.testing.assert_array_equal(drawn.kept, given.kept)
    # Scales and laws are read from the weights themselves: the last layer has only 240.
    np.testing.assert_allclose(drawn.prediction.kept, given.prediction.kept, atol=0.05)
    flat = (data[0].reshape(20, -1), data[1])
    again = compare(convolutional.to_torch, 0.8, data=flat, example_input=(1, 3, 8, 8), seeds=2)
    np.testing.assert_array_equal(given.kept, again.kept)
    with pytest.raises(EOCError, match="example_input"):
        compare(convolutional.to_torch, 0.8, seeds=2)


def test_graphs_of_several_seeds_are_averaged_by_their_variances(convolutional):
    from dataclasses import replace

    from eoc_theory.networks.builders import cnn
    from eoc_theory.reports.subject import _average

    graph = convolutional.graph
    first = graph.weight_layers[1]
    louder = graph.with_weights({first.name: replace(first, sigma_w=3 * first.sigma_w)})
    mean = _average([convolutional, Architecture.from_graph(louder)])
    assert mean.layers[1].sigma_w == pytest.approx(5**0.5 * first.sigma_w)
    assert mean.layers[0] == convolutional.layers[0]
    assert mean.graph.shapes == graph.shapes
    with pytest.raises(ModelError, match="same layers"):
        _average([convolutional, cnn(4, 24, input_shape=(3, 8, 8), activation="tanh", pool=(1,))])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"factory": "resnet"}, ArgumentError),
        ({"seeds": 0}, ArgumentError),
        ({"seeds": []}, ArgumentError),
        ({"sparsity": 1.5}, ArgumentError),
        ({"criterion": "obd"}, ArgumentError),
        ({"factory": lambda seed: nn.Sequential(nn.Linear(4 + seed, 3))}, EOCError),
    ],
)
def test_unusable_arguments(change, kind):
    arguments = {"factory": mlp(3, 20, init=(1.3, 0.2)), "sparsity": 0.5, "seeds": 2, **change}
    with pytest.raises(kind) as caught:
        compare(arguments.pop("factory"), arguments.pop("sparsity"), **arguments)
    assert "\n" not in str(caught.value)


def test_layers_must_not_change_with_the_seed():
    from eoc_theory.reports.subject import _average

    nets = [mlp(3, n, init=(1.3, 0.2)) for n in (20, 30)]
    with pytest.raises(ModelError, match="same layers"):
        _average(nets)
    mean = _average([mlp(3, 20, init=(s, 0.2)) for s in (1.0, 2.0)])
    assert isinstance(mean, Architecture)
    assert mean.layers[1].sigma_w == pytest.approx(2.5**0.5)
