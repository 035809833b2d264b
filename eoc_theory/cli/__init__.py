"""The command ``eoc``: arguments become calls, and results become text.

Exit codes: 0 done, 2 unusable arguments, 1 a failure while computing, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import ConvergenceError, EOCError, MissingDependencyError
from ..errors.text import one_line
from .mistakes import commands_of, first_mistake, folded, of_library
from .output import INTERRUPTED, drop_output, prepare_streams, say
from .parser import build_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code.

    Errors are one line on stderr. What is none of the toolkit's own errors is a bug, and keeps its traceback.
    """
    prepare_streams()
    name, own = "eoc", None
    try:
        parser = build_parser()
        words = folded(sys.argv[1:] if argv is None else argv, parser) or ["--help"]
        mistake = first_mistake(words, parser)
        if mistake is not None:
            return _fail(*mistake, 2)
        args = parser.parse_args(words)
        name, own = f"eoc {args.command}", commands_of(parser)[args.command]
        code = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except EOCError as error:
        computing = isinstance(error, (ConvergenceError, MissingDependencyError))
        return _fail(name, of_library(error, own), 1 if computing else 2)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        drop_output()
        return 1
    except (MemoryError, OSError) as error:
        return _fail(name, str(error) or "out of memory", 1)


def _fail(name: str, message: str, code: int) -> int:
    say(f"{name}: {one_line(message)}", file=sys.stderr)
    return code
