"""Where tasks run: in this process, in others on this machine, or on a cluster."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

from eoc_theory.base.checks import said
from eoc_theory.errors import ArgumentError, MissingDependencyError

from .working import ONE_THREAD, assign_gpu, visible_gpus


class Serial(Executor):
    """Runs a task when it is submitted, here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def serial() -> Iterator[Executor]:
    """This process, its numerical libraries at one thread while it lasts, so that bits are those of workers.

    Where threadpoolctl is missing (scikit-learn brings it) and there is more than one core, the last digits
    of a theory's numbers may differ from a worker's.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        threadpool_limits = None
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    with _environment(ONE_THREAD):
        try:
            if threadpool_limits is None:
                yield Serial()
            else:
                import numpy  # noqa: F401  (so that there is something to limit)

                with threadpool_limits(1):
                    yield Serial()
        finally:
            if torch:
                torch.set_num_threads(threads)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """`workers` processes of one thread each on this machine, one GPU each where there are GPUs.

    They start from a fresh interpreter (spawn), import what they need once, ignore Ctrl-C, which is for the
    process that collects, and end with it even if it is killed.
    """
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(context.Value("i", 0), visible_gpus()),
        )
        try:
            yield pool
        except BaseException:
            # Nobody waits for what they are at.
            try:
                _drop_waiting(pool)
            finally:
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
            raise
        pool.shutdown()


def _drop_waiting(pool: ProcessPoolExecutor, patience: float = 5.0) -> None:
    """Shut the pool down and wait, `patience` seconds at most, until no task waits in it any more.

    The pool's own thread must be done with the cancelled ones before workers are ended: a worker's end makes
    it give every task that it still holds an exception, and a cancelled one takes none (Python 3.11
    prints that thread's traceback then).
    """
    try:
        last = pool.submit(int)
    except RuntimeError:  # broken or shut down: its thread has ended or is ending
        last = None
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + patience
    while last is not None and not (last.running() or last.done()) and time.monotonic() < end:
        time.sleep(0.001)


def _start_worker(counter: Any, gpus: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    assign_gpu(number, gpus)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # After everything else that multiprocessing does at a process's end.
    Finalize(None, _leave, exitpriority=-1000)


def _leave() -> None:
    """End without taking the interpreter down module by module: with torch in it that takes a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """A worker waits for tasks on a pipe that it holds open itself: it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class SchedulerGone(BrokenExecutor):
    """The connection to a scheduler has ended: what dead processes are to a pool."""


class Cluster(Executor):
    """The workers of a dask client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        ours: Future[Any] = Future()

        def finish(theirs: Any) -> None:
            if not ours.set_running_or_notify_cancel():
                return
            try:
                failed = theirs.exception() if theirs.status == "error" else None
                result = theirs.result() if theirs.status == "finished" else None
                gone = theirs.status not in ("error", "finished")
            except Exception:  # the connection ends just now
                gone, failed, result = True, None, None
            if gone:
                ours.set_exception(SchedulerGone())
            elif failed is not None:
                ours.set_exception(failed)
            else:
                ours.set_result(result)

        try:
            self.client.submit(fn, *args, pure=False, **kwargs).add_done_callback(finish)
        except Exception as error:
            raise SchedulerGone(str(error)) from error
        return ours


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask.distributed scheduler.

    They must be able to import `analysis` and `eoc_theory`, and are best started with one thread each
    (``dask worker --nthreads 1``): a process does one task at a time. Those that are there at the start get
    one GPU each of their machine's.

    Raises:
        MissingDependencyError: no distributed. ArgumentError: nobody answers at the address.
    """
    try:
        from distributed import Client  # type: ignore[import-not-found]
    except ImportError:
        raise MissingDependencyError(
            "a scheduler needs dask.distributed, which is not installed: pip install 'eoc-theory[cluster]'"
        ) from None
    # What becomes of the connection is told in one line, by an error.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # A client that failed is closed when it is collected; within the start of another that waits for a lock
    # which the start holds.
    gc.collect()
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except Exception as error:
        raise ArgumentError(
            f"scheduler must be the address of a running one, got {address!r} ({said(error)})"
        ) from None
    try:
        try:
            _share_gpus(client)
        except Exception as error:
            raise ArgumentError(
                f"scheduler {address!r} ended while its workers were asked for their GPUs ({said(error)})"
            ) from None
        yield Cluster(client)
    finally:
        # Of one whose scheduler is gone closing fails too.
        with suppress(Exception):
            client.close(timeout=5)


def _share_gpus(client: Any) -> None:
    found = client.run(visible_gpus)
    for number, worker in enumerate(sorted(found)):
        before = sum(_host(other) == _host(worker) for other in sorted(found)[:number])
        client.run(assign_gpu, before, found[worker], workers=[worker])


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def window(executor: Executor) -> int:
    """How many tasks are handed over before the first comes back: enough that no worker waits."""
    if isinstance(executor, Serial):
        return 1
    workers = getattr(executor, "_max_workers", None)
    client = getattr(executor, "client", None)
    if client is not None:
        workers = sum(client.ncores().values())
    return max(64, 4 * (workers or os.cpu_count() or 1))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
