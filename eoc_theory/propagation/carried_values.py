"""Values beyond the range of floats: a power of two is carried beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


class OutOfRangeError(Exception):
    """Values beyond what the precision holds."""


@dataclass(frozen=True)
class Value:
    """values · 2^exponent."""

    values: Array
    exponent: int = 0

    def within(self, exponent: int) -> Value:
        """The same in the unit 2^exponent; what is far below vanishes."""
        if exponent == self.exponent:
            return self
        power = self.exponent - exponent
        if power > 0 and self.power + power > 1000:
            raise OutOfRangeError
        return Value(np.ldexp(self.values, max(power, -4000)), exponent)

    @property
    def power(self) -> float:
        """log₂ of the root mean square of `values` alone, −inf where all are 0."""
        peak = float(np.abs(self.values).max(initial=0.0))
        if not math.isfinite(peak):
            raise OutOfRangeError
        if peak == 0.0:
            return -math.inf
        return math.log2(peak) + 0.5 * math.log2(float(np.mean(np.square(self.values / peak))))

    def normalised(self) -> Value:
        """The same in a unit near the values."""
        power = self.power
        return self if power == -math.inf else self.within(self.exponent + math.floor(power))
