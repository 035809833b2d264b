"""The engine of studies: what it costs a task, and what a second worker brings.

usage: python -m benchmarks.sweeps

Overhead: a study of `TASKS` tasks that do nothing, in this process and by one worker; the time in which the
worker starts is left out by taking the difference to a study of `WARM` tasks. Throughput: a study of
`NETWORKS` real networks (tanh, 100 layers of width 100, snip on 100 digits), with one worker and with two,
from the start of the workers to their end, in turn, so that what else the machine does falls on both. Only on
a machine with nothing else to do does it say much: where the system divides its time between sessions
(Linux's autogroup), two workers get no more than one.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from analysis import Measure, Network, Place, Study, Task, run
from analysis.executors import processes
from analysis.measures import PRUNING

WARM, TASKS, NETWORKS, ROUNDS = 100, 2100, 200, 3


def nothing(task: Task, place: Place) -> Mapping[str, Any]:
    """A result as large as a small network's."""
    return {"values": [task.seed / 7] * 50}


def study(measure: Measure, seeds: int) -> Study:
    return Study(
        "sweep", "a benchmark", (Network("mlp", 100, 100),), ("snip",), (0.5, 0.9), seeds, (measure,)
    )


def seconds(made: Study, workers: int | None) -> float:
    """From before the workers start until the last result is stored."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with processes(workers) if workers else nullcontext() as executor:
            run(made, Path(folder, "store"), executor=executor)
        return time.perf_counter() - start


def main() -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    idle = Measure("nothing", nothing)
    for workers in (None, 1):
        warm, whole = (seconds(study(idle, tasks), workers) for tasks in (WARM, TASKS))
        where = "in this process" if workers is None else "by one worker"
        print(f"a task that does nothing, {where:<16} {(whole - warm) / (TASKS - WARM) * 1e3:6.2f} ms")
    gains = []
    for _ in range(ROUNDS):
        one, two = (seconds(study(PRUNING, NETWORKS), workers) for workers in (1, 2))
        gains.append(one / two)
        print(f"{NETWORKS} networks, one worker {one:.1f} s, two {two:.1f} s: {gains[-1]:.2f} times as fast")
    print(f"median {statistics.median(gains):.2f} times as fast; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
