"""CIFAR-100 and Tiny ImageNet from files as they are published, made here in small."""

from __future__ import annotations

import numpy as np
import pytest

from eoc_theory.errors import DataError, MissingDependencyError
from eoc_theory.signals import datasets
from eoc_theory.signals.datasets import SETS, load_images


@pytest.fixture(autouse=True)
def fresh():
    """No images of a test before this one."""
    for cached in (datasets._part, datasets._openml, datasets._moments):
        cached.cache_clear()


def write_cifar100(folder) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(0), {}
    for part, count in (("train", 200), ("test", 100)):
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = rng.permutation(np.arange(count) % 100)
        records = np.hstack([(fine // 5)[:, None], fine[:, None], pixels]).astype(np.uint8)
        (folder / f"{part}.bin").write_bytes(records.tobytes())
        made[part] = pixels, fine
    return made


@pytest.mark.parametrize("below", ["", "cifar-100-binary"])
def test_cifar100_has_its_fine_labels(tmp_path, below):
    made = write_cifar100(tmp_path / "data" / below)
    inputs, targets = load_images("cifar100", None, folder=tmp_path / "data")
    pixels, fine = made["train"]
    np.testing.assert_array_equal(targets, fine)
    assert inputs.shape == (200, 3, 32, 32)
    scale = np.sqrt(((pixels - pixels.mean(axis=0)) ** 2).mean())
    np.testing.assert_allclose(inputs.reshape(200, -1), (pixels - pixels.mean(axis=0)) / scale, atol=1e-12)
    _, chosen = load_images("cifar100", 100, part="test", folder=tmp_path / "data")
    np.testing.assert_array_equal(np.sort(chosen), np.arange(100))
    assert SETS["cifar100"].classes == 100


def test_other_files_than_cifar100_are_refused(tmp_path):
    write_cifar100(tmp_path / "data")
    path = tmp_path / "data" / "train.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match=r"of cifar100's binary version: .* no multiple of 3074"):
        load_images("cifar100", 10, folder=tmp_path / "data")
    path.write_bytes(good[:1] + b"\x64" + good[2:])
    with pytest.raises(DataError, match="must be 0 to 99, got 0 to 100"):
        load_images("cifar100", 10, folder=tmp_path / "data")
    python = tmp_path / "cifar-100-python"
    python.mkdir()
    (python / "train").write_bytes(b"\x80\x02.")
    with pytest.raises(DataError, match="Python version of CIFAR-100"):
        load_images("cifar100", 10, folder=tmp_path)
    for name in ("cifar100", "tiny-imagenet"):
        with pytest.raises(DataError, match=rf"'{name}' is read from a folder: put"):
            load_images(name, 10)


WORDS = ("n02", "n01", "n03")


def write_tiny_imagenet(folder, size=64) -> dict[str, list[tuple[np.ndarray, int]]]:
    """Images of one colour, which JPEG keeps to a few steps; the third class is grey."""
    image = pytest.importorskip("PIL.Image")
    rng, made = np.random.default_rng(1), {"train": [], "test": []}

    def save(path, word) -> np.ndarray:
        colour = np.repeat(rng.integers(0, 256), 3) if word == "n03" else rng.integers(0, 256, 3)
        block = np.broadcast_to(colour.astype(np.uint8), (size, size, 3))
        picture = image.fromarray(np.ascontiguousarray(block))
        path.parent.mkdir(parents=True, exist_ok=True)
        (picture.convert("L") if word == "n03" else picture).save(path, "JPEG", quality=95)
        return block

    for word in WORDS:
        for number in range(4):
            name = f"{word}_{number}.JPEG"
            block = save(folder / "train" / word / "images" / name, word)
            made["train"].append((block, sorted(WORDS).index(word)))
    lines = []
    for number in range(6):
        word = WORDS[number % 3]
        made["test"].append(
            (save(folder / "val" / "images" / f"val_{number}.JPEG", word), sorted(WORDS).index(word))
        )
        lines.append(f"val_{number}.JPEG\t{word}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return made


@pytest.mark.parametrize("below", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_is_read_from_its_folders(tmp_path, below):
    made = write_tiny_imagenet(tmp_path / below)
    by_label = sorted(made["train"], key=lambda one: one[1])
    pixels, labels = datasets._part("tiny-imagenet", "train", str(tmp_path), None)
    assert pixels.dtype == np.uint8 and pixels.shape == (12, 3 * 64 * 64)
    np.testing.assert_array_equal(labels, [label for _, label in by_label])
    for row, (block, _) in zip(pixels, by_label, strict=True):
        assert np.abs(row.reshape(3, 64, 64).astype(int) - block.transpose(2, 0, 1)).max() <= 6
    test, labels = datasets._part("tiny-imagenet", "test", str(tmp_path), None)
    np.testing.assert_array_equal(labels, [label for _, label in made["test"]])
    assert np.abs(test[0].reshape(3, 64, 64).astype(int) - made["test"][0][0].transpose(2, 0, 1)).max() <= 6
    inputs, targets = load_images("tiny-imagenet", 6, folder=tmp_path)
    assert inputs.shape == (6, 3, 64, 64) and sorted(targets) == [0, 0, 1, 1, 2, 2]


def test_damaged_tiny_imagenet_is_refused(tmp_path, monkeypatch):
    write_tiny_imagenet(tmp_path / "small", size=32)
    with pytest.raises(DataError, match="must be of 64×64 pixels, got 32×32"):
        load_images("tiny-imagenet", 3, folder=tmp_path / "small")
    folder = tmp_path / "good"
    write_tiny_imagenet(folder)
    notes = folder / "val" / "val_annotations.txt"
    good = notes.read_text()
    for bad in ("", "val_0.JPEG\tn99\n", "../up.JPEG\tn01\n", "no tab\n"):
        notes.write_text(bad)
        datasets._part.cache_clear()
        with pytest.raises(DataError, match=r"val_annotations\.txt"):
            load_images("tiny-imagenet", 3, part="test", folder=folder)
    notes.write_text(good)
    image = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    image.write_bytes(image.read_bytes()[:40])
    datasets._part.cache_clear()
    with pytest.raises(DataError, match=r"n01_0\.JPEG' cannot be read") as caught:
        load_images("tiny-imagenet", 3, folder=folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"has no files of tiny-imagenet: put train, val, as unpacked"):
        load_images("tiny-imagenet", 3, folder=tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        load_images("tiny-imagenet", 3, folder=folder)
