"""The shared problem list: activations × variances with values by mpmath at 30 digits, independent of the
library.

Every function is written down here a second time, as SymPy expressions between breakpoints, differentiated
by SymPy and integrated by mpmath with Gauss–Legendre (or, where it oscillates fast, trapezoidal) rules of 50
digits. The values are kept in data/gaussian_oracle.json; ``python -m tests.problems`` computes them again
(about five minutes).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "gaussian_oracle.json"
VARIANCES = (1e-12, 1e-6, 1e-2, 0.51, 1.0, 30.0, 1e3, 1e6)
MOMENTS = ("phi", "phi2", "dphi2", "ddphi2", "slope")
SIGMA_B = (0.05, 0.2, 1.0)
DIGITS = 50
SELU = (1.6732632423543772, 1.0507009873554805)


@dataclass(frozen=True)
class Problem:
    """One activation: its specification and its definition between breakpoints.

    Attributes:
        spec: what :func:`eoc_theory.activation` is given.
        pieces: expressions in x, one for each interval between the breakpoints.
        breaks: where the pieces meet.
        width: length over which the function changes.
        frequency: angular frequency of its lasting oscillation.
        reach: how far beyond 14 standard deviations the integral must go, in standard deviations, per √q.
    """

    spec: str
    pieces: tuple[str, ...]
    breaks: tuple[float, ...] = ()
    width: float = 1.0
    frequency: float = 0.0
    reach: float = 0.0

    @property
    def variances(self) -> tuple[float, ...]:
        """The variances at which second moments are within the range of floats."""
        return tuple(q for q in VARIANCES if self.reach == 0.0 or q <= 30.0)


PROBLEMS = (
    Problem("identity", ("x",)),
    Problem("relu", ("0", "x"), (0.0,)),
    Problem("leaky_relu(0.1)", ("x*Rational(1, 10)", "x"), (0.0,)),
    Problem("abs", ("-x", "x"), (0.0,)),
    Problem("relu6", ("0", "x", "6"), (0.0, 6.0)),
    Problem("hardtanh", ("-1", "x", "1"), (-1.0, 1.0)),
    Problem("hardsigmoid", ("0", "x/6 + Rational(1, 2)", "1"), (-3.0, 3.0)),
    Problem("hardswish", ("0", "x*(x + 3)/6", "x"), (-3.0, 3.0)),
    Problem("softshrink", ("x + Rational(1, 2)", "0", "x - Rational(1, 2)"), (-0.5, 0.5)),
    Problem("hardshrink", ("x", "0", "x"), (-0.5, 0.5)),
    Problem("threshold(0.5, 2)", ("2", "x"), (0.5,)),
    Problem("step", ("0", "1"), (0.0,)),
    Problem("sign", ("-1", "1"), (0.0,)),
    Problem("square", ("x**2",)),
    Problem("cube", ("x**3",)),
    Problem("monomial(5)", ("x**5",)),
    Problem("tanh", ("tanh(x)",)),
    Problem("sigmoid", ("1/(1 + exp(-x))",)),
    Problem("log_sigmoid", ("-log(1 + exp(-x))",)),
    Problem("softsign", ("x/(1 - x)", "x/(1 + x)"), (0.0,)),
    Problem("erf", ("erf(x)",)),
    Problem("atan", ("atan(x)",)),
    Problem("asinh", ("asinh(x)",)),
    Problem("tanhshrink", ("x - tanh(x)",)),
    Problem("elu", ("exp(x) - 1", "x"), (0.0,)),
    Problem("elu(0.5)", ("(exp(x) - 1)/2", "x"), (0.0,)),
    Problem("celu(2)", ("2*(exp(x/2) - 1)", "x"), (0.0,)),
    Problem("selu", (f"{SELU[1]!r}*{SELU[0]!r}*(exp(x) - 1)", f"{SELU[1]!r}*x"), (0.0,)),
    Problem("gelu", ("x*(1 + erf(x/sqrt(2)))/2",)),
    Problem("gelu_tanh", ("x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))/2",), width=0.5),
    Problem("silu", ("x/(1 + exp(-x))",)),
    Problem("mish", ("x*tanh(log(1 + exp(x)))",)),
    Problem("softplus", ("log(1 + exp(x))",)),
    Problem("softplus(5)", ("log(1 + exp(5*x))/5",), width=0.2),
    Problem("bent_identity", ("(sqrt(x**2 + 1) - 1)/2 + x",)),
    Problem("sin", ("sin(x)",), frequency=1.0),
    Problem("cos", ("cos(x)",), frequency=1.0),
    Problem("snake(3)", ("x + sin(3*x)**2/3",), frequency=6.0, width=0.3),
    Problem("exp", ("exp(x)",), reach=2.0),
)


def oracle() -> dict[str, Any]:
    """The stored values: {"moments": {spec: {q: {moment: float}}}, "critical": {spec: {sigma_b: {…}}}}."""
    return json.loads(DATA.read_text(), parse_float=float)


def moment_cases() -> list[tuple[str, float, str, float]]:
    """(spec, q, moment, value) for everything stored."""
    stored = oracle()["moments"]
    return [
        (spec, float(q), name, float(value))
        for spec, rows in stored.items()
        for q, row in rows.items()
        for name, value in row.items()
    ]


def critical_cases() -> list[tuple[str, float, float, float]]:
    """(spec, sigma_b, sigma_w, q) on the edge of chaos for everything stored."""
    stored = oracle()["critical"]
    return [
        (spec, float(sigma_b), float(row["sigma_w"]), float(row["q"]))
        for spec, rows in stored.items()
        for sigma_b, row in rows.items()
    ]


# --- computing the values
# -------------------------------------------------------------------------------------


class HighPrecision:
    """Integrals of one problem's functions against the density of √q Z at DIGITS digits."""

    def __init__(self, problem: Problem) -> None:
        import mpmath
        import sympy

        mpmath.mp.dps = DIGITS
        self.mp = mpmath.mp
        self.problem = problem
        x = sympy.Symbol("x", real=True)
        self.functions: list[list[Callable[[Any], Any]]] = []
        for text in problem.pieces:
            # Decimal numbers mean the float that the library is given.
            expression = sympy.sympify(text, locals={"x": x})
            expression = expression.xreplace(
                {f: sympy.Rational(float(f)) for f in expression.atoms(sympy.Float)}
            )
            self.functions.append(
                [sympy.lambdify(x, sympy.diff(expression, x, k), "mpmath") for k in range(3)]
            )
        from mpmath.calculus.quadrature import GaussLegendre

        self.nodes = GaussLegendre(mpmath.mp).calc_nodes(5, int(DIGITS * 3.4))

    def moments(self, q: float, names: tuple[str, ...] = MOMENTS) -> dict[str, Any]:
        """The named moments at variance q."""
        mp = self.mp
        variance = mp.mpf(q)
        sums = {name: mp.mpf(0) for name in names}
        for weight, x, functions in self._weights(variance):
            values = [mp.mpf(functions[k](x)) for k in range(3)]
            for name in names:
                sums[name] += weight * self._integrand(name, x, variance, values)
        return sums

    @staticmethod
    def _integrand(name: str, x: Any, q: Any, values: list[Any]) -> Any:
        if name == "phi":
            return values[0]
        if name == "slope":
            # d/dq of the density instead of the function: jumps and kinks need no care.
            return values[0] ** 2 * (x * x / q - 1) / (2 * q)
        return values[("phi2", "dphi2", "ddphi2").index(name)] ** 2

    def _weights(self, q: Any) -> Any:
        """Nodes x with weights · density, and the functions that hold there."""
        mp, problem = self.mp, self.problem
        root = mp.sqrt(q)
        reach = (14 + problem.reach * root) * root
        constant = 1 / (root * mp.sqrt(2 * mp.pi))
        if problem.frequency and q > 30:
            # ∫ of an entire function against a Gaussian: error exp(−(2π/h − Ω)²/2), here below 10⁻¹⁰⁰.
            step = 2 * mp.pi / (2 * problem.frequency * root + 24)
            count = int(14 / step) + 1
            for j in range(-count, count + 1):
                z = j * step
                yield step * root * constant * mp.exp(-z * z / 2), root * z, self.functions[0]
            return
        for low, high, piece in self._panels(float(root), float(reach)):
            half, middle = (high - low) / 2, (high + low) / 2
            for node, weight in self.nodes:
                x = middle + half * node
                yield half * weight * constant * mp.exp(-x * x / (2 * q)), x, self.functions[piece]

    def _panels(self, root: float, reach: float) -> Any:
        """Panels that halve towards 0 and the breaks and are nowhere longer than 1.5 standard deviations."""
        mp, problem = self.mp, self.problem
        marks = {0.0, -reach, reach}
        for centre in (0.0, *problem.breaks):
            marks.add(centre)
            offset = problem.width
            while offset < 2 * reach:
                marks |= {centre - offset, centre + offset}
                offset *= 1.6
        inside = sorted(m for m in marks if -reach <= m <= reach)
        for left, right in pairwise(inside):
            parts = max(1, math.ceil((right - left) / (1.5 * root)))
            low, high = mp.mpf(left), mp.mpf(right)
            piece = sum(left >= b for b in problem.breaks)
            for i in range(parts):
                yield low + (high - low) * i / parts, low + (high - low) * (i + 1) / parts, piece

    def critical(self, sigma_b: float, q: float) -> dict[str, str]:
        """The critical point near q with this σ_b, by the secant method on σ_b²(q) = q − E[φ²]/E[φ'²]."""
        mp = self.mp

        def bias(value: Any) -> Any:
            found = self.moments(value, ("phi2", "dphi2"))
            return value - found["phi2"] / found["dphi2"] - mp.mpf(sigma_b) ** 2

        low, high = mp.mpf(q) * (1 - mp.mpf("1e-7")), mp.mpf(q) * (1 + mp.mpf("1e-7"))
        at_low, at_high = bias(low), bias(high)
        for _ in range(8):
            new = high - at_high * (high - low) / (at_high - at_low)
            low, at_low, high, at_high = high, at_high, new, bias(new)
            if abs(high - low) < mp.mpf("1e-28") * high:
                break
        slope = self.moments(high, ("dphi2",))["dphi2"]
        return {"sigma_w": str(mp.nstr(1 / mp.sqrt(slope), 25)), "q": str(mp.nstr(high, 25))}


