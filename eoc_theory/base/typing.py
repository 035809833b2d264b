"""Types of arguments and results that several modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

#: A number for a single sparsity, an array for several.
Floats = NDArray[np.float64]

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame
    from typing_extensions import TypeVar

    S = TypeVar("S", bound=float | Floats, default=Any)
else:
    from typing import TypeVar

    DataFrame = Any  # pandas takes a while to import

    S = TypeVar("S", float, np.ndarray)

Method = Literal["auto", "theory", "sampled"]
DType = Literal["auto", "float32", "float64"]
LossName = Literal["cross_entropy", "mse", "bce"]
