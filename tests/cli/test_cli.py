"""The command: its output, JSON, exit codes and errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.base.formatting import equals, plain, probability, shown_layers, sparsity
from eoc_theory.cli import main
from eoc_theory.cli.parser import build_parser, grid

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "init",
    "gain",
    "curve",
    "phase",
    "explore",
    "predict",
    "collapse",
    "compare",
    "diagnose",
    "design",
    "trainability",
    "attention",
)
NET = ["--activation", "tanh", "--depth", "4", "--width", "20"]


def run(capsys, *argv: str) -> str:
    """Standard output of a command that is done without a word on stderr."""
    code = main(list(argv))
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def refused(capsys, *argv: str, code: int = 2) -> str:
    """The one line on stderr of a command that fails."""
    assert main(list(argv)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n") and captured.err.count("\n") == 1, captured.err
    return captured.err


# --- one neuron ---------------------------------------------------------------------------------------------


def test_init_prints_the_critical_point(capsys):
    out = run(capsys, "init", "tanh", "--sigma-b", "0.2")
    point = eoc.edge_of_chaos("tanh", sigma_b=0.2)
    facts = dict(line.split(maxsplit=1) for line in out.splitlines()[1:] if " " in line)
    assert float(facts["sigma_w"]) == pytest.approx(point.sigma_w, rel=1e-11)
    assert float(facts["q"]) == pytest.approx(point.q, rel=1e-11)
    assert "smooth" in out and "/ depth" in out


@pytest.mark.parametrize("option", [("--sigma-b", "0.3"), ("--sigma-w", "1.4"), ("--q", "0.5"), ()])
@pytest.mark.parametrize("name", ["tanh", "x/(1+exp(-x))"])
def test_init_json_has_the_attributes(capsys, name, option):
    if option == ("--sigma-w", "1.4") and name != "tanh":
        option = ("--sigma-w", "1.6")
    found = json.loads(run(capsys, "init", name, "--json", *option))
    given = {option[0].strip("-").replace("-", "_"): float(option[1])} if option else {}
    point = eoc.edge_of_chaos(name, **given)
    for key in ("sigma_w", "sigma_b", "q", "chi", "variance_slope", "error", "is_stable"):
        assert found[key] == getattr(point, key), key
    assert found["convergence"]["kind"] == point.convergence.kind
    assert len(found["others"]) == len(point.others)


def test_init_of_a_homogeneous_activation_and_a_leading_minus(capsys):
    assert "homogeneous" in run(capsys, "init", "relu")
    assert json.loads(run(capsys, "init", "--json", "--", "-x"))["convergence"]["constant"] is None
    assert "note:" in run(capsys, "init", "gelu", "--sigma-b", "0.1")


def test_init_lists_other_solutions(capsys):
    many = next(
        (name, w)
        for name in ("gelu", "silu", "mish", "sin", "elu")
        for w in (1.2, 1.4, 1.45, 1.6)
        if _solutions(name, w) > 1
    )
    out = run(capsys, "init", many[0], "--sigma-w", str(many[1]))
    assert "other solutions" in out


def _solutions(name: str, sigma_w: float) -> int:
    try:
        return 1 + len(eoc.edge_of_chaos(name, sigma_w=sigma_w).others)
    except eoc.EOCError:
        return 0


def test_curve(capsys, tmp_path):
    path = tmp_path / "curve.svg"
    out = run(capsys, "curve", "tanh", "--sigma-b", "0:1:5", "--plot", str(path))
    assert str(path) in out and path.exists()
    found = json.loads(run(capsys, "curve", "tanh", "--sigma-b", "0:1:5", "--json"))
    curve = eoc.critical_curve("tanh", sigma_b=np.linspace(0, 1, 5))
    assert found["sigma_b"] == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_array_equal(found["sigma_w"], curve.sigma_w)
    assert found["stable"] == curve.stable.tolist()
    relu = json.loads(run(capsys, "curve", "relu", "--sigma-b", "0,0.1", "--json"))
    assert relu["sigma_w"] == [pytest.approx(2**0.5), None]
    assert "none" in run(capsys, "curve", "relu", "--sigma-b", "0,0.1")


def test_phase(capsys, tmp_path):
    axes = ["--sigma-w", "0.5:3:12", "--sigma-b", "0:1:9"]
    path = tmp_path / "phase.pdf"
    out = run(capsys, "phase", "relu", *axes, "--plot", str(path))
    assert "grows" in out and "ordered" in out and path.exists()
    found = json.loads(run(capsys, "phase", "relu", *axes, "--json"))
    diagram = eoc.phase_diagram("relu", sigma_w=np.linspace(0.5, 3, 12), sigma_b=np.linspace(0, 1, 9))
    assert found["phase"] == diagram.phase.tolist()
    # "inf" is text because JSON has no such number; NumPy reads it as one.
    np.testing.assert_allclose(np.array(found["q_star"], dtype=float), diagram.q_star)
    assert "inf" in found["q_star"][-1]


# --- networks -----------------------------------------------------------------------------------------------


def test_predict(capsys, tmp_path):
    path = tmp_path / "kept.png"
    out = run(capsys, "predict", *NET, "--sparsity", "0.5,0.9", "--plot", str(path))
    assert path.exists() and out.count("P(collapse)") == 2 and "layers.3" in out
    found = json.loads(run(capsys, "predict", *NET, "--sparsity", "0.5,0.9", "--json"))
    same = eoc.predict_pruning(eoc.mlp(4, 20, activation="tanh"), [0.5, 0.9])
    assert set(found) == set(same.to_dict())
    np.testing.assert_array_equal(found["kept"], same.kept)
    one = json.loads(
        run(capsys, "predict", *NET, "--sparsity", "0.5", "--json", "--seed", "1", "--samples", "4")
    )
    assert one["sparsity"] == 0.5 and one["samples"] == 4 and len(one["kept"]) == 4


def test_sparsities_with_commas_and_by_repetition(capsys):
    many = ["--sparsity", "0.5,0.6", "--sparsity", "0.7", "--criterion", "magnitude", "--json"]
    assert json.loads(run(capsys, "predict", *NET, *many))["sparsity"] == [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--init", "1.5,0.1"], {"init": (1.5, 0.1)}),
        (["--init", "pytorch"], {"init": "pytorch"}),
        (["--init", "kaiming", "--law", "uniform"], {"init": "kaiming", "law": "uniform"}),
        (["--sigma-b", "0.4"], {"sigma_b": 0.4}),
        (["--in-features", "30", "--out-features", "5"], {"in_features": 30, "out_features": 5}),
    ],
)
def test_network_options_make_the_network_of_the_api(options, arguments):
    from eoc_theory.cli.networks import network

    args = build_parser().parse_args(["predict", *NET, "--sparsity", "0.5", *options])
    assert network(args)[0] == eoc.mlp(4, 20, activation="tanh", **arguments)


def test_layers_are_thinned_out_unless_all_are_asked_for(capsys):
    deep = [
        "--activation",
        "relu",
        "--depth",
        "40",
        "--width",
        "10",
        "--sparsity",
        "0.5",
        "--criterion",
        "uniform",
    ]
    short, full = run(capsys, "predict", *deep), run(capsys, "predict", *deep, "--all-layers")
    assert short.count("layers.") < 12 and "--all-layers" in short
    assert full.count("layers.") == 40
    assert "layers.0 " in short and "layers.39" in short


@pytest.mark.parametrize("depth", [1, 2, 12, 13, 30, 100, 101, 1000])
def test_shown_layers(depth):
    shown = shown_layers(depth, False)
    assert shown[0] == 0 and shown[-1] == depth - 1 and len(shown) <= 14
    assert shown_layers(depth, True) == list(range(depth))


def test_collapse(capsys, tmp_path):
    path = tmp_path / "collapse.png"
    options = [*NET, "--init", "2,0.2", "--sparsity", "0.5", "--sparsity", "0.99"]
    out = run(capsys, "collapse", *options, "--plot", str(path))
    assert path.exists() and "weakest layer" in out and "P(collapse) at 0.99" in out
    found = json.loads(run(capsys, "collapse", *options, "--json"))
    same = eoc.predict_collapse(eoc.mlp(4, 20, activation="tanh", init=(2.0, 0.2)))
    assert found["critical_sparsity"] == same.critical_sparsity
    assert found["probability"] == [same.probability(0.5), same.probability(0.99)]
    assert "probability" not in json.loads(run(capsys, "collapse", *NET, "--json"))


def test_compare(capsys, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    path = tmp_path / "compare.png"
    options = [*NET, "--sparsity", "0.5,0.9", "--data", "digits", "--seeds", "3", "--device", "cpu"]
    out = run(capsys, "compare", *options, "--plot", str(path))
    assert path.exists() and "mean absolute error" in out and "3 seeds" in out
    found = json.loads(run(capsys, "compare", *options, "--json"))
    same = eoc.compare(
        eoc.mlp(4, 20, activation="tanh"), [0.5, 0.9], data=eoc.digits(100), seeds=3, device="cpu"
    )
    assert set(found) == set(same.to_dict())
    assert found["mean_absolute_error"] == same.mean_absolute_error
    assert f"{same.mean_absolute_error:.4f}" in out
    later = json.loads(run(capsys, "compare", *options, "--seed", "2", "--seeds", "1", "--json"))
    assert later["seeds"] == [2]
    np.testing.assert_array_equal(later["kept"][0], found["kept"][2])
    assert "one seed" not in run(capsys, "compare", *options, "--seeds", "1")


def test_compare_keeps_what_was_finished(capsys, monkeypatch):
    pytest.importorskip("torch")
    from contextlib import contextmanager

    from eoc_theory.cli.commands import comparison

    @contextmanager
    def impatient(text, after, shown):
        def interrupt(done, total):
            if done == 2:
                raise KeyboardInterrupt

        yield interrupt

    monkeypatch.setattr(comparison, "bar", impatient)
    assert main(["compare", *NET, "--sparsity", "0.5", "--seeds", "5", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["seeds"] == [0, 1]
    assert captured.err == "eoc compare: interrupted after 2 of 5 seeds\n"


# --- data ---------------------------------------------------------------------------------------------------


def test_data_from_a_file(capsys, tmp_path):
    path = tmp_path / "batch.npz"
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((12, 3, 3)), np.arange(12) % 4
    np.savez(path, inputs=inputs, targets=targets)
    options = [*NET, "--sparsity", "0.8", "--json", "--data", str(path)]
    found = json.loads(run(capsys, "predict", *options))
    net = eoc.mlp(4, 20, activation="tanh", in_features=9, out_features=4)
    assert found["kept"] == eoc.predict_pruning(net, 0.8, data=(inputs, targets)).kept.tolist()
    fewer = json.loads(run(capsys, "predict", *options, "--batch", "6"))
    assert fewer["kept"] == eoc.predict_pruning(net, 0.8, data=(inputs[:6], targets[:6])).kept.tolist()
    # The first two are of two classes, those of the file are four all the same.
    two = json.loads(run(capsys, "predict", *options, "--batch", "2"))
    assert two["weights"] == found["weights"]
    assert "at most 12" in refused(capsys, "predict", *options, "--batch", "13")
    assert "9 features" in refused(capsys, "predict", *options, "--in-features", "8")


@pytest.mark.parametrize(
    "kind", ["missing", "text", "other arrays", "objects", "shapes", "labels", "empty", "npy"]
)
def test_unusable_data_files(capsys, tmp_path, kind):
    path = tmp_path / "batch.npz"
    inputs, targets = np.zeros((4, 3)), np.arange(4)
    if kind == "text":
        path.write_text("inputs,targets\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, inputs)
    elif kind == "other arrays":
        np.savez(path, x=inputs, y=targets)
    elif kind == "objects":
        np.savez(path, inputs=inputs, targets=np.array([object()] * 4))
    elif kind == "shapes":
        np.savez(path, inputs=inputs, targets=targets[:3])
    elif kind == "labels":
        np.savez(path, inputs=inputs, targets=targets - 5)
    refused(capsys, "predict", *NET, "--sparsity", "0.5", "--data", str(path))


# --- errors -------------------------------------------------------------------------------------------------

PREDICT = ["predict", *NET, "--sparsity", "0.5"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["paint"], "is no command; write one of init, gain, curve"),
        (["init"], "ACT"),
        (["init", "tanh", "extra"], "extra"),
        (["init", "tanhh"], "tanhh"),
        (["init", "__import__('os').system('echo hello')"], "__import__"),
        (["init", "x.real"], "x.real"),
        (["init", "tanh", "--sigma-b", "one"], "--sigma-b"),
        (["init", "tanh", "--sigma-b", "-1"], "--sigma-b"),
        (["init", "tanh", "--sigma-b", "nan"], "--sigma-b"),
        (["init", "tanh", "--sigma-b", "1", "--q", "1"], "exclude each other"),
        (["init", "relu", "--sigma-b", "0.2"], "only --sigma-b 0, --sigma-w 1.414213562"),
        (["init", "exp(x**2)", "--q", "1"], "exp(x**2)"),
        (["curve", "tanh", "--sigma-b", "0:1"], "LOW:HIGH:POINTS"),
        (["curve", "tanh", "--sigma-b", "0:1:0"], "LOW:HIGH:POINTS"),
        (["phase", "tanh", "--sigma-w", "0:1:5"], "--sigma-w"),
        (["phase", "tanh", "--plot", "phase.jpg"], ".svg"),
        (["predict", *NET], "--sparsity"),
        (["predict", "--activation", "tanh", "--sparsity", "0.5"], "--depth"),
        ([*PREDICT, "--sparsity", "1"], "sparsity"),
        ([*PREDICT, "--sparsity", "0.5,,0.6"], "--sparsity"),
        ([*PREDICT, "--depth", "0"], "depth"),
        ([*PREDICT, "--width", "2.5"], "--width"),
        ([*PREDICT, "--kind", "transformer"], "'stable-resnet', 'vgg', got 'transformer'"),
        ([*PREDICT, "--init", "he"], "init"),
        ([*PREDICT, "--init", "1,2,3"], "--init"),
        ([*PREDICT, "--init", "-1,0"], "init"),
        ([*PREDICT, "--init", "kaiming", "--sigma-b", "0.1"], "--sigma-b"),
        ([*PREDICT, "--law", "cauchy"], "law"),
        ([*PREDICT, "--criterion", "obd"], "criterion"),
        ([*PREDICT, "--data", "imagenet"], "imagenet"),
        ([*PREDICT, "--batch", "10"], "batch"),
        ([*PREDICT, "--samples", "1"], "samples"),
        ([*PREDICT, "--plot", "no/such/folder.png"], "folder"),
        (["collapse", *NET, "--sparsity", "2"], "sparsity"),
        (["compare", *NET, "--sparsity", "0.5", "--seeds", "0"], "seeds"),
        (["compare", *NET, "--sparsity", "0.5", "--seed", "-1"], "seed"),
    ],
)
def test_unusable_arguments_are_one_line_and_code_2(capsys, argv, told):
    message = refused(capsys, *argv)
    assert message.startswith("eoc") and told in message


def test_an_unknown_device(capsys):
    pytest.importorskip("torch")
    assert "device" in refused(capsys, "compare", *NET, "--sparsity", "0.5", "--device", "abacus")


def test_a_failure_while_computing_is_code_1(capsys, monkeypatch):
    from eoc_theory.errors import ConvergenceError

    for error in (ConvergenceError("no root\nfound"), MemoryError()):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("eoc_theory.cli.commands.critical.edge_of_chaos", fail)
        assert refused(capsys, "init", "tanh", code=1).startswith("eoc init: ")


def test_ctrl_c_is_code_130(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("eoc_theory.cli.commands.critical.edge_of_chaos", interrupt)
    assert refused(capsys, "init", "tanh", code=130) == "eoc init: interrupted\n"


def test_missing_torch_is_code_1(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch" in refused(capsys, "compare", *NET, "--sparsity", "0.5", code=1)


# --- help, version, formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(capsys, command):
    import shlex

    out = run(capsys, command, "--help")
    examples = [line.strip() for line in out.split("example")[-1].splitlines()[1:] if line.strip()]
    assert examples
    for example in examples:
        words = shlex.split(example.split("     (")[0])
        assert words[:2] == ["eoc", command]
        build_parser().parse_args(words[1:])


def test_version_and_help(capsys):
    assert run(capsys, "--version") == f"eoc {eoc.__version__}\n"
    out = run(capsys, "--help")
    assert all(command in out for command in COMMANDS)


def test_json_is_standard():
    values = {
        "a": np.array([1.0, np.nan, np.inf]),
        "b": (-np.inf, np.int64(3)),
        "c": np.bool_(True),
        "d": None,
    }
    assert plain(values) == {"a": [1.0, None, "inf"], "b": ["-inf", 3], "c": True, "d": None}


def test_grids():
    assert grid("0:1:3") == [0, 0.5, 1]
    assert grid("0.3:0.3:1") == [0.3]
    assert grid("0.1,2") == [0.1, 2]
    assert grid("0.1:0.7:7")[-1] == 0.7


def test_numbers_for_readers():
    assert [sparsity(s) for s in (0.0, 0.5, 0.98765, 0.9998766, 1.0)] == [
        "0.000",
        "0.500",
        "0.9877",
        "0.999877",
        "1",
    ]
    assert [equals("P", probability(p)) for p in (0.5, 1e-12)] == ["P = 0.500", "P < 1e-9"]
    assert [probability(p) for p in (0.0, 0.5, 1e-5, 1e-300, 1.0)] == [
        "0",
        "0.500",
        "1.0e-05",
        "<1e-9",
        "1.000",
    ]


# --- a process of its own -----------------------------------------------------------------------------------


def test_init_from_a_cold_shell_imports_nothing_heavy():
    code = (
        "import sys\nfrom eoc_theory.cli import main\nassert main(['init', 'tanh', '--q', '1']) == 0\n"
        "heavy = ('torch', 'matplotlib', 'numba', 'pandas', 'sympy', 'rich', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "eoc_theory", "init", "relu", "--sigma-b", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1


def test_a_reader_that_stops_early():
    command = [sys.executable, "-m", "eoc_theory", "phase", "tanh", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal_and_interrupt():
    pytest.importorskip("torch")
    import pty
    import threading

    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "eoc_theory", "compare", *NET, "--sparsity", "0.5", "--seeds", "1000000"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        # What a shell starts in the background is deaf to Ctrl-C, and so is all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(stderr)
    seen: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(terminal, 4096):
                seen.append(part)
        except OSError:
            # What the other end's closing is on Linux.
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + 120
    while b"3 of 1000000" not in b"".join(seen) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    reader.join(10)
    os.close(terminal)
    assert process.returncode == 1
    assert "mean absolute error" in out
    assert b"interrupted after" in b"".join(seen)


def test_a_sparsity_near_1_is_shown_as_given(capsys):
    out = run(capsys, "predict", *NET, "--sparsity", "0.99999999,0.7", "--criterion", "magnitude")
    assert "sparsity 0.99999999: " in out and "sparsity 0.7: " in out
