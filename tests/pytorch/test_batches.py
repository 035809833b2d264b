"""Data in every form give the scores of the same data as tensors, and are left as they were."""

from __future__ import annotations

import inspect
import itertools
import random
import warnings
from collections import UserDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import eoc_theory as eoc
from eoc_theory.pytorch import loading
from eoc_theory.pytorch.batches import Batch, as_batch
from eoc_theory.pytorch.measure import scoring

N, T, V = 24, 5, 7
RNG = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 6, generator=RNG), torch.randint(V, (N,), generator=RNG)
IDS, NEXT = (torch.randint(V, (N, T), generator=RNG) for _ in range(2))
MASK = torch.arange(T)[None] <= torch.randint(2, 6, (N, 1), generator=RNG)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, V))


class Two(nn.Module):
    """Two inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 9), nn.Linear(3, 9)
        self.head = nn.Linear(9, V)

    def forward(self, x, z):
        return self.head(torch.tanh(self.a(x) + self.b(z)))


class Masked(nn.Module):
    """Token ids with a mask; labels are for its own loss, which nobody is to use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.body, self.head = nn.Embedding(V, 6), nn.Linear(6, 8), nn.Linear(8, V)

    def forward(self, input_ids, attention_mask=None, labels=None, scale=1.0):
        assert labels is None and input_ids.dtype is torch.int64
        h = torch.tanh(self.body(self.table(input_ids)))
        if attention_mask is not None:
            assert not attention_mask.is_floating_point()
            weight = attention_mask.to(h)[..., None]
            h = h + (h * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return {"logits": self.head(h) * scale}


class Items(Dataset):
    """A data set of the user's own that counts and draws."""

    def __init__(self, noise=0.0):
        self.read, self.noise, self.rng = 0, noise, np.random.default_rng(3)

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.read += 1
        drawn = self.noise * (self.rng.standard_normal() + random.random() + float(torch.rand(())))
        return X[index] + drawn, int(Y[index])


class Stream(IterableDataset):
    """The examples without end."""

    def __iter__(self):
        return ((X[i % N], int(Y[i % N])) for i in itertools.count())


def batches(*parts, size=10):
    return [tuple(part[at : at + size] for part in parts) for at in range(0, N, size)]


@dataclass(frozen=True)
class Form:
    """`make` gives the data anew; they are the same as `args`, `kwargs` and `targets`."""

    name: str
    model: Any
    make: Any
    args: tuple[Any, ...]
    targets: Any
    kwargs: Any = None


Z = torch.randn(N, 3, generator=RNG)
NAMED = {"input_ids": IDS, "attention_mask": MASK.long()}
FORMS = [
    Form("tensors", mlp, lambda: (X, Y), (X,), Y),
    Form("a list of two", mlp, lambda: [X, Y], (X,), Y),
    Form("arrays", mlp, lambda: (X.numpy(), Y.numpy()), (X,), Y),
    Form("nested lists", mlp, lambda: (X.tolist(), Y.tolist()), (X,), Y),
    Form("a list of rows", mlp, lambda: (list(X.numpy()), list(Y.numpy())), (X,), Y),
    Form("a loader", mlp, lambda: DataLoader(TensorDataset(X, Y), 10), (X,), Y),
    Form("a loader of own items", mlp, lambda: DataLoader(Items(), 10), (X,), Y),
    Form(
        "a loader with workers",
        mlp,
        lambda: DataLoader(Items(), 10, num_workers=2, persistent_workers=True, timeout=5),
        (X,),
        Y,
    ),
    Form("a loader without batches", mlp, lambda: DataLoader(Items(), batch_size=None), (X,), Y),
    Form("a data set", mlp, lambda: TensorDataset(X, Y), (X,), Y),
    Form("own items", mlp, Items, (X,), Y),
    Form(
        "parts of data sets",
        mlp,
        lambda: ConcatDataset([Subset(Items(), range(10)), Subset(Items(), range(10, N))]),
        (X,),
        Y,
    ),
    Form("batches in a list", mlp, lambda: batches(X, Y), (X,), Y),
    Form("two batches in a list", mlp, lambda: batches(X, Y, size=12), (X,), Y),
    Form("one batch in a list", mlp, lambda: [(X, Y)], (X,), Y),
    Form("a generator of batches", mlp, lambda: (b for b in batches(X, Y)), (X,), Y),
    Form("examples in a list", mlp, lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)], (X,), Y),
    Form("two inputs", Two, lambda: ((X, Z), Y), (X, Z), Y),
    Form("two inputs in a row", Two, lambda: (X, Z, Y), (X, Z), Y),
    Form("a loader of two inputs in a row", Two, lambda: DataLoader(TensorDataset(X, Z, Y), 10), (X, Z), Y),
    Form("batches of two inputs", Two, lambda: [((x, z), y) for x, z, y in batches(X, Z, Y)], (X, Z), Y),
    Form(
        "a loader of pairs",
        Two,
        lambda: DataLoader([((x, z), int(y)) for x, z, y in zip(X, Z, Y, strict=True)], 10),
        (X, Z),
        Y,
    ),
    Form("inputs by name", Two, lambda: ({"z": Z, "x": X}, Y), (), Y, {"x": X, "z": Z}),
    Form("a dict with a label", Two, lambda: {"x": X, "z": Z, "label": Y}, (), Y, {"x": X, "z": Z}),
    Form("one input by another name", mlp, lambda: {"pixel_values": X, "labels": Y}, (X,), Y),
    Form("ids", Masked, lambda: (IDS, NEXT), (IDS,), NEXT),
    Form("small ids", Masked, lambda: (IDS.to(torch.uint8).numpy(), NEXT.int()), (IDS,), NEXT),
    Form("ids with a mask", Masked, lambda: {**NAMED, "labels": NEXT}, (), NEXT, NAMED),
    Form(
        "ids with booleans",
        Masked,
        lambda: {"input_ids": IDS, "attention_mask": MASK, "labels": NEXT},
        (),
        NEXT,
        {"input_ids": IDS, "attention_mask": MASK},
    ),
    Form(
        "a constant beside",
        Masked,
        lambda: {**NAMED, "scale": 2.0, "labels": NEXT},
        (),
        NEXT,
        {**NAMED, "scale": 2.0},
    ),
    Form("an encoding", Masked, lambda: UserDict({**NAMED, "labels": NEXT}), (), NEXT, NAMED),
    Form(
        "a loader of dicts",
        Masked,
        lambda: DataLoader(
            [{**{k: v[i] for k, v in NAMED.items()}, "labels": NEXT[i]} for i in range(N)], 10
        ),
        (),
        NEXT,
        NAMED,
    ),
    Form(
        "a language model's labels",
        Masked,
        lambda: {**NAMED, "labels": IDS},
        (),
        F.pad(IDS[:, 1:], (0, 1), value=-100),
        NAMED,
    ),
]


