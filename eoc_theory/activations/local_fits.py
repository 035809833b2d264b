"""The nodes that polynomials are fitted at locally, and what makes a Chebyshev series of values there."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev

NODES = 17  # degree 16 reaches rounding on an interval half as wide as a pole is away
POINTS = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
#: Matrix from values at the points to Chebyshev coefficients.
TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(POINTS, NODES - 1))
