"""``python -m paper_checks [NAME…] [--json] [--html FILE] [--quick | --full] [--workers N]``: claims and
their verdicts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from analysis.executors import processes, serial
from eoc_theory.base.whole_files import check_path
from eoc_theory.cli.output import INTERRUPTED, run_command
from eoc_theory.cli.parser import OneLineParser, whole
from eoc_theory.errors import EOCError

from .claim import Claim, Outcome, run
from .page import write_page
from .registry import CLAIMS

DESCRIPTION = """Checks claims of "Robust Pruning at Initialization" (Hayou, Ton, Doucet & Teh, ICLR 2021)
and of the papers it builds on, claims on transformers at initialisation, and published results of others,
by computation and by sampled networks. Each claim is printed when it is finished. The exit status is 1 when
a verdict differs from the one on record, 2 when the arguments are unusable or a package is missing."""


#: What the forms cost: quick took 510 s of busy cores in two processes; full has four to seven times as many
#: networks.
QUICK_TIME, FULL_TIME = "some five minutes", "some three quarters of an hour"
#: Processes that are used unless a number is given: more would wait for the longest claim.
WORKERS, MOST_WORKERS = 4, 64


def main(arguments: Sequence[str] | None = None, claims: Sequence[Claim] = CLAIMS) -> int:
    """Runs the command line and gives its exit status."""
    return run_command("paper_checks", lambda: _check(arguments, claims))


def _check(arguments: Sequence[str] | None, claims: Sequence[Claim]) -> int:
    parser = _parser(claims)
    options = parser.parse_args(arguments)
    known = {claim.name: claim for claim in claims}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(known)}; got {unknown[0]!r}")
    if options.html is not None:
        # Before the minutes of work, not after them.
        try:
            check_path(options.html, (".html", ".htm"))
        except EOCError as error:
            parser.error(str(error).replace("path", "--html", 1))
    chosen = [known[name] for name in dict.fromkeys(options.names)] or list(claims)
    outcomes: list[Outcome] = []
    status = 0
    try:
        for outcome in _outcomes(chosen, not options.full, options.workers):
            outcomes.append(outcome)
            print(outcome.to_json() if options.json else outcome.to_text() + "\n", flush=True)
    except KeyboardInterrupt:
        print(f"stopped: {len(outcomes)} of {len(chosen)} claims were checked", file=sys.stderr)
        status = INTERRUPTED
    except EOCError as error:
        print(f"paper_checks: error: {error}", file=sys.stderr)
        status = 2
    if not options.json and outcomes:
        print(_summary(outcomes))
    if options.html is not None and outcomes:
        write_page(outcomes, options.html, quick=not options.full)
    return status or (0 if all(outcome.agrees for outcome in outcomes) else 1)


def _outcomes(claims: Sequence[Claim], quick: bool, workers: int | None) -> Iterator[Outcome]:
    """The claims, checked in the order given: the same bits whatever the number of processes."""
    if workers is None:
        workers = min(WORKERS, os.cpu_count() or 1)
    workers = min(workers, len(claims))
    if any(claim not in CLAIMS for claim in claims):
        workers = 1  # a check that no module holds cannot be told to another process
    with serial() if workers == 1 else processes(workers) as pool:
        waiting = [pool.submit(run, claim, quick) for claim in claims] if workers > 1 else []
        for index, claim in enumerate(claims):
            if sys.stderr.isatty():
                print(f"checking {claim.name} …", file=sys.stderr)
            yield waiting[index].result() if waiting else run(claim, quick)


def _parser(claims: Sequence[Claim]) -> argparse.ArgumentParser:
    names = "\n".join(f"  {claim.name:<24}{claim.brief}" for claim in claims)
    parser = OneLineParser(
        prog="python -m paper_checks",
        description=DESCRIPTION,
        epilog=f"claims:\n{names}\n\nexample: python -m paper_checks eoc-constants relu-point --html "
        "checks.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims to check (default: all)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per claim, each on one line"
    )
    parser.add_argument("--html", metavar="FILE", help="write one page with all results and pictures")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help=f"few seeds, {QUICK_TIME} in all on two cores (the default)"
    )
    size.add_argument("--full", action="store_true", help=f"more seeds and deeper networks, {FULL_TIME}")
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help=f"number of processes, of one thread each (default: one for each core, {WORKERS} at most)",
    )
    return parser


def _workers(text: str) -> int:
    count = whole(text)
    if not 1 <= count <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_WORKERS}, got {count}")
    return count


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
