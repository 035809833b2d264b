"""The engine of studies: nothing lost, nothing twice, the same bits on every executor; errors in one line."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import fake_studies
import pytest
from fake_studies import LOG, fake

import analysis
from analysis import Batch, Measure, Network, Place, StoreError, Study, WorkerError, grid, reading, run
from analysis.executors import cluster, processes, window
from analysis.store import writing
from analysis.studies import STUDIES
from analysis.working import visible_gpus
from eoc_theory.errors import ArgumentError

ROOT = Path(__file__).resolve().parents[2]
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def start(code: str | Path, *arguments: object, log: Path | None = None) -> subprocess.Popen[str]:
    """A Python process with the checkout and these tests at hand: a program, or a file with one."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return subprocess.Popen(
        [sys.executable, *([code] if isinstance(code, Path) else ["-c", code]), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, LOG: str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code: str, *arguments: object) -> tuple[str, str]:
    """What a process prints and complains of."""
    return start(code, *arguments).communicate(timeout=60)


def digest(path: Path) -> str:
    with reading(path) as store:
        return store.digest()


# --- declarations -------------------------------------------------------------------------------------------


def test_grid_is_a_product():
    networks = grid(depth=[2, 3], activation=["tanh", "relu"], init=[(2, 0.2), "eoc"], width=7)
    assert len(set(networks)) == 8
    assert {n.depth for n in networks} == {2, 3} and {n.width for n in networks} == {7}
    assert networks[0] == Network("mlp", 2, 7, "tanh", (2.0, 0.2))


def test_configuration_is_canonical_and_tells_tasks_apart():
    study = fake(fake_studies.numbers)
    tasks = list(study.tasks())
    assert len({task.key for task in tasks}) == len(tasks) == 12
    task = tasks[0]
    asked = json.loads(task.configuration)
    assert task.configuration == json.dumps(asked, sort_keys=True, separators=(",", ":"))
    assert task.key == (hashlib.sha256(task.configuration.encode()).hexdigest(), 0)
    # Whole and real numbers of one size are the same network.
    one, other = (replace(task, network=replace(task.network, init=init)) for init in [(2, 0), (2.0, 0.0)])
    assert one.key == other.key
    changed = [
        replace(task, criterion="grasp"),
        replace(task, sparsities=(0.4,)),
        replace(task, batch=Batch(seed=1)),
        replace(task, network=replace(task.network, width=9)),
        replace(task, measure=replace(task.measure, settings=(("steps", 3),))),
    ]
    assert len({t.configuration for t in [task, *changed]}) == 6


def test_equal_tasks_are_done_once():
    study = fake(fake_studies.numbers, seeds=2)
    doubled = replace(study, networks=study.networks * 2, criteria=("snip", "snip"))
    assert [t.key for t in doubled.tasks()] == [t.key for t in study.tasks()]


def test_studies_of_several_grids():
    one = fake(fake_studies.numbers, seeds=2)
    other = replace(one, criteria=("random",), seeds=3)
    both = replace(one, more=(other, one))
    keys = [task.key for task in both.tasks()]
    assert keys == [task.key for study in (one, other) for task in study.tasks()]
    assert {task.key for task in both.quick().tasks()} == {
        task.key for study in (one, other) for task in study.quick().tasks()
    }


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_declared_studies_can_be_built(study):
    """Every network exists and takes its data; the quick form is a part of the whole."""
    assert {t.key for t in study.quick().tasks()} < {t.key for t in study.tasks()}
    for network in study.networks:
        shape = (64,) if network.kind == "mlp" else study.batch.shape or (3, 32, 32)
        assert network.build(shape, 10).input_shape.channels == shape[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "seeds must be a whole number >= 1"),
        ({"networks": ()}, "networks of study 'fake-numbers' must hold at least one"),
        ({"sparsities": (1.0,)}, "sparsities must be a number in"),
    ],
)
def test_unusable_declarations_are_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        replace(fake(fake_studies.numbers), **change)
    with pytest.raises(ArgumentError, match="kind must be one of"):
        Network("transformer")
    with pytest.raises(ArgumentError, match="normalisation goes with"):
        Network("mlp", normalisation="batch")


# --- running ------------------------------------------------------------------------------------------------


