"""Distributions of parameters, read from values that torch's initialisers drew, and drawn again."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.base.isolation import converted  # noqa: E402
from eoc_theory.pytorch.models import prunable_weights  # noqa: E402
from eoc_theory.pytorch.sample.laws import read_law, read_laws  # noqa: E402
from eoc_theory.pytorch.sample.redraw import redraw_  # noqa: E402
from eoc_theory.pytorch.unit_scales import runs_of_one_scale  # noqa: E402

CUT = 0.87962566103423978
#: initialiser, the law and the standard deviation that it has for a (fan_out, fan_in) matrix.
INITIALISERS = {
    "kaiming normal": (nn.init.kaiming_normal_, "normal", lambda o, i: math.sqrt(2 / i)),
    "kaiming uniform": (nn.init.kaiming_uniform_, "uniform", lambda o, i: math.sqrt(2 / i)),
    "kaiming fan_out": (
        lambda w: nn.init.kaiming_normal_(w, mode="fan_out"),
        "normal",
        lambda o, i: math.sqrt(2 / o),
    ),
    "default": (
        lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
        "uniform",
        lambda o, i: math.sqrt(1 / (3 * i)),
    ),
    "xavier normal": (nn.init.xavier_normal_, "normal", lambda o, i: math.sqrt(2 / (i + o))),
    "xavier uniform": (nn.init.xavier_uniform_, "uniform", lambda o, i: math.sqrt(2 / (i + o))),
    "xavier tanh": (
        lambda w: nn.init.xavier_normal_(w, gain=5 / 3),
        "normal",
        lambda o, i: 5 / 3 * math.sqrt(2 / (i + o)),
    ),
    "normal .02": (lambda w: nn.init.normal_(w, std=0.02), "normal", lambda o, i: 0.02),
    "truncated": (
        lambda w: nn.init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04),
        "truncated",
        lambda o, i: 0.02 * CUT,
    ),
    "lecun": (lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5), "normal", lambda o, i: i**-0.5),
    "orthogonal": (nn.init.orthogonal_, "orthogonal", lambda o, i: max(o, i) ** -0.5),
}


@pytest.mark.parametrize("name", INITIALISERS)
@pytest.mark.parametrize("seed", range(3))
def test_named_initialisations_are_recognised_exactly(name, seed):
    initialise, law, std = INITIALISERS[name]
    torch.manual_seed(seed)
    layers = [nn.Linear(i, o) for o, i in ((120, 50), (120, 120), (30, 120), (10, 30))]
    model = nn.Sequential(*layers)
    for layer in layers:
        initialise(layer.weight)
    laws = read_laws(model, prunable_weights(model))
    for index, layer in enumerate(layers):
        found = laws[f"{index}.weight"]
        wanted = std(*layer.weight.shape)
        few = layer.weight.numel() < 1000
        assert found.law == law or (few and found.law in ("normal", "truncated")), (name, index, found)
        # Exactly where it is named; the last layer has 300 weights, which show 4 % alone.
        close = 1e-6 if found.named or law == "orthogonal" else 0.02
        assert found.std == pytest.approx(wanted, rel=close), (name, index, found)


@pytest.mark.parametrize("seed", range(4))
def test_a_scale_that_has_no_name_is_pooled_over_the_layers(seed):
    """One of 1,000 weights shows its scale to 2.2 %, all of them together to 0.4 %."""
    torch.manual_seed(seed)
    shapes = [(100, 64), (100, 100), (100, 100), (100, 100), (10, 100)]
    layers = [nn.Linear(i, o, bias=False) for o, i in shapes]
    model = nn.Sequential(*layers)
    for layer in layers:
        nn.init.normal_(layer.weight, std=1.3041 / math.sqrt(layer.in_features))
    laws = read_laws(model, prunable_weights(model))
    for index, layer in enumerate(layers):
        assert laws[f"{index}.weight"].std * math.sqrt(layer.in_features) == pytest.approx(1.3041, rel=0.013)


def test_what_looks_like_nothing_drawn_is_left_alone():
    torch.manual_seed(0)
    table = torch.log(torch.arange(1.0, 17.0)).repeat(32, 1)
    waves = torch.sin(torch.arange(2000.0)[:, None] / 100 ** torch.linspace(0, 1, 8))
    for tensor in (
        torch.ones(50),
        torch.zeros(50),
        torch.full((4, 4), 1e-6),
        table,
        waves,
        torch.tensor(0.3),
    ):
        assert read_law(tensor, is_weight=False).law == "fixed"
    assert read_law(1.0 + 0.02 * torch.randn(500), is_weight=False).mean == pytest.approx(1.0, abs=0.01)
    padded = torch.randn(40, 16)
    padded[0] = 0
    embedding = read_law(padded, is_weight=False)
    assert embedding.law == "normal" and embedding.zeros


@pytest.mark.parametrize("weight", ["laplace", "two scales", "rows"])
def test_weights_of_no_known_law_are_shuffled_within_rows(weight):
    torch.manual_seed(0)
    value = {
        "laplace": torch.distributions.Laplace(0.0, 0.1).sample((64, 64)),
        "two scales": torch.cat([torch.randn(64, 32) * 0.01, torch.randn(64, 32)], dim=1),
        "rows": torch.randn(64, 64) * torch.logspace(-1, 1, 64)[:, None],
    }[weight]
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(value)
    laws = read_laws(layer, prunable_weights(layer))
    assert laws["weight"].law == "shuffled"
    twin = converted(layer).model
    redraw_(twin, laws, [1, 2])
    assert not torch.equal(twin.weight, value)
    assert torch.equal(twin.weight.detach().sort(dim=1).values, value.sort(dim=1).values)


def test_units_of_several_scales_are_drawn_with_each_its_own():
    torch.manual_seed(0)
    layer = nn.Linear(48, 96)
    with torch.no_grad():
        layer.weight[:64].normal_(std=0.3)
        layer.weight[64:].uniform_(-0.1, 0.1)
    laws = read_laws(layer, prunable_weights(layer))
    assert [part[:2] for part in laws["weight"].parts] == [(0, 64), (64, 96)]
    assert [part[2].law for part in laws["weight"].parts] == ["normal", "uniform"]
    twin = converted(layer).model
    redraw_(twin, laws, [1, 2])
    assert not (twin.weight == layer.weight).any()
    assert float(twin.weight[:64].std()) == pytest.approx(0.3, rel=0.05)
    assert float(twin.weight[64:].abs().max()) == pytest.approx(0.1, rel=0.05)


def test_units_of_one_scale_are_one_run_and_a_change_is_found_on_the_unit():
    torch.manual_seed(1)
    for value in (torch.randn(300, 64), torch.rand(300, 40) - 0.5, torch.randn(64, 20).exp()):
        assert runs_of_one_scale(value) == [(0, len(value))]
    uneven = torch.randn(7 * 16, 40)
    rows = torch.arange(len(uneven)) // 16 % 2 == 1
    uneven[rows] *= 3.0
    assert runs_of_one_scale(uneven) == [(16 * at, 16 * at + 16) for at in range(7)]
    assert runs_of_one_scale(uneven.T, axis=1) == runs_of_one_scale(uneven)


@pytest.mark.parametrize("name", INITIALISERS)
def test_what_is_drawn_again_has_the_law_and_depends_on_the_stream_alone(name):
    initialise, _, _ = INITIALISERS[name]
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(80, 90), nn.ReLU(), nn.Linear(90, 70))
    for layer in (model[0], model[2]):
        initialise(layer.weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    laws = read_laws(model, prunable_weights(model))
    twins = [converted(model).model for _ in range(3)]
    for twin, stream in zip(twins, ([5, 0], [5, 0], [5, 1]), strict=True):
        redraw_(twin, laws, stream)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    one, same, other = (twin[0].weight.detach() for twin in twins)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert float(one.std()) == pytest.approx(float(before["0.weight"].std()), rel=0.05)
    # As many beyond two standard deviations as the initialiser's own, within chance.
    beyond = [float((w.abs() > 1.5 * w.std()).double().mean()) for w in (one, before["0.weight"])]
    assert abs(beyond[0] - beyond[1]) < 5 * math.sqrt(0.12 * 2 / one.numel())


def test_delta_orthogonal_convolutions_are_drawn_as_such():
    layer = nn.Conv2d(8, 16, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :, 1, 1] = nn.init.orthogonal_(torch.empty(16, 8))
    laws = read_laws(layer, prunable_weights(layer))
    assert laws["weight"].law == "delta-orthogonal"
    twin = converted(layer).model
    redraw_(twin, laws, [0])
    centre = twin.weight.detach()[:, :, 1, 1].double()
    assert int(twin.weight.count_nonzero()) == 128
    assert np.allclose(centre.T @ centre, np.eye(8), atol=1e-5)
