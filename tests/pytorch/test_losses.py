"""Scores under every loss and every form of outputs, against plain torch autograd."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc
from eoc_theory.pytorch.batches import as_batch
from eoc_theory.pytorch.losses import as_loss
from eoc_theory.pytorch.measure import gradient_scores, scoring
from eoc_theory.pytorch.models import prunable_weights

B, T, V = 8, 5, 7
AuxOutputs = namedtuple("AuxOutputs", "logits aux_logits2 aux_logits1")


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def classes(*shape, of=V):
    return torch.randint(of, shape, generator=torch.Generator().manual_seed(1))


def mlp(outputs=V):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, outputs)).double()


class Tokens(nn.Module):
    """Logits for every position: (B, T, V), or with the classes on axis 1, or of all positions in a row."""

    def __init__(self, form="last", vocabulary=V):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.table = form, nn.Embedding(vocabulary, 6)
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, vocabulary)
        self.double()

    def forward(self, ids):
        h = torch.tanh(self.body(self.table(ids)))
        logits = self.head(h + h.mean(1, keepdim=True))
        if self.form == "second":
            return logits.transpose(1, 2)
        return logits.flatten(0, 1) if self.form == "row" else logits


class Dense(nn.Module):
    """Logits of every pixel, (B, C, H, W)."""

    def __init__(self, form=None, size=3):
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.body, self.head, self.other = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, size, 1),
            nn.Conv2d(4, size, 1),
        )
        self.double()

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return (
            {"out": self.head(h), "aux": self.other(h)}
            if self.form == "dict"
            else self.head(h) + self.other(h)
        )


class Wrapped(nn.Module):
    """An MLP whose logits come in some form."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = mlp(), form
        torch.manual_seed(2)
        self.one, self.two = nn.Linear(6, V).double(), nn.Linear(6, V).double()

    def forward(self, x):
        return self.form(self.net(x), self.two(x), self.one(x))


@dataclass(frozen=True)
class Problem:
    """`loss` is what the toolkit is told, `wanted` the same in plain torch, of what the model returns."""

    name: str
    model: Any
    data: Any
    wanted: Any
    loss: Any = "cross_entropy"
    output: Any = None
    note: str = ""


X, Y = draw(B, 6), classes(B)
SOFT = torch.softmax(draw(B, V), 1)
IDS, NEXT = classes(B, T), classes(B, T)
PARTLY = NEXT.masked_fill(torch.arange(T) % 3 == 0, -100)
IMAGES, PIXELS = draw(B, 2, 4, 4), classes(B, 4, 4, of=3)
SQUARE = classes(B, 4, 4, of=4)
MANY = (draw(B, V) > 0).long()


def every(logits, two, one):
    """A sum that all layers are in."""
    return logits + two + one


def aux_loss(out):
    return sum(w * F.cross_entropy(o, Y) for w, o in zip((1, 0.3, 0.3), out, strict=True))


def segmentation_loss(out):
    return F.cross_entropy(out["out"], PIXELS) + 0.5 * F.cross_entropy(out["aux"], PIXELS)


def smooth(outputs, targets):
    return F.smooth_l1_loss(outputs, F.one_hot(targets, V).to(outputs))


