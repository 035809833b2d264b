"""What pruning keeps, when it collapses, comparisons and diagnoses say one thing, at any depth and scale."""

import numpy as np
import pytest

import eoc_theory as eoc

ACTIVATIONS = (
    "relu",
    "tanh",
    "gelu",
    "leaky_relu(0.1)",
    "elu",
    "softplus",
    "sin",
    "silu",
    "relu6",
    "identity",
)
CRITERIA = ("snip", "snip", "snip", "grasp", "magnitude", "synflow-oneshot", "random")


def chains(number, deepest):
    """Networks, criteria, sparsities and data of all kinds, the same on every run."""
    rng = np.random.default_rng(number)
    for _ in range(number):
        depth = int(np.exp(rng.uniform(np.log(2), np.log(deepest))))
        net = eoc.mlp(
            depth,
            int(rng.choice([10, 20, 40])),
            activation=str(rng.choice(ACTIVATIONS)),
            init=(
                float(np.exp(rng.uniform(np.log(0.1), np.log(10)))),
                float(rng.choice([0.0, 0.0, 0.1, 1.0])),
            ),
            in_features=20,
            out_features=5,
        )
        size = int(rng.choice([10, 30, 60]))
        inputs = rng.standard_normal((size, 20)) * 10.0 ** rng.uniform(-3, 3)
        data = (inputs, np.arange(size) % 5) if rng.random() < 0.6 else None
        yield net, str(rng.choice(CRITERIA)), float(rng.choice([0.5, 0.8, 0.9])), data


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_what_is_kept_and_when_it_collapses_agree():
    differences = []
    for net, criterion, sparsity, data in chains(100, 60):
        kept = eoc.predict_pruning(net, sparsity, criterion=criterion, data=data)
        collapse = eoc.predict_collapse(net, criterion=criterion, data=data)
        share = net.weights / net.weights.sum()
        assert kept.kept @ share == pytest.approx(1.0 - sparsity, abs=0.03)
        difference = abs(kept.collapse_probability - collapse.probability(sparsity))
        # One says "for certain" where the other says "never" in none.
        assert difference < 0.9
        differences.append(difference)
    # Layers that are taken as independent, and small ones, make some difference.
    assert np.mean(np.array(differences) > 0.3) < 0.05
    assert np.mean(differences) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("init", [(3**-0.5, 0.0), (4.0, 0.0)])
def test_comparisons_and_diagnoses_say_what_predictions_say(init):
    pytest.importorskip("torch")
    net = eoc.mlp(100, 20, activation="relu", init=init, in_features=20)
    inputs, targets = np.random.default_rng(0).standard_normal((30, 20)), np.arange(30) % 10
    data = (inputs * 1e-20, targets)
    kept, collapse = eoc.predict_pruning(net, 0.8, data=data), eoc.predict_collapse(net, data=data)
    compared = eoc.compare(net, 0.8, data=data, seeds=6)
    diagnosed = eoc.diagnose(net, sparsity=0.8, data=data)
    assert np.array_equal(compared.prediction.kept, kept.kept)
    assert np.array_equal(diagnosed.kept, kept.kept)
    assert np.array_equal(compared.collapse.samples, collapse.samples)
    assert np.array_equal(diagnosed.before.collapse.samples, collapse.samples)
    spread = compared.measured_std.mean()
    assert compared.mean_absolute_error < 0.02 + spread
    measured = np.mean(compared.critical_sparsity <= 0.8)
    assert abs(measured - collapse.probability(0.8)) < 0.5
