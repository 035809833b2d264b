"""Scores of a few sampled networks, run in torch with exact gradients.

Networks run side by side, each with one thread, so that a result depends neither on their number nor on that
of the threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from ...base.freed_memory import give_back
from ...base.progress import followed
from ...criteria.criterion import Criterion
from ...errors import DataError
from ...networks.graph import Graph
from ...propagation.carried_values import Value
from ...propagation.score_samples import LayerSample, NetworkSample, layer_samples
from ...propagation.shared import made_once
from ...signals.data import classes_in_turn
from ..batches import Batch
from ..losses import Loss
from ..measure.gradient_rounds import counts, masks_in_rounds
from ..measure.gradient_scores import gradient_scores
from ..measure.run_flow import RunFlow
from ..measure.scoring import WeightScores, check_plain, graph_flow, path_scores
from ..measure.synflow_rounds import Flow, synflow_rounds
from ..models import PrunableWeight
from ..positive_network import full_precision
from .sources import Source

Array = np.ndarray
T = TypeVar("T")

#: Multiply-adds of forward passes that a prediction may cost before it takes no more than its usual number of
#: networks, before it takes fewer, and before these see a part of the batch only.
BUDGET, LIMIT, MOST = 1e8, 2.4e11, 4e11
#: Fewest networks.
_FEWEST = 2
#: Fewest inputs of a part.
_FEWEST_INPUTS = 16
#: Bytes that networks which run together may keep.
_MOST_BYTES = 640 << 20
#: Bytes of one network from which on freed memory goes back to the system.
_GIVEN_BACK = 32 << 20
#: Networks that show how scores depend on the inputs' number.
_COMPARED = 4


@dataclass(frozen=True)
class Sampling:
    """Networks that were sampled.

    Attributes:
        networks: what each shows.
        shift: ½ log of E[score²] on the whole batch over that on the part that they saw, (L,).
        notes: what the result says of it.
    """

    networks: list[NetworkSample]
    shift: Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sampler:
    """Samples networks and scores their weights.

    Attributes:
        source: makes the networks.
        batch: what scores are computed on; None where only weights count.
        loss: of the outputs.
        device: where to compute; a torch device.
        dtype: "float32", "float64" or "auto".
        multiplications, held: of one input; see `eoc_theory.pytorch.ranked.Ranked`.
        notes: what every result says of it.
        draws: whether the model draws random numbers: from the process's own generators, so that networks run
            one after the other.
        graph: what SynFlow's positive network follows; None: the model is run for it.
    """

    source: Source
    batch: Batch | None
    loss: Loss
    device: Any
    dtype: str = "auto"
    multiplications: float = 0.0
    held: float = 0.0
    notes: tuple[str, ...] = ()
    draws: bool = False
    graph: Graph | None = None

    @property
    def size(self) -> int:
        """Number of inputs."""
        return 1 if self.batch is None else self.batch.size

    def most(self, criterion: Criterion, work: float = LIMIT) -> int:
        """Networks whose forward passes take no more than `work` multiply-adds."""
        cost = self.multiplications * criterion.passes * self.size
        return max(_FEWEST, int(work / max(cost, 1.0)))

    def plan(self, samples: int | None, usual: int, most: int, passes: float = 1.0) -> tuple[int, int]:
        """Inputs that networks see, and number of networks, where one pass costs `passes` of SNIP's."""
        inputs = self.size
        cost = max(self.multiplications * passes, 1.0)
        count = samples
        if count is None:
            count = int(np.clip(BUDGET / (cost * inputs), usual, most))
            count = max(_FEWEST, min(count, int(LIMIT * usual / 4.0 / (cost * inputs))))
        if cost * inputs * count > MOST:
            inputs = int(np.clip(MOST / (cost * count), min(_FEWEST_INPUTS, inputs), inputs))
            # Two halves with as many inputs of each class: of others the loss's gradient cancels less.
            both = 2 * len(np.unique(self._labels))
            inputs -= inputs % both if inputs >= both else 0
        return inputs, count

    @cached_property
    def _labels(self) -> Array:
        """The inputs' classes, the same for all where targets are no class numbers."""
        if self.batch is None or self.batch.targets.ndim != 1 or self.batch.targets.is_floating_point():
            return np.zeros(self.size, dtype=np.int64)
        return self.batch.targets.numpy()

    def sample(self, rule: Criterion, samples: int | None, seed: int, usual: int, most: int) -> Sampling:
        """Scores of `samples` networks, or of as many as their cost allows, `usual` to `most` as a rule."""
        inputs, count = self.plan(samples, usual, most, rule.passes)
        known: list[NetworkSample] = made_once((self, rule, seed, inputs), list)

        def network(index: int) -> NetworkSample:
            return self._network(rule, inputs, seed, index)

        missing = range(len(known), count)
        if missing:
            known += self.each(network, missing, inputs)
        found = known[:count]
        if inputs == self.size or not rule.needs_data:
            return Sampling(found, np.zeros(len(self.source.layers)), self.notes)
        note = f"sampled on {inputs} of {self.size} inputs, and extrapolated to all"
        return Sampling(found, self._shift(rule, inputs, seed, found), (*self.notes, note))

    def each(self, work: Callable[[int], T], indices: range, inputs: int) -> list[T]:
        """What `work` makes of each index, run side by side as memory for `inputs` inputs allows."""
        workers = 1
        if self.device.type == "cpu" and not self.draws:
            workers = max(
                1, min(os.cpu_count() or 1, len(indices), int(_MOST_BYTES / (self.held * inputs + 1)))
            )
        with _single_threaded(self.device), ThreadPoolExecutor(workers, initializer=_one_thread) as pool:
            found = list(followed(pool.map(work, indices), "sampled network", len(indices)))
        if self.held * inputs > _GIVEN_BACK:
            give_back()
        return found

    def _network(self, rule: Criterion, inputs: int, seed: int, index: int) -> NetworkSample:
        scores = self._scores(rule, self._part(inputs, index), seed, index)
        layers = [_layer(score, signed=rule.signed) for score in scores]
        return NetworkSample(tuple(list(sign) for sign in zip(*layers, strict=True)))

    def _part(self, size: int, index: int) -> Batch | None:
        """Some of the inputs; each network takes up where the one before left off."""
        if self.batch is None or size >= self.size:
            return self.batch
        chosen = classes_in_turn(self._labels)[(index * size + np.arange(size)) % self.size]
        return self.batch.part(torch.from_numpy(chosen))

    def _scores(self, rule: Criterion, batch: Batch | None, seed: int, index: int) -> Any:
        model, weights = self.source.network([seed, 0x746F7263, index])
        if rule.needs == "weights":
            return WeightScores(rule, weights, self.device)
        if rule.needs == "paths":
            return path_scores(rule, self._flow(model, weights), weights)
        return self._gradient_scores(rule, model, weights, batch, seed)

    def _flow(self, model: Any, weights: list[PrunableWeight]) -> Flow:
        """SynFlow's positive network."""
        check_plain(weights)
        if self.graph is not None:
            return graph_flow(self.graph, model, weights, self.device, self.dtype)
        assert self.batch is not None
        return RunFlow(model, weights, self.batch, self.loss, self.device)

    def _gradient_scores(
        self,
        rule: Criterion,
        model: Any,
        weights: list[PrunableWeight],
        batch: Batch | None,
        seed: int,
        masks: Any = None,
    ) -> Any:
        if batch is None:
            raise DataError("data must be (inputs, targets) for scores by gradients, got None")
        return gradient_scores(
            model,
            weights,
            rule,
            batch,
            device=self.device,
            dtype=self.dtype,
            seed=seed,
            masks=masks,
            loss=self.loss,
            held=self.held,
            given_up=self.source.is_built and masks is None,
            all_used=False,
        )

    def _shift(self, rule: Criterion, inputs: int, seed: int, networks: list[NetworkSample]) -> Array:
        """What scores on the whole batch are to those on a part, from parts half as large.

        The gradient is a mean over inputs, whose parts partly cancel: E[g²] = α + β/B. A part of n inputs and
        its halves show both terms.
        """
        half = inputs // 2
        if half < 1:
            return np.zeros(len(self.source.layers))

        def halves(index: int) -> Array:
            part = self._part(inputs, index)
            assert part is not None
            parts = [part.part(slice(0, half)), part.part(slice(inputs - half, inputs))]
            scores = [self._scores(rule, one, seed, index) for one in parts]
            return np.array([[_log_square(score) for score in one] for one in scores])

        indices = range(min(_COMPARED, len(networks)))
        on_halves = np.array(self.each(halves, indices, inputs))
        log_half = np.logaddexp.reduce(on_halves, axis=1) - np.log(2.0)
        log_whole = np.array([_log_squares(networks[index]) for index in indices])
        # Of n inputs β/n is to the whole as half of them, with β/h more of it, shows.
        with np.errstate(invalid="ignore"):
            excess = np.nan_to_num(np.exp((log_half - log_whole).mean(axis=0)) - 1.0, nan=0.0, posinf=0.0)
        share = np.clip(excess / (inputs / half - 1.0), 0.0, 1.0)
        return 0.5 * np.log(np.maximum(1.0 - share * (1.0 - inputs / self.size), 1e-12))

    def left_in_rounds(
        self, rule: Criterion, index: int, seed: int, inputs: int, left: int, stop: bool
    ) -> Array:
        """Numbers of weights that a network pruned in rounds keeps in each layer, (L,); for use in `each`."""
        model, weights = self.source.network([seed, 0x746F7263, index])
        if rule.needs == "paths":
            until = (lambda flow: min(flow.left()) == 0) if stop else None
            flow = self._flow(model, weights)
            return np.array(synflow_rounds(flow, sum(flow.sizes) - left, rule.rounds, until).left())
        part = self._part(inputs, index)

        def scores(masks: Any) -> Any:
            return self._gradient_scores(rule, model, weights, part, seed, masks)

        masks = masks_in_rounds(scores, left, rule.rounds, regrows=rule.regrows, stop_when_empty=stop)
        return np.array(counts(masks))


def _layer(score: Any, *, signed: bool) -> tuple[LayerSample, ...]:
    values = score.detach().cpu().numpy()
    rows = values.reshape(len(values) if values.ndim else 1, -1)
    kept = rows.dtype in (np.float32, np.float64)
    return layer_samples(Value(rows if kept else rows.astype(np.float32)), signed=signed)


def _log_square(score: Any) -> float:
    """log of the mean square."""
    peak = float(score.abs().max())
    if peak == 0.0:
        return -np.inf
    return float(np.log(float((score.double() / peak).square().mean())) + 2.0 * np.log(peak))


def _log_squares(network: NetworkSample) -> Array:
    """log of the mean square of all of each layer's scores, (L,)."""
    return np.array([2.0 * layer.log_rms for layer in network.signs[0]])


def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def _single_threaded(device: Any) -> Iterator[None]:
    """One thread an operation, and arithmetic settings that no network changes while another runs."""
    threads = torch.get_num_threads()
    attention = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    try:
        with attention, full_precision(device):
            yield
    finally:
        torch.set_num_threads(threads)
