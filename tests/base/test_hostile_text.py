"""Names of all kinds, as terminals, pages, pictures and files show them: nothing in them is obeyed."""

from __future__ import annotations

import csv
import json
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import eoc_theory as eoc  # noqa: E402
from eoc_theory.cli import main  # noqa: E402
from eoc_theory.cli.output import print_facts, print_json, print_prose, print_table, say  # noqa: E402
from eoc_theory.errors import (  # noqa: E402
    EOCError,
    text,
)

NAMES = {
    "colour": "\x1b[31mred\x1b[0m",
    "title of the window": "\x1b]0;title\x07",
    "one byte of control": "\x9b31m",
    "nul": "a\x00b",
    "bell and backspace": "a\x07\x08\x08",
    "carriage return": "harmless\rharm",
    "lines": "one\ntwo\r\nthree\x0b\x0c\x85",
    "line separators": "one\u2028two\u2029three",
    "right to left": "abc\u202egnp.exe",
    "isolates": "\u2066a\u2067b\u2068c\u2069",
    "marks of direction": "\u200e\u200f\u061ca",
    "embeddings": "\u202aa\u202bb\u202cc\u202dd",
    "invisible": "a\u200b\u200c\u200d\u2060\ufeffb\u00adc",
    "lone surrogates": "a\ud800b\udfff",
    "marks upon marks": "e" + "\u0301" * 300,
    "tags": "a\U000e0041\U000e0042",
    "long": "n" * 100_000,
    "long and hostile": "\x1b[31m" * 20_000,
    "markup": "[red]a[/red][/]",
    "page": "<script>alert(1)</script>&amp;\"'",
    "formula": "$\\frac{1}$_^",
    "other scripts": "слой_層_שכבה",
}
HARMLESS = ("", "layer", "слой", "שכבה", "層 1", "naïve", "e\u0301", "σ_w² ≤ 3", "\\x1b")


def shows(shown: str) -> None:
    """Nothing but printable characters and the ends of lines, and no line without end."""
    bad = {hex(ord(c)) for c in shown if not c.isprintable() and c != "\n"}
    assert not bad
    assert "\u0301" * 10 not in shown
    shown.encode()


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_escaped(kind):
    name = NAMES[kind]
    for function in (text.printable, text.name, text.prose, text.one_line, text.printable_lines):
        shows(function(name))
        assert function(function(name)) == function(name)
    assert "\n" not in text.printable(name) + text.name(name) + text.one_line(name)
    assert len(text.name(name)) <= text.LONGEST_NAME
    assert len(text.one_line(name)) <= text.LONGEST_MESSAGE
    if len(name) < 300 and "\u0301" not in name:
        # Escaped, not left out: what it was can be read.
        assert json.loads(text.json_text(name)) == name
        shows(text.json_text(name))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_left_alone(name):
    assert text.printable(name) == text.name(name) == text.prose(name) == text.one_line(name) == name
    assert text.json_text({"a": name}) == json.dumps({"a": name}, ensure_ascii=False)


@pytest.mark.parametrize("kind", NAMES)
def test_errors_are_one_line(kind, capsys):
    name = NAMES[kind]
    calls = [
        lambda: eoc.activation(name),
        lambda: eoc.edge_of_chaos(name),
        lambda: eoc.mlp(3, 5, init=name),
        lambda: eoc.load_images(name),
        lambda: eoc.load_images("mnist", folder=name),
        lambda: eoc.predict_pruning(eoc.mlp(3, 5), 0.5, criterion=name),
        lambda: eoc.measure_pruning(nn.Linear(3, 2), 0.5, device=name),
        lambda: eoc.prune_(nn.Sequential(nn.Linear(3, 2)), {name: np.ones((2, 3))}),
        lambda: eoc.critical_curve("tanh", sigma_b=[0.1]).plot(name),
        lambda: EOCError(name).__class__ and _raise(EOCError(name)),
    ]
    for call in calls:
        with pytest.raises(EOCError) as caught:
            call()
        message = str(caught.value)
        shows(message)
        assert "\n" not in message and len(message) <= text.LONGEST_MESSAGE