PROBLEMS = [
    Problem("classes", mlp(), (X, Y), lambda o: F.cross_entropy(o, Y)),
    Problem(
        "some classes ignored",
        Wrapped(every),
        (X, Y.masked_fill(Y == 3, -100)),
        lambda o: F.cross_entropy(o, Y.masked_fill(Y == 3, -100)),
    ),
    Problem("probabilities", mlp(), (X, SOFT), lambda o: F.cross_entropy(o, SOFT)),
    Problem("tokens", Tokens(), (IDS, NEXT), lambda o: F.cross_entropy(o.reshape(-1, V), NEXT.reshape(-1))),
    Problem(
        "tokens, some ignored",
        Tokens(),
        (IDS, PARTLY),
        lambda o: F.cross_entropy(o.reshape(-1, V), PARTLY.reshape(-1)),
    ),
    Problem(
        "tokens, as many classes as positions",
        Tokens(vocabulary=T),
        (classes(B, T, of=T), classes(B, T, of=T)),
        lambda o: F.cross_entropy(o.reshape(-1, T), classes(B, T, of=T).reshape(-1)),
    ),
    Problem(
        "tokens, classes on axis 1", Tokens("second"), (IDS, PARTLY), lambda o: F.cross_entropy(o, PARTLY)
    ),
    Problem(
        "tokens in a row", Tokens("row"), (IDS, PARTLY), lambda o: F.cross_entropy(o, PARTLY.reshape(-1))
    ),
    Problem(
        "soft tokens",
        Tokens(),
        (IDS, torch.softmax(draw(B, T, V), -1)),
        lambda o: F.cross_entropy(o.reshape(-1, V), torch.softmax(draw(B, T, V), -1).reshape(-1, V)),
    ),
    Problem("pixels", Dense(), (IMAGES, PIXELS), lambda o: F.cross_entropy(o, PIXELS)),
    Problem(
        "pixels, as many classes as rows",
        Dense(size=4),
        (IMAGES, SQUARE),
        lambda o: F.cross_entropy(o, SQUARE),
    ),
    Problem(
        "pixels beside an auxiliary head",
        Dense("dict"),
        (IMAGES, PIXELS),
        segmentation_loss,
        note="(aux) is added with weight 0.5",
    ),
    Problem(
        "auxiliary heads",
        Wrapped(AuxOutputs),
        (X, Y),
        aux_loss,
        note="(aux_logits2, aux_logits1) is added with weight 0.3",
    ),
    Problem(
        ".logits",
        Wrapped(lambda *o: SimpleNamespace(logits=every(*o), other=o[0])),
        (X, Y),
        lambda o: F.cross_entropy(o.logits, Y),
    ),
    Problem(
        "a dict with logits",
        Wrapped(lambda *o: {"hidden": o[0], "logits": every(*o)}),
        (X, Y),
        lambda o: F.cross_entropy(o["logits"], Y),
    ),
    Problem(
        "a dict of one",
        Wrapped(lambda *o: {"scores": every(*o), "kind": "x"}),
        (X, Y),
        lambda o: F.cross_entropy(o["scores"], Y),
    ),
    Problem(
        "first of a tuple", Wrapped(lambda *o: (every(*o), o[0])), (X, Y), lambda o: F.cross_entropy(o[0], Y)
    ),
    Problem(
        "output by index",
        Wrapped(lambda *o: (o[0], every(*o))),
        (X, Y),
        lambda o: F.cross_entropy(o[1], Y),
        output=1,
    ),
    Problem(
        "output by key",
        Wrapped(lambda *o: {"a": o[0], "b": every(*o)}),
        (X, Y),
        lambda o: F.cross_entropy(o["b"], Y),
        output="b",
    ),
    Problem(
        "output by attribute",
        Wrapped(lambda *o: SimpleNamespace(a=o[0], b=every(*o))),
        (X, Y),
        lambda o: F.cross_entropy(o.b, Y),
        output="b",
    ),
    Problem(
        "output by a function",
        Wrapped(lambda *o: o),
        (X, Y),
        lambda o: F.cross_entropy(every(*o), Y),
        output=lambda o: every(*o),
    ),
    Problem("squares", mlp(3), (X, draw(B, 3)), lambda o: F.mse_loss(o, draw(B, 3)), "mse"),
    Problem("squares of one output", mlp(1), (X, draw(B)), lambda o: F.mse_loss(o[:, 0], draw(B)), "mse"),
    Problem("squares of whole numbers", mlp(1), (X, Y), lambda o: F.mse_loss(o[:, 0], Y.double()), "mse"),
    Problem("squares of images", Dense(size=2), (IMAGES, IMAGES), lambda o: F.mse_loss(o, IMAGES), "mse"),
    Problem(
        "several labels",
        mlp(),
        (X, MANY),
        lambda o: F.binary_cross_entropy_with_logits(o, MANY.double()),
        "bce",
    ),
    Problem(
        "yes or no",
        mlp(1),
        (X, MANY[:, 0]),
        lambda o: F.binary_cross_entropy_with_logits(o[:, 0], MANY[:, 0].double()),
        "bce",
    ),
    Problem("an own function", mlp(), (X, Y), lambda o: smooth(o, Y), smooth),
    Problem(
        "an own function of all outputs",
        Wrapped(lambda *o: o),
        (X, Y),
        lambda o: F.cross_entropy(every(*o), Y),
        lambda o, t: F.cross_entropy(every(*o), t),
        lambda o: o,
    ),
    Problem(
        "a module with weights of classes",
        mlp(),
        (X, Y),
        lambda o: F.cross_entropy(o, Y, weight=torch.arange(1.0, V + 1).double()),
        nn.CrossEntropyLoss(weight=torch.arange(1.0, V + 1)),
    ),
]


