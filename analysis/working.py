"""What happens in a worker: one task becomes one row."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from datetime import datetime, timezone
from functools import lru_cache

from .store import Row
from .study import Place, Task

#: How NumPy's and torch's libraries are told to use one thread; read when they are loaded.
ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
}

# torch's random state and number of threads belong to the process: one task at a time in each.
_one_at_a_time = threading.Lock()


def work(task: Task, place: Place) -> Row:
    """Do the task. Raises whatever its measure raises."""
    # Imports NumPy, which only workers need.
    from eoc_theory.base.formatting import plain

    with _one_at_a_time:
        start = time.perf_counter()
        found = task.measure.function(task, place)
        seconds = time.perf_counter() - start
    result = json.dumps(
        plain(dict(found)), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    hash, seed = task.key
    return Row(
        configuration=task.configuration,
        hash=hash,
        seed=seed,
        measure=task.measure.name,
        result=result,
        versions=_versions(),
        device=_device(place.device) if "torch" in sys.modules and task.measure.seeded else "cpu",
        seconds=seconds,
        finished=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    )


@lru_cache(maxsize=1)
def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    import eoc_theory

    found = {"eoc-theory": eoc_theory.__version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "torch", "numba", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=4)
def _device(asked: str) -> str:
    """The device that was measured on, by its own name."""
    import torch

    if not asked.startswith("cuda") and not (asked == "auto" and torch.cuda.is_available()):
        return "cpu" if asked == "auto" else asked
    return torch.cuda.get_device_name(0 if asked == "auto" else torch.device(asked))


def assign_gpu(number: int, gpus: tuple[str, ...]) -> None:
    """Let this process see one of the GPUs; it must not have used one yet."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; no CUDA context is made."""
    import shutil
    import subprocess

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return tuple(part.strip() for part in listed.split(",") if part.strip() and part.strip() != "-1")
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = asked.stdout.splitlines() if asked.returncode == 0 else []
    return tuple(str(i) for i in range(sum(line.startswith("GPU ") for line in lines)))
