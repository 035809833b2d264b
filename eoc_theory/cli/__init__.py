"""The command ``eoc``: arguments become calls, and results become text.

Exit codes: 0 done, 2 unusable arguments, 1 a failure while computing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import ConvergenceError, EOCError, MissingDependencyError
from ..errors.text import one_line
from .output import drop_output, prepare_streams, say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's arguments) and return its exit code.

    Errors are one line on stderr. What is none of the toolkit's own errors is a bug, and keeps its traceback.
    """
    from .parser import build_parser

    prepare_streams()
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
        drop_output()
        return 1
    except (MemoryError, OSError) as error:
        return _fail(name, str(error) or "out of memory", 1)


def _fail(name: str, message: str, code: int) -> int:
    say(f"{name}: {one_line(message)}", file=sys.stderr)
    return code