def test_rows_say_what_when_where_and_with_what(tmp_path):
    study = fake(fake_studies.numbers)
    outcome = run(study, tmp_path / "store", place=Place(device="cpu"))
    assert (outcome.tasks, outcome.before, outcome.done, outcome.failures) == (12, 0, 12, ())
    with reading(tmp_path / "store") as store:
        rows = list(store.rows())
        assert store.study == study.name and len(store) == 12
        assert list(store.rows("fake")) == rows and list(store.rows("other")) == []
    assert {(row.hash, row.seed) for row in rows} == {task.key for task in study.tasks()}
    for row in rows:
        assert hashlib.sha256(row.configuration.encode()).hexdigest() == row.hash
        value = (row.asked["network"]["depth"] * 31 + row.seed) / 7
        assert row.found == {"value": value, "third": 1 / (3 + value), "odd": [None, "-inf", 5e-324]}
        assert {"eoc-theory", "numpy", "python"} <= set(json.loads(row.versions))
        assert row.device == "cpu" and row.seconds >= 0 and row.finished.endswith("+00:00")
    # Nothing lies beside a store that is not in use.
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_every_executor_gives_the_same_bits(tmp_path):
    study = fake(fake_studies.numbers, seeds=40)
    run(study, tmp_path / "here")
    with ThreadPoolExecutor(3) as threads:
        run(study, tmp_path / "threads", executor=threads)
    for workers in (1, 3):
        with processes(workers) as pool:
            assert run(study, tmp_path / f"{workers}", executor=pool).done == 80
    assert len({digest(path) for path in tmp_path.iterdir()}) == 1


def test_progress_counts_tasks(tmp_path):
    seen: list[tuple[int, int]] = []
    run(fake(fake_studies.numbers), tmp_path / "store", progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 12) for done in range(13)]


def test_resume_does_what_is_left(tmp_path):
    study, store = fake(fake_studies.numbers), tmp_path / "store"
    run(study.quick(), store)
    with pytest.raises(StoreError, match="holds 4 results already: --resume"):
        run(study, store)
    outcome = run(study, store, resume=True)
    assert (outcome.before, outcome.done) == (4, 8)
    before, told = store.read_bytes(), []
    assert run(study, store, resume=True, progress=lambda *counts: told.append(counts)).done == 0
    assert told == [(12, 12)] and store.read_bytes() == before
    run(study, tmp_path / "whole")
    assert digest(store) == digest(tmp_path / "whole")


def test_failures_are_told_and_tried_again(tmp_path):
    study, mended = fake(fake_studies.stumble), tmp_path / "mended"
    place = Place(folder=str(mended))
    outcome = run(study, tmp_path / "store", place=place)
    assert outcome.done == 10
    assert [(task.seed, reason) for task, reason in outcome.failures] == [
        (1, "ModelError: this one cannot be done")
    ] * 2
    mended.touch()
    assert run(study, tmp_path / "store", place=place, resume=True).done == 2


def test_dead_workers_are_an_error_that_keeps_what_is_done(tmp_path):
    study, store = fake(fake_studies.die), tmp_path / "store"
    with pytest.raises(WorkerError, match=r"a worker process died .* results are kept") as caught:
        with processes(1) as pool:
            run(study, store, executor=pool)
    with reading(store) as found:
        assert f"{len(found)} results are kept" in str(caught.value) and len(found) >= 2
        assert not {row.seed for row in found.rows()} & {2}


def test_an_interrupt_keeps_what_is_done(tmp_path):
    study, store = fake(fake_studies.interrupt), tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        run(study, store)
    with reading(store) as found:
        assert len(found) == 3


def test_an_interrupt_ends_workers_without_a_word(monkeypatch):
    """However soon they are gone: none of the pool's threads stumbles over a cancelled task."""
    end, complaints = BaseProcess.terminate, []

    def terminate(process):
        end(process)
        process.join()
        time.sleep(0.1)  # the pool's thread sees it first

    monkeypatch.setattr(BaseProcess, "terminate", terminate)
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    threads, start = set(threading.enumerate()), time.monotonic()
    with pytest.raises(KeyboardInterrupt), processes(2) as pool:
        waiting = [pool.submit(time.sleep, 60) for _ in range(64)]
        time.sleep(0.2)  # until the pool's thread has nothing else to wake up for
        for future in waiting:
            future.cancel()
        raise KeyboardInterrupt
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=20)
    assert not complaints and all(future.done() for future in waiting)
    assert time.monotonic() - start < 30


def test_dead_workers_end_the_pool_without_a_word(tmp_path, monkeypatch):
    """Nothing is cancelled while the pool's thread gives what is left its exception."""
    complaints = []
    give = Future.set_exception
    monkeypatch.setattr(Future, "set_exception", lambda *all: (time.sleep(0.01), give(*all)))
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    threads = set(threading.enumerate())
    with pytest.raises(WorkerError), processes(1) as pool:
        run(fake(fake_studies.die, seeds=20), tmp_path / "store", executor=pool)
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=20)
    assert not complaints


