"""Requests beyond memory or sense are refused beforehand, naming the argument and what would do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.base import checks
from eoc_theory.cli import main
from eoc_theory.errors import TooLargeError

MANY = 10**9

#: What the message names, and the request.
REQUESTS = {
    "depth must be at most 100000": lambda: eoc.mlp(10**6, 10),
    "depth must be at most 10000": lambda: eoc.cnn(10**6, 10),
    "depth must be at most 10000, got": lambda: eoc.resnet(6 * 10**5 + 2),
    "layers must hold fewer than": lambda: eoc.mlp(3, 2**33),
    "layers must hold fewer": lambda: eoc.cnn(3, MANY),
    "width 1000000000 in 16 sampled": lambda: eoc.predict_pruning(eoc.mlp(3, MANY), 0.5),
    "width 1000000000 in 64 sampled": lambda: eoc.predict_collapse(eoc.mlp(3, MANY)),
    "synflow on": lambda: eoc.predict_pruning(eoc.mlp(3, MANY), 0.5, criterion="synflow"),
    "width 1000000: synflow would": lambda: eoc.predict_pruning(
        eoc.cnn(3, 10**6, input_shape=(3, 8, 8)), 0.5, criterion="synflow"
    ),
    "width 2000000: synflow would": lambda: eoc.predict_collapse(
        eoc.cnn(3, 2 * 10**6, input_shape=(3, 8, 8)), criterion="synflow"
    ),
    "inputs of 1000000000 features": lambda: eoc.predict_pruning(eoc.mlp(3, 10, in_features=MANY), 0.5),
    "1000000000 classes": lambda: eoc.predict_pruning(eoc.mlp(3, 10, out_features=MANY), 0.5),
    "inputs of 30000000000 features": lambda: eoc.predict_pruning(
        eoc.cnn(3, 4, input_shape=(3, 10**5, 10**5)), 0.5
    ),
    "batch of 1000000 inputs": lambda: eoc.predict_pruning(
        eoc.mlp(3, 10, in_features=1), 0.5, data=(np.ones((10**6, 1)), np.arange(10**6) % 10)
    ),
    "samples must be at most 10000": lambda: eoc.predict_pruning(eoc.mlp(3, 10), 0.5, samples=MANY),
    "samples must be at most 10000, got": lambda: eoc.predict_collapse(eoc.mlp(3, 10), samples=MANY),
    "networks must be at most": lambda: eoc.design(eoc.mlp(3, 10), 0.5, networks=MANY),
    "sparsity must hold at most 10000": lambda: eoc.predict_pruning(
        eoc.mlp(3, 10), np.broadcast_to(0.5, 10**8)
    ),
    "sigma_b must be at most 1000000": lambda: eoc.critical_curve("tanh", sigma_b=np.zeros(10**7)),
    "sigma_w and sigma_b must make at most": lambda: eoc.phase_diagram(
        "tanh", sigma_w=np.linspace(1, 2, 10**5), sigma_b=np.linspace(0, 1, 10**5)
    ),
    "x must hold at most": lambda: eoc.activation("tanh")(np.broadcast_to(np.float32(1), (10**6, 10**6))),
    "depth must be at most 10000000": lambda: eoc.MeanField("tanh", 1.5).iterate_variance(1.0, 10**12),
    "depth 10000000 from": lambda: eoc.MeanField("tanh", 1.5).iterate_correlation(np.zeros(10**6), 10**7),
    "shape 3×100000×100000": lambda: eoc.digits_images(10, (3, 10**5, 10**5)),
    "batch 1000000000": lambda: eoc.propagate_summary(eoc.mlp(3, 10), batch=MANY),
}


@pytest.fixture(autouse=True)
def one_machine(monkeypatch):
    """The budget of a machine of 16 GiB, wherever the tests run."""
    monkeypatch.setattr(checks, "memory_budget", lambda: 8 * 2**30)


@pytest.mark.parametrize("named", REQUESTS)
def test_it_is_refused_and_named(named):
    with pytest.raises(TooLargeError, match=named.replace("×", ".")) as caught:
        REQUESTS[named]()
    assert "fits into memory" not in str(caught.value)  # it was not tried


def test_drawing_too_many_weights_is_refused():
    pytest.importorskip("torch")
    with pytest.raises(TooLargeError, match=r"drawing the 1000074000000 weights .* 3.64 TiB .* 8 GiB"):
        eoc.mlp(3, 10**6).to_torch()
    with pytest.raises(TooLargeError, match="drawing the"):
        eoc.compare(eoc.mlp(3, 40_000), 0.5, seeds=1)
    with pytest.raises(TooLargeError, match="seeds must be at most"):
        eoc.compare(eoc.mlp(3, 10), 0.5, seeds=MANY)


COMMANDS = {
    "sigma-b must have at most 1000000 points": "curve tanh --sigma-b 0:1:1000000000",
    "must make at most 10000000 points": "phase tanh --sigma-w 1:2:100000 --sigma-b 0:1:100000",
    "depth must be at most": "predict --activation tanh --depth 1000000 --width 10 --sparsity 0.5",
    "width 1000000000": "collapse --activation tanh --depth 3 --width 1000000000",
    "samples must be": "predict --activation tanh --depth 3 --width 9 --sparsity 0.5 --samples 1000000000",
    "seeds must be at most": "compare --activation relu --depth 3 --width 9 --sparsity 0 --seeds 1000000000",
}


@pytest.mark.parametrize("named", COMMANDS)
def test_commands_refuse_it_in_one_line(named, capsys):
    assert main(COMMANDS[named].split()) == 2
    printed = capsys.readouterr()
    assert named in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_label_of_a_milliard_is_refused(tmp_path, capsys):
    inputs, targets = np.ones((4, 3)), np.array([0, 1, 2, 10**9])
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    words = f"predict --activation tanh --depth 3 --width 9 --sparsity 0.5 --data {tmp_path / 'data.npz'}"
    assert main(words.split()) == 2
    assert "1000000001 classes for 4 inputs would take about" in capsys.readouterr().err


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path, capsys):
    import zipfile

    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("inputs", "targets"):
            header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
            header += b" " * (118 - len(header) - 1) + b"\n"
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    words = f"predict --activation tanh --depth 3 --width 9 --sparsity 0.5 --data {path}"
    assert main(words.split()) == 2
    assert "data must be an .npz file" in capsys.readouterr().err


def test_deep_chains_that_can_be_had_are_had():
    field = eoc.MeanField("tanh", 1.5, 0.1)
    assert field.iterate_variance(1.0, 100_000).shape == (100_001,)
    net = eoc.mlp(20_000, 10)
    assert net.depth == 20_000
    kept = eoc.predict_pruning(net, 0.5, criterion="magnitude").kept
    np.testing.assert_allclose(np.average(kept, weights=net.weights), 0.5, atol=1e-3)


def test_the_budget_is_half_of_the_memory(monkeypatch):
    monkeypatch.undo()
    assert checks.memory_budget() >= checks.LEAST_BUDGET
    with pytest.raises(TooLargeError, match=r"^n 5 would take about 8.88e\+05 PiB .*: fewer$"):
        checks.memory("n 5", 1e21, "fewer")
    checks.memory("n 5", 1e9, "fewer")


@pytest.mark.slow
def test_refusals_take_little_memory():
    code = (
        "import resource, eoc_theory as eoc\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, -1))\n"
        "for call in (lambda: eoc.predict_pruning(eoc.mlp(3, 10**9), .5), lambda: eoc.mlp(10**7, 10),\n"
        "             lambda: eoc.propagate_summary(eoc.mlp(3, 10), batch=10**9)):\n"
        "    try: call()\n"
        "    except eoc.EOCError as error: print(type(error).__name__)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["TooLargeError"] * 3, ended.stderr
