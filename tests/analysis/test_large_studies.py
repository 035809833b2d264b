"""The studies of the paper's size: what they ask for, what they say beforehand, and a miniature that runs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import Batch, Network, Place, Study, reading, run
from analysis.__main__ import main
from analysis.estimates import LAUNCHES, SUSTAINED, estimates
from analysis.studies import STUDIES
from analysis.studies.trained import image_tables
from analysis.training import training
from eoc_theory.errors import ArgumentError
from eoc_theory.signals import datasets


@pytest.fixture
def folder(tmp_path):
    """CIFAR-100's files with two images of each class."""
    for cached in (datasets._part, datasets._moments):
        cached.cache_clear()
    rng = np.random.default_rng(0)
    place = tmp_path / "cifar-100-binary"
    place.mkdir()
    for part in ("train", "test"):
        fine = np.arange(200) % 100
        pixels = (rng.integers(0, 80, (200, 3072)) + fine[:, None]).astype(np.uint8)
        records = np.hstack([fine[:, None] // 5, fine[:, None], pixels]).astype(np.uint8)
        (place / f"{part}.bin").write_bytes(records.tobytes())
    return tmp_path


@pytest.mark.slow
def test_the_image_tables_run_in_miniature(tmp_path, folder):
    pytest.importorskip("torch")
    small = image_tables(
        "images-test",
        "the image tables in miniature",
        (Batch("cifar100", 100), Batch("digits", 20, shape=(1, 8, 8))),
        resnets=(8,),
        vggs=(11,),
        widths=(2, 2),
        sparsities=(0.95,),
        seeds=1,
        epochs=1,
        batch=50,
        augment=True,
    )
    tasks = [task for task in small.tasks() if task.network.kind != "vgg" or task.batch.name == "cifar100"]
    assert len(tasks) == 3 * 3 + 2 * 3
    # Digits of 8 × 8 are too small for a VGG: the one kind of task that fails, told and not fatal.
    store = tmp_path / "store"
    place = Place(device="cpu", folder=str(folder))
    outcome = run(small, store, place=place)
    assert outcome.done == len(tasks) and len(outcome.failures) == 3
    with reading(store) as found:
        rows = list(found.rows("training"))
    for row in rows:
        layers = row.asked["network"]
        assert 0.0 <= row.found["accuracy"] <= 1.0 and np.isfinite(row.found["train_loss"]).all()
        assert row.found["kept_weights"] > 0 and layers["kind"] in ("resnet", "stable-resnet", "vgg")
    # A hundred classes: the first layers are as wide, the last is ten times as wide as for digits.
    kept = {
        name: max(row.found["kept_weights"] for row in rows if row.asked["data"]["name"] == name)
        for name in ("cifar100", "digits")
    }
    assert kept["cifar100"] > kept["digits"]
    # What is there is not done again.
    again = run(small, store, place=place, resume=True)
    assert again.before == len(tasks) and again.done == 0


def test_the_study_of_the_papers_size_asks_for_it():
    tasks = list(STUDIES["images"].tasks())
    assert {task.batch.name for task in tasks} == {"cifar10", "cifar100", "tiny-imagenet"}
    assert {task.network.depth for task in tasks if task.network.kind == "resnet"} == {32, 50, 104, 152}
    assert {task.sparsities[0] for task in tasks} == {0.9, 0.95, 0.98, 0.99, 0.995, 0.999}
    assert {task.network.depth for task in tasks if task.network.kind == "vgg"} == {16, 19, 34, 49}
    assert len(tasks) == 3 * 12 * 3 * 6 * 3
    # Ten images of each class.
    assert {task.batch.name: task.batch.size // task.batch.classes for task in tasks} == {
        "cifar10": 10, "cifar100": 10, "tiny-imagenet": 10,
    }  # fmt: skip


def test_estimates_are_the_operations_of_every_step():
    made = Study(
        "estimated", "a test", (Network("mlp", 3, 50), Network("resnet", 8, 4, "relu")), ("snip",), (0.9,), 2,
        (training(epochs=7, images=300, batch=30),), Batch("cifar10", 10),
    )  # fmt: skip
    dense, residual = estimates(made)
    weights = 3072 * 50 + 50 * 50 + 50 * 10
    assert (dense.weights, dense.trainings, dense.data) == (weights, 2, "cifar10")
    assert dense.operations == pytest.approx(2 * 7 * 300 * 6 * weights)
    # So small a network takes as long as its kernels are started.
    assert dense.hours == pytest.approx(2 * 3 * LAUNCHES * 7 * 300 / 30 / 3600)
    convolutions = 3 * 4 * 9 * 1024 + 2 * 16 * 9 * 1024
    convolutions += 4 * 8 * (9 + 1) * 256 + 64 * 9 * 256 + 8 * 16 * (9 + 1) * 64 + 256 * 9 * 64 + 16 * 10
    assert residual.operations == pytest.approx(2 * 7 * 300 * 6 * convolutions)
    first = next(iter(made.tasks()))
    assert estimates(made, [first.key])[0].trainings == 1
    assert SUSTAINED > 1e12


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(tmp_path, capsys):
    store = tmp_path / "images.sqlite"
    assert main(["run", "images", "--dry-run", "--store", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "1944 tasks, 0 of them kept" in shown and "1944 trainings, about" in shown
    assert "tiny-imagenet" in shown and "GPU hours" in shown and "--resume" in shown
    assert not store.exists()
    # Nothing that is trained: no hours.
    assert main(["run", "small", "--dry-run", "--store", str(store)]) == 0
    assert "GPU" not in capsys.readouterr().out


def test_new_kinds_of_networks_are_built():
    torch = pytest.importorskip("torch")
    shape = (3, 16, 16)
    images = torch.zeros(2, *shape)
    for network in (
        Network("vit", 2, 16),
        Network("gated-vit", 2, 16),
        Network("densenet", 10, 4, "relu", normalisation="batch"),
    ):
        net = network.build(shape, 7)
        assert net.to_torch(0)(images).shape == (2, 7)
    evaluated = Network("densenet", 10, 4, "relu", normalisation="batch-eval").build(shape, 7).to_torch(0)
    norms = [one for one in evaluated.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert norms and not any(one.training for one in norms)
    with pytest.raises(ArgumentError, match="depth must be 3n"):
        Network("densenet", 12, 4).build(shape, 7)
    with pytest.raises(ArgumentError, match="normalisation goes with"):
        Network("vit", normalisation="batch")


def test_dense_networks_put_outputs_beside_their_inputs():
    torch = pytest.importorskip("torch")
    net = Network("densenet", 7, 3, "relu", normalisation="batch").build((2, 8, 8), 5)
    model = net.to_torch(3).double()
    x = torch.as_tensor(np.random.default_rng(0).standard_normal((4, 2, 8, 8)))
    functional = torch.nn.functional
    weights = {name: value for name, value in model.named_parameters() if name.endswith("weight")}

    def normalised(h):
        return torch.relu(functional.batch_norm(h, None, None, training=True))

    def convolved(name, h):
        weight = weights[f"{name}.weight"]
        return functional.conv2d(h, weight, padding=weight.shape[-1] // 2)

    h = convolved("stem", x)
    for stage in range(3):
        h = torch.cat([h, convolved(f"stages.{stage}.0.conv", normalised(h))], 1)
        if stage < 2:
            h = functional.avg_pool2d(convolved(f"transitions.{stage}.conv", normalised(h)), 2)
    expected = normalised(h).mean((2, 3)) @ weights["fc.weight"].T
    np.testing.assert_allclose(model(x).detach().numpy(), expected.detach().numpy(), rtol=1e-7, atol=1e-9)
