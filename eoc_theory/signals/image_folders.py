"""Tiny ImageNet from the folders in which it is published.

``train/CLASS/images/*.JPEG`` are the training images of a class, a WordNet number such as n01443537;
``val/images/*.JPEG`` are all validation images, and ``val/val_annotations.txt`` has a line for each: its
name, its class, and a box that is not used. Classes are numbered in the order of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError, MissingDependencyError

EDGE, CLASSES = 64, 200
_SUFFIX = ".JPEG"


def read_tiny_imagenet(folder: Path, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 (images, 3·64·64), channel first, and labels, int64; "test" are the validation images.

    Raises:
        DataError: folders, files or lines that are missing or of another kind.
        MissingDependencyError: no Pillow.
    """
    decode = _decoder()
    classes = sorted(path.name for path in _entries(folder / "train") if path.is_dir())
    if not 2 <= len(classes) <= CLASSES:
        raise DataError(f"{str(folder / 'train')!r} must hold 2 to {CLASSES} folders, got {len(classes)}")
    if part == "train":
        named = [
            (path, number)
            for number, name in enumerate(classes)
            for path in _images(folder / "train" / name / "images")
        ]
    else:
        named = _annotated(folder / "val", {name: number for number, name in enumerate(classes)})
    pixels = np.empty((len(named), 3 * EDGE * EDGE), dtype=np.uint8)
    for row, (path, _) in enumerate(named):
        pixels[row] = decode(path).transpose(2, 0, 1).ravel()
    return pixels, np.array([number for _, number in named], dtype=np.int64)


def _annotated(folder: Path, numbers: dict[str, int]) -> list[tuple[Path, int]]:
    """Each validation image with its class."""
    path = folder / "val_annotations.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise DataError(f"{str(path)!r} cannot be read: {reason}") from None
    named = []
    for line in lines:
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        # A name, no path to anywhere else.
        if label not in numbers or Path(name).name != name or not name:
            raise DataError(f"{str(path)!r} must name an image and a class of train in each line")
        named.append((folder / "images" / name, numbers[label]))
    if not named:
        raise DataError(f"{str(path)!r} names no image")
    return named


def _images(folder: Path) -> list[Path]:
    found = sorted(path for path in _entries(folder) if path.suffix == _SUFFIX)
    if not found:
        raise DataError(f"folder {str(folder)!r} has no {_SUFFIX} files")
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"folder {str(folder)!r} cannot be read: {error.strerror or error}") from None


def _decoder() -> Any:
    """What makes an array (64, 64, 3) of a file."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("data set 'tiny-imagenet' needs Pillow: pip install pillow") from None

    def decode(path: Path) -> np.ndarray:
        try:
            with Image.open(path, formats=("JPEG",)) as image:
                if image.size != (EDGE, EDGE):
                    raise DataError(
                        f"{str(path)!r} must be of {EDGE}×{EDGE} pixels, got {image.size[0]}×{image.size[1]}"
                    )
                # Some are grey.
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{str(path)!r} cannot be read: {' '.join(str(error).split())}") from None

    return decode