def forms(chosen=FORMS):
    return pytest.mark.parametrize("form", chosen, ids=lambda form: form.name)


def wanted(form):
    model = form.model().double()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    given = [t.double() if t.is_floating_point() else t for t in form.args]
    named = {
        k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in (form.kwargs or {}).items()
    }
    out = model(*given, **named)
    out = out["logits"] if isinstance(out, dict) else out
    loss = F.cross_entropy(out.reshape(-1, V), form.targets.reshape(-1))
    return [(w * g).abs().detach() for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]


@forms()
def test_every_form_gives_the_same_scores(form):
    model = form.model()
    batch = as_batch(model, form.make())
    assert batch.size == N
    scores = scoring.layer_scores(model, "snip", batch, dtype="float64")
    for score, right in zip(scores, wanted(form), strict=True):
        torch.testing.assert_close(score, right, rtol=1e-9, atol=1e-14)


@forms([form for form in FORMS if form.name in ("a loader of dicts", "two inputs", "a generator of batches")])
@pytest.mark.parametrize("criterion", ["snip", "grasp", "snip(rounds=3)", "force(rounds=3)", "magnitude"])
def test_criteria_read_data_once(form, criterion):
    found = eoc.measure_pruning(form.model(), 0.5, criterion=criterion, data=form.make(), masks=True)
    removed = sum(int((~mask).sum()) for mask in found.masks.values())
    assert removed == round(0.5 * int(found.weights.sum()))


def test_batches_are_cut_and_moved():
    batch = Batch((X,), {"mask": MASK, "scale": 2.0, "shared": Z[:3]}, Y)
    part = batch.part(slice(2, 5))
    assert torch.equal(part.args[0], X[2:5]) and torch.equal(part.kwargs["mask"], MASK[2:5])
    assert torch.equal(part.targets, Y[2:5]) and torch.equal(part.kwargs["shared"], Z[:3])
    moved = batch.to("cpu", torch.float64)
    assert moved.inputs.dtype is torch.float64 and moved.kwargs["mask"].dtype is torch.bool
    assert moved.targets.dtype is torch.int64 and moved.kwargs["scale"] == 2.0


