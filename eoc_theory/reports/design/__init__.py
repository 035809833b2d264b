"""Which initialisation, and which allocation of the weights to the layers, avoids collapse at a sparsity."""

from __future__ import annotations

from .candidate import Candidate
from .design import Design, design

__all__ = ["Candidate", "Design", "design"]
