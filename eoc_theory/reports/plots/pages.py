"""Self-contained pages, without fonts or requests; pictures are svg elements in them."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from html import escape

import matplotlib
from matplotlib.figure import Figure

from ...base.whole_files import check_path, replacing
from ...errors.text import printable_lines

#: Colour of the text, by day and by night.
TEXT = {"#000000": "currentColor"}


def document(title: str, style: str, body: Sequence[str], *, scripts: Sequence[str] = ()) -> str:
    """The page's text, from its style sheet, the lines of its body and the scripts that run behind it.

    No other script can run: the page names the digests of these.
    """
    # As they are written: in a script an escaped control character means the same.
    scripts = [f"\n{printable_lines(script.strip())}\n" for script in scripts]
    digests = (base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = "".join(f" 'sha256-{digest}'" for digest in digests)
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Nothing is loaded, and the page says so itself.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        + (f"; script-src{allowed}" if allowed else "")
        + '">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", *body]
    behind = [f"<script>{script}</script>" for script in scripts]
    return "\n".join([*lines, "</main>", *behind, "</body>", "</html>", ""])


def inline(figure: Figure, label: str, *, prefix: str, salt: str, colours: Mapping[str, str] = TEXT) -> str:
    """The figure as an svg element that stands in a page: own ids, the page's colours, nothing to load.

    Args:
        label: what a screen reader says of it.
        prefix: of its ids; another for each figure of a page.
        salt: of the ids that matplotlib makes.
        colours: as matplotlib writes them, and what takes their place.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"{salt}-{prefix}", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\sxmlns(:\w+)?=\"[^\"]*\"", "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    for colour, variable in colours.items():
        text = text.replace(colour, variable)
    # Glyphs and tick lines have no colour of their own: black is what svg fills with.
    size = re.search(r'viewBox="[^"]*"', text)
    assert size is not None  # matplotlib always writes one
    opening = f'<svg {size.group()} role="img" aria-label="{escape(label)}" fill="currentColor">'
    return opening + text[text.index(">") + 1 :].strip()


def write(path: str | os.PathLike[str], make: Callable[[], str]) -> None:
    """Write the page that `make` gives, once it is clear that it can be written.

    A file that was there before stays until the new one is complete.

    Raises:
        ArgumentError: `path` does not end in .html, or cannot be written.
    """
    target = check_path(path, (".html", ".htm"))
    text = printable_lines(make()).encode()
    with replacing(target) as stream:
        stream.write(text)
