"""``eoc trainability``, and designs for training on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.base.formatting import plain
from eoc_theory.cli import main

NET = ["--activation", "tanh", "--depth", "4", "--width", "20", "--in-features", "12"]


def run(capsys, *words: str) -> str:
    """What a command prints that has nothing to say on stderr."""
    code = main([*words, "--quiet"])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    return printed.out


@pytest.mark.parametrize("criterion", ["random", "magnitude", "snip"])
def test_json_is_the_prediction_of_the_api(capsys, criterion):
    out = run(capsys, "trainability", *NET, "--sparsity", "0.5", "--criterion", criterion, "--json")
    net = eoc.mlp(4, 20, activation="tanh", in_features=12)
    expected = eoc.trainability(net, sparsity=0.5, criterion=criterion)
    assert json.loads(out) == json.loads(json.dumps(plain(expected.to_dict())))


def test_text_tells_jacobian_kernel_layers_and_what_is_taken_for_granted(capsys):
    asked = ("--sparsity", "0.5", "--criterion", "snip", "--inputs", "8", "--method", "theory")
    out = run(capsys, "trainability", *NET, *asked)
    net = eoc.mlp(4, 20, activation="tanh", in_features=12)
    expected = eoc.trainability(net, sparsity=0.5, criterion="snip", inputs=8, method="theory")
    assert f"{expected.kernel_condition:.4g}" in out and " of 8" in out
    assert all(name in out for name in net.weight_layers)
    assert "snip is taken to keep" in out and "theory" in out


def test_a_model_of_ones_own_is_pruned_and_measured(capsys, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(
        "import torch\nmake = lambda: torch.nn.Sequential(torch.nn.Linear(12, 9), torch.nn.Tanh(), "
        "torch.nn.Linear(9, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", inputs=np.random.default_rng(0).normal(size=(20, 12)), targets=np.arange(20) % 3)
    words = ("trainability", "nets.py:make", "--data", "data.npz", "--inputs", "6", "--json")
    whole = json.loads(run(capsys, *words))
    assert whole["method"] == "measured" and whole["kept"] == [1.0, 1.0]
    half = json.loads(run(capsys, *words, "--sparsity", "0.5", "--criterion", "magnitude", "--seed", "3"))
    total = 12 * 9 + 9 * 3
    assert half["kept"][0] * 12 * 9 + half["kept"][1] * 9 * 3 == pytest.approx(total - round(0.5 * total))
    assert len(half["singular_values"]) == 6 and torch.is_grad_enabled()


def test_a_design_for_training_is_that_of_the_api_with_its_own_criterion(capsys):
    asked = ("design", *NET, "--sparsity", "0.8", "--networks", "0", "--goal", "training")
    net = eoc.mlp(4, 20, activation="tanh", in_features=12)
    expected = eoc.design(net, 0.8, goal="training", networks=0)
    assert json.loads(run(capsys, *asked, "--json"))["criterion"] == expected.criterion == "synflow"
    out = run(capsys, *asked)
    assert "; synflow, " in out.splitlines()[0] and "For training" in out
    assert "rescale_(model, by='units')" in out
    out = run(capsys, *asked, "--criterion", "magnitude")
    assert "; magnitude, " in out.splitlines()[0]


def test_without_a_goal_a_design_ranks_by_snip(capsys):
    out = run(capsys, "design", *NET, "--sparsity", "0.5", "--networks", "0")
    assert "; snip, " in out.splitlines()[0]
