"""Image sets that pruning is studied on: MNIST, Fashion-MNIST, CIFAR-10 and -100, Tiny ImageNet, digits.

They come from OpenML through scikit-learn, which keeps them in its cache, or from a folder that holds them in
the formats in which they are published: the IDX files of MNIST and Fashion-MNIST, the binary versions of
CIFAR-10 and CIFAR-100, and Tiny ImageNet's folders of JPEG files (`image_folders`). The last two are read
from a folder only. The Python versions of CIFAR are pickled, and are not read: unpickling runs whatever a
file says.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..errors import DataError, MissingDependencyError
from .data import all_digits, balanced_choice
from .image_folders import read_tiny_imagenet

Part = Literal["train", "test"]

#: Images in one file, at most: what a damaged header may make us ask memory for.
_MOST_IMAGES = 1_000_000
#: Rows whose moments are summed at a time.
_ROWS = 4096


@dataclass(frozen=True)
class ImageSet:
    """A published image set.

    Attributes:
        name: what it is called here.
        shape: (C, H, W) of an image.
        openml: its name on OpenML, version 1; its rows are the training part, then the test part. None: it is
            read from a folder only.
        test: images of the test part.
        files: names of the files (or folders) of each part, images before labels where they are apart.
        folders: where in a folder they may lie, beside the folder itself.
        classes: number of labels.
        labels: bytes of labels before each image, of CIFAR; the last is the class.
    """

    name: str
    shape: tuple[int, int, int]
    openml: str | None
    test: int
    files: dict[str, tuple[str, ...]]
    folders: tuple[str, ...]
    classes: int = 10
    labels: int = 0

    @property
    def features(self) -> int:
        """Entries of an image."""
        return math.prod(self.shape)


_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SETS = {
    one.name: one
    for one in (
        ImageSet("mnist", (1, 28, 28), "mnist_784", 10_000, _IDX_FILES, ("mnist", "MNIST/raw")),
        ImageSet(
            "fashion-mnist", (1, 28, 28), "Fashion-MNIST", 10_000, _IDX_FILES,
            ("fashion-mnist", "FashionMNIST/raw"),
        ),
        ImageSet(
            "cifar10", (3, 32, 32), "CIFAR_10", 10_000,
            {
                "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
                "test": ("test_batch.bin",),
            },
            ("cifar10", "cifar-10-batches-bin"),
            labels=1,
        ),
        ImageSet(
            "cifar100", (3, 32, 32), None, 10_000, {"train": ("train.bin",), "test": ("test.bin",)},
            ("cifar100", "cifar-100-binary"), classes=100, labels=2,
        ),
        ImageSet(
            "tiny-imagenet", (3, 64, 64), None, 10_000, {"train": ("train",), "test": ("val",)},
            ("tiny-imagenet", "tiny-imagenet-200"), classes=200,
        ),
    )
}  # fmt: skip
#: What `load_images` knows.
NAMES = ("digits", *SETS)


def classes_of(name: str) -> int:
    """Number of labels of a set; 10 of digits, and of uncorrelated inputs."""
    return SETS[name].classes if name in SETS else 10


@public
def load_images(
    name: str,
    n: int | None = 100,
    *,
    part: Part = "train",
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` images of a set, equally many from each class, standardised over its training part.

    Every entry (pixel and channel) is centred by its mean over the whole training part, and one scale makes
    the mean squared entry there 1, as in `eoc_theory.digits`. So a network sees inputs of mean 0 and second
    moment 1, like the random inputs that stand in for data. Means and scale do not depend on which images
    are chosen, and the test part uses those of the training part.

    Args:
        name: "digits" (1×8×8, embedded in scikit-learn), "mnist", "fashion-mnist" (1×28×28), "cifar10",
            "cifar100" (3×32×32, a hundred classes) or "tiny-imagenet" (3×64×64, two hundred; its validation
            images are the test part).
        n: number of images. The images of each class are the first of a shuffle under `seed`; classes
            alternate. None: all of the part, in the set's own order.
        part: "train" or "test"; digits have only the former.
        seed: of the choice.
        folder: where the files lie, as published, gzipped or not: train-images-idx3-ubyte and so on,
            data_batch_1.bin and so on, the folders train and val of Tiny ImageNet; here, or in a folder below
            called as the set is (mnist, cifar-10-batches-bin …). None: from OpenML, or scikit-learn's cache
            of it; CIFAR-100 and Tiny ImageNet take a folder.
        cache: scikit-learn's `data_home`, where downloads are kept (about 15 MB for MNIST, 30 MB for
            Fashion-MNIST, 650 MB for CIFAR-10). None: its own default.

    Returns:
        inputs of shape (n, C, H, W), float64, and targets of shape (n,), int64.

    Raises:
        ArgumentError: an unknown name or part, or more images than there are. DataError: files that are
            missing, damaged or of another set; or nothing in the cache and no network; the message says what
            to do.
        MissingDependencyError: no scikit-learn, or no Pillow for Tiny ImageNet.
    """
    checks.one_of("name", name, NAMES)
    if name == "digits":
        checks.one_of("part of digits", part, ("train",))
        inputs, labels = all_digits()
        at = np.arange(len(labels)) if n is None else balanced_choice(labels, n, seed, name)
        return inputs[at].reshape(-1, 1, 8, 8), labels[at]
    checks.one_of("part", part, ("train", "test"))
    chosen = SETS[name]
    places = tuple(
        None if place is None else os.path.abspath(checks.path(option, place))
        for option, place in (("folder", folder), ("cache", cache))
    )
    train = _part(chosen.name, "train", *places)
    pixels, labels = train if part == "train" else _part(chosen.name, part, *places)
    at = np.arange(len(labels)) if n is None else balanced_choice(labels, n, seed, name)
    mean, scale = _moments(chosen.name, *places)
    inputs = (pixels[at] - mean) / scale
    return inputs.reshape(-1, *chosen.shape), labels[at]