def _raise(error: Exception) -> None:
    raise error


COMMANDS = [
    ["init", "NAME"],
    ["curve", "tanh", "--plot", "NAME"],
    ["curve", "tanh", "--sigma-b", "NAME"],
    ["init", "tanh", "NAME"],
    ["NAME"],
    ["init", "tanh", "--NAME"],
    ["predict", "--activation", "NAME", "--depth", "3", "--width", "5", "--sparsity", "0.5"],
    [
        "predict",
        "--activation",
        "relu",
        "--depth",
        "3",
        "--width",
        "5",
        "--sparsity",
        "0.5",
        "--data",
        "NAME",
    ],
    ["predict", "--activation", "relu", "--depth", "3", "--width", "5", "--sparsity", "NAME"],
    ["diagnose", "NAME"],
    ["diagnose", "NAME:make"],
    ["diagnose", "json:NAME"],
    ["design", "NAME:NAME", "--sparsity", "0.5"],
    ["compare", "--kind", "NAME", "--depth", "3", "--sparsity", "0.5"],
]


@pytest.mark.parametrize("kind", NAMES)
def test_commands_refuse_them_in_one_line(kind, capsys):
    for words in COMMANDS:
        assert main([word.replace("NAME", NAMES[kind]) for word in words]) in (1, 2), words
        printed = capsys.readouterr()
        shows(printed.out + printed.err)
        assert printed.err.count("\n") == 1, words
        assert len(printed.err) < 1200


def seconds(read, words) -> float:
    """Processor time of reading what cannot be read."""
    begun = time.process_time()
    try:
        assert read(words) in (1, 2)
    except EOCError:
        pass
    return time.process_time() - begun


@pytest.mark.parametrize(
    "read", [eoc.activation, eoc.criterion, main], ids=["activation", "criterion", "eoc"]
)
@pytest.mark.parametrize(
    "pattern", ["a{ }!", " {a }", "a{(}", "{1}", "{1:}x", "{,}", "{1-}", "{x }", "{1e}", "a b{ }(", "{a\t}"]
)
def test_long_texts_take_no_more_than_their_length(read, pattern):
    begin, rest = pattern.split("{")
    many, end = rest.split("}")

    def words(times: int):
        text = begin + many * times + end
        return text if read is not main else ["curve", "tanh", "--sigma-b", text]

    # Ten times as long: a pattern that tries all pairs of places takes a hundred times as long.
    short = max(seconds(read, words(2_000)), 0.02)
    assert seconds(read, words(20_000)) < 30 * short


