"""All criteria of the register, those in many rounds with few."""

from __future__ import annotations

from eoc_theory.criteria import criterion, criterion_names

#: Rounds that a test waits for; SynFlow's hundred take no longer than these.
_SHORT = {"force": "force(rounds=3)"}

CRITERIA = tuple(_SHORT.get(name, name) for name in criterion_names())
DATA_FREE_CRITERIA = tuple(name for name in CRITERIA if not criterion(name).needs_data)
