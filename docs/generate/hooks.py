"""MkDocs' hooks: pages are run for the pictures they make, and marks are filled."""

from __future__ import annotations

import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger  # pyright: ignore[reportMissingImports]
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # pragma: no cover - `mkdocs` does not, `python -m mkdocs` does
    sys.path.insert(0, str(ROOT))

from docs.generate.generated import fill  # noqa: E402
from docs.generate.notebooks import TUTORIALS, as_page, read, repository  # noqa: E402
from docs.generate.running import run_page  # noqa: E402

log = get_plugin_logger("docs.generate")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds the kept figures, and what the pages' code writes."""
    from figures.registry import FIGURES

    for one in FIGURES:
        for suffix in (".png", ".pdf"):
            name = f"{one.name}{suffix}"
            source = str(ROOT / "figures" / name)
            files.append(File.generated(config, f"figures/{name}", abs_src_path=source))
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        page, pictures = as_page(path.stem, read(path), repository())
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    for page in list(files.documentation_pages()):
        if page.src_uri.startswith("tutorials/"):
            continue  # run by the tests
        for name, content in _made(page.src_uri, page.content_string):
            folder = page.src_uri.rpartition("/")[0]
            uri = f"{folder}/{name}" if folder else name
            files.append(File.generated(config, uri, content=content))
    return files


def on_post_build(config: Any, **_: Any) -> None:
    """Writes the explorer beside the page that links to it."""
    from eoc_theory.reports.explorer import write_explorer

    write_explorer(Path(config["site_dir"]) / "explorer-page.html")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills the marks."""
    return fill(markdown)


@lru_cache(maxsize=64)  # `mkdocs serve` comes by again whenever a page is saved.
def _made(name: str, page: str) -> tuple[tuple[str, bytes], ...]:
    """The files that a page's code writes, by name; a warning where it shows what is not so."""
    with tempfile.TemporaryDirectory() as folder:
        for difference in run_page(page, name, Path(folder)):
            log.warning("%s does not show what its code prints\n%s", name, difference)
        written = [
            path for path in sorted(Path(folder).iterdir()) if path.suffix in (".png", ".html", ".svg")
        ]
        return tuple((path.name, path.read_bytes()) for path in written)
