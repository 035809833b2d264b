"""``python -m docs.generate [PAGE…] [--update]``: do the pages show what their code prints?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eoc_theory.cli.output import run_command
from eoc_theory.cli.parser import OneLineParser

from .running import PageError, run_page

DOCS = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; exit status 1 where a page shows something else and is not updated."""
    return run_command("docs.generate", lambda: _compare(arguments))


def _compare(arguments: Sequence[str] | None) -> int:
    parser = OneLineParser(
        prog="python -m docs.generate",
        description="Runs the code of the documentation's pages and compares what it prints with what they "
        "show.",
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="all below docs/ without any")
    parser.add_argument("--update", action="store_true", help="write into the pages what their code prints")
    options = parser.parse_args(arguments)
    for path in options.pages:
        if not path.is_file():
            parser.error(f"PAGE must be a file that exists; got {str(path)!r}")
    status = 0
    for path in options.pages or sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        try:
            with tempfile.TemporaryDirectory() as folder:
                differences = run_page(page, str(path), Path(folder))
        except PageError as error:
            print(error, file=sys.stderr)
            status = 1
            continue
        for one in reversed(differences):
            print(f"{path}:{page.count(chr(10), 0, one.start) + 1}: {one}")
            page = page[: one.start] + one.printed.rstrip() + "\n" + page[one.end :]
        if differences and options.update:
            path.write_text(page, encoding="utf-8")
        elif differences:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
