"""What is wrong with a model's initialisation, what pruning would destroy, and what to set instead."""

from __future__ import annotations

from .diagnosis import Diagnosis, diagnose
from .forecast import Outlook
from .remedies import Cure

__all__ = ["Cure", "Diagnosis", "Outlook", "diagnose"]
