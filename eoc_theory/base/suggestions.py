"""What was meant: the accepted word that is nearest to the one that was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Words of other tools, and what they are called here.
OTHER_WORDS = {
    "bn": "batch",
    "ce": "cross_entropy",
    "gaussian": "normal",
    "gn": "group",
    "gpu": "cuda",
    "he": "kaiming",
    "l2": "mse",
    "ln": "layer",
    "mlps": "mlp",
    "fc": "mlp",
    "dense": "mlp",
    "l1": "magnitude",
    "same": "zeros",
}


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option that `word` was probably meant to be, None if none is near.

    Args:
        cutoff: how much of both words must be alike, of 1.
    """
    plain = {_plain(option): option for option in options}
    wanted = _plain(word)
    if wanted in plain:
        return plain[wanted]
    if OTHER_WORDS.get(wanted) in plain.values():
        return OTHER_WORDS[wanted]
    begun = [option for key, option in plain.items() if len(wanted) > 2 and key.startswith(wanted)]
    if len(begun) == 1:
        return begun[0]
    near = difflib.get_close_matches(wanted, plain, n=1, cutoff=cutoff)
    return plain[near[0]] if near else None


def did_you_mean(word: object, options: Iterable[object]) -> str:
    """``; did you mean 'snip'?``, or nothing where no option is near."""
    if not isinstance(word, str) or len(word) > 100:
        return ""
    near = nearest(word, [option for option in options if isinstance(option, str)])
    return "" if near is None else f"; did you mean {near!r}?"


def _plain(word: str) -> str:
    return word.casefold().strip().strip("-").replace("_", "-")
