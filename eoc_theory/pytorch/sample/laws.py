"""The distribution of each of a model's parameters, read from the values at hand, to draw others like it.

What looks drawn independently from a known law is drawn from that law again. The scale of a weight is the
exact one of a named initialisation where the evidence of all weights together says so, else the mean over the
weights of the same shape and law: one layer of 1,000 weights shows its scale to 2 % only. Weights that follow
no known law (trained ones) are shuffled within their rows, so that their values stay as they are. All other
parameters that look like nothing drawn (constants, tables) are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..models import PrunableWeight
from ..trace.weights import Moments, is_orthogonal, log_likelihoods
from ..unit_scales import runs_of_one_scale
from ..weights import CUT, CUT_STD

#: Parameters with fewer entries show no law, and are left alone unless they are weights.
_FEWEST = 8
#: Entries that the test of a law looks at, and the distance (Kolmogorov's, times √n) beyond chance: 1e-6.
_TESTED, _FAR = 4096, 2.7
#: Sampling errors of a logarithm of a scale that are beyond chance.
_SIGMAS = 3.5
#: Range of ln σ in which a scale may lie; a value explained by chance is one in so many.
_LOG_RANGE = 8.0
#: Evidence, in nats, that a named initialisation must have in all of a model's weights together.
_EVIDENCE = 6.0

#: Kurtosis of the laws.
_KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated": 2.37, "orthogonal": 3.0, "delta-orthogonal": 3.0}


@dataclass(frozen=True)
class ParameterLaw:
    """What a parameter is drawn from.

    Attributes:
        law: "normal", "uniform" or "truncated" (at two standard deviations of the uncut law) about `mean`,
            "orthogonal", "delta-orthogonal"; "shuffled", the values at hand in another order within each row;
            "parts", each of `parts` from its own; "fixed", as they are.
        std: root mean square of the entries about the mean, of those that are not 0 where `zeros`.
        mean: of the entries.
        zeros: whether entries that are 0 stay 0, of a parameter that has others.
        named: whether `std` is the exact one of a named initialisation.
        parts: from … up to, along the dimension `axis`, and what is drawn there.
    """

    law: str
    std: float = 0.0
    mean: float = 0.0
    zeros: bool = False
    named: bool = False
    parts: tuple[tuple[int, int, ParameterLaw], ...] = ()
    axis: int = 0

    @property
    def is_known(self) -> bool:
        """Whether its entries are independent of a law with mean 0 that a `WeightLayer` can have."""
        return self.law in ("normal", "uniform", "truncated") and self.mean == 0.0 and not self.zeros


def read_laws(model: Any, weights: Iterable[PrunableWeight]) -> dict[str, ParameterLaw]:
    """The law of every parameter, by its name in ``model.named_parameters()``.

    Args:
        model: a torch module; nothing is changed.
        weights: those of its weights that pruning ranks.
    """
    ranked = {id(weight.tensor): weight for weight in weights}
    laws: dict[str, ParameterLaw] = {}
    shapes: dict[str, _Fans] = {}
    for name, parameter in model.named_parameters():
        weight = ranked.get(id(parameter))
        laws[name] = read_law(parameter.detach(), is_weight=weight is not None)
        parts = None if weight is None else _in_parts(parameter.detach(), weight.unit_axes[1])
        if parts is not None:
            laws[name] = parts
        if laws[name].std > 0 and laws[name].law not in ("fixed", "shuffled"):
            shapes[name] = _Fans.of(tuple(parameter.shape), 1 if weight is None else _groups(weight))
    pooled = _pooled({name: law for name, law in laws.items() if name in shapes}, shapes)
    return {**laws, **pooled}


def _groups(weight: PrunableWeight) -> int:
    """Groups of a convolution, or gates of a recurrent layer, whose rows stand one under the other."""
    hidden = getattr(weight.module, "hidden_size", None)
    if isinstance(hidden, int) and hidden and len(weight.tensor) % hidden == 0:
        return len(weight.tensor) // hidden
    groups = getattr(weight.module, "groups", 1)
    return groups if isinstance(groups, int) else 1


def _in_parts(tensor: torch.Tensor, axis: int) -> ParameterLaw | None:
    """The laws of runs of output units that have scales of their own; None where all have one."""
    runs = runs_of_one_scale(tensor, axis)
    if len(runs) < 2:
        return None
    laws = [read_law(tensor.narrow(axis, at, end - at), is_weight=True) for at, end in runs]
    if any(law.law in ("shuffled", "fixed") for law in laws):
        return None
    parts = tuple((*run, law) for run, law in zip(runs, laws, strict=True))
    return ParameterLaw("parts", parts=parts, axis=axis)


def read_law(tensor: torch.Tensor, *, is_weight: bool) -> ParameterLaw:
    """The law of one tensor by itself."""
    other = ParameterLaw("shuffled" if is_weight else "fixed")
    if not tensor.is_floating_point() or not tensor.numel():
        return ParameterLaw("fixed")
    entries = tensor.reshape(-1)
    alive = entries != 0
    count = int(alive.count_nonzero())
    if count == 0 or not bool(torch.isfinite(tensor).all()):
        return ParameterLaw("fixed")
    if is_weight and tensor.ndim > 2 and count <= tensor[..., 0].numel() and _is_delta(tensor):
        scale = math.sqrt(float(entries.double().square().mean()))
        return ParameterLaw("delta-orthogonal", scale)
    # Single zeros come by chance where few bits are drawn.
    zeros = count < len(entries) - max(2, len(entries) // 1000)
    drawn = entries[alive].double() if zeros else entries.double()
    mean, size = float(drawn.mean()), len(drawn)
    std = float(drawn.std(correction=0))
    if std <= 1e-6 * abs(mean) or (size < _FEWEST and not is_weight):
        return ParameterLaw("fixed")
    if abs(mean) <= 5.0 * std / math.sqrt(size):
        mean, std = 0.0, float(drawn.square().mean().sqrt())
    if is_weight and not zeros and tensor.ndim > 1 and mean == 0.0:
        if is_orthogonal(tensor, Moments.of(tensor, None)):
            return ParameterLaw("orthogonal", std)
    law = _most_likely((drawn - mean) / std)
    return other if law is None else ParameterLaw(law, std, mean, zeros)


def _is_delta(tensor: torch.Tensor) -> bool:
    """Whether a convolution is 0 but for an orthogonal matrix at the centre of its kernel."""
    at = tuple((extent - 1) // 2 for extent in tensor.shape[2:])
    centre = tensor[(..., *at)]
    elsewhere = int(tensor.count_nonzero()) - int(centre.count_nonzero())
    return elsewhere == 0 and bool(centre.count_nonzero()) and is_orthogonal(centre, Moments.of(centre, None))


def _most_likely(standard: torch.Tensor) -> str | None:
    """The law of entries in units of their standard deviation; None where none fits."""
    stride = max(1, len(standard) // _TESTED)
    some = standard[::stride].sort().values
    size = len(some)
    if len(some.unique()) < 0.9 * size:
        return None
    largest = float(standard.abs().max())
    likelihood = log_likelihoods(
        len(standard), 1.0, reach=max(largest, math.sqrt(3.0)), uncut=max(1.0 / CUT_STD, largest / CUT)
    )
    law: str = max(likelihood, key=lambda key: likelihood[key])
    levels = torch.arange(size + 1, dtype=torch.float64) / size
    expected = _cdf(law, some.cpu())
    distance = max(float((levels[1:] - expected).max()), float((expected - levels[:-1]).max()))
    return law if distance * math.sqrt(size) < _FAR else None


def _cdf(law: str, x: torch.Tensor) -> torch.Tensor:
    if law == "uniform":
        return (0.5 + x / (2.0 * math.sqrt(3.0))).clamp(0.0, 1.0)
    if law == "normal":
        return torch.special.ndtr(x)
    low = torch.special.ndtr(torch.tensor(-CUT, dtype=x.dtype))
    return ((torch.special.ndtr(x * CUT_STD) - low) / (1.0 - 2.0 * low)).clamp(0.0, 1.0)


# --- scales, from all of a model's weights together


@dataclass(frozen=True)
class _Fans:
    """What named initialisations take a scale from: of a tensor (out, in, kernel…)."""

    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    groups: int

    @classmethod
    def of(cls, shape: tuple[int, ...], groups: int) -> _Fans:
        taps = math.prod(shape[2:])
        first, second = shape[0] * taps, (shape[1] if len(shape) > 1 else 1) * taps
        return cls(shape, second, first, groups)

    @property
    def formulas(self) -> tuple[str, ...]:
        """The formulas that mean something for it: vectors have no fans."""
        return _FORMULAS if len(self.shape) > 1 else ("1",)

    def base(self, formula: str) -> float:
        """The standard deviation that a formula gives with gain 1."""
        if formula == "both":
            return math.sqrt(2.0 / (self.fan_in + self.fan_out))
        fans = {"fan_in": self.fan_in, "fan_out": self.fan_out, "1": 1.0}
        return float(fans.get(formula, self.fan_out / self.groups)) ** -0.5


#: A formula and a gain.
_Rule = tuple[str, float]

#: What a standard deviation is a multiple of.
_FORMULAS = ("fan_in", "both", "fan_out", "fan_out/groups", "1")
#: Gains of torch.nn.init for linear, tanh and ReLU units, and that of torch's own layers, 1/√3; SELU's 3/4.
_GAINS = (1.0, math.sqrt(2.0), 5.0 / 3.0, math.sqrt(1.0 / 3.0), 0.75, 0.5, math.sqrt(2.0 / 5.0))
#: Standard deviations that do not depend on the layer, and what a normal law cut at two of them has left.
_CONSTANTS = tuple(
    scale * cut for scale in (1.0, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001) for cut in (1.0, CUT_STD)
)


def _named_rules() -> Iterator[_Rule]:
    """Formulas and gains of named initialisations."""
    yield from ((formula, gain) for formula in _FORMULAS if formula != "1" for gain in _GAINS)
    yield from (("1", scale) for scale in _CONSTANTS)


#: Evidence, in nats, for what is most common: torch's own layers, Kaiming, Xavier, 0.02.
_BEFOREHAND = {
    ("fan_in", _GAINS[3]): 5.0,
    ("fan_out/groups", _GAINS[3]): 4.0,
    ("both", 1.0): 4.5,
    ("fan_in", _GAINS[1]): 4.0,
    ("fan_out", _GAINS[1]): 3.5,
    ("1", 0.02): 4.5,
}


def _pooled(laws: Mapping[str, ParameterLaw], fans: Mapping[str, _Fans]) -> dict[str, ParameterLaw]:
    """The laws with their scales from all the evidence.

    Rules are tried from the one with the most evidence on: it says the scales of all weights that it fits.
    """
    errors = {name: _log_error(law, math.prod(fans[name].shape)) for name, law in laws.items()}
    named = {(formula, gain): _BEFOREHAND.get((formula, gain), 0.0) for formula, gain in _named_rules()}
    # A gain that the weights themselves say has as much less to say as it was free.
    rules = dict.fromkeys(_common_gains(laws, fans, errors), -_EVIDENCE) | named
    offsets = {
        name: {
            rule: _offset(laws[name], fans[name].base(rule[0]) * rule[1], errors[name])
            for rule in rules
            if rule[0] in fans[name].formulas
        }
        for name in laws
    }
    found: dict[str, ParameterLaw] = {}
    left = set(laws)
    while left:
        evidence = dict(rules)
        for name in sorted(left):
            for rule, off in offsets[name].items():
                if off < _SIGMAS:
                    # What the coincidence says, less what the distance says against it.
                    said = math.log(_LOG_RANGE / (2.0 * _SIGMAS * errors[name])) - 0.5 * off**2
                    evidence[rule] += max(said, 0.0)
        best = max(evidence, key=lambda rule: evidence[rule])
        fitting = [name for name in sorted(left) if offsets[name].get(best, math.inf) < _SIGMAS]
        if not fitting or evidence[best] < _EVIDENCE:
            break
        for name in fitting:
            scale = fans[name].base(best[0]) * best[1]
            found[name] = replace(laws[name], std=scale, named=best in named)
        left -= set(fitting)
    return found


def _offset(law: ParameterLaw, scale: float, error: float) -> float:
    """How many sampling errors a scale is from that of the entries at hand."""
    drawn = law.mean == 0.0 and not law.zeros
    return abs(math.log(law.std / scale)) / error if drawn else math.inf


def _log_error(law: ParameterLaw, size: int) -> float:
    """Sampling error of the logarithm of a scale from so many entries."""
    return max(math.sqrt((_KURTOSIS[law.law] - 1.0) / (4.0 * max(size, 1))), 1e-6)


def _common_gains(
    laws: Mapping[str, ParameterLaw], fans: Mapping[str, _Fans], errors: Mapping[str, float]
) -> Iterator[_Rule]:
    """Formulas with gains that, within chance, several weights have in common.

    Of each formula groups form from the most exactly known weight on.
    """
    for formula in _FORMULAS:
        open_ = sorted((n for n in laws if formula in fans[n].formulas), key=lambda n: (errors[n], n))
        gains = {n: math.log(laws[n].std / fans[n].base(formula)) for n in open_}
        while open_:
            first = open_[0]
            group = [
                n
                for n in open_
                if abs(gains[n] - gains[first]) < _SIGMAS * math.hypot(errors[n], errors[first])
            ]
            open_ = [n for n in open_ if n not in group]
            if len(group) > 1:
                weights = [errors[n] ** -2 for n in group]
                gain = sum(w * gains[n] for w, n in zip(weights, group, strict=True)) / sum(weights)
                yield formula, math.exp(gain)