class Named(nn.Module):
    """A row of layers of that name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 6)
        self.activation = nn.Tanh()
        self.add_module(name, nn.Linear(6, 6))
        self.last = nn.Linear(6, 3)
        self.name = name

    def forward(self, x):
        x = self.activation(self.first(x))
        return self.last(self.activation(self.get_submodule(self.name)(x)))


def model(kind: str) -> nn.Module:
    # torch takes no dot in a module's name.
    return Named(NAMES[kind].replace(".", "_"))


class Page(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)


@pytest.mark.parametrize("kind", NAMES)
def test_diagnoses_and_designs_of_such_models(kind, tmp_path, capsys):
    net = model(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = eoc.diagnose(net, (2, 8), sparsity=0.5, criterion="magnitude")
        planned = eoc.design(net, 0.5, criterion="magnitude", networks=0)
        found.to_html(tmp_path / "page.html", title=net.name)
        for index, result in enumerate((found, planned)):
            result.plot(tmp_path / f"{index}.svg")
            ElementTree.parse(tmp_path / f"{index}.svg")
    for shown in (str(found), found.verdict, repr(found.paragraphs), str(planned), planned.verdict):
        shows(shown)
        assert max(map(len, shown.split("\n"))) < 4000
    page = (tmp_path / "page.html").read_text()
    shows(page)
    parsed = Page()
    parsed.feed(page)
    assert "script" not in parsed.found
    shows(found.to_json() + planned.to_json())
    assert json.loads(found.to_json())["layers"][1] == found.layers[1]


@pytest.mark.parametrize("kind", NAMES)
def test_pictures_of_masks_and_curves(kind, tmp_path):
    from eoc_theory.reports.plots.connections import plot_connections

    def named(x):
        return np.tanh(x)

    named.__name__ = NAMES[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act = eoc.activation(named)
        shows(act.name + repr(act))
        masks = {NAMES[kind]: np.ones((4, 5)), "b": np.ones((3, 4))}
        plot_connections({NAMES[kind]: masks}, tmp_path / "masks.svg", layers=[NAMES[kind]])
        eoc.critical_curve(act, sigma_b=[0.1, 0.5]).plot(tmp_path / "curve.svg")
        eoc.phase_diagram(act, sigma_w=[1.0, 1.5, 2.0], sigma_b=[0.1, 0.2, 0.5]).plot(tmp_path / "phase.png")
    for name in ("masks.svg", "curve.svg"):
        ElementTree.parse(tmp_path / name)
        shows((tmp_path / name).read_text())


@pytest.mark.parametrize("kind", NAMES)
def test_what_commands_print(kind, capsys):
    name = NAMES[kind]
    say(name)
    print_table(("a", name), [(name, "1"), ("b", name)], note=name)
    print_facts([("name", name)])
    print_prose(name, f"layer {name} is the one", 80)
    shows(capsys.readouterr().out)
    print_json({"name": name, name: 1})
    printed = capsys.readouterr().out
    shows(printed)
    assert json.loads(printed) == {"name": name, name: 1}


@pytest.mark.slow
def test_a_command_on_such_a_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "hostile_nets.py").write_text(
        "from tests.base.test_hostile_text import NAMES, model\n"
        + "".join(f"def m{i}(): return model({kind!r})\n" for i, kind in enumerate(NAMES))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for index in range(0, len(NAMES), 3):
        words = f"diagnose hostile_nets:m{index} --criterion magnitude --html page.html"
        assert main(words.split()) == 0
        printed = capsys.readouterr()
        shows(printed.out + printed.err + (tmp_path / "page.html").read_text())


def test_exports_of_studies_with_such_names(tmp_path):
    csv.field_size_limit(10**6)
    pd = pytest.importorskip("pandas")
    from analysis import tables

    class Store:
        path = tmp_path / "store"

    # pandas holds no surrogates itself.
    names = [name for name in NAMES.values() if not any("\ud800" <= c <= "\udfff" for c in name)]
    frame = pd.DataFrame({"activation": names, "value": range(len(names))})
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"table{suffix}"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tables, "TABLES", {"kept": lambda store: frame.copy()})
            tables.export(Store(), path)
        cells = list(pd.read_parquet(path)["activation"]) if suffix == ".parquet" else None
        if cells is None:
            with open(path, newline="", encoding="utf-8") as file:
                cells = [row["activation"] for row in csv.DictReader(file)]
        assert len(cells) == len(names)
        shows("\n".join(cells))


def test_frames_take_names_that_no_file_can_hold() -> None:
    model = nn.Sequential()
    for name, module in (("\ud800", nn.Linear(8, 6)), ("r", nn.ReLU()), ("b", nn.Linear(6, 3))):
        model.add_module(name, module)
    data = (np.random.default_rng(0).standard_normal((12, 8)), np.arange(12) % 3)
    for result in (eoc.compare(model, 0.5, data=data, seeds=1), eoc.predict_pruning(model, 0.5, data=data)):
        assert list(result.to_frame()["layer"]) == ["\\ud800", "b"]
        assert "\ud800" not in str(result)
