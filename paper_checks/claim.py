"""What a claim is, what checking it yields, and how both are shown."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from eoc_theory.base.formatting import plain

if TYPE_CHECKING:
    from .picture import Picture

#: A source in a statement: brackets with a year.
_SOURCE = re.compile(r"\s*\([^()]*\b(?:19|20)\d\d\b[^()]*\)")


#: Whose wording a claim is in, and what it was compared with.
RESTATED = (
    "ours; it was not compared with the published text, whose conditions, constants and numbering may differ"
)
OWN = "ours; no publication states it"

#: The groups of claims.
PAPER, ATTENTION = "Robust Pruning at Initialization", "Transformers at initialisation"
PUBLISHED = "Published results of others"


class Verdict(str, Enum):
    """What the evidence says of a claim."""

    HOLDS = "holds"
    REFINED = "holds with a correction"
    FAILS = "fails"


@dataclass(frozen=True)
class Evidence:
    """One number beside what the claim says of it.

    Attributes:
        what: the quantity.
        claimed: what the claim (or the theory) says, a number or words; None where it says nothing.
        found: what was computed or measured.
        error: standard error of `found`; None where it is exact for the purpose.
    """

    what: str
    claimed: float | str | None
    found: float | str
    error: float | None = None


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: the evidence, the verdict that it leads to, and why, in words with numbers.

    `picture` shows the evidence where that helps.
    """

    evidence: tuple[Evidence, ...]
    verdict: Verdict
    conclusion: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Claim:
    """A claim and its check.

    Attributes:
        name: what the command line calls it.
        statement: the claim, with its source.
        method: how it is checked.
        recorded: the verdict on record; another one is news, and the run fails.
        check: runs the check; its argument is True for the quick form (fewer seeds and layers).
        group: what the claims that it is shown with are about.
        wording: whose wording the statement is, and what it was compared with. A verdict is on this wording.
    """

    name: str
    statement: str
    method: str
    recorded: Verdict
    check: Callable[[bool], Finding]
    group: str = PAPER
    wording: str = RESTATED

    @property
    def brief(self) -> str:
        """The statement without its sources."""
        return _SOURCE.sub("", self.statement)


@dataclass(frozen=True)
class Outcome:
    """A claim that was checked, and the time it took in seconds."""

    claim: Claim
    finding: Finding
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether the verdict is the recorded one."""
        return self.finding.verdict is self.claim.recorded

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; what is infinite as "inf", what is no number as None."""
        return {
            "name": self.claim.name,
            "statement": self.claim.statement,
            "wording": self.claim.wording,
            "method": self.claim.method,
            "evidence": [plain(vars(row)) for row in self.finding.evidence],
            "verdict": self.finding.verdict.value,
            "recorded": self.claim.recorded.value,
            "agrees": self.agrees,
            "conclusion": self.finding.conclusion,
            "seconds": round(self.seconds, 2),
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_text(self) -> str:
        """A block of text: statement, wording, method, evidence as a table, verdict."""
        lines = [
            f"== {self.claim.name}  ({self.seconds:.1f} s)",
            f"Claim:   {self.claim.statement}",
            f"Wording: {self.claim.wording}.",
            f"Check:   {self.claim.method}",
            *_table(self.finding.evidence),
            f"Verdict: {self.finding.verdict.value.upper()}. {self.finding.conclusion}",
        ]
        if not self.agrees:
            lines.append(f"NEWS: the verdict on record is {self.claim.recorded.value.upper()}.")
        return "\n".join(lines)


def run(claim: Claim, quick: bool = True) -> Outcome:
    """Checks one claim and times it."""
    start = time.perf_counter()
    finding = claim.check(quick)
    return Outcome(claim, finding, time.perf_counter() - start)


def _table(rows: tuple[Evidence, ...]) -> list[str]:
    cells = [("quantity", "claimed", "found")]
    for row in rows:
        cells.append((row.what, number(row.claimed), measured(row)))
    width = [max(len(row[i]) for row in cells) for i in range(3)]
    return [f"  {a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}" for a, b, c in cells]


def number(value: float | str | None) -> str:
    """A number with six digits; words as they are, a dash for nothing."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.6g}".replace("e+", "e")


def measured(row: Evidence) -> str:
    """What was found: with an error no more digits than it leaves."""
    if row.error is None or isinstance(row.found, str) or not 0 < row.error < math.inf:
        return number(row.found)
    decimals = 1 - math.floor(math.log10(row.error))
    if not 0 <= decimals <= 12:
        return f"{row.found:.3g} ± {row.error:.2g}"
    return f"{row.found:.{decimals}f} ± {row.error:.{decimals}f}"
