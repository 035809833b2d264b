"""Write a picture or a page so that the file is either complete or not there."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ...base.whole_files import check_path, replacing

#: What would differ from run to run in each format, taken out.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure; a picture that was there before stays until the new one is complete.

    Raises:
        ArgumentError: as `check_path`, or the file cannot be written.
    """
    target = check_path(path)
    suffix = target.suffix.lower()
    # A fixed salt, and text as text: the same picture gives the same file, which can be searched.
    fixed: Any = {"svg.hashsalt": "eoc-theory", "svg.fonttype": "none", "pdf.fonttype": 42}
    with replacing(target) as stream, matplotlib.rc_context(fixed):
        if suffix != ".svg":
            figure.savefig(stream, format=suffix[1:], metadata=_METADATA[suffix])
            return
        made = BytesIO()
        figure.savefig(made, format="svg", metadata=_METADATA[suffix])
        # Formulas are spaced by characters that editors do not show.
        stream.write(made.getvalue().replace("\xa0".encode(), b"&#160;"))


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG picture for a screen."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=figure.dpi)
    return stream.getvalue()
