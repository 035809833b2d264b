"""The code of the README and the pages as a user's files: pyright strict and mypy --strict find nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate.blocks import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: What results are, with a single sparsity and with several, and what `plot` returns.
TYPED = """
import matplotlib.axes
import matplotlib.figure
import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import eoc_theory as eoc

Floats = NDArray[np.float64]

net = eoc.mlp(5, 10)
one = eoc.predict_pruning(net, 0.9, method="theory")
assert_type(one.sparsity, float)
assert_type(one.collapse_probability, float)
assert_type(one, eoc.PruningPrediction[float])
for given in ([0.5, 0.9], (0.5, 0.9)):
    several = eoc.predict_pruning(net, given)
    assert_type(several.sparsity, Floats)
    assert_type(several.kept, Floats)
assert_type(eoc.predict_pruning(net, np.linspace(0.0, 0.9, 5)).kept_error, Floats)
assert_type(eoc.compare(net, 0.9).sparsity, float)
assert_type(eoc.compare(net, [0.9]).prediction.sparsity, Floats)
assert_type(eoc.measure_pruning(net.to_torch(), 0.9).sparsity, float)
collapse = eoc.predict_collapse(net, loss="mse")
assert_type(collapse.quantile(0.5), float)
assert_type(collapse.quantile([0.5, 0.9]), Floats)
assert_type(collapse.probability(np.zeros(3)), Floats)
assert_type(one.plot(), matplotlib.figure.Figure)
assert_type(one.plot("kept.png"), matplotlib.figure.Figure)
assert_type(one.plot(ax=one.plot().subplots()), matplotlib.axes.Axes)
assert_type(eoc.CollapsePrediction.from_json(collapse.to_json()), eoc.CollapsePrediction)


def without_parameters(found: eoc.PruningPrediction) -> str:
    return found.criterion
"""

#: Mistakes that types should show, one a line.
WRONG = """
import eoc_theory as eoc

net = eoc.mlp(5, 10)
eoc.predict_pruning(net, 0.9, method="theorie")
eoc.predict_pruning(net, 0.9).sparsity[0]
eoc.predict_collapse(net, dtype="float16")
eoc.measure_pruning(net.to_torch(), 0.9, loss="crossentropy")
eoc.critical_curve("tanh", sigma_b=[0.1]).plot(ax=3)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a file for each page, as a reader would have typed it."""
    folder = tmp_path_factory.mktemp("user")
    written = 0
    for page in PAGES:
        code = [one.text for one in blocks(page.read_text(encoding="utf-8")) if one.language == "python"]
        if code:
            name = (
                page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_").replace("-", "_").lower()
            )
            (folder / f"{name}.py").write_text("\n\n".join(code), encoding="utf-8")
            written += 1
    assert written >= 7
    (folder / "typed.py").write_text(TYPED, encoding="utf-8")
    # The README goes on from a model and data of the reader's own.
    known = "import torch\n\nmodel = torch.nn.Linear(64, 10)\nimages = labels = torch.zeros(8)\n"
    readme = folder / "readme.py"
    readme.write_text(known + readme.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def pyright(folder: Path, *names: str) -> list[str]:
    """The lines at which pyright in its strict mode finds errors."""
    # torch and pandas do not say the types of all their members; that is not for us to mend.
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT)],
        "reportUnknownMemberType": False,
        "reportMissingModuleSource": False,
        "include": list(names) or ["*.py"],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}"
        for one in found
        if one["severity"] == "error"
    ]


def mypy(folder: Path, *names: str) -> list[str]:
    """The lines at which mypy --strict finds errors."""
    # The library is looked at as an installed one is: for its types, not for errors of its own.
    quiet = "[mypy]\nstrict = True\n[mypy-eoc_theory.*,analysis.*]\nfollow_imports = silent\n"
    (folder / "mypy.ini").write_text(quiet, encoding="utf-8")
    chosen = list(names) or sorted(path.name for path in folder.glob("*.py") if path.name != "wrong.py")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", *chosen]
    environment = {"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin", "MYPY_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if ": error:" in line]


CHECKERS = [pytest.param(pyright, id="pyright strict"), pytest.param(mypy, id="mypy --strict")]


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_file_has_no_errors(checker, files):
    pytest.importorskip(checker.__name__)
    assert checker(files, *sorted(path.name for path in files.glob("*.py") if path.name != "wrong.py")) == []


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_shown_where_they_are(checker, files):
    pytest.importorskip(checker.__name__)
    (files / "wrong.py").write_text(WRONG, encoding="utf-8")
    lines = {int(line.split(":")[1]) for line in checker(files, "wrong.py")}
    assert lines == set(range(5, 10))
