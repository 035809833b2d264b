"""Training of pruned networks: masks kept exactly, checkpoints that survive anything, the same bits again."""

from __future__ import annotations

import os
import pickle
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import analysis.training as module
from analysis import Batch, Network, Place, Study, reading, run
from analysis.tables import rows_frame, summarise_training, training_frame
from analysis.training import Checkpoint, Images, Training, train, training
from eoc_theory.errors import ArgumentError

ROOT = Path(__file__).resolve().parents[2]


def study(network: Network | None = None, sparsity: float = 0.8, **settings: Any) -> Study:
    """One network, trained on few digits."""
    options = {"epochs": 4, "images": 200, "batch": 20, "learning_rate": 0.05, **settings}
    return Study(
        name="training-test",
        about="a test",
        networks=(network or Network("mlp", 4, 30),),
        criteria=("snip",),
        sparsities=(sparsity,),
        seeds=1,
        measures=(training(**options),),
        batch=Batch(size=50, shape=(1, 8, 8)),
    )


def only(made: Study):
    (task,) = made.tasks()
    return task


NETWORKS = {
    "mlp": Network("mlp", 4, 30),
    "cnn": Network("cnn", 3, 8, activation="relu"),
    "resnet": Network("resnet", 8, 4, activation="relu", normalisation="batch"),
}