def state_of(thing):
    """All that a loader or data set holds, with its generators' states."""
    found = {}
    for key, value in vars(thing).items():
        if isinstance(value, torch.Generator):
            found[key] = value.get_state().tolist()
        elif isinstance(value, np.random.Generator):
            found[key] = str(value.bit_generator.state)
        elif isinstance(value, (Items, DataLoader, torch.utils.data.Sampler)):
            found[key] = state_of(value)
        else:
            found[key] = id(value) if value is None or not isinstance(value, (int, float)) else value
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own", [False, True])
def test_loaders_and_random_states_are_left_as_they_were(own, workers):
    generator = torch.Generator().manual_seed(5) if own else None
    loader = DataLoader(Items(0.1), 10, shuffle=True, generator=generator, num_workers=workers)
    model = mlp()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = state_of(loader), torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    first = eoc.measure_pruning(model, 0.5, data=loader)
    after = state_of(loader), torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    assert before == after
    torch.rand(3)
    again = eoc.measure_pruning(model, 0.5, data=loader)
    assert np.array_equal(first.kept, again.kept)
    if not own:
        other = as_batch(mlp(), loader, seed=1)
        assert not torch.equal(other.targets, as_batch(mlp(), loader, seed=0).targets)


ENDLESS = [
    ("loader", lambda: DataLoader(Stream(), 10)),
    ("stream", Stream),
    ("batches", lambda: ((X, Y) for _ in itertools.count())),
    ("examples", lambda: ((X[0], 1) for _ in itertools.count())),
    ("empty batches", lambda: itertools.chain([(X, Y)], ((X[:0], Y[:0]) for _ in itertools.count()))),
    ("other shapes", lambda: itertools.chain([(X, Y)], ((Z, Y) for _ in itertools.count()))),
]


@pytest.mark.parametrize("name, make", ENDLESS)
def test_what_has_no_end_is_read_in_part(name, make):
    batch = as_batch(mlp(), make())
    if name in ("empty batches", "other shapes"):
        assert batch.size == N
    else:
        assert batch.size == loading.MOST_EXAMPLES
        assert "1024 examples" in batch.notes[0]
    found = eoc.measure_pruning(mlp(), 0.5, data=make())
    assert found.notes[: len(batch.notes)] == batch.notes


def test_examples_of_large_data_sets_are_chosen_at_random():
    labels = torch.arange(5000) // 1000  # in the order of their classes
    batch = as_batch(mlp(), TensorDataset(torch.randn(5000, 6), labels))
    assert batch.size == 1024 and len(set(batch.targets.tolist())) == 5
    assert batch.notes == ("1024 of the 5000 examples of the data set are used, chosen at random",)


def test_batches_of_other_shapes_are_left_out():
    data = [{"input_ids": IDS[:9, :n], "labels": NEXT[:9, :n]} for n in (5, 4, 5, 3)]
    batch = as_batch(Masked(), data)
    assert batch.size == 18 and "2 batches" in batch.notes[0]


def test_batches_of_fewer_tokens_are_padded():
    mask = MASK & (torch.arange(T) < torch.where(torch.arange(N) < 12, T, 3)[:, None])
    labels = NEXT.masked_fill(~mask, -100)
    whole = {"input_ids": IDS * mask, "attention_mask": mask.long(), "labels": labels}
    parts = [{k: v[:12] for k, v in whole.items()}, {k: v[12:, :3] for k, v in whole.items()}]
    found, right = (scoring.layer_scores(Masked(), "snip", as_batch(Masked(), d)) for d in (parts, whole))
    assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))
    assert as_batch(Masked(), DataLoader(parts, batch_size=None)).size == N


class Table(nn.Module):
    """Looks ids up in a parameter of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Parameter(torch.randn(V, 6)), nn.Linear(6, V)

    def forward(self, ids):
        return self.head(self.table[ids].mean(1))


class Patches(nn.Module):
    """An image model with an embedding, of positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.place, self.head = nn.Conv2d(1, 6, 2, 2), nn.Embedding(4, 6), nn.Linear(6, V)

    def forward(self, x):
        h = self.body(x).flatten(2).transpose(1, 2) + self.place(torch.arange(4, device=x.device))
        return self.head(torch.tanh(h).mean(1))


