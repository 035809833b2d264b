"""How every command ends, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..output import print_json, say

Values = Callable[[], dict[str, Any]]

#: Rows and columns of a grid that are printed.
PRINTED_GRID = 8


def told(args: argparse.Namespace, found: Any, show: Callable[[], None], values: Values | None = None) -> int:
    """Print the result, with --json its plain `values`, and draw it where that is asked for; the exit code.

    Args:
        show: prints it for a reader.
        values: makes them; None: `to_dict` of the result does.
    """
    if args.json:
        print_json((found.to_dict if values is None else values)())
    else:
        show()
    return drawn(args, found)


def drawn(args: argparse.Namespace, found: Any) -> int:
    """Draw the result where that is asked for; the exit code."""
    if getattr(args, "plot", None) is not None:
        found.plot(args.plot)
        if not args.json:
            say(f"\npicture: {args.plot}")
    return 0


def say_notes(notes: Iterable[str]) -> None:
    """A line for each note."""
    for note in notes:
        say(f"note: {note}")


def thinned_grid(n: int) -> list[int]:
    """Up to PRINTED_GRID indices from first to last."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, PRINTED_GRID))})


def sparsities(args: argparse.Namespace) -> Any:
    """One number where one was given, so that results have no sparsity axis."""
    return args.sparsity[0] if len(args.sparsity) == 1 else args.sparsity


def sampling(args: argparse.Namespace) -> dict[str, int]:
    """The seed, and the number of samples where one was given; else the library's own default."""
    return {"seed": args.seed} | ({} if args.samples is None else {"samples": args.samples})


def method_options(args: argparse.Namespace) -> dict[str, Any]:
    """How the prediction is made."""
    return {"method": args.method, "exclude": args.exclude, "device": args.device}


def arrays(found: Any, names: Sequence[str]) -> Values:
    """What makes an activation's result plain values: its attributes of these names."""
    listed = {name: getattr(found, name) for name in names}
    return lambda: {"activation": found.activation.name, "dropout": found.dropout, **listed}
