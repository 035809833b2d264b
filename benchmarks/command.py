"""The command line of a benchmark that is measured over hours, network by network, and reported at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def measure_or_report(
    module: str, doc: str | None, measure: Callable[[str], None], report: Callable[[], None]
) -> int:
    """Run ``python -m MODULE measure|report``; the exit status.

    Args:
        module: its name.
        doc: its docstring, whose first line says what it is for.
        measure: measures the networks whose names match a pattern.
        report: prints what is kept.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").split("\n")[0])
    parser.add_argument("action", choices=("measure", "report"))
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of networks (default: all)")
    arguments = parser.parse_args()
    if arguments.action == "measure":
        measure(arguments.only)
    report()
    return 0
