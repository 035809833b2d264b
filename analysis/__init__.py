"""Studies run from a checkout: declared in `analysis.studies`, kept in one SQLite file each.

``python -m analysis run STUDY`` runs one; `run` does the same from Python, on any executor.
"""

from __future__ import annotations

from .engine import Outcome, WorkerError, run
from .store import Row, Store, StoreError, reading
from .study import Batch, Measure, Network, Place, Study, Task, grid

__all__ = [
    "Batch",
    "Measure",
    "Network",
    "Outcome",
    "Place",
    "Row",
    "Store",
    "StoreError",
    "Study",
    "Task",
    "WorkerError",
    "grid",
    "reading",
    "run",
]
