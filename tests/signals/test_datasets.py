"""Image sets from files as they are published, and from OpenML, on small files made here."""

from __future__ import annotations

import gzip
import pickle
import struct
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.errors import ArgumentError, DataError, MissingDependencyError
from eoc_theory.signals import datasets
from eoc_theory.signals.datasets import SETS, load_images

TRAIN, TEST = 60, 20


@pytest.fixture(autouse=True)
def fresh():
    """No images of a test before this one."""
    for cached in (datasets._part, datasets._openml, datasets._moments):
        cached.cache_clear()


def made(name: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels, uint8 (count, features), and labels of which each class has as many."""
    rng = np.random.default_rng([seed, len(name)])
    pixels = rng.integers(0, 256, (count, SETS[name].features), dtype=np.uint8)
    return pixels, rng.permutation(np.arange(count) % 10)


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder, *, packed: bool = False, spelled: str = "-idx") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        pixels, labels = made("mnist", count, seed=len(part))
        for what, values in (
            (f"images{spelled}3-ubyte", pixels.reshape(-1, 28, 28)),
            (f"labels{spelled}1-ubyte", labels.astype(np.uint8)),
        ):
            content = idx(values)
            path = folder / f"{prefix}-{what}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)


def write_cifar(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = made("cifar10", 50, seed=5)
    records = np.hstack([labels[:, None].astype(np.uint8), pixels])
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(
            records[10 * number : 10 * number + 10].tobytes()
        )
    pixels, labels = made("cifar10", TEST, seed=4)
    (folder / "test_batch.bin").write_bytes(
        np.hstack([labels[:, None].astype(np.uint8), pixels]).astype(np.uint8).tobytes()
    )


def standardised(train: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """As documented, in plain floating point."""
    centred = train.astype(float) - train.mean(axis=0)
    return (wanted - train.mean(axis=0)) / np.sqrt((centred**2).mean())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("spelled", ["-idx", ".idx"])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_mnist_files(tmp_path, packed, spelled, below):
    write_mnist(tmp_path / below, packed=packed, spelled=spelled)
    inputs, targets = load_images("mnist", None, folder=tmp_path)
    pixels, labels = made("mnist", TRAIN, seed=5)
    assert inputs.shape == (TRAIN, 1, 28, 28) and inputs.dtype == np.float64
    np.testing.assert_array_equal(targets, labels)
    np.testing.assert_allclose(inputs.reshape(TRAIN, -1), standardised(pixels, pixels), atol=1e-12)
    # What is documented, seen on the result itself.
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-12)
    assert np.mean(inputs**2) == pytest.approx(1, abs=1e-12)


def test_test_part_is_standardised_like_the_training_part(tmp_path):
    write_mnist(tmp_path)
    inputs, targets = load_images("mnist", None, part="test", folder=tmp_path)
    train, _ = made("mnist", TRAIN, seed=5)
    pixels, labels = made("mnist", TEST, seed=4)
    np.testing.assert_array_equal(targets, labels)
    np.testing.assert_allclose(inputs.reshape(TEST, -1), standardised(train, pixels), atol=1e-12)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin", "cifar10"])
def test_cifar_files(tmp_path, below):
    write_cifar(tmp_path / below)
    inputs, targets = load_images("cifar10", None, folder=tmp_path)
    pixels, labels = made("cifar10", 50, seed=5)
    np.testing.assert_array_equal(targets, labels)
    np.testing.assert_allclose(inputs.reshape(50, -1), standardised(pixels, pixels), atol=1e-12)
    # Red, green and blue planes of 32 rows each.
    assert inputs.shape == (50, 3, 32, 32)
    test, _ = load_images("cifar10", None, part="test", folder=tmp_path)
    assert test.shape == (TEST, 3, 32, 32)


def test_balanced_choice_by_seed(tmp_path):
    write_mnist(tmp_path)
    everything, labels = load_images("mnist", None, folder=tmp_path)
    inputs, targets = load_images("mnist", 30, seed=3, folder=tmp_path)
    np.testing.assert_array_equal(targets, np.arange(30) % 10)
    # Each of them is an image of the set with its label, and none comes twice.
    found = [np.flatnonzero((everything == image).all(axis=(1, 2, 3)))[0] for image in inputs]
    assert len(set(found)) == 30
    np.testing.assert_array_equal(labels[found], targets)
    again, _ = load_images("mnist", 30, seed=3, folder=tmp_path)
    other, _ = load_images("mnist", 30, seed=4, folder=tmp_path)
    np.testing.assert_array_equal(inputs, again)
    assert not np.array_equal(inputs, other)
    # More images hold the fewer.
    np.testing.assert_array_equal(load_images("mnist", 60, seed=3, folder=tmp_path)[0][:30], inputs)
    with pytest.raises(ArgumentError, match=r"n must be at most 60 for mnist, got 61"):
        load_images("mnist", 61, folder=tmp_path)


def test_digits_are_those_of_eoc_digits():
    inputs, targets = load_images("digits", 40, seed=2)
    same, labels = eoc.digits(40, seed=2)
    np.testing.assert_array_equal(inputs.reshape(40, 64), same)
    np.testing.assert_array_equal(targets, labels)
    assert load_images("digits", None)[0].shape == (1797, 1, 8, 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good: good[:-1], "damaged: its header says 47040 bytes, it has 47039"),
        (lambda good: good + b"x", "it has more"),
        (lambda good: b"\x00\x00\x0d\x03" + good[4:], "not an IDX file of bytes with 3 axes"),
        (lambda good: good[:7], "not an IDX file"),
        (lambda good: good[:4] + b"\xff\xff\xff\xff" + good[8:], r"must hold items of shape \(28, 28\)"),
        (lambda good: good[:8] + struct.pack(">II", 32, 32) + good[16:], r"got 60 of \[32, 32\]"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, damage, message):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load_images("mnist", 10, folder=tmp_path)
    assert "\n" not in str(caught.value) and "train-images" in str(caught.value)


def test_damaged_gzip_and_labels_are_refused(tmp_path):
    write_mnist(tmp_path, packed=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for content in (whole[:-40], whole[:50] + b"\x00\x00\x00" + whole[53:], b"not gzip"):
        images.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz"):
            load_images("mnist", 10, folder=tmp_path)
    images.write_bytes(whole)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.full(TRAIN, 10, np.uint8))))
    with pytest.raises(DataError, match="must be 0 to 9, got 10 to 10"):
        load_images("mnist", 10, folder=tmp_path)
    labels.write_bytes(gzip.compress(idx(np.zeros(TRAIN - 1, np.uint8))))
    with pytest.raises(DataError, match=r"60 images, .* 59 labels"):
        load_images("mnist", 10, folder=tmp_path)


def test_damaged_and_pickled_cifar_is_refused(tmp_path):
    folder = tmp_path / "binary"
    write_cifar(folder)
    (folder / "data_batch_3.bin").write_bytes(b"x" * 3074)
    with pytest.raises(DataError, match=r"data_batch_3.bin.*no multiple of 3073"):
        load_images("cifar10", 10, folder=folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"has no data_batch_3.bin of cifar10"):
        load_images("cifar10", 10, folder=folder)

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    python = tmp_path / "python" / "cifar-10-batches-py"
    python.mkdir(parents=True)
    for number in range(1, 6):
        (python / f"data_batch_{number}").write_bytes(pickle.dumps(Trap()))
    for folder in (python, python.parent):
        with pytest.raises(DataError, match="get the binary version"):
            load_images("cifar10", 10, folder=folder)
    assert not (tmp_path / "trapped").exists()


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"has no files of fashion-mnist: put train-images-idx3-ubyte, .*gz"):
        load_images("fashion-mnist", 10, folder=tmp_path)
    with pytest.raises(ArgumentError, match="name must be one of 'digits', 'mnist'"):
        load_images("imagenet")
    with pytest.raises(ArgumentError, match="part must be one of 'train', 'test'"):
        load_images("mnist", part="validation", folder=tmp_path)


def fake_openml(monkeypatch, answer) -> list[tuple]:
    """Calls of scikit-learn's fetch_openml, which now gives or raises `answer`."""
    calls = []

    def fetch(*args, **options):
        calls.append((args, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    return calls


@pytest.mark.parametrize(
    ("name", "theirs"), [("mnist", "mnist_784"), ("fashion-mnist", "Fashion-MNIST"), ("cifar10", "CIFAR_10")]
)
def test_openml(tmp_path, monkeypatch, name, theirs):
    monkeypatch.setattr(datasets, "SETS", {name: shortened(name)})
    pixels, labels = made(name, TRAIN + TEST, seed=1)
    answer = SimpleNamespace(data=pixels.astype(float), target=labels.astype(str).astype(object))
    calls = fake_openml(monkeypatch, answer)
    inputs, targets = load_images(name, None, cache=tmp_path)
    test, _ = load_images(name, None, part="test", cache=tmp_path)
    # Both parts of one download; as arrays, so that pandas has no part in it.
    ((args, options),) = calls
    assert args == (theirs,) and options["version"] == 1 and options["as_frame"] is False
    assert options["cache"] is True and options["data_home"] == str(tmp_path)
    np.testing.assert_array_equal(targets, labels[:TRAIN])
    np.testing.assert_allclose(
        inputs.reshape(TRAIN, -1), standardised(pixels[:TRAIN], pixels[:TRAIN]), atol=1e-12
    )
    np.testing.assert_allclose(
        test.reshape(TEST, -1), standardised(pixels[:TRAIN], pixels[TRAIN:]), atol=1e-12
    )
    assert inputs.shape[1:] == SETS[name].shape


def shortened(name: str):
    """The set, with as many test images as these tests make."""
    from dataclasses import replace

    return replace(SETS[name], test=TEST)


@pytest.mark.parametrize(
    "error", [URLError("[Errno -2] Name or service not known"), ValueError("md5 checksum"), TimeoutError()]
)
def test_offline_says_what_to_do(monkeypatch, error):
    fake_openml(monkeypatch, error)
    with pytest.raises(DataError, match=r"'cifar10' cannot be had from OpenML .*data_batch_1.bin") as caught:
        load_images("cifar10", 10)
    assert "--data-folder" in str(caught.value) and "\n" not in str(caught.value)


def test_odd_answers_of_openml_are_refused(monkeypatch):
    fake_openml(monkeypatch, SimpleNamespace(data=np.zeros((70000, 10)), target=np.zeros(70000)))
    with pytest.raises(DataError, match=r"got an array of shape \(70000, 10\)"):
        load_images("mnist", 10)


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'eoc-theory\[data\]'"):
        load_images("mnist", 10)


def test_constant_images_are_refused(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.full((TRAIN, 28, 28), 7, np.uint8)))
    with pytest.raises(DataError, match="all the same"):
        load_images("mnist", 10, folder=tmp_path)


def test_command_line(tmp_path, capsys):
    write_mnist(tmp_path)
    network = "predict --activation tanh --depth 3 --width 8 --sparsity 0.5 --criterion magnitude".split()
    assert main([*network, "--data", "mnist", "--batch", "20", "--data-folder", str(tmp_path)]) == 0
    assert "20 inputs of mnist" in capsys.readouterr().out
    assert main([*network, "--data", "mnist", "--data-folder", str(tmp_path / "none")]) == 2
    assert "has no files of mnist" in capsys.readouterr().err
    assert main([*network, "--data", "digits", "--data-folder", str(tmp_path)]) == 2
    assert "--data-folder goes with" in capsys.readouterr().err
    assert main([*network, "--data", "imagenet"]) == 2
    assert "data must be digits, mnist" in capsys.readouterr().err
