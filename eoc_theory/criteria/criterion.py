"""What a pruning criterion is, and the register of them all.

A criterion gives every weight of a network a score; pruning keeps the largest. One object serves theory,
sampled networks and measurement alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ..base import checks
from ..base.boundary import public
from ..errors import ArgumentError, CallbackError, EOCError
from .distributions.densities import Densities, Extents
from .distributions.independent import ScoreLaw

Array = np.ndarray

#: What a score is computed from: nothing (chance alone), the weight W, the gradient g of the loss by it, the
#: product of the loss's Hessian and g, or the derivative ∂R/∂|W| of SynFlow's positive network.
Needs = Literal["nothing", "weights", "gradient", "hessian_gradient", "paths"]

#: Rounds of a criterion, at most.
MOST_ROUNDS = 10_000
_SPEC = re.compile(r"\s*([A-Za-z][\w-]*)(?:\s*\(([^()]*)\))?\s*")
_NAME = re.compile(r"[A-Za-z][\w-]{0,39}")


class HasScore(Protocol):
    """The least that makes a criterion; every other attribute of `Criterion` has a default."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> str:
        """See `Needs`."""
        ...

    def score(self, weight: Any, derivative: Any) -> Any:
        """Scores of a layer's weights, of their shape."""
        ...


class Criterion:
    """A pruning criterion. Its options are the fields of a subclass that is a frozen dataclass.

    What a class says of its scores (`is_product`, `proportional`, `has_kernel_law`, `law`) counts for those
    alone: a subclass that overrides `score`, or what scores are computed from, is followed by its `score`.

    Attributes:
        name: what it is called.
        needs: what `derivative` is; see `Needs`.
        signed: whether scores have signs, the negative ones ranking lowest.
        regrows: whether a weight that one round removed may come back in a later one.
        is_product: whether the score is ±W times the derivative, in size unless `signed`. Then it is computed
            in the range of floats' exponents and beyond.
        proportional: whether the score is proportional to the derivative, whose unit does not matter then.
        rounds: rounds of pruning, the density falling by the same factor in each.
        temperature: what divides the logits before the loss is computed.
    """

    name: str = ""
    needs: Needs = "gradient"
    signed: bool = False
    regrows: bool = False
    is_product: bool = False
    proportional: bool = False
    rounds: int = 1
    temperature: float = 1.0

    @property
    def has_kernel_law(self) -> bool:
        """Whether the scores of fully connected chains follow from their kernels alone."""
        return False

    @property
    def label(self) -> str:
        """The name, and numbers among the options that are not the default ones: ``criterion(label)`` is the
        same again."""
        options_of = fields(self) if is_dataclass(self) else ()
        own = [f for f in options_of if f.default is MISSING or getattr(self, f.name) != f.default]
        numbers = {f.name: getattr(self, f.name) for f in own}
        options = ", ".join(f"{key}={x:g}" for key, x in numbers.items() if isinstance(x, (int, float)))
        return f"{self.name}({options})" if options else self.name

    @property
    def passes(self) -> int:
        """What scores cost, in passes forwards and backwards.

        Hess·g takes a second backward pass, in double precision as a rule.
        """
        return {"gradient": 1, "hessian_gradient": 4}.get(self.needs, 0)

    @property
    def needs_data(self) -> bool:
        """Whether scores depend on inputs and targets."""
        return self.needs in ("gradient", "hessian_gradient")

    @property
    def ranks(self) -> bool:
        """Whether one ranking of scores that mean something decides: no chance, and no rounds."""
        return self.needs != "nothing" and self.rounds == 1

    @property
    def any_scale(self) -> bool:
        """Whether no layer's weight scale changes the ranking."""
        return self.needs in ("nothing", "paths")

    def unpredicted(self) -> ArgumentError:
        """The error of a prediction that there is none of."""
        return ArgumentError(
            f"criterion {self.label!r} is measured and not predicted: it needs {self.needs!r}, and gives no "
            "law of its scores"
        )

    def score(self, weight: Any, derivative: Any) -> Any:
        """Scores of a layer's weights; the largest of the network are kept.

        Args:
            weight: the weights, a NumPy array or torch tensor; not to be changed.
            derivative: what `needs` says, of the same kind and shape; None for "weights".
        """
        raise NotImplementedError

    def law(self, net: Any) -> ScoreLaw | None:
        """The distribution of the scores where it has a closed form; None: it is sampled."""
        return None

    def densities(self, shapes: Sequence[Extents]) -> Densities | None:
        """How layers of weights of these shapes share what is kept, where the criterion fixes that."""
        return None

    def chance_scores(self, shapes: Sequence[Extents], rng: np.random.Generator) -> Iterator[Array]:
        """Scores of a criterion that needs "nothing", of each layer's shape in turn."""
        fixed = self.densities(shapes)
        assert fixed is not None
        for shape, scores in zip(shapes, fixed.scores(rng), strict=True):
            yield scores.reshape(shape)


