"""``eoc diagnose``: models by name, output, and errors in one line."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.cli import main

torch = pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

print("a module may talk")

def deep():
    layers = [part for _ in range(8) for part in (nn.Linear(30, 30), nn.ReLU())]
    return nn.Sequential(nn.Linear(16, 30), nn.ReLU(), *layers, nn.Linear(30, 5))

class Shallow(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10))

class Holder:
    inner = Shallow

made = Shallow()
seven = 7

def broken():
    raise RuntimeError("no weights\\nfound")

def needs(width):
    return nn.Linear(width, width)

def number():
    return 3

def leaves():
    raise SystemExit("bye")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of one's own with nets.py in it; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if "mine" in name or name in ("faulty", "needy"):
            del sys.modules[name]


def run(capsys, *argv: str) -> str:
    code = main(["diagnose", *argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys, *argv: str, code: int = 2) -> str:
    """The last line on stderr of a command that fails; what the module itself says may stand before it."""
    assert main(["diagnose", *argv]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    said = captured.err.removeprefix("a module may talk\n")
    assert said.startswith("eoc diagnose: ") and said.count("\n") == 1, captured.err
    return said


def test_table_and_verdict(capsys):
    out = run(capsys, "nets_of_mine:deep", "--sparsity", "0.9")
    assert out.startswith("nets_of_mine:deep: 10 weight layers, 7830 weights")
    for told in ("PyTorch's default", "eoc.initialize_(model)", "P(empty)", "sigma_w", "cured: kept"):
        assert told in out
    assert "a module may talk" not in out


def test_json_is_alone_and_the_seed_makes_the_model(capsys):
    out = run(capsys, "nets_of_mine:deep", "--json", "--seed", "3")
    found = json.loads(out)
    torch.manual_seed(3)
    layers = [part for _ in range(8) for part in (torch.nn.Linear(30, 30), torch.nn.ReLU())]
    model = torch.nn.Sequential(torch.nn.Linear(16, 30), torch.nn.ReLU(), *layers, torch.nn.Linear(30, 5))
    same = eoc.diagnose(model, sparsity=0.9, seed=3)
    assert found == json.loads(same.to_json())


def test_files_classes_instances_and_attributes(capsys, folder):
    (folder / "src").mkdir()
    shutil.copy("nets_of_mine.py", folder / "src" / "numpy.py")
    kept = []
    for spec in ("nets_of_mine:Shallow", "nets_of_mine:Holder.inner", "src/numpy.py:Shallow"):
        kept.append(json.loads(run(capsys, spec, "--json", "--sparsity", "0.5"))["before"]["kept"])
    assert kept[0] == kept[1] == kept[2]
    assert sys.modules["numpy"] is np
    assert "2 weight layers" in run(capsys, "nets_of_mine:made", "--sparsity", "0.5")


def test_data_and_shape(capsys):
    options = ["nets_of_mine:Shallow", "--sparsity", "0.5", "--json"]
    found = json.loads(run(capsys, *options, "--data", "digits", "--batch", "30", "--input-shape", "64"))
    torch.manual_seed(0)
    same = eoc.diagnose(
        torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.Tanh(), torch.nn.Linear(20, 10)),
        sparsity=0.5,
        data=eoc.digits(30),
    )
    assert found["before"]["kept"] == same.kept.tolist() and not found["synthetic"]


def test_picture_and_page(capsys, folder):
    out = run(capsys, "nets_of_mine:Shallow", "--sparsity", "0.5", "--plot", "a.png", "--html", "a.html")
    assert "picture: a.png" in out and "page: a.html" in out
    assert (folder / "a.png").stat().st_size > 10_000
    assert "nets_of_mine:Shallow" in (folder / "a.html").read_text(encoding="utf-8")
    out = run(capsys, "nets_of_mine:Shallow", "--sparsity", "0.5", "--html", "b.html", "--json")
    assert json.loads(out)["sparsity"] == 0.5 and (folder / "b.html").exists()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("nets_of_mine", "MODULE:FACTORY"),
        (":deep", "MODULE:FACTORY"),
        ("nets_of_mine:", "MODULE:FACTORY"),
        ("no_such_nets:deep", "no module 'no_such_nets'"),
        ("nets_of_mine.inner:deep", "no module 'nets_of_mine.inner'"),
        (".nets:deep", "dotted name"),
        ("gone.py:deep", "no file 'gone.py'"),
        ("nets_of_mine:dep", "no 'dep'; did you mean nets_of_mine:deep?"),
        ("nets_of_mine:Holder.outer", "no 'Holder.outer'"),
        ("nets_of_mine:seven", "got int"),
        ("nets_of_mine:number", "must return a torch.nn.Module, got int"),
        ("nets_of_mine:broken", "RuntimeError: no weights found"),
        ("nets_of_mine:needs", "missing 1 required positional argument"),
        ("nets_of_mine:leaves", "SystemExit: bye"),
        ("faulty:deep", "SyntaxError"),
        ("faulty.py:deep", "SyntaxError"),
        ("needy:deep", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("__import__('os').system('echo evil')", "MODULE:FACTORY"),
        ("nets_of_mine:__import__('os')", "no "),
    ],
)
def test_models_that_cannot_be_made(capsys, folder, spec, told):
    (folder / "faulty.py").write_text("def deep(:\n")
    (folder / "needy.py").write_text("import nothing_of_the_kind\n")
    assert told in refused(capsys, spec)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--sparsity", "1"], "sparsity"),
        (["--sparsity", "0.5,0.6"], "--sparsity"),
        (["--criterion", "obd"], "criterion"),
        (["--input-shape", "a"], "--input-shape"),
        (["--input-shape", "63"], "63"),
        (["--html", "report.txt"], ".html"),
        (["--plot", "report.html"], ".png"),
        (["--data", "imagenet"], "imagenet"),
        (["--batch", "4"], "batch"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_options_that_cannot_be_used(capsys, argv, told):
    assert told in refused(capsys, "nets_of_mine:Shallow", *argv)


def test_torch_is_left_as_it_was(capsys):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    run(capsys, "nets_of_mine:Shallow", "--sparsity", "0.5", "--json")
    assert torch.equal(state, torch.get_rng_state())


def test_help_says_that_code_is_run(capsys):
    assert main(["diagnose", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "runs its code" in out and "eoc diagnose" in out


def test_without_torch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch" in refused(capsys, "nets_of_mine:deep", code=1)


SAMPLED = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 20), nn.Linear(20, 10)

    def forward(self, x):
        x = torch.tanh(self.first(x if float(x.sum()) > -1e9 else -x))
        return self.last(x)
"""


def test_a_model_that_cannot_be_read_is_sampled(folder, capsys):
    (folder / "sampled_of_mine.py").write_text(SAMPLED)
    args = ["diagnose", "sampled_of_mine:Branching", "--data", "digits", "--batch", "20"]
    assert main([*args, "--input-shape", "64"]) == 0
    out = capsys.readouterr().out
    assert "sampled and run" in out and "signal" in out and "gradient" in out
    assert main([*args, "--exclude", "first", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == "sampled" and told["layers"] == ["last"]
    for wrong, word in ((["--method", "theory"], "model"), (["--method", "guess"], "method")):
        assert main([*args, *wrong]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and word in said and "Traceback" not in said
