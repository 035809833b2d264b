"""Arguments of other types than are meant: an error of one line that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.errors import ModelError  # noqa: E402


class Unreadable:
    """An object whose picture has two lines."""

    def __repr__(self) -> str:
        return "<two\nlines>"


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def images() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def pruned() -> nn.Module:
    return eoc.prune_(dense(), MASKS)


INPUTS, TARGETS = np.random.default_rng(0).standard_normal((12, 8)), np.arange(12) % 3
PICTURES = np.random.default_rng(0).standard_normal((12, 1, 8, 8))
MASKS = {"0": np.eye(6, 8), "2": np.ones((3, 6))}

#: None is what many arguments have by default, and numbers and texts are some arguments' own types.
NOTHING, NUMBER, TEXT = [None], [3, -1.5, float("nan"), 1j, True], ["x", b"x"]
#: An iterator would be used up by the first call.
EMPTY, PAIR = {}, (1, 2)
OTHERS = [(), [], EMPTY, PAIR, {"a": 1}, object(), Unreadable(), np.array("x"), np.array([None]), nn.ReLU]
RAGGED = [[[1, 2], [3]], [torch.ones(2), torch.ones(3)]]
UNUSABLE = [torch.ones(2, 8, dtype=torch.complex64), torch.empty(2, 8, device="meta")]
EVERYTHING = NOTHING + NUMBER + TEXT + OTHERS + RAGGED + UNUSABLE


def but(values: list[Any], *accepted: Any) -> list[Any]:
    """`values` without those objects."""
    return [value for value in values if not any(value is other for other in accepted)]


Call = Callable[[Any], Any]
#: The argument's name in the message, the call, and what it refuses.
CALLS: dict[str, tuple[str, Call, list[Any]]] = {
    "prune_ model": ("model", lambda x: eoc.prune_(x, MASKS), EVERYTHING),
    "prune_ masks": ("masks", lambda x: eoc.prune_(dense(), x), but(EVERYTHING, EMPTY)),
    "prune_ one mask": ("masks", lambda x: eoc.prune_(dense(), {"0": x}), EVERYTHING),
    "rearrange_masks masks": ("masks", eoc.rearrange_masks, EVERYTHING),
    "rearrange_masks one mask": (
        "masks",
        lambda x: eoc.rearrange_masks({"0": x}),
        but(EVERYTHING, *OTHERS[:2]),
    ),
    "rearrange_masks arrangement": ("arrangement", lambda x: eoc.rearrange_masks(MASKS, x), EVERYTHING),
    "connected_weights model": ("model", eoc.connected_weights, EVERYTHING),
    "connected_weights masks": (
        "masks",
        lambda x: eoc.connected_weights(dense(), x),
        but(EVERYTHING, None, EMPTY),
    ),
    "initialize_ model": ("model", eoc.initialize_, EVERYTHING),
    "initialize_ sigma_b": ("sigma_b", lambda x: eoc.initialize_(dense(), sigma_b=x), TEXT + OTHERS + RAGGED),
    "initialize_ law": ("law", lambda x: eoc.initialize_(dense(), law=x), EVERYTHING),
    "initialize_ example_input": (
        "example_input",
        lambda x: eoc.initialize_(images(), example_input=x),
        NUMBER + TEXT + OTHERS + RAGGED + UNUSABLE,
    ),
    "rescale_ model": ("model", eoc.rescale_, EVERYTHING),
    "rescale_ by": ("by", lambda x: eoc.rescale_(pruned(), by=x), EVERYTHING),
    "rescale_ data": ("data", lambda x: eoc.rescale_(pruned(), by="signal", data=x), EVERYTHING),
    "measure_pruning model": ("model", lambda x: eoc.measure_pruning(x, 0.5), EVERYTHING),
    "measure_pruning sparsity": (
        "sparsity",
        lambda x: eoc.measure_pruning(dense(), x),
        NOTHING + TEXT + OTHERS + RAGGED + UNUSABLE,
    ),
    "measure_pruning criterion": (
        "criterion",
        lambda x: eoc.measure_pruning(dense(), 0.5, criterion=x),
        EVERYTHING,
    ),
    "measure_pruning data": (
        "data|inputs|targets",
        lambda x: eoc.measure_pruning(dense(), 0.5, data=x),
        but(EVERYTHING, None),
    ),
    "measure_pruning images": (
        "data|inputs|targets",
        lambda x: eoc.measure_pruning(images(), 0.5, data=x),
        EVERYTHING,
    ),
    "measure_pruning inputs": (
        "data|inputs|targets",
        lambda x: eoc.measure_pruning(dense(), 0.5, data=(x, TARGETS)),
        EVERYTHING,
    ),
    "measure_pruning targets": (
        "data|targets",
        lambda x: eoc.measure_pruning(dense(), 0.5, data=(INPUTS, x)),
        EVERYTHING,
    ),
    "measure_pruning targets of images": (
        "data|targets",
        lambda x: eoc.measure_pruning(images(), 0.5, data=(PICTURES, x)),
        EVERYTHING,
    ),
    "measure_pruning example_input": (
        "example_input",
        lambda x: eoc.measure_pruning(images(), 0.5, example_input=x),
        EVERYTHING,
    ),
    "measure_pruning device": (
        "device",
        lambda x: eoc.measure_pruning(dense(), 0.5, device=x),
        NOTHING + TEXT + OTHERS + RAGGED + UNUSABLE,
    ),
    "measure_pruning allocation": (
        "allocation",
        lambda x: eoc.measure_pruning(dense(), 0.5, allocation=x),
        but(EVERYTHING, None),
    ),
    "compare factory": (
        "factory|model",
        lambda x: eoc.compare(x, 0.5, seeds=1),
        but(EVERYTHING, nn.ReLU),
    ),
    "compare factory's model": ("factory", lambda x: eoc.compare(lambda seed: x, 0.5, seeds=1), EVERYTHING),
    "compare seeds": (
        "seeds",
        lambda x: eoc.compare(lambda seed: dense(), 0.5, seeds=x),
        but(NOTHING + TEXT + OTHERS + RAGGED, PAIR),
    ),
    "compare progress": (
        "progress",
        lambda x: eoc.compare(lambda seed: dense(), 0.5, seeds=1, progress=x),
        but(EVERYTHING, None, nn.ReLU),
    ),
    "diagnose model": ("model", lambda x: eoc.diagnose(x, (2, 8), sparsity=0.5), EVERYTHING),
    "diagnose data": (
        "data|inputs|targets",
        lambda x: eoc.diagnose(dense(), (2, 8), sparsity=0.5, data=x),
        but(EVERYTHING, None),
    ),
    "from_torch model": ("model", eoc.Architecture.from_torch, EVERYTHING),
    "from_torch example_input": (
        "example_input",
        lambda x: eoc.Architecture.from_torch(images(), x),
        EVERYTHING,
    ),
    "predict_pruning net": ("net", lambda x: eoc.predict_pruning(x, 0.5), EVERYTHING),
    "predict_collapse net": ("net", lambda x: eoc.predict_collapse(x), EVERYTHING),
    "propagate net": ("net", lambda x: eoc.propagate(x), EVERYTHING),
    "propagate_summary net": ("net", lambda x: eoc.propagate_summary(x), EVERYTHING),
}


@pytest.mark.parametrize("call", CALLS)
def test_one_line_names_the_argument(call):
    name, function, refused = CALLS[call]
    for value in refused:
        given = f"{type(value).__name__}: {value!r}"
        with pytest.raises(eoc.EOCError, match=name) as caught:
            function(value)
            pytest.fail(f"{given} was accepted")
        assert "\n" not in str(caught.value), given
        assert len(str(caught.value)) < 300, given


def test_masks_of_several_sparsities_are_told_from_those_of_one():
    several = eoc.measure_pruning(dense(), [0.2, 0.5], criterion="magnitude").masks
    with pytest.raises(eoc.EOCError, match=r"masks must be a dict .* got tuple of 2 dicts \(one for each"):
        eoc.prune_(dense(), several)
    assert several is not None
    model = eoc.prune_(dense(), several[1])
    assert int(model[0].weight_mask.sum() + model[2].weight_mask.sum()) == 33


def test_a_model_refused_masks_is_left_as_it_was():
    model = dense()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(eoc.EOCError, match="masks"):
        eoc.prune_(model, {"0": MASKS["0"], "2": "x"})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision_inputs_are_taken():
    inputs = torch.tensor(INPUTS).bfloat16()
    measured = eoc.measure_pruning(dense(), 0.5, data=(inputs, torch.tensor(TARGETS)))
    same = eoc.measure_pruning(dense(), 0.5, data=(inputs.double().numpy(), TARGETS))
    np.testing.assert_array_equal(measured.kept, same.kept)


def test_networks_with_a_graph_are_not_propagated_as_a_row_of_layers():
    net = eoc.resnet(8, width=4)
    for function in (eoc.propagate, eoc.propagate_summary):
        with pytest.raises(eoc.EOCError, match=r"net must be fully connected layers .*\(net.propagate\(\)"):
            function(net)


def test_images_show_their_shape_to_a_diagnosis():
    flat = eoc.diagnose(dense(), None, sparsity=0.5, data=(INPUTS, TARGETS))
    folded = eoc.diagnose(dense(), None, sparsity=0.5, data=(INPUTS.reshape(12, 1, 2, 4), TARGETS))
    np.testing.assert_array_equal(flat.before.kept, folded.before.kept)


def test_models_of_two_inputs_are_one_line():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(8, 5), torch.nn.Linear(5, 3)

        def forward(self, x, y):
            return self.last(torch.tanh(self.first(x) + y))

    data = torch.randn(6, 8), torch.arange(6) % 3
    with pytest.raises(ModelError, match=r"^model must take one batch of inputs: Two, missing.*'y'$"):
        eoc.measure_pruning(Two(), 0.5, data=data)
    with pytest.raises(ModelError, match=r"^the model \(Two\): .* missing .* required .*'y'$"):
        eoc.rescale_(Two(), by="signal", data=data[0])


@pytest.mark.parametrize("place", [0, 1])
def test_parts_of_data_that_cannot_be_looked_at_are_one_line(place):
    class Fails:
        def fail(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("touched\nin two lines")

        __len__ = __iter__ = __array__ = __getattr__ = fail

    data = [INPUTS, TARGETS]
    data[place] = Fails()
    for call in (
        lambda: eoc.measure_pruning(dense(), 0.5, data=tuple(data)),
        lambda: eoc.predict_pruning(eoc.mlp(3, 5, in_features=8, out_features=3), 0.5, data=tuple(data)),
        lambda: eoc.compare(lambda seed: dense(), 0.5, data=tuple(data), seeds=1),
    ):
        with pytest.raises(eoc.EOCError, match=r"data|example_input") as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
