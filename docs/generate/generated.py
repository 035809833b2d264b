"""What pages show of the registries and the parsers, so that it cannot fall behind them.

A page says where with a line such as ``<!-- generated: figures -->``.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from .invoking import parser_of

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
#: Columns of the help texts.
WIDTH = 82
COMMANDS = (
    ("eoc",),
    ("python", "-m", "paper_checks"),
    ("python", "-m", "analysis"),
    ("python", "-m", "figures"),
)


def fill(page: str) -> str:
    """A page with what its marks stand for.

    Raises:
        KeyError: a mark that is none of `GENERATED`.
    """
    return MARK.sub(lambda mark: GENERATED[mark[1]](), page)


@cache
def figures() -> str:
    """Each figure with its caption, its origin and the command that draws it."""
    from figures.figure import FigureScript, StudyFigure
    from figures.registry import FIGURES

    def section(one: FigureScript | StudyFigure) -> str:
        picture = f"[![{_attribute(one.caption)}](figures/{one.name}.png)](figures/{one.name}.png)"
        kept = f"`figures/{one.data.parent.name}/{one.data.name}`"
        if isinstance(one, StudyFigure):
            source = f"Drawn from the study `{one.study.name}`, kept in {kept}."
        else:
            source = f"Drawn from arrays kept in {kept}."
        source += f" As [PDF](figures/{one.name}.pdf)."
        return _section(one.name, "python -m figures", picture, one.caption, source)

    return "\n".join(map(section, FIGURES))


@cache
def claims() -> str:
    """A table of the claims and the verdicts on record, by groups; then each with how it is checked."""
    from paper_checks.registry import CLAIMS

    table = ""
    for group, some in groupby(CLAIMS, key=lambda one: one.group):
        table += f"| {group} | verdict on record |\n|---|---|\n"
        table += "".join(f"| [{one.name}](#{one.name}) | {one.recorded.value} |\n" for one in some) + "\n"
    sections = [
        _section(
            one.name,
            "python -m paper_checks",
            f"**Claim.** {_text(one.statement)}",
            f"**Wording:** {_text(one.wording)}.",
            f"**Check.** {_text(one.method)}",
            f"**Verdict on record:** {one.recorded.value}.",
        )
        for one in CLAIMS
    ]
    return "\n".join([table, *sections])


@cache
def studies() -> str:
    """A table of the studies."""
    from analysis.studies import STUDIES

    rows = ["| study | what for | tasks | with `--quick` |\n|---|---|---:|---:|\n"]
    for one in STUDIES.values():
        whole, quick = (len(list(form.tasks())) for form in (one, one.quick()))
        rows.append(f"| `{one.name}` | {_text(one.about)} | {whole} | {quick} |\n")
    return "".join(rows)


@cache
def activations() -> str:
    """The names of the activations that are built in."""
    from eoc_theory import activation_names

    return ", ".join(f"`{name}`" for name in activation_names()) + "\n"


@cache
def criteria() -> str:
    """A table of the built-in criteria: the score, and the options with their defaults."""
    from eoc_theory import criterion
    from eoc_theory.criteria import criterion_names
    from eoc_theory.criteria.criterion import Adapted

    rows = ["| criterion | score | options |\n|---|---|---|\n"]
    for name in criterion_names():
        made = criterion(name)
        own = type(made).__module__.startswith("eoc_theory.criteria.") and not isinstance(made, Adapted)
        if not own or not is_dataclass(made):
            continue  # it was registered from outside
        score = _text((type(made).__doc__ or "").partition("\n\n")[0])
        options = ", ".join(f"`{one.name}={getattr(made, one.name):g}`" for one in fields(made))
        rows.append(f"| `{name}` | {score} | {options} |\n")
    return "".join(rows)


@cache
def help_texts() -> str:
    """Every command and sub-command with what its --help prints."""
    parts = []
    for command in COMMANDS:
        for name, parser in _parsers(" ".join(command), parser_of(command)):
            level = "##" if name == " ".join(command) else "###"
            parts.append(f"{level} `{name}`\n\n```text\n{_help(parser)}```\n")
    return "\n".join(parts)


@cache
def upward() -> str:
    """A table of the steps upwards: the method, and the function that it calls."""
    from eoc_theory.base.upward import STEPS

    rows = ["| method or argument | calls |\n|---|---|\n"]
    rows += [f"| `{method}` | `{target.replace(':', '.')}` |\n" for method, target in STEPS.items()]
    return "".join(rows)


@cache
def caches() -> str:
    """A table of what the package remembers between calls: the function, what it gives, how many of these."""
    import eoc_theory

    root = Path(eoc_theory.__file__).parent
    rows = ["| function | gives | remembered at most |\n|---|---|---:|\n"]
    for path in sorted(root.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            decorators = " ".join(map(ast.unparse, function.decorator_list))
            for bound in re.findall(r"lru_cache\(maxsize=(\d+)\)", decorators):
                place = ".".join([*path.relative_to(root).with_suffix("").parts, function.name])
                gives = _text((ast.get_docstring(function) or "").partition("\n\n")[0])
                rows.append(f"| `{place}` | {gives} | {bound} |\n")
    return "".join(rows)


GENERATED: dict[str, Callable[[], str]] = {
    "figures": figures,
    "claims": claims,
    "studies": studies,
    "activations": activations,
    "criteria": criteria,
    "help": help_texts,
    "upward": upward,
    "caches": caches,
}


def _parsers(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and those of its sub-commands, with the words that call them."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from _parsers(f"{name} {word}", inner)


def _help(parser: argparse.ArgumentParser) -> str:
    with _columns(WIDTH):
        return parser.format_help()


@contextmanager
def _columns(width: int) -> Iterator[None]:
    """A terminal of that width, which argparse asks the environment for."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _section(name: str, command: str, *paragraphs: str) -> str:
    """What a page says of one thing, under its title, and the command that makes it."""
    title = f"## {_title(name)} {{ #{name} }}"
    return "\n\n".join([title, *paragraphs, f"```console\n$ {command} {name}\n```\n"])


def _title(name: str) -> str:
    words = re.sub(r"[-_]", " ", name)
    return words[:1].upper() + words[1:]


def _text(text: str) -> str:
    """Plain text as Markdown: no sign of it is markup, one line."""
    return re.sub(r"([*_<>|\\])", r"\\\1", " ".join(text.split()))


def _attribute(text: str) -> str:
    """Plain text as the description of a picture."""
    return re.sub(r"[\[\]]", "", " ".join(text.split()))
