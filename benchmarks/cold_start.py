"""Wall time of `eoc init tanh` from a cold shell, against importing scipy.optimize and sympy.

usage: python -m benchmarks.cold_start
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

COMMANDS = {
    "eoc init tanh": [sys.executable, "-m", "eoc_theory", "init", "tanh", "--sigma-b", "0.2"],
    "import scipy.optimize, sympy": [sys.executable, "-c", "import scipy.optimize, sympy"],
}
REPEATS = 7


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values[1:])) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:30} {value:.2f} s")
    ours, peer = medians.values()
    print(f"ratio {ours / peer:.2f}")


if __name__ == "__main__":
    main()
