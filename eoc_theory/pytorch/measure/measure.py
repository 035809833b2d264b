"""Pruning real networks at initialisation: what each layer keeps, and when one collapses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike

from ...base import checks
from ...base.boundary import public
from ...base.codec import packed, unpacked
from ...base.formatting import sparsity as shown_sparsity
from ...base.isolation import isolated
from ...base.result import Drawable
from ...base.tables import Table, sparsity_frame
from ...base.typing import DataFrame, DType, Floats, LossName, S
from ...criteria.criterion import Criterion, CriterionLike
from ...criteria.criterion import criterion as as_criterion
from ...criteria.critical_search import searched_critical_sparsity
from ...errors import ArgumentError, ModelError
from ...networks.naming import network_name
from ...pruning import vanishing
from ...pruning.prediction import Counts, check_sparsities, kept_headline, kept_table
from ..batches import Batch, as_batch
from ..devices import chosen_device
from ..inputs import shown_input
from ..lazy import torch
from ..loading import gathered, needs_gathering
from ..losses import Loss, as_loss
from ..models import PrunableWeight, prunable_weights, uncounted_notes, uncounted_weights
from ..ranked import Ranked, ranked_weights
from . import ranking, scoring
from .connectivity import Paths
from .gradient_rounds import Scores, counts, masks_in_rounds
from .gradient_scores import UnusedLayersError
from .layerwise import layer_counts, path_masks, synflow_layers
from .synflow_rounds import Flow, synflow_critical_sparsity, synflow_rounds

# A search of 100 rounds a step: exact up to this many weights, then to 3 % of the number left, which is less
# than a third of what tells one seed from the next.
_EXACT_SEARCH = 100_000
_SEARCH_RESOLUTION = 0.03


@public
@dataclass(frozen=True, repr=False, eq=False)
class PruningMeasurement(Drawable, Generic[S]):
    """What pruning one network did to each of its L weight layers.

    Attributes:
        criterion: the criterion's name.
        sparsity: the fraction of weights removed; float, or array (S,).
        layers: names of the weight layers in the order of the model's modules, which need not be that in
            which they run; of models with weights outside of torch's layers in that in which they run.
        weights: number of weights per layer, int64 (L,).
        kept: fraction of each layer's weights kept, (L,), or (S, L) where the sparsity is an array.
        critical_sparsity: the smallest sparsity at which some layer has lost all its weights; NaN if it was
            not asked for.
        weakest_layer: the layer that collapses first; "" if it was not asked for.
        log_score_moments: natural logarithm of the mean squared score per layer, (L,), up to a constant
            common to all layers; NaN for criteria that rank in rounds.
        zero_scores: fraction of exactly vanishing scores per layer, (L,); NaN for criteria that rank in
            rounds.
        masks: what is kept, by layer name, as boolean arrays of the weights' shapes; one such dict for a
            scalar sparsity, a tuple of them for an array; None if they were not asked for.
        notes: where scores that tie, or are 0 throughout a layer, decide; and which weights were not counted.
        uncounted: names of parameters with two or more dimensions that were not ranked: embeddings,
            positions, weights on which the loss does not depend, and those excluded.
        network: what the network is called.

    In plain data the masks are packed: {"shape": …, "bits": the bits in base64}.
    """

    criterion: str
    sparsity: S
    layers: tuple[str, ...]
    weights: Counts
    kept: Floats
    critical_sparsity: float
    weakest_layer: str
    log_score_moments: Floats
    zero_scores: Floats
    masks: Any
    notes: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    network: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain numbers, strings, lists and dicts, the masks packed."""
        several = self.masks if isinstance(self.masks, tuple) else (self.masks,)
        made = [None if group is None else {n: packed(m) for n, m in group.items()} for group in several]
        told = replace(self, masks=None)
        return super(PruningMeasurement, told).to_dict() | {
            "masks": made if isinstance(self.masks, tuple) else made[0]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningMeasurement[Any]:
        """The measurement that `to_dict` gave as `values`.

        Raises:
            ArgumentError: `values` are not of a measurement.
        """
        made = super().from_dict({**values, "masks": None} if isinstance(values, Mapping) else values)
        try:
            given = values.get("masks")
            several = tuple(
                {name: unpacked(mask) for name, mask in group.items()}
                for group in (given if isinstance(given, list) else [given or {}])
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArgumentError(f"masks must be packed as to_dict packs them: {error}") from None
        return replace(made, masks=several if isinstance(given, list) else several[0] if given else None)

    def _headline(self) -> str:
        known = np.isfinite(self.critical_sparsity)
        limit = f", critical sparsity {shown_sparsity(self.critical_sparsity)}" if known else ""
        return kept_headline(self, f"measured{limit}")

    def _table(self) -> Table:
        return kept_table(self, {"zero scores": self.zero_scores})

    def to_frame(self) -> DataFrame:
        """One row for each layer (and sparsity), with the number and the fraction of weights kept."""
        counts = np.rint(self.kept * self.weights).astype(np.int64)
        columns = {"kept": self.kept, "kept_weights": counts, "zero_scores": self.zero_scores}
        return sparsity_frame(self, columns)


@overload
def measure_pruning(
    model: Any,
    sparsity: float,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    example_input: Any = None,
    device: Any = "auto",
    seed: int = 0,
    dtype: DType = "auto",
    masks: bool = True,
    collapse: bool = True,
    allocation: Any = None,
    exclude: Any = (),
) -> PruningMeasurement[float]: ...
@overload
def measure_pruning(
    model: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    example_input: Any = None,
    device: Any = "auto",
    seed: int = 0,
    dtype: DType = "auto",
    masks: bool = True,
    collapse: bool = True,
    allocation: Any = None,
    exclude: Any = (),
) -> PruningMeasurement[Floats]: ...
@isolated
@public
def measure_pruning(
    model: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    example_input: Any = None,
    device: Any = "auto",
    seed: int = 0,
    dtype: DType = "auto",
    masks: bool = True,
    collapse: bool = True,
    allocation: Any = None,
    exclude: Any = (),
) -> PruningMeasurement[Any]:
    """Score the real weights of a network, rank them globally, and tell what each layer keeps.

    Exactly round(s·n) of the network's n weights are removed: those of matrix products and convolutions on
    which the loss depends (`eoc_theory.pytorch.ranked`). Biases, embeddings, positions and normalisations are
    neither scored nor removed. Ties are removed evenly (:mod:`eoc_theory.pytorch.measure.ranking`). The
    model's parameters, gradients, mode, hooks, buffers and torch's random state are left as they were; the
    model is run in the mode it is in.

    Critical sparsity: for ranked scores t* = min over layers of the largest score, s_cr = #{scores ≤ t*}/n.
    The random criteria (random, uniform, erk) are ranked by scores too
    (:mod:`eoc_theory.pytorch.measure.scoring`), drawn from `seed`. Iterative SynFlow has a schedule for each
    final sparsity: s_cr is then found by a search over final sparsities, exact up to 100,000 weights, and to
    3 % of the number of weights left for more; it takes about ten times as long as pruning once.

    With an `allocation` each layer keeps as many weights as that says, its best among those that lie on a
    path from the input to the logits (:func:`eoc_theory.pytorch.measure.layerwise.path_masks`). There is no
    critical sparsity then.

    Memory beside the model: magnitude needs none for scores; snip a copy of the model, which is what is run,
    and one gradient, both in the precision that they are computed in; masks take one byte a weight.
    The batch is cut into parts where that changes nothing
    (:func:`eoc_theory.pytorch.measure.gradient_scores`).

    Args:
        model: a torch module. ``model(inputs)`` gives logits (batch, classes), or logits of every position,
            (batch, positions, classes) or (batch, classes, height, width), alone or among other outputs.
        sparsity: the fraction of weights to remove, in [0, 1); a number or a sequence.
        criterion: "snip", "grasp", "magnitude", "synflow" (100 rounds), "synflow-oneshot", "random",
            "uniform", "erk", "smart-ratio", "force", with options as in "snip(rounds=100)"; or an object: see
            `eoc_theory.criterion`.
        data: (inputs, targets), arrays or tensors; a tuple of several inputs, or a dict of them by name, for
            the inputs; a dict of inputs with "labels"; a `DataLoader` or `Dataset`, or an iterable of such
            batches, of which 1,024 examples are used; a `DataSummary`; or None: 100 standard normal inputs
            (token ids where the model looks them up) with balanced labels from `seed`. Only criteria with
            gradients look at its values.
        loss: "cross_entropy" (targets are class numbers, −100 being ignored, or probabilities), "mse", "bce"
            (targets in [0, 1], several labels at once), each a mean over all that is compared; or a function
            (outputs, targets) → scalar.
        output: what picks the outputs where the model returns several: a name, an index or a function. None:
            `.logits`, "logits" or "out", or the first, with the heads of a named tuple whose names begin with
            "aux" (their loss × 0.3).
        example_input: a batch of inputs, of which only the shape counts, or that shape. Needed where the
            first layer is not Linear and `data` does not show the shape of an input: data None or a
            `DataSummary`, or synflow without data.
        device: where to compute; "auto": the model's own accelerator, else CUDA if there is one, else the
            CPU.
        seed: for random criteria, for `data` None and for modules that draw random numbers.
        dtype: "float32", "float64", or "auto": float64 where it is cheap or float32 would lose digits.
        masks: False leaves `.masks` None and saves their memory.
        collapse: False leaves `.critical_sparsity` NaN and saves its search.
        allocation: None, the global ranking; or a `Design` or a sequence (L,), how many weights each layer
            keeps, round((1 − s)·n) in all. For one sparsity, and for models that can be traced.
        exclude: names or patterns of names of layers, or modules, whose weights stay; the others are ranked
            together.

    Raises:
        ArgumentError, DataError, ModelError: unusable sparsity, criterion, data, loss, output, allocation,
            exclude or model.
        MissingDependencyError: torch is not installed.
    """
    sparsities = check_sparsities(sparsity)
    rule = as_criterion(criterion)
    checks.one_of("dtype", dtype, ("auto", "float32", "float64"))
    seed = checks.seed(seed)
    masks, collapse = checks.flag("masks", masks), checks.flag("collapse", collapse)
    if allocation is not None and np.ndim(sparsity):
        raise ArgumentError("sparsity must be one number where an allocation is given, got several")
    whole = prunable_weights(model, required=False)
    goal = as_loss(loss, output)
    from ..products import has_candidates  # torch at its top

    own_products = has_candidates(model, whole) and (data is not None or example_input is not None)
    if not whole and not own_products:
        prunable_weights(model)  # says that there is none
    looked_at = rule.needs_data or rule.needs == "paths" or allocation is not None or own_products
    if looked_at and needs_gathering(data):
        data = gathered(data, seed)  # read once: an iterator cannot be read again
    needed = rule.needs_data or own_products

    def batch() -> Batch:
        return as_batch(model, data, example_input, seed, goal)

    run = _Run(
        model,
        rule,
        sparsities,
        batch() if needed else None,
        batch,
        goal,
        shown_input(model, data, example_input) if looked_at else None,
        chosen_device(device, model),
        dtype,
        seed,
        masks,
        collapse,
        allocation,
        np.ndim(sparsity) == 0,
    )
    ranked = ranked_weights(model, run.batch if own_products else None, goal, exclude)
    try:
        return run.measured(ranked)
    except UnusedLayersError:
        return run.measured(ranked_weights(model, run.batch, goal, exclude))


@dataclass(frozen=True)
class _Run:
    """All that a measurement is asked for, checked; see `measure_pruning`."""

    model: Any
    rule: Criterion
    sparsities: np.ndarray
    batch: Batch | None
    run: Callable[[], Batch]
    goal: Loss
    shown: Any
    where: Any
    dtype: str
    seed: int
    masks: bool
    collapse: bool
    allocation: Any
    scalar: bool

    def measured(self, ranked: Ranked) -> PruningMeasurement:
        """The result for these weights.

        Raises:
            UnusedLayersError: the loss does not depend on some of them.
        """
        rule, found, said = self.rule, ranked.weights, list[str]()
        names = tuple(w.label for w in found)
        total = sum(w.size for w in found)
        removed = [round(float(s) * total) for s in self.sparsities]
        wanted = None
        if self.allocation is not None:
            wanted = layer_counts(self.allocation, names, found, total - removed[0])
        asked: Any = {"masks": self.masks, "collapse": self.collapse}

        def scores(left: Sequence[torch.Tensor] | None = None) -> Sequence[torch.Tensor]:
            return scoring.layer_scores(
                self.model,
                rule,
                self.batch,
                weights=found,
                loss=self.goal,
                example_input=self.shown,
                device=self.where,
                dtype=self.dtype,
                seed=self.seed,
                masks=left,
                notes=said,
                run=self.run,
            )

        if rule.rounds > 1 and rule.needs_data:
            if wanted is not None:
                raise ArgumentError(
                    f"allocation is for criteria that rank once, or synflow; got {rule.label!r}"
                )
            outcome = _in_gradient_rounds(rule, scores, found, removed, **asked)
        elif rule.rounds > 1:
            options: Any = {"loss": self.goal, "notes": said, "run": self.run}
            flow = scoring.synflow_start(
                self.model, found, self.shown, device=self.where, dtype=self.dtype, **options
            )
            if wanted is not None:
                flow = _unmasked(flow, found, self.where)
            outcome = _in_rounds(rule, flow, found, removed, wanted, **asked)
        else:
            paths = partial(Paths.through, self.model, found, self.shown)
            parts = {"wanted": wanted, "sparsities": self.sparsities, "paths": paths}
            outcome = _at_once(rule, scores(), found, removed, **parts, **asked)
        seen = () if self.batch is None else self.batch.notes
        outcome = replace(outcome, notes=(*seen, *ranked.notes, *said, *outcome.notes))
        return _measurement(
            self.model, rule, found, outcome, self.sparsities, masks=self.masks, scalar=self.scalar
        )


def _measurement(
    model: Any,
    rule: Criterion,
    found: list[PrunableWeight],
    outcome: _Outcome,
    sparsities: np.ndarray,
    *,
    masks: bool,
    scalar: bool,
) -> PruningMeasurement:
    """The result, of one sparsity or of several."""
    names = tuple(w.label for w in found)
    weights = np.array([w.size for w in found], dtype=np.int64)
    kept = np.array(outcome.counts) / weights
    left = uncounted_weights(model, found)
    by_name = tuple(
        {name: mask.cpu().numpy() for name, mask in zip(names, group, strict=True)}
        for group in outcome.chosen
    )
    return PruningMeasurement(
        criterion=rule.label,
        sparsity=float(sparsities[0]) if scalar else sparsities,
        layers=names,
        weights=weights,
        kept=kept[0] if scalar else kept,
        critical_sparsity=outcome.critical,
        weakest_layer="" if outcome.weakest is None else names[outcome.weakest],
        log_score_moments=outcome.log_moments,
        zero_scores=outcome.zeros,
        masks=None if not masks else by_name[0] if scalar else by_name,
        notes=outcome.notes + uncounted_notes(model, found, left),
        uncounted=tuple(left),
        network=network_name(model) or f"{len(names)} layers",
    )


@dataclass(frozen=True)
class _Outcome:
    """What was kept: numbers and masks of the layers, for each sparsity; and what comes out beside it."""

    counts: Sequence[Any]
    chosen: Sequence[list[torch.Tensor]]
    critical: float = np.nan
    weakest: int | None = None
    limits: Sequence[ranking.Threshold] = ()
    log_moments: Any = None
    zeros: Any = None
    notes: tuple[str, ...] = ()


def _at_once(
    rule: Criterion,
    scores: Sequence[torch.Tensor],
    found: list[PrunableWeight],
    removed: Sequence[int],
    *,
    collapse: bool,
    masks: bool,
    wanted: Any,
    sparsities: np.ndarray,
    paths: Callable[[], Paths],
) -> _Outcome:
    """One ranking, globally or, with numbers `wanted`, layer by layer."""
    tops, log_moments, zeros, below = _survey(scores, found, rule)
    if wanted is None:
        names = tuple(w.label for w in found)
        weights = np.array([w.size for w in found], dtype=np.int64)
        outcome = _ranked(scores, removed, tops if collapse else None, masks=masks)
        notes = vanishing.notes(rule.label, names, weights, zeros, sparsities, below)
        outcome = replace(outcome, notes=notes + _ties(rule, outcome, weights, sparsities))
    else:
        outcome = _Outcome([wanted], [path_masks(paths(), scores, wanted)] if masks else [])
    return replace(outcome, log_moments=log_moments, zeros=zeros)


def _in_gradient_rounds(
    rule: Criterion,
    scores: Scores,
    found: list[PrunableWeight],
    removed: Sequence[int],
    *,
    masks: bool,
    collapse: bool,
) -> _Outcome:
    """Rounds of scores that need gradients; s_cr by search, to `_SEARCH_RESOLUTION`."""
    _, log_moments, zeros, _ = _survey(scores(None), found, rule)
    alive, total = [w.left for w in found], sum(w.size for w in found)
    pruned = [masks_in_rounds(scores, total - k, rule.rounds, regrows=rule.regrows) for k in removed]
    critical, weakest = np.nan, None
    if collapse:

        def left_at(kept: int) -> list[int]:
            left = masks_in_rounds(scores, kept, rule.rounds, regrows=rule.regrows, stop_when_empty=True)
            return counts(left)

        critical, weakest = searched_critical_sparsity(alive, left_at, _SEARCH_RESOLUTION)
    return _Outcome(
        [counts(one) for one in pruned],
        pruned if masks else [],
        critical,
        weakest,
        log_moments=log_moments,
        zeros=zeros,
    )


def _in_rounds(
    rule: Criterion,
    whole: Flow,
    found: list[PrunableWeight],
    removed: Sequence[int],
    wanted: Any,
    *,
    masks: bool,
    collapse: bool,
) -> _Outcome:
    """Iterative SynFlow, globally or, with numbers `wanted`, layer by layer."""
    if not any(bool(score.any()) for score in whole.scores()):
        zeros = np.ones(len(found))
        vanishing.check_ranked(rule.label, zeros, lambda: _nothing(found))
    if wanted is None:
        pruned = [synflow_rounds(whole.copy(), k, rule.rounds) for k in removed]
    else:
        pruned = [synflow_layers(whole, wanted, rule.rounds)]
    critical, weakest = np.nan, None
    if collapse and wanted is None:
        resolution = 0.0 if sum(whole.sizes) <= _EXACT_SEARCH else _SEARCH_RESOLUTION
        critical, weakest = synflow_critical_sparsity(whole.copy, rule.rounds, resolution)
    unknown = np.full(len(found), np.nan)
    return _Outcome(
        [flow.left() for flow in pruned],
        [flow.masks() for flow in pruned] if masks else [],
        critical,
        weakest,
        log_moments=unknown,
        zeros=unknown,
    )


def _ranked(
    scores: Sequence[torch.Tensor], removed: Sequence[int], tops: list[float] | None, *, masks: bool
) -> _Outcome:
    """The global ranking; with the layers' largest scores `tops`, when a layer collapses."""
    limits = ranking.thresholds(scores, removed)
    critical, weakest = np.nan, None
    if tops is not None:
        critical, weakest = ranking.critical_sparsity(scores, tops)
    chosen = [ranking.masks(scores, limit) for limit in limits] if masks else []
    return _Outcome([limit.kept for limit in limits], chosen, critical, weakest, limits)


def _ties(rule: Criterion, outcome: _Outcome, weights: np.ndarray, sparsities: np.ndarray) -> tuple[str, ...]:
    """Where scores other than 0 tie at the threshold, and more than a few do."""
    if not rule.ranks:
        return ()
    tied = [
        f"{s:g} ({limit.tied.sum() / weights.sum():.1%})"
        for s, limit in zip(sparsities, outcome.limits, strict=True)
        if limit.ties_kept and limit.value not in (0.0, -np.inf) and limit.tied.sum() > 0.01 * weights.sum()
    ]
    if not tied:
        return ()
    return (
        f"scores that are equal stand at the threshold of s = {', '.join(tied)}: no ranking decides there",
    )


def _nothing(found: Sequence[PrunableWeight]) -> str:
    """Why no score is other than 0."""
    for weight in found:
        if not bool(weight.tensor.any()):
            return f"the weights of layer {weight.label!r} are all 0"
    return (
        "no gradient reaches the weights (dead units, a factor or γ of 0, inputs of 0, or a normalisation of "
        "single values)"
    )


def _unmasked(flow: Flow, weights: Sequence[PrunableWeight], where: Any) -> Flow:
    """`flow` without the weights that are masked; else they would tie at 0 with those on no path."""
    if any(weight.mask is not None for weight in weights):
        masks = [torch.ones_like(w.tensor) if w.mask is None else w.mask for w in weights]
        flow.keep([mask.reshape(-1).to(where) != 0 for mask in masks])
    return flow


def _survey(
    scores: Sequence[torch.Tensor], found: Sequence[PrunableWeight], rule: Criterion
) -> tuple[list[float], np.ndarray, np.ndarray, float]:
    """Per layer the largest score, log(mean score²), the fraction of zeros; of all scores those under 0.

    Raises:
        ModelError: scores that are not finite, or none that is other than 0.
    """
    tops, log_moments, zeros, below, alive = [], [], [], 0, 0
    for weight, score in zip(found, scores, strict=True):
        flat = ranking.entries(score)
        low, high = float(flat.min()), float(flat.max())
        if np.isnan(low) or high == np.inf:
            raise ModelError(f"the scores of layer {weight.label!r} are not finite: its weights must be")
        tops.append(high)
        log_moments.append(_log_mean_square(flat, max(high, -low)))
        others = int(ranking.count(flat))
        zeros.append(1 - others / len(flat))
        alive += others - (len(flat) - weight.left)
        below += int(ranking.count(flat < 0)) if low < 0 else 0
    if not alive:
        vanishing.check_ranked(rule.label, np.ones(len(found)), lambda: _nothing(found))
    size = sum(ranking.sizes_of(scores))
    return tops, np.array(log_moments), np.array(zeros), below / size


def _log_mean_square(flat: Any, top: float) -> float:
    """log(mean score²), also where the squares leave the range of the scores' own precision.

    `top` is the largest absolute value. Scores far below it may vanish when squared; they do not count.
    """
    if not 0 < top < np.inf:
        return -np.inf if top == 0 else np.nan
    exponent = int(np.frexp(top)[1])
    if abs(exponent) < 16:
        exponent = 0
    # A power of two loses no digit; in two steps, since it may be out of range where the product is not.
    half = exponent // 2
    scaled = (flat * 2.0**-half) * 2.0 ** (half - exponent) if exponent else flat
    return float(np.log(float(scaled @ scaled)) - np.log(len(flat)) + 2 * exponent * np.log(2))
