"""SynFlow on real weights, in one round or in many (Tanaka et al. 2020, algorithm 1).

A chain of fully connected layers on the CPU is a product of matrices, and once two thirds of the weights are
gone, lists of survivors are smaller than matrices with holes. Anything else that can be read is run in torch
(:mod:`eoc_theory.pytorch.positive_network`), with the same scores. What cannot be read is run itself
(:mod:`eoc_theory.pytorch.measure.run_flow`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ...criteria.critical_search import searched_critical_sparsity
from ...networks.graph import Graph
from ..lazy import torch
from ..positive_network import flow_scores
from . import ranking

SYNFLOW_ROUNDS = 100

# A chain's matrices give way to lists of survivors when less than this is left.
_LISTED = 0.35


class Flow(Protocol):
    """A network that loses weights: it scores those it has left, and keeps the chosen ones."""

    @property
    def sizes(self) -> list[int]:
        """Weights of each layer, before anything was removed."""
        ...

    def copy(self) -> Flow:
        """The network as it is now, to be pruned by itself."""
        ...

    def scores(self) -> list[torch.Tensor]:
        """Scores of the weights left, one flat tensor a layer, in the order of their positions."""
        ...

    def keep(self, chosen: Sequence[torch.Tensor]) -> None:
        """Remove those of the weights left where `chosen` is False; flat boolean tensors, as `scores`."""
        ...

    def left(self) -> list[int]:
        """Number of weights left in each layer."""
        ...

    def masks(self) -> list[torch.Tensor]:
        """What is left as boolean tensors of the weights' shapes."""
        ...


class DenseFlow(ABC):
    """Weights that are scored all at once, on the device that they are on; `values` are non-negative."""

    def __init__(self, values: Sequence[torch.Tensor]) -> None:
        self.values = [value.detach().clone().contiguous() for value in values]
        self.positions = [torch.arange(w.numel(), device=w.device) for w in self.values]

    @abstractmethod
    def dense(self) -> Sequence[torch.Tensor]:
        """Scores of all `values`, of their shapes."""

    @property
    def sizes(self) -> list[int]:
        return [w.numel() for w in self.values]

    def copy(self) -> DenseFlow:
        twin = copy.copy(self)
        twin.values = [value.clone() for value in self.values]
        return twin

    def scores(self) -> list[torch.Tensor]:
        return [s.reshape(-1)[at] for s, at in zip(self.dense(), self.positions, strict=True)]

    def keep(self, chosen: Sequence[torch.Tensor]) -> None:
        for value, at, mask in zip(self.values, self.positions, chosen, strict=True):
            value.view(-1)[at[~mask]] = 0
        self.positions = [at[mask] for at, mask in zip(self.positions, chosen, strict=True)]

    def left(self) -> list[int]:
        return [len(at) for at in self.positions]

    def masks(self) -> list[torch.Tensor]:
        result = []
        for value, at in zip(self.values, self.positions, strict=True):
            mask = torch.zeros(value.numel(), dtype=torch.bool, device=value.device)
            mask[at] = True
            result.append(mask.reshape(value.shape))
        return result


class GraphFlow(DenseFlow):
    """Any graph, in torch.

    `weights` are non-negative, by the layers' names; their order is that of everything returned. `fixed` are
    those that are not ranked.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, torch.Tensor],
        fixed: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(list(weights.values()))
        self.graph, self.names, self.fixed = graph, tuple(weights), dict(fixed or {})

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by the layers' names, the ranked ones first."""
        return {**dict(zip(self.names, self.values, strict=True)), **self.fixed}

    def dense(self) -> list[torch.Tensor]:
        return flow_scores(self.graph, self.weights)[: len(self.names)]


class ChainFlow:
    """A chain of fully connected layers; `magnitudes` are |W^l| as float64 arrays (fan_out, fan_in).

    Σ_w |W| ∂R/∂|W| = R in every layer (Tanaka et al. 2020, theorem 1), so each layer's scores are scaled to
    sum to 1; signals are normalised layer by layer, and no depth overflows. A network that carries no signal
    scores 0 everywhere.
    """

    def __init__(self, magnitudes: Sequence[np.ndarray]) -> None:
        self.magnitudes = [np.ascontiguousarray(m) for m in magnitudes]
        self.positions: list[np.ndarray] | None = None  # None: nothing removed yet
        self.holed = self.magnitudes  # with 0 where weights were removed; a copy from then on
        self.entries: list[_Entries] | None = None

    @property
    def sizes(self) -> list[int]:
        return [m.size for m in self.magnitudes]

    def copy(self) -> ChainFlow:
        twin = ChainFlow(self.magnitudes)
        if self.positions is not None:
            twin.positions, twin.holed = self.positions, [m.copy() for m in self.holed]
            twin.entries = copy.deepcopy(self.entries)
        return twin

    def scores(self) -> list[torch.Tensor]:
        if self.entries is not None:
            found = _sparse_scores(self.entries)
        else:
            found = [s.reshape(-1) for s in _dense_scores(self.holed)]
            if self.positions is not None:
                found = [s[at] for s, at in zip(found, self.positions, strict=True)]
        return [torch.from_numpy(s) for s in found]

    def keep(self, chosen: Sequence[torch.Tensor]) -> None:
        masks = [c.numpy() for c in chosen]
        if self.positions is None:
            self.holed = [m.copy() for m in self.magnitudes]
            self.positions = [np.arange(m.size) for m in self.magnitudes]
        for matrix, at, mask in zip(self.holed, self.positions, masks, strict=False):
            matrix.reshape(-1)[at[~mask]] = 0
        self.positions = [at[mask] for at, mask in zip(self.positions, masks, strict=True)]
        if self.entries is not None:
            for entry, mask in zip(self.entries, masks, strict=True):
                entry.keep(mask)
        elif sum(self.left()) < _LISTED * sum(self.sizes):
            self.entries = [_Entries(m, at) for m, at in zip(self.magnitudes, self.positions, strict=True)]
            self.holed = []

    def left(self) -> list[int]:
        return self.sizes if self.positions is None else [len(at) for at in self.positions]

    def masks(self) -> list[torch.Tensor]:
        result = [torch.full(m.shape, self.positions is None) for m in self.magnitudes]
        for mask, at in zip(result, self.positions or [], strict=False):
            mask.view(-1)[torch.from_numpy(at)] = True
        return result


