"""What is wrong with a model's initialisation, what pruning would destroy, and what to set instead."""

from __future__ import annotations

from .cures import Cure
from .diagnosis import Diagnosis, diagnose
from .outlook import Outlook

__all__ = ["Cure", "Diagnosis", "Outlook", "diagnose"]
