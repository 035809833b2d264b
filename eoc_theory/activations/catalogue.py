"""The built-in activations. To add one, add a function here: its parameters, pieces and text.

Each entry returns the fields of an :class:`Activation` but for its name, with ``text`` (the same function in
the expression grammar, from which the SymPy form comes). ``torch`` names the ``torch.nn`` class of the same
function, whose constructor arguments and attributes have the names of the entry's parameters.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from ..base import checks
from ..base.boundary import public
from ..base.upward import upward
from ..errors import ActivationError, ArgumentError
from . import functions as f
from .core import Activation, Growth, Piece

Fields: TypeAlias = "dict[str, Any]"
BOUNDED = Growth("polynomial", degree=0.0)
ZERO, ONE, X = f.polynomial(0.0), f.polynomial(1.0), f.polynomial(0.0, 1.0)


@dataclass(frozen=True)
class Entry:
    """One built-in: canonical name, other names, factory with default parameters, torch.nn class."""

    name: str
    aliases: tuple[str, ...]
    make: Callable[..., Fields | Activation]
    torch: str | None

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter names and their defaults, in order."""
        return {name: p.default for name, p in inspect.signature(self.make).parameters.items()}


ENTRIES: dict[str, Entry] = {}
_BY_NAME: dict[str, Entry] = {}


Factory = TypeVar("Factory", bound=Callable[..., Any])


def _builtin(name: str, *aliases: str, torch: str | None = None) -> Callable[[Factory], Factory]:
    def register(make: Factory) -> Factory:
        entry = Entry(name, aliases, make, torch)
        ENTRIES[name] = entry
        for key in (name, *aliases, *([torch] if torch else [])):
            _BY_NAME[_key(key)] = entry
        return make

    return register


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


@public
def activation_names() -> tuple[str, ...]:
    """The names of the built-in activations, sorted."""
    return tuple(sorted(ENTRIES))


def find(name: str) -> Entry | None:
    """The entry called `name` (case, "_" and "-" do not matter), or None."""
    return _BY_NAME.get(_key(name))


def close_names(name: str) -> list[str]:
    """Built-in names that look like `name`, for an error message."""
    known = {_key(alias): alias for entry in ENTRIES.values() for alias in (entry.name, *entry.aliases)}
    return [known[key] for key in difflib.get_close_matches(_key(name), known, n=3, cutoff=0.6)]


