"""What a design is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.typing import Method
from ...criteria.criterion import Criterion
from ...networks.architecture import Architecture
from ...networks.queries import forward_cost
from ...pruning.collapse import CollapsePrediction, predict_collapse
from ...pruning.prediction import predict_pruning
from ...signals.data import DataSummary

#: Networks that are sampled of each candidate in any case, and the most; fewer where the multiply-adds of
#: all together, a batch forwards and backwards each, exceed `_BUDGETS`.
DRAWN, MOST = 8, 32
_BUDGETS = (5e10, 1e11)


@dataclass(frozen=True)
class Task:
    """What is asked for, the same for every candidate.

    Attributes:
        sparsity: fraction of all weights removed.
        left: number of weights left.
        criterion: that scores are ranked by.
        data: batch, as asked for and as the predictions see it.
        tolerance: highest accepted probability of collapse.
        networks: how many are sampled; None: as many as are cheap.
        seed: of everything random.
        method: of the predictions, as in `predict_pruning`.
        said: called with what is being tried.
    """

    sparsity: float
    left: int
    criterion: Criterion
    data: DataSummary
    tolerance: float
    networks: int | None
    seed: int
    said: Callable[[str], None]
    method: Method = "auto"

    def predicted(self, net: Architecture, sparsity: Any) -> Any:
        return predict_pruning(
            net, sparsity, criterion=self.criterion, data=self.data, seed=self.seed, method=self.method
        )

    def law(self, net: Architecture, samples: int | None = None) -> CollapsePrediction:
        """The distribution of the critical sparsity."""
        return predict_collapse(
            net,
            criterion=self.criterion,
            data=self.data,
            samples=samples,
            seed=self.seed,
            method=self.method,
        )

    def draws(self, net: Architecture) -> tuple[int, int]:
        """Networks to sample in any case, and at most."""
        if self.networks is not None:
            return self.networks, self.networks
        return budget(3.0 * self.data.size * forward_cost(net.as_graph()))


def budget(cost: float) -> tuple[int, int]:
    """Networks sampled in any case, and the most, when one takes `cost` multiply-adds."""
    least, most = (int(np.clip(b / cost, 1, n)) for b, n in zip(_BUDGETS, (DRAWN, MOST), strict=True))
    return least, max(least, most)
