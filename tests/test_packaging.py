"""The wheel and the sdist: what they hold, what an index shows of them, and the workflows that build them."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import eoc_theory as eoc

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - pytest brings it
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
#: Targets of Markdown links and pictures, and of HTML's.
TARGETS = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=[\"']([^\"']+)")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """A wheel and an sdist of this checkout."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def metadata(built) -> email.message.Message:
    archive = zipfile.ZipFile(built[0])
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_string(archive.read(name).decode("utf-8"))


def test_wheel_holds_the_library_and_nothing_else(built):
    check = [sys.executable, str(ROOT / ".ci" / "check_wheel.py"), str(built[0])]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(built[0]).namelist())
    assert {"eoc_theory/py.typed", "eoc_theory/reports/explorer/theory.js"} <= names


def test_version_is_said_once(metadata):
    assert metadata["Version"] == eoc.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == eoc.__version__
    recipe = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    assert re.search(r'version: "(.+)"', recipe)[1] == eoc.__version__


def test_long_description_links_to_what_there_is(metadata):
    text = metadata.get_payload()
    targets = [first or second for first, second in TARGETS.findall(text)]
    inside = [target for target in targets if target.startswith(REPOSITORY)]
    assert len(inside) >= 8
    for target in targets:
        assert re.match(r"https?://|#", target), f"{target} is relative"
    for target in inside:
        kind, tag, path = re.fullmatch(
            rf"{re.escape(REPOSITORY)}/(\w+)/([^/]+)/([^#]+)(?:#.*)?", target
        ).groups()
        assert tag == f"v{eoc.__version__}" and (ROOT / path).is_file(), target
        assert kind == ("raw" if path.endswith((".png", ".svg")) else "blob")
    # All but the links is the README as it stands.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TARGETS.sub("", text).strip() == TARGETS.sub("", readme).strip()


def test_links_of_the_project_follow_from_one_line(metadata):
    links = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    assert {"Documentation", "Repository", "Changelog", "Issues"} <= set(links)
    assert all(link.startswith(REPOSITORY) for link in links.values())
    holders = subprocess.run(
        ["grep", "-rlI", "--exclude-dir=.git", REPOSITORY, "."], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert "./pyproject.toml" in holders
    assert {Path(name).name for name in holders} <= {"pyproject.toml", "METADATA", "PKG-INFO"}


def test_classifiers_name_the_pythons_that_are_tested(metadata):
    named = {
        found[1]
        for line in metadata.get_all("Classifier")
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    }
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    tested = set(re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.+)\]", workflow)[1]))
    assert named == tested == {"3.10", "3.11", "3.12", "3.13", "3.14"}
    assert f">={min(named, key=lambda one: int(one[2:]))}" == metadata["Requires-Python"]


def test_workflow_does_what_ci_does():
    """Every `make` target and every check of .ci/run is a step of the workflow."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z-]+)", script, re.MULTILINE)) - {"install-dev"}
    assert {"lint", "typecheck", "test", "demo", "docs"} <= targets
    for target in targets:
        assert f"- run: make {target}\n" in workflow, target
    for check in ("twine check --strict", ".ci/check_wheel.py"):
        assert check in script and check in workflow
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    for target in re.findall(r"make (?:--directory \w+ )?([a-z-]+)", workflow + release):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "id-token: write" in release and "password" not in release


def test_environments_cover_every_extra():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    names = re.search(r"name: \[(none, .+)\]", workflow)[1].split(", ")
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"dev", "docs"}
    assert extras <= set(names) and {"none", "lowest", "lowest-torch"} <= set(names)
    smoke = (ROOT / ".ci" / "smoke.py").read_text(encoding="utf-8")
    for extra in extras:
        assert f"\ndef {extra}() -> None:" in smoke, extra


def test_conda_recipe_asks_for_what_the_wheel_asks_for():
    recipe = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    for dependency in PROJECT["project"]["dependencies"]:
        name, version = dependency.split(">=")
        name = "matplotlib-base" if name == "matplotlib" else name
        assert f"- {name} >={version}\n" in recipe, dependency


@pytest.mark.slow
def test_tests_of_the_sdist_collect(built, tmp_path):
    """Unpacked, with nothing of the checkout in reach; and some of them pass."""
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}

    def pytest_there(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done.stdout

    def count(text: str) -> int:
        return int(re.search(r"(\d+)(?:/\d+)? tests collected", text)[1])

    there = pytest_there("--collect-only", "-p", "no:randomly")
    assert count(there) > 1000
    pytest_there(
        "tests/test_house.py", "tests/mean_field/test_gain.py", "tests/docs/test_docs.py", "-m", "not slow"
    )
