"""Files that are either complete or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import ArgumentError
from . import checks

#: Suffixes of the formats of pictures.
PICTURES = (".png", ".pdf", ".svg")


def check_path(path: str | os.PathLike[str], suffixes: tuple[str, ...] = PICTURES) -> Path:
    """`path` as a Path that a picture, or what else has one of the `suffixes`, can be written to.

    Raises:
        ArgumentError: another suffix, or the folder does not exist or is not writable.
    """
    target = checks.path("path", path)
    listed = " or ".join([", ".join(suffixes[:-1]), suffixes[-1]] if len(suffixes) > 1 else suffixes)
    accepted = f"a file name that ends in {listed}"
    if target.suffix.lower() not in suffixes:
        raise ArgumentError(f"path must be {accepted}, got {checks.shown(str(path))}")
    if target.is_dir():
        raise ArgumentError(f"path must be {accepted}, got the folder {checks.shown(str(path))}")
    if not target.parent.is_dir():
        raise ArgumentError(f"path must lie in a folder that exists, got {checks.shown(str(path))}")
    if not os.access(target.parent, os.W_OK):
        raise ArgumentError(
            f"path must lie in a folder that can be written to, got {checks.shown(str(path))}"
        )
    return target


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file `target` when all of it was written.

    Raises:
        ArgumentError: the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    except OSError as error:
        raise ArgumentError(f"path {str(target)!r} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        # mkstemp's files are for their owner alone; this one gets what any new file would.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except OSError as error:
        os.unlink(name)
        raise ArgumentError(f"path {str(target)!r} cannot be written: {error.strerror}") from None
    except BaseException:
        os.unlink(name)
        raise
