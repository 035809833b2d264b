"""`diagnose`: what is wrong with a model's initialisation, what would collapse, what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

import numpy as np

from ...base import checks
from ...base.boundary import public
from ...base.codec import encode
from ...base.formatting import plain, probability
from ...base.isolation import isolated
from ...base.result import Drawable
from ...base.tables import Table, frame
from ...base.typing import DataFrame, LossName, Method
from ...base.upward import upward
from ...criteria.criterion import Criterion, CriterionLike
from ...criteria.criterion import criterion as as_criterion
from ...errors import ArgumentError, DataError, EOCError, ModelError
from ...errors.text import LONGEST_NAME, prose, shortened
from ...networks.architecture import Architecture
from ...networks.naming import network_name, shortcut_layers
from ...networks.queries import attends
from ...networks.resolve import Network, Options, as_architecture, as_network, is_model
from ...propagation.observed import Observed
from ...pytorch.lazy import require_torch
from ...pytorch.models import prunable_weights
from ...signals.data import DataSummary
from .attention import diagnose_attention
from .findings import best, is_exploding, off_edge, phase, problems
from .forecast import Outlook, outlook
from .initialisation import Reading, read
from .remedies import Cure, cures
from .signals import signal_columns, signal_problems

Array = np.ndarray


@public
@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis(Drawable):
    """The findings about a network of L weight layers; arrays have shape (L,).

    Attributes:
        criterion: that scores are ranked by.
        sparsity: fraction of all weights removed.
        layers: names of the weight layers, first to last.
        kinds: "Linear", "Conv 3x3", …
        weights: number of weights in each.
        fan_in: inputs of one output unit.
        laws: distributions of the weights, as found: "normal", "uniform", …
        activations: name of the activation that follows, "" for none.
        reading: scales beside the critical ones, names of initialisations, normalisation, residual sums.
        before: prediction for the network as it is.
        cure: the change that is predicted to help, or None where none is needed or none helps.
        after: prediction for the network after it, or None.
        off: whether σ_w matters and is not that of the edge of chaos.
        synthetic: whether independent normal inputs stood in for data.
        seed: of the samples.
        method: "theory", "sampled" where the numbers are those of a few networks that were sampled and run,
            or "measured" where they are those of a trained network itself.
        signals: what happens at each layer: signals, gradients, tokens and attention; None by theory without
            attention. See `eoc_theory.propagation.observed.Observed`.
        signals_after: the same after the cure, or None.
        notes: what the numbers take for granted.
        network: what the network is called.
        shortcuts: names of the layers that stand on a shortcut, beside a residual branch.
    """

    criterion: str
    sparsity: float
    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: Array
    fan_in: Array
    laws: tuple[str, ...]
    activations: tuple[str, ...]
    reading: Reading
    before: Outlook
    cure: Cure | None
    after: Outlook | None
    off: Array
    synthetic: bool
    seed: int
    method: str = "theory"
    signals: Observed | None = None
    signals_after: Observed | None = None
    notes: tuple[str, ...] = ()
    network: str = ""
    shortcuts: tuple[str, ...] = ()

    @property
    def sigma_w(self) -> Array:
        """σ_w as found."""
        return self.before.sigma_w

    @property
    def sigma_b(self) -> Array:
        """σ_b as found."""
        return self.before.sigma_b

    @property
    def sigma_w_edge(self) -> Array:
        """σ_w on the edge of chaos of the activation that follows, at σ_b as found; nan for none."""
        return self.reading.edge

    @property
    def chi(self) -> Array:
        """χ = σ_w² E[φ'²] of each layer, nan where no scale matters; see `Outlook`."""
        return self.before.chi

    @property
    def log10_moment(self) -> Array:
        """log₁₀ of the SNIP scores' second moment, relative to the last layer."""
        return self.before.log10_moment

    @property
    def kept(self) -> Array:
        """Mean fraction of the weights that pruning keeps."""
        return self.before.kept

    @property
    def kept_std(self) -> Array:
        """Its standard deviation over initialisations."""
        return self.before.kept_std

    @property
    def empty_probability(self) -> Array:
        """Probability that the layer collapses: that it keeps no weight."""
        return self.before.empty_probability

    @property
    def collapse_probability(self) -> float:
        """Probability that some layer collapses."""
        return self.before.collapse_probability

    @property
    def critical_sparsity(self) -> float:
        """Median of the smallest sparsity at which a layer collapses."""
        return self.before.critical_sparsity

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one word for each problem.

        "silent", "exploding", "ordered", "chaotic", "starved", "risk", "collapse"; of sampled networks, and
        of networks with attention, "vanishing", "rank collapse" and "entropy collapse" too.

        "silent": the scores of some layer are all exactly 0, so that nothing in it can be ranked. "collapse":
        a layer collapses more likely than not; "risk": with 5 % or more; "starved": a layer keeps less than a
        tenth of its even share. The first four name causes; "ordered" and "chaotic" are reported only with
        such an effect, or with a cure that is predicted to help.

        There "vanishing" and "exploding" are about the gradient's squared norm, which falls or
        grows 100-fold from the last layer to the first; "rank collapse": the tokens of an input are alike in
        the last layers; "entropy collapse": some attention attends to single keys.
        """
        if self.signals is not None:
            return signal_problems(self.before, self.signals)
        return problems(self.reading, self.before, self.off, helped=self.cure is not None)

    @property
    def phase(self) -> str:
        """ "ordered", "critical" or "chaotic": the mean of log χ over the layers that are off the edge.

        In sampled networks: whether gradients vanish, do neither, or explode.
        """
        if self.signals is not None:
            words = {"vanishing": "ordered", "exploding": "chaotic"}
            return next((words[word] for word in self.problems if word in words), "critical")
        return phase(self.before, self.off)

    @cached_property
    def paragraphs(self) -> tuple[tuple[str, str], ...]:
        """The verdict in parts, each a heading and its sentences."""
        told = upward("Diagnosis.paragraphs")
        if self.signals is not None:
            told = upward("Diagnosis.paragraphs of sampled networks")
        made = told(self)
        return tuple((prose(heading), prose(sentences)) for heading, sentences in made)

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        return " ".join(text for _, text in self.paragraphs)

    def to_frame(self) -> DataFrame:
        """One row a layer, with the prediction after the cure beside the first where there is one."""
        columns = {
            "layer": self.layers,
            "type": self.kinds,
            "weights": self.weights,
            "fan_in": self.fan_in,
            "law": self.laws,
            "initialisation": self.reading.names,
            "activation": self.activations,
            "normalised": self.reading.normalised,
            "sigma_w": self.sigma_w,
            "sigma_b": self.sigma_b,
            "sigma_w_edge": self.sigma_w_edge,
            "chi": self.chi,
            "log10_moment": self.log10_moment,
            "kept": self.kept,
            "kept_std": self.kept_std,
            "empty_probability": self.empty_probability,
        }
        if self.signals is not None:
            columns |= signal_columns(self.signals) | {"zero_scores": self.before.zero_scores}
        if self.after is not None:
            columns["kept_after"] = self.after.kept
            columns["empty_probability_after"] = self.after.empty_probability
        return frame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists; nan is None, the infinities are text."""
        return plain(
            {
                "criterion": self.criterion,
                "method": self.method,
                "sparsity": self.sparsity,
                "seed": self.seed,
                "synthetic": self.synthetic,
                "verdict": self.verdict,
                "problems": self.problems,
                "layers": self.layers,
                "kinds": self.kinds,
                "weights": self.weights,
                "fan_in": self.fan_in,
                "laws": self.laws,
                "initialisations": self.reading.names,
                "activations": self.activations,
                "normalised": self.reading.normalised,
                "residual_blocks": len(self.reading.joins),
                "batch_norms": dict(zip(("training", "evaluation"), self.reading.batch_norms, strict=True)),
                "sigma_w_edge": self.sigma_w_edge,
                "reading": encode(self.reading),
                "off": self.off,
                "before": _outlook(self.before),
                "cure": None if self.cure is None else _cure(self.cure),
                "after": None if self.after is None else _outlook(self.after),
                "notes": self.notes,
                "network": self.network,
                "shortcuts": self.shortcuts,
                **self._signals(),
            }
        )

    def _signals(self) -> dict[str, Any]:
        """What sampled networks show, as found and after the cure."""
        shown = {"signals": self.signals, "signals_after": self.signals_after}
        return {name: encode(seen) for name, seen in shown.items() if seen is not None}

    @classmethod
    def _hints(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return get_type_hints(cls)

    def _headline(self) -> str:
        named = f"{shortened(self.network, 50)}, " if self.network else ""
        wrong = ", ".join(self.problems) or "nothing to cure"
        cured = " (cured)" if self.after is not None else ""
        return (
            f"{named}{len(self.layers)} weight layers, {self.criterion} at sparsity {self.sparsity:.6g}: "
            f"{wrong}{cured}, P(collapse) {probability(self.collapse_probability)}, {self.method}"
        )

    def _said(self) -> tuple[tuple[str, str], ...]:
        return self.paragraphs

    def _table(self) -> Table:
        return upward("Diagnosis.<table>")(self)

    def __str__(self) -> str:
        """The verdict and the table, as text."""
        return upward("Diagnosis.__str__")(self)

    def to_html(
        self, path: Any, *, title: str = "Diagnosis of an initialisation", interactive: bool = False
    ) -> None:
        """Write one self-contained page with the verdict, plots and the table.

        It loads nothing from the internet. It is readable on phones and desktops, in light and dark mode.

        Args:
            path: the page to write, .html.
            title: its heading.
            interactive: whether the picture of what is kept names the layer under the pointer. The page then
                carries Plotly (the extra `interactive`), some 4.5 MB.

        Raises:
            ArgumentError: `path` does not end in .html or cannot be written.
            MissingDependencyError: Plotly is not installed.
        """
        heading = shortened(checks.text("title", title), LONGEST_NAME)
        upward("Diagnosis.to_html")(self, path, heading, checks.flag("interactive", interactive))


def _outlook(outlook: Outlook) -> dict[str, Any]:
    """A prediction as plain data, with what follows from it."""
    return encode(outlook) | outlook.to_dict()


def _cure(cure: Cure) -> dict[str, Any]:
    """A cure as plain data."""
    told: dict[str, Any] = {"steps": cure.steps, "does": cure.does}
    parts = {"factors": cure.factors, "units": cure.units}
    return told | {name: encode(part) for name, part in parts.items() if part}


@isolated
@public
def diagnose(
    model: Any,
    example_input: Any = None,
    *,
    sparsity: float = 0.9,
    criterion: CriterionLike = "snip",
    data: Any = None,
    method: Method = "auto",
    seed: int = 0,
    loss: LossName | Callable[..., Any] = "cross_entropy",
    output: Any = None,
    exclude: Any = (),
    device: Any = "auto",
) -> Diagnosis:
    """Find what is wrong with a model's initialisation, what would collapse, and what to use instead.

    Nothing is trained or pruned, and the model is left as it was. What pruning keeps is predicted twice: for
    the model as found, and after the change that should cure it.

    By theory scales and distributions are read from the weights. A model that cannot be read is sampled: a
    few networks like it are run forwards and backwards, which shows the sizes of signals and gradients at
    each layer, how alike tokens are, and how evenly attention attends. A trained model, whose weights follow
    no known distribution, is measured as it is.

    Args:
        model: a torch model, an `Architecture`, or a factory: a function without arguments, or of a seed,
            that returns new models.
        example_input: a batch of inputs that the model can be run with; by default the first two of
            `data`. A chain of Linear layers needs none.
        sparsity: fraction of all weights to remove, in [0, 1).
        criterion: as in `predict_pruning`.
        data: as in `predict_pruning`.
        method: "theory", which samples no network and makes no large weights of a factory's; "sampled"; or
            "auto": the theory's causes where the model can be read and has no attention, with networks
            sampled for what is kept where `predict_pruning` samples them, else sampled networks alone.
        seed: of the samples; the same seed gives the same bits.
        loss, output, exclude, device: of sampled networks, as in `predict_pruning`.

    Returns:
        a `Diagnosis`; ``print`` shows verdict and table.

    Raises:
        ArgumentError, DataError: an argument outside the above. ModelError: a model that cannot be read by
        theory, or cannot be run.
    """
    rule = as_criterion(criterion)
    sparsity = checks.fraction("sparsity", sparsity)
    seed = checks.integer("seed", seed, minimum=0)
    options = Options(method, example_input, loss, output, exclude, device)
    if method == "theory" and options.beyond_theory:
        raise ArgumentError(f"{options.beyond_theory[0]} goes with method='sampled', got method='theory'")
    known = isinstance(model, Architecture) or is_model(model)
    if not known and (not callable(model) or isinstance(model, type)):
        raise ArgumentError(f"model must be an Architecture or a torch.nn.Module, got {type(model).__name__}")
    refusal: EOCError | None = None
    if known and method != "sampled" and not options.beyond_theory:
        try:
            net = as_architecture(model, data, example_input, name="model")
            batch = net.summarise(data, seed=seed)
        except (ModelError, DataError) as error:
            if method == "theory" or isinstance(model, Architecture):
                raise
            refusal = error
        else:
            # How alike tokens become and what attention attends to is seen in sampled networks.
            if method == "theory" or net.is_chain or not attends(net.as_graph()):
                return _by_theory(model, net, batch, rule, sparsity, seed, method)
    if method == "theory":
        # A factory: shapes and laws of weights are all that it takes.
        made = as_network(model, data, Options(method, example_input))
        assert isinstance(made, Architecture)
        return _by_theory(made, made, made.summarise(data, seed=seed), rule, sparsity, seed, method)
    try:
        return _by_sampling(model, data, options, rule, sparsity, seed)
    except (ModelError, DataError):
        # Without inputs it is the reader that says what is lacking.
        if refusal is not None and data is None and example_input is None:
            raise refusal from None
        raise


def _by_theory(
    model: Any,
    net: Architecture,
    batch: DataSummary,
    rule: Criterion,
    sparsity: float,
    seed: int,
    method: Method = "auto",
) -> Diagnosis:
    reading = read(net)
    shown: dict[str, Any] = {}
    if not net.is_chain and attends(net.as_graph()):
        found = diagnose_attention(net, reading, batch, sparsity, rule, seed)
        first, cure, second = found
        before, after = first.outlook, None if second is None else second.outlook
        shown = {"signals": first.signals, "notes": first.notes}
        shown["signals_after"] = None if second is None else second.signals
        off = off_edge(net, reading, before)
    else:
        before, off, cure, after = _before_and_after(model, net, reading, batch, rule, sparsity, seed, method)
    return Diagnosis(
        criterion=rule.label,
        sparsity=sparsity,
        layers=net.weight_layers,
        kinds=reading.kinds,
        weights=net.weights,
        fan_in=np.array([layer.fan_in for layer in net]),
        laws=tuple(layer.law for layer in net),
        activations=tuple("" if layer.activation is None else layer.activation.name for layer in net),
        reading=reading,
        before=before,
        cure=cure,
        after=after,
        off=off,
        synthetic=batch.synthetic,
        seed=seed,
        network=network_name(model, net),
        shortcuts=shortcut_layers(net),
        **shown,
    )


def _before_and_after(
    model: Any,
    net: Architecture,
    reading: Reading,
    batch: DataSummary,
    rule: Criterion,
    sparsity: float,
    seed: int,
    method: Method,
) -> tuple[Outlook, Array, Cure | None, Outlook | None]:
    """The network as found, which layers are off the edge of chaos, the cure and the network after it."""
    before = outlook(net, reading, sparsity, rule, batch, seed, method)
    off = off_edge(net, reading, before)
    candidates: list[Cure] = []
    if off.any() or is_exploding(reading, before) or not before.is_fine:
        redraw = bool(off.any())
        state = parameters_of(model, net, reading)
        candidates = cures(net, reading, redraw=redraw, silent=len(before.silent) > 0, **state)

    def predict(other: Network) -> Outlook:
        assert isinstance(other, Architecture)
        return outlook(other, reading, sparsity, rule, batch, seed, method)

    return before, off, *best(before, reading, candidates, predict)


def _by_sampling(
    model: Any, data: Any, options: Options, rule: Criterion, sparsity: float, seed: int
) -> Diagnosis:
    require_torch()
    from .sampled import diagnose_by_sampling  # torch at its top

    found = diagnose_by_sampling(model, data, options, sparsity, rule, seed)
    net = found.net
    return Diagnosis(
        criterion=rule.label,
        sparsity=sparsity,
        layers=net.weight_layers,
        kinds=found.reading.kinds,
        weights=net.weights,
        fan_in=np.array([layer.fan_in for layer in net]),
        laws=found.laws,
        activations=("",) * len(net),
        reading=found.reading,
        before=found.before.outlook,
        cure=found.cure,
        after=None if found.after is None else found.after.outlook,
        off=np.zeros(len(net), dtype=bool),
        synthetic=data is None,
        seed=seed,
        method="measured" if found.measured else "sampled",
        signals=found.before.signals,
        signals_after=None if found.after is None else found.after.signals,
        notes=found.before.notes,
        network=network_name(model, net),
    )


def parameters_of(model: Any, net: Architecture, reading: Reading) -> dict[str, bool]:
    """Whether the layers whose scale matters all have biases, and whether weights are masked already."""
    if isinstance(model, Architecture):
        return {"biases": True, "masked": False}

    found = {weight.label: weight for weight in prunable_weights(model)}
    matter = [
        found[name]
        for name, scaled in zip(net.weight_layers, reading.scaled, strict=True)
        if scaled and name in found
    ]
    return {
        "biases": all(weight.bias is not None for weight in matter),
        "masked": any(weight.mask is not None for weight in found.values()),
    }
