"""What pruning keeps, when it collapses, comparisons and diagnoses say one thing, at any depth and scale."""

import numpy as np
import pytest
from known_criteria import CRITERIA

import eoc_theory as eoc
from eoc_theory.errors import ModelError

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
#: What closed forms and draws of the same law may differ by: some three standard deviations of 2000 draws.
SAMPLING = 0.04


def chain(rng, deepest):
    """A chain of any kind, shallow ones as often as deep ones."""
    return eoc.mlp(
        int(np.exp(rng.uniform(np.log(2), np.log(deepest)))),
        int(rng.choice([10, 20, 40])),
        activation=str(rng.choice(ACTIVATIONS)),
        init=(
            float(np.exp(rng.uniform(np.log(0.1), np.log(10)))),
            float(rng.choice([0.0, 0.0, 0.1, 1.0])),
        ),
        in_features=20,
        out_features=5,
    )


def graph(rng):
    """A small network of convolutions."""
    shape, activation = (3, 8, 8), str(rng.choice(ACTIVATIONS[:4]))
    match rng.integers(3):
        case 0:
            width = int(rng.choice([4, 8, 16]))
            return eoc.cnn(int(rng.integers(2, 8)), width, input_shape=shape, activation=activation)
        case 1:
            return eoc.resnet(8, width=int(rng.choice([4, 8])), input_shape=shape, activation=activation)
        case _:
            return eoc.resnet(8, width=4, input_shape=shape, normalisation=None)


def data_for(net, rng):
    if rng.random() < 0.4:
        return None
    size = int(rng.choice([10, 30, 60]))
    inputs = rng.standard_normal((size, net.in_features)) * 10.0 ** rng.uniform(-3, 3)
    return inputs, np.arange(size) % net.out_features


def sparsities(net):
    """From half of the weights to one: whole numbers of weights left, and some that are not."""
    left = np.unique(np.append(np.geomspace(0.5 * net.n_weights, 1.0, 12).round(), np.arange(1, 6)))
    return np.unique(np.append(1.0 - left / net.n_weights, [0.0, 0.5, 0.8, 0.9, 0.95, 0.99]))


def check(net, criterion, data, samples=None):
    """What is kept, what is lost, and when, for one network."""
    values = sparsities(net)
    kept = eoc.predict_pruning(net, values, criterion=criterion, data=data, samples=samples)
    collapse = eoc.predict_collapse(net, criterion=criterion, data=data, samples=samples)
    chance = np.asarray(kept.collapse_probability)
    assert chance == pytest.approx(collapse.probability(values), abs=SAMPLING)
    # Where it is neither plainly 0 nor plainly 1 it is the very same.
    same = np.abs(chance - collapse.probability(values)) < 1e-12
    assert same[(chance > 0.05) & (chance < 0.95)].all()
    assert (np.diff(chance) > -1e-3).all()
    empty = np.asarray(kept.empty_probability)
    assert (empty <= chance[:, None] + 1e-9).all() and (empty >= 0).all()
    # With fewer weights than layers one is empty.
    assert (chance[np.rint((1.0 - values) * net.n_weights) < net.depth] > 1.0 - 1e-9).all()
    share = net.weights / net.weights.sum()
    assert np.asarray(kept.kept) @ share == pytest.approx(1.0 - values, abs=0.03)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.filterwarnings("error")
def test_what_is_kept_and_when_it_collapses_agree_in_small_networks(criterion):
    rng = np.random.default_rng(1)
    check(chain(rng, 12), criterion, None)
    check(eoc.resnet(8, width=4, input_shape=(3, 8, 8)), criterion, None, samples=3)
    check(eoc.mlp(3, 1, activation="relu", in_features=7), criterion, None, samples=3)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", [name for name in CRITERIA if not name.startswith("force")])
@pytest.mark.filterwarnings("error")
def test_what_is_kept_and_when_it_collapses_agree(criterion):
    rng = np.random.default_rng(len(criterion))
    tried = 0
    for number in range(3):
        net = graph(rng) if number == 2 else chain(rng, 60 if criterion == "grasp" else 300)
        try:
            check(net, criterion, data_for(net, rng))
        except ModelError as error:
            # Refused by both alike, with a reason.
            assert "nothing to rank" in str(error) or "range of floats" in str(error)
            continue
        tried += 1
    assert tried > 1


def test_a_stated_chance_is_counted_once_for_both(monkeypatch):
    from eoc_theory.propagation.shared import shared_samples
    from eoc_theory.pruning import critical_sparsity

    made = []
    made_law = critical_sparsity._critical_law
    monkeypatch.setattr(critical_sparsity, "_critical_law", lambda *a: made.append(1) or made_law(*a))
    net = eoc.mlp(5, 10, activation="relu", in_features=20)
    with shared_samples():
        found = eoc.predict_pruning(net, 0.98)
        law = eoc.predict_collapse(net)
    assert made == [1] and found.collapse_probability == law.probability(0.98)
    made.clear()
    # Where none is near, none is drawn.
    assert eoc.predict_pruning(eoc.mlp(5, 100, activation="tanh"), 0.5).collapse_probability < 1e-6
    assert not made


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
