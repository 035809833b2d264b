"""How far long work is: said on a terminal, with what is left, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import eoc_theory as eoc
from eoc_theory.base.progress import followed, listened_to
from eoc_theory.cli.progress import Stages
from eoc_theory.propagation.shared import forget_recent


def test_who_listens_is_told_of_each_item():
    told = []
    with listened_to(lambda *now: told.append(now)):
        assert list(followed("abc", "letter", 3)) == ["a", "b", "c"]
    assert told == [("letter", 0, 3), ("letter", 1, 3), ("letter", 2, 3)]
    assert list(followed("abc", "letter", 3)) == ["a", "b", "c"] and len(told) == 3


def test_what_is_computed_does_not_depend_on_who_listens():
    net, told = eoc.mlp(6, 10, activation="relu"), []
    alone = eoc.predict_collapse(net).samples
    forget_recent()
    with listened_to(lambda *now: told.append(now)):
        heard = eoc.predict_collapse(net).samples
        eoc.predict_pruning(net, 0.9)
        eoc.predict_pruning(eoc.cnn(3, 4, input_shape=(1, 6, 6)), 0.9, criterion="synflow")
    assert (alone == heard).all()
    stages = {what for what, _, _ in told}
    assert {"sampled network", "simulated network", "kernels forwards, layer"} <= stages
    assert all(0 <= done < total for _, done, total in told)


def test_the_time_left_is_that_of_the_pace_so_far():
    shown, now = [], [0.0]
    stages = Stages(shown.append, clock=lambda: now[0])
    for done in range(10):
        stages("layer", done, 10)
        now[0] += 3.0
    assert shown[0] == "layer 1 of 10"
    assert shown[4] == "layer 5 of 10, about 18 s left of this"
    # Another stage begins anew, and what changes too fast is not shown.
    for done in range(3):
        stages("network", done, 100)
        now[0] += 0.15
    assert shown[10:] == ["network 1 of 100", "network 3 of 100"]


COMMANDS = {
    "kernels forwards, layer": "predict --activation relu --depth 150 --width 20 --sparsity 0.9",
    "sampled network": "collapse --activation relu --depth 20 --width 60",
    "predicting": "compare --activation relu --depth 5 --width 20 --sparsity 0.9 --seeds 2",
}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS)
def test_commands_say_how_far_they_are_on_a_terminal_alone(words):
    pty = pytest.importorskip("pty")
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "eoc_theory", *COMMANDS[words].split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "160"}
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert piped.stderr == "" and words not in piped.stdout
    terminal, end = pty.openpty()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # its other end is closed
            break
        if not part:
            break
        seen += part
    assert child.stdout is not None
    printed = child.stdout.read().decode()
    assert child.wait() == 0
    os.close(terminal)
    assert words in seen.decode(errors="replace")
    assert printed == piped.stdout