class OneHot(nn.Module):
    """Ids as unit vectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(V, V)

    def forward(self, ids):
        return self.head(F.one_hot(ids, V).to(self.head.weight).mean(1))


PICTURES = torch.randint(255, (N, 1, 4, 4), generator=RNG).to(torch.uint8)


@pytest.mark.parametrize(
    "model, inputs, whole",
    [
        (Table, IDS, True),
        (OneHot, IDS, True),
        (Masked, IDS, True),
        (Patches, PICTURES, False),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, V)), PICTURES, False),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, V)), PICTURES, False),
    ],
)
def test_whole_numbers_are_as_the_model_takes_them(model, inputs, whole):
    made = model()
    targets = NEXT if model is Masked else Y
    batch = as_batch(made, (inputs, targets))
    assert batch.inputs.dtype is (torch.int64 if whole else torch.float64)
    assert eoc.measure_pruning(made, 0.5, data=(inputs, targets)).kept.size


def test_ids_are_drawn_for_models_that_look_them_up():
    batch = as_batch(Masked(), None, (1, T))
    assert batch.inputs.shape == (100, T) and batch.inputs.dtype is torch.int64
    assert set(batch.inputs.unique().tolist()) == set(range(V))
    assert batch.targets.shape == (100, T)
    assert torch.equal(batch.inputs, as_batch(Masked(), None, (1, T)).inputs)


class Failing(Dataset):
    """Raises, as a missing file does."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        raise FileNotFoundError("no such image")


REFUSED = [
    (
        "no labels",
        Masked,
        {"input_ids": IDS},
        "data must have inputs and 'labels' where it is a dict, got 'input_ids'",
    ),
    ("an unknown input", Masked, {**NAMED, "idx": Y, "labels": NEXT}, "unexpected keyword argument 'idx'"),
    ("too few inputs", Two, (X, Y), "model must take one batch of inputs: Two"),
    ("too many inputs", mlp, ((X, Z), Y), "model must take the inputs of the data (2 by position)"),
    ("texts", mlp, DataLoader([("a", 1)] * 3, 3), "the batches of the data loader must be of tensors"),
    ("no examples", mlp, DataLoader(TensorDataset(X[:0], Y[:0]), 10), "data must have examples"),
    ("an empty set", mlp, TensorDataset(X[:0], Y[:0]), "data must have examples, got an empty data set"),
    ("a set that fails", mlp, Failing(), "the data set could not be read: it raised FileNotFoundError"),
    ("a loader that fails", mlp, DataLoader(Failing(), 3), "it raised FileNotFoundError: no such image"),
    ("inputs alone", mlp, DataLoader(TensorDataset(X), 10), "data must be (inputs, targets) for this model"),
    ("a number", mlp, 3, "data must be (inputs, targets), a dict with labels, a DataLoader, a Dataset or an"),
    ("a text", mlp, "mnist", "data must be (inputs, targets), a dict with labels"),
    ("three numbers", mlp, [1, 2, 3], "data must be (inputs, targets) for this model"),
    ("nan", Two, ((X, Z * float("nan")), Y), "inputs must be finite"),
    ("other lengths", Two, ((X, Z), Y[:4]), "targets must be whole numbers of shape"),
]


@pytest.mark.parametrize("name, model, data, message", REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_read_is_named(name, model, data, message):
    with pytest.raises(eoc.EOCError) as caught:
        eoc.measure_pruning(model(), 0.5, data=data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_comparison_takes_a_loader():
    loader = DataLoader(TensorDataset(X, Y), 10)
    net = eoc.mlp(depth=3, width=12, activation="tanh", in_features=6, out_features=V)
    by_loader, by_arrays = (eoc.compare(net, 0.5, data=d, seeds=2) for d in (loader, (X, Y)))
    assert np.array_equal(by_loader.kept, by_arrays.kept)
    assert np.array_equal(by_loader.prediction.kept, by_arrays.prediction.kept)


def test_the_cap_is_the_documented_one():
    assert f"{loading.MOST_EXAMPLES:,} examples" in inspect.getdoc(eoc.measure_pruning)


@pytest.mark.parametrize("measure", [eoc.measure_pruning, eoc.predict_pruning])
def test_a_list_of_batches_and_tensors_of_other_layouts_are_the_same_data(measure):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    x, y = torch.randn(12, 8).double(), torch.arange(12) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's quantised tensors are on their way out
        quantised = torch.quantize_per_tensor(x.float(), 0.05, 0, torch.qint8)
    right = measure(model, 0.5, data=(x, y)).kept
    for data in ([(x[:6], y[:6]), (x[6:], y[6:])], [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]):
        np.testing.assert_array_equal(measure(model, 0.5, data=data).kept, right)
    np.testing.assert_array_equal(measure(model, 0.5, data=(x.to_sparse(), y)).kept, right)
    found = measure(model, 0.5, data=(quantised, y)).kept
    np.testing.assert_array_equal(found, measure(model, 0.5, data=(quantised.dequantize(), y)).kept)
    targets = torch.nn.functional.one_hot(y, 3).double()
    found = eoc.measure_pruning(model, 0.5, data=(x.to_sparse(), targets.to_sparse()), loss="mse").kept
    np.testing.assert_array_equal(found, eoc.measure_pruning(model, 0.5, data=(x, targets), loss="mse").kept)
