"""Designs carried out: networks that really collapse before, and do not after."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402


def example(net: eoc.Architecture):
    shape = net.input_shape
    return None if net.graph is None else np.zeros((1, shape.channels, *shape.space), dtype=np.float32)


def collapsed(net, sparsity, criterion, data, seeds, allocation=None) -> tuple[float, float]:
    """Share of networks that have an empty layer, and of those in which one has no weight on a path."""
    empty = cut = 0
    for seed in seeds:
        model = net.to_torch(100 + seed)
        found = eoc.measure_pruning(
            model, sparsity, criterion=criterion, data=net.summarise(data), example_input=example(net),
            seed=seed, collapse=False, allocation=allocation,
        )  # fmt: skip
        assert isinstance(found.masks, dict)
        left = eoc.connected_weights(model, found.masks, example_input=example(net))
        empty += bool((found.kept == 0).any())
        cut += not all(left.values())
    return empty / len(seeds), cut / len(seeds)


def carried_out(design: eoc.Design):
    return design if design.allocation == "layerwise" else None


DATA = eoc.digits(50)

CASES = {
    "initialisation": (eoc.mlp(15, 40, activation="tanh", init=(0.3, 0.1)), 0.7, "snip", DATA),
    "allocation": (eoc.mlp(15, 40, activation="tanh", init=(0.7, 0.1)), 0.97, "snip", DATA),
    "relu": (eoc.mlp(15, 40, activation="relu", init="pytorch"), 0.9, "snip", DATA),
    "magnitude": (eoc.mlp(12, 20, activation="relu", in_features=784), 0.99, "magnitude", None),
}


@pytest.mark.parametrize("case", CASES)
def test_networks_collapse_before_and_not_after(case):
    net, sparsity, criterion, data = CASES[case]
    design = eoc.design(net, sparsity, criterion=criterion, data=data, networks=2)
    assert design.feasible and not design.before.feasible
    seeds = range(20)
    empty, cut = collapsed(net, sparsity, criterion, data, seeds)
    # Four standard errors of a share of 20.
    assert abs(empty - design.before.collapse_probability) < 0.05 + 4 * np.sqrt(0.25 / len(seeds)) * min(
        1.0, 2.0 * np.sqrt(design.before.collapse_probability * (1 - design.before.collapse_probability))
    )
    assert cut >= empty and cut > 0.5
    after = collapsed(design.architecture, sparsity, criterion, data, seeds, carried_out(design))
    assert after == (0.0, 0.0)


def test_no_layer_is_empty_and_yet_no_way_is_left():
    net = eoc.mlp(60, 100, activation="tanh")
    empty, cut = collapsed(net, 0.98, "snip", eoc.digits(100), range(3))
    assert (empty, cut) == (0.0, 1.0)
    counts = np.rint(eoc.predict_pruning(net, 0.98, data=eoc.digits(100)).kept * net.weights).astype(int)
    counts[30] += net.n_weights - round(0.98 * net.n_weights) - counts.sum()
    assert collapsed(net, 0.98, "snip", eoc.digits(100), range(2), counts) == (0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "stable-resnet", "vgg"])
def test_graphs_collapse_before_and_not_after(kind):
    shape = (3, 32, 32) if kind == "vgg" else (3, 8, 8)
    if kind == "cnn":
        net = eoc.cnn(10, 8, activation="relu", init="pytorch", input_shape=shape)
        sparsity, criterion = 0.97, "snip"
    elif kind == "vgg":
        net = eoc.vgg(11, width=4, input_shape=shape)
        sparsity, criterion = 0.99, "magnitude"
    else:
        net = eoc.resnet(8, width=4, scaling="stable", normalisation=None, input_shape=shape)
        sparsity, criterion = 0.98, "snip"
    data = eoc.digits_images(20, shape)
    design = eoc.design(net, sparsity, criterion=criterion, data=data, networks=2)
    assert design.feasible
    seeds = range(4)
    before = collapsed(net, sparsity, criterion, data, seeds)
    assert before[1] > 0.5
    after = collapsed(design.architecture, sparsity, criterion, data, seeds, carried_out(design))
    assert after == (0.0, 0.0)


def test_a_model_is_designed_initialised_and_pruned():
    def model():
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(64, 50), nn.Tanh()]
        for _ in range(12):
            layers += [nn.Linear(50, 50), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(50, 10))

    net = model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    design = eoc.design(net, 0.95, data=DATA, networks=2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert design.feasible and design.initialisation is not None
    assert design.before.initialisation is None and not design.before.feasible
    sigma_w, sigma_b = design.initialisation
    eoc.initialize_(net, sigma_b=sigma_b, seed=1)
    read = eoc.Architecture.from_torch(net)
    for layer, wanted in zip(read, design.architecture, strict=True):
        assert layer.name == wanted.name
        assert layer.sigma_w == pytest.approx(wanted.sigma_w, rel=0.1)
        assert layer.sigma_b == pytest.approx(wanted.sigma_b, rel=0.5)
    assert read.layers[0].sigma_w == pytest.approx(sigma_w, rel=0.1)
    found = eoc.measure_pruning(net, 0.95, data=DATA, allocation=design)
    assert isinstance(found.masks, dict)
    eoc.prune_(net, found.masks)
    assert list(found.kept * found.weights) == pytest.approx(list(design.kept_weights))
    assert all(eoc.connected_weights(net).values())
    loss = nn.functional.cross_entropy(net(torch.as_tensor(DATA[0]).float()), torch.as_tensor(DATA[1]))
    loss.backward()
    assert all(float(p.grad.abs().max()) > 0 for name, p in net.named_parameters() if "weight" in name)


def test_biases_that_are_not_there_are_not_set():
    layers: list[nn.Module] = []
    for _ in range(10):
        layers += [nn.Linear(30, 30, bias=False), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Linear(30, 5, bias=False))
    design = eoc.design(net, 0.99, networks=0)
    scales = [c.initialisation for c in design.candidates if c.initialisation is not None]
    assert scales and all(sigma_b == 0.0 for _, sigma_b in scales)
