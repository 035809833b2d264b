"""Biases, β and rows that have a mean: one shift of all units is not read as random numbers of its size."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import eoc_theory as eoc
from eoc_theory.errors import ModelError

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 50)).astype(np.float32), np.arange(20) % 10


def chain(act, biases, seed=0, depth=6, width=100):
    """He-scaled layers; `biases` sets those of a layer, given its number."""
    torch.manual_seed(seed)
    layers, fan = [], 50
    for i in range(depth):
        layer = nn.Linear(fan, width if i < depth - 1 else 10)
        nn.init.normal_(layer.weight, 0.0, (2.0 / fan) ** 0.5)
        biases(i, layer.bias)
        layers += [layer, act()]
        fan = width
    return nn.Sequential(*layers[:-1])


def normalised(set_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 10))
    set_(model[1])
    return model


class Shifted(nn.Module):
    def __init__(self, shift):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(50, 60, bias=False), nn.Linear(60, 10, bias=False)
        self.shift = nn.Parameter(shift)

    def forward(self, x):
        return self.b(torch.relu(self.a(x) + self.shift))


def constant(value):
    return lambda i, bias: nn.init.constant_(bias, value)


OFF = {
    "every bias .1": lambda: chain(nn.ReLU, constant(0.1)),
    "every bias −2": lambda: chain(nn.Tanh, constant(-2.0)),
    "one constant a layer": lambda: chain(nn.ReLU, lambda i, b: nn.init.constant_(b, 0.1 * i)),
    "the last layer's": lambda: chain(nn.ReLU, lambda i, b: nn.init.constant_(b, -4.6 if i == 5 else 0.0)),
    "half of the units": lambda: chain(nn.ReLU, lambda i, b: b.data.zero_()[: len(b) // 2].fill_(1.0)),
    "uniform above 0": lambda: chain(nn.ReLU, lambda i, b: nn.init.uniform_(b, 0.0, 0.2)),
    "β": lambda: normalised(lambda norm: nn.init.constant_(norm.bias, 0.3)),
    "a random shift": lambda: Shifted(1.0 + 0.1 * torch.randn(60)),
}
FINE = {
    "zeros": lambda: chain(nn.ReLU, constant(0.0)),
    "normal": lambda: chain(nn.ReLU, lambda i, b: nn.init.normal_(b, 0.0, 0.1)),
    "torch's own": lambda: nn.Sequential(nn.Linear(50, 60), nn.ReLU(), nn.Linear(60, 10)),
    "γ": lambda: normalised(lambda norm: nn.init.constant_(norm.weight, 0.5)),
    "one number for all": lambda: Shifted(torch.full((60,), 0.5)),
}


@pytest.mark.parametrize("name", OFF)
def test_a_mean_is_refused_by_theory_and_sampled_as_it_is(name):
    model = OFF[name]()
    for call in (
        lambda: eoc.Architecture.from_torch(model),
        lambda: eoc.predict_pruning(model, 0.9, data=(X, Y), method="theory"),
    ):
        with pytest.raises(ModelError, match=r"mean -?[\d.e-]+ and standard deviation") as error:
            call()
        assert "\n" not in str(error.value)
    assert eoc.predict_pruning(model, 0.9, data=(X, Y), samples=2).method == "sampled"
    # SynFlow looks at no biases, and initialising sets them.
    assert len(eoc.predict_pruning(model, 0.9, criterion="synflow", data=(X, Y)).kept) > 1
    assert eoc.initialize_(copy.deepcopy(model), example_input=X) is not None


@pytest.mark.parametrize("name", FINE)
def test_what_has_none_is_read(name):
    eoc.Architecture.from_torch(FINE[name](), example_input=X)


def kept_by_snip(model, sparsity):
    """SNIP in plain torch."""
    weights = [p for p in model.parameters() if p.ndim == 2]
    loss = nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(Y))
    scores = [
        (w * g).abs().detach() for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)
    ]
    together = torch.cat([s.flatten() for s in scores])
    least = together.kthvalue(round(sparsity * len(together))).values
    return [float((s > least).double().mean()) for s in scores]


@pytest.mark.parametrize(("value", "act"), [(0.5, nn.ReLU), (0.5, nn.Tanh), (-0.3, nn.ReLU)])
def test_sampled_networks_keep_the_constants(value, act):
    found = eoc.predict_pruning(chain(act, constant(value)), 0.9, data=(X, Y), samples=16)
    right = np.array([kept_by_snip(chain(act, constant(value), seed), 0.9) for seed in range(1, 41)])
    unsure = 4.0 * right.std(axis=0) * (1 / 40 + 1 / 16) ** 0.5
    assert np.all(np.abs(found.kept - right.mean(axis=0)) < unsure + 0.005)
