"""Every option of every command with texts that nobody meant, by a seed; see `argument_fuzz`.

``python -m tests.command_fuzz --tries 1000 --seed 1`` tries more than the test suite does. A command may end
with 0, 1 or 2; other than 0 it says why in one line of printable characters.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from analysis.__main__ import main as analysis_main
from eoc_theory.cli import main as eoc_main

from .argument_fuzz import Late, _limited, idx_files, sandbox

NETWORK = "--activation tanh --depth 3 --width 5 --criterion magnitude"
IMAGES = "--activation relu --width 2 --sparsity 0.5 --criterion random"
#: Commands that answer; FOLDER is one with files of images.
EOC = {
    "init": "init tanh --sigma-b 0.2 --dropout 0.1",
    "init q": "init tanh --q 1",
    "init sigma_w": "init tanh --sigma-w 1.5",
    "curve": "curve tanh --sigma-b 0:1:3 --dropout 0 --plot out.svg",
    "phase": "phase tanh --sigma-w 1:2:3 --sigma-b 0.1,0.2 --plot out.svg",
    "gain": "gain tanh --sigma-b 0.2",
    "gain q": "gain tanh --q 1",
    "explore": "explore relu --html explorer.html",
    "attention": "attention --score-scale 0.1:8:3:log --residual-strength 0.5,1 --tokens 4 --depth 2 "
    "--norm post --activation none --gain 1 --mlp-gain 2 --skip 0.5 --similarity 0.1 "
    "--gradient-similarity 0.5 --plot out.svg",
    "predict": f"predict {NETWORK} --sparsity 0.5 --init eoc --sigma-b 0.1 --law normal --seed 0",
    "predict data": f"predict {NETWORK} --sparsity 0.5 --data data.npz --batch 4 --out-features 3",
    "predict snip": "predict --activation relu --depth 3 --width 5 --sparsity 0.5 --samples 2 "
    "--method sampled --exclude layers.0",
    "cnn": f"predict --kind cnn --depth 3 --image 1,4,4 --padding zeros {IMAGES}",
    "resnet": f"predict --kind resnet --depth 8 --image 1,8,8 --normalisation batch --mode training {IMAGES}",
    "collapse": f"collapse {NETWORK} --sparsity 0.5 --in-features 8 --plot out.svg",
    "compare": f"compare {NETWORK} --sparsity 0.5 --seeds 1 --seed 0 --device cpu",
    "images": f"predict {NETWORK} --sparsity 0.5 --data mnist --data-folder FOLDER --batch 10",
    "diagnose": "diagnose nets.py:make --input-shape 8 --sparsity 0.5 --criterion magnitude "
    "--loss cross_entropy --html out.html",
    "design": f"design {NETWORK} --sparsity 0.5 --networks 0 --max-collapse-probability 0.1",
    "design own": "design nets.py:make --sparsity 0.5 --networks 0 --criterion magnitude --goal connection",
    "trainability": f"trainability {NETWORK} --sparsity 0.5 --inputs 4",
}
#: Commands that have no study to work on.
STUDIES = {
    "summary": "summary phases --store store",
    "export": "export phases out.csv --store store --table rows",
    "run": "run phases --store text.npz --device cpu --data-folder FOLDER --workers 0",
}
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    **{name: (eoc_main, words.split()) for name, words in EOC.items()},
    **{name: (analysis_main, words.split()) for name, words in STUDIES.items()},
}
TEXTS = (
    "",
    " ",
    "-",
    "--",
    "a",
    "0",
    "-0.0",
    "1",
    "-1",
    "3",
    "0.5",
    "1e308",
    "1e-320",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1,2",
    "0.1,0.9",
    "1,,2",
    ",",
    "1,nan",
    "0:1:3",
    "1:0:3",
    "0:1:0",
    "0:1:-3",
    "::",
    "0:1:1e3",
    "a:b:c",
    "0:1:1000000000",
    "nan:1:3",
    "0:inf:3",
    "1000000000",
    "1000000000000000000000",
    "9" * 5000,
    "1_0",
    "٣",
    "½",
    "tanh",
    "relu",
    "x",
    "1/0",
    "x" * 10_000,
    "import os",
    "__import__('os')",
    "x**x**x",
    "e**x",
    "lambda x: x",
    "True",
    "None",
    "eoc",
    "uniform",
    "snip",
    "grasp",
    "digits",
    "none",
    "auto",
    "cuda:99",
    "mps",
    "meta",
    ".",
    "..",
    "/",
    "/dev/null",
    "/dev/full",
    "/proc/self/mem",
    "no/such/out.svg",
    "out.svg",
    "out.html",
    "out.txt",
    "data.npz",
    "text.npz",
    "nets.py",
    "nets.py:make",
    "nets.py:fails",
    "nets.py:leaves",
    "nets.py:no",
    "json:dumps",
    "os:getcwd",
    "a:b",
    ":",
    "a:",
    ":b",
    "a.b.c:d",
    "..:x",
    "\x1b[31m",
    "a\x00b",
    "\ud800",
    "\u202ea",
    "a\nb",
    "$x$",
    "[red]",
    "%s%n",
    "--help",
    "-h",
    "--version",
    "@nets.py",
    "3,32,32",
    "1,8,8",
    "0,0,0",
    "-1,8",
    "8",
    "1000000,8",
    "100000,100000,100000",
    "store",
    "phases",
    "tcp://127.0.0.1:1",
)
NETS = """
import torch
from torch import nn
def make(): return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
def fails(): raise RuntimeError("two\\nlines\\x1b[31m")
def leaves(): raise SystemExit(7)
no = 3
"""


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """A folder with the files that commands name."""
    with sandbox():
        Path("nets.py").write_text(NETS)
        Path("text.npz").write_text("no archive")
        rng = np.random.default_rng(0)
        np.savez("data.npz", inputs=rng.standard_normal((6, 8)), targets=np.arange(6) % 3)
        yield


def cases(seed: int, count: int) -> Iterator[tuple[str, list[str]]]:
    """Commands in which one or two words are others."""
    rng = random.Random(seed)
    names = list(COMMANDS)
    for index in range(count):
        name = names[index % len(names)]
        words = [word.replace("FOLDER", idx_files()) for word in COMMANDS[name][1]]
        for at in rng.sample(range(1, len(words)), rng.choice([1, 1, 2])):
            words[at] = rng.choice(TEXTS)
        yield name, words


def wrong(name: str, words: list[str], patience: float = 10.0) -> str | None:
    """What is wrong with how the command ends; None where nothing is."""
    out, err = io.StringIO(), io.StringIO()
    said = ""
    path = list(sys.path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with _limited(patience):
                    code = COMMANDS[name][0](words)
            except Late:
                said = f"did not end within {patience:g} s of CPU"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
    sys.path[:] = path
    if not said:
        said = _ill_ended(code, out.getvalue(), err.getvalue())
    if not said and caught:
        said = f"{caught[0].category.__name__}: {caught[0].message}"
    return f"{name}: {ascii(words)[:300]}: {said}" if said else None


def _ill_ended(code: int, out: str, err: str) -> str:
    if code not in (0, 1, 2):
        return f"exit status {code}"
    if code and (err.count("\n") != 1 or len(err) > 1200):
        return f"status {code} and {err.count(chr(10))} lines: {err[:300]!r}"
    if not code and err:
        return f"status 0 and on stderr: {err[:300]!r}"
    if "fits into memory" in err or "this is a bug" in err:
        return err
    bad = {hex(ord(c)) for c in out + err if not c.isprintable() and c != "\n"}
    return f"prints {bad}" if bad else ""


def failures(seed: int, count: int) -> list[str]:
    """What is wrong with `count` commands."""
    with folder():
        return [said for name, words in cases(seed, count) if (said := wrong(name, words))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad, shown = 0, sys.stdout
    with folder():
        for name, words in cases(options.seed, options.tries):
            if said := wrong(name, words):
                bad += 1
                print(ascii(said)[1:-1], file=shown, flush=True)
    print(f"{options.tries} commands, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
