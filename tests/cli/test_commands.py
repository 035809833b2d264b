"""How the commands end that are run from a checkout, and what all commands do about their streams."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from eoc_theory.cli.output import print_table

ROOT = Path(__file__).resolve().parents[2]
PRINTS = "from eoc_theory.cli.output import run_command; raise SystemExit(run_command('it', {}))"
LONG = "lambda: print('x' * 10**6, flush=True) or 0"


def run(code: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **options
    )


@pytest.mark.parametrize("name", ["benchmarks", "docs.generate", "figures", "paper_checks"])
@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"]])
def test_unusable_arguments_are_one_line(name, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        import_module(f"{name}.__main__").main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.out == ""
    assert printed.err.startswith(f"python -m {name}: ") and printed.err.count("\n") == 1
    assert "nonsense" in printed.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("call", [LONG, "lambda: print('x') or 0"])
def test_a_full_disk_is_one_line(call):
    with open("/dev/full", "w") as full:
        done = run(PRINTS.format(call), stdout=full)
    assert (done.returncode, done.stderr) == (1, "it: [Errno 28] No space left on device\n")


def test_a_reader_that_has_seen_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = run(PRINTS.format(LONG), stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_is_one_line():
    done = run(PRINTS.format("lambda: (_ for _ in ()).throw(KeyboardInterrupt)"))
    assert (done.returncode, done.stderr) == (130, "it: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor")
@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams_swallow_what_is_printed(closed):
    options = {"stdout": subprocess.PIPE} if closed == 2 else {}
    again = f"os.execl({sys.executable!r}, 'python', '-m', 'eoc_theory', 'init', 'tanh')"
    done = run(f"import os; os.close({closed}); {again}", **options)
    assert done.returncode == 0 and done.stderr == ""
    assert closed == 1 or done.stdout.startswith("tanh: edge of chaos")


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_tables_fold_where_a_window_is_narrow_and_lose_nothing(columns, monkeypatch, capsys):
    monkeypatch.setattr("eoc_theory.cli.output.line_width", lambda: columns)
    cells = ["stages.2.1.shortcut.0", *(f"0.{i:010d}" for i in range(20))]
    print_table(cells, [cells], note="all of it")
    *lines, note = capsys.readouterr().out.splitlines()
    assert note == "all of it"
    tables = "\n".join(lines).split("\n\n")
    assert all(len(line) <= max(columns, 21 + 3 + 12) for line in lines)
    assert (len(tables) == 1) == (columns > 21 + 20 * 15)
    rows = [(head.split(), row.split()) for head, _, row in (table.splitlines() for table in tables)]
    assert all(head == row and head[0] == cells[0] for head, row in rows)
    assert [cell for head, _ in rows for cell in head[1:]] == cells[1:]


def test_tables_in_a_pipe_stay_in_one_piece_up_to_200_characters(capsys):
    cells = ["layer", *(f"0.{i:08d}" for i in range(12))]
    print_table(cells, [cells])
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split() == row.split() == cells
