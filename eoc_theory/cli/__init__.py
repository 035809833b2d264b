"""The command ``eoc``: exit code 0 when done, 2 for unusable arguments, 1 for a failure while computing."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from ..errors import ConvergenceError, EOCError, MissingDependencyError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code.

    Errors are one line on stderr. What is none of the toolkit's own errors is a bug, and keeps its traceback.
    """
    from .parser import build_parser

    # A terminal or pipe that knows no σ gets a question mark, not an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    name = "eoc"
    try:
        args = build_parser().parse_args(argv)
        name = f"eoc {args.command}"
        code = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except EOCError as error:
        computing = isinstance(error, (ConvergenceError, MissingDependencyError))
        return _fail(name, str(error), 1 if computing else 2)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", 1)
    except BrokenPipeError:
        # The reader, `head` for one, has seen enough. Python must not find that out once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, OSError) as error:
        return _fail(name, str(error) or "out of memory", 1)


def _fail(name: str, message: str, code: int) -> int:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return code
