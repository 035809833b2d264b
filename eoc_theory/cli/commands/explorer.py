"""``eoc explore``: a page for a browser."""

from __future__ import annotations

import argparse

from ...reports.explorer import DEFAULT, write_explorer
from ..output import print_json, say
from ..progress import working


def explore(args: argparse.Namespace) -> int:
    """``eoc explore``: a page for a browser."""
    with working("tables of activations"):
        names = write_explorer(args.html, args.activations or DEFAULT)
    if args.json:
        print_json({"html": str(args.html), "activations": list(names)})
    else:
        say(f"wrote {args.html}, with {', '.join(names)}")
    return 0
