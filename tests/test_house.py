"""The layout: few names at the root, imports downwards, no files in circles, steps upwards by name."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import eoc_theory
from eoc_theory.base.upward import STEPS, upward

PACKAGE = Path(eoc_theory.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(name: str, path: Path) -> set[str]:
    """Every module of the package that a file imports: at its top, inside functions, for types alone."""
    found = set()
    own = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found |= {full} if full in FILES else {source} & FILES.keys()
    return found - {name}


def test_no_file_is_in_a_circle_with_others():
    graph = defaultdict(set, {name: imported(name, path) for name, path in FILES.items()})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(reversed(error.args[1]))}")


def test_the_root_holds_few_names():
    names = {path.relative_to(PACKAGE).parts[0] for path in FILES.values()}
    assert len(names) <= 16


def test_steps_upwards_lead_somewhere_and_are_all_used():
    pytest.importorskip("torch")
    for step in STEPS:
        assert callable(upward(step)), step
    text = "".join(path.read_text(encoding="utf-8") for path in FILES.values())
    for step in STEPS:
        used = f'upward("{step}")' in text or (step.endswith(".plot") and "class Drawable" in text)
        assert used, step


def test_nothing_else_imports_by_name():
    """Modules that are found by a computed name are steps upwards, or a register's."""
    allowed = {"eoc_theory", "eoc_theory.base.upward", "eoc_theory.criteria"}
    for name, path in FILES.items():
        if name in allowed or name.startswith("eoc_theory.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                assert "eoc_theory" not in ast.unparse(node), name


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_module_says_what_it_is(name):
    if not name.endswith("__main__"):
        assert (import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_cache_has_a_bound(name):
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        for decorator in getattr(node, "decorator_list", ()):
            text = ast.unparse(decorator)
            if text.rpartition(".")[2].partition("(")[0] in ("cache", "lru_cache"):
                assert re.fullmatch(r"lru_cache\(maxsize=\d+\)", text), f"{node.name}: {text}"


#: Tokens that are no code.
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> dict[str, int]:
    """Lines of each function, its signature included, without docstring, comments and blank lines."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {line for t in tokens if t.type not in _NO_CODE for line in range(t.start[0], t.end[0] + 1)}
    functions = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            told = ast.get_docstring(node) is not None
            docs = set(range(first.lineno, (first.end_lineno or 0) + 1)) if told else set()
            lines = code.intersection(range(node.lineno, (node.end_lineno or 0) + 1)) - docs
            functions[f"{node.name}:{node.lineno}"] = len(lines)
    return functions


def test_lines_of_code_are_counted():
    body = '    """Told\n\n    more."""\n\n    # why\n    def g():\n        return a\n    return g\n'
    text = f"def f(\n    a,\n):\n{body}"
    assert code_lines(text) == {"f:1": 6, "g:9": 2}


@pytest.mark.parametrize(
    "folder", [PACKAGE.name, "analysis", "benchmarks", "docs", "figures", "paper_checks", "tests"]
)
def test_functions_fit_a_screen(folder):
    """At most 60 lines of code."""
    long = {
        f"{path.name}:{at}": count
        for path in (PACKAGE.parent / folder).rglob("*.py")
        for at, count in code_lines(path.read_text(encoding="utf-8")).items()
        if count > 60
    }
    assert not long
