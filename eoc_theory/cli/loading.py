"""A torch model named on the command line: imported and made, never evaluated as text."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from ..base.suggestions import nearest
from ..errors import ArgumentError, ModelError
from ..pytorch.lazy import torch


def load_model(spec: str, seed: int = 0) -> Any:
    """The model of ``MODULE:FACTORY``.

    MODULE is a dotted name, looked for in the current folder first, or a file that ends in .py; FACTORY a
    dotted attribute of it: a ``torch.nn.Module``, or what returns one when called without arguments. torch's
    generator is seeded with `seed` for the call and left as it was. What the code prints goes to stderr.

    Raises:
        ArgumentError: not of that form, or no such module or attribute. ModelError: importing or calling it
            fails, or what comes is no torch.nn.Module. MissingDependencyError: torch is not installed.
    """
    module_name, separator, path = spec.rpartition(":")
    if not separator or not module_name or not path:
        raise ArgumentError(
            f"MODULE:FACTORY must name a module and what is in it, such as nets:make, got {spec!r}"
        )
    with redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
        # Once for models that are made while the module is imported, once for what a call makes.
        torch.manual_seed(seed)
        found = _guarded(f"importing {module_name}", lambda: _module(module_name))
        for part in path.split("."):
            if not hasattr(found, part):
                raise ArgumentError(
                    f"MODULE:FACTORY: {module_name} has no {path!r}{_instead(found, part, module_name)}"
                )
            found = getattr(found, part)
        if not isinstance(found, torch.nn.Module):
            if not callable(found):
                raise ModelError(f"{spec} must be a torch.nn.Module or make one, got {type(found).__name__}")
            torch.manual_seed(seed)
            found = _guarded(f"{spec}()", found)
    if not isinstance(found, torch.nn.Module):
        raise ModelError(f"{spec}() must return a torch.nn.Module, got {type(found).__name__}")
    return found


def _module(name: str) -> Any:
    """The module of that name or file; an error of its own code is left to the caller."""
    if name.endswith(".py"):
        path = os.path.abspath(name)
        if not os.path.isfile(path):
            raise ArgumentError(f"MODULE:FACTORY: no file {name!r} in this folder")
        # Its neighbours can be imported, as when it is run.
        _search(os.path.dirname(path))
        label = os.path.splitext(os.path.basename(path))[0]
        if label in sys.modules:
            # numpy.py of one's own must not take numpy's place.
            label = f"{label} of {path}"
        made = importlib.util.spec_from_file_location(label, path)
        assert made is not None and made.loader is not None  # as for every .py file
        module = importlib.util.module_from_spec(made)
        # Dataclasses and pickles look a class's module up there while it is being run.
        sys.modules[label] = module
        try:
            made.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(label, None)
            raise
        return module
    _search(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name and (name == missing.name or name.startswith(missing.name + ".")):
            raise ArgumentError(
                f"MODULE:FACTORY: no module {name!r} in this folder or among the installed ones{_file(name)}"
            ) from None
        raise
    except (TypeError, ValueError):
        # ".nets", "..nets" and the like: relative to nothing.
        if name.startswith(".") or ".." in name:
            raise ArgumentError(
                f"MODULE:FACTORY: MODULE must be a dotted name or a .py file, got {name!r}"
            ) from None
        raise


def _search(folder: str) -> None:
    """Look for modules in `folder` before all others, as Python does for a script that lies there."""
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def _guarded(what: str, call: Callable[[], Any]) -> Any:
    """The result of foreign code, whose every error is one line that says what it is."""
    try:
        return call()
    except ArgumentError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{what} failed: {type(error).__name__}{f': {text}' if text else ''}") from None


def _file(name: str) -> str:
    """The file that could have been meant by a module's name."""
    path = name.replace(".", os.sep) + ".py"
    near = (
        nearest(path, [file for file in os.listdir() if file.endswith(".py")]) if os.sep not in path else None
    )
    return f"; did you mean {near}:…?" if near else ""


def _instead(found: Any, wanted: str, module: str) -> str:
    """Names that could have been meant."""
    near = nearest(wanted, [name for name in dir(found) if callable(getattr(found, name, None))])
    if near is not None:
        return f"; did you mean {module}:{near}?"
    names = (
        [
            name
            for name, value in vars(found).items()
            if not name.startswith("_")
            and callable(value)
            and getattr(value, "__module__", None) == found.__name__
        ]
        if hasattr(found, "__name__") and hasattr(found, "__dict__")
        else []
    )
    if not names:
        return ""
    return f"; it has {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