def named(problems):
    return pytest.mark.parametrize("problem", problems, ids=lambda p: p.name)


def layers_of(model):
    return [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def wanted(problem, criterion):
    """|W g| and W (H g)/‖g‖."""
    weights = [layer.weight for layer in layers_of(problem.model)]
    loss = problem.wanted(problem.model(problem.data[0]))
    g = torch.autograd.grad(loss, weights, create_graph=True)
    if criterion == "snip":
        return [(w * d).abs().detach() for w, d in zip(weights, g, strict=True)]
    curved = torch.autograd.grad(sum((d * d.detach()).sum() for d in g), weights, materialize_grads=True)
    norm = torch.cat([d.detach().reshape(-1) for d in g]).norm()
    return [(w * h).detach() / norm for w, h in zip(weights, curved, strict=True)]


def found(problem, criterion, notes=None):
    batch = as_batch(problem.model, problem.data, loss=problem.loss, output=problem.output)
    return scoring.layer_scores(
        problem.model,
        criterion,
        batch,
        loss=problem.loss,
        output=problem.output,
        dtype="float64",
        notes=notes,
    )


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@named(PROBLEMS)
def test_scores_are_those_of_plain_torch(problem, criterion):
    notes: list[str] = []
    for score, right in zip(found(problem, criterion, notes), wanted(problem, criterion), strict=True):
        torch.testing.assert_close(score, right, rtol=1e-9, atol=1e-14)
    assert problem.note in " ".join(notes) if problem.note else not notes


@named([p for p in PROBLEMS if not callable(p.loss)])
def test_parts_of_a_batch_add_up(problem, monkeypatch):
    cut = []

    def three(self, factor):
        cut.append(self._one_by_one(3))
        return 3

    monkeypatch.setattr(gradient_scores._Loss, "_part_size", three)
    for score, right in zip(found(problem, "grasp"), wanted(problem, "grasp"), strict=True):
        torch.testing.assert_close(score, right, rtol=1e-9, atol=1e-14)
    assert cut and all(cut)


def test_a_function_of_the_users_own_sees_the_whole_batch(monkeypatch):
    monkeypatch.setattr(gradient_scores, "_CHUNK_BYTES", 1000)
    seen = []

    def loss(outputs, targets):
        seen.append(len(outputs))
        return F.cross_entropy(outputs, targets)

    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(600, 9), nn.Tanh(), nn.Linear(9, V)), (draw(60, 600), classes(60))
    own = eoc.measure_pruning(model, 0.5, data=data, loss=loss)
    assert set(seen) == {60}
    assert np.allclose(own.kept, eoc.measure_pruning(model, 0.5, data=data).kept)


@pytest.mark.parametrize("temperature", [1.0, 50.0])
@named([p for p in PROBLEMS if p.loss == "cross_entropy"][:6])
def test_temperature_divides_the_logits(problem, temperature):
    warm = Problem("", problem.model, problem.data, lambda o: problem.wanted(o / temperature))
    criterion = eoc.criterion("grasp", temperature=temperature)
    for score, right in zip(found(warm, criterion), wanted(warm, "grasp"), strict=True):
        torch.testing.assert_close(score, right, rtol=1e-8, atol=1e-14)