# A study asks for batches of one set again and again.
@lru_cache(maxsize=4)
def _part(name: str, part: Part, folder: str | None, cache: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (images, features), channel first, and labels, int64."""
    chosen = SETS[name]
    if folder is None:
        if chosen.openml is None:
            raise DataError(f"data set {name!r} is read from a folder: {_what_to_do(chosen)}")
        pixels, labels = _openml(name, cache)
        rows = slice(None, -chosen.test) if part == "train" else slice(-chosen.test, None)
        return pixels[rows], labels[rows]
    paths = _found_files(chosen, part, Path(folder))
    if name == "tiny-imagenet":
        return read_tiny_imagenet(paths[0].parent, part)
    if chosen.labels:
        batches = [_read_cifar(path, chosen) for path in paths]
        pixels = np.concatenate([images for images, _ in batches])
        return pixels, np.concatenate([labels for _, labels in batches])
    return _read_mnist(*paths)


@lru_cache(maxsize=4)
def _moments(name: str, folder: str | None, cache: str | None) -> tuple[np.ndarray, float]:
    """Each entry's mean over the training part, and the root mean square of what is left.

    Sums of whole numbers: exact, whatever their order.
    """
    pixels, _ = _part(name, "train", folder, cache)
    total = np.zeros(pixels.shape[1], dtype=np.int64)
    squares = 0
    for start in range(0, len(pixels), _ROWS):
        rows = pixels[start : start + _ROWS].astype(np.int64)
        total += rows.sum(axis=0)
        squares += int((rows**2).sum())
    count = len(pixels)
    # Python's whole numbers: N Σx² outgrows 64 bits.
    left = count * squares - sum(int(t) ** 2 for t in total)
    if left == 0:
        raise DataError(f"images of {name!r} are all the same: there is nothing to see")
    return total / count, math.sqrt(left / pixels.shape[1]) / count


# --- from OpenML --------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _openml(name: str, cache: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a data set from OpenML."""
    try:
        from sklearn.datasets import fetch_openml
    except ImportError:
        raise MissingDependencyError(
            f"data set {name!r} needs scikit-learn: pip install 'eoc-theory[data]'"
        ) from None
    chosen = SETS[name]
    assert chosen.openml is not None
    try:
        with warnings.catch_warnings():
            # Of each attempt that fails; what comes of the last is told below.
            warnings.filterwarnings("ignore", "A network error occurred", UserWarning)
            found: Any = fetch_openml(
                chosen.openml, version=1, as_frame=False, parser="auto", data_home=cache, cache=True
            )
    except (OSError, ValueError, KeyError, EOFError, zlib.error) as error:
        # A refused or broken connection, a damaged download (scikit-learn: ValueError), no such set.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"data set {name!r} cannot be had from OpenML ({reason[:200]}); without a network, "
            f"{_what_to_do(chosen)}"
        ) from None
    values, labels = np.asarray(found.data), np.asarray(found.target)
    if values.ndim != 2 or values.shape[1] != chosen.features or len(values) <= chosen.test:
        raise DataError(
            f"data set {name!r} from OpenML must be more than {chosen.test} images of {chosen.features} "
            f"entries, got an array of shape {values.shape}: empty the cache and try again"
        )
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"data set {name!r} from OpenML must hold pixels 0 to 255: empty the cache")
    return values.astype(np.uint8), _checked_labels(labels.astype(np.int64), name)


