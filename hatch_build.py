"""Metadata that follows from one line: where the repository lies.

``[tool.hatch.metadata.hooks.custom] repository`` in pyproject.toml is the one place that a publisher fills
in. From it come the project's links, and those of the README, which on a package index must be absolute.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A link or a picture of Markdown: what stands before its target, the target, what stands behind.
LINK = re.compile(r"(!?)(\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\])\(([^)\s]+)\)")
CODE = re.compile(r"(```.*?```)", re.DOTALL)


class Metadata(MetadataHookInterface):
    """Fills in `urls` and `readme`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the project's table."""
        repository = self.config["repository"].rstrip("/")
        tag = f"v{_version(Path(self.root))}"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["urls"] = urls(repository, self.config.get("documentation"))
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": long_description(text, repository, tag),
        }


def urls(repository: str, documentation: str | None) -> dict[str, str]:
    """The links that an index shows beside the description."""
    return {
        "Documentation": documentation or f"{repository}/tree/main/docs",
        "Repository": repository,
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def long_description(text: str, repository: str, tag: str) -> str:
    """The README with absolute links: files as the repository shows them at the tag, pictures as they are."""

    def absolute(match: re.Match[str]) -> str:
        picture, shown, target = match.groups()
        shown = LINK.sub(absolute, shown)
        if re.match(r"[a-z]+:|#", target):
            return f"{picture}{shown}({target})"
        return f"{picture}{shown}({repository}/{'raw' if picture else 'blob'}/{tag}/{target})"

    parts = CODE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(absolute, part) for part in parts)


def _version(root: Path) -> str:
    found = re.search(
        r'__version__ = "(.+)"', (root / "eoc_theory/base/version.py").read_text(encoding="utf-8")
    )
    if found is None:
        raise ValueError("eoc_theory/base/version.py names no version")
    return found[1]
