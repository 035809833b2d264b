"""``python -m figures [NAME…] [--recompute]``: draw the figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eoc_theory.cli.output import INTERRUPTED, run_command
from eoc_theory.cli.parser import OneLineParser
from eoc_theory.errors import EOCError

from .figure import HERE
from .registry import FIGURES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit status."""
    return run_command("figures", lambda: _draw(arguments))


def _draw(arguments: Sequence[str] | None) -> int:
    parser = OneLineParser(
        prog="python -m figures",
        description="Draws the figures from their stored results, as PNG and PDF.",
        epilog="figures:\n" + "\n".join(f"  {one.name:<24}{one.caption}" for one in FIGURES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw (default: all)")
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="compute the results anew, with their studies (minutes to hours)",
    )
    parser.add_argument("--folder", type=Path, default=HERE, help="folder to write to (default: figures/)")
    options = parser.parse_args(arguments)
    known = {one.name: one for one in FIGURES}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(known)}; got {unknown[0]!r}")
    if not options.folder.is_dir():
        parser.error(f"--folder must be a folder that exists; got {str(options.folder)!r}")
    for one in [known[name] for name in dict.fromkeys(options.names)] or FIGURES:
        try:
            for path in one.render(options.folder, recompute=options.recompute):
                print(path, flush=True)
        except EOCError as error:
            print(f"figures: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"figures: stopped at {one.name}; what was drawn stays", file=sys.stderr)
            return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
