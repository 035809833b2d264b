"""Models that keep their layers in another order than they run them in."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from known_criteria import CRITERIA  # noqa: E402
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import DataError, ModelError  # noqa: E402
from eoc_theory.pytorch.trace import first_layer  # noqa: E402


class Backwards(nn.Module):
    """Linear layers, the last one first."""

    layers = (("head", (20, 10)), ("middle", (30, 20)), ("body", (64, 30)))

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        made = {name: nn.Linear(*sizes) for name, sizes in sorted(self.layers)}
        for name, _ in self.layers:
            self.add_module(name, made[name])

    def forward(self, x):
        return self.head(torch.tanh(self.middle(torch.tanh(self.body(x)))))


class Forwards(Backwards):
    layers = Backwards.layers[::-1]


class Images(nn.Module):
    """Linear layers at both ends as they are kept, a convolution in the middle that runs first."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(20, 10)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.middle = nn.Linear(8, 20)

    def forward(self, x):
        return self.head(torch.relu(self.middle(torch.relu(self.conv(x)).mean((2, 3)))))


def batch(*shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, *shape)), np.arange(40) % 10


VECTORS, PICTURES = batch(64), batch(1, 8, 8)


#: What is not drawn by chance, nor goes by the order of the layers.
ORDERLESS = [c for c in CRITERIA if c not in ("random", "uniform", "erk", "smart-ratio")]


@pytest.mark.parametrize("criterion", ORDERLESS)
@pytest.mark.parametrize("data", [VECTORS, PICTURES, None], ids=["vectors", "pictures", "none"])
def test_the_order_of_linear_layers_changes_nothing(criterion, data):
    found = {}
    for kind in (Backwards, Forwards):
        measured = eoc.measure_pruning(
            kind(), 0.8, criterion=criterion, data=data, collapse=criterion != "synflow"
        )
        assert measured.layers == tuple(name for name, _ in kind.layers)
        found[kind] = dict(zip(measured.layers, measured.kept, strict=True)), measured
    assert found[Backwards][0] == pytest.approx(found[Forwards][0], abs=2 / 2720)
    critical = [measured.critical_sparsity for _, measured in found.values()]
    assert critical[0] == pytest.approx(critical[1], abs=2 / 2720, nan_ok=True)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_convolution_that_runs_first_takes_images(criterion):
    given: dict = {"criterion": criterion, "data": PICTURES, "collapse": False}
    alone = eoc.measure_pruning(Images(), 0.5, **given)
    shown = eoc.measure_pruning(Images(), 0.5, **given, example_input=(2, 1, 8, 8))
    np.testing.assert_array_equal(alone.kept, shown.kept)


@pytest.mark.parametrize("criterion", ["snip", "synflow"])
def test_where_no_shape_is_known_an_example_input_is_asked_for(criterion):
    with pytest.raises((DataError, ModelError), match="example_input") as caught:
        eoc.measure_pruning(Images(), 0.5, criterion=criterion)
    assert "\n" not in str(caught.value)
    stand_in = eoc.measure_pruning(
        Images(), 0.5, criterion=criterion, example_input=[2, 1, 8, 8], collapse=False
    )
    assert stand_in.layers == ("head", "conv", "middle")


def test_reading_a_model_finds_its_first_layer():
    assert eoc.Architecture.from_torch(Backwards()).weight_layers == ("body", "middle", "head")
    with pytest.raises(ModelError, match="example_input is needed: the first layer 'conv' is Conv2d"):
        eoc.Architecture.from_torch(Images())
    assert list(eoc.connected_weights(Backwards()).values()) == [200, 600, 1920]


@pytest.mark.parametrize("kind", [Backwards, Images])
def test_initialising_and_rescaling_need_no_example(kind):
    model = eoc.initialize_(kind(), seed=1)
    eoc.prune_(model, eoc.measure_pruning(model, 0.5, criterion="magnitude").masks)
    by_weights = eoc.rescale_(model)
    assert by_weights.layers[-1] == "head"
    assert np.all(by_weights.factors > 1.0)
    data = VECTORS if kind is Backwards else PICTURES
    assert eoc.rescale_(model, by="signal", data=data).layers == by_weights.layers


@pytest.mark.parametrize(("kind", "data"), [(Backwards, VECTORS), (Images, PICTURES)])
def test_a_comparison_lays_the_same_layers_side_by_side(kind, data):
    found = eoc.compare(kind, 0.9, criterion="magnitude", data=data, seeds=2)
    assert found.layers == found.prediction.layers
    assert found.layers[-1] == "head"
    np.testing.assert_array_equal(found.weights, found.prediction.weights)
    # Sizes and scales differ by layer: side by side with another, predictions would be off by far more.
    assert found.mean_absolute_error < 0.03
    single = eoc.measure_pruning(kind(1), 0.9, criterion="magnitude", masks=False)
    by_name = dict(zip(single.layers, single.kept, strict=True))
    np.testing.assert_array_equal(found.kept[1], [by_name[name] for name in found.layers])


class Reshaping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(16, 4), nn.Linear(36, 16)

    def forward(self, x):
        return self.late(torch.relu(self.early(x.view(-1, 36))))


class Pooling(nn.Module):
    """Takes images, though all its weights are Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(12, 10), nn.Linear(16, 12)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.late(torch.relu(self.early(self.pool(x).flatten(1))))


class Sorting(nn.Module):
    """What it does to its input has no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.sort(dim=1).values)))


class Concatenating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(9, 10), nn.Linear(128, 9)

    def forward(self, x):
        return self.late(torch.relu(self.early(torch.cat([x, -x], 1))))


def test_the_first_layer():
    for model, name in ((Backwards(), "body"), (Images(), "conv"), (Reshaping(), "early")):
        assert first_layer(model) is getattr(model, name)
    assert first_layer(Pooling()) is None
    model = Pooling()
    assert first_layer(model, (2, 1, 8, 8)) is model.early
    model = Sorting()
    assert first_layer(model) is model.first
    row = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    assert first_layer(row) is row[0][1]


def test_images_are_given_as_they_are_to_what_does_not_take_them_as_vectors():
    assert eoc.measure_pruning(Pooling(), 0.5, data=PICTURES).kept.shape == (2,)
    assert eoc.measure_pruning(Concatenating(), 0.5, data=VECTORS).kept.shape == (2,)
    with pytest.raises(ModelError, match="example_input must be a batch of inputs that the model takes"):
        eoc.measure_pruning(Pooling(), 0.5)


def test_what_cannot_be_followed_is_taken_to_be_in_order():
    inputs = np.random.default_rng(0).standard_normal((12, 6))
    measured = eoc.measure_pruning(Sorting(), 0.5, data=(inputs, np.arange(12) % 3))
    assert measured.kept @ measured.weights == pytest.approx(23)
    assert eoc.measure_pruning(Sorting(), 0.5).layers == ("first", "second")


def test_following_a_model_leaves_it_alone():
    model = Images().train()
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert first_layer(model) is model.conv
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
