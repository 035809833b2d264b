"""Stores under other names, damaged tables and rows, clusters that end: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import fake_studies
import pytest
from fake_studies import fake

import analysis
from analysis import StoreError, WorkerError, reading, run
from analysis.__main__ import main
from analysis.executors import cluster
from analysis.store import writing

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"

needs_posix = pytest.mark.skipif(os.name != "posix", reason="links and signals")
STUDY = fake(fake_studies.numbers)


@pytest.fixture
def store(tmp_path) -> Path:
    run(STUDY, tmp_path / "store")
    return tmp_path / "store"


def change(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def held_by_another(path: Path) -> subprocess.Popen[str]:
    """A process that is writing to the store."""
    code = (
        "import sys; from analysis.store import writing\n"
        "with writing(sys.argv[1], 'fake-numbers'): print('held', flush=True); sys.stdin.read()"
    )
    root = ROOT
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def names(store: Path) -> dict[str, Path]:
    """The store by other names."""
    folder = store.parent
    (folder / "below").mkdir()
    (folder / "soft").symlink_to(store)
    (folder / "softer").symlink_to(folder / "soft")
    (folder / "folder").symlink_to(folder)
    (folder / "below" / "hard").hardlink_to(store)
    return {
        "symbolic link": folder / "soft",
        "link to a link": folder / "softer",
        "through a folder's link": folder / "folder" / store.name,
        "hard link": folder / "below" / "hard",
        "detour": folder / "below" / ".." / store.name,
        "relative": Path(os.path.relpath(store)),
    }


@needs_posix
def test_a_store_is_locked_by_whatever_name(store):
    others = names(store)
    with writing(store, "fake-numbers"):
        for kind, path in others.items():
            with pytest.raises(StoreError, match=f"written to by process {os.getpid()}"):
                with writing(path, "fake-numbers"):
                    pytest.fail(kind)
    for first, second in ((store, others["hard link"]), (others["symbolic link"], store)):
        child = held_by_another(first)
        try:
            for kind, path in {**others, "itself": store, "second": second}.items():
                with pytest.raises(StoreError, match=r"is being written to by (another )?process"):
                    run(STUDY, path, resume=False)
                    pytest.fail(kind)
        finally:
            child.communicate("")
    for path in others.values():
        with writing(path, "fake-numbers") as results:
            assert len(results) == 12


@needs_posix
def test_a_link_to_a_store_that_is_not_there_yet_makes_it(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "store")
    assert run(STUDY, tmp_path / "link").done == 12
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "real") == ["store"]


@needs_posix
def test_rows_beside_another_hard_link_are_not_written_over(store, tmp_path):
    other = tmp_path / "below"
    other.mkdir()
    (other / "hard").hardlink_to(store)
    # Killed in the middle of its work: the last row is in the journal only.
    code = (
        "import os, sys; from dataclasses import replace; from analysis.store import writing\n"
        "with writing(sys.argv[1], 'fake-numbers') as results:\n"
        "    results.add([replace(next(results.rows()), seed=99)]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(store)], cwd=ROOT)
    assert (tmp_path / "store-wal").exists()
    with pytest.raises(StoreError, match="use that one first"):
        run(STUDY, other / "hard", resume=True)
    with pytest.raises(StoreError, match="use that one first"), reading(other / "hard"):
        pass
    with writing(store, "fake-numbers") as results:
        assert len(results) == 13
    with writing(other / "hard", "fake-numbers") as results:
        assert len(results) == 13


@needs_posix
def test_two_processes_that_make_one_store_get_one(tmp_path):
    code = (
        "import sys; from analysis import run; from fake_studies import fake, numbers\n"
        "try: print(run(fake(numbers, seeds=40), sys.argv[1], resume=True).tasks)\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    made = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "store")],
            cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [child.communicate()[0] for child in made]
    assert any(line.startswith("80") for line in said)
    assert all(line.startswith(("80", "StoreError")) and line.count("\n") == 1 for line in said), said
    assert os.listdir(tmp_path) == ["store"]
    with reading(tmp_path / "store") as found:
        assert len(found) == 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are forked off")
def test_a_process_that_was_forked_off_does_not_hold_the_lock(store):
    with writing(store, "fake-numbers"):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with writing(store, "fake-numbers"):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


#: What is done to the tables, and what is said of them.
TABLES = {
    "no study": (["DELETE FROM study"], "must say the one study"),
    "two studies": (["INSERT INTO study VALUES ('other')"], "must say the one study"),
    "a study of bytes": (["UPDATE study SET name = x'ff'"], "must say the one study"),
    "no table of studies": (["DROP TABLE study"], "no such table: study"),
    "no table of results": (["DROP TABLE results"], "its results have columns"),
    "half a table": (["ALTER TABLE results DROP COLUMN seconds"], "its results have columns"),
    "another schema": (["PRAGMA user_version = 7"], "has schema 7"),
    "another application": (["PRAGMA application_id = 7"], "is not a results file"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_damaged_tables_are_one_line_and_left_alone(store, kind, capsys):
    statements, said = TABLES[kind]
    change(store, *statements)
    before = store.read_bytes()
    for resume in (True, False):
        with pytest.raises(StoreError, match=said) as caught:
            run(STUDY, store, resume=resume)
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match=said), reading(store):
        pass
    assert store.read_bytes() == before
    for command in ("summary", "run"):
        assert main([command, "phases", "--store", str(store)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


#: What becomes of one row.
ROWS = {
    "half of its JSON": "result = substr(result, 1, 10)",
    "no JSON": "result = 'abc'",
    "nothing": "result = ''",
    "an empty object": "result = '{}'",
    "no object": "result = 'null'",
    "bytes": "result = x'ff00'",
    "a bare nan": """result = '{"value":NaN}'""",
    "another configuration": "configuration = replace(configuration, '10', '11')",
    "half of its configuration": "configuration = substr(configuration, 1, 10)",
    "a seed that is no number": "seed = 'abc'",
    "another measure": "measure = 'other'",
    "versions": "versions = '{'",
}


@pytest.mark.parametrize("kind", ROWS)
def test_damaged_rows_are_not_done_and_are_done_anew(store, kind):
    with reading(store) as found:
        digest = found.digest()
    change(store, f"UPDATE results SET {ROWS[kind]} WHERE rowid = 3")
    with reading(store) as found:
        assert len(found.keys()) == 11
        with pytest.raises(StoreError, match=r"has a damaged row .* --resume does it again"):
            list(found.rows())
    outcome = run(STUDY, store, resume=True)
    assert (outcome.done, outcome.before, outcome.damaged) == (1, 11, 1)
    with reading(store) as found:
        assert found.digest() == digest
    assert run(STUDY, store, resume=True).damaged == 0


def test_every_row_may_be_damaged(store):
    with reading(store) as found:
        digest = found.digest()
    change(store, "UPDATE results SET result = 'x'")
    assert run(STUDY, store, resume=True).damaged == 12
    with reading(store) as found:
        assert found.digest() == digest


def test_the_command_says_what_was_done_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(analysis.__main__.STUDIES, "phases", STUDY)
    store = str(tmp_path / "store")
    assert main(["run", "phases", "--store", store]) == 0
    change(Path(store), "UPDATE results SET result = '[' WHERE rowid < 4")
    capsys.readouterr()
    assert main(["run", "phases", "--store", store, "--resume"]) == 0
    assert "3 results written to" in (said := capsys.readouterr().out)
    assert "3 of them in place of damaged rows, 9 were there" in said


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", b"x", 3, None])
def test_names_that_are_none_are_refused(name):
    for call in (lambda: run(STUDY, name), lambda: reading(name).__enter__()):
        with pytest.raises(analysis.engine.EOCError, match="store must be a path"):
            call()


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("what", ["scheduler", "worker"])
def test_a_cluster_that_ends_is_one_line(tmp_path, monkeypatch, what, capfd):
    pytest.importorskip("distributed")
    log, address = tmp_path / "log", tmp_path / "address"
    path = os.pathsep.join(map(str, (TESTS, ROOT)))
    for name, value in {"FAKE_STUDY_LOG": str(log), "PYTHONPATH": path}.items():
        monkeypatch.setenv(name, value)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    of = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [*of, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", address],
        **quiet,
    )  # fmt: skip
    while not address.exists() or not address.read_text():
        time.sleep(0.1)
    where = json.loads(address.read_text())["address"]
    worker = subprocess.Popen([*of, "distributed.cli.dask_worker", where, "--nthreads", "1"], **quiet)

    def end() -> None:
        while not log.exists() or log.read_text().count("\n") < 10:
            time.sleep(0.05)
        scheduler.kill()
        if what == "worker":
            worker.kill()

    threading.Thread(target=end, daemon=True).start()
    study = fake(fake_studies.mark, seeds=200)
    try:
        with pytest.raises(WorkerError, match=r"the scheduler died .* results are kept .* --resume goes on$"):
            with cluster(where) as executor:
                run(study, tmp_path / "store", executor=executor)
    finally:
        for child in (scheduler, worker):
            child.kill()
            child.wait()
    assert capfd.readouterr().err == ""
    with reading(tmp_path / "store") as found:
        before = len(found)
    assert 0 < before < 400
    assert run(study, tmp_path / "store", resume=True).before == before


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_one_line(capsys):
    pytest.importorskip("distributed")
    for address in ("tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1", "\x1b[31m"):
        assert main(["run", "phases", "--quick", "--scheduler", address, "--store", "unused"]) in (1, 2)
        said = capsys.readouterr().err
        assert said.startswith("analysis: scheduler ") and said.count("\n") == 1
        assert "\x1b" not in said
