"""Distributions recorded while a factory draws, against what torch's initialisers are documented to draw."""

import math

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.pytorch.sample.recorder import Recorder  # noqa: E402

CUT = 0.87962566103423978


def filled(fill):
    def make():
        layer = nn.Linear(50, 20)
        fill(layer.weight)
        return layer

    return make


def divided(weight):
    nn.init.normal_(weight, std=0.4)
    with torch.no_grad():
        weight.div_(4.0)


KNOWN = {
    "default": (lambda: nn.Linear(50, 20), "uniform", 1 / math.sqrt(150)),
    "convolution": (lambda: nn.Conv2d(5, 8, 3), "uniform", 1 / math.sqrt(3 * 45)),
    "kaiming": (filled(nn.init.kaiming_normal_), "normal", math.sqrt(2 / 50)),
    "xavier": (filled(nn.init.xavier_uniform_), "uniform", math.sqrt(2 / 70)),
    "wide cut": (filled(lambda w: nn.init.trunc_normal_(w, std=0.02)), "normal", 0.02),
    "cut at two": (
        filled(lambda w: nn.init.trunc_normal_(w, std=0.5, a=-1.0, b=1.0)),
        "truncated",
        0.5 * CUT,
    ),
    "divided": (filled(divided), "normal", 0.1),
    "by hand": (lambda: own(torch.randn(20, 50) * 0.3), "normal", 0.3),
    "cloned": (lambda: cloned().layers[1].linear1, "uniform", 1 / math.sqrt(24)),
}


def cloned():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2)


def own(value):
    layer = nn.Module()
    layer.weight = nn.Parameter(value)
    return layer


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", KNOWN)
def test_laws_are_recorded_exactly(name):
    make, law, std = KNOWN[name]
    with Recorder() as recorder:
        model = make()
    found = recorder.laws(model)["weight"]
    assert (found.law, found.mean) == (law, 0.0)
    assert found.std == pytest.approx(std, rel=1e-6)
    assert float(model.weight.std()) == pytest.approx(std, rel=0.15)


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.orthogonal_,
        lambda w: nn.init.trunc_normal_(w, std=0.5, a=-0.5, b=1.0),
        lambda w: w.data[0].mul_(3.0),
        lambda w: w.data.add_(1.0),
        lambda w: w.data.copy_(torch.linalg.qr(torch.randn(50, 20)).Q.T),
        lambda w: nn.init.sparse_(w, 0.3),
        lambda w: w.data.tanh_(),
    ],
)
def test_what_is_not_understood_is_left_out(fill):
    with Recorder() as recorder:
        model = filled(fill)()
    assert "weight" not in recorder.laws(model)


def test_rows_of_padding_stay_0():
    with Recorder() as recorder:
        model = nn.Embedding(30, 8, padding_idx=0)
    found = recorder.laws(model)["weight"]
    assert (found.law, found.std, found.zeros) == ("normal", 1.0, True)


def test_magnitude_of_a_factory_is_exact_and_that_of_one_model_nearly():
    """One layer of 200 weights shows its scale to 5 %; what the factory draws is known."""

    def factory():
        model = nn.Sequential(
            nn.Conv1d(2, 10, 5), nn.ReLU(), nn.Conv1d(10, 20, 5), nn.Flatten(), nn.Linear(40, 5)
        )
        nn.init.normal_(model[0].weight, std=0.137)
        nn.init.normal_(model[2].weight, std=0.1733)
        return model

    data = torch.randn(8, 2, 10), torch.arange(8) % 5
    found = eoc.predict_pruning(factory, 0.7, criterion="magnitude", data=data)
    assert found.method == "theory"
    kept = []
    for seed in range(300):
        torch.manual_seed(seed)
        sizes = [m.weight.detach().abs().flatten() for m in factory() if hasattr(m, "weight")]
        cut = torch.cat(sizes).sort().values[round(0.7 * 1300) - 1]
        kept.append([float((s > cut).double().mean()) for s in sizes])
    assert np.allclose(
        found.kept, np.mean(kept, axis=0), atol=4 * np.std(kept, axis=0).max() / math.sqrt(300)
    )
