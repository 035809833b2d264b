"""Studies that cost next to nothing, with the marks that tests of the engine look for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis import Measure, Place, Study, Task, grid
from eoc_theory.errors import ModelError

#: Where `mark` writes a line for each task that it did, with the process that did it.
LOG = "FAKE_STUDY_LOG"


def numbers(task: Task, place: Place) -> Mapping[str, Any]:
    """Numbers of the task alone, with all that floats can be."""
    value = (task.network.depth * 31 + task.seed) / 7
    return {"value": value, "third": 1 / (3 + value), "odd": [float("nan"), float("-inf"), 5e-324]}


def mark(task: Task, place: Place) -> Mapping[str, Any]:
    """The same, after a moment, with a line in the log."""
    time.sleep(0.02)
    with open(os.environ[LOG], "a", encoding="utf-8") as log:
        log.write(f"{task.key[0]} {task.seed} {os.getpid()}\n")
    return numbers(task, place)


def stumble(task: Task, place: Place) -> Mapping[str, Any]:
    """Fails for the second seed, until the file that `place` names is there."""
    if task.seed == 1 and not Path(str(place.folder)).exists():
        raise ModelError("this one\ncannot be done")
    return numbers(task, place)


def die(task: Task, place: Place) -> Mapping[str, Any]:
    """Ends the process that works on the third seed."""
    if task.seed == 2:
        os._exit(9)
    return numbers(task, place)


def interrupt(task: Task, place: Place) -> Mapping[str, Any]:
    """Ctrl-C at the fourth seed."""
    if task.seed == 3:
        raise KeyboardInterrupt
    return numbers(task, place)


def visible(task: Task, place: Place) -> Mapping[str, Any]:
    """What this process may use."""
    time.sleep(0.05)
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    return {"process": os.getpid(), **{name: os.environ.get(name) for name in names}}


def fake(function: Any, *, seeds: int = 6, networks: int = 2) -> Study:
    """A study of `networks`·`seeds` tasks."""
    return Study(
        name=f"fake-{function.__name__}",
        about="nothing",
        networks=grid(depth=list(range(2, 2 + networks)), width=8),
        criteria=("snip",),
        sparsities=(0.5,),
        seeds=seeds,
        measures=(Measure("fake", function),),
    )
