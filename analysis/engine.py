"""The engine: hands a study's tasks to an executor, and writes what comes back, as it comes."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from eoc_theory.errors import EOCError

from .executors import SchedulerGone, serial, window
from .store import Row, Store, StoreError, reading, writing
from .study import Place, Study, Task
from .working import work


class WorkerError(EOCError):
    """Processes that did the work are gone; what was finished is kept."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        tasks: number of the study's tasks.
        before: how many had their results when it began.
        failures: tasks that raised an error, with it in one line; they have no result and are tried again
            by the next run.
        damaged: rows of the store that could not be read, and were done anew.
    """

    tasks: int
    before: int
    failures: tuple[tuple[Task, str], ...]
    damaged: int = 0

    @property
    def done(self) -> int:
        """Tasks that this run finished."""
        return self.tasks - self.before - len(self.failures)


def run(
    study: Study,
    store: Path | str,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    place: Place | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Do what is not yet done of a study, and keep it in `store`.

    Results are written by this process alone, each as soon as it is there: killed at any moment, it loses no
    result that was written, and the next run with `resume` does the rest. Results are the same, bit for
    bit, for every executor and number of workers (on one kind of device).

    Args:
        study: what to do.
        store: the results file; made where there is none.
        executor: any ``concurrent.futures.Executor``; `analysis.executors` has processes with one thread each
            and clusters. None: this process. In threads of this process tasks are done one at a time.
        resume: go on where the store holds results already.
        place: device and folder of data files, as the workers see them.
        progress: called with (tasks done, tasks in all).

    Raises:
        StoreError: the store cannot be used, is being written to, or holds results and `resume` is False.
        WorkerError: worker processes died. KeyboardInterrupt: what was finished is kept.
    """
    tasks = list(study.tasks())
    place = Place() if place is None else place
    if resume and _is_complete(study, store, tasks):
        # Not opened for writing: a finished file stays as it is, byte for byte.
        if progress is not None:
            progress(len(tasks), len(tasks))
        return Outcome(len(tasks), len(tasks), ())
    with ExitStack() as opened:
        results = opened.enter_context(writing(store, study.name))
        damaged = results.drop_damaged() if resume else 0
        finished = results.keys()
        if finished and not resume:
            raise StoreError(
                f"store {str(store)!r} holds {len(finished)} results already: --resume goes on, "
                "another --store begins anew"
            )
        if executor is None:
            executor = opened.enter_context(serial())
        open_tasks = [task for task in tasks if task.key not in finished]
        before = len(tasks) - len(open_tasks)
        if progress is not None:
            progress(before, len(tasks))
        failures = _collect(open_tasks, executor, place, results, before, progress)
    return Outcome(len(tasks), before, tuple(failures), damaged)


def _is_complete(study: Study, path: Path | str, tasks: list[Task]) -> bool:
    """Whether the file is the study's and holds all its results."""
    if not Path(path).is_file():
        return False
    with reading(path) as found:
        return found.study == study.name and {task.key for task in tasks} <= found.keys()


def _collect(
    tasks: list[Task],
    executor: Executor,
    place: Place,
    results: Store,
    before: int,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[Task, str]]:
    waiting, total, done = iter(tasks), before + len(tasks), before
    running: dict[Future[Row], Task] = {}
    ready: queue.SimpleQueue[Future[Row]] = queue.SimpleQueue()
    failures: list[tuple[Task, str]] = []

    def submit(count: int) -> None:
        for task in islice(waiting, count):
            try:
                future = executor.submit(work, task, place)
            except BrokenExecutor as error:
                raise _lost(results, error) from None
            running[future] = task
            future.add_done_callback(ready.put)

    def store(futures: list[Future[Row]]) -> None:
        nonlocal done
        rows = []
        for future in futures:
            task = running.pop(future)
            try:
                rows.append(future.result())
            except BrokenExecutor as error:
                results.add(rows)
                raise _lost(results, error) from None
            except (Exception, CancelledError) as error:
                failures.append((task, f"{type(error).__name__}: {' '.join(str(error).split())}"))
        results.add(rows)
        for row in rows:
            place.discard(row.hash, row.seed)
        done += len(futures)
        if progress is not None:
            progress(done, total)

    try:
        submit(window(executor))
        while running:
            futures = [ready.get(), *_drained(ready)]
            store(futures)
            submit(len(futures))
    except KeyboardInterrupt:
        # What was finished while the last rows were written.
        store([future for future in _drained(ready) if future in running])
        raise
    except WorkerError:
        # The executor is giving what is left an exception just now, which cancelled futures do not take.
        running.clear()
        raise
    finally:
        for future in running:
            future.cancel()
    return failures


def _drained(ready: queue.SimpleQueue[Future[Row]]) -> list[Future[Row]]:
    """All that is in the queue, without waiting."""
    found = []
    while not ready.empty():
        found.append(ready.get())
    return found


def _lost(results: Store, error: BrokenExecutor) -> WorkerError:
    who = "the scheduler" if isinstance(error, SchedulerGone) else "a worker process"
    return WorkerError(
        f"{who} died (killed, or out of memory?); {len(results)} results are "
        f"kept in {str(results.path)!r}, and --resume goes on"
    )