#: The built-in criteria.
CriterionName = Literal[
    "erk",
    "force",
    "grasp",
    "magnitude",
    "random",
    "smart-ratio",
    "snip",
    "synflow",
    "synflow-oneshot",
    "uniform",
]
#: What is taken for a criterion: a name, a name with options, or an object.
CriterionLike = CriterionName | str | Criterion | HasScore


#: What decides a criterion's scores, beside its options.
_SCORED_BY = frozenset({"score", "needs", "signed", "temperature", "regrows"})
#: What a class says of scores, which holds as long as no subclass changes these others.
_CLAIMS: dict[str, frozenset[str]] = {
    "is_product": frozenset({"score", "needs", "signed"}),
    "proportional": frozenset({"score"}),
    "has_kernel_law": _SCORED_BY,
    "law": _SCORED_BY | {"densities", "chance_scores"},
    "densities": _SCORED_BY | {"chance_scores"},
    "chance_scores": _SCORED_BY | {"densities"},
}


def _overridden(given: Criterion) -> str:
    """What a subclass, or the object itself, changes that something it inherits says nothing of; or ""."""
    order = type(given).__mro__
    options = {f.name for f in fields(given)} if is_dataclass(given) else set()

    def level(name: str) -> int:
        found = next(at for at, kind in enumerate(order) if name in vars(kind))
        unset = name not in options or order[found] is Criterion
        return -1 if unset and name in vars(given) else found

    levels = {name: level(name) for name in {*_SCORED_BY, *_CLAIMS}}
    for claim, depends in _CLAIMS.items():
        if levels[claim] < order.index(Criterion):
            for name in sorted(depends):
                if levels[name] < levels[claim]:
                    return name
    return ""


def _own(given: Criterion) -> Criterion:
    """A criterion of a user's class; adapted where what it inherits is not said of its own scores."""
    changed = _overridden(given)
    kinds = type(given).__mro__
    base = next((kind for kind in kinds if kind in _REGISTER.values()), Criterion)
    if changed and given.needs == "nothing":
        raise ArgumentError(
            f"criterion {given.name!r} overrides {changed}, of which {base.__name__} knows nothing: it must "
            "be derived from Criterion, or have law, densities and chance_scores too"
        )
    if not changed and (base is not Criterion or given.needs == "nothing"):
        if given.name != base.name:
            _check_free(given.name)
        return given
    checked = Adapted(given)
    return checked if changed else given


def _check_free(name: str) -> None:
    """Refuse the name of a built-in criterion, of which errors are stated."""
    if name in criterion_names():
        raise ArgumentError(f"criterion.name must not be that of a built-in criterion, got {name!r}")


@dataclass(frozen=True, eq=False)
class Adapted(Criterion):
    """A user's object as a `Criterion`: what it leaves out has its default; scores are checked."""

    given: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapted) and other.given is self.given

    def __hash__(self) -> int:
        return id(self.given)

    def __post_init__(self) -> None:
        given = self.given
        name, needs = getattr(given, "name", None), getattr(given, "needs", None)
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ArgumentError(f"criterion.name must be a word, got {checks.shown(name)}")
        _check_free(name)
        checks.one_of("criterion.needs", needs, get_args(Needs))
        if needs == "nothing":
            raise ArgumentError(
                "criterion.needs must be 'weights', 'gradient', 'hessian_gradient' or 'paths' for an object, "
                "got 'nothing'"
            )
        if not callable(getattr(given, "score", None)):
            raise ArgumentError(f"criterion {name!r} must have a method score(weight, derivative)")
        rounds = checks.integer("criterion.rounds", getattr(given, "rounds", 1), 1, MOST_ROUNDS)
        if rounds > 1 and needs in ("weights", "paths"):
            raise ArgumentError(
                f"criterion.rounds must be 1 where criterion.needs is {needs!r}, got {rounds}"
            )
        temperature = checks.positive("criterion.temperature", getattr(given, "temperature", 1.0))
        values = {"name": name, "needs": needs, "rounds": rounds, "temperature": temperature}
        for flag in ("signed", "regrows"):
            values[flag] = checks.flag(f"criterion.{flag}", getattr(given, flag, False))
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def label(self) -> str:
        return self.given.label if isinstance(self.given, Criterion) else self.name

    def score(self, weight: Any, derivative: Any) -> Any:
        try:
            found = self.given.score(weight, derivative)
        except EOCError:
            raise
        except Exception as error:
            raise CallbackError(f"criterion {self.name!r}: score failed ({checks.said(error)})") from error
        if tuple(getattr(found, "shape", ())) != tuple(weight.shape):
            raise ArgumentError(
                f"criterion {self.name!r}: score must return an array of the weights' shape "
                f"{tuple(weight.shape)}, got {checks.shown(getattr(found, 'shape', found))}"
            )
        return found


