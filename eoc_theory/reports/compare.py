"""`compare`: one prediction beside the same network, really pruned under many seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..base.boundary import public
from ..base.formatting import shown_layers
from ..base.isolation import isolated
from ..base.result import Drawable
from ..base.tables import Table, sparsity_frame
from ..base.typing import DataFrame, Floats, LossName, Method, S
from ..criteria.criterion import Criterion, CriterionLike
from ..criteria.criterion import criterion as as_criterion
from ..errors import ArgumentError
from ..networks.architecture import Architecture, check_drawn
from ..networks.naming import network_name
from ..networks.resolve import Options, is_model
from ..propagation.shared import shared_samples
from ..pruning.collapse import CollapsePrediction, predict_collapse
from ..pruning.prediction import Counts, PruningPrediction, check_sparsities, kept_headline, predict_pruning
from ..pytorch.loading import gathered_once
from ..pytorch.measure.measure import PruningMeasurement, measure_pruning
from .subject import Subject

#: Networks that one comparison prunes.
MOST_SEEDS = 1_000_000


@public
@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Drawable, Generic[S]):
    """A prediction and the measurements of S seeds, for L weight layers and n_s sparsities.

    Where the sparsity is a single number the sparsity axis is absent.

    Attributes:
        criterion, sparsity: as asked for.
        layers: names of the weight layers, input to output.
        weights: number of weights per layer, (L,).
        seeds: the seeds that were measured, (S,).
        kept: measured fraction kept, (S, n_s, L).
        critical_sparsity: measured critical sparsities, (S,).
        log_score_moments: measured logarithms of the mean squared score, (S, L).
        prediction: what `predict_pruning` says.
        collapse: what `predict_collapse` says.
        complete: False if measuring was interrupted before the last seed.
        network: what the network is called.
    """

    criterion: str
    sparsity: S
    layers: tuple[str, ...]
    weights: Counts
    seeds: Counts
    kept: Floats
    critical_sparsity: Floats
    log_score_moments: Floats
    prediction: PruningPrediction[S]
    collapse: CollapsePrediction
    complete: bool = True
    network: str = ""

    @property
    def measured_kept(self) -> Floats:
        """Mean over seeds of the measured fraction kept, (n_s, L)."""
        return self.kept.mean(axis=0)

    @property
    def measured_std(self) -> Floats:
        """Standard deviation over seeds, (n_s, L); NaN for a single seed."""
        if len(self.seeds) < 2:
            return np.full(self.kept.shape[1:], np.nan)
        return self.kept.std(axis=0, ddof=1)

    @property
    def mean_absolute_error(self) -> float:
        """Mean over layers (and sparsities) of |predicted kept − measured kept, averaged over seeds|."""
        return float(np.abs(np.asarray(self.prediction.kept) - self.measured_kept).mean())

    def to_frame(self) -> DataFrame:
        """One row for each layer (and sparsity): fraction kept, predicted and measured, with its s.d.

        `zero_scores` is the fraction of the layer's scores that is predicted to be 0.
        """
        predicted = np.asarray(self.prediction.kept)
        columns = {
            "predicted": predicted,
            "predicted_std": self.prediction.kept_std,
            "measured": self.measured_kept,
            "measured_std": self.measured_std,
            "error": predicted - self.measured_kept,
            "zero_scores": self.prediction.zero_scores,
        }
        return sparsity_frame(self, columns)

    def _told(self) -> dict[str, Any]:
        """Means over seeds; `measured_std` is None for one seed."""
        return {
            "measured_kept": self.measured_kept,
            "measured_std": self.measured_std if len(self.seeds) > 1 else None,
            "mean_absolute_error": self.mean_absolute_error,
        }

    def _headline(self) -> str:
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        stopped = "" if self.complete else ", interrupted"
        return kept_headline(self, f"mean absolute error {self.mean_absolute_error:.4f}, {seeds}{stopped}")

    def _notes(self) -> tuple[str, ...]:
        return self.prediction.notes

    def _table(self) -> Table:
        """Predicted and measured, sparsity by sparsity."""
        frame = self.to_frame()
        layers, count = shown_layers(len(self.layers)), len(self.layers)
        rows = tuple(
            (
                f"{row['sparsity']:.6g}",
                str(row["layer"]),
                str(row["weights"]),
                *(f"{row[name]:.4f}" for name in ("predicted", "predicted_std", "measured")),
                f"{row['measured_std']:.4f}" if len(self.seeds) > 1 else "–",
                f"{row['error']:+.4f}",
            )
            for at in range(0, len(frame), count)
            for row in (frame.iloc[at + k] for k in layers)
        )
        heads = ("sparsity", "layer", "weights", "predicted", "± s.d.", "measured", "± s.d.", "error")
        note = "" if len(layers) == count else f"{len(layers)} of {count} layers; to_frame() holds each"
        return Table(heads, rows, left=2, note=note)


@overload
def compare(
    factory: Any,
    sparsity: float,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    seeds: int | Iterable[int] = 10,
    device: Any = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison[float]: ...
@overload
def compare(
    factory: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    seeds: int | Iterable[int] = 10,
    device: Any = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison[Floats]: ...
@isolated
@public
def compare(
    factory: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    seeds: int | Iterable[int] = 10,
    device: Any = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison[Any]:
    """Predict what pruning keeps, prune real networks, and lay the two side by side.

    An interrupt (Ctrl-C) after the first seed stops the measurement and keeps what was finished.

    Args:
        factory: an `Architecture`, whose weights are sampled anew for every seed; a function that takes a
            seed, or none, and returns a torch module; or a torch module, whose weights are drawn anew from
            their distributions. For a function that makes chains of fully connected layers the prediction
            uses the scales averaged over these; any other is sampled with other seeds.
        sparsity: the fraction of weights to remove, a number or a sequence.
        criterion: as in `measure_pruning`.
        data: as in `predict_pruning`; of a `DataLoader`, a `Dataset` or an iterable of batches 1,024 examples
            are used. Prediction and measurement see the same batch.
        method: of the prediction, as in `predict_pruning`.
        example_input: a batch of inputs, of which only the shape counts, or that shape. A function needs it
            if its networks do not start with a Linear layer and `data` does not show an input's shape.
        loss, output, exclude: as in `predict_pruning`, for prediction and measurement.
        seeds: how many (0, 1, …), or which.
        device: where to measure.
        progress: called with (seeds done, seeds in all).

    Raises:
        ArgumentError, DataError, ModelError: unusable factory, sparsity, criterion, data or model.
        MissingDependencyError: torch is not installed.
    """
    check_sparsities(sparsity)
    chosen = _seeds(seeds)
    progress = checks.function("progress", progress, "two counts")
    _check_factory(factory)
    rule = as_criterion(criterion)
    options = Options.of(rule, method, example_input, loss, output, exclude, device)
    subject = Subject.of(factory, gathered_once(data), options, chosen[0])

    def predict() -> tuple[PruningPrediction, CollapsePrediction]:
        with shared_samples():
            net, batch = subject.network(), subject.batch
            own = method if isinstance(net, Architecture) else "auto"
            pruning = predict_pruning(net, sparsity, criterion=rule, data=batch, method=own)
            return pruning, predict_collapse(net, criterion=rule, data=batch, method=own)

    # First what an interrupt could lose; some networks have to be seen before they can be predicted.
    predicted = None if subject.needs_models else predict()
    measured = _measured(subject, sparsity, rule, options, chosen, progress)
    prediction, collapse = predicted or predict()
    network = network_name(factory, subject.network())
    first = measured[0]
    order = _order(first.layers, prediction.layers)
    return Comparison(
        criterion=rule.label,
        sparsity=first.sparsity,
        layers=tuple(first.layers[i] for i in order),
        weights=first.weights[order],
        seeds=np.array(chosen[: len(measured)], dtype=np.int64),
        kept=np.array([m.kept for m in measured])[..., order],
        critical_sparsity=np.array([m.critical_sparsity for m in measured]),
        log_score_moments=np.array([m.log_score_moments for m in measured])[:, order],
        prediction=replace(prediction, network=network),
        collapse=replace(collapse, network=network),
        complete=len(measured) == len(chosen),
        network=network,
    )


def _measured(
    subject: Subject,
    sparsity: ArrayLike,
    rule: Criterion,
    options: Options,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None,
) -> list[PruningMeasurement]:
    """The networks of the seeds, pruned; an interrupt keeps those that were finished."""
    asked: Any = {name: getattr(options, name) for name in ("loss", "output", "exclude", "device")}
    asked |= {"criterion": rule, "data": subject.batch, "example_input": subject.example, "masks": False}
    measured: list[PruningMeasurement] = []
    try:
        for seed in seeds:
            measured.append(measure_pruning(subject.model(seed), sparsity, seed=seed, **asked))
            if progress is not None:
                progress(len(measured), len(seeds))
    except KeyboardInterrupt:
        if not measured:
            raise
        subject.only(len(measured))
    return measured


def _order(measured: Sequence[str], predicted: Sequence[str]) -> list[int]:
    """Where each predicted layer is among the measured: a model may run them in another order than it has."""
    if sorted(measured) != sorted(predicted):
        return list(range(len(measured)))  # built from an architecture, in its order, under other names
    return [measured.index(name) for name in predicted]


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    # NumPy's zero-dimensional arrays are Iterable by name only.
    if isinstance(seeds, Iterable) and getattr(seeds, "ndim", 1) and not isinstance(seeds, bytes):
        accepted = "a whole number >= 1 or whole numbers >= 0"
        listed = checks.items("seeds", seeds, accepted, MOST_SEEDS)
        chosen = [checks.integer("seeds", s, 0) for s in listed]
        if not chosen:
            raise ArgumentError("seeds must hold at least one seed, got none")
        return chosen
    return list(range(checks.integer("seeds", seeds, 1, MOST_SEEDS)))


def _check_factory(factory: Any) -> None:
    if isinstance(factory, Architecture):
        # The model, its doubles, one gradient and the scores.
        check_drawn(factory, 28)
    elif not is_model(factory) and not callable(factory):
        raise ArgumentError(
            f"factory must be an Architecture, a torch module or a function of the seed, got "
            f"{type(factory).__name__}"
        )