def _what_to_do(chosen: ImageSet) -> str:
    """Which files to put where."""
    names = [*chosen.files["train"], *chosen.files["test"]]
    packed = ", the binary version," if chosen.labels else " (gzipped or not)"
    if chosen.name == "tiny-imagenet":
        packed = ", as unpacked from tiny-imagenet-200.zip,"
    return f"put {', '.join(names)}{packed} into a folder and name it: folder=, or --data-folder"


# --- from a folder ------------------------------------------------------------------------------------------


def _found_files(chosen: ImageSet, part: Part, folder: Path) -> list[Path]:
    """The files of a part."""
    wanted = chosen.files[part]
    for place in (folder, *(folder / below for below in chosen.folders)):
        found = [_variant(place, name) for name in wanted]
        if all(found):
            return [path for path in found if path is not None]
        missing = [name for name, path in zip(wanted, found, strict=True) if path is None]
        if len(missing) < len(wanted):
            raise DataError(f"folder {str(place)!r} has no {missing[0]} of {chosen.name}")
    number = chosen.name.removeprefix("cifar")
    pickled = [folder, folder / f"cifar-{number}-batches-py", folder / f"cifar-{number}-python"]
    first = "data_batch_1" if number == "10" else "train"
    if chosen.labels and any((place / first).is_file() for place in pickled):
        raise DataError(
            f"folder {str(folder)!r} holds the Python version of CIFAR-{number}, which is pickled and not "
            f"read (unpickling runs code): get the binary version, cifar-{number}-binary.tar.gz"
        )
    raise DataError(f"folder {str(folder)!r} has no files of {chosen.name}: {_what_to_do(chosen)}")


def _variant(place: Path, name: str) -> Path | None:
    """The file under one of the names that it goes by."""
    for spelled in (name, name.replace("-idx", ".idx")):
        for path in (place / spelled, place / f"{spelled}.gz"):
            if path.is_file() or (path.is_dir() and path.suffix == ""):
                return path
    return None


def _read_mnist(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels = _read_idx(images, (28, 28)).reshape(-1, 28 * 28)
    targets = _read_idx(labels, ())
    if len(pixels) != len(targets):
        raise DataError(f"{str(images)!r} has {len(pixels)} images, {str(labels)!r} {len(targets)} labels")
    return pixels, _checked_labels(targets.astype(np.int64), str(labels))


def _read_idx(path: Path, item: Sequence[int]) -> np.ndarray:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, their extents, the entries."""
    axes = 1 + len(item)
    header = 4 + 4 * axes
    with _opened(path) as file:
        start = _bytes(file, header, path)
        if len(start) < header or start[:4] != bytes((0, 0, 8, axes)):
            raise DataError(f"{str(path)!r} is not an IDX file of bytes with {axes} axes")
        count, *extents = struct.unpack(f">{axes}I", start[4:])
        if tuple(extents) != tuple(item) or not 0 < count <= _MOST_IMAGES:
            raise DataError(f"{str(path)!r} must hold items of shape {tuple(item)}, got {count} of {extents}")
        size = count * math.prod(item)
        # One more, to see whether there is more.
        content = _bytes(file, size + 1, path)
    if len(content) != size:
        more = "more" if len(content) > size else f"{len(content)}"
        raise DataError(f"{str(path)!r} is damaged: its header says {size} bytes, it has {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(count, *item)


def _read_cifar(path: Path, chosen: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """A file of a binary version: the labels (CIFAR-100: coarse, fine), then 1024 bytes of each colour."""
    record = chosen.labels + chosen.features
    with _opened(path) as file:
        content = _bytes(file, _MOST_IMAGES * record // 10 + 1, path)
    if not content or len(content) % record:
        raise DataError(
            f"{str(path)!r} is damaged or not of {chosen.name}'s binary version: {len(content)} bytes are no "
            f"multiple of {record}"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    labels = rows[:, chosen.labels - 1].astype(np.int64)
    return rows[:, chosen.labels :], _checked_labels(labels, str(path), chosen.classes)


def _opened(path: Path) -> Any:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _bytes(file: Any, size: int, path: Path) -> bytes:
    try:
        return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be read: {' '.join(str(error).split())}") from None


def _checked_labels(labels: np.ndarray, where: str, classes: int = 10) -> np.ndarray:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels of {where!r} must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels
