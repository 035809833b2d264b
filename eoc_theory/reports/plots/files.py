"""Write a picture or a page so that the file is either complete or not there."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base import checks
from ...base.whole_files import replacing
from ...errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Formats by suffix, with the metadata that would differ from run to run taken out.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def check_path(path: str | os.PathLike[str], suffixes: tuple[str, ...] = tuple(FORMATS)) -> Path:
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


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure; a picture that was there before stays until the new one is complete.

    Raises:
        ArgumentError: as `check_path`, or the file cannot be written.
    """
    import matplotlib

    target = check_path(path)
    suffix = target.suffix.lower()
    # A fixed salt, and text as text: the same picture gives the same file, which can be searched.
    fixed: Any = {"svg.hashsalt": "eoc-theory", "svg.fonttype": "none", "pdf.fonttype": 42}
    with replacing(target) as stream, matplotlib.rc_context(fixed):
        if suffix != ".svg":
            figure.savefig(stream, format=suffix[1:], metadata=FORMATS[suffix])
            return
        made = BytesIO()
        figure.savefig(made, format="svg", metadata=FORMATS[suffix])
        # Formulas are spaced by characters that editors do not show.
        stream.write(made.getvalue().replace("\xa0".encode(), b"&#160;"))


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG picture for a screen."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=figure.dpi)
    return stream.getvalue()
