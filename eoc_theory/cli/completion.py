"""The script that completes words in a shell, made by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..base.suggestions import did_you_mean
from ..errors import MissingDependencyError
from .mistakes import commands_of

SHELLS = ("bash", "zsh", "tcsh")
#: Options whose values are files or folders.
_FILES, _FOLDERS = ("--plot", "--html", "--data"), ("--data-folder",)


class PrintCompletion(argparse.Action):
    """Prints the script for a shell, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        shell = str(values).lower()
        if shell not in SHELLS:
            meant = did_you_mean(shell, SHELLS).replace("'", "")
            parser.error(f"argument {option_string}: must be bash, zsh or tcsh, got {shell[:60]!r}{meant}")
        print(script(parser, shell))
        raise SystemExit(0)


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes the commands, options and values of `parser` in a shell.

    Raises:
        MissingDependencyError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise MissingDependencyError(
            "--print-completion needs shtab: pip install 'eoc-theory[completion]'"
        ) from None
    values = _values()
    for command in commands_of(parser).values():
        for action in command._actions:
            names: Any = action
            for name in action.option_strings:
                if name in values:
                    action.choices = values[name]
                elif name in _FILES:
                    names.complete = shtab.FILE
                elif name in _FOLDERS:
                    names.complete = shtab.DIRECTORY
            if action.dest == "activation":
                action.choices = values["--activation"]
    return shtab.complete(parser, shell)


def _values() -> dict[str, list[str]]:
    """Option → its values, where these are names."""
    from ..activations import activation_names
    from ..criteria import criterion_names
    from ..networks.resolve import METHODS
    from .networks import KINDS

    return {
        "--activation": list(activation_names()),
        "--criterion": list(criterion_names()),
        "--device": ["auto", "cpu", "cuda", "mps"],
        "--init": ["eoc", "kaiming", "pytorch"],
        "--kind": list(KINDS),
        "--law": ["normal", "uniform", "truncated", "orthogonal"],
        "--loss": ["cross_entropy", "mse", "bce"],
        "--method": list(METHODS),
        "--mode": ["training", "evaluation"],
        "--normalisation": ["batch", "group", "layer", "none"],
        "--padding": ["circular", "zeros", "reflect"],
    }
