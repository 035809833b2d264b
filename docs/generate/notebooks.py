"""The tutorials: notebooks that are kept with what they print, run again by the tests, and shown as pages.

``python -m docs.generate.notebooks [NOTEBOOK …] [--update]`` runs them and compares what they print with what
they hold; ``--update`` writes it into them, pictures too.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eoc_theory.cli.output import run_command
from eoc_theory.cli.parser import OneLineParser

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
#: Seconds that a cell may take.
LONGEST = 600
INSTALL = "%pip install"

Notebook = dict[str, Any]


def read(path: Path) -> Notebook:
    """A notebook as it is kept."""
    return json.loads(path.read_text(encoding="utf-8"))


def run(notebook: Notebook) -> Notebook:
    """The notebook with what its cells give in a fresh kernel; cells that install are for elsewhere.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    made: Any = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for cell in made.cells:
        if cell.cell_type == "code" and cell.source.startswith(INSTALL):
            cell.metadata["tags"] = ["skip-execution"]
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            made, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        # This checkout's package, whatever is installed.
        path = os.pathsep.join(filter(None, [str(TUTORIALS.parents[1]), os.environ.get("PYTHONPATH")]))
        client.execute(env={**os.environ, "PYTHONPATH": path})
    return json.loads(json.dumps(made))


def printed(notebook: Notebook) -> list[str]:
    """What each code cell shows as text; of a picture that there is one."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            parts = [_text(output) for output in cell["outputs"]]
            found.append("".join(part for part in parts if part))
    return found


def _text(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _joined(output["text"]) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    return "<picture>\n" if "image/png" in data else _joined(data.get("text/plain", ""))


def _joined(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def stripped(notebook: Notebook) -> Notebook:
    """The notebook as it is kept: without counts, times and identities, which differ from run to run."""
    cells = []
    for cell in notebook["cells"]:
        kept = {"cell_type": cell["cell_type"], "metadata": {}, "source": _joined(cell["source"])}
        if cell["cell_type"] == "code":
            outputs = [dict(output) for output in cell["outputs"] if output.get("name") != "stderr"]
            for output in outputs:
                if "execution_count" in output:
                    output["execution_count"] = None
            kept |= {"execution_count": None, "outputs": outputs}
        cells.append(kept)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def repository() -> str:
    """Where pyproject.toml says that the repository lies."""
    text = (TUTORIALS.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^repository = "(.+)"', text, re.MULTILINE)
    assert found is not None  # the packaging tests hold it
    return found[1]


def as_page(name: str, notebook: Notebook, repository: str) -> tuple[str, dict[str, bytes]]:
    """A page in Markdown, and its pictures by file name."""
    pictures: dict[str, bytes] = {}
    parts = list(_parts(name, notebook, pictures))
    owner = re.sub(r"^https://github\.com/", "", repository)
    colab = f"https://colab.research.google.com/github/{owner}/blob/main/docs/tutorials/{name}.ipynb"
    links = f"[Open in Colab]({colab}) · [Notebook]({name}.ipynb)"
    # Behind the title.
    return "\n\n".join([parts[0], links, *parts[1:]]) + "\n", pictures


def _parts(name: str, notebook: Notebook, pictures: dict[str, bytes]) -> Iterator[str]:
    for cell in notebook["cells"]:
        source = _joined(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            title, _, rest = source.partition("\n\n") if source.startswith("# ") else (source, "", "")
            yield title
            if rest:
                yield rest
            continue
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(_joined(data["image/png"]))
                yield f"![What the code above draws]({file})"
            elif text := _text(output).rstrip():
                yield f"```text\n{text}\n```"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; exit status 1 where a notebook holds something else and is not updated."""
    return run_command("docs.generate.notebooks", lambda: _compare(arguments))


def _compare(arguments: Sequence[str] | None) -> int:
    parser = OneLineParser(prog="python -m docs.generate.notebooks", description="Runs the tutorials.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="all without any")
    parser.add_argument("--update", action="store_true", help="write into them what their code shows")
    options = parser.parse_args(arguments)
    status = 0
    for path in options.notebooks or sorted(TUTORIALS.glob("*.ipynb")):
        kept = read(path)
        made = run(kept)
        if options.update:
            text = json.dumps(stripped(made), indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
        elif printed(made) != printed(kept):
            print(f"{path} does not show what its code gives", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
