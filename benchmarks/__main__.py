"""All benchmarks of speed, one after the other: `python -m benchmarks [NAME…]`.

Each compares with a peer on the same machine in the same run. neural-tangents and dks are installed into
virtual environments of their own on first use. `networks` prints the kept table of errors against really
pruned networks; measuring them is `python -m benchmarks.networks` and, for fully connected ones,
`python -m benchmarks.accuracy`.
"""

from __future__ import annotations

import argparse
from importlib import import_module

NAMES = (
    "cold_start", "critical_points", "phase_diagrams", "kernels", "correlation_maps", "predicting",
    "training_step", "ranking", "networks", "cost", "sweeps",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=", ".join(NAMES))
    for name in parser.parse_args().names or NAMES:
        module = import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {(module.__doc__ or '').splitlines()[0]}")
        # What takes an hour to measure shows what it has kept.
        getattr(module, "table", module.main)()


if __name__ == "__main__":
    main()
