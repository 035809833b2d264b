"""Factories of models whose large tensors are never made: their laws, and what is read of them."""

from __future__ import annotations

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ModelError

torch = pytest.importorskip("torch")
from eoc_theory.pytorch import weightless  # noqa: E402

nn = torch.nn


class Tall(nn.Module):
    """A Linear layer with more entries than are made, one with few, and a table of tokens."""

    def __init__(self, fill=None, tied=False):
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(5000, 300), nn.Linear(300, 4000), nn.Linear(4000, 6)
        nn.init.normal_(self.words.weight, 0.0, 0.3)
        nn.init.normal_(self.up.weight, 0.0, 0.05)
        if fill is not None:
            fill(self.up.weight)
        if tied:
            self.down = nn.Linear(300, 5000, bias=False)
            self.down.weight = self.words.weight
        self.tied = tied

    def forward(self, x):
        x = self.words(x).mean(1)
        return self.down(x) if self.tied else self.down(torch.relu(self.up(x)))


def test_large_tensors_take_no_memory_and_their_laws_are_exact():
    model, laws = weightless.weightless(Tall)
    assert set(laws) == {"words.weight", "up.weight"}
    assert (laws["words.weight"].law, laws["words.weight"].std) == ("normal", 0.3)
    for parameter in (model.words.weight, model.up.weight):
        assert parameter.untyped_storage().nbytes() == 4 and not parameter.is_meta
    assert float(model.down.weight.detach().std()) > 0.0
    net = weightless.read_network(Tall, None, (2, 7))
    whole = weightless.read_network(Tall(), None, (2, 7))
    assert net.layers[0].sigma_w == pytest.approx(0.05 * 300**0.5, rel=1e-6)
    assert [layer.name for layer in net] == [layer.name for layer in whole] == ["up", "down"]
    for one, other in zip(net, whole, strict=True):
        assert one.sigma_w == pytest.approx(other.sigma_w, rel=0.02) and one.law == other.law
    assert net.as_graph().nodes[1].layer.std == 0.3


def test_uniform_weights_of_torchs_own_initialisation():
    net = weightless.read_network(lambda: nn.Sequential(nn.Linear(1500, 1500), nn.Tanh(), nn.Linear(1500, 3)))
    assert (net.layers[0].law, net.layers[0].sigma_w) == ("uniform", pytest.approx(3**-0.5, rel=1e-6))


def test_what_is_not_recorded_is_made():
    def fill(weight):
        with torch.no_grad():
            weight.copy_(
                torch.linspace(-1.0, 1.0, weight.numel())[torch.randperm(weight.numel())].view_as(weight)
            )

    model, laws = weightless.weightless(lambda: Tall(fill))
    assert not laws and float(model.up.weight.detach().std()) == pytest.approx(3**-0.5, rel=0.01)


def test_models_that_are_too_large_to_be_made_say_so(monkeypatch):
    monkeypatch.setattr(weightless, "_MOST_WEIGHTS", 1e6)

    def fill(weight):
        with torch.no_grad():
            weight.copy_(torch.linspace(-1.0, 1.0, weight.numel()).view_as(weight))

    with pytest.raises(ModelError, match=r"up\.weight"):
        weightless.weightless(lambda: Tall(fill))


def test_theory_of_a_factory():
    ids, labels = np.random.default_rng(0).integers(5000, size=(12, 7)), np.arange(12) % 6
    found = eoc.predict_pruning(Tall, 0.9, data=(ids, labels), method="theory")
    assert found.method == "theory" and found.layers == ("up", "down")
    total = float((found.kept * found.weights).sum() / found.weights.sum())
    assert total == pytest.approx(0.1, abs=0.01)
