"""The random numbers of channels that are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Draw:
    """Biases, shifts and masks, in the order in which they are asked for.

    All is drawn in single precision, so that the numbers are the same in either precision.

    Attributes:
        rng: its stream.
        dtype: of what is returned, np.float32 or np.float64, and of the channels.
    """

    rng: np.random.Generator
    dtype: Any = np.float32

    def normal(self, shape: tuple[int, ...], std: float) -> Array:
        """Independent N(0, std²)."""
        drawn = self.rng.standard_normal(shape, dtype=np.float32).astype(self.dtype, copy=False)
        drawn *= self.dtype(std)
        return drawn

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Independent, uniform on [0, 1)."""
        return self.rng.random(shape, dtype=np.float32).astype(self.dtype, copy=False)
