"""Options that nobody meant: every command answers, or ends with 1 or 2 and one printable line."""

from __future__ import annotations

import argparse
import contextlib
import io

import pytest

pytest.importorskip("torch")

from analysis.__main__ import _parser
from analysis.__main__ import main as analysis_main
from eoc_theory.cli import main as eoc_main
from eoc_theory.cli.parser import build_parser
from tests import command_fuzz as fuzz


@pytest.mark.slow
@pytest.mark.parametrize("seed", [21, 22])
def test_every_command_answers_or_says_why_not(seed):
    assert fuzz.failures(seed, 300) == []


def options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """The options that take a value, of each command."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, made in action.choices.items():
                found[name] = {
                    option
                    for one in made._actions
                    for option in one.option_strings[:1]
                    if one.nargs != 0 and option.startswith("--")
                }
    return found


def test_the_fuzz_reaches_every_command_and_option():
    for main, parser in ((eoc_main, build_parser()), (analysis_main, _parser())):
        tried: dict[str, set[str]] = {}
        for function, words in fuzz.COMMANDS.values():
            if function is main:
                tried.setdefault(words[0], set()).update(words)
        # `list` takes nothing; a scheduler that does not answer takes ten seconds to be given up.
        names = {name: wanted - {"--scheduler"} for name, wanted in options(parser).items() if name != "list"}
        assert set(names) <= set(tried)
        every = set().union(*tried.values())
        assert set().union(*names.values()) - every == set()


@pytest.mark.parametrize("name", [name for name in fuzz.COMMANDS if name not in ("summary", "export", "run")])
def test_the_commands_answer_as_they_are(name):
    function, words = fuzz.COMMANDS[name]
    with fuzz.folder(), contextlib.redirect_stdout(io.StringIO()):
        assert function([word.replace("FOLDER", fuzz.idx_files()) for word in words]) == 0


def test_too_many_workers_are_refused(capsys):
    assert analysis_main(["run", "phases", "--workers", "1000000000"]) == 2
    assert "must be at most 1024" in capsys.readouterr().err
