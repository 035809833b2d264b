"""`design`: the inverse problem of collapse, solved by prediction and checked on sampled networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ...base import checks
from ...base.boundary import public
from ...base.codec import encode
from ...base.formatting import plain, probability
from ...base.isolation import isolated
from ...base.result import Drawable
from ...base.tables import Table, frame
from ...base.typing import DataFrame, Method
from ...base.upward import upward
from ...criteria.criterion import Criterion, CriterionLike
from ...criteria.criterion import criterion as as_criterion
from ...errors import EOCError, ModelError
from ...errors.text import prose, shortened
from ...networks.architecture import DEFAULT_SIGMA_B, Architecture
from ...networks.critical_scales import critical_scales
from ...networks.naming import network_name, shortcut_layers
from ...networks.queries import attends, is_divided_out
from ...networks.resolve import METHODS, as_architecture
from ...pruning.prediction import MOST_SAMPLES
from ..diagnosis.diagnosis import parameters_of
from ..diagnosis.initialisation import read
from ..diagnosis.remedies import at_scales
from .candidate import Candidate, Ranked, by_global_ranking, checked, layer_by_layer
from .task import Task

Array = np.ndarray

#: What a design is for: that no layer is lost, or that the network trains well.
Goal = Literal["connection", "training"]
GOALS = ("connection", "training")
#: σ_b of the points of the edge of chaos that are tried.
SIGMA_B = (0.0, 0.05, 0.1, DEFAULT_SIGMA_B)


@public
@dataclass(frozen=True, repr=False, eq=False)
class Design(Drawable):
    """How to prune a network of L weight layers to a sparsity without collapse; arrays (L,).

    Attributes:
        criterion: that scores are ranked by.
        sparsity: fraction of all weights removed.
        max_collapse_probability: that was asked for.
        chosen: what to do, one of the candidates.
        before: the network as it is under global ranking.
        candidates: all that was tried.
        weights: number of weights in each layer.
        critical_sparsity: median of the smallest sparsity at which a layer collapses, under the design.
        critical_sparsity_before: the same of the network as it is under global ranking.
        seed: of everything random.
        method: "theory" or "sampled": where kept and the probability of collapse come from.
        network: what the network is called.
        shortcuts: names of the layers that stand on a shortcut, beside a residual branch.
        goal: that was asked for.
        normalised: whether a normalisation divides out the scale of most layers.
    """

    criterion: str
    sparsity: float
    max_collapse_probability: float
    chosen: Candidate
    before: Candidate
    candidates: tuple[Candidate, ...]
    weights: Array
    critical_sparsity: float
    critical_sparsity_before: float
    seed: int
    method: str = "theory"
    network: str = ""
    shortcuts: tuple[str, ...] = ()
    goal: Goal = "connection"
    normalised: bool = False

    @property
    def feasible(self) -> bool:
        """Whether anything that was tried avoids collapse."""
        return self.chosen.feasible

    @property
    def initialisation(self) -> tuple[float, float] | None:
        """(σ_w, σ_b) of the first layer on the edge of chaos, or None: the network as it is."""
        return self.chosen.initialisation

    @property
    def rescale_by(self) -> Literal["signal", "units", "moments"] | None:
        """What `rescale_` goes by after pruning; None where a normalisation divides scales out.

        For training "moments" in networks of convolutions, whose deep layers hardly tell inputs apart; else
        "units".
        """
        if self.goal == "connection":
            return "signal"
        if self.normalised:  # whose scale is divided out, and with it the step of training
            return None
        graph = self.architecture.as_graph()
        return "units" if self.architecture.is_chain or attends(graph) else "moments"

    @property
    def architecture(self) -> Architecture:
        """The network with that initialisation."""
        return self.chosen.architecture

    @property
    def allocation(self) -> Literal["global", "layerwise"]:
        """Whether all weights are ranked at once, or each layer has its number of weights."""
        return self.chosen.allocation

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the weight layers, first to last."""
        return self.chosen.layers

    @property
    def kept(self) -> Array:
        """Fraction of each layer's weights kept; under global ranking the predicted mean."""
        return self.chosen.kept

    @property
    def kept_weights(self) -> Array:
        """Numbers of weights kept, n − round(s n) in all."""
        return self.chosen.kept_weights

    @property
    def collapse_probability(self) -> float:
        """Probability that some layer collapses: that it keeps no weight."""
        return self.chosen.collapse_probability

    @property
    def collapse_interval(self) -> tuple[float, float]:
        """The range that holds it in nine cases of ten."""
        return self.chosen.collapse_interval

    @property
    def cut_probability(self) -> float:
        """Probability that some layer is disconnected: that it has no weight on a path from input to logits.

        nan if unknown.
        """
        return self.chosen.cut_probability

    @property
    def cut_interval(self) -> tuple[float, float]:
        """The range that holds it in nine cases of ten, from as many networks as were sampled."""
        return self.chosen.cut_interval

    @property
    def steps(self) -> tuple[str, ...]:
        """Code that carries it out on a torch model `model`.

        With `design` for this, and `data` for a batch (inputs, targets) of the model's own.
        """
        found = []
        if self.initialisation is not None:
            sigma_b, shape = self.initialisation[1], self.architecture.input_shape
            drawn = f", sigma_b={sigma_b:g}" if sigma_b else ""
            if shape.space:  # a model of images does not tell their extent
                drawn += f", example_input={(2, shape.channels, *shape.space)}"
            found.append(f"eoc.initialize_(model{drawn})")
        rest = ", allocation=design" if self.allocation == "layerwise" else ""
        call = f"eoc.measure_pruning(model, {self.sparsity!r}, criterion={self.criterion!r}, data=data{rest})"
        seen = "" if self.rescale_by in (None, "units") else ", data=data"
        # Pruning takes a network off its scale, by design or not.
        again = () if self.rescale_by is None else (f"eoc.rescale_(model, by={self.rescale_by!r}{seen})",)
        return (*found, f"eoc.prune_(model, {call}.masks)", *again)

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        return prose(upward("Design.verdict")(self))

    def to_frame(self, of: Literal["layers", "candidates"] = "layers") -> DataFrame:
        """One row a layer, with what the network as it is keeps; or one row a candidate."""
        if checks.one_of("of", of, ("layers", "candidates")) == "candidates":
            rows = [candidate.to_dict() for candidate in self.candidates]
            for row, candidate in zip(rows, self.candidates, strict=True):
                row["sigma_w"], row["sigma_b"] = row.pop("initialisation") or (np.nan, np.nan)
                row["chosen"] = candidate is self.chosen
                for name in ("collapse", "cut"):
                    row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_interval")
                del row["kept"], row["kept_weights"]
            return frame(rows)
        return frame(
            {
                "layer": self.layers,
                "weights": self.weights,
                "kept_before": self.before.kept,
                "kept": self.kept,
                "kept_weights": self.kept_weights,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; nan is None.

        `chosen` is the place of the choice among the `candidates`, whose first is the network as it is.
        """
        return plain(
            {
                "criterion": self.criterion,
                "sparsity": self.sparsity,
                "max_collapse_probability": self.max_collapse_probability,
                "seed": self.seed,
                "method": self.method,
                "feasible": self.feasible,
                "verdict": self.verdict,
                "steps": self.steps,
                "layers": self.layers,
                "weights": self.weights,
                **self.chosen.to_dict(),
                "critical_sparsity": self.critical_sparsity,
                "critical_sparsity_before": self.critical_sparsity_before,
                "before": self.before.to_dict(),
                "candidates": [{**encode(candidate), **candidate.to_dict()} for candidate in self.candidates],
                "chosen": next(i for i, one in enumerate(self.candidates) if one is self.chosen),
                "network": self.network,
                "shortcuts": self.shortcuts,
                "goal": self.goal,
                "normalised": self.normalised,
            }
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """The design that `to_dict` gave as `values`.

        Raises:
            ArgumentError: `values` are not of a design.
        """
        chosen = None
        if isinstance(values, Mapping):
            listed, chosen = values.get("candidates"), values.get("chosen")
            if isinstance(listed, list) and type(chosen) is int and 0 <= chosen < len(listed):
                values = {**values, "chosen": listed[chosen], "before": listed[0]}
        made = super().from_dict(values)
        one = made.candidates[chosen] if type(chosen) is int else made.chosen
        return replace(made, chosen=one, before=made.candidates[0])

    def _headline(self) -> str:
        named = f"{shortened(self.network, 50)}, " if self.network else ""
        outcome = self.chosen.name if self.feasible else "nothing that was tried avoids collapse"
        chance = f"P(collapse) {probability(self.collapse_probability)}"
        return f"{named}{self.criterion} at sparsity {self.sparsity:.6g}: {outcome}, {chance}"

    def _said(self) -> tuple[tuple[str, str], ...]:
        steps = (("In Python", "; ".join(self.steps)),) if self.feasible else ()
        return (("Design", self.verdict), *steps)

    def _table(self) -> Table:
        return upward("Design.<table>")(self)

    def __str__(self) -> str:
        """Verdict, candidates and layers, as text."""
        return prose(upward("Design.__str__")(self))


@isolated
@public
def design(
    net: Any,
    sparsity: float,
    *,
    criterion: CriterionLike | None = None,
    data: Any = None,
    goal: Goal = "connection",
    method: Method = "auto",
    example_input: Any = None,
    max_collapse_probability: float = 0.01,
    networks: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Design:
    """Find an initialisation and an allocation of weights to layers that avoid collapse at a sparsity.

    Candidates are tried in this order, and the first that avoids collapse is chosen:

    1. the network as it is, all weights ranked at once;
    2. the same on the edge of chaos, by `initialize_`, at the σ_b nearest to the network's own;
    3. a number of weights for each layer: the global ranking above a floor of half an
       Erdős–Rényi-kernel allocation (`eoc_theory.reports.design.allocation`), chosen on paths through the
       network (`eoc_theory.pytorch.measure.layerwise`), with the initialisation that has to move the fewest
       weights.

    A layer can fail in one of two ways. It collapses if it keeps no weight; the probability of that is
    predicted. It is disconnected if none of its weights lies on a path from the input to the logits. That
    happens at lower sparsities, and numbers of weights alone do not prevent it. Its probability is estimated
    from a few sampled networks: from how many weights each of them needs to stay connected
    (`eoc_theory.reports.design.sampled_networks`). Each probability comes with an interval that should hold
    it in nine cases of ten; the probability itself decides.

    That is the goal "connection": the least that must change. The goal "training" asks for the network that
    is likely to train best, whether or not another would collapse: the third candidate, of iterative SynFlow,
    whose choice within layers keeps wide paths; and, where no normalisation divides scales out, weights
    rescaled unit by unit (`rescale_(by="units")`), so that units that keep few weights contribute like the
    others, or in networks of convolutions weights and biases that give each unit its mean and mean square
    (`rescale_(by="moments")`), so that deep layers tell inputs apart. Of networks with attention there is no
    such candidate, and SNIP ranks all weights. `python -m benchmarks.trained_designs report` lays such
    designs beside SNIP, SynFlow and ERK.

    Nothing is trained, and a model is left as it was.

    Args:
        net: an `Architecture` or a torch model without masks.
        sparsity: fraction of all weights to remove, in [0, 1).
        criterion: as in `predict_pruning`. None: "snip"; for the goal "training" "synflow", of networks with
            attention "snip".
        goal: "connection" or "training".
        data: None (independent normal inputs, balanced labels), ``(inputs, targets)`` or a `DataSummary`.
        method: as in `predict_pruning`. Under "theory" no network is sampled, and whether layers are
            disconnected stays unknown, unless `networks` says otherwise.
        example_input: a batch of inputs that a torch model can be traced with, or its shape; by default the
            first two of `data`. A chain of Linear layers needs none.
        max_collapse_probability: highest accepted probability of either, in [0, 1).
        networks: how many are sampled for each candidate, fewer where two are enough to rule it out. None: 1
            to 8, as many as are cheap, and up to 32 until the interval of P(disconnected) lies on one side of
            `max_collapse_probability`. 0: none. Without torch none are sampled. Nor are networks with
            attention, where paths are not defined: there all weights are ranked at once.
        seed: of everything random; the same seed gives the same bits.
        progress: called with a few words on what is being tried.

    Raises:
        ArgumentError, DataError: an argument outside the above. ModelError: a model that cannot be read, or
        is pruned already.
    """
    checks.one_of("goal", goal, GOALS)
    sparsity = checks.fraction("sparsity", sparsity)
    tolerance = checks.fraction("max_collapse_probability", max_collapse_probability)
    if checks.one_of("method", method, METHODS) == "theory" and networks is None:
        networks = 0
    elif networks is not None:
        networks = checks.integer("networks", networks, minimum=0, maximum=MOST_SAMPLES)
    seed = checks.integer("seed", seed, minimum=0)
    progress = checks.function("progress", progress, "a text")
    found = as_architecture(net, data, example_input)
    state = parameters_of(net, found, read(found))
    if state["masked"]:
        raise ModelError("net must not be pruned yet; design before pruning")
    attention = attends(found.as_graph())
    trained = goal == "training"
    usual = "synflow" if trained and not attention else "snip"
    rule = as_criterion(usual if criterion is None else criterion)
    batch = found.summarise(data, seed=seed)
    left = found.n_weights - round(sparsity * found.n_weights)
    said = progress or (lambda text: None)
    task = Task(sparsity, left, rule, batch, tolerance, 0 if attention else networks, seed, said, method)
    ranked = _globally_ranked(task, found, biases=state["biases"])
    candidates = [one.candidate for one in ranked]
    layerwise = [] if attention else _layerwise(task, candidates)
    tried = layerwise + candidates if trained else candidates + layerwise
    chosen = next((one for one in tried if one.feasible), (layerwise or candidates)[0])
    # Layer by layer a weight for each layer but one is the limit.
    most = 1.0 - (found.depth - 1) / found.n_weights
    limit = next((one.critical_sparsity for one in ranked if one.candidate is chosen), most)
    return Design(
        criterion=rule.label,
        sparsity=sparsity,
        max_collapse_probability=tolerance,
        chosen=chosen,
        before=candidates[0],
        candidates=(*candidates, *layerwise),
        weights=found.weights,
        critical_sparsity=limit,
        critical_sparsity_before=ranked[0].critical_sparsity,
        seed=seed,
        method=ranked[0].law.method,
        network=network_name(net, found),
        shortcuts=shortcut_layers(found),
        goal=goal,
        normalised=_normalised(found),
    )


def _globally_ranked(task: Task, net: Architecture, *, biases: bool) -> list[Ranked]:
    """All weights ranked at once: of the network as it is and, until one will do, on the edge of chaos."""
    task.said("as it is, global")
    ranked = [by_global_ranking(task, net, None)]
    if ranked[0].candidate.feasible:
        return ranked
    for initialisation, critical in _on_the_edge(net, task.criterion, biases):
        task.said("σ_w = {:.4g}, σ_b = {:g}, global".format(*initialisation))
        ranked.append(by_global_ranking(task, critical, initialisation, quick=True))
        if ranked[-1].candidate.feasible:
            break
    return ranked


def _normalised(net: Architecture) -> bool:
    """Whether a normalisation divides out the scales of most layers."""
    graph = net.as_graph()
    divided = [
        is_divided_out(graph, position, layer.sigma_b**2)
        for position, layer in zip(graph.weighted, net, strict=True)
    ]
    return 2 * sum(divided) > len(divided)


def _layerwise(task: Task, candidates: list[Candidate]) -> list[Candidate]:
    """Candidates with a number of weights for each layer, up to the first that will do."""
    # Where a global ranking will do, its own network's allocation is the alternative.
    options = candidates[-1:] if candidates[-1].feasible else list(candidates)
    found = [made for made in (layer_by_layer(task, one) for one in options) if made is not None]
    # The fewest weights moved, to one in a hundred; then what comes first.
    found.sort(key=lambda one: round(one.moved, 2))
    for index, one in enumerate(found):
        found[index] = checked(task, one, few=candidates[-1].feasible)
        if found[index].feasible:
            break
    return found


def _on_the_edge(
    net: Architecture, criterion: Criterion, biases: bool
) -> Iterator[tuple[tuple[float, float], Architecture]]:
    """(σ_w, σ_b) and the network there, nearest to its own σ_b first; none where scales do not matter."""
    reading = read(net)
    if criterion.any_scale or not reading.scaled.any():
        return
    acts = {layer.activation for layer in net if layer.activation is not None}
    options = SIGMA_B if biases and not any(act.is_homogeneous for act in acts) else (0.0,)
    own = np.median([layer.sigma_b for layer, scaled in zip(net, reading.scaled, strict=True) if scaled])
    tried = 0
    for sigma_b in sorted(options, key=lambda option: (abs(option - own), option)):
        try:
            scales = critical_scales(net.as_graph(), sigma_b)
        except EOCError:
            continue  # this activation has no such point
        critical = at_scales(net, scales)
        if tried and criterion.needs == "weights":
            return
        tried += 1
        if criterion.needs == "weights" and _in_proportion(net, critical):
            return
        if not _same(net, critical):
            first = critical.layers[0]
            yield (first.sigma_w, first.sigma_b), critical


def _in_proportion(net: Architecture, other: Architecture) -> bool:
    """Whether one scale common to all layers makes the weights of one those of the other."""
    ratios = [a.sigma_w / b.sigma_w for a, b in zip(net, other, strict=True)]
    return all(a.law == b.law for a, b in zip(net, other, strict=True)) and max(ratios) < 1.01 * min(ratios)


def _same(net: Architecture, other: Architecture) -> bool:
    """Whether all scales agree as well as scales read from weights can."""
    return all(
        a.law == b.law and np.allclose([a.sigma_w, a.sigma_b], [b.sigma_w, b.sigma_b], rtol=0.01, atol=1e-3)
        for a, b in zip(net, other, strict=True)
    )
