"""Nothing that is handed in is changed, whatever it is and whatever happens."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch
from handed_in import FRAGILE, Stops, inputs_of, seen, states
from torch import nn

import eoc_theory as eoc
from eoc_theory.base.isolation import Twin, converted

CALLS = {
    "snip": lambda m, d, x: eoc.measure_pruning(m, 0.5, data=d, example_input=x),
    "grasp": lambda m, d, x: eoc.measure_pruning(m, 0.5, criterion="grasp", data=d, example_input=x),
    "no data": lambda m, d, x: eoc.measure_pruning(m, [0.2, 0.5], example_input=x, dtype="float32"),
    "magnitude": lambda m, d, x: eoc.measure_pruning(m, 0.5, criterion="magnitude"),
    "synflow": lambda m, d, x: eoc.measure_pruning(
        m, 0.5, criterion="synflow", example_input=x, collapse=False
    ),
    "compare": lambda m, d, x: eoc.compare(lambda seed: m, 0.5, data=d, example_input=x, seeds=1),
    "diagnose": lambda m, d, x: eoc.diagnose(m, x, sparsity=0.5, data=d),
    "predict": lambda m, d, x: eoc.predict_pruning(m, 0.5, data=d, criterion="magnitude"),
    "collapse": lambda m, d, x: eoc.predict_collapse(m, data=d, criterion="magnitude"),
    "design": lambda m, d, x: eoc.design(m, 0.5, data=d, example_input=x, networks=1, criterion="magnitude"),
    "connected": lambda m, d, x: eoc.connected_weights(m, example_input=x),
    "read": lambda m, d, x: eoc.Architecture.from_torch(m, x).propagate(d),
    "activation": lambda m, d, x: eoc.activation(m),
}
#: Their own tests show that they work; here they cost more than they show.
_COSTLY = ("compare", "diagnose", "design")


@contextlib.contextmanager
def untouched(*things):
    before = [seen(thing) for thing in things], states()
    yield
    assert [seen(thing) for thing in things] == before[0]
    assert states() == before[1]


def call(what, model, data, example):
    """True where it went well; nothing but an EOCError leaves, of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            CALLS[what](model, data, example)
        except eoc.EOCError as error:
            assert len(str(error).splitlines()) == 1
            return False
    return True


@pytest.mark.parametrize("name", FRAGILE)
def test_models_data_and_states_are_left_as_they_were(name):
    factory, shape = FRAGILE[name]
    torch.manual_seed(0)
    model, data = factory(), inputs_of(shape)
    example = np.zeros((2, *shape))
    small = len(shape) == 1
    done = {}
    for what in CALLS:
        if small or what not in _COSTLY:
            with untouched(model, data):
                done[what] = call(what, model, data, example)
    refused = ("lazy", "meta", "complex", "scripted")
    assert done["snip"] == (name not in refused), done
    assert done["magnitude"] == (name not in refused)


