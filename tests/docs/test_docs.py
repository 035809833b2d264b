"""The documentation: its code prints what the pages show, its commands parse, nothing is left out."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import eoc_theory as eoc
from docs.generate import generated, house
from docs.generate.__main__ import main
from docs.generate.blocks import CONSOLE, blocks, commands
from docs.generate.comparing import agrees
from docs.generate.docstrings import linked, plain
from docs.generate.invoking import call, is_ours, parse
from docs.generate.running import PageError, run_page
from eoc_theory import errors

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
WITH_CODE = [name for name, page in PAGES.items() if "```python" in page]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
#: A file or folder of the checkout, in code style.
NAMED = re.compile(r"`((?:eoc_theory|analysis|figures|paper_checks|benchmarks|docs|tests)/[\w./-]*)`")
RECT = "{http://www.w3.org/2000/svg}rect"
IDENTIFIER = re.compile(r"^::: (\S+)$", re.MULTILINE)


def figure_files() -> set[str]:
    from figures.registry import FIGURES

    return {f"figures/{one.name}{suffix}" for one in FIGURES for suffix in (".png", ".pdf")}


# --- pages --------------------------------------------------------------------------------------------------


def test_the_guide_is_there():
    for name in ("initialise", "diagnose", "predict", "compare", "reproduce"):
        assert f"guide/{name}.md" in WITH_CODE


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_CODE)
def test_code_prints_what_the_page_shows(name, tmp_path):
    pytest.importorskip("torch")
    differences = run_page(PAGES[name], name, tmp_path)
    assert not differences, "\n".join(map(str, differences))
    # What the page shows of what its code writes is there.
    linked = {target for target in LINK.findall(PAGES[name]) if "/" not in target and "." in target}
    made = {target for target in linked if not target.partition("#")[0].endswith(".md")}
    assert made <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = Path(name).parent
    for target in LINK.findall(generated.fill(PAGES[name])):
        assert not target.startswith(("http", "/")), f"{target} is not in the site"
        path, _, anchor = target.partition("#")
        there = str((DOCS / folder / path).resolve().relative_to(DOCS)) if path else name
        written = {word for block in blocks(PAGES[name]) for word in re.findall(r'"([\w.]+)"', block.text)}
        if there in PAGES:
            filled = generated.fill(PAGES[there])
            assert not anchor or f"{{ #{anchor} }}" in filled, f"{target}: no such heading"
        else:
            made = there in figure_files() or path in written
            assert made or (DOCS / there).is_file(), f"{target}: no such file"


@pytest.mark.parametrize("name", [*PAGES, "README.md"])
def test_commands_parse(name):
    page = generated.fill(PAGES[name]) if name in PAGES else (ROOT / name).read_text(encoding="utf-8")
    found = [command.words for b in blocks(page) if b.language == CONSOLE for command in commands(b)]
    if name == "README.md":
        lines = re.findall(r"^    ((?:eoc|python -m) .*)$", page, flags=re.MULTILINE)
        found = [tuple(re.split(r" +", line)) for line in lines]
        assert found
    from paper_checks.registry import CLAIMS

    for words in filter(is_ours, found):
        options = parse(words)
        if words[2:3] == ("paper_checks",):
            assert set(options.names) <= {claim.name for claim in CLAIMS}


@pytest.mark.parametrize("name", [*PAGES, "README.md", "CONTRIBUTING.md"])
def test_named_files_are_there(name):
    page = PAGES[name] if name in PAGES else (ROOT / name).read_text(encoding="utf-8")
    for path in NAMED.findall(page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_in_the_checkout_lead_somewhere(name):
    for target in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).is_file(), target


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


# --- the drawing of the packages ----------------------------------------------------------------------------


def test_the_drawing_is_that_of_the_contract():
    """Else: python -m docs.generate.house"""
    assert house.DRAWING.read_text(encoding="utf-8") == house.drawing()


def test_the_drawing_shows_every_package():
    packages = {path.parent.name for path in (ROOT / "eoc_theory").glob("*/__init__.py")}
    layers = house.read_house(house.CONTRACT.read_text(encoding="utf-8")).layers
    assert {name for layer in layers for name in layer} == packages
    names = re.findall(r'font-weight="bold"[^>]*>(\w+)<', house.drawing())
    assert names == [name for layer in layers for name in layer]


def test_a_contract_is_drawn_row_by_row():
    contract = (
        "[importlinter:contract:house]\nname = Down\nlayers =\n    top\n    left | right\n    (low)\n"
        "[importlinter:contract:theory]\nname = Light\nsource_modules =\n    p.left\n    p.right\n    p.low\n"
    )
    read = house.read_house(contract)
    assert read.layers == (("top",), ("left", "right"), ("low",))
    assert read.light == {"left", "right", "low"}
    texts = {"top": "A < B & C.", "left": "Long " * 40, "right": "R.", "low": "L."}
    drawn = ElementTree.fromstring(house.draw(read, texts))
    rects = [one for one in drawn.iter(RECT) if one.get("x")]
    places = [{key: float(one.get(key)) for key in ("x", "y", "width", "height")} for one in rects]
    top, left, right, low = places
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    assert top["y"] + top["height"] < left["y"] and left["y"] + left["height"] < low["y"]
    assert top["width"] == pytest.approx(right["x"] + right["width"] - left["x"])
    assert left["height"] > top["height"]
    shown = "".join(drawn.itertext())
    assert "A < B & C." in shown and "Down" in shown and "Light" in shown


def test_a_docstring_is_shown_by_its_first_sentence(tmp_path):
    (tmp_path / "one").mkdir()
    text = '"""The `first`\nsentence. The second.\n\nMore."""\n'
    (tmp_path / "one" / "__init__.py").write_text(text, encoding="utf-8")
    assert house.description("one", tmp_path) == "The first sentence."


def test_every_step_upwards_is_told_and_leads_somewhere():
    from eoc_theory.base.upward import STEPS, upward

    pytest.importorskip("torch")
    page = generated.upward()
    for step in STEPS:
        assert f"| `{step}` |" in page
        assert callable(upward(step))


# --- nothing is left out ------------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference_once():
    listed = [one for name, page in PAGES.items() if "reference" in name for one in IDENTIFIER.findall(page)]
    assert len(listed) == len(set(listed))
    public = [one.removeprefix("eoc_theory.") for one in listed if one.count(".") == 1]
    assert sorted(public) == sorted(eoc.__all__)


def test_every_error_is_in_the_reference():
    listed = IDENTIFIER.findall(PAGES["reference/errors.md"])
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type)]
    assert {one.rpartition(".")[2] for one in listed} == set(kinds)


def test_what_is_in_the_reference_has_a_docstring():
    from importlib import import_module

    for page in PAGES.values():
        for one in IDENTIFIER.findall(page):
            module, _, name = one.rpartition(".")
            assert getattr(import_module(module), name).__doc__, one


def test_the_reference_shows_functions_and_classes():
    """As the site sees them: a name that a module has too could be taken for that."""
    griffe = pytest.importorskip("griffe")
    package = griffe.load("eoc_theory", search_paths=[ROOT], resolve_aliases=True)
    for page in PAGES.values():
        for one in IDENTIFIER.findall(page):
            assert not package[one.removeprefix("eoc_theory.")].is_module, one


def test_each_mark_stands_in_one_page():
    marks = [mark for page in PAGES.values() for mark in generated.MARK.findall(page)]
    assert sorted(marks) == sorted(generated.GENERATED)


def test_the_criteria_are_those_of_the_registry():
    from eoc_theory.criteria import criterion_names
    from eoc_theory.criteria.criterion import Adapted

    page = generated.criteria()
    made = {name: eoc.criterion(name) for name in criterion_names()}
    own = [
        name
        for name, one in made.items()
        if type(one).__module__.startswith("eoc_theory.") and not isinstance(one, Adapted)
    ]
    assert re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE) == own
    assert "| `rounds=100` |" in page and "`grasp`" in page
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in own)


def test_the_gallery_has_every_figure():
    page = generated.figures()
    for file in figure_files():
        assert f"({file})" in page
        assert (ROOT / file).exists()


def test_the_claims_have_their_verdicts():
    from paper_checks.registry import CLAIMS

    page = generated.claims()
    for claim in CLAIMS:
        assert f"| [{claim.name}](#{claim.name}) | {claim.recorded.value} |" in page
        assert f"$ python -m paper_checks {claim.name}\n" in page


def test_the_command_line_has_every_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(generated.WIDTH))
    page = generated.help_texts()
    for words in (["eoc", "init"], ["eoc", "diagnose"], ["python", "-m", "analysis", "run"], ["eoc"]):
        code, printed = call([*words, "--help"])
        assert code == 0
        assert f"`{' '.join(words)}`\n\n```text\n{printed}```" in page
    for command in re.findall(r"^    (\w+) +\S", call(["eoc", "--help"])[1], flags=re.MULTILINE):
        assert f"### `eoc {command}`" in page


# --- how pages are read and run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("σ_w = 1.304", "σ_w = 1.304\n"),
        ("σ_w = 1.304", "σ_w = 1.305"),
        ("a  0.10  b", "a 0.11   b"),
        ("first\n…\nlast", "first\nmuch\nmore\nlast"),
        ("(… s)", "(12.5 s)"),
        ("<1e-9", "<1e-9"),
        ("error 1.6e-13", "error 1.7e-13"),
    ],
)
def test_what_agrees(shown, printed):
    assert agrees(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("σ_w = 1.304", "σ_w = 1.306"),
        ("12 layers", "13 layers"),
        ("a", "a b"),
        ("0.10 b", "0.10 c"),
        ("-1.0", "1.0"),
        ("1e-9", "3e-9"),
        ("1.5", "nan"),
    ],
)
def test_what_does_not_agree(shown, printed):
    assert not agrees(shown, printed)


def test_a_page_that_shows_something_else_is_told_and_updated(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# T\n\n```python\nx = 2\nprint(x)\n```\n\n```output\n3\n```\n", encoding="utf-8")
    assert main([str(page)]) == 1
    assert "shown:\n3\n" in capsys.readouterr().out
    assert main([str(page), "--update"]) == 0
    assert "```output\n2\n```\n" in page.read_text(encoding="utf-8")
    assert main([str(page)]) == 0


def test_commands_are_run_where_their_output_is_shown(tmp_path):
    page = "```console\n$ eoc --version\neoc 9.9\n$ eoc init nonsense\n$ pip install x\nAlways so.\n```\n"
    (difference,) = run_page(page, "page", tmp_path)
    assert difference.printed == page[len("```console\n") : -len("```\n")].replace("9.9", eoc.__version__)


def test_a_page_that_is_not_there_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "none.md")])
    assert stopped.value.code == 2 and "PAGE must be a file that exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```python\nraise SystemExit(0)\n```\n", "SystemExit"),
        ("```python\nprint(1)\n```\n", "does not show"),
        ("```console\n$ eoc init nonsense\nσ_w\n```\n", "exit status 2"),
    ],
)
def test_code_that_fails_is_an_error(page, message, tmp_path):
    with pytest.raises(PageError, match=message):
        run_page(page, "page", tmp_path)


@pytest.mark.parametrize(
    "words", [("eoc", "init"), ("eoc", "nonsense"), ("python", "-m", "analysis", "run", "nonsense")]
)
def test_commands_that_do_not_parse_are_refused(words):
    with pytest.raises(ValueError, match=r"missing|no command|invalid choice"):
        parse(words)


def test_continued_lines_are_one_command():
    (block,) = blocks("```console\n$ eoc init \\\n    tanh  # a name\nout\n```\n")
    (command,) = commands(block)
    assert command.words == ("eoc", "init", "tanh")
    assert command.output == "out\n"


def test_docstrings_have_one_item_a_line():
    text = (
        "Title, see :func:`f`.\n\nArgs:\n    a: one. b: two.\n    c, d: three.\n\nRaises:\n"
        '    ArgumentError: x, or for\n    "y" so. DataError, ModelError: z.\n\nEnd.'
    )
    assert plain(text, ("a", "b", "c", "d")) == (
        "Title, see `f`.\n\nArgs:\n    a: one.\n    b: two.\n    c, d: three.\n\nRaises:\n"
        '    ArgumentError: x, or for "y" so.\n    DataError, ModelError: z.\n\nEnd.'
    )


def test_public_names_in_docstrings_lead_to_the_reference():
    text = "See `eoc.mlp`, `eoc_theory.builders.mlp`, `mlp(3)`, ``mlp`` and `cnn`; `resnet` is this."
    assert linked(text, {"mlp", "resnet"}, "resnet") == (
        "See [`eoc.mlp`][eoc_theory.mlp], [`eoc_theory.builders.mlp`][eoc_theory.mlp], `mlp(3)`, ``mlp`` "
        "and `cnn`; `resnet` is this."
    )