def guess_critical(problem: Problem, sigma_b: float) -> float | None:
    """A stable critical variance to six digits: σ_b²(q) scanned over q by SciPy, V'(q) < 1 asked for."""
    import numpy as np
    from scipy.optimize import brentq

    high = HighPrecision(problem)
    high.mp.dps = 15
    high.nodes = high.nodes[::1]
    functions = [[_as_float(f) for f in row] for row in high.functions]
    nodes, weights = np.polynomial.legendre.leggauss(20)

    def moments(q: float) -> tuple[float, float, float]:
        total = np.zeros(3)
        for low, up, piece in high._panels(math.sqrt(q), 9.0 * math.sqrt(q)):
            half, middle = float(up - low) / 2, float(up + low) / 2
            for node, weight in zip(nodes, weights, strict=True):
                x = middle + half * node
                w = half * weight * math.exp(-x * x / (2 * q)) / math.sqrt(2 * math.pi * q)
                phi, dphi = functions[piece][0](x), functions[piece][1](x)
                total += w * np.array([phi * phi, dphi * dphi, x * phi * dphi / q])
        return float(total[0]), float(total[1]), float(total[2])

    def excess(q: float) -> float:
        phi2, dphi2, _ = moments(q)
        return q - phi2 / dphi2 - sigma_b**2

    grid = np.geomspace(1e-4, 1e3, 29)
    values = [excess(q) for q in grid]
    for i in range(len(grid) - 1):
        if values[i] * values[i + 1] < 0:
            q = float(brentq(excess, grid[i], grid[i + 1], rtol=1e-9))  # type: ignore[arg-type]
            _, dphi2, slope = moments(q)
            if slope / dphi2 < 1:
                return q
    return None


