"""Architectures and batches: shapes, scales and the errors a user meets."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import (
    ArgumentError,
    DataError,
    MissingDependencyError,
    ModelError,
)
from eoc_theory.networks.architecture import Architecture, WeightLayer, init_scales, mlp
from eoc_theory.signals.data import as_data, standardise


def test_mlp_has_the_shapes_asked_for():
    net = mlp(4, 7, activation="relu", in_features=5, out_features=3)
    assert net.weight_layers == ("layers.0", "layers.1", "layers.2", "layers.3")
    assert [(layer.fan_in, layer.fan_out) for layer in net] == [(5, 7), (7, 7), (7, 7), (7, 3)]
    assert net.n_weights == 5 * 7 + 2 * 49 + 21
    assert net.layers[-1].activation is None
    assert net.layers[0].activation.name == "relu"


def test_one_layer_network():
    net = mlp(1, 99, in_features=6, out_features=2, sigma_w=1.0)
    assert net.depth == 1 and net.n_weights == 12


@pytest.mark.parametrize(
    ("activation", "init", "expected"),
    [
        ("relu", "eoc", (np.sqrt(2), 0.0)),
        ("tanh", "eoc", (1.3041458400565116, 0.2)),
        ("tanh", "kaiming", (np.sqrt(2), 0.0)),
        ("tanh", "pytorch", (np.sqrt(1 / 3), np.sqrt(1 / 300))),
        ("tanh", (1.1, 0.3), (1.1, 0.3)),
    ],
)
def test_initialisations(activation, init, expected):
    assert init_scales(eoc.activation(activation), init, fan_in=100) == pytest.approx(expected, rel=1e-9)


def test_pytorch_default_is_uniform():
    assert {layer.law for layer in mlp(3, 10, init="pytorch")} == {"uniform"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth must be a whole number >= 1, got 0"),
        ({"width": 2.5}, "width must be a whole number >= 1"),
        ({"law": "cauchy"}, "law must be one of 'normal', 'uniform', got 'cauchy'"),
        ({"init": "he"}, "init must be one of 'eoc', 'kaiming', 'pytorch', got 'he'"),
        ({"init": (1.0,)}, "init must be 'eoc', 'kaiming', 'pytorch' or a pair"),
        ({"sigma_w": -1.0}, "sigma_w must be a number > 0, got -1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        mlp(**{"depth": 3, "width": 10, **arguments})


def test_layers_that_do_not_fit():
    first = WeightLayer("a", 3, 4, 1.0, 0.0, eoc.activation("tanh"))
    with pytest.raises(ModelError, match="a has fan_out 4, b has fan_in 5"):
        Architecture((first, WeightLayer("b", 5, 2, 1.0, 0.0)))
    with pytest.raises(ModelError, match="a has no activation"):
        Architecture((WeightLayer("a", 3, 4, 1.0, 0.0), WeightLayer("b", 4, 2, 1.0, 0.0)))


def test_digits_are_standardised_and_balanced():
    inputs, targets = eoc.digits(100)
    assert inputs.shape == (100, 64) and np.bincount(targets).tolist() == [10] * 10
    assert np.mean(inputs**2) == pytest.approx(1.0, abs=0.05)
    assert np.array_equal(eoc.digits(100)[0], inputs)
    assert not np.array_equal(eoc.digits(100, seed=1)[0], inputs)


def test_digits_are_scikit_learns_wherever_it_keeps_them(monkeypatch):
    from eoc_theory.signals import data

    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    wanted = load_digits()
    read = data._digit_set()
    for file in (data._DIGITS, ("elsewhere.csv",)):
        monkeypatch.setattr(data, "_DIGITS", file)
        data._digit_set.cache_clear()
        pixels, labels = data._digit_set()
        for found, also, expected in zip((pixels, labels), read, (wanted.data, wanted.target), strict=True):
            assert found.dtype == also.dtype
            np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    data._digit_set.cache_clear()
    with pytest.raises(MissingDependencyError, match="needs scikit-learn"):
        eoc.digits(10)
    data._digit_set.cache_clear()


def test_standardise_has_unit_mean_square():
    values = standardise(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)))
    assert np.allclose(values.mean(axis=0), 0) and np.mean(values**2) == pytest.approx(1)


def test_subsets_take_the_classes_in_turn():
    batch = as_data(eoc.digits(100), in_features=64, classes=10)
    subset = batch.take(batch.spread_indices(20))
    assert sorted(subset.targets) == sorted([*range(10), *range(10)])
    assert batch.spread_indices(1000).tolist() == list(range(100))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data must be None"),
        ((np.zeros((4, 3)), np.zeros(4, int)), "inputs have 3 features, the network takes 5"),
        ((np.zeros((4, 5)), np.zeros(3, int)), r"targets must have shape \(4,\), got \(3,\)"),
        ((np.zeros((4, 5)), np.full(4, 2)), "targets must be class numbers 0 to 1, got 2 to 2"),
        ((np.full((4, 5), np.nan), np.zeros(4, int)), "inputs must be finite"),
        ((np.zeros((4, 5)), np.full(4, 0.5)), "targets must be whole class numbers"),
    ],
)
def test_data_errors(data, message):
    with pytest.raises(DataError, match=message):
        as_data(data, in_features=5, classes=2)


def test_images_are_flattened():
    batch = as_data((np.ones((4, 1, 2, 3)), np.array([0, 1, 0, 1])), in_features=6, classes=2)
    assert batch.inputs.shape == (4, 6)
