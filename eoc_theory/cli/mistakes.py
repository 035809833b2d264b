"""Mistakes in what was typed, each explained in one line: the option, and what to write instead."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from ..base.suggestions import nearest
from ..errors import ActivationError, EOCError

#: Options that people look for under another name.
KNOWN_AS = {
    "--act": "--activation",
    "--batch-size": "--batch",
    "--classes": "--out-features",
    "--dataset": "--data",
    "--density": "--sparsity",
    "--hidden": "--width",
    "--hidden-size": "--width",
    "--layers": "--depth",
    "--num-classes": "--out-features",
    "--num-layers": "--depth",
    "--out": "--plot",
    "--output": "--plot",
    "--prune": "--sparsity",
    "--pruner": "--criterion",
    "--units": "--width",
    "-o": "--plot",
    "-n": "--width",
    "-s": "--sparsity",
}
#: Arguments of the library whose option has another name, the first that a command has.
_CALLED = {
    "channels": ("--width",),
    "classes": ("--out-features",),
    "example_input": ("--input-shape", "--image"),
    "folder": ("--data-folder",),
    "init": ("--init",),
    "inputs": ("--data",),
    "input_shape": ("--input-shape", "--image"),
    "n": ("--batch",),
    "name": ("--data",),
    "padding_mode": ("--padding",),
    "targets": ("--data",),
}
#: Values that show how an option is used.
_EXAMPLES = {
    "ACT": "tanh",
    "MODULE:FACTORY": "nets.py:make",
    "--activation": "tanh",
    "--batch": "100",
    "--criterion": "snip",
    "--data": "digits",
    "--depth": "30",
    "--image": "3,32,32",
    "--init": "eoc",
    "--input-shape": "3,32,32",
    "--kind": "resnet",
    "--method": "sampled",
    "--plot": "picture.png",
    "--sigma-b": "0.2",
    "--sigma-w": "1.5",
    "--sparsity": "0.9",
    "--width": "100",
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def folded(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The words with the command and the options in lower case, as they are defined."""
    commands = commands_of(parser)
    made = list(words)
    place = next((i for i, word in enumerate(made) if not word.startswith("-")), None)
    if place is None:
        return made
    made[place] = made[place].lower() if made[place].lower() in commands else made[place]
    own = commands.get(made[place])
    if own is None:
        return made
    known = option_actions(own)
    for i, word in enumerate(made[place + 1 :], start=place + 1):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name not in known and name.startswith("--") and name.lower() in known:
            made[i] = name.lower() + equals + value
    return made


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def option_actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of a command, by each of their names."""
    return {name: action for action in parser._actions for name in action.option_strings}


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def first_mistake(words: Sequence[str], parser: argparse.ArgumentParser) -> tuple[str, str] | None:
    """The command as it is called, and what is wrong with the words; None where each has its place."""
    commands = commands_of(parser)
    for i, word in enumerate(words):
        if word in ("-h", "--help", "--version") or word.startswith("--print-completion"):
            return None
        if word.startswith("-"):
            return parser.prog, f"{word} is no option of {parser.prog}; options come after the command"
        if word not in commands:
            return parser.prog, _no_command(word, words[i + 1 :], commands)
        own = commands[word]
        said = _Words(own, commands).mistake(words[i + 1 :])
        return None if said is None else (own.prog, said)
    return None


def _no_command(word: str, rest: Sequence[str], commands: dict[str, argparse.ArgumentParser]) -> str:
    listed = ", ".join(commands)
    if word == "help":
        other = rest[0] if rest and rest[0] in commands else ""
        return f"help is no command; write eoc {other + ' ' if other else ''}--help"
    near = nearest(word, commands, 0.7)
    if near is not None and (len(word) > 3 or near.startswith(word.lower())):
        return f"{word!r} is no command; did you mean eoc {near}? (commands: {listed})"
    if "init" in commands and _is_activation(word):
        return f"{word!r} is no command (commands: {listed}); for its edge of chaos write eoc init {word}"
    return f"{word!r} is no command; write one of {listed}"


def _is_activation(word: str) -> bool:
    from ..activations import activation

    if not re.search(r"[A-Za-z]{3}", word) or "=" in word:
        return False
    try:
        activation(word)
    except EOCError:
        return False
    return True


class _Words:
    """The words after a command, looked at one by one as argparse will take them."""

    def __init__(self, parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]) -> None:
        self._parser, self._commands = parser, commands
        self._options = option_actions(parser)
        self._places = _positionals(parser)

    def mistake(self, words: Sequence[str]) -> str | None:
        """What is wrong with the first word that has no place."""
        taken, at = 0, 0
        while at < len(words):
            word = words[at]
            name, equals, rest = word.partition("=")
            at += 1
            if word == "--":
                return None
            if name in ("-h", "--help"):
                return None
            if name in self._options:
                action = self._options[name]
                if action.nargs == 0:
                    if equals:
                        file = f" > {rest}" if name == "--json" else ""
                        return f"{name} takes no value, got {rest!r}; write {name}{file}"
                    continue
                if not equals:
                    if at == len(words) or self._is_option(words[at]):
                        got = f", got {words[at]}" if at < len(words) else ""
                        return f"{name} needs a value{got}; write {name} {example(name, action)}"
                    at += 1
                continue
            if word.startswith("-") and not _NUMBER.fullmatch(word) and word != "-":
                follows = words[at] if at < len(words) and not self._is_option(words[at]) else None
                return self._no_option(name, rest if equals else follows)
            taken += 1
            if taken > len(self._places) and not any(place.nargs == "*" for place in self._places):
                return self._no_place(word, words)
        return None

    def _is_option(self, word: str) -> bool:
        return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word) and " " not in word

    def _no_option(self, name: str, value: str | None) -> str:
        prog = self._parser.prog
        known = KNOWN_AS.get(name.lower().replace("_", "-"))
        if name == "--activation" and any(place.dest == "activation" for place in self._places):
            alone = f"{prog} {value or 'tanh'}"
            return f"{name} is no option of {prog}, which takes the activation by itself: {alone}"
        if known in self._options:
            meant = f"{known} {self._value(known, value)}".strip()
            return f"{name} is no option of {prog}; did you mean {meant}?"
        if not name.startswith("--") and any(c in name for c in "(*/+^"):
            return (
                f"{name!r} starts with a minus, as options do; write -- before it: "
                f"{prog} -- {name!r}, or {prog} ' {name}'"
            )
        near = nearest(name, [option for option in self._options if option.startswith("--")])
        if near is not None:
            return f"{name} is no option of {prog}; did you mean {near} {self._value(near, value)}?".replace(
                " ?", "?"
            )
        others = [word for word, other in self._commands.items() if name in option_actions(other)]
        if others:
            return f"{name} is no option of {prog}, but of eoc {', '.join(others)}; see {prog} --help"
        return f"{name} is no option of {prog}; see {prog} --help"

    def _value(self, option: str, given: str | None) -> str:
        action = self._options[option]
        return "" if action.nargs == 0 else given or example(option, action)

    def _no_place(self, word: str, words: Sequence[str]) -> str:
        prog = self._parser.prog
        key, equals, value = word.partition("=")
        option = f"--{key.lower().replace('_', '-')}"
        if equals and option in self._options:
            return f"{word!r} has no option; did you mean {option} {value}?"
        if word.lower() == "help":
            return f"help is no option of {prog}; write {prog} --help"
        if "--activation" in self._options and "--activation" not in words and _is_activation(word):
            return f"{word!r} has no option; did you mean --activation {word}?"
        before = words[list(words).index(word) - 1] if word in words[1:] else ""
        if _NUMBER.fullmatch(word) and re.search(r"\d,?$", before):
            return f"{word!r} has no option; write lists without spaces: {before.rstrip(',')},{word}"
        if _NUMBER.fullmatch(word):
            first = next((name for name in ("--sparsity", "--sigma-b") if name in self._options), None)
            if first is not None and first not in words:
                return f"{word!r} has no option; write it with one, such as {first} {word}"
        takes = (
            " ".join(str(place.metavar or place.dest) for place in self._places)
            if self._places
            else "options"
        )
        return f"{word!r} has no option; {prog} takes {takes}{' and options' if self._places else ' only'}"


def example(name: str, action: argparse.Action) -> str:
    """A value of the option of that name, else what stands for it in a line of help."""
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper()


def of_parser(message: str, parser: argparse.ArgumentParser) -> str:
    """A message of argparse, with the option first and what to write instead."""
    match = re.fullmatch(r"argument ([^:]+): (?:path )?(.*)", message, re.DOTALL)
    if match:
        name, said = match[1].split("/")[0], match[2]
        other = re.fullmatch(r"not allowed with argument (\S+)", said)
        if other:
            return f"{name} and {other[1].split('/')[0]} exclude each other; give one of them"
        return f"{name} {said}"
    match = re.fullmatch(r"the following arguments are required: (.*)", message, re.DOTALL)
    if match:
        names = [name.split("/")[0] for name in match[1].split(", ")]
        options = option_actions(parser)
        missing = [f"{n} {example(n, options[n])}" if n in options else _EXAMPLES.get(n, n) for n in names]
        verb = "is" if len(names) == 1 else "are"
        return f"{' and '.join(names)} {verb} missing; write {parser.prog} {' '.join(missing)}"
    return message


def of_library(error: EOCError, parser: argparse.ArgumentParser | None) -> str:
    """The text of an error of the library, with options for the arguments that it names."""
    message = str(error)
    if parser is None:
        return message
    names = _option_names(parser)
    if isinstance(error, ActivationError) and "activation" in names:
        return f"{names['activation']}: {message}"
    if " of criterion " in message.partition("must")[0] and "criterion" in names:
        return f"{names['criterion']}: {message}"
    match = re.match(r"([a-z_]\w*)((?:\[\d+\])?)(?=[ :=])", message)
    # Errors begin with the argument that they are about, unless they begin with a word of their own.
    if match and match[1] in names and re.match(_AFTER_NAME, message[match.end() :]):
        message = names[match[1]] + message[match.end() :]
    known = "|".join(map(re.escape, names))
    message = re.sub(rf"\b({known})='([^']*)'", lambda m: f"{names[m[1]]} {m[2]}", message)
    message = re.sub(rf"\b({known}) = (?=[\d.])", lambda m: f"{names[m[1]]} ", message)
    return message.replace("must be (C, H, W)", "must be C,H,W such as 3,32,32")


#: What follows the name of an argument in an error.
_AFTER_NAME = re.compile(
    r" (must|goes|describes|file|holds|is|at|and|would|lists|names|has|\(|'|of|\d|[a-z]+ (must|goes))|:"
)


def _option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Argument of the library → option of the command, or the place of a positional."""
    names: dict[str, Any] = {}
    for action in parser._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        names[action.dest] = long[0] if long else str(action.metavar or action.dest)
    for argument, options in _CALLED.items():
        have = [option for option in options if option in option_actions(parser)]
        if have and argument not in names:
            names[argument] = have[0]
    if "model" in names:
        names |= {"net": names["model"], "factory": names["model"]}
    return names
