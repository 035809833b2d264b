"""All benchmarks of speed, one after the other: `python -m benchmarks [NAME…]`.

Each compares with a peer on the same machine in the same run. neural-tangents and dks are installed into
virtual environments of their own on first use. `networks` prints the kept table of errors against really
pruned networks; measuring them is `python -m benchmarks.networks` and, for fully connected ones,
`python -m benchmarks.accuracy`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from eoc_theory.cli.output import run_command
from eoc_theory.cli.parser import OneLineParser

NAMES = (
    "cold_start", "critical_points", "phase_diagrams", "kernels", "correlation_maps", "predicting",
    "training_step", "ranking", "networks", "cost", "sweeps", "models", "gpu",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit status."""
    return run_command("benchmarks", lambda: _measure(arguments))


def _measure(arguments: Sequence[str] | None) -> int:
    parser = OneLineParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    names = parser.parse_args(arguments).names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(NAMES)}; got {unknown[0]!r}")
    for name in names or NAMES:
        module = import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {(module.__doc__ or '').splitlines()[0]}")
        # What takes an hour to measure shows what it has kept.
        getattr(module, "table", module.main)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