def _as_float(f: Callable[[Any], Any]) -> Callable[[float], float]:
    import mpmath

    return lambda x: float(f(mpmath.mpf(x)))


CRITICAL = ("tanh", "erf", "elu", "selu", "silu", "gelu", "gelu_tanh", "mish", "softsign", "atan", "hardtanh")
CRITICAL += ("sin", "asinh", "sigmoid", "relu6", "bent_identity", "snake(3)", "cos", "celu(2)")


def compute(out: Path = DATA) -> None:
    """Compute every value and write them, 25 digits each."""
    moments: dict[str, Any] = {}
    critical: dict[str, Any] = {}
    for problem in PROBLEMS:
        print(problem.spec, file=sys.stderr, flush=True)
        exact = HighPrecision(problem)
        moments[problem.spec] = {
            repr(q): {name: exact.mp.nstr(value, 25) for name, value in exact.moments(q).items()}
            for q in problem.variances
        }
        if problem.spec in CRITICAL:
            rows = {}
            for sigma_b in SIGMA_B:
                guess = guess_critical(problem, sigma_b)
                exact = HighPrecision(problem)
                if guess is not None:
                    rows[repr(sigma_b)] = exact.critical(sigma_b, guess)
            critical[problem.spec] = rows
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"moments": moments, "critical": critical}, indent=1) + "\n")


if __name__ == "__main__":
    compute()
