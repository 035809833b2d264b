"""The diagnosis as one self-contained page, without fonts or requests; with scripts only where asked for."""

from __future__ import annotations

import os
import re
import sys
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING

from ...base.formatting import probability, sparsity
from ...base.version import __version__
from ...errors.text import prose
from ..plots.interactive import in_a_page
from ..plots.pages import document, inline, write
from .forecast import SAFE
from .picture import panels, plot_panel
from .sampled_verdict import paragraphs as sampled_paragraphs
from .table import columns, legend
from .verdict import CURE, HELP, paragraphs

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

#: Colours of the pictures, as matplotlib writes them, and what takes their place in the page, which knows
#: whether it is read by day or by night.
_COLOURS = {
    "#0072b2": "var(--found)",
    "#d55e00": "var(--cured)",
    "#595959": "var(--muted)",
    "#000000": "currentColor",
}

_STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1b1f24; --muted: #5a6370;
  --line: #dcdfe4; --found: #0072b2; --cured: #c25400; --bad: #b3261e; --badback: #fdecea; --good: #1a7f4b;
  --goodback: #e6f4ec; --warn: #8a5a00; --warnback: #fdf3dc; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --card: #1c2026; --ink: #e6e8eb; --muted: #a2abb6; --line: #343a43;
    --found: #5cb8f0; --cured: #f59a4c; --bad: #ff9a91; --badback: #431d1b; --good: #7fd6a5;
    --goodback: #16331f; --warn: #f0c368; --warnback: #3a2d10; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .2rem 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .15rem; }
