"""Models under ``torch.compile``, and masks of ``torch.ao.pruning``."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import eoc_theory as eoc

X, Y = np.random.default_rng(0).standard_normal((24, 3, 8, 8)), np.arange(24) % 5


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(216, 5),
    )  # fmt: skip


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


ASKED = {
    "predict_pruning": lambda net: eoc.predict_pruning(net, 0.9, data=(X, Y), samples=2),
    "predict_pruning by name": lambda net: eoc.predict_pruning(net=net, sparsity=0.9, data=(X, Y), samples=2),
    "predict_collapse": lambda net: eoc.predict_collapse(net, data=(X, Y), samples=2),
    "measure_pruning": lambda net: eoc.measure_pruning(net, 0.9, data=(X, Y)),
    "from_torch": lambda net: eoc.Architecture.from_torch(net, (1, 3, 8, 8)),
    "connected_weights": lambda net: eoc.connected_weights(net, example_input=(1, 3, 8, 8)),
    "factory": lambda net: eoc.predict_pruning(lambda: net, 0.9, data=(X, Y), samples=2),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_compiled_model_is_answered_like_the_model_inside(ask):
    model = network()
    seen, expected = ask(compiled(model)), ask(model)
    if isinstance(expected, (dict, tuple)):
        assert repr(seen) == repr(expected)
    else:
        assert seen == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda model: eoc.prune_(model, eoc.measure_pruning(model, 0.8, data=(X, Y)).masks),
        lambda model: eoc.initialize_(model, seed=3, example_input=(1, 3, 8, 8)),
    ],
    ids=["prune_", "initialize_"],
)
def test_a_compiled_model_computes_with_what_is_changed(change):
    model, twin = network(), network()
    fast, inputs = compiled(model), torch.as_tensor(X, dtype=torch.float32)
    before = fast(inputs)
    assert change(fast) is fast
    change(twin)
    after = fast(inputs)
    assert not torch.allclose(after, before)
    assert torch.equal(after, twin(inputs))


def test_a_compiled_model_is_rescaled_watched_and_its_masks_read():
    fast, twin = compiled(network()), network()
    masks = eoc.measure_pruning(twin, 0.8, data=(X, Y)).masks
    for model in (fast, twin):
        eoc.prune_(model, masks)
        eoc.rescale_(model, by="signal", data=(X, Y))
    assert torch.equal(fast._orig_mod[0].weight, twin[0].weight)
    assert {name: mask.tolist() for name, mask in eoc.masks_of(fast).items()} == {
        name: mask.tolist() for name, mask in masks.items()
    }
    with eoc.watch_layers(fast) as watch:
        twin(torch.as_tensor(X, dtype=torch.float32))
    assert watch.scales.layers == tuple(masks)


def test_masks_of_torch_ao_pruning_are_read_and_counted():
    sparsity = pytest.importorskip("torch.ao.pruning")
    model = network()
    masks = eoc.measure_pruning(model, 0.8, data=(X, Y)).masks
    plain = eoc.prune_(copy.deepcopy(model), masks)
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", sparsity.FakeSparsity(torch.as_tensor(mask)))
    inputs = torch.as_tensor(X, dtype=torch.float32)
    assert torch.equal(model.eval()(inputs), plain.eval()(inputs))
    read = eoc.masks_of(model)
    assert list(read) == list(masks)
    assert all(np.array_equal(read[name], masks[name]) for name in masks)
    with eoc.watch_layers(model) as watch:
        model(inputs)
    assert watch.scales.kept == pytest.approx([mask.mean() for mask in masks.values()])