def build(entry: Entry, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Activation:
    """The entry's activation for these parameters, made once for each set of values.

    Raises:
        ActivationError: a parameter is unknown, given twice or outside its range.
    """
    accepted = entry.parameters
    takes = f"{entry.name} takes " + (", ".join(f"{k}={v}" for k, v in accepted.items()) or "no parameters")
    if len(args) > len(accepted):
        raise ActivationError(f"{takes}; got {len(args)} values")
    values = dict(accepted)
    values.update(zip(accepted, args, strict=False))
    for key, value in (kwargs or {}).items():
        if key not in accepted:
            raise ActivationError(f"{takes}; got the parameter {key!r}")
        if key in list(accepted)[: len(args)]:
            raise ActivationError(f"{takes}; got {key} twice")
        values[key] = value
    return _build(entry.name, tuple(v if isinstance(v, str) else _number(k, v) for k, v in values.items()))


def _number(name: str, value: Any) -> float:
    try:
        return checks.finite(name, value) + 0.0  # -0.0 is 0.0
    except ArgumentError as error:
        raise ActivationError(str(error)) from None


@lru_cache(maxsize=1024)
def _build(name: str, values: tuple[Any, ...]) -> Activation:
    """The built-in activation with these values of its parameters."""
    entry = ENTRIES[name]
    try:
        fields = entry.make(*values)
    except ArgumentError as error:
        raise ActivationError(f"{name}: {error}") from None
    if isinstance(fields, Activation):
        return fields
    text = fields.pop("text")
    defaults = tuple(entry.parameters.values())
    shown = list(values)
    while shown and shown[-1] == defaults[len(shown) - 1]:
        shown.pop()
    parameters = ", ".join(v if isinstance(v, str) else _shortest(v) for v in shown)

    def expression() -> Any:
        return upward("Activation.expression")(text)

    if entry.torch is not None:
        fields.setdefault("torch_class", (entry.torch, dict(zip(entry.parameters, values, strict=True))))
    return Activation(name=f"{name}({parameters})" if shown else name, make_expression=expression, **fields)


def _shortest(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def text_of(entry: Entry, values: Sequence[float] = ()) -> str:
    """The entry's function in the expression grammar, for the given leading parameters."""
    parameters = list(entry.parameters.values())
    parameters[: len(values)] = values
    fields = entry.make(*parameters)
    if isinstance(fields, Activation):
        base, _, rest = fields.name.partition("(")
        inner = [float(v) for v in rest.rstrip(")").split(",") if v.strip()]
        return text_of(ENTRIES[base], inner)
    return fields["text"]


# --- straight pieces ---


def _half_lines(left: float, right: float) -> Fields:
    """left · x for x < 0, right · x for x > 0."""
    text = f"where(x > 0, {right!r}*x, {left!r}*x)"
    if left == right:
        return _polynomial(0.0, right)
    return dict(
        pieces=(f.polynomial(0.0, left), f.polynomial(0.0, right)),
        kinks=(0.0,),
        slopes=(left, right),
        parity="even" if left == -right else None,
        closed_form=("leaky", left, right),
        text=text,
    )


@_builtin("identity", "linear", torch="Identity")
def _identity() -> Fields:
    return _polynomial(0.0, 1.0)


@_builtin("relu", "rectifier", torch="ReLU")
def _relu() -> Fields:
    return _half_lines(0.0, 1.0) | dict(text="max(x, 0)")


@_builtin("leaky_relu", "lrelu", torch="LeakyReLU")
def _leaky_relu(negative_slope: float = 0.01) -> Fields:
    return _half_lines(negative_slope, 1.0)


@_builtin("prelu")
def _prelu(weight: float = 0.25) -> Activation:
    return build(ENTRIES["leaky_relu"], (weight,))


@_builtin("rrelu")
def _rrelu(lower: float = 1.0 / 8.0, upper: float = 1.0 / 3.0) -> Activation:
    # In evaluation mode torch's RReLU is the leaky ReLU of the mean slope; in training mode it is random.
    return build(ENTRIES["leaky_relu"], (0.5 * (lower + upper),))


@_builtin("abs", "absolute", "modulus")
def _abs() -> Fields:
    return _half_lines(-1.0, 1.0) | dict(text="abs(x)")


@_builtin("relu6", torch="ReLU6")
def _relu6() -> Fields:
    return _clip(0.0, 6.0)


@_builtin("hardtanh", "hard_tanh", "clip", torch="Hardtanh")
def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Fields:
    if not min_val < max_val:
        raise ArgumentError(f"min_val must be below max_val, got {min_val:g} and {max_val:g}")
    return _clip(min_val, max_val)


def _clip(low: float, high: float) -> Fields:
    return dict(
        pieces=(f.polynomial(low), X, f.polynomial(high)),
        kinks=(low, high),
        scale_points=(low, high),
        parity="odd" if low == -high else None,
        growth=BOUNDED,
        text=f"min(max(x, {low!r}), {high!r})",
    )


@_builtin("hardsigmoid", "hard_sigmoid", torch="Hardsigmoid")
def _hardsigmoid() -> Fields:
    return dict(
        pieces=(ZERO, f.polynomial(0.5, 1.0 / 6.0), ONE),
        kinks=(-3.0, 3.0),
        scale_points=(-3.0, 3.0),
        growth=BOUNDED,
        text="min(max(x/6 + 1/2, 0), 1)",
    )


@_builtin("hardswish", "hard_swish", "hardsilu", torch="Hardswish")
def _hardswish() -> Fields:
    return dict(
        pieces=(ZERO, f.polynomial(0.0, 0.5, 1.0 / 6.0), X),
        kinks=(-3.0, 3.0),
        scale_points=(-3.0, 0.0, 3.0),
        text="x*min(max(x + 3, 0), 6)/6",
    )


@_builtin("softshrink", "soft_shrink", torch="Softshrink")
def _softshrink(lambd: float = 0.5) -> Fields:
    if not checks.non_negative("lambd", lambd):
        return _polynomial(0.0, 1.0)
    return dict(
        pieces=(f.polynomial(lambd, 1.0), ZERO, f.polynomial(-lambd, 1.0)),
        kinks=(-lambd, lambd),
        scale_points=(-lambd, lambd),
        parity="odd",
        text=f"max(x - {lambd!r}, 0) + min(x + {lambd!r}, 0)",
    )


@_builtin("hardshrink", "hard_shrink", torch="Hardshrink")
def _hardshrink(lambd: float = 0.5) -> Fields:
    if not checks.non_negative("lambd", lambd):
        return _polynomial(0.0, 1.0)
    return dict(
        pieces=(X, ZERO, X),
        kinks=(-lambd, lambd),
        kink_values=(0.0, 0.0),
        scale_points=(-lambd, lambd),
        parity="odd",
        text=f"where(abs(x) > {lambd!r}, x, 0)",
    )


@_builtin("threshold", torch="Threshold")
def _threshold(threshold: float = 0.0, value: float = 0.0) -> Fields:
    if threshold == 0.0 and value == 0.0:
        return _half_lines(0.0, 1.0)
    return dict(
        pieces=(f.polynomial(value), X),
        kinks=(threshold,),
        scale_points=(threshold,),
        text=f"where(x > {threshold!r}, x, {value!r})",
    )


@_builtin("step", "heaviside")
def _step(left: float = 0.0, right: float = 1.0) -> Fields:
    middle = 0.5 * (left + right)
    if left == right:
        raise ArgumentError(f"left and right must differ, got {left:g} twice")
    return dict(
        pieces=(f.polynomial(left), f.polynomial(right)),
        kinks=(0.0,),
        kink_values=(middle,),
        growth=BOUNDED,
        parity="odd" if left == -right else None,
        closed_form=("step", left, right),
        text=f"{left!r} + {right - left!r}*heaviside(x)",
    )


@_builtin("sign", "sgn")
def _sign() -> Fields:
    return _step(-1.0, 1.0) | dict(text="sign(x)")


# --- polynomials ---


def _polynomial(*coefficients: float) -> Fields:
    odd, even = not any(coefficients[::2]), not any(coefficients[1::2])
    degree = len(coefficients) - 1
    terms = [f"{c!r}*x**{k}" for k, c in enumerate(coefficients) if c]
    return dict(
        pieces=(f.polynomial(*coefficients),),
        growth=Growth("polynomial", degree=float(degree)),
        parity="odd" if odd else "even" if even else None,
        slopes=(coefficients[1], coefficients[1]) if degree == 1 and coefficients[0] == 0 else None,
        closed_form=("polynomial", *coefficients),
        text="x" if coefficients == (0.0, 1.0) else " + ".join(terms),
    )


@_builtin("square")
def _square() -> Fields:
    return _polynomial(0.0, 0.0, 1.0) | dict(text="x**2")


@_builtin("cube", "cubic")
def _cube() -> Fields:
    return _polynomial(0.0, 0.0, 0.0, 1.0) | dict(text="x**3")


@_builtin("monomial", "power")
def _monomial(degree: float = 2.0) -> Fields:
    degree = checks.integer("degree", degree, 1)
    if degree > 32:
        raise ArgumentError(f"degree must be a whole number from 1 to 32, got {degree}")
    return _polynomial(*([0.0] * degree), 1.0) | dict(text=f"x**{degree}")


# --- sigmoids ---


@_builtin("tanh", torch="Tanh")
def _tanh() -> Fields:
    return dict(pieces=(f.TANH,), parity="odd", growth=BOUNDED, text="tanh(x)")


@_builtin("sigmoid", "logistic", "expit", torch="Sigmoid")
def _sigmoid() -> Fields:
    return dict(pieces=(f.LOGISTIC,), growth=BOUNDED, length_scale=2.0, text="1/(1 + exp(-x))")


@_builtin("log_sigmoid", torch="LogSigmoid")
def _log_sigmoid() -> Fields:
    return dict(pieces=(f.LOG_LOGISTIC,), length_scale=2.0, text="-log(1 + exp(-x))")


@_builtin("softsign", torch="Softsign")
def _softsign() -> Fields:
    return dict(
        pieces=(f.SOFTSIGN_LEFT, f.SOFTSIGN_RIGHT),
        kinks=(0.0,),
        parity="odd",
        growth=BOUNDED,
        text="x/(1 + abs(x))",
    )


@_builtin("erf")
def _erf(scale: float = 1.0) -> Fields:
    scale = checks.positive("scale", scale)
    return dict(
        pieces=(f.scaled(f.ERF, scale),),
        parity="odd",
        growth=BOUNDED,
        length_scale=1.0 / scale,
        closed_form=("erf", scale),
        text=f"erf({scale!r}*x)" if scale != 1.0 else "erf(x)",
    )


@_builtin("atan", "arctan")
def _atan() -> Fields:
    return dict(pieces=(f.ATAN,), parity="odd", growth=BOUNDED, text="atan(x)")


@_builtin("asinh", "arcsinh")
def _asinh() -> Fields:
    return dict(pieces=(f.ASINH,), parity="odd", text="asinh(x)")


@_builtin("tanhshrink", "tanh_shrink", torch="Tanhshrink")
def _tanhshrink() -> Fields:
    return dict(pieces=(f.TANH_SHRINK,), parity="odd", text="x - tanh(x)")


# --- smooth and partly smooth rectifiers ---


def _exponential_left(alpha: float, inner: float, scale: float, text: str) -> Fields:
    """scale · x for x > 0, scale · alpha · (exp(inner x) − 1) for x < 0."""
    return dict(
        pieces=(f.scaled(f.EXPM1, inner, scale * alpha), f.polynomial(0.0, scale)),
        kinks=(0.0,),
        length_scale=1.0 / inner,
        text=text,
    )


@_builtin("elu", torch="ELU")
def _elu(alpha: float = 1.0) -> Fields:
    return _exponential_left(alpha, 1.0, 1.0, f"where(x > 0, x, {alpha!r}*(exp(x) - 1))")


@_builtin("celu", torch="CELU")
def _celu(alpha: float = 1.0) -> Fields:
    alpha = checks.positive("alpha", alpha)
    return _exponential_left(alpha, 1.0 / alpha, 1.0, f"where(x > 0, x, {alpha!r}*(exp(x/{alpha!r}) - 1))")


@_builtin("selu", torch="SELU")
def _selu() -> Fields:
    # Klambauer et al. 2017, constants as in torch.
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _exponential_left(alpha, 1.0, scale, f"{scale!r}*where(x > 0, x, {alpha!r}*(exp(x) - 1))")


@_builtin("gelu", torch="GELU")
def _gelu(approximate: str = "none") -> Fields | Activation:
    if checks.one_of("approximate", approximate, ("none", "tanh")) == "tanh":
        return build(ENTRIES["gelu_tanh"])
    return dict(pieces=(f.GELU,), closed_form=("gelu",), text="x*(1 + erf(x/sqrt(2)))/2")


@_builtin("gelu_tanh", "gelu_new", "gelu_fast")
def _gelu_tanh() -> Fields:
    return dict(
        pieces=(f.GELU_TANH,),
        torch_class=("GELU", {"approximate": "tanh"}),
        text="x/2*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))",
    )


@_builtin("silu", "swish", torch="SiLU")
def _silu(beta: float = 1.0) -> Fields:
    beta = checks.positive("beta", beta)

    return dict(
        pieces=(f.scaled(f.SILU, beta, 1.0 / beta),),
        length_scale=2.0 / beta,
        torch_class=("SiLU", {}) if beta == 1.0 else None,
        text=f"x/(1 + exp(-{beta!r}*x))",
    )


@_builtin("mish", torch="Mish")
def _mish() -> Fields:
    return dict(pieces=(f.MISH,), text="x*tanh(log(1 + exp(x)))")


@_builtin("softplus", torch="Softplus")
def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Fields:
    beta = checks.positive("beta", beta)
    smooth = f.scaled(f.SOFTPLUS, beta, 1.0 / beta)
    fields = dict(pieces=(smooth,), length_scale=2.0 / beta, text=f"log(1 + exp({beta!r}*x))/{beta!r}")
    # torch returns x itself where βx > threshold, to save exp from overflow. From 15 on that drops less than
    # float32 keeps of x (exp(−15) < 15 · 2⁻²³), so the smooth function is meant; a lower threshold is taken
    # at its word.
    if threshold >= 15.0:
        return fields
    kink = threshold / beta
    return fields | dict(
        pieces=(smooth, X),
        kinks=(kink,),
        scale_points=tuple(sorted({0.0, kink})),
        text=f"where(x > {kink!r}, x, {fields['text']})",
    )


@_builtin("bent_identity", "bent")
def _bent_identity() -> Fields:
    return dict(pieces=(f.BENT_IDENTITY,), text="(sqrt(x**2 + 1) - 1)/2 + x")


# --- waves and exponentials ---


@_builtin("sin", "sine")
def _sin(frequency: float = 1.0) -> Fields:
    return _wave(f.SIN, "sin", checks.positive("frequency", frequency)) | dict(parity="odd")


@_builtin("cos", "cosine")
def _cos(frequency: float = 1.0) -> Fields:
    return _wave(f.COS, "cos", checks.positive("frequency", frequency)) | dict(parity="even")


def _wave(piece: Piece, name: str, frequency: float) -> Fields:
    return dict(
        pieces=(f.scaled(piece, frequency),),
        growth=BOUNDED,
        length_scale=1.0 / frequency,
        oscillation=frequency,
        closed_form=(name, frequency),
        text=f"{name}({frequency!r}*x)" if frequency != 1.0 else f"{name}(x)",
    )


@_builtin("snake")
def _snake(a: float = 1.0) -> Fields:
    # Ziyin, Hartwig & Ueda 2020: x + sin²(ax)/a.
    a = checks.positive("a", a)
    return dict(
        pieces=(f.scaled(f.SNAKE, a, 1.0 / a),),
        length_scale=1.0 / a,
        oscillation=2.0 * a,
        text=f"x + sin({a!r}*x)**2/{a!r}",
    )


@_builtin("exp", "exponential")
def _exp(rate: float = 1.0) -> Fields:
    if rate == 0.0:
        raise ArgumentError("rate must be a number other than 0, got 0")
    return dict(
        pieces=(f.scaled(f.EXP, rate),),
        growth=Growth("exponential", rate=abs(rate)),
        length_scale=1.0 / abs(rate),
        closed_form=("exp", rate),
        text=f"exp({rate!r}*x)" if rate != 1.0 else "exp(x)",
    )
