"""`diagnose`: what is wrong with a model's initialisation, what would collapse, what to use instead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base import checks
from ...base.boundary import public
from ...base.formatting import plain
from ...base.isolation import isolated
from ...base.result import Drawable
from ...base.upward import upward
from ...criteria.criterion import criterion as as_criterion
from ...errors.text import LONGEST_NAME, prose, shortened
from ...networks.architecture import Architecture
from ...networks.resolve import as_architecture
from .findings import best, is_exploding, off_edge, phase, problems
from .forecast import Outlook, outlook
from .initialisation import Reading, read
from .remedies import Cure, cures

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray


@public
@dataclass(frozen=True)
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

        "silent", "exploding", "ordered", "chaotic", "starved", "risk", "collapse".

        "silent": the scores of some layer are all exactly 0, so that nothing in it can be ranked. "collapse":
        a layer collapses more likely than not; "risk": with 5 % or more; "starved": a layer keeps less than a
        tenth of its even share. The first four name causes; "ordered" and "chaotic" are reported only with
        such an effect, or with a cure that is predicted to help.
        """
        return problems(self.reading, self.before, self.off, helped=self.cure is not None)

    @property
    def phase(self) -> str:
        """ "ordered", "critical" or "chaotic": the mean of log χ over the layers that are off the edge."""
        return phase(self.before, self.off)

    @cached_property
    def paragraphs(self) -> tuple[tuple[str, str], ...]:
        """The verdict in parts, each a heading and its sentences."""
        made = upward("Diagnosis.paragraphs")(self)
        return tuple((prose(heading), prose(sentences)) for heading, sentences in made)

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        return " ".join(text for _, text in self.paragraphs)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, with the prediction after the cure beside the first where there is one."""
        import pandas as pd

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
        if self.after is not None:
            columns["kept_after"] = self.after.kept
            columns["empty_probability_after"] = self.after.empty_probability
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists; nan is None, the infinities are text."""
        return plain(
            {
                "criterion": self.criterion,
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
                "before": self.before.to_dict(),
                "cure": None if self.cure is None else {"steps": self.cure.steps, "does": self.cure.does},
                "after": None if self.after is None else self.after.to_dict(),
            }
        )

    def __str__(self) -> str:
        """The verdict and the table, as text."""
        return upward("Diagnosis.__str__")(self)

    def to_html(self, path: Any, *, title: str = "Diagnosis of an initialisation") -> None:
        """Write one self-contained page with the verdict, plots and the table.

        It loads nothing from the internet. It is readable on phones and desktops, in light and dark mode.

        Raises:
            ArgumentError: `path` does not end in .html or cannot be written.
        """
        upward("Diagnosis.to_html")(self, path, shortened(checks.text("title", title), LONGEST_NAME))


@isolated
@public
def diagnose(
    model: Any,
    example_input: Any = None,
    *,
    sparsity: float = 0.9,
    criterion: Any = "snip",
    data: Any = None,
    seed: int = 0,
) -> Diagnosis:
    """Find what is wrong with a model's initialisation, what would collapse, and what to use instead.

    Nothing is trained or pruned, and the model is left as it was. Scales and distributions are read from its
    weights. What pruning keeps is predicted twice: for the model as found, and after the change that should
    cure it.

    Args:
        model: a torch model, or an `Architecture`.
        example_input: a batch of inputs that the model can be traced with; by default the first two of
            `data`. A chain of Linear layers needs none.
        sparsity: fraction of all weights to remove, in [0, 1).
        criterion: as in `predict_pruning`.
        data: None (independent normal inputs, balanced labels), ``(inputs, targets)`` or a `DataSummary`.
        seed: of the samples; the same seed gives the same bits.

    Returns:
        a `Diagnosis`; ``print`` shows verdict and table.

    Raises:
        ArgumentError, DataError: an argument outside the above. ModelError: a model that cannot be read.
    """
    rule = as_criterion(criterion)
    sparsity = checks.fraction("sparsity", sparsity)
    seed = checks.integer("seed", seed, minimum=0)
    net = as_architecture(model, data, example_input, name="model")
    batch = net.summarise(data, seed=seed)
    reading = read(net)
    before = outlook(net, reading, sparsity, rule, batch, seed)
    off = off_edge(net, reading, before)
    candidates: list[Cure] = []
    if off.any() or is_exploding(reading, before) or not before.is_fine:
        redraw = bool(off.any())
        state = parameters_of(model, net, reading)
        candidates = cures(net, reading, redraw=redraw, silent=len(before.silent) > 0, **state)
    cure, after = best(
        before, reading, candidates, lambda other: outlook(other, reading, sparsity, rule, batch, seed)
    )
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
    )


def parameters_of(model: Any, net: Architecture, reading: Reading) -> dict[str, bool]:
    """Whether the layers whose scale matters all have biases, and whether weights are masked already."""
    if isinstance(model, Architecture):
        return {"biases": True, "masked": False}
    from ...pytorch.models import prunable_weights

    found = {weight.name or "weight": weight for weight in prunable_weights(model)}
    matter = [
        found[name]
        for name, scaled in zip(net.weight_layers, reading.scaled, strict=True)
        if scaled and name in found
    ]
    return {
        "biases": all(weight.bias is not None for weight in matter),
        "masked": any(weight.mask is not None for weight in found.values()),
    }
