"""``python -m analysis``: runs, summaries, tables, and errors in one line with their exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fake_studies
import numpy as np
import pandas as pd
import pytest
from fake_studies import fake

import analysis.__main__ as command
import eoc_theory as eoc
from analysis import Network, Place, reading, run
from analysis.__main__ import main
from analysis.measures import PRUNING, THEORY
from analysis.studies import STUDIES

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(
    STUDIES["small"],
    networks=(Network("mlp", 4, 20), Network("mlp", 4, 20, init=(1.0, 0.2))),
    criteria=("magnitude",),
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A store of real results."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("analysis") / "tiny.sqlite"
    run(TINY, path, place=Place(device="cpu"))
    return path


def study_of(monkeypatch, function, **size) -> None:
    """The command's study "small" is now one of `fake_studies`."""
    monkeypatch.setattr(command, "STUDIES", {"small": fake(function, **size)})


def test_list(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name, study in STUDIES.items():
        (line,) = (line for line in said.splitlines() if line.startswith(f"{name} "))
        assert str(len(list(study.tasks()))) in line and study.about in line


def test_run_resume_and_quick(tmp_path, capsys, monkeypatch):
    study_of(monkeypatch, fake_studies.numbers)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "small", "--quick"]) == 0
    assert capsys.readouterr().out == "4 results written to results/small.sqlite, 0 were there\n"
    assert main(["run", "small"]) == 1
    assert "holds 4 results already: --resume goes on" in capsys.readouterr().err
    assert main(["run", "small", "--resume"]) == 0
    said = capsys.readouterr()
    assert said.out == "8 results written to results/small.sqlite, 4 were there\n"
    # No terminal, no progress.
    assert said.err == ""
    assert [path.name for path in Path("results").iterdir()] == ["small.sqlite"]
    assert main(["run", "small", "--store", "other", "--workers", "2"]) == 0
    capsys.readouterr()
    digests = []
    for options in ([], ["--store", "other"]):
        assert main(["summary", "small", "--json", *options]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("store", ["", "."])
@pytest.mark.parametrize("command", [["run", "small"], ["summary", "small"], ["export", "small", "x.csv"]])
def test_a_store_without_a_name_is_one_line(command, store, capsys):
    assert main([*command, "--store", store]) == 1
    assert capsys.readouterr().err == "analysis: store must be a file, got '.'\n"


def test_failed_tasks_end_with_1(tmp_path, capsys, monkeypatch):
    study_of(monkeypatch, fake_studies.stumble)
    assert main(["run", "small", "--store", str(tmp_path / "store")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("10 results written")
    assert (
        "2 of 12 tasks failed; the first: ModelError: this one cannot be done (fake, snip, seed 1" in said.err
    )
    assert said.err.count("\n") == 1


def test_an_interrupt_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    study_of(monkeypatch, fake_studies.interrupt)
    store = str(tmp_path / "my store")
    assert main(["run", "small", "--store", store, "--device", "cpu"]) == 130
    said = capsys.readouterr().err
    assert "interrupted; 3 of 12 results are kept" in said and said.count("\n") == 1
    assert f"python -m analysis run small --store '{store}' --device cpu --resume" in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_reaches_all_processes_at_once(tmp_path):
    """As a terminal sends it: to the whole group, workers too."""
    code = (
        "import signal, sys, analysis.__main__ as command; from fake_studies import fake, mark\n"
        "if __name__ == '__main__':\n"
        # What a shell starts in the background is deaf to it, and so is all that it starts.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    command.STUDIES = {'small': fake(mark, seeds=200)}; sys.exit(command.main(sys.argv[1:]))\n"
    )
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(code)
    log.touch()
    child = subprocess.Popen(
        [sys.executable, script, "run", "small", "--workers", "2", "--store", tmp_path / "store"],
        env={
            **os.environ,
            fake_studies.LOG: str(log),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(1200):
        if len(log.read_text().splitlines()) > 20:
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    said, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert said == "" and errors.count("\n") == 1, errors
    assert "of 400 results are kept" in errors and "--workers 2" in errors and "--resume" in errors


def test_unusable_arguments_end_with_2(capsys):
    for arguments, message in [
        (["run", "nonsense"], "invalid choice: 'nonsense'"),
        (["run", "small", "--workers", "0"], "must be at least 1, got 0"),
        (["run", "small", "--workers", "1", "--scheduler", "tcp://x"], "exclude each other"),
        (["export", "small", "table.xlsx"], "file must end in .csv or .parquet, got 'table.xlsx'"),
        ([], "is missing"),
    ]:
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


def test_missing_packages_and_stores_end_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["summary", "small"]) == 1
    assert "store 'results/small.sqlite' does not exist" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", "small", "table.parquet"]) == 1
    assert "needs pyarrow" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["run", "small", "--scheduler", "tcp://127.0.0.1:1"]) == 1
    assert "pip install 'eoc-theory[cluster]'" in capsys.readouterr().err


# --- what the numbers say -----------------------------------------------------------------------------------


def test_stored_numbers_are_those_of_the_library(filled):
    """Each row again, straight from the library."""
    from analysis import reading

    with reading(filled) as store:
        rows = list(store.rows())
    assert {row.measure for row in rows} == {THEORY.name, PRUNING.name}
    assert len(rows) == 2 * (1 + TINY.seeds)
    for row in rows:
        init = row.asked["network"]["init"]
        net = eoc.mlp(4, 20, init=init if isinstance(init, str) else tuple(init))
        data = eoc.digits(20)
        if row.measure == "theory":
            pruning = eoc.predict_pruning(net, [0.5, 0.9], criterion="magnitude", data=data)
            collapse = eoc.predict_collapse(net, criterion="magnitude", data=data)
            np.testing.assert_array_equal(row.found["kept"], pruning.kept)
            assert row.found["critical_sparsity"] == collapse.critical_sparsity
        else:
            found = eoc.measure_pruning(
                net.to_torch(row.seed), [0.5, 0.9], criterion="magnitude", data=data, device="cpu"
            )
            np.testing.assert_array_equal(row.found["kept_weights"] / net.weights, found.kept)
            assert row.found["critical_sparsity"] == found.critical_sparsity


def test_summary(filled, capsys):
    assert main(["summary", "small", "--store", str(filled), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["study"] == "small" and said["results"] == 8 and len(said["networks"]) == 2
    for line in said["networks"]:
        assert line["seeds"] == TINY.seeds and 0 <= line["kept_error"] < 0.1
        assert abs(line["critical_sparsity"] - line["measured_critical_sparsity"]) < 0.1
    assert main(["summary", "small", "--store", str(filled)]) == 0
    table = capsys.readouterr().out
    assert "mlp tanh 4x20" in table and "1,0.2" in table and "8 results of study small" in table


def test_export(filled, tmp_path, capsys):
    paths = {table: tmp_path / f"{table}.csv" for table in ("networks", "layers")}
    for table, path in paths.items():
        assert main(["export", "small", str(path), "--table", table, "--store", str(filled)]) == 0
    networks, layers = (pd.read_csv(path) for path in paths.values())
    assert len(networks) == 8 * 2 and len(layers) == 8 * 2 * 4
    # The layers' kept weights make up the networks'.
    layers["left"] = layers["kept"] * layers["weights"]
    keys = ["measure", "init", "seed", "sparsity"]
    whole = layers.groupby(keys)[["left", "weights"]].sum()
    whole = (whole["left"] / whole["weights"]).reset_index(name="kept")
    joined = networks.merge(whole, on=keys, suffixes=("", "_summed"))
    assert len(joined) == 16
    np.testing.assert_allclose(joined["kept"], joined["kept_summed"], atol=1e-12)
    measured = networks[networks["measure"] == "pruning"]
    np.testing.assert_allclose(measured["kept"], 1 - measured["sparsity"], atol=1e-3)
    before = paths["networks"].read_bytes()
    assert main(["export", "small", str(paths["networks"]), "--store", str(filled)]) == 0
    assert paths["networks"].read_bytes() == before
    assert main(["export", "small", str(tmp_path / "no" / "x.csv"), "--store", str(filled)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_export_to_parquet(filled, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "layers.parquet"
    assert main(["export", "small", str(path), "--table", "layers", "--store", str(filled)]) == 0
    frame = pd.read_parquet(path)
    assert len(frame) == 64 and set(frame["measure"]) == {"theory", "pruning"}


def test_export_of_rows_has_every_number_of_any_measure(filled, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert main(["export", "small", str(path), "--table", "rows", "--store", str(filled)]) == 0
    frame = pd.read_csv(path)
    with reading(filled) as store:
        rows = list(store.rows())
    assert list(frame["measure"]) == [row.measure for row in rows]
    expected = [row.found["critical_sparsity"] for row in rows]
    np.testing.assert_array_equal(frame["critical_sparsity"], expected)
    before = path.read_bytes()
    assert main(["export", "small", str(path), "--table", "training", "--store", str(filled)]) == 1
    assert "holds nothing for table 'training'" in capsys.readouterr().err
    assert path.read_bytes() == before
