"""All verdicts as one self-contained page: no script, no font, no request."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

import eoc_theory
from eoc_theory.reports.plots.pages import document, inline, write

from .claim import Outcome, Verdict, measured, number
from .picture import Picture, draw

_STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1b1f24; --muted: #5a6370;
  --line: #dcdfe4; --bad: #b3261e; --badback: #fdecea; --good: #1a7f4b; --goodback: #e6f4ec; --warn: #8a5a00;
  --warnback: #fdf3dc; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --card: #1c2026; --ink: #e6e8eb; --muted: #a2abb6; --line: #343a43;
    --bad: #ff9a91; --badback: #431d1b; --good: #7fd6a5; --goodback: #16331f; --warn: #f0c368;
    --warnback: #3a2d10; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .2rem 0 .3rem; }
h2 { font-size: 1.12rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .3rem 0 .7rem; max-width: 48rem; overflow-wrap: anywhere; }
.sub, footer { color: var(--muted); font-size: .9rem; }
.mark { display: inline-block; padding: .05rem .7rem; border-radius: 1rem; font-size: .88rem;
  font-weight: 600; white-space: nowrap; }
.bad { color: var(--bad); background: var(--badback); }
.warn { color: var(--warn); background: var(--warnback); }
.good { color: var(--good); background: var(--goodback); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem;
  margin: 0 0 1rem; min-width: 0; }
.head { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center; margin-bottom: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem .22rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; } th.left, td.left { text-align: left; }
td.part { padding-left: 1.2rem; }
tbody tr:last-child > * { border-bottom: 0; }
.index { width: 100%; } .index td { white-space: normal; vertical-align: top; }
a { color: inherit; }
@media (max-width: 40rem) { .index tr { display: block; padding: .5rem 0; }
  .index tr + tr { border-top: 1px solid var(--line); }
  .index td { display: block; border: 0; } }
details { margin-top: .5rem; } summary { cursor: pointer; color: var(--muted); font-size: .9rem; }
figure { margin: .6rem 0 0; max-width: 33rem; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: .9rem; max-width: 48rem; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .7rem; }
@media print { details { display: block; } .card { break-inside: avoid; } }
"""

_KINDS = {Verdict.HOLDS: "good", Verdict.REFINED: "warn", Verdict.FAILS: "bad"}


def write_page(outcomes: Sequence[Outcome], path: str | os.PathLike[str], *, quick: bool) -> None:
    """Write the page; a file that was there before stays until the new one is complete.

    Raises:
        ArgumentError: `path` does not end in .html, or cannot be written.
    """
    write(path, lambda: page(outcomes, quick=quick))


def page(outcomes: Sequence[Outcome], *, quick: bool) -> str:
    """The page's text."""
    title = "Robust Pruning at Initialization: its claims, checked"
    form = "quick" if quick else "full"
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    body = [
        f"<h1>{escape(title)}</h1>",
        '<p class="sub">Claims of Hayou, Ton, Doucet &amp; Teh (ICLR 2021) and of the papers it builds '
        "on, and of papers on transformers at initialisation, each set against computation and sampled "
        "networks. Where experiment and formula differ, the "
        "experiment wins. χ is the factor by which a layer multiplies the mean squared gradient (1 on the "
        "edge of chaos), m<sup>l</sup> the mean squared score of layer l, L the number of layers, N the "
        "width, s<sub>cr</sub> the smallest sparsity at which a layer has lost all its weights. Pairs in "
        "brackets are (σ<sub>w</sub>, σ<sub>b</sub>); ± is one standard error over networks.</p>",
        *(_index(group, list(some)) for group, some in groupby(outcomes, key=lambda o: o.claim.group)),
        *(_section(number_, outcome) for number_, outcome in enumerate(outcomes)),
        f"<footer>eoc-theory {escape(eoc_theory.__version__)}; the {form} form of {len(outcomes)} checks, "
        f"{minutes:.1f} minutes: python -m paper_checks --{form}</footer>",
    ]
    return document(title, _STYLE, body)


def _mark(outcome: Outcome) -> str:
    verdict = outcome.finding.verdict
    return f'<span class="mark {_KINDS[verdict]}">{escape(verdict.value)}</span>'


def _index(group: str, outcomes: Sequence[Outcome]) -> str:
    rows = "".join(
        f'<tr><td class="left"><a href="#{escape(o.claim.name)}">{escape(o.claim.name)}</a></td>'
        f'<td class="left">{_mark(o)}</td><td class="left">{prose(o.claim.brief)}</td></tr>'
        for o in outcomes
    )
    title = f"<p><b>{escape(group)}</b></p>"
    return f'<div class="card wide">{title}<table class="index"><tbody>{rows}</tbody></table></div>'


def _section(position: int, outcome: Outcome) -> str:
    claim, finding = outcome.claim, outcome.finding
    news = (
        "" if outcome.agrees else f'<span class="mark bad">on record: {escape(claim.recorded.value)}</span>'
    )
    parts = [
        f'<section class="card" id="{escape(claim.name)}">',
        f'<div class="head"><h2>{escape(claim.name)}</h2>{_mark(outcome)}{news}</div>',
        f"<p><b>Claim.</b> {prose(claim.statement)}</p>",
        f'<p class="sub">Wording: {prose(claim.wording)}.</p>',
        f"<p><b>Verdict: {escape(finding.verdict.value)}.</b> {prose(finding.conclusion)}</p>",
        "" if finding.picture is None else _figure(finding.picture, f"p{position}-"),
        f"<details><summary>{len(finding.evidence)} numbers, and how it was checked "
        f"({outcome.seconds:.0f} s)</summary>",
        f"<p>{prose(claim.method)}</p>",
        _table(outcome),
        "</details></section>",
    ]
    return "\n".join(part for part in parts if part)


def _table(outcome: Outcome) -> str:
    rows = []
    for row in outcome.finding.evidence:
        kind = "left part" if row.what.startswith(" ") else "left"
        cells = [prose(row.what.strip()), prose(number(row.claimed)), prose(measured(row))]
        rows.append(f'<tr><td class="{kind}">{"</td><td>".join(cells)}</td></tr>')
    heading = '<tr><th class="left">quantity</th><th>claimed</th><th>found</th></tr>'
    return (
        '<div class="wide" tabindex="0"><table>'
        f"<thead>{heading}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figure(picture: Picture, prefix: str) -> str:
    drawn = inline(draw(picture), picture.caption, prefix=prefix, salt="paper-checks")
    return f"<figure>{drawn}</figure><figcaption>{prose(picture.caption)}</figcaption>"


def prose(text: str) -> str:
    """Escaped text with indices and exponents where they belong."""
    shown = re.sub(r"(?<=[αζγσξ])_(l0|[lwbcq])(?![a-z])", r"<sub>\1</sub>", escape(text))
    shown = re.sub(r"\bs_cr\b", "s<sub>cr</sub>", shown)
    shown = re.sub(r"\binf_ε", "inf<sub>ε</sub>", shown)
    # Braces within braces: from the inside.
    while (further := _BRACED.sub(_raised, shown)) != shown:
        shown = further
    shown = re.sub(r"\b(e|L)\^([-−+]?[\d.]*\d)", r"\1<sup>\2</sup>", shown)
    return re.sub(r"(?<=[mycqρδWh)])\^([lL01])\b", r"<sup>\1</sup>", shown)


_BRACED = re.compile(r"([\^_])\{([^{}]*)\}")


def _raised(found: re.Match[str]) -> str:
    tag = "sup" if found.group(1) == "^" else "sub"
    return f"<{tag}>{found.group(2)}</{tag}>"
