"""``eoc attention``: what it prints, draws and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.cli.parser import grid

AXES = ["--score-scale", "0.1:30:6:log", "--residual-strength", "0.2,1,3", "--norm", "post", "--tokens", "16"]


def run(capsys, *words):
    """What a command prints."""
    assert main(["attention", *AXES, *words]) == 0
    return capsys.readouterr().out


def test_text_and_picture(capsys, tmp_path):
    path = tmp_path / "attention.svg"
    out = run(capsys, "--plot", str(path))
    assert "rank-collapsed" in out and "post-LN transformer, 12 blocks, 16 tokens, gelu MLP" in out
    assert path.exists() and str(path) in out
    rows = [line.split() for line in out.splitlines() if line.lstrip().startswith(("0.2 ", "1 ", "3 "))]
    found = eoc.attention_phase(np.geomspace(0.1, 30, 6), [0.2, 1.0, 3.0], norm="post", tokens=16)
    letters = {"rank-collapsed": "r", "entropy-collapsed": "e", "exploding": "x", "trainable": "t"}
    assert [row[1::3] for row in rows] == [[letters[name] for name in line] for line in found.phase.tolist()]


def test_json_is_the_result(capsys):
    text = run(capsys, "--json")
    found = eoc.attention_phase(np.geomspace(0.1, 30, 6), [0.2, 1.0, 3.0], norm="post", tokens=16)
    assert json.loads(text)["phase"] == found.phase.tolist()
    again = eoc.AttentionPhase.from_json(text)
    np.testing.assert_allclose(again.score_scale, found.score_scale, rtol=1e-12)
    np.testing.assert_allclose(again.similarity, found.similarity, rtol=1e-9)
    alone = json.loads(run(capsys, "--activation", "none", "--skip", "0", "--gain", "2", "--json"))
    assert alone["activation"] is None and alone["skip"] == 0.0 and alone["gain"] == 2.0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--norm", "batch"], "norm"),
        (["--score-scale", "0:1:3:log"], "LOW:HIGH:POINTS:log"),
        (["--score-scale", "1:2:3:lin"], "LOW:HIGH:POINTS:log"),
        (["--score-scale", "1,100"], "--score-scale"),
        (["--residual-strength", "0"], "--residual-strength"),
        (["--tokens", "1"], "tokens"),
        (["--activation", "nothing"], "nothing"),
        (["--plot", "phase.jpg"], ".svg"),
    ],
)
def test_errors_are_one_line(capsys, words, named):
    try:
        code = main(["attention", *words])
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    assert code != 0 and not shown.out
    assert named in shown.err and shown.err.count("\n") == 1 and "Traceback" not in shown.err


def test_logarithmic_grids():
    np.testing.assert_allclose(grid("0.1:10:5:log"), np.geomspace(0.1, 10, 5), rtol=1e-12)
    assert grid("0.5:8:1:log") == [0.5] and grid("2:8:2:log") == [2.0, 8.0]
