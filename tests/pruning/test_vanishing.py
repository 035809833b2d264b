"""Scores that are exactly 0: said where some are, refused where all are; against plain torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from models import ResNet, ReZero
from torch import nn

import eoc_theory as eoc
from eoc_theory.errors import EOCError


def zero_gammas(norm="bn2", training=True):
    """A ResNet as torchvision makes it with zero_init_residual."""
    model = ResNet(blocks=(1, 1, 1), width=8).train(training)
    for stage in model.stages.children():
        for block in stage.children():
            nn.init.zeros_(getattr(block, norm).weight)
    return model


def rezero():
    model = ReZero()
    nn.init.zeros_(model.scale)
    return model


class DeadBranch(nn.Module):
    """x + a·relu(f(x)) with a = 0, and a unit frozen by its bias, in a fully connected network."""

    def __init__(self, factor=0.0):
        super().__init__()
        self.a, self.f, self.head = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 5)
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.head(x + self.factor * torch.relu(self.f(x)))


CASES = {
    "zero gamma": (zero_gammas, (3, 12, 12)),
    "zero gamma, evaluation": (lambda: zero_gammas(training=False), (3, 12, 12)),
    "zero gamma of the first norm": (lambda: zero_gammas("bn1"), (3, 12, 12)),
    "ReZero": (rezero, (3, 8, 8)),
    "dead branch": (DeadBranch, (6,)),
    "ReLU": (lambda: nn.Sequential(nn.Linear(6, 60), nn.ReLU(), nn.Linear(60, 5)), (6,)),
}


def batch(shape, n=20):
    return np.random.default_rng(3).standard_normal((n, *shape)), np.arange(n) % 5


def scores(model, data):
    """|W ∂loss/∂W| by plain torch."""
    model = model.double()
    loss = nn.functional.cross_entropy(model(torch.as_tensor(data[0])), torch.as_tensor(data[1]))
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [(w * g).detach() for w, g in zip(weights, found, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_zero_scores_are_those_of_plain_torch(name):
    torch.manual_seed(4)
    model, data = CASES[name][0](), batch(CASES[name][1])
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    predicted = eoc.predict_pruning(eoc.Architecture.from_torch(model, data[0]), [0.1, 0.97], data=data)
    measured = eoc.measure_pruning(model, [0.1, 0.97], data=data)
    wanted = [float((score == 0).double().mean()) for score in scores(model, data)]
    assert np.allclose(measured.zero_scores, wanted, atol=1e-12)
    by_name = dict(zip(predicted.layers, predicted.zero_scores, strict=True))
    # Of one network's dead units; the prediction's are a mean over networks.
    assert np.allclose([by_name[n] for n in names], wanted, atol=0.1)
    assert [by_name[n] == 1.0 for n in names] == [w == 1.0 for w in wanted]
    silent = [n for n, w in zip(names, wanted, strict=True) if w == 1.0]
    for result in (predicted, measured):
        said = " ".join(result.notes)
        assert (f"in {len(silent)} of {len(names)} layers" in said) == bool(silent)
        assert all(n in said for n in silent[:3])
        assert ("at s = 0.1 the threshold falls among them" in said) == bool(silent)
    assert json.loads(predicted.to_json())["zero_scores"] == pytest.approx(list(predicted.zero_scores))


@pytest.mark.parametrize("name", [name for name in CASES if name != "ReLU"])
def test_a_verdict_says_where_nothing_can_be_ranked(name):
    torch.manual_seed(5)
    model, data = CASES[name][0](), batch(CASES[name][1])
    found = eoc.diagnose(model, data[0], sparsity=0.1, data=data)
    assert "silent" in found.problems and "Nothing is wrong" not in found.verdict
    assert (
        "scores are exactly 0 in" in found.verdict
        and "the threshold falls among these zeros" in found.verdict
    )
    restored = [step for step in found.cure.steps if "γ = 1" in step or "factors that are 0" in step]
    assert restored and not len(found.after.silent)
    lost = eoc.predict_collapse(eoc.Architecture.from_torch(model, data[0]), data=data)
    zeros = found.before.zero_scores @ found.weights / found.weights.sum()
    assert np.median(lost.samples) == pytest.approx(zeros, abs=0.01)
    assert "scores are 0" in " ".join(lost.notes)


def test_a_branch_times_0_is_seen_by_synflow_in_one_round():
    net = eoc.Architecture.from_torch(rezero(), (2, 3, 8, 8))
    found = eoc.predict_pruning(net, 0.5, criterion="synflow-oneshot")
    measured = eoc.measure_pruning(rezero(), 0.5, criterion="synflow-oneshot", example_input=(2, 3, 8, 8))
    assert found.zero_scores.tolist() == measured.zero_scores.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert np.isnan(eoc.predict_pruning(net, 0.5, criterion="synflow").zero_scores).all()


def head(layer):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), layer)


def zero_head():
    model = head(nn.Linear(8, 5))
    nn.init.zeros_(model[2].weight)
    return model


def frozen_units():
    model = head(nn.Linear(8, 5))
    nn.init.constant_(model[0].bias, -1e3)
    nn.init.zeros_(model[2].bias)
    return model


def one_feature():
    return nn.Sequential(nn.Linear(6, 1), nn.LayerNorm(1), nn.Tanh(), nn.Linear(1, 5))


class OnlyBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.b(0.0 * torch.tanh(self.a(x))) * 0.0


NOTHING = {
    "one logit": (lambda: head(nn.Linear(8, 1)), "one logit", np.zeros(20, dtype=int)),
    "zero head": (zero_head, "weights of layer '2' are all 0", None),
    "frozen units": (frozen_units, "no gradient reaches", None),
    "factor 0": (OnlyBranch, "factor|no gradient", None),
    "one feature normalised": (one_feature, "no gradient", None),
}  # fmt: skip


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_rank_is_an_error_that_says_why(name, criterion):
    factory, why, targets = NOTHING[name]
    model, data = factory(), batch((6,))
    data = data if targets is None else (data[0], targets)
    if (name, criterion) == ("zero head", "grasp"):
        return  # the head's gradient bends the layer before it
    with pytest.raises(EOCError, match=f"scores are 0, so that there is nothing to rank: .*({why})"):
        eoc.measure_pruning(model, 0.5, criterion=criterion, data=data)


@pytest.mark.parametrize("criterion", ["magnitude", "synflow", "synflow-oneshot"])
def test_weights_of_0_leave_nothing_to_rank(criterion):
    model = head(nn.Linear(8, 5))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(EOCError, match="nothing to rank: the weights of layer '0' are all 0"):
        eoc.measure_pruning(model, 0.5, criterion=criterion)


def test_batch_norm_of_one_input_leaves_nothing_to_rank():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    data = np.ones((1, 6)), np.zeros(1, dtype=int)
    calls = (
        lambda: eoc.predict_pruning(model, 0.5, data=data, method="theory"),
        lambda: eoc.predict_collapse(model, data=data, method="theory"),
        lambda: eoc.design(model, 0.5, data=data, method="theory"),
    )
    for call in calls:
        with pytest.raises(
            EOCError, match=r"BatchNorm '1' is in training mode, and normalises one value to 0"
        ):
            call()
    with pytest.raises(EOCError, match=r"module '1' .BatchNorm1d.: Expected more than 1 value per channel"):
        eoc.diagnose(model, data=data)
    with pytest.raises(EOCError, match=r"module '1' .BatchNorm1d.: Expected more than 1 value per channel"):
        eoc.measure_pruning(model, 0.5, data=data)


def test_equal_scores_are_no_ranking():
    """Weights of ±1: magnitudes tie, and the result says so."""
    model = head(nn.Linear(8, 5))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(layer.weight.sign())
    found = eoc.measure_pruning(model, [0.0, 0.5], criterion="magnitude")
    assert any(
        "scores that are equal stand at the threshold of s = 0.5 (100.0%)" in note for note in found.notes
    )
    assert not eoc.measure_pruning(head(nn.Linear(8, 5)), 0.5, criterion="magnitude").notes