def test_a_gpu_and_a_thread_for_each_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert visible_gpus() == ("3", "GPU-5")
    with processes(2) as pool:
        run(fake(fake_studies.visible, seeds=8), tmp_path / "store", executor=pool)
    with reading(tmp_path / "store") as store:
        found = [row.found for row in store.rows()]
    seen = {one["process"]: one["CUDA_VISIBLE_DEVICES"] for one in found}
    assert sorted(seen.values()) == ["3", "GPU-5"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"1"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


def test_enough_tasks_are_under_way():
    with processes(40) as pool:
        assert window(pool) == 160


@pytest.mark.slow
def test_real_networks_give_the_same_bits_on_any_number_of_workers(tmp_path):
    small = STUDIES["small"]
    study = replace(small, networks=small.networks[:1], criteria=("snip",))
    run(study, tmp_path / "here")
    with processes(2) as pool:
        run(study, tmp_path / "two", executor=pool)
    assert digest(tmp_path / "here") == digest(tmp_path / "two")


@pytest.mark.slow
def test_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    study = fake(fake_studies.numbers, seeds=50)
    run(study, tmp_path / "here")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as local:
        with cluster(local.scheduler_address) as executor:
            assert window(executor) == 64
            assert run(study, tmp_path / "dask", executor=executor).done == 100
    assert digest(tmp_path / "here") == digest(tmp_path / "dask")


# --- killed -------------------------------------------------------------------------------------------------

WORK = """
import sys
import analysis
from analysis.executors import processes
from fake_studies import fake, mark

if __name__ == "__main__":
    with processes(2) as pool:
        print(analysis.run(fake(mark, seeds=60), sys.argv[1], executor=pool, resume=True).before)
"""


def run_killed(script: Path, store: Path, log: Path, after: float) -> bool:
    """Run the study and kill its process `after` seconds; whether it was killed before its end."""
    child = start(script, store, log=log)
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    _, errors = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGKILL), errors
    return child.returncode != 0


@needs_posix
@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    script, store, log = tmp_path / "work.py", tmp_path / "store", tmp_path / "log"
    script.write_text(WORK)
    chance = random.Random(7)
    kills, kept = 0, {}
    while kills < 20:
        log.write_text("")
        # From before the store is there to well into the work.
        killed = run_killed(script, store, log, chance.uniform(0.1, 1.1))
        if store.exists():
            with reading(store) as found:
                rows = {(row.hash, row.seed): row for row in found.rows()}
            # All that was there is there still, as it was, and none of it was done again.
            assert all(rows[key] == row for key, row in kept.items())
            done = [(line.split()[0], int(line.split()[1])) for line in log.read_text().splitlines()]
            assert not set(done) & set(kept)
            assert max(Counter(done).values(), default=1) == 1
            kept = rows
        if killed:
            kills += 1
        else:
            # Finished: begin anew.
            assert len(kept) == 120
            kept = {}
            store.unlink()
    assert not run_killed(script, store, log, 60)
    with reading(store) as found:
        assert sqlite3.connect(store).execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(found) == 120
    run(fake(fake_studies.numbers, seeds=60), tmp_path / "other")
    with reading(store) as one, reading(tmp_path / "other") as other:
        assert [row.result for row in one.rows()] == [row.result for row in other.rows()]


@needs_posix
def test_workers_end_with_the_process_that_is_killed(tmp_path):
    script, log = tmp_path / "work.py", tmp_path / "log"
    script.write_text(WORK)
    log.write_text("")
    child = start(script, tmp_path / "store", log=log)
    workers = wait_for(lambda: {int(line.split()[2]) for line in log.read_text().splitlines() if line})
    child.kill()
    child.communicate()
    assert wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_for(question):
    """The first answer that is true, asked for a minute at most."""
    for _ in range(1200):
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    return question()


# --- stores -------------------------------------------------------------------------------------------------


def test_two_runs_on_one_store_are_refused(tmp_path):
    study, store = fake(fake_studies.numbers), tmp_path / "store"
    with writing(store, study.name):
        with pytest.raises(StoreError, match=rf"is being written to by process {os.getpid()}: let that end"):
            run(study, store)
        refused, _ = output(
            "import sys; from analysis import run; from fake_studies import fake, numbers\n"
            "try: run(fake(numbers), sys.argv[1])\nexcept ValueError as error: print(error)",
            store,
        )
        assert f"is being written to by process {os.getpid()}: let that end first" in refused
        # To read is allowed.
        with reading(store) as found:
            assert len(found) == 0
    run(study, store)


