"""``python -m paper_checks [NAME…] [--json] [--quick | --full]``: check the claims and print the verdicts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .claim import Claim, Outcome, run
from .registry import CLAIMS

DESCRIPTION = """Checks claims of "Robust Pruning at Initialization" (Hayou, Ton, Doucet & Teh, ICLR 2021)
and of the papers it builds on, by computation and by sampled networks. Each claim is printed when
it is finished. The exit status is 1 when a verdict differs from the one on record, 2 when the arguments are
unusable."""


def main(arguments: Sequence[str] | None = None, claims: Sequence[Claim] = CLAIMS) -> int:
    """Runs the command line and gives its exit status."""
    parser = _parser(claims)
    options = parser.parse_args(arguments)
    known = {claim.name: claim for claim in claims}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(known)}; got {unknown[0]!r}")
    chosen = [known[name] for name in dict.fromkeys(options.names)] or list(claims)
    outcomes: list[Outcome] = []
    for claim in chosen:
        if sys.stderr.isatty():
            print(f"checking {claim.name} …", file=sys.stderr)
        outcome = run(claim, quick=not options.full)
        outcomes.append(outcome)
        print(outcome.to_json() if options.json else outcome.to_text() + "\n", flush=True)
    if not options.json:
        print(_summary(outcomes))
    return 0 if all(outcome.agrees for outcome in outcomes) else 1


def _parser(claims: Sequence[Claim]) -> argparse.ArgumentParser:
    names = "\n".join(f"  {claim.name:<24}{claim.statement.split(' (Hayou')[0]}" for claim in claims)
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks",
        description=DESCRIPTION,
        epilog=f"claims:\n{names}\n\nexample: python -m paper_checks eoc-constants relu-point --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims to check; all without any")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and claim")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="few seeds, some four minutes in all (the default)"
    )
    size.add_argument("--full", action="store_true", help="more seeds, wider and deeper networks")
    return parser


def _summary(outcomes: Sequence[Outcome]) -> str:
    lines = []
    for outcome in outcomes:
        news = "" if outcome.agrees else f"   (on record: {outcome.claim.recorded.value})"
        lines.append(
            f"{outcome.claim.name:<24}{outcome.finding.verdict.value:<24}{outcome.seconds:6.1f} s{news}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
