"""The project's commands, called within this process."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

#: What comes before the name of a module that is run.
MODULE = ("python", "-m")


class _Caught(BaseException):
    """Carries a parser and what it parsed out of a command. No Exception, so that no command handles it."""

    def __init__(self, parser: argparse.ArgumentParser, options: argparse.Namespace | None) -> None:
        super().__init__()
        self.parser, self.options = parser, options


def is_ours(words: Sequence[str]) -> bool:
    """Whether a command is one of the project's own."""
    if tuple(words[:1]) == ("eoc",):
        return True
    ours = ("analysis", "benchmarks", "docs", "eoc_theory", "figures", "paper_checks")
    return tuple(words[:2]) == MODULE and len(words) > 2 and words[2].split(".")[0] in ours


def call(words: Sequence[str]) -> tuple[int, str]:
    """Runs one of the project's commands; its exit status and what it printed, errors and all."""
    printed = io.StringIO()
    main, arguments = _entry(words)
    with _argv(words[0], arguments), redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = main() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, printed.getvalue()


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What a command's own parser makes of its words, without running it.

    Raises:
        ValueError: the words are not accepted; the message is the command's own.
    """
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise _Caught(self, original(self, *args, **kwargs))

    printed = ""
    try:
        with _parsing(parse_args):
            _, printed = call(words)
    except _Caught as caught:
        assert caught.options is not None
        return caught.options
    raise ValueError(printed.strip() or f"{' '.join(words)} parses no arguments")


def parser_of(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command, given without arguments."""

    def parse_args(self: Any, *_: Any, **__: Any) -> Any:
        raise _Caught(self, None)

    try:
        with _parsing(parse_args):
            call(words)
    except _Caught as caught:
        return caught.parser
    raise ValueError(f"{' '.join(words)} has no parser")


def _entry(words: Sequence[str]) -> tuple[Any, list[str]]:
    """A command's main function and its arguments."""
    if words[0] == "eoc":
        return import_module("eoc_theory.cli").main, list(words[1:])
    if not is_ours(words):
        raise ValueError(f"{' '.join(words)} is none of the project's commands")
    module = import_module(words[2])
    if hasattr(module, "__path__"):
        module = import_module(f"{words[2]}.__main__")
    return module.main, list(words[3:])


@contextmanager
def _argv(name: str, arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _parsing(parse_args: Any) -> Iterator[None]:
    before = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = parse_args
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = before