def _dense_scores(magnitudes: Sequence[np.ndarray]) -> list[np.ndarray]:
    forward = [np.ones(magnitudes[0].shape[1])]
    for a in magnitudes[:-1]:
        forward.append(_normalised(a @ forward[-1]))
    backward = [np.ones(magnitudes[-1].shape[0])]
    for a in magnitudes[:0:-1]:
        backward.append(_normalised(a.T @ backward[-1]))
    scores = []
    for a, f, r in zip(magnitudes, forward, reversed(backward), strict=True):
        score = a * f
        score *= r[:, None]
        scores.append(_normalised(score))
    return scores


def _sparse_scores(entries: Sequence[_Entries]) -> list[np.ndarray]:
    """The same over the surviving weights alone."""
    forward = [np.ones(entries[0].fan_in)]
    for e in entries[:-1]:
        forward.append(_normalised(np.bincount(e.row, e.value * forward[-1][e.column], minlength=e.fan_out)))
    backward = [np.ones(entries[-1].fan_out)]
    for e in entries[:0:-1]:
        backward.append(_normalised(np.bincount(e.column, e.value * backward[-1][e.row], minlength=e.fan_in)))
    return [
        _normalised(e.value * f[e.column] * r[e.row])
        for e, f, r in zip(entries, forward, reversed(backward), strict=True)
    ]


def _normalised(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


class _Entries:
    """The surviving weights of one layer by row and column."""

    def __init__(self, magnitude: np.ndarray, position: np.ndarray) -> None:
        self.fan_out, self.fan_in = magnitude.shape
        self.row, self.column = np.divmod(position, self.fan_in)
        self.value = magnitude.reshape(-1)[position]

    def keep(self, chosen: np.ndarray) -> None:
        self.row, self.column, self.value = self.row[chosen], self.column[chosen], self.value[chosen]


def synflow_rounds(
    flow: Flow, removed: int, rounds: int = SYNFLOW_ROUNDS, until: Callable[[Flow], bool] | None = None
) -> Flow:
    """Iterative SynFlow: n − removed weights are left in `flow` after `rounds` rounds.

    Round k leaves n·d^(k/rounds) weights, d the final density; what one round has removed scores nothing from
    then on. Where fewer weights still carry a signal than a round shall leave, those that score 0 are removed
    evenly.

    Args:
        flow: the whole network; it is changed and returned.
        removed: the number of weights to remove in the end.
        until: stop after the first round at whose end this holds.
    """
    n = sum(flow.sizes)
    density = 1 - removed / n
    for k in range(1, rounds + 1):
        keep = n - removed if k == rounds else round(n * density ** (k / rounds))
        scores = flow.scores()
        # One long layer ranks as many short ones do; a hundred times over, fewer steps count.
        joined = [torch.cat(scores)]
        (threshold,) = ranking.thresholds(joined, [joined[0].numel() - keep])
        (chosen,) = ranking.masks(joined, threshold)
        flow.keep(chosen.split([s.numel() for s in scores]))
        if until is not None and until(flow):
            break
    return flow


def synflow_critical_sparsity(
    start: Callable[[], Flow], rounds: int = SYNFLOW_ROUNDS, resolution: float = 0.0
) -> tuple[float, int]:
    """The sparsity from which iterative SynFlow leaves a layer empty; and that layer.

    Each final sparsity has a schedule of its own, so this is a search over the number of weights left, which
    takes collapse to be monotone. It starts where a layer collapses on the way to one weight a layer.

    Args:
        start: gives the whole network anew.
        resolution: relative error allowed in the number of weights left; 0: exact to one weight.
    """
    whole = start().left()
    n = sum(whole)

    def left_at(kept: int) -> list[int]:
        return synflow_rounds(start(), n - kept, rounds, until=lambda f: min(f.left()) == 0).left()

    return searched_critical_sparsity(whole, left_at, resolution)