class Recurrent(nn.Module):
    """A layer before and one behind a recurrent one."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(6, 5), nn.Linear(8, V)
        self.body = kind(5, 8, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.head(self.body(torch.tanh(self.first(x)))[0])


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_second_derivatives_of_recurrent_layers(kind, dtype, mode):
    model = Recurrent(kind).train(mode)
    x, y = draw(B, T, 6), NEXT
    scores = scoring.layer_scores(model, "grasp", as_batch(model, (x, y)), dtype=dtype)
    weights = [weight.tensor for weight in prunable_weights(model.double())]
    loss = F.cross_entropy(model(x).reshape(-1, V), y.reshape(-1))
    g = torch.autograd.grad(loss, weights, create_graph=True)
    curved = torch.autograd.grad(sum((d * d.detach()).sum() for d in g), weights)
    norm = torch.cat([d.detach().reshape(-1) for d in g]).norm()
    for score, w, h in zip(scores, weights, curved, strict=True):
        right = (w * h).detach() / norm
        error = (score.double() - right).norm() / right.norm()
        assert error < (1e-4 if dtype == "float32" else 1e-10)


REFUSED = [
    ("loss", "hinge", (X, Y), mlp(), "loss must be one of 'cross_entropy', 'mse', 'bce' or a function"),
    ("loss", F.cross_entropy.__class__, (X, Y), mlp(), "loss must be one of"),
    ("loss", lambda o, t: o, (X, Y), mlp(), "loss must return one real number as a tensor, got (8, 7)"),
    ("loss", lambda o, t: 1.0, (X, Y), mlp(), "loss must return one real number as a tensor, got float"),
    ("loss", lambda o, t: 1 / 0, (X, Y), mlp(), "loss raised ZeroDivisionError"),
    (
        "loss",
        "mse",
        (X, Y),
        mlp(),
        "targets must have the shape of the outputs (8, 7) for loss 'mse', got (8,)",
    ),
    ("loss", "bce", (X, 2 * MANY), mlp(), "targets must lie in [0, 1] for loss 'bce', got 0 to 2"),
    ("loss", "cross_entropy", (X, MANY.double()), mlp(), "of several labels at once use loss='bce'"),
    (
        "loss",
        "cross_entropy",
        (X, SOFT[:, :3] / SOFT[:, :3].sum(1, keepdim=True)),
        mlp(),
        "logits of the targets'",
    ),
    ("loss", "cross_entropy", (X, X[:, 0]), mlp(), "targets must be whole"),
    ("loss", "cross_entropy", (X, Y[:3]), mlp(), "targets must"),
    (
        "loss",
        "cross_entropy",
        (IDS, torch.full((B, T), -100)),
        Tokens(),
        "got none but -100, which is ignored",
    ),
    ("loss", "cross_entropy", (IDS, NEXT - 1), Tokens(), "targets must be classes 0 to 6, got -1 to 5"),
    (
        "loss",
        "cross_entropy",
        (IDS, NEXT[:, :3]),
        Tokens(),
        "model must return logits of shape (8, 3, classes)",
    ),
    (
        "loss",
        "cross_entropy",
        (X, Y),
        Wrapped(lambda *o: {"a": o[0], "b": o[1]}),
        "'a', 'b': pick one by output=",
    ),
    (
        "loss",
        "cross_entropy",
        (X, Y),
        Wrapped(lambda *o: 1.0),
        "model must return logits as one tensor, got float",
    ),
    (
        "output",
        "c",
        (X, Y),
        Wrapped(lambda *o: {"a": o[0], "b": o[1]}),
        "output 'c' is not among what the model",
    ),
    ("output", 5, (X, Y), Wrapped(lambda *o: o), "output 5 is not among what the model returns"),
    ("output", 1.5, (X, Y), mlp(), "output must be a name, an index or a function"),
    ("output", True, (X, Y), mlp(), "output must be a name, an index or a function"),
    ("output", lambda o: 1 / 0, (X, Y), mlp(), "output raised ZeroDivisionError"),
]


@pytest.mark.parametrize(
    "name, value, data, model, message", REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_does_not_fit_is_named(name, value, data, model, message):
    with pytest.raises(eoc.EOCError) as caught:
        eoc.measure_pruning(model, 0.5, data=data, **{name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_logit_is_refused_and_one_output_of_squares_is_not():
    with pytest.raises(eoc.EOCError, match="all scores are 0"):
        eoc.measure_pruning(mlp(1), 0.5, data=(X, torch.zeros(B, dtype=torch.int64)))
    assert eoc.measure_pruning(mlp(1), 0.5, data=(X, draw(B)), loss="mse").kept.shape == (2,)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce", lambda o, t: o.square().mean()])
@pytest.mark.parametrize(
    "model, example", [(mlp(), None), (mlp(1), None), (Tokens(), (1, T)), (Dense(), (1, 2, 4, 4))]
)
def test_stand_in_data_fit_every_loss(model, example, loss):
    if loss == "cross_entropy" and isinstance(model, nn.Sequential) and model[-1].out_features == 1:
        return
    first, again = (eoc.measure_pruning(model, 0.5, loss=loss, example_input=example) for _ in range(2))
    assert np.array_equal(first.kept, again.kept)
    assert np.isfinite(first.log_score_moments).all()


def test_a_loss_keeps_what_it_is_told():
    loss = as_loss("mse", 1)
    assert as_loss(loss) == loss
    assert as_loss(loss, temperature=2.0).temperature == 2.0
