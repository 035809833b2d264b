"""Writing a picture so that the file is either whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Formats by suffix, with the metadata that would differ from run to run taken out.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def check_path(path: str | os.PathLike[str]) -> Path:
    """`path` as a Path that a picture can be written to.

    Raises:
        ArgumentError: the suffix is not .png, .pdf or .svg, or the folder does not exist or is not writable.
    """
    target = Path(path)
    accepted = "a file name that ends in .png, .pdf or .svg"
    if target.suffix.lower() not in FORMATS:
        raise ArgumentError(f"path must be {accepted}, got {str(path)!r}")
    if target.is_dir():
        raise ArgumentError(f"path must be {accepted}, got the folder {str(path)!r}")
    if not target.parent.is_dir():
        raise ArgumentError(f"path must lie in a folder that exists, got {str(path)!r}")
    if not os.access(target.parent, os.W_OK):
        raise ArgumentError(f"path must lie in a folder that can be written to, got {str(path)!r}")
    return target


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure; a picture that was there before stays until the new one is complete.

    Raises:
        ArgumentError: as `check_path`, or the file cannot be written.
    """
    import matplotlib

    target = check_path(path)
    suffix = target.suffix.lower()
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=suffix)
    except OSError as error:
        raise ArgumentError(f"path {str(path)!r} cannot be written: {error.strerror}") from None
    try:
        # A fixed salt and TrueType fonts: the same picture gives the same file, and its text can be searched.
        fixed: Any = {"svg.hashsalt": "eoc-theory", "pdf.fonttype": 42}
        with os.fdopen(handle, "wb") as stream, matplotlib.rc_context(fixed):
            figure.savefig(stream, format=suffix[1:], metadata=FORMATS[suffix])
        # mkstemp's files are for their owner alone; a picture gets what any new file would.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except OSError as error:
        os.unlink(name)
        raise ArgumentError(f"path {str(path)!r} cannot be written: {error.strerror}") from None
    except BaseException:
        os.unlink(name)
        raise
