"""Training on kept weights alone, against torch; clipped gradients, other masks, and what studies ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import analysis.training as module
from analysis import Batch, Network, Place, Study
from analysis.studies.remedies import BALANCED, REMEDIES, REMEDIES_DIGITS, REMEDIES_FULL, Remedy
from analysis.training import Checkpoint, Images, Training, train, training
from eoc_theory.errors import ArgumentError

CPU = Place("cpu")


def task(activation: str = "relu", depth: int = 5, sparsity: float = 0.8, **settings: Any) -> Any:
    options = {"epochs": 3, "images": 200, "batch": 20, "learning_rate": 0.05, **settings}
    study = Study(
        name="sparse-test",
        about="a test",
        networks=(Network("mlp", depth, 30, activation=activation),),
        criteria=("snip",),
        sparsities=(sparsity,),
        seeds=1,
        measures=(training(**options),),
        batch=Batch(size=50),
    )
    (made,) = study.tasks()
    return made


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("decay", [0.0, 5e-3])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_same_training_as_torch_has_it(activation, decay, clip):
    options = {"clip": clip, "weight_decay": decay, "drops": (0.5,)}
    dense, sparse = (train(task(activation, sparse=way, **options), CPU) for way in (False, True))
    np.testing.assert_allclose(sparse["train_loss"], dense["train_loss"], rtol=2e-4)
    np.testing.assert_allclose(sparse["test_accuracy"], dense["test_accuracy"], atol=0.011)
    assert sparse["kept_weights"] == dense["kept_weights"] and sparse["revived"] == 0


def test_gradients_are_clipped_as_by_hand():
    """One step of plain torch: the gradient by what is kept, shortened to the norm that is asked for."""
    made = task(epochs=1, images=60, batch=60, momentum=0.0, weight_decay=0.0, clip=0.05, learning_rate=1.0)
    settings = Training(**dict(made.measure.settings))
    images = Images.of(made, CPU, settings)
    run = module.Run.begin(made, settings, images, torch.device("cpu"))
    before = [p.detach().clone() for p in run.model.parameters()]
    loss = torch.nn.functional.cross_entropy(run.model(run.tensors[0]), run.tensors[1])
    gradients = list(torch.autograd.grad(loss, run.model.parameters()))
    of_weight = {id(w): gone for w, gone in zip(run.weights, run.removed, strict=True)}
    for i, parameter in enumerate(run.model.parameters()):
        if id(parameter) in of_weight:
            gradients[i] = gradients[i] * ~of_weight[id(parameter)]
    norm = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
    assert norm > 0.1  # else nothing would be clipped
    run.learn()
    moved = [b - p.detach() for b, p in zip(before, run.model.parameters(), strict=True)]
    for by, gradient in zip(moved, gradients, strict=True):
        torch.testing.assert_close(by, gradient * 0.05 / norm, rtol=1e-3, atol=1e-6)


def test_a_sparse_training_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    made = task(epochs=4, sparse=True)
    whole = train(made, CPU)
    settings = Training(**dict(made.measure.settings))
    run = module._kind_of_run(settings).begin(
        made, settings, Images.of(made, CPU, settings), torch.device("cpu")
    )
    run.learn()
    run.learn()
    place = replace(CPU, checkpoints=str(tmp_path))
    Checkpoint(place.checkpoint(*made.key), made.key).write(run.state())
    again = train(made, place)
    assert again["train_loss"] == whole["train_loss"] and again["test_accuracy"] == whole["test_accuracy"]
    assert again == train(made, CPU)


def test_sparse_training_refuses_what_it_cannot_do():
    with pytest.raises(ArgumentError, match="one activation, relu or tanh"):
        train(task("gelu", sparse=True), CPU)
    convolutional = replace(
        task(sparse=True), network=Network("cnn", 3, 4), batch=Batch(size=50, shape=(1, 8, 8))
    )
    with pytest.raises(ArgumentError, match="fully connected"):
        train(convolutional, CPU)


@pytest.mark.parametrize("sparse", [False, True])
def test_masks_are_rearranged_and_histories_thinned(sparse, monkeypatch):
    ended: list[Any] = []
    learn = module.Run.learn
    monkeypatch.setattr(module.Run, "learn", lambda self: (learn(self), ended.append(self))[0])
    made = task(epochs=5, every=2, arrangement="balanced", rescale="units", sparse=sparse)
    found = train(made, CPU)
    assert len(found["train_loss"]) == len(found["test_accuracy"]) == 3
    assert found["accuracy"] == found["test_accuracy"][-1] and found["rescaled"]
    plain = train(task(epochs=1, sparse=sparse), CPU)
    assert (found["kept_weights"], found["least_kept"]) == (plain["kept_weights"], plain["least_kept"])
    degrees = [(~gone).sum(dim=1) for gone in ended[0].removed]
    assert all(int(one.max() - one.min()) <= 1 for one in degrees)


def test_what_does_nothing_is_no_part_of_a_configuration():
    """So that results that were stored before there was such a setting are found."""
    names = dict(task().measure.settings)
    assert not names.keys() & module.LATER.keys()
    assert dict(task(clip=1, arrangement="random").measure.settings) == {
        **names,
        "clip": 1.0,
        "arrangement": "random",
    }
    for wrong in ({"clip": 0}, {"arrangement": "even"}, {"every": 0}, {"rescale": "unit"}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            Training(**wrong)


def test_the_study_gives_every_cell_the_same_choice_of_rates():
    cells: dict[tuple, set[float]] = {}
    for one in REMEDIES_DIGITS.tasks():
        settings = dict(one.measure.settings)
        key = (one.network, one.sparsities, Remedy.of(settings), one.seed)
        cells.setdefault(key, set()).add(settings["learning_rate"])
        assert settings["clip"] == 1.0 and settings["epochs"] * (1440 // settings["batch"]) == 1496
    assert set(map(len, cells.values())) == {3}
    assert {remedy for network, _, remedy, _ in cells if network.activation == "relu"} == set(REMEDIES)
    assert {seed for *_, seed in cells} == set(range(5))
    assert len({str(remedy) for remedy in REMEDIES}) == len(REMEDIES)
    assert str(BALANCED) == "balanced masks, rescaled by the units" and str(Remedy()) == "as pruned"
    assert set(REMEDIES_DIGITS.networks) < set(REMEDIES_FULL.networks)