p { margin: .2rem 0 .6rem; max-width: 46rem; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, SFMono-Regular, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
sub { line-height: 0; }
.sub, footer { color: var(--muted); font-size: .9rem; }
.marks { display: flex; flex-wrap: wrap; gap: .4rem; margin: .6rem 0 1rem; padding: 0; list-style: none; }
.marks li { padding: .1rem .7rem; border-radius: 1rem; font-size: .88rem; font-weight: 600; }
.bad { color: var(--bad); background: var(--badback); }
.warn { color: var(--warn); background: var(--warnback); }
.good { color: var(--good); background: var(--goodback); }
.tiles { display: grid; margin: 1.2rem 0 0; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem;
  margin: 0; min-width: 0; }
.tile dt { color: var(--muted); font-size: .85rem; }
.tile { display: grid; grid-template-columns: max-content 1fr; gap: 0 .7rem; align-items: baseline; }
.tile dt { grid-column: 1 / -1; }
.tile dd { margin: 0; display: contents; font-variant-numeric: tabular-nums; }
.tile dd b { font-size: 1.2rem; } .tile dd span { font-size: .88rem; color: var(--muted); }
@media (min-width: 60rem) { .top { display: grid; grid-template-columns: minmax(0, 1fr) 17rem; gap: 2rem; }
  .top h2 { margin-top: 1rem; }
  .top .tiles { grid-template-columns: 1fr; align-content: start; } }
.found { color: var(--found); } .cured { color: var(--cured); }
.step { border-left: .25rem solid var(--good); padding: .5rem .8rem; background: var(--card); margin: .4rem 0;
  max-width: 46rem; }
.pictures { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure svg { width: 100%; height: auto; display: block; }
#chart { height: 21rem; }
.wide { overflow-x: auto; padding: 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th.left, td.left { text-align: left; }
thead th { color: var(--muted); font-weight: 600; }
tbody th { font-weight: 600; text-align: left; position: sticky; left: 0; background: var(--card);
  max-width: 11rem; overflow: hidden; text-overflow: ellipsis; }
tbody tr:last-child > * { border-bottom: 0; }
td.bad, td.warn { font-weight: 600; }
dl.legend { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem;
  margin: 0; }
dl.legend dt { font-weight: 600; } dl.legend dd { margin: 0; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .7rem; }
"""

_CAPTIONS = {
    "What pruning keeps": "Predicted fraction of each layer's weights that stays, ± one standard deviation "
    "over initialisations.",
    "Second moment of the scores": "How large each layer's scores are beside the last layer's. Where the "
    "line falls by decades, one threshold for all layers removes whole layers.",
    "Scale of the weights": "What was found in the weights, and where gradients neither vanish nor explode.",
    "Signals and gradients": "Mean square of each layer's output, and squared norm of the gradient by it "
    "beside the last layer's, in sampled networks. Level lines are best.",
    "Probability of collapse": "How likely some layer keeps no weight at each sparsity.",
}

_WORDS = {
    "silent": ("scores of whole layers are 0", "bad"),
    "ordered": ("ordered: signals and gradients vanish", "warn"),
    "chaotic": ("chaotic: gradients explode", "warn"),
    "exploding": ("residual blocks explode", "warn"),
    "vanishing": ("gradients vanish", "warn"),
    "rank collapse": ("rank collapse: tokens are alike", "warn"),
    "entropy collapse": ("entropy collapse: attention to single keys", "warn"),
    "starved": ("a layer is starved", "warn"),
    "risk": ("a layer may collapse", "warn"),
    "collapse": ("layers collapse", "bad"),
}


#: The place of the chart that says what is under the pointer: of what pruning keeps, the first picture.
_CHART = "chart"
#: What the numbers are, by method.
_KINDS = {
    "theory": "A prediction",
    "sampled": "A prediction from sampled networks",
    "measured": "A measurement",
}


def write_page(found: Diagnosis, path: str | os.PathLike[str], title: str, interactive: bool = False) -> None:
    """Write the page; a file that was there before stays until the new one is complete.

    Raises:
        ArgumentError: `path` does not end in .html, or cannot be written.
        MissingDependencyError: Plotly is not installed, and the page is to be `interactive`.
    """
    write(path, lambda: page(found, title, interactive))


def page(found: Diagnosis, title: str, interactive: bool = False) -> str:
    """The page's text. What comes from the model (names of layers, activations) is escaped."""
    scripts = in_a_page(found, _CHART) if interactive else ()
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(_subtitle(found))}</p>',
        _marks(found),
        '<div class="top">',
        "<section>",
        "<h2>Verdict</h2>",
        *_verdict(found),
        "</section>",
        _tiles(found),
        "</div>",
        "<h2>Pictures</h2>",
        _pictures(found, interactive),
        "<h2>Layers</h2>",
        _table(found),
        "<h2>How to read it</h2>",
        _legend(found),
        f"<footer>{escape(_versions(found))}</footer>",
    ]
    return document(title, _STYLE, body, scripts=scripts)


def _subtitle(found: Diagnosis) -> str:
    layers = len(found.layers)
    total = int(found.weights.sum())
    return (
        f"{layers} weight layer{'s' if layers > 1 else ''}, {total:,} weights; {found.criterion} at "
        f"sparsity {found.sparsity:g}" + ("" if found.method == "theory" else f"; {found.method}")
    )


def _marks(found: Diagnosis) -> str:
    words = _WORDS if found.signals is None else {**_WORDS, "exploding": ("gradients explode", "warn")}
    said = [words[problem] for problem in found.problems] or [("nothing to cure", "good")]
    return '<ul class="marks">' + "".join(f'<li class="{kind}">{text}</li>' for text, kind in said) + "</ul>"


def _tiles(found: Diagnosis) -> str:
    before, after = found.before, found.after
    tiles = [
        ("P(collapse)", [probability(seen.collapse_probability) for seen in (before, after) if seen]),
        ("critical sparsity", [sparsity(seen.critical_sparsity) for seen in (before, after) if seen]),
        ("safe up to (5 % risk)", [sparsity(seen.safe_sparsity) for seen in (before, after) if seen]),
        ("least kept in a layer", [_share(float(seen.kept.min())) for seen in (before, after) if seen]),
    ]
    made = []
    for name, values in tiles:
        shown = f'<span>as found</span> <b class="found">{escape(values[0])}</b>'
        if len(values) > 1:
            shown += f' <span>cured</span> <b class="cured">{escape(values[1])}</b>'
        made.append(f'<dl class="card tile"><dt>{escape(name)}</dt><dd>{shown}</dd></dl>')
    return '<div class="tiles">' + "".join(made) + "</div>"


def _share(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "0" if value == 0 else f"{value:.0e}"


def _verdict(found: Diagnosis) -> list[str]:
    made = []
    parts = paragraphs if found.signals is None else sampled_paragraphs
    for heading, text in parts(found, named=False):
        text = prose(text)
        made.append(f"<h3>{escape(heading)}</h3>")
        if heading in (CURE, HELP) and found.cure is not None:
            for step in found.cure.steps:
                shown = f"<code>{escape(step)}</code>" if step.startswith("eoc.") else _prose(step)
                made.append(f'<div class="step">{shown}</div>')
        made.append(f"<p>{_prose(text)}</p>")
    return made


def _prose(text: str) -> str:
    """Escaped text with σ_w, σ_b, m^l as formulas have them, and code as code."""
    shown = re.sub(r"(?<!\w)σ_([wb])(?![a-z])", r"σ<sub>\1</sub>", escape(text))
    return re.sub(r"(eoc\.\w+\([^()]*\))", r"<code>\1</code>", shown)


def _pictures(found: Diagnosis, interactive: bool) -> str:
    made = []
    for number, (title, draw) in enumerate(panels(found)):
        label = f"{title}. {_CAPTIONS[title]}"
        if interactive and number == 0:
            picture = f'<div id="{_CHART}" role="img" aria-label="{escape(label, quote=True)}"></div>'
        else:
            drawn = plot_panel(found, draw)
            picture = inline(drawn, label, prefix=f"p{number}-", salt="eoc-theory", colours=_COLOURS)
        made.append(
            f'<figure class="card"><figcaption>{escape(title)}</figcaption>{picture}'
            f'<p class="sub">{escape(_CAPTIONS[title])}</p></figure>'
        )
    return '<div class="pictures">' + "\n".join(made) + "</div>"


def _table(found: Diagnosis) -> str:
    made = columns(found)
    empty = found.empty_probability
    head = "".join(f'<th scope="col"{_side(column.left)}>{escape(column.heading)}</th>' for column in made)
    rows = []
    for row in range(len(found.layers)):
        name = escape(made[0].cells[row])
        risk = "bad" if empty[row] > 0.5 else "warn" if empty[row] >= SAFE else ""
        cells = [f'<th scope="row" title="{name}">{name}</th>']
        for column in made[1:]:
            kind = f' class="{risk}"' if risk and column.heading == "P(empty)" else _side(column.left)
            cells.append(f"<td{kind}>{escape(column.cells[row])}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="card wide" tabindex="0" role="region" aria-label="Layers">{table}</div>'


def _side(left: bool) -> str:
    return ' class="left"' if left else ""


def _legend(found: Diagnosis) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{_prose(meaning)}</dd>" for name, meaning in legend(found))
    return f'<dl class="legend">{entries}</dl>'


def _versions(found: Diagnosis) -> str:
    """What made the page; torch only where it was needed."""
    names = [name for name in ("numpy", "scipy", "torch") if name != "torch" or "torch" in sys.modules]
    others = ", ".join(f"{name} {import_module(name).__version__}" for name in names)
    kind = _KINDS[found.method]
    return f"eoc-theory {__version__}; {others}; seed {found.seed}. {kind}: nothing was trained or pruned."
