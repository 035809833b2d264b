"""Typical mistakes on the command line: one line each, with the option and what to write instead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eoc_theory.cli import main
from eoc_theory.cli.mistakes import KNOWN_AS, commands_of, option_actions
from eoc_theory.cli.parser import build_parser

P = "predict --activation tanh --depth 5 --width 10 --sparsity 0.9"
NET = "--activation tanh --depth 5 --width 10"

OTHER = "--normalisation Batch --init EOC --image 3,8,8".split()

#: What was typed, the option (or the place) that the line names, and what it says to write instead.
MISTAKES = [
    # the command
    ("tanh", "'tanh'", "eoc init tanh"),
    ("inti tanh", "'inti'", "eoc init"),
    ("predcit --depth 3", "'predcit'", "eoc predict"),
    ("help", "help", "eoc --help"),
    ("help phase", "help", "eoc phase --help"),
    ("--sigma-b 0.2 init tanh", "--sigma-b", "after the command"),
    ("plot tanh", "'plot'", "one of init, gain, curve, phase"),
    ("--print-completion fish", "--print-completion", "bash, zsh or tcsh"),
    # options
    ("init tanh --sigma_b 0.2", "--sigma_b", "--sigma-b 0.2"),
    ("init tanh --sigmab=0.3", "--sigmab", "--sigma-b 0.3"),
    ("init tanh -sigma-b 0.2", "-sigma-b", "--sigma-b 0.2"),
    ("init --activation tanh", "--activation", "eoc init tanh"),
    (f"{P} --layer 5", "--layer", "--all-layers"),
    ("predict --activation tanh --layers 5 --width 10 --sparsity 0.9", "--layers", "--depth 5"),
    ("predict --activation tanh --num_layers 5 --width 10 --sparsity 0.9", "--num_layers", "--depth 5"),
    ("predict --activaton tanh --depth 5 --width 10 --sparsity 0.9", "--activaton", "--activation tanh"),
    (f"predict {NET} --sparisty 0.9", "--sparisty", "--sparsity 0.9"),
    (f"predict {NET} -s 0.9", "-s", "--sparsity 0.9"),
    (f"{P} --criteria magnitude", "--criteria", "--criterion magnitude"),
    (f"{P} --output kept.png", "--output", "--plot kept.png"),
    (f"{P} --dataset digits", "--dataset", "--data digits"),
    (f"{P} --batch-size 64", "--batch-size", "--batch 64"),
    (f"compare {NET} --sparsity 0.9 --samples 9", "--samples", "of eoc predict, collapse"),
    (f"compare {NET} --sparsity 0.9 --networks 9", "--networks", "of eoc design"),
    # words without an option
    ("init tanh 0.2", "'0.2'", "--sigma-b 0.2"),
    ("predict tanh --depth 5 --width 10 --sparsity 0.9", "'tanh'", "--activation tanh"),
    (f"predict {NET} sparsity=0.9", "'sparsity=0.9'", "--sparsity 0.9"),
    (f"predict {NET} --sparsity 0.5, 0.9", "'0.9'", "0.5,0.9"),
    (f"predict {NET} --sparsity 0.5 0.9", "'0.9'", "0.5,0.9"),
    ("predict help", "help", "eoc predict --help"),
    ("init -sin(x)", "'-sin(x)'", "eoc init -- '-sin(x)'"),
    # values that are missing, or that an option does not take
    ("init", "ACT", "eoc init tanh"),
    ("diagnose", "MODULE:FACTORY", "eoc diagnose nets.py:make"),
    ("init tanh --sigma-b", "--sigma-b", "--sigma-b 0.2"),
    (f"predict {NET} --sparsity --json", "--sparsity", "--sparsity 0.9"),
    (f"predict {NET}", "--sparsity", "eoc predict --sparsity 0.9"),
    ("predict --activation tanh --width 10 --sparsity 0.9", "--depth", "--depth 30"),
    ("predict --activation tanh --depth 5 --sparsity 0.9", "--width", "--width N"),
    ("predict --depth 5 --width 10 --sparsity 0.9", "--activation", "--activation ACT"),
    (f"{P} --json=out.json", "--json", "--json > out.json"),
    # numbers
    (f"predict {NET} --sparsity 90", "--sparsity", "0.9"),
    (f"predict {NET} --sparsity 90%", "--sparsity", "write 0.9"),
    (f"predict {NET} --sparsity 50,90%", "--sparsity", "write 50,0.9"),
    (f"predict {NET} --sparsity 1", "--sparsity", "under 1 such as 0.99"),
    (f"predict {NET} --sparsity -0.5", "--sparsity", "[0, 1)"),
    ("init tanh --dropout 10%", "--dropout", "write 0.1"),
    ("init tanh --dropout 10", "--dropout", "write 0.1"),
    ("init tanh --sigma-b 0,2", "--sigma-b", "write 0.2"),
    ("init tanh --sigma-b -1", "--sigma-b", ">= 0"),
    ("init tanh --sigma-b 0.2 --sigma-w 1.2", "--sigma-w and --sigma-b", "one of them"),
    ("init relu --sigma-b 0.2", "--sigma-b 0.2", "--sigma-b 0, --sigma-w 1.414213562"),
    ("curve tanh --sigma-b 0-1", "--sigma-b", "write 0:1:21"),
    ("curve tanh --sigma-b 0:1", "--sigma-b", "write 0:1:21"),
    ("phase tanh --sigma-w 0:3:10", "--sigma-w", "> 0"),
    (f"{P} --depth 5.5", "--depth", "write 5"),
    (f"{P} --seed -1", "--seed", ">= 0"),
    (f"{P} --samples 1", "--samples", ">= 2"),
    (f"design {NET} --sparsity 0.5 --max-collapse-probability 5", "--max-collapse-probability", "write 0.05"),
    # networks
    ("predict --kind resnett --depth 8 --sparsity 0.9", "--kind", "'resnet'"),
    ("predict --kind resnet --depth 19 --sparsity 0.9", "--depth", "such as 14 or 20"),
    ("predict --kind vgg --depth 12 --sparsity 0.9", "--depth", "one of 11, 13, 16, 19, 34, 49"),
    ("predict --kind resnet --depth 8 --sparsity 0.9 --image 32", "--image", "3,32,32"),
    ("predict --kind resnet --depth 8 --sparsity 0.9 --image 3x32x32", "--image", "3,32,32"),
    ("predict --kind resnet --depth 8 --sparsity 0.9 --in-features 3", "--in-features", "--kind mlp"),
    (f"predict --kind cnn {NET} --sparsity 0.9 --padding zero", "--padding", "'zeros'"),
    ("predict --kind resnet --depth 8 --sparsity 0.9 --normalisation bn", "--normalisation", "'batch'"),
    ("predict --kind resnet --depth 8 --sparsity 0.9 --mode train", "--mode", "'training'"),
    (f"{P} --init he", "--init", "'kaiming'"),
    (f"{P} --init 2", "--init", "2,0"),
    (f"{P} --init kaiming --sigma-b 0.2", "--sigma-b", "--init SIGMA_W,SIGMA_B"),
    (f"{P} --law gaussian", "--law", "'normal'"),
    (f"{P} --activation tahn", "--activation", "tanh"),
    ("init tahn", "ACT", "tanh"),
    ("init tanh(x", "ACT", "')'"),
    # pruning
    (f"{P} --criterion snipp", "--criterion", "'snip'"),
    (f"{P} --criterion syn-flow", "--criterion", "'synflow'"),
    (f"{P} --criterion snip(round=3)", "--criterion", "rounds"),
    (f"{P} --criterion snip(rounds=0)", "--criterion", ">= 1"),
    (f"{P} --data digit", "--data", "'digits'"),
    (f"{P} --data fashion_mnist", "--data", "'fashion-mnist'"),
    (f"{P} --data nowhere.npz", "--data", "No such file"),
    (f"{P} --batch 10", "--batch", "--data of an image set"),
    (f"{P} --data digits --batch 0", "--batch", ">= 1"),
    (f"{P} --method theorie", "--method", "'theory'"),
    (f"{P} --method theory --exclude layers.0", "--exclude", "--method sampled"),
    (f"{P} --exclude fc", "--exclude", "layers.0"),
    (f"{P} --device gpu", "--device", "cuda"),
    (f"{P} --plot kept", "--plot", ".png"),
    (f"{P} --plot kept.jpg", "--plot", ".svg"),
    # models of one's own
    ("diagnose mynet", "MODULE:FACTORY", "such as nets:make"),
    ("diagnose no_such_nets:make", "MODULE:FACTORY", "in this folder"),
    ("diagnose no_such_nets.py:make", "MODULE:FACTORY", "no file"),
    ("diagnose torch.nn:Liner", "MODULE:FACTORY", "torch.nn:Linear"),
    ("diagnose torch.nn:Identity --html report.pdf", "--html", ".html"),
    ("diagnose torch.nn:Identity --loss crossentropy --input-shape 3", "--loss", "'cross_entropy'"),
    (f"design {NET} --sparsity 0.9 --input-shape 3", "--input-shape", "--image"),
    ("design --activation tanh --width 10 --sparsity 0.5", "--depth", "MODULE:FACTORY"),
    (f"design {NET} --sparsity 0.5 --goal trainig", "--goal", "'training'"),
    (f"trainability {NET} --input-shape 3", "--input-shape", "--image"),
    (f"trainability {NET} --inputs 1", "--inputs", ">= 2"),
    (f"trainability {NET} --sparsity 1", "--sparsity", "[0, 1)"),
    ("trainability --activation tanh --width 10", "--depth", "MODULE:FACTORY"),
    ("trainability torch.nn:Identity --width 3", "--width", "MODULE:FACTORY"),
    ("design torch.nn:Identity --depth 3 --sparsity 0.5", "--depth", "MODULE:FACTORY"),
]


def said(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.endswith("\n")
    return captured.err.strip()


def test_there_are_sixty_different_ones():
    assert len({typed for typed, _, _ in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.parametrize("typed, option, instead", MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_a_mistake_is_one_line_with_the_option_and_what_to_write_instead(
    capsys, tmp_path, monkeypatch, typed, option, instead
):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    line = said(capsys, typed.split(" "))
    program, _, text = line.partition(": ")
    assert program == "eoc" or program == f"eoc {typed.split()[0]}"
    assert option in text and instead in text.replace(option, "", 1) + text, line
    assert len(line) < 300
    # Names of the library's arguments are no use to who types options.
    known = {action.dest for own in commands_of(build_parser()).values() for action in own._actions}
    inner = {name for name in known if "_" in name} | {"input_shape", "padding_mode", "example_input"}
    typed_by_them = set(typed.replace("-", " ").split())
    assert not [name for name in inner - typed_by_them if name in text and f"--{name}" not in typed]


def test_what_is_suggested_is_there():
    known = {option for own in commands_of(build_parser()).values() for option in option_actions(own)}
    assert set(KNOWN_AS.values()) <= known
    assert not set(KNOWN_AS) & known


def test_without_words_the_help_is_shown(capsys):
    assert main([]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: eoc ") and "predict" in captured.out and captured.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["INIT", "tanh", "--Sigma-B", "0.2"],
        ["Predict", *NET.split(), "--SPARSITY", "0.9", "--criterion", "SNIP", "--kind", "MLP"],
        [*"predict --kind ResNet --depth 8 --width 4 --sparsity 0.9 --criterion Magnitude".split(), *OTHER],
        ["init", "Tanh"],
    ],
)
def test_upper_and_lower_case_are_the_same(capsys, words):
    assert main(words) == 0
    assert capsys.readouterr().err == ""


def test_errors_stay_those_of_the_library_without_a_command(capsys):
    assert "--version" not in said(capsys, ["--verson"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_completes_commands_options_and_values(capsys, shell):
    pytest.importorskip("shtab")
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (
        "predict",
        "--sparsity" if shell != "tcsh" else "sparsity",
        "synflow-oneshot",
        "stable-resnet",
    ):
        assert word in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=60)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_what_is_typed(tmp_path):
    pytest.importorskip("shtab")
    script = tmp_path / "completion.bash"
    made = [sys.executable, "-m", "eoc_theory", "--print-completion", "bash"]
    script.write_text(subprocess.run(made, capture_output=True, text=True, check=True, timeout=120).stdout)
    typed = f"""source {script}
complete -p eoc | grep -o -- '-F [a-z_]*'
COMP_WORDS=(eoc pre); COMP_CWORD=1; _shtab_eoc; echo "${{COMPREPLY[@]}}"
COMP_WORDS=(eoc predict --criterion syn); COMP_CWORD=3; _shtab_eoc; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["-F _shtab_eoc", "predict", "synflow synflow-oneshot"], done.stderr


def test_without_shtab_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 1
    assert "completion" in capsys.readouterr().err


def test_progress_is_told_in_lines_where_there_is_no_terminal(capsys):
    assert main([*P.split(), "--progress"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("predicting")
    assert main([*P.split(), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["compare", *NET.split(), "--sparsity", "0.9", "--seeds", "2", "--progress"]) == 0
    assert "pruning networks: 2 of 2" in capsys.readouterr().err