_REGISTER: dict[str, Callable[..., Criterion]] = {}


def register(kind: type[Criterion]) -> type[Criterion]:
    """Decorator of the built-in criteria: the class becomes known under its name."""
    _REGISTER[kind.name] = kind
    return kind


@public
def register_criterion(criterion: Any) -> Any:
    """Make a criterion known by its name, to `criterion` and to every function that takes one.

    Args:
        criterion: an object with `name`, `needs` and ``score(weight, derivative)``; `signed`, `rounds`,
            `regrows` and `temperature` where they are not 1 or False (see `Criterion`). A class is
            instantiated without arguments, so that this serves as its decorator.

    Returns:
        What came.

    Raises:
        ArgumentError: it is no criterion, or its name is that of another one.
    """
    given = checks.call("criterion", criterion) if isinstance(criterion, type) else criterion
    made = _own(given) if isinstance(given, Criterion) else Adapted(given)
    if not _NAME.fullmatch(made.name):
        raise ArgumentError(f"criterion.name must be a word, got {checks.shown(made.name)}")
    _check_free(made.name)
    _REGISTER[made.name] = _Given(made)
    return criterion


@dataclass(frozen=True)
class _Given:
    """Makes the one instance of a criterion that a user registered."""

    instance: Criterion

    def __call__(self, **options: Any) -> Criterion:
        if options:
            raise ArgumentError(
                f"criterion {self.instance.name!r} takes no options, got {', '.join(options)}"
            )
        return self.instance


def criterion_names() -> tuple[str, ...]:
    """Names of the built-in criteria."""
    return tuple(name for name, make in _REGISTER.items() if not isinstance(make, _Given))


@public
def criterion(spec: Any, **options: Any) -> Criterion:
    """A pruning criterion.

    Args:
        spec: a name ("snip"), a name with options ("grasp(temperature=200)"), or an object: a `Criterion`, or
            one with `name`, `needs` and ``score(weight, derivative)``.
        options: of a criterion given by name, e.g. ``rounds=100``.

    Raises:
        ArgumentError: no such criterion, or no such option.
    """
    if isinstance(spec, str):
        return _by_name(spec, options)
    if options:
        raise ArgumentError(f"options are given with a name only, got {', '.join(options)}")
    if isinstance(spec, Criterion):
        return spec if isinstance(spec, Adapted) else _own(spec)
    if not isinstance(spec, type) and hasattr(spec, "score") and hasattr(spec, "needs"):
        return Adapted(spec)
    known = ", ".join(map(repr, _REGISTER))
    raise ArgumentError(
        f"criterion must be one of {known}, or an object with a score, got {checks.shown(spec)}"
    )


def _by_name(spec: str, options: dict[str, Any]) -> Criterion:
    match = _SPEC.fullmatch(spec)
    name = match[1] if match else spec
    if match is None or name not in _REGISTER:
        checks.one_of("criterion", spec, tuple(_REGISTER))
    assert match is not None
    given = {**_options(name, match[2] or ""), **options}
    make = _REGISTER[name]
    try:
        return make(**given)
    except TypeError:
        known = [f.name for f in fields(make)] if isinstance(make, type) else []  # type: ignore[arg-type]
        wrong = ", ".join(sorted(set(given) - set(known))) or ", ".join(given)
        accepted = f"takes {', '.join(known)}" if known else "takes no options"
        raise ArgumentError(f"criterion {name!r} {accepted}, got {wrong}") from None


def _options(name: str, text: str) -> dict[str, float]:
    """Options from "temperature=200"."""
    found: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        key, equals, value = (word.strip() for word in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not key.isidentifier() or not np.isfinite(number):
            raise ArgumentError(f"criterion {name!r}: options must be name=number, got {checks.shown(part)}")
        found[key] = int(number) if number == int(number) else number
    return found


def checked_rounds(name: str, rounds: Any) -> int:
    """The option `rounds` of a criterion."""
    return checks.integer(f"rounds of criterion {name!r}", rounds, minimum=1, maximum=MOST_ROUNDS)