@needs_posix
def test_the_lock_goes_with_its_process(tmp_path):
    holder = start(
        "import sys, time; from analysis.store import writing\n"
        "with writing(sys.argv[1], 'fake-numbers'): print('held', flush=True); time.sleep(60)",
        tmp_path / "store",
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=f"written to by process {holder.pid}"):
        run(fake(fake_studies.numbers), tmp_path / "store")
    holder.kill()
    holder.communicate()
    assert run(fake(fake_studies.numbers), tmp_path / "store").done == 12


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    foreign = tmp_path / "other.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE study (name)")
    connection.close()
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("not a database, " * 100)
    empty.touch()
    study = fake(fake_studies.numbers)
    for path in (foreign, text, empty):
        before = path.read_bytes()
        with pytest.raises(StoreError, match="is not a results file") as caught:
            run(study, path, resume=True)
        assert "\n" not in str(caught.value) and repr(str(path)) in str(caught.value)
        with pytest.raises(StoreError, match="is not a results file"), reading(path):
            pass
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="does not exist"), reading(tmp_path / "nothing"):
        pass
    with pytest.raises(StoreError, match="cannot be used"):
        run(study, text / "below")
    with pytest.raises(StoreError, match="is not a file"):
        run(study, tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other.sqlite", "text"]


def test_stores_of_other_studies_and_schemas_are_refused(tmp_path):
    store = tmp_path / "store"
    run(fake(fake_studies.numbers), store)
    with pytest.raises(StoreError, match="holds results of study 'fake-numbers', not of 'fake-mark'"):
        run(fake(fake_studies.mark), store, resume=True)
    with sqlite3.connect(store) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match=r"has schema 99, this version reads schema \d"):
        run(fake(fake_studies.numbers), store, resume=True)


def test_a_damaged_store_is_an_error(tmp_path):
    store = tmp_path / "store"
    run(fake(fake_studies.numbers), store)
    content = store.read_bytes()
    store.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    with pytest.raises(StoreError, match="cannot be used"):
        run(fake(fake_studies.numbers), store, resume=True)


def test_a_full_disk_leaves_the_store_whole(tmp_path, monkeypatch):
    study, store = fake(fake_studies.numbers, seeds=200), tmp_path / "store"
    opened = analysis.store._connect

    def small(path, mode):
        connection = opened(path, mode)
        connection.execute("PRAGMA max_page_count = 24")
        return connection

    monkeypatch.setattr(analysis.store, "_connect", small)
    with pytest.raises(StoreError, match="cannot be used: database or disk is full"):
        run(study, store)
    monkeypatch.undo()
    with reading(store) as found:
        before = {(row.hash, row.seed): row for row in found.rows()}
    assert 0 < len(before) < 400
    # Room again.
    assert run(study, store, resume=True).before == len(before)
    with reading(store) as found:
        rows = {(row.hash, row.seed): row for row in found.rows()}
    assert len(rows) == 400 and all(rows[key] == row for key, row in before.items())


@needs_posix
def test_a_file_that_may_not_grow_leaves_the_store_whole(tmp_path):
    """A real limit of the operating system, met in the middle of a write."""
    store = tmp_path / "store"
    said, errors = output(
        "import resource, sys; from analysis import run; from fake_studies import fake, numbers\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "try: run(fake(numbers, seeds=400), sys.argv[1])\n"
        "except ValueError as error: print(type(error).__name__, error)",
        store,
    )
    assert said.startswith("StoreError store ") and said.count("\n") == 1, errors
    with reading(store) as found:
        count = len(found)
    assert 0 < count < 800
    assert run(fake(fake_studies.numbers, seeds=400), store, resume=True).before == count
    run(fake(fake_studies.numbers, seeds=400), tmp_path / "other")
    assert digest(store) == digest(tmp_path / "other")


def test_rows_are_written_all_or_none(tmp_path):
    store = tmp_path / "store"
    run(fake(fake_studies.numbers), store)
    with reading(store) as found:
        rows = list(found.rows())
    fresh = replace(rows[0], seed=99)
    with writing(store, "fake-numbers") as results:
        with pytest.raises(StoreError, match="UNIQUE"):
            results.add([fresh, rows[0]])
        assert len(results) == 12
        results.add([fresh])
        assert len(results) == 13


def test_measures_with_settings_have_rows_of_their_own(tmp_path):
    base = fake(fake_studies.numbers, seeds=1, networks=1)
    both = tuple(Measure("fake", fake_studies.numbers, settings=(("steps", n),)) for n in (1, 2))
    study: Study = replace(base, measures=both)
    run(study, tmp_path / "store")
    with reading(tmp_path / "store") as store:
        assert [row.asked["settings"] for row in store.rows()] == [{"steps": 1}, {"steps": 2}]