@pytest.mark.parametrize(
    "error", [RuntimeError("stop"), KeyError("stop"), KeyboardInterrupt(), ZeroDivisionError()]
)
@pytest.mark.parametrize("what", ["snip", "grasp", "compare", "no data", "activation", "rescale"])
def test_nothing_is_changed_by_what_goes_wrong(what, error):
    """In the middle of a forward pass that has drawn and written already."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Stops(error), nn.Linear(8, 5))
    eoc.prune_(model, {"0": np.arange(48).reshape(8, 6) % 2})
    data = inputs_of((6,))
    # What is traced is not run: there the pass is refused for what it writes.
    kind = (KeyboardInterrupt, eoc.EOCError) if isinstance(error, KeyboardInterrupt) else eoc.EOCError
    with untouched(model, data), pytest.raises(kind):
        if what == "rescale":
            eoc.rescale_(model, by="signal", data=data)
        else:
            CALLS[what](model, data, np.zeros((2, 6)))


def test_nothing_is_changed_by_an_error_of_the_loss():
    """Classes that the network does not have."""
    model, (inputs, targets) = FRAGILE["BatchNorm, training"][0](), inputs_of((6,))
    with untouched(model, inputs), pytest.raises(eoc.EOCError, match="targets must be"):
        eoc.measure_pruning(model, 0.5, data=(inputs, targets + 9))


def test_tensors_are_not_written_by_networks_that_work_in_place():
    model = FRAGILE["in place on the input"][0]()
    masked = FRAGILE["masked"][0]()
    inputs, targets = (torch.as_tensor(part) for part in inputs_of((6,)))
    with untouched(model, inputs, targets):
        eoc.measure_pruning(model, 0.5, data=(inputs, targets))
        eoc.rescale_(masked, by="signal", data=(inputs, targets))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", ["BatchNorm, training", "inference mode", "MLP"])
def test_modes_without_gradients_change_no_result(mode, name):
    factory, shape = FRAGILE[name]
    torch.manual_seed(1)
    model, data = factory(), inputs_of(shape)
    wanted = eoc.measure_pruning(model, 0.5, criterion="grasp", data=data)
    with mode():
        found = eoc.measure_pruning(model, 0.5, criterion="grasp", data=data)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        read = eoc.Architecture.from_torch(model, np.zeros((2, *shape)))
    assert np.array_equal(found.kept, wanted.kept) and read.depth == len(wanted.layers)


def gradients(model, data):
    """|W ∂loss/∂W| by plain torch, summed over all uses of a weight."""
    model = model.double()
    loss = nn.functional.cross_entropy(model(torch.as_tensor(data[0])), torch.as_tensor(data[1]))
    own = {
        nn.Linear: ("weight",),
        nn.MultiheadAttention: ("in_proj_weight",),
        nn.RNNBase: ("weight_ih_l0", "weight_hh_l0"),
    }
    weights = {
        id(getattr(m, name)): getattr(m, name)
        for m in model.modules()
        for kind, names in own.items()
        if isinstance(m, kind)
        for name in names
    }
    found = torch.autograd.grad(loss, list(weights.values()))
    return [(w * g).detach().abs() for w, g in zip(weights.values(), found, strict=True)]


@pytest.mark.parametrize(
    "name", ["a module twice", "one PReLU twice", "two names", "tied linears", "tied embedding", "closures",
             "listed parameters", "LSTM", "attention", "replaced forward", "views", "compiled"]
)  # fmt: skip
def test_scores_of_doubles_are_those_of_plain_torch(name):
    """Every use of a weight counts in its gradient."""
    factory, shape = FRAGILE[name]
    torch.manual_seed(2)
    model, data = factory(), inputs_of(shape)
    measured = eoc.measure_pruning(model, 0.4, data=data)
    wanted = gradients(model, data)
    flat = torch.cat([score.reshape(-1) for score in wanted])
    limit = flat.sort().values[round(0.4 * len(flat)) - 1]
    assert np.allclose(
        measured.kept, [float((score > limit).double().mean()) for score in wanted], atol=1e-12
    )


def test_a_double_shares_nothing_that_can_be_written():
    for factory, _ in FRAGILE.values():
        model = factory()
        if isinstance(model, torch.jit.ScriptModule) or any(
            p.is_meta or isinstance(p, nn.UninitializedParameter) for p in model.parameters()
        ):
            continue
        twin = converted(model)
        mine = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        other = {t.untyped_storage().data_ptr() for t in (*twin.model.parameters(), *twin.model.buffers())}
        assert not mine & other
        model = getattr(model, "_orig_mod", model)
        assert not {id(m) for m in model.modules()} & {id(m) for m in twin.model.modules()}
        assert list(model.state_dict()) == list(twin.model.state_dict())
        assert [n for n, _ in model.named_modules()] == [n for n, _ in twin.model.named_modules()]


def test_doubles_refer_to_their_own_parts():
    model = FRAGILE["closures"][0]()
    twin = Twin(model, lambda tensor: tensor.detach().clone())
    double = twin.model
    assert double.steps[0].__closure__[0].cell_contents is double
    assert double.pair[0]() is double.c is double.pair[1].__defaults__[0]
    assert double.forward.__self__ is double
    assert double.steps[1].keywords["weight"] is double.b.weight
    assert double.pool is nn.functional.max_pool1d
    assert twin.original(double.c) is model.c


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_functions_that_change_a_model_finish_or_leave_it(at, monkeypatch):
    """Interrupted at one of their writes."""
    left = [at]

    def stop():
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    for where, name in (("pytorch.initialize", "fill_"), ("pytorch.initialize", "_reset")):
        old = getattr(__import__(f"eoc_theory.{where}", fromlist=[""]), name)
        monkeypatch.setattr(f"eoc_theory.{where}.{name}", lambda *a, old=old: (old(*a), stop()))
    blocks = (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()) for _ in range(3))
    model = nn.Sequential(*blocks, nn.Linear(6, 5))
    with untouched_values(model), pytest.raises(KeyboardInterrupt):
        eoc.initialize_(model)


@contextlib.contextmanager
def untouched_values(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objects = [id(p) for p in model.parameters()]
    yield
    assert [id(p) for p in model.parameters()] == objects
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_masks_that_cannot_be_put_leave_the_model(monkeypatch):
    from eoc_theory.pytorch.masks import Mask

    model, old, count = FRAGILE["MLP"][0](), Mask.put.__func__, [0]

    def put(kind, module, mask, name):
        old(kind, module, mask, name)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Mask, "put", classmethod(put))
    masks = {"hidden.0": np.ones((30, 64)), "out": np.zeros((10, 30))}
    with untouched_values(model), pytest.raises(KeyboardInterrupt):
        eoc.prune_(model, masks)
    assert not any(module._forward_pre_hooks for module in model.modules())
