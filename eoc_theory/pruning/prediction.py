"""Predicting what pruning at initialisation keeps, without training, weights or gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..base import checks
from ..base.boundary import public
from ..base.formatting import equals, probability, shown_layers
from ..base.isolation import isolated
from ..base.one_thread import with_one_thread
from ..base.result import Drawable
from ..base.tables import Table, cell, sparsity_frame
from ..base.typing import DataFrame, DType, Floats, LossName, Method, S
from ..criteria.criterion import Criterion, CriterionLike
from ..criteria.criterion import criterion as as_criterion
from ..errors import ArgumentError, TooLargeError
from ..errors.text import shortened
from ..networks.architecture import Architecture
from ..networks.naming import network_name, shortcut_layers
from ..networks.queries import batch_norm_modes, mode_notes
from ..networks.resolve import Network, Options, as_network
from ..networks.unread import UnreadNetwork
from ..propagation.score_grid import interpolate_grid
from ..propagation.shared import shared_samples
from ..signals.data import DataSummary
from .allocation import NetworkLaws, kept_fractions, threshold
from .chain_distributions import DEFAULT_SAMPLES, has_chain_law, network_laws
from .critical_sparsity import critical_law
from .data_free import is_data_free, predict_data_free
from .data_free_results import DataFreeAllocation
from .error_model import MEAN_ERROR, OWN_SAMPLES, Trust, kept_trust
from .graph_distributions import KEPT, GraphLaws, as_sampled, can_sample, graph_laws
from .graph_theory import theory_laws
from .rounds import allocate_in_rounds
from .theory_error import theory_trust
from .vanishing import notes as zero_notes
from .vanishing import ranked_zeros, share_below, zeros_of_structure

Array = np.ndarray
Counts = NDArray[np.int64]

#: A number that is not known, whatever a field's numbers are.
UNKNOWN: Any = np.nan

#: Sparsities that one call answers.
MOST_SPARSITIES = 10_000
#: Networks that one call samples.
MOST_SAMPLES = 10_000
#: A chance of collapse under this, or over 1 less this, by a margin of a factor in the number of weights left
#: is taken to be plain.
_LEAST, _MARGIN = 1e-3, 3.0
#: Sparsities that are looked at together.
_TOGETHER = 64
#: Weights of a layer under which SynFlow may lose it in another network.
_FEW_LEFT = 30.0
#: Expected error of what is kept that sampled networks aim at.
_AIM = 0.0075
#: Nodes of the smoothing kernel of rare events.
SMOOTHING_NODES = 9


@public
@dataclass(frozen=True, repr=False, eq=False)
class PruningPrediction(Drawable, Generic[S]):
    """What a network of L weight layers is predicted to keep, over its random initialisations.

    Attributes:
        criterion: its name.
        sparsity: fraction of the weights removed over the whole network, as given: a float, or shape (n_s,).
        layers: names of the weight layers, first to last.
        weights: number of weights in each, shape (L,).
        kept: mean fraction kept in each layer, shape (L,), or (n_s, L) for an array of sparsities.
        kept_std: its standard deviation from one initialisation to the next, like `kept`.
        empty_probability: probability that the layer loses every weight, like `kept`.
        collapse_probability: probability that some layer does, a float or shape (n_s,): that the critical
            sparsity of `predict_collapse`, whose draws are counted where it is not plainly 0 or 1, is not
            above. For chains of fully connected layers this and `empty_probability` are computed when one of
            them is first read: they cost several times what all else does.
        samples: networks sampled for the standard deviation (0 where it comes in closed form).
        notes: what the prediction takes for granted: the mode of batch normalisation, a lower resolution; and
            where `kept_error` is extrapolated.
        kept_error: expected error of `kept` as a mean over initialisations: the mean absolute error over the
            layers, a float or shape (n_s,). From networks that were really pruned
            (`eoc_theory.pruning.error_model`).
        kept_error_bound: what that error stays under in nine networks of ten, like `kept_error`.
        zero_scores: mean fraction of each layer's scores that are exactly 0, shape (L,); nan for "synflow",
            which ranks in rounds. `notes` say where pruning has to choose among them.
        method: "theory" where `kept` follows from kernels or closed forms; "sampled" where it is that of a
            few networks that were sampled and scored.
        network: what the network is called.
        shortcuts: names of the layers that stand on a shortcut, beside a residual branch.
    """

    criterion: str
    sparsity: S
    layers: tuple[str, ...]
    weights: Counts
    kept: Floats
    kept_std: Floats
    empty_probability: Floats
    collapse_probability: S
    samples: int
    notes: tuple[str, ...] = ()
    kept_error: S = UNKNOWN
    kept_error_bound: S = UNKNOWN
    zero_scores: float | Floats = np.nan
    method: str = "theory"
    network: str = ""
    shortcuts: tuple[str, ...] = ()

    def _headline(self) -> str:
        chance = np.atleast_1d(self.collapse_probability)
        several = " to " + probability(float(chance[-1])) if len(chance) > 1 else ""
        shown = equals("P(collapse)", probability(float(chance[0])) + several)
        return kept_headline(self, f"{shown}, {self.method}")

    def _table(self) -> Table:
        more = {"± s.d.": self.kept_std, "P(empty)": self.empty_probability}
        return kept_table(self, more if np.ndim(self.sparsity) == 0 else {})

    def to_frame(self) -> DataFrame:
        """One row a layer (and sparsity), with all that is known of it, `zero_scores` last."""
        names = ("kept", "kept_std", "empty_probability", "zero_scores")
        return sparsity_frame(self, {name: getattr(self, name) for name in names})


#: Sparsities that a table has columns for.
MOST_COLUMNS = 6


def kept_headline(found: Any, more: str) -> str:
    """Network, criterion, sparsities and what is kept in the layers, of a prediction or a measurement."""
    sparsity = np.ravel(found.sparsity)
    at = f"sparsity {sparsity[0]:.6g}"
    at += f" to {sparsity[-1]:.6g} ({len(sparsity)})" if len(sparsity) > 1 else ""
    kept = f"kept {np.min(found.kept):.3g} to {np.max(found.kept):.3g} of {len(found.layers)} layers"
    named = f"{shortened(found.network, 60)}, " if found.network else ""
    return f"{named}{found.criterion} at {at}: {kept}, {more}"


def kept_table(found: Any, more: Mapping[str, Any]) -> Table:
    """A row a layer and a column a sparsity, as far as there is room, and a column for each of `more`."""
    sparsity, kept = np.ravel(found.sparsity), np.atleast_2d(found.kept)
    layers = shown_layers(len(found.layers))
    columns = sorted({round(i) for i in np.linspace(0, len(sparsity) - 1, min(len(sparsity), MOST_COLUMNS))})
    heads = [f"kept at {sparsity[i]:.6g}" for i in columns]
    rows = tuple(
        (
            found.layers[k],
            str(found.weights[k]),
            *(f"{kept[i, k]:.4f}" for i in columns),
            *(cell(np.broadcast_to(values, len(found.layers))[k]) for values in more.values()),
        )
        for k in layers
    )
    left_out = [f"{len(layers)} of {len(found.layers)} layers"] if len(layers) < len(found.layers) else []
    left_out += [f"{len(columns)} of {len(sparsity)} sparsities"] if len(columns) < len(sparsity) else []
    note = f"{', '.join(left_out)}; to_frame() holds each" if left_out else ""
    return Table(("layer", "weights", *heads, *more), rows, note=note)


def check_sparsities(sparsity: Any) -> Array:
    """`sparsity` as an array (n_s,) of numbers in [0, 1)."""
    try:
        count = len(sparsity) if hasattr(sparsity, "__len__") and np.ndim(sparsity) else 1
        count = max(count, int(getattr(sparsity, "size", 1)))
        scalar = count > MOST_SPARSITIES or np.ndim(sparsity) == 0
        values = [sparsity] if scalar else list(np.ravel(sparsity))
    except Exception:
        count, values = 1, [sparsity]  # rows of unequal length, say: refused below as no number
    if count > MOST_SPARSITIES:
        raise TooLargeError(f"sparsity must hold at most {MOST_SPARSITIES} numbers, got {count}")
    if not values:
        raise ArgumentError("sparsity must hold at least one number, got none")
    return np.array([checks.fraction("sparsity", value) for value in values])


@overload
def predict_pruning(
    net: Any,
    sparsity: float,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    samples: int | None = None,
    seed: int = 0,
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    device: Any = "auto",
    dtype: DType = "auto",
) -> PruningPrediction[float]: ...
@overload
def predict_pruning(
    net: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    samples: int | None = None,
    seed: int = 0,
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    device: Any = "auto",
    dtype: DType = "auto",
) -> PruningPrediction[Floats]: ...
@isolated
@public
def predict_pruning(
    net: Any,
    sparsity: ArrayLike,
    *,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    samples: int | None = None,
    seed: int = 0,
    example_input: Any = None,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    device: Any = "auto",
    dtype: DType = "auto",
) -> PruningPrediction[Any]:
    """Fraction of the weights that pruning at initialisation keeps in each layer, and its standard deviation.

    Scores are ranked over the whole network and exactly round(s·n) weights removed (Lee et al. 2019; Hayou et
    al. 2021, section 2). Biases are not pruned.

    There are two methods. By theory the scores' distributions follow from kernels, and no network is
    sampled. Else a few networks are sampled in torch, with weights from the distributions of those at hand,
    and scored with exact gradients; the model may be of any kind.

    Args:
        net: an `Architecture`; a torch model; or a factory, a function without arguments, or of a seed, that
            returns new models.
        sparsity: fraction of all weights removed, in [0, 1), or several.
        criterion: "snip", "grasp", "magnitude", "synflow" (100 rounds), "synflow-oneshot", "random",
            "uniform", "erk", "smart-ratio", "force", with options as in "snip(rounds=100)"; or an object: see
            `eoc_theory.criterion`.
        data: None (independent normal inputs, balanced labels), ``(inputs, targets)``, a `DataSummary`, a
            ``DataLoader``, a ``Dataset``, an iterable of batches, or a dict of keyword inputs with "labels".
        method: "theory", "sampled", or "auto": theory for chains of fully connected layers and for criteria
            whose scores have a closed form, sampled networks for the rest (theory where torch is missing).
        samples: networks sampled for criteria that need gradients; by default 16 for a chain of fully
            connected layers, and for any other network as many, 2 to 16, as
            `eoc_theory.pytorch.sample.sampler.BUDGET` allows and their differences ask for.
        seed: of those samples; the same seed gives the same bits.
        example_input: a batch of inputs, of which only the shape counts, or that shape; where neither `data`
            nor the first layer show it.
        loss: "cross_entropy", "mse", "bce" or a function (outputs, targets) → scalar.
        output: name, index or function that picks the outputs from all that the model returns.
        exclude: names or patterns of names of layers, or modules, whose weights stay.
        device, dtype: where, and in which precision, sampled networks are run in torch.

    Raises:
        ArgumentError, DataError, ModelError: an argument outside the above, naming it.
    """
    rule = as_criterion(criterion)
    values = check_sparsities(sparsity)
    seed = checks.integer("seed", seed, minimum=0)
    if samples is not None:
        samples = checks.integer("samples", samples, minimum=2, maximum=MOST_SAMPLES)
    options = Options.of(rule, method, example_input, loss, output, exclude, device, dtype)
    given, net = net, as_network(net, data, options, seed=seed)
    free = is_data_free(net, rule)
    with shared_samples():
        found = _allocated(net, rule, values, data, samples, seed, method)
        # The largest scores of the same networks say when layers collapse.
        networks = found.samples if isinstance(net, UnreadNetwork) and found.samples else samples
        chances = partial(_chances_by_law, found, net, samples=networks, seed=seed, method=method)
        waits = found.method == "theory" and found.open.any() and has_chain_law(net, rule)
        if waits:
            # Read later, the data are as they are now.
            chances = partial(chances, _copied(net.summarise(data, seed=seed)))
        else:
            found = replace(found, **dict(zip(("empty", "collapse"), chances(data), strict=True)))
    one: Any = (lambda array: array[0]) if np.ndim(sparsity) == 0 else (lambda array: array)
    trust = _trust(net, rule, values, found)
    own = () if samples is None or free or found.method == "sampled" else (OWN_SAMPLES,)
    prediction = PruningPrediction(
        criterion=rule.label,
        sparsity=float(values[0]) if np.ndim(sparsity) == 0 else values,
        layers=net.weight_layers,
        weights=net.weights,
        kept=one(found.kept),
        kept_std=one(found.std),
        empty_probability=one(found.empty),
        collapse_probability=_plain(one(found.collapse)),
        samples=found.samples,
        notes=_notes(net, rule, values, found) + own + trust.notes,
        kept_error=_plain(one(trust.expected)),
        kept_error_bound=_plain(one(trust.bound)),
        zero_scores=found.zeros,
        method=found.method,
        network=network_name(given, net),
        shortcuts=shortcut_layers(net),
    )
    if waits:
        later = isolated(lambda: tuple(_plain(one(chance)) for chance in chances()))
        prediction._postpone(("empty_probability", "collapse_probability"), later)
    return prediction


def _notes(net: Network, rule: Criterion, values: Array, found: _Allocation) -> tuple[str, ...]:
    """What there is to say of scores of 0, of how the distributions were computed, and of the network."""
    said = zero_notes(rule.label, net.weight_layers, net.weights, found.zeros, values, found.below)
    sampled = found.samples and found.method == "sampled"
    return said + found.notes + (() if sampled else network_notes(net))


def _copied(batch: DataSummary) -> DataSummary:
    """The batch, in arrays of its own."""
    return replace(batch, inputs=batch.inputs.copy(), targets=batch.targets.copy())


def _plain(number: Any) -> Any:
    """A float of an array without axes, others as they are."""
    return float(number) if np.ndim(number) == 0 else number


@dataclass(frozen=True)
class _Allocation:
    """What layers keep at sparsities (n_s,), and what is known of it.

    Attributes:
        kept, std, empty: mean fraction kept, its standard deviation and P(layer is empty), each (n_s, L).
        collapse: P(some layer is empty), (n_s,).
        open: whether the critical sparsity has to say the last two, (n_s,).
        zeros: fraction of each layer's scores that are 0, (L,).
        below: fraction of all scores under 0.
        samples: networks that were sampled.
        notes: what it takes for granted.
        method: "theory" or "sampled".
    """

    criterion: Criterion
    sparsity: Array
    kept: Array
    std: Array
    empty: Array
    collapse: Array
    open: Array
    zeros: Array
    below: float = 0.0
    samples: int = 0
    notes: tuple[str, ...] = ()
    method: str = "theory"


def _allocated(
    net: Network,
    criterion: Criterion,
    values: Array,
    data: Any,
    samples: int | None,
    seed: int,
    method: str = "auto",
) -> _Allocation:
    """By closed laws, from the networks that tell what is kept on average."""
    if is_data_free(net, criterion):
        free = predict_data_free(net, values, criterion, seed=seed)
        parts = free.kept, free.kept_std, free.empty_probability, free.collapse_probability
        open_ = _open_without_data(free, criterion, net)
        method = "theory" if criterion.rounds == 1 else "sampled"
        zeros = zeros_of_structure(net, criterion)
        return _Allocation(criterion, values, *parts, open_, zeros, method=method)
    if criterion.rounds > 1 and method == "theory":
        raise ArgumentError(f"method must be 'sampled' or 'auto' for {criterion.label!r}, got 'theory'")
    if criterion.rounds > 1:
        return _allocated_in_rounds(net, criterion, values, data, samples, seed)
    if not has_chain_law(net, criterion):
        if not isinstance(net, UnreadNetwork) and (method == "theory" or not can_sample()):
            method = "theory"
            found = theory_laws(net, criterion, data, seed=seed)
            parts = allocate_graph(found.laws, values)
        else:
            found, parts = _by_sampling(net, criterion, values, data, samples, seed)
        laws, wide, notes = found.laws, None, found.notes
        zeros, below = ranked_zeros(net, criterion, laws, data), share_below(laws)
    else:
        count = DEFAULT_SAMPLES if samples is None else samples
        sampled, wide = network_laws(net, data, samples=count, seed=seed)
        laws, notes, below = (sampled,), (), 0.0
        zeros = ranked_zeros(net, criterion, laws, data)
        parts = allocate(sampled, wide, values)
    kept, std, empty, collapse = parts
    least, most = _bounds(laws[0], values)
    collapse = np.clip(collapse, least, most)
    open_ = (most > _LEAST) & (least < 1.0 - _LEAST)
    sampled = wide is None and method != "theory"
    networks = 0 if wide is None and not sampled else len(laws[0].t)
    way = "sampled" if sampled else "theory"
    return _Allocation(
        criterion, values, kept, std, empty, collapse, open_, zeros, below, networks, notes, way
    )


def _by_sampling(
    net: Network, criterion: Criterion, values: Array, data: Any, samples: int | None, seed: int
) -> tuple[GraphLaws, tuple[Array, Array, Array, Array]]:
    """Laws from sampled networks and what is kept by them.

    There are more where they differ more from each other.
    """
    sampled = as_sampled(net, data, seed=seed)
    found = graph_laws(sampled, criterion, samples=samples, seed=seed)
    parts = allocate_graph(found.laws, values)
    if samples is None:
        error = MEAN_ERROR * float(parts[1].mean(axis=-1).max())
        wanted = min(math.ceil((error / _AIM) ** 2), KEPT[1], sampled.sampler.most(criterion))
        if wanted > found.samples:
            found = graph_laws(sampled, criterion, samples=wanted, seed=seed)
            parts = allocate_graph(found.laws, values)
    return found, parts


def _allocated_in_rounds(
    net: Network, criterion: Criterion, values: Array, data: Any, samples: int | None, seed: int
) -> _Allocation:
    """From networks that are sampled and pruned in rounds."""
    batch = net.summarise(data, seed=seed)
    kept, networks = allocate_in_rounds(net, criterion, values, batch, samples, seed)
    empty = (kept == 0).mean(axis=0)
    # Few networks do not show what one in ten does; the critical sparsity says what is open.
    fewest = (kept.mean(axis=0) * net.weights).min(axis=1)
    empties = (kept == 0).any(axis=2)
    some = (fewest < _FEW_LEFT) | empties.any(axis=0)
    open_ = some & (np.rint((1.0 - values) * net.n_weights) >= net.depth)
    return _Allocation(
        criterion,
        values,
        kept.mean(axis=0),
        kept.std(axis=0, ddof=1),
        empty,
        empties.mean(axis=0),
        open_,
        np.full(net.depth, np.nan),
        samples=networks.samples,
        notes=networks.notes,
        method="sampled",
    )


def _open_without_data(free: DataFreeAllocation, criterion: Criterion, net: Network) -> Array:
    """Where layers may collapse, under criteria that look at no data."""
    if criterion.densities(net.weight_shapes) is not None:
        return np.zeros(len(free.sparsity), dtype=bool)
    if criterion.rounds > 1:
        # Few simulated networks do not show what one in ten does.
        fewest = (free.kept * net.weights).min(axis=1)
        return (fewest < _FEW_LEFT) & (np.rint((1.0 - free.sparsity) * net.n_weights) >= net.depth)
    return (free.collapse_probability > _LEAST) & (free.collapse_probability < 1.0 - _LEAST)


@with_one_thread
def _bounds(laws: NetworkLaws, sparsity: Array) -> tuple[Array, Array]:
    """What P(some layer is empty) is not under, and not over, by a margin in what is left; each (n_s,)."""
    left = 1.0 - sparsity
    low = _chances(laws, np.maximum(1.0 - left * _MARGIN, 0.0))[0]
    high = _chances(laws, 1.0 - left / _MARGIN)[1]
    return low, np.maximum(low, high)


def _chances(laws: NetworkLaws, sparsity: Array) -> tuple[Array, Array]:
    """P(some layer is empty) if the likeliest one is, and if layers are independent; each (n_s,)."""
    found = []
    for start in range(0, len(sparsity), _TOGETHER):
        empty, _, weights = empty_layers(laws, threshold(laws, sparsity[start : start + _TOGETHER]))
        some = np.stack([empty.max(axis=-1), 1.0 - np.prod(1.0 - empty, axis=-1)])
        found.append(np.tensordot(some.mean(axis=2), weights, axes=(1, 0)))
    least, most = np.clip(np.concatenate(found, axis=1), 0.0, 1.0)
    return least, most


def _trust(net: Network, criterion: Criterion, values: Array, found: _Allocation) -> Trust:
    """Error of what is kept, by how it was predicted."""
    free = is_data_free(net, criterion)
    by_theory = found.method == "theory" and not free
    if isinstance(net, Architecture) and by_theory and not has_chain_law(net, criterion):
        return theory_trust(net, criterion, values)
    sampled = isinstance(net, UnreadNetwork) or not (by_theory or free)
    return kept_trust(net, criterion, values, found.std.mean(axis=-1), found.samples if sampled else None)


def _chances_by_law(
    found: _Allocation, net: Network, data: Any, samples: int | None, seed: int, method: str = "auto"
) -> tuple[Array, Array]:
    """P(layer is empty), (n_s, L), and P(some layer is), (n_s,); by the critical sparsity where open."""
    empty, collapse = found.empty.copy(), found.collapse.copy()
    # With fewer weights than layers one is empty for certain.
    collapse[np.rint(found.sparsity * net.n_weights) > net.n_weights - net.depth] = 1.0
    if not found.open.any():
        return np.minimum(empty, collapse[:, None]), collapse
    batch = None if is_data_free(net, found.criterion) else net.summarise(data, seed=seed)
    law = critical_law(net, found.criterion, batch, samples=samples, seed=seed, method=method)
    at = found.sparsity[found.open]
    collapse[found.open] = law.probability(at)
    counted = law.empty(at)
    if counted is not None:
        empty[found.open] = counted
    # An empty layer keeps nothing, and the others no more than all.
    return np.minimum(empty, np.minimum(collapse[:, None], 1.0 - found.kept)), collapse


def network_notes(net: Network) -> tuple[str, ...]:
    """What a prediction for this network takes for granted."""
    if isinstance(net, UnreadNetwork):
        return ()
    silent = [layer.name for layer in net if layer.sigma_w == 0.0]
    zero = (f"the weights of {', '.join(silent[:3])} are 0 at initialisation",) if silent else ()
    return zero if net.is_chain else (*zero, *mode_notes(set(batch_norm_modes(net.as_graph()))))


@with_one_thread
def allocate_graph(laws: tuple[NetworkLaws, ...], sparsity: Array) -> tuple[Array, Array, Array, Array]:
    """As `allocate` for laws from `graph_laws`: of all sizes, or of positive and of negative scores."""
    log_t = threshold(laws[0], sparsity)
    kept = kept_fractions(laws[0], sparsity, log_t)
    if len(laws) == 2:
        kept, log_t = _kept_signed(*laws, sparsity, kept, log_t)
    return summarise_networks(laws[0], kept, kept.mean(axis=0), log_t)


def _kept_signed(
    positive: NetworkLaws, negative: NetworkLaws, sparsity: Array, kept: Array, log_t: Array
) -> tuple[Array, Array]:
    """`kept` (S, n_s, L) and `log_t` (S, n_s) where negative scores go first, then zeros, then positive ones.

    `kept` and `log_t` as given are right where negative scores and zeros do not fill what is removed.
    """
    share = positive.weights / positive.weights.sum()
    density = 1.0 - sparsity
    above, below = ((law.nonzero @ share)[:, None] for law in (positive, negative))
    removed = kept_fractions(negative, density, threshold(negative, density))
    # Zeros are tied; every layer keeps the same part of its own.
    zeros = 1.0 - positive.nonzero - negative.nonzero
    part = np.clip((density - above) / np.maximum(1.0 - above - below, 1e-12), 0.0, 1.0)
    tied = positive.nonzero[:, None] + part[..., None] * zeros[:, None]
    negative_left = density > 1.0 - below
    positive_gone = density <= above
    kept = np.where(negative_left[..., None], 1.0 - removed, np.where(positive_gone[..., None], kept, tied))
    return kept, np.where(positive_gone, log_t, -np.inf)


def summarise_networks(
    laws: NetworkLaws, kept: Array, mean: Array, log_t: Array
) -> tuple[Array, Array, Array, Array]:
    """Mean, s.d. and probabilities of empty layers, from the kept fractions of each network (S, n_s, L)."""
    # Which of a layer's weights pass is itself random: independent given the rows and columns.
    # No number between 0 and 1 varies more than one that is either.
    most = mean * (1.0 - mean)
    std = np.sqrt(np.minimum(kept.var(axis=0, ddof=1) + most / laws.weights, most))
    empty, collapse, weights = empty_layers(laws, log_t)
    return (
        mean,
        std,
        # An empty layer keeps nothing, and the others no more than all.
        np.minimum(np.tensordot(weights, empty.mean(axis=1), axes=1), 1.0 - mean),
        np.clip(np.tensordot(weights, collapse.mean(axis=1), axes=1), 0.0, 1.0),
    )


@with_one_thread
def allocate(laws: NetworkLaws, wide: NetworkLaws, sparsity: Array) -> tuple[Array, Array, Array, Array]:
    """kept, kept_std, empty_probability (n_s, L) and collapse_probability (n_s,) of sampled networks.

    The mean over the samples is drawn towards the infinitely wide network as far as it differs from it by no
    more than its own sampling error (James–Stein, positive part).
    """
    log_t = threshold(laws, sparsity)
    kept = kept_fractions(laws, sparsity, log_t)
    limit = kept_fractions(wide, sparsity, threshold(wide, sparsity))[0]
    variance = kept.var(axis=0, ddof=1)
    difference = kept.mean(axis=0) - limit
    noise = variance.sum(axis=-1) / len(kept)
    trust = np.clip(1.0 - noise / np.maximum((difference**2).sum(axis=-1), 1e-300), 0.0, 1.0)
    mean = np.clip(limit + trust[:, None] * difference, 0.0, 1.0)
    return summarise_networks(laws, kept, mean, log_t)


def empty_layers(laws: NetworkLaws, log_t: Array) -> tuple[Array, Array, Array]:
    """P(every score ≤ t) of each layer and of some layer, for thresholds (S, n_s), and the nodes' weights.

    The first has shape (J, S, n_s, L), the second (J, S, n_s). Layers with large scores come together, so
    that the product over independent layers is an upper limit of the second, and the likeliest layer a lower
    one. Between them it is counted in the sampled networks, where these were sampled to the last score.
    """
    smooth, weights = smooth_thresholds(laws, log_t)
    finite = np.isfinite(log_t)
    empty = np.where(finite[..., None], interpolate_grid(laws.max_cdf, smooth), 0.0)
    independent = 1.0 - np.prod(1.0 - empty, axis=-1)
    if laws.largest is None:
        return empty, independent, weights
    counted = np.mean([(top <= smooth).any(axis=-1) for top in laws.undisplaced_maxima()], axis=0)
    counted = np.where(finite, counted, 0.0)
    return empty, np.clip(counted, empty.max(axis=-1), independent), weights


def smooth_thresholds(laws: NetworkLaws, log_t: Array) -> tuple[Array, Array]:
    """Thresholds (S, n_s) in the layers' mean laws, each as J nodes: shape (J, S, n_s, L); their weights.

    Few sampled networks do not show what one in a hundred does. Their thresholds relative to the layers'
    scales are therefore taken as a sample of a smooth law: a Gaussian kernel about each, narrowed so that
    mean and variance stay those of the sample (Silverman's bandwidth; one deviate for all layers of a
    network).
    """
    finite = np.isfinite(log_t)
    u = laws.locate(np.where(finite, log_t, 0.0))
    if not finite.all():
        # Networks without a threshold say nothing of where it is in others.
        known = finite[..., None]
        others = np.sum(u, axis=0, where=known) / np.maximum(known.sum(axis=0), 1)
        u = np.where(known, u, others)
    nodes, weights = np.polynomial.hermite_e.hermegauss(SMOOTHING_NODES)
    bandwidth, shrink = silverman(len(u))
    mean, deviation = u.mean(axis=0), u.std(axis=0, ddof=1)
    smooth = mean + shrink * (u - mean + bandwidth * deviation * nodes[:, None, None, None])
    return smooth, weights / weights.sum()


def silverman(count: int) -> tuple[float, float]:
    """Width of a Gaussian kernel about each of `count` draws, in their standard deviation, and what narrows
    both so that the variance stays that of the draws (Silverman 1986, section 3.4)."""
    bandwidth = 1.06 * count**-0.2
    return bandwidth, 1.0 / math.sqrt(1.0 + bandwidth**2)