@pytest.mark.parametrize("rescale", ["no", "weights", "signal"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_no_removed_weight_comes_back(network, rescale, monkeypatch):
    """Counted by the training itself, and here from the weights it ends with."""
    ended = []
    monkeypatch.setattr(
        module.Run, "learn", lambda self, learn=module.Run.learn: (learn(self), ended.append(self))[0]
    )
    found = train(only(study(network, epochs=2, rescale=rescale)), Place(device="cpu"))
    assert found["revived"] == 0 and not found["diverged"]
    assert found["rescaled"] is (rescale != "no")
    layers = [one for one in ended[-1].model.modules() if isinstance(one, (torch.nn.Linear, torch.nn.Conv2d))]
    assert [id(layer.weight) for layer in layers] == [id(weight) for weight in ended[-1].weights]
    # What was kept has moved away from 0 and stayed there.
    alive = [int((layer.weight != 0).sum()) for layer in layers]
    assert sum(alive) == found["kept_weights"]
    assert sum(alive) == pytest.approx(0.2 * sum(layer.weight.numel() for layer in layers), abs=1)
    fractions = [count / layer.weight.numel() for count, layer in zip(alive, layers, strict=True)]
    assert found["least_kept"] == pytest.approx(min(fractions))


def test_revived_weights_would_be_counted(monkeypatch):
    """The count can fail: with masks that let everything through it does."""
    begin = module.Run.begin.__func__

    def without_masks(cls, *arguments):
        made = begin(cls, *arguments)
        removed, made.removed = made.removed, [torch.zeros_like(mask) for mask in made.removed]
        accuracy = made._accuracy
        # For the count alone the true masks are there again.
        made._accuracy = lambda: (setattr(made, "removed", removed), accuracy())[1]
        return made

    monkeypatch.setattr(module.Run, "begin", classmethod(without_masks))
    assert train(only(study(epochs=1)), Place(device="cpu"))["revived"] > 100


def test_networks_learn_digits():
    found = train(only(study(Network("mlp", 4, 60), epochs=8, images=None)), Place(device="cpu"))
    assert found["accuracy"] > 0.85
    assert found["train_loss"][-1] < 0.3 * found["train_loss"][0]
    assert len(found["train_loss"]) == len(found["test_accuracy"]) == 8


def test_test_images_are_no_training_images():
    made = only(study(images=None))
    images = Images.of(made, Place(), Training())
    assert images.inputs.shape == (1440, 64) and images.test_inputs.shape == (300, 64)
    np.testing.assert_array_equal(np.bincount(images.targets), 144)
    np.testing.assert_array_equal(np.bincount(images.test_targets), 30)
    train_set = {image.tobytes() for image in images.inputs}
    # The set itself holds a few images twice.
    assert sum(image.tobytes() in train_set for image in images.test_inputs) < 5
    # Weights are scored on training images.
    scored, targets = images.scored(made.batch)
    assert all(image.astype(np.float32).tobytes() in train_set for image in scored)
    np.testing.assert_array_equal(np.bincount(targets), 5)


def test_the_same_bits_again_and_others_for_another_seed():
    task = only(study())
    one, again = train(task, Place(device="cpu")), train(task, Place(device="cpu"))
    other = train(replace(task, seed=1), Place(device="cpu"))
    assert one["train_loss"] == again["train_loss"] != other["train_loss"]


class KilledError(Exception):
    """Stands in for the end of the process."""


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_training_that_was_killed_goes_on_with_the_same_bits(tmp_path, monkeypatch, network):
    task = only(study(network, images=100))
    whole = train(task, Place(device="cpu"))
    place = Place(device="cpu", checkpoints=str(tmp_path), checkpoint_seconds=0)
    write = Checkpoint.write
    epochs = []

    def killed(self, state):
        write(self, state)
        if len(epochs) == 2:
            raise KilledError

    learn = module.Run.learn
    monkeypatch.setattr(module.Run, "learn", lambda self: (epochs.append(self.epoch), learn(self))[1])
    monkeypatch.setattr(Checkpoint, "write", killed)
    with pytest.raises(KilledError):
        train(task, place)
    found = train(task, place)
    assert epochs == [0, 1, 2, 3]
    assert found["train_loss"] == whole["train_loss"] and found["test_accuracy"] == whole["test_accuracy"]


KILLED = """
import sys
from analysis import Place, run
from test_training import study

run(study(epochs=40), sys.argv[1], resume=True, place=Place("cpu", None, sys.argv[2], 0.0))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_process_that_is_killed_goes_on_with_the_same_bits(tmp_path):
    made, work = study(epochs=40), tmp_path / "work"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "analysis")))
    chance, epochs = random.Random(3), []
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / "store", work], env={**os.environ, "PYTHONPATH": paths}
        )
        path = Place(checkpoints=str(work)).checkpoint(*only(made).key)
        reached, before = path.stat().st_mtime_ns if path.exists() else 0, time.monotonic()
        # Until it has got on, and then some part of an epoch more.
        while time.monotonic() - before < 60 and child.poll() is None:
            if path.exists() and path.stat().st_mtime_ns > reached:
                break
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        child.wait()
        if (state := Checkpoint(path, only(made).key).read(torch.device("cpu"))) is not None:
            epochs.append(state["epoch"])
    assert epochs and epochs == sorted(set(epochs)), "each run goes on where the one before was killed"
    assert run(made, tmp_path / "store", place=Place("cpu", None, str(work)), resume=True).tasks == 1
    run(made, tmp_path / "whole", place=Place("cpu"))
    with reading(tmp_path / "store") as store, reading(tmp_path / "whole") as whole:
        assert store.digest() == whole.digest()


def test_a_checkpoint_that_is_not_ours_is_not_used(tmp_path):
    task = only(study())
    place = Place(device="cpu", checkpoints=str(tmp_path))
    path = place.checkpoint(*task.key)
    assert path is not None and place.checkpoint(task.key[0], 1) != path
    checkpoint = Checkpoint(path, task.key)
    assert checkpoint.read(torch.device("cpu")) is None
    Checkpoint(path, ("another", 0)).write({"epoch": 3})
    assert checkpoint.read(torch.device("cpu")) is None
    checkpoint.write({"epoch": 3})
    assert checkpoint.read(torch.device("cpu"))["epoch"] == 3
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert checkpoint.read(torch.device("cpu")) is None
    path.write_bytes(b"")
    assert checkpoint.read(torch.device("cpu")) is None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoints_are_never_unpickled_into_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    path = tmp_path / "checkpoint.pt"
    for content in (
        lambda: path.write_bytes(pickle.dumps(Trap())),
        lambda: torch.save({"hash": Trap()}, path),
    ):
        content()
        assert Checkpoint(path, ("hash", 0)).read(torch.device("cpu")) is None
    assert not (tmp_path / "trapped").exists()


def test_results_are_stored_and_checkpoints_removed(tmp_path):
    made = study(epochs=2, rescale="weights")
    place = Place(device="cpu", checkpoints=str(tmp_path / "work"), checkpoint_seconds=0)
    assert run(made, tmp_path / "store", place=place).done == 1
    assert list((tmp_path / "work").iterdir()) == []
    with reading(tmp_path / "store") as store:
        (row,) = store.rows("training")
        frame, summary = training_frame(store), summarise_training(store)
    assert row.found["rescaled"] is True and len(row.found["train_loss"]) == 2
    assert frame["accuracy"].tolist() == [row.found["accuracy"]]
    assert frame["epochs"].tolist() == [2] and frame["rescale"].tolist() == ["weights"]
    assert summary["accuracy"].tolist() == [row.found["accuracy"]] and summary["seeds"].tolist() == [1]


def test_tables_keep_apart_what_is_trained_in_other_ways(tmp_path):
    ways = tuple(training(epochs=epochs, images=100, batch=50) for epochs in (1, 2))
    made = replace(study(), measures=ways)
    assert run(made, tmp_path / "store", place=Place(device="cpu")).failures == ()
    with reading(tmp_path / "store") as store:
        summary, rows = summarise_training(store), rows_frame(store)
        found = [row.found["accuracy"] for row in store.rows("training")]
    assert summary["seeds"].tolist() == [1, 1] and summary["accuracy"].tolist() == found
    # Images to score on, and images in a step.
    assert set(rows["batch"]) == {made.batch.size} and set(rows["setting_batch"]) == {50}


def test_every_sparsity_is_a_task_of_its_own():
    made = replace(study(), sparsities=(0.5, 0.9))
    assert [task.sparsities for task in made.tasks()] == [(0.5,), (0.9,)]


def test_images_are_shifted_and_mirrored():
    """Every result is found among the shifts of its image, mirrored or not; both kinds occur."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((40, 2, 5, 6)).astype(np.float32))
    found = module.shifted(images, np.random.default_rng(1), most=2)
    assert found.shape == images.shape
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    ways = set()
    for one, whole in zip(found, padded, strict=True):
        parts = {
            (down, right): whole[:, down : down + 5, right : right + 6]
            for down in range(5)
            for right in range(5)
        }
        matches = [(at, False) for at, part in parts.items() if torch.equal(one, part)]
        matches += [(at, True) for at, part in parts.items() if torch.equal(one, part.flip(-1))]
        assert len(matches) == 1
        ways |= set(matches)
    assert len(ways) > 20 and {mirrored for _, mirrored in ways} == {False, True}
    cnn = study(NETWORKS["cnn"], epochs=2, augment=True)
    first = train(only(cnn), Place("cpu"))
    assert first["train_loss"] == train(only(cnn), Place("cpu"))["train_loss"]
    assert first["train_loss"] != train(only(study(NETWORKS["cnn"], epochs=2)), Place("cpu"))["train_loss"]


def test_rates_drop():
    settings = Training(epochs=160, learning_rate=0.1)
    assert [settings.rate(epoch) for epoch in (0, 79, 80, 119, 120, 159)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


@pytest.mark.parametrize("rescale", ["weights", "signal"])
def test_an_emptied_network_is_not_rescaled(rescale):
    """With one weight in a thousand left a layer is empty: the network guesses, and that is the result."""
    found = train(
        only(study(Network("mlp", 12, 20), sparsity=0.999, rescale=rescale, epochs=1)), Place("cpu")
    )
    assert found["least_kept"] == 0 and found["rescaled"] is False
    assert found["accuracy"] == pytest.approx(0.1, abs=0.05)


def test_losses_that_are_not_finite_end_the_training():
    found = train(only(study(learning_rate=1e6, momentum=0.0)), Place("cpu"))
    assert found["diverged"] is True and len(found["train_loss"]) < 4 and found["revived"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1"),
        ({"learning_rate": -1}, "learning_rate must be a number > 0"),
        ({"rescale": "yes"}, "rescale must be one of 'no', 'weights', 'units', 'signal'"),
        ({"drops": (2.0,)}, "drops must be a number in [0, 1)"),
    ],
)
def test_unusable_settings_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        training(**settings)
