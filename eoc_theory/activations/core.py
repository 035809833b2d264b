"""What an activation function is to the theory: smooth pieces between kinks, and how it behaves far out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..base import checks
from ..base.boundary import public
from ..base.upward import upward
from ..errors import ActivationError, MissingDependencyError
from ..errors.text import printable

if TYPE_CHECKING:
    import sympy
    import torch

Array: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Array]
Piece: TypeAlias = tuple[Function, Function, Function, Function]
"""A smooth function and its first three derivatives. It is called on its own closed interval only."""

HIGHEST_ORDER = 3


@dataclass(frozen=True)
class Growth:
    """A bound on |φ(x)| for large |x|.

    ``polynomial``: |φ| ≲ |x|^degree; ``exponential``: |φ| ≲ exp(rate |x|); ``gaussian``: |φ| ~ exp(rate x²),
    whose E[φ(√q Z)²] diverges for 4 · rate · q ≥ 1 (rate = inf: for every q > 0).
    """

    kind: Literal["polynomial", "exponential", "gaussian"]
    degree: float = 0.0
    rate: float = 0.0


#: Numbers up to which nobody asks for the memory that their values take.
_MANY = 1_000_000


@public
@dataclass(frozen=True, eq=False, repr=False)
class Activation:
    """An activation function φ: R → R with derivatives up to order 3, made by :func:`eoc_theory.activation`.

    Compared and hashed by identity; the built-in ones and expressions are made once, so equal specifications
    give the same object.

    Attributes:
        name: canonical name, e.g. ``"tanh"`` or ``"leaky_relu(0.1)"``.
        pieces: one tuple (φ, φ', φ'', φ''') for each interval between kinks, left to right.
        kinks: sorted points where φ or one of its first three derivatives jumps.
        kink_values: φ at each kink where that is not the left piece's value there; None: left everywhere.
        scale_points: centres of the function's structure, around which quadrature panels are graded.
        length_scale: width of the smooth structure around the centres, in units of x (tanh: 1).
        oscillation: largest angular frequency that persists to |x| → ∞ (sin: 1; most: 0).
        growth: bound for large |x|.
        slopes: (left, right) for positively homogeneous φ(x) = slope · x on each half line, otherwise None.
        parity: "odd", "even" or None.
        closed_form: family and parameters for which Gaussian expectations are known: ("leaky", a_left,
            a_right),
            ("erf", scale), ("gelu",), ("sin", w), ("cos", w), ("exp", rate), ("polynomial", c_0, c_1, …) or
            ("step", left, right); None elsewhere.
        errors: estimated relative error of the derivatives of order 0..3 (zeros where they are exact).
        uncertainty: estimated absolute error of the derivative of an order at given points, where derivatives
            are numerical; None where they are formulas.
    """

    name: str
    pieces: tuple[Piece, ...]
    kinks: tuple[float, ...] = ()
    kink_values: tuple[float, ...] | None = None
    scale_points: tuple[float, ...] = (0.0,)
    length_scale: float = 1.0
    oscillation: float = 0.0
    growth: Growth = field(default_factory=lambda: Growth("polynomial", degree=1.0))
    slopes: tuple[float, float] | None = None
    parity: Literal["odd", "even"] | None = None
    closed_form: tuple[Any, ...] | None = None
    errors: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    uncertainty: Callable[[int, Array], Array] | None = None
    make_expression: Callable[[], Any] | None = None
    make_torch: Callable[[], Any] | None = None
    torch_class: tuple[str, dict[str, Any]] | None = None
    source: Any = None

    def __post_init__(self) -> None:
        # A callable may be called anything.
        object.__setattr__(self, "name", printable(checks.text("name", self.name)))
        for name in ("pieces", "kinks"):
            if not isinstance(getattr(self, name), tuple):
                raise ActivationError(f"{name} must be a tuple, got {checks.shown(getattr(self, name))}")
        if len(self.pieces) != len(self.kinks) + 1:
            raise ActivationError(f"{self.name}: {len(self.kinks)} kinks need {len(self.kinks) + 1} pieces")

    def __repr__(self) -> str:
        return f"Activation({self.name if len(self.name) <= 60 else self.name[:57] + '...'})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The pieces are closures; what made the activation travels instead, and is looked up on the other
        # side.
        return upward("Activation.__reduce__"), (self.name if self.source is None else self.source,)

    def __call__(self, x: ArrayLike) -> Array:
        """φ(x), of x's shape, in float64."""
        return self._evaluate(0, x)

    def derivative(self, order: int = 1) -> Function:
        """The derivative of the given order (0 to 3) almost everywhere, as a vectorised function.

        Point masses that kinks make are left out: they are in :meth:`jumps`. At a kink itself the left piece
        counts.
        """
        order = self._order(order)

        def derivative(x: ArrayLike) -> Array:
            return self._evaluate(order, x)

        return derivative

    def jumps(self, order: int = 1) -> Array:
        """φ^(order)(k+) − φ^(order)(k−) at each kink k, shape (number of kinks,)."""
        order = self._order(order)
        jumps = np.empty(len(self.kinks))
        for i, kink in enumerate(self.kinks):
            at = np.array([kink])
            left, right = float(self.pieces[i][order](at)[0]), float(self.pieces[i + 1][order](at)[0])
            # Both sides carry rounding errors; what is below them is no jump.
            exact = abs(right - left) > 64 * np.finfo(float).eps * max(abs(left), abs(right))
            significant = abs(right - left) > 8 * self.errors[order] * max(abs(left), abs(right), 1.0)
            jumps[i] = right - left if exact and significant else 0.0
            if jumps[i] and order < HIGHEST_ORDER:
                # A kink's place is a float: a steep function changes by that much over its rounding.
                steep = max(abs(float(self.pieces[j][order + 1](at)[0])) for j in (i, i + 1))
                if abs(jumps[i]) <= 16 * np.finfo(float).eps * max(abs(kink), 1e-3) * steep:
                    jumps[i] = 0.0
            if not np.isfinite(left) or not np.isfinite(right):
                jumps[i] = np.inf  # possible in the third derivative alone, e.g. of |x|^2.5
        return jumps

    def derivative_error(self, order: int = 1) -> float:
        """Estimated error of :meth:`derivative` relative to its largest value; 0 where it is exact."""
        return self.errors[self._order(order)]

    @property
    def is_homogeneous(self) -> bool:
        """Whether φ(λx) = λφ(x) for every λ > 0."""
        return self.slopes is not None

    @cached_property
    def expression(self) -> sympy.Expr | None:
        """The function as a SymPy expression in ``Symbol("x", real=True)``, or None where there is none."""
        return None if self.make_expression is None else self.make_expression()

    def to_torch(self) -> torch.nn.Module:
        """A new ``torch.nn.Module`` that computes φ, twice differentiable.

        Raises:
            MissingDependencyError: torch is not installed.
        """
        try:
            to_torch = upward("Activation.to_torch")
        except ImportError:
            raise MissingDependencyError("to_torch needs torch: pip install 'eoc-theory[torch]'") from None
        return to_torch(self)

    def _order(self, order: int) -> int:
        number = checks.integer("order", order, 0)
        if number > HIGHEST_ORDER:
            raise ActivationError(f"order must be 0 to {HIGHEST_ORDER}, got {number}")
        return number

    def _evaluate(self, order: int, x: ArrayLike) -> Array:
        x = checks.floats_of("x", x)
        if x.size > _MANY:
            checks.memory(f"x with {x.size} numbers", 24.0 * x.size, "fewer numbers at a time")
        # A value beyond the largest float is inf, as it should be; warnings for it help nobody.
        with np.errstate(all="ignore"):
            if not self.kinks:
                return self.pieces[0][order](x)
            ends = (*self.kinks, np.inf)
            # Each piece sees its own interval only, so that none overflows where another one counts.
            result = self.pieces[0][order](np.minimum(x, ends[0]))
            for i, piece in enumerate(self.pieces[1:]):
                result = np.where(x > ends[i], piece[order](np.clip(x, ends[i], ends[i + 1])), result)
            if order == 0 and self.kink_values is not None:
                for kink, value in zip(self.kinks, self.kink_values, strict=True):
                    result = np.where(x == kink, value, result)
            return np.where(np.isnan(x), x, result)[()]
