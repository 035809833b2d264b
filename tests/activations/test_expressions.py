"""Activations from text and SymPy: the grammar, kinks and derivatives, digits, and errors of one line."""

from __future__ import annotations

import math
import pickle
import time
import warnings
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize

from eoc_theory.activations import Growth, activation, activation_names, grammar, symbolic
from eoc_theory.errors import ActivationError, ExpressionError
from eoc_theory.gaussian import moments

GRID = np.unique(
    np.concatenate([np.logspace(-10, 3.9, 120), -np.logspace(-10, 3.9, 120), np.linspace(-12, 12, 499)])
)


@pytest.mark.parametrize("name", activation_names())
def test_built_ins_through_the_generic_path(name: str) -> None:
    built_in = activation(name)
    assert built_in.expression is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        general = symbolic.from_expression(built_in.expression, name, name)
        for order in range(4):
            expected, got = built_in.derivative(order)(GRID), general.derivative(order)(GRID)
            finite = np.isfinite(expected)
            assert finite.all() or name == "exp"
            scale = np.max(np.abs(expected[np.abs(GRID) < 13]))
            np.testing.assert_allclose(got[finite], expected[finite], rtol=2e-12, atol=2e-14 * scale)
    for what in ("kinks", "parity", "slopes", "oscillation", "kink_values"):
        assert getattr(general, what) == getattr(built_in, what), what
    assert general.closed_form == built_in.closed_form or built_in.closed_form == ("gelu",)
    assert general.growth.kind == built_in.growth.kind
    assert general.derivative_error(3) == 0.0


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("x/(1+exp(-x))", lambda x: x / (1 + mpmath.exp(-x))),
        ("log(1+exp(x))", lambda x: mpmath.log1p(mpmath.exp(x))),
        ("x*tanh(log(1+exp(x)))", lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x)))),
        ("(exp(x)-exp(-x))/(exp(x)+exp(-x))", mpmath.tanh),
        ("x*(1+erf(x/sqrt(2)))/2", lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2),
        ("sqrt(x^2+1)-1", lambda x: mpmath.sqrt(x * x + 1) - 1),
        ("x-tanh(x)", lambda x: x - mpmath.tanh(x)),
        ("x - sin(x)", lambda x: x - mpmath.sin(x)),
        ("sin(x)/x", lambda x: mpmath.sin(x) / x),
        ("(exp(x)-1)/(exp(x)+1)", lambda x: mpmath.tanh(x / 2)),
        ("x/(exp(x)-1)", lambda x: x / mpmath.expm1(x)),
        ("exp(-x**2)", lambda x: mpmath.exp(-x * x)),
        ("exp(-exp(-x))", lambda x: mpmath.exp(-mpmath.exp(-x))),
        ("1/cosh(x)", mpmath.sech),
        ("log(2 + cos(x))", lambda x: mpmath.log(2 + mpmath.cos(x))),
        ("2*sigmoid(x) - 1", lambda x: mpmath.tanh(x / 2)),
    ],
)
def test_values_keep_their_digits_and_never_overflow(text: str, function) -> None:
    made = activation(text)
    points = [s * p for p in (1e-8, 1e-4, 0.03, 0.4, 1.3, 3.7, 20.0, 300.0, 1000.0) for s in (1, -1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = [made.derivative(order)(points) for order in range(3)]
    with mpmath.workdps(120):
        for i, x in enumerate(points):
            at, h = mpmath.mpf(x), mpmath.mpf(10) ** -30
            low, middle, high = (function(at + k * h) for k in (-1, 0, 1))
            exact = [middle, (high - low) / (2 * h), (high - 2 * middle + low) / h**2]
            for order, true in enumerate(exact):
                if order == 0:  # relative accuracy, also where the function is small
                    tolerance = 4e-14 * (abs(true) + abs(x * exact[1]))
                else:
                    tolerance = 4e-14 * (1 + abs(true))
                assert abs(values[order][i] - true) <= tolerance + 1e-300, (order, x)


def test_the_two_famous_overflows() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert activation("x/(1+exp(-x))")(-1000.0) == 0.0
        assert activation("log(1+exp(x))")(1000.0) == 1000.0


@pytest.mark.parametrize(
    ("text", "kinks", "jumps"),
    [
        ("abs(x)", (0.0,), {0: [0], 1: [2]}),
        ("max(x, 0)", (0.0,), {1: [1], 2: [0]}),
        ("min(max(x, -1), 1)", (-1.0, 1.0), {1: [1, -1]}),
        ("abs(abs(x) - 1)", (-1.0, 0.0, 1.0), {1: [2, -2, 2]}),
        ("max(x, x**2, 1)", (-1.0, 1.0), {1: [2, 2]}),
        ("where(x > 0, x, exp(x) - 1)", (0.0,), {0: [0], 1: [0], 2: [-1]}),
        ("Piecewise((0, x < -1), (x, x < 1), (x**2, True))", (-1.0, 1.0), {0: [-1, 0], 1: [1, 1], 2: [0, 2]}),
        ("x*where(-1 < x <= 2, 1, 0)", (-1.0, 2.0), {0: [-1, -2]}),
        ("x**3*abs(x)", (0.0,), {0: [0], 1: [0], 2: [0], 3: [0]}),
        ("x*abs(x)", (0.0,), {1: [0], 2: [4]}),
        ("sign(x - 1/3)", (1 / 3,), {0: [2], 1: [0]}),
        ("heaviside(x)*x + 0.5*x", (0.0,), {1: [1]}),
        ("abs(x**3 - 2)", (2 ** (1 / 3),), {1: [6 * 2 ** (2 / 3)]}),
        ("abs(exp(x) - 2)", (math.log(2),), {1: [4]}),
        ("abs(tanh(x) - x/2)", (-1.9150080481545375, 0.0, 1.9150080481545375), {}),
        ("abs(x)**2", (), {}),
        ("max(x, x)", (), {}),
        ("max(x**2, -1)", (), {}),
        ("sqrt(x**2)", (0.0,), {1: [2]}),
    ],
)
def test_kinks_are_found_symbolically(text: str, kinks, jumps) -> None:
    made = activation(text)
    np.testing.assert_allclose(made.kinks, kinks, rtol=1e-15)
    for order, expected in jumps.items():
        np.testing.assert_allclose(made.jumps(order), expected, atol=1e-14)
    assert all(type(kink) is float for kink in made.kinks)


@pytest.mark.parametrize(
    ("text", "growth"),
    [
        ("tanh(x)", Growth("polynomial", 0.0)),
        ("x + sin(x)", Growth("polynomial", 1.0)),
        ("x**3/(1 + x**2)", Growth("polynomial", 1.0)),
        ("x**2*abs(x)", Growth("polynomial", 3.0)),
        ("sinh(2*x)", Growth("exponential", rate=2.0)),
        ("x*exp(-x)", Growth("exponential", rate=1.0)),
        ("exp(x**2/10)", Growth("gaussian", rate=0.1)),
        ("x + exp(-x**2)", Growth("polynomial", 1.0)),
        ("exp(exp(x))", Growth("gaussian", rate=math.inf)),
    ],
)
def test_growth(text: str, growth: Growth) -> None:
    found = activation(text).growth
    assert found.kind == growth.kind
    assert found.degree == growth.degree
    assert found.rate == pytest.approx(growth.rate, rel=1e-6)


def test_structure() -> None:
    sharp = activation("tanh(10*(x - 3))")
    assert 3.0 in sharp.scale_points
    assert sharp.length_scale == pytest.approx(0.1)
    assert activation("x + sin(3*x)**2").oscillation == 6.0
    assert activation("sin(3*x)").closed_form == ("sin", 3.0)
    assert activation("1/(1 + 25*x**2)").length_scale == pytest.approx(0.2)
    assert activation("0.5*x + relu(x)").slopes == (0.5, 1.5)
    assert activation("0.5*x + relu(x)").closed_form == ("leaky", 0.5, 1.5)
    assert activation("x**2 - 1").closed_form == ("polynomial", -1.0, 0.0, 1.0)
    assert activation("x**2 - 1").parity == "even"
    assert activation("sign(x)*log(1 + abs(x))").parity == "odd"


def test_catalogue_names_are_functions_of_the_grammar() -> None:
    assert activation("relu(x)") is activation("relu")
    assert activation("leaky_relu(x, 0.2)") is activation("leaky_relu(0.2)")
    x = np.linspace(-3, 3, 13)
    mixed = activation("tanh(x) + 0.1*silu(2*x) - elu(x, 0.5)")
    expected = np.tanh(x) + 0.2 * x / (1 + np.exp(-2 * x)) - np.where(x > 0, x, 0.5 * np.expm1(x))
    np.testing.assert_allclose(mixed(x), expected, atol=1e-15)
    assert mixed.kinks == (0.0,)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^3*x", 8.0), ("-x^2", -1.0), ("2**-1*x", 0.5), ("x**2**3", 1.0), ("(1+2)*3*x", 9.0),
        ("1 - 2 - 3 + x", -3.0), ("8/4/2*x", 1.0), ("1e-3*x", 1e-3), (".5*x + 1.", 1.5), ("+-+x", -1.0),
        ("pi*x", math.pi), ("e*x", math.e), ("pow(x, 3) + 1", 2.0), ("x*EXP(0)", 1.0), ("  x\n +\t1 ", 2.0),
        ("2*e**x", 2 * math.e), ("where(x >= 1, 5, x)", 5.0), ("where(x > 1, 5, x)", 1.0),
        ("log1p(exp(x)) + 0*expm1(x)", math.log1p(math.e)), ("x" + "+x" * 800, 801.0),
    ],
)  # fmt: skip
def test_grammar_at_one(text: str, value: float) -> None:
    assert float(activation(text)(1.0)) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("__import__('os').system('ls')", "unknown function '__import__'"),
        ("x.real", "attribute access '.' is not accepted"),
        ("().__class__", "expected a number, x or a function, found ')'"),
        ("foo(x)", "unknown function 'foo' (accepted are abs"),
        ("sinn(x)", "did you mean sin"),
        ("x*y", "unknown name 'y' (the variable is x, the constants are pi and e)"),
        ("lambda x: x", "unknown name 'lambda'"),
        ("x[0]", "character '[' at position 2"),
        ("x; x", "character ';'"),
        ("x if x > 0 else 0", "expected an operator, found 'if'"),
        ("2x", "expected an operator, found 'x'"),
        ("x > 0", "stands only in where(condition, a, b)"),
        ("where(x, 1, 2)", "expected a comparison"),
        ("where(1 > 0, x, 0)", "condition that does not contain x"),
        ("max(x", "expected ',' or ')' at the end"),
        ("tanh + x", "the function 'tanh' needs its argument"),
        ("x(2)", "'x' is not a function"),
        ("x**9999999", "the exponent 1e+07 is too large (at most 64)"),
        ("9**9**9", "too large"),
        ("x*9**9**9", "too large"),
        ("((x**60)**60)", "degree 3600 is too large"),
        ("10**99*10**99*x", "too large"),
        ("exp(1000)*x", "too large"),
        ("1/0", "division by zero"),
        ("x + 1/(2 - 2)", "division by zero"),
        ("x*nan", "non-finite constant 'nan'"),
        ("x + inf", "non-finite constant 'inf'"),
        ("x + oo", "non-finite constant 'oo'"),
        ("x + 1e999", "too large"),
        ("log(-1)*x", "not a finite real number"),
        ("(-8)**(1/3)*x", "not a finite real number"),
        ("x**x", "positive constant base"),
        ("3 + pi", "does not contain x"),
        ("x - x", "does not depend on x"),
        ("where(x == 0, 1, 0)", "does not depend on x"),
        ("", "expression is empty"),
        ("(" * 100 + "x" + ")" * 100, "levels of nesting"),
        ("-" * 100 + "x", "levels of nesting"),
        ("x" + "**x" * 100, "levels of nesting"),
        ("x" + "+x" * 3000, "characters, at most 2000"),
        ("log(x)", "'log(x)' is not a finite real number at x = 0"),
        ("sqrt(x)", "'sqrt(x)' is not a finite real number at x = 0"),
        ("1/x", "not a finite real number at x = 0"),
        ("1/(x - 0.3)", "not a finite real number at x = 0.3"),
        ("1/(x**2 - 2)", "at x = 1.41421"),
        ("1/(1 - cos(x))", "at x = 0"),
        ("tan(x)", "at x = 1.5708"),
        ("where(x > 0, sqrt(x), 0)", "the first derivative of"),
        ("abs(x)**1.5", "the second derivative of"),
        ("1/(1 + exp(1/x))", "jumps at x = 0"),
        ("abs(sin(x))", "more than 63 kinks"),
        ("sin(x**2)", "oscillates ever faster"),
        ("exp(exp(exp(x)))", "nests more than two exponentials"),
    ],
)
def test_unusable_text_is_a_one_line_error(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        activation(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(max_examples=400, deadline=None)
@example("x" + "/x" * 500)
@example("1e")
@example("where(x>0,x)")
@given(st.text(alphabet="x0123456789.+-*/^()<>=,e _\nπ", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused_by_the_grammar(text: str) -> None:
    try:
        node = grammar.parse(text)
    except ExpressionError as error:
        assert "\n" not in str(error)
    else:
        assert node.value is None


_leaves = st.sampled_from(["x", "(2*x)", "(x-0.5)", "(x/2)", "(x+1)"])
_trees = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        st.tuples(st.sampled_from(["tanh", "abs", "relu", "sin", "sigmoid", "erf", "softplus"]), inner).map(
            lambda t: f"{t[0]}({t[1]})"
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(_trees)
def test_random_expressions_are_what_they_say(text: str) -> None:
    """Against plain NumPy evaluation, and each derivative against differences of the one before."""
    try:
        made = activation(text)
    except ActivationError:
        return
    names = {
        "tanh": np.tanh, "abs": np.abs, "relu": lambda u: np.maximum(u, 0), "sin": np.sin,
        "sigmoid": lambda u: 1 / (1 + np.exp(-u)), "softplus": lambda u: np.logaddexp(0, u),
        "erf": np.vectorize(math.erf),
    }  # fmt: skip
    x = np.linspace(-2.93, 3.17, 61)
    expected = eval(text, {"__builtins__": {}}, {**names, "x": x})  # our own text
    np.testing.assert_allclose(made(x), np.broadcast_to(expected, x.shape), rtol=1e-12, atol=1e-13)
    away = np.min(np.abs(x[:, None] - np.array([*made.kinks, 1e9])), axis=1) > 1e-3
    for order in (0, 1):
        f = made.derivative(order)
        slope = (f(x + 1e-5) - f(x - 1e-5)) / 2e-5
        exact = made.derivative(order + 1)(x)
        np.testing.assert_allclose(slope[away], exact[away], atol=1e-6 * (1 + np.abs(exact).max()))


def test_sympy_expressions() -> None:
    x = sympy.Symbol("x")
    made = activation(sympy.Piecewise((x, x > 0), (sympy.exp(x) - 1, True)))
    assert made.kinks == (0.0,)
    np.testing.assert_allclose(made([-2.0, 2.0]), [np.expm1(-2.0), 2.0])
    assert activation(sympy.tanh)(0.5) == pytest.approx(np.tanh(0.5))
    assert made.expression is not None
    assert made.expression.free_symbols == {sympy.Symbol("x", real=True)}
    assert pickle.loads(pickle.dumps(made)) is made
    y = sympy.Symbol("y")
    for wrong, problem in [
        (y**2, "found y"), (x * y, "found x, y"), (sympy.Integer(3), "found no symbol"),
        (sympy.gamma(x), "gamma"),
        (x**100, "exponent above 64"), (x + sympy.I, "constant I"), (x > 0, "SymPy expression"),
        (sympy.Function("f")(x), "not accepted"), (x + sympy.oo, "constant oo"),
    ]:  # fmt: skip
        with pytest.raises(ExpressionError) as caught:
            activation(wrong)
        assert problem in str(caught.value)


def test_expressions_are_made_once() -> None:
    made = activation("x*tanh(x)")
    assert activation("  x*tanh(x) ") is made
    assert pickle.loads(pickle.dumps(made)) is made
    assert made.name == "x*tanh(x)"
    assert len(repr(activation("x" + "+x" * 800))) < 80


def test_kinks_of_text_are_not_for_the_caller() -> None:
    with pytest.raises(ActivationError, match="kinks are given for callables only"):
        activation("tanh", kinks=(0.0,))


@pytest.mark.parametrize(
    "pole", ["x", "(x - 1.3)", "(2*x + 5)", "(x*x - 2)", "(exp(x) - 3)", "(1 + 1/x)", "(x**3 - x)"]
)
@pytest.mark.parametrize(
    ("form", "inside"),
    [
        ("x + sign(1/U)", lambda x, u: x + mpmath.sign(1 / u)),
        ("where(e/U < 0, x, 2*x)", lambda x, u: x if 1 / u < 0 else 2 * x),
        ("x*heaviside(-3/U)", lambda x, u: x if u < 0 else 0),
        ("x*U*U*abs(1/U)", lambda x, u: x * abs(u)),
        ("x*max(1/U, 2/U)*U", lambda x, u: x * (2 if u > 0 else 1)),
        ("x + sign(log(abs(U)))", lambda x, u: x + mpmath.sign(mpmath.log(abs(u)))),
        ("x*sign(1/(1/U))", lambda x, u: x * mpmath.sign(u)),
    ],
)  # fmt: skip
def test_signs_change_at_poles(pole: str, form: str, inside) -> None:
    """Values on both sides of every place where a condition passes through infinity."""
    try:
        made = activation(form.replace("U", pole))
    except ExpressionError:
        assert "1/x" in pole  # U itself has a pole there
        return

    def u(x):
        return eval(pole, {"__builtins__": {}}, {"x": x, "exp": mpmath.exp})  # our own text

    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-8, 8, 60), rng.normal(0, 100, 20)])
    points = np.concatenate([points, *(kink + np.array([-1e-6, 1e-6]) for kink in made.kinks)])
    for x, got in zip(points, made(points), strict=True):
        with mpmath.workdps(60):
            true = inside(mpmath.mpf(x), u(mpmath.mpf(x)))
        assert abs(got - true) <= 1e-11 * (1 + abs(true)), x


@pytest.mark.parametrize(
    "text",
    [
        "pow(x)", "x*x/relu(x)", "x/heaviside(x)", "max(log(asinh(x-x)))", "x/sign(x-x)", "1/(1/(x-x))",
        "min(1/(x-x),x)",
    ],
)  # fmt: skip
def test_what_has_no_value_is_refused_as_an_expression(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        activation(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kink"),
    [
        ("min(3.65*x,x**64)", 3.65 ** (1 / 63)),
        ("max(2*x,x**63)", 2 ** (1 / 62)),
        ("abs(exp(x*1e-5)-2)", 1e5 * math.log(2)),
        ("x + sign(exp(-1e6*(x-2.0037)**2) - 0.5)", 2.0037 + 1e-3 * math.sqrt(math.log(2))),
        ("relu(x*exp(-x*x))", 0.0),
    ],
)
def test_kinks_far_out_close_together_and_of_high_degree(text: str, kink: float) -> None:
    assert min(abs(k - kink) for k in activation(text).kinks) <= 1e-13 * max(kink, 1e-3)


@pytest.mark.parametrize(
    "text", ["tanh(sinh(x**20))", "erfc(arcsinh(log(erfc(x))))", "selu(x**64)", "gelu(gelu(gelu(gelu(x))))"]
)
def test_costly_expressions_are_read_or_refused_by_counted_work(text: str) -> None:
    before = time.process_time()
    try:
        activation(text)
    except ExpressionError as error:
        assert "too costly" in str(error) or "not a finite" in str(error)
    assert time.process_time() - before < 20


@pytest.mark.parametrize(
    "text", ["(x + pi)**64", "(x - 30)**64", "x + (x/3 - 2)**31", "((x + 7)**3 - 1)**20"]
)
def test_powers_of_sums_keep_their_digits_near_their_roots(text: str) -> None:
    """Their coefficients are large and cancel there, so that multiplied out they lose every digit."""
    made, points = activation(text), np.concatenate([np.linspace(-40, 40, 81), [-2.108, 29.3, 6.01, -6.0001]])
    for x, got in zip(points, made(points), strict=True):
        with mpmath.workdps(120):
            true = eval(text, {"__builtins__": {}}, {"x": mpmath.mpf(x), "pi": mpmath.pi})  # our own text
            slope = 64 * true / (abs(x) + 1)
        assert abs(got - true) <= 1e-9 * (abs(true) + abs(slope * x)) + 1e-11, x


@pytest.mark.parametrize("pole", ["0", "3.65", "-1/3", "pi"])
@pytest.mark.parametrize(
    "form",
    [
        "sign(sin(1/(x-p)))",
        "x+abs(cos(atan(2+x*x)/(p-x)))",
        "where(cos(log(abs(x-p)))>0.5,x,2*x)",
        "max(1,1.5*sin(3/(x-p))+x-p)",
        # φ is 1 but at points that accumulate, where φ' has no bound.
        "max(1,sin(1/(x-p))+x-p)",
    ],
)
def test_kinks_without_end_are_refused(pole: str, form: str) -> None:
    with pytest.raises(ExpressionError, match="kinks without end towards x = "):
        activation(form.replace("p", f"({pole})"))


def test_waves_at_a_pole_that_decide_nothing_are_read() -> None:
    assert activation("max(x**2+2,sin(1/x))")(0.5) == 2.25
    assert activation("x+sign(sin(1/x)+2)").kinks == ()


@pytest.mark.parametrize("place", [0.0, 0.5])
@pytest.mark.parametrize("width", [1e-6, 1e-12])
def test_structure_next_to_a_kink_is_no_pole(place: float, width: float) -> None:
    act = activation(f"sqrt(abs(x-{place})+{width!r})+x")
    assert act.kinks == (place,)
    value, error = moments(act, 1.0).dphi2

    def density(x: Any) -> Any:
        return mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)

    with mpmath.workdps(30):
        # φ' = 1 ± 1/(2 √(|x − p| + w))
        steps = [0, *(mpmath.mpf(10) ** k for k in range(-14, 0)), 0.3, 1, 2, 4, 8, 14]
        right = 1 + mpmath.quad(
            lambda t: (
                (density(place + t) + density(place - t)) / (4 * (t + width))
                + (density(place + t) - density(place - t)) / mpmath.sqrt(t + width)
            ),
            steps,
        )
    assert abs(float(value - right)) <= float(error) + 1e-14 * float(right)
    # Next to other places than 0 floats are too far apart to see all of it.
    assert float(error) <= (1e-13 if place == 0.0 else 1e-9 if width > 1e-9 else 0.1) * float(right)
    assert math.isinf(moments(f"sqrt(abs(x)+{width!r})*sign(x)+x", 1.0).dphi2.value)


@pytest.mark.parametrize("power", [20, 41, 63])
@pytest.mark.parametrize("small", ["mish(x)", "softplus(x)", "log(1+exp(x))*x", "expm1(exp(x))"])
def test_switches_where_one_plus_little_is_lost(small: str, power: int) -> None:
    """x**p times what falls as exp(x): 1 + exp(x) has lost all of exp(x) in any number of digits."""
    growth = power + (small in ("mish(x)", "log(1+exp(x))*x"))
    sign = -1 if growth % 2 else 1
    act = activation(f"where({sign}*(x)**{power}*{small} > 1, x, 2*x)")
    root = optimize.brentq(lambda x: growth * np.log(-x) + x, -30.0 * growth, -float(growth))
    assert min(abs(k / root - 1.0) for k in act.kinks) < 1e-9
    np.testing.assert_allclose(act(np.array([1.01 * root, 0.99 * root])), [2.02 * root, 0.99 * root])


@pytest.mark.parametrize(
    "constant", ["log1p(x/(x*1e9))", "log1p(1/(1e9+x-x))", "expm1(x/(1e11*x))", "1-cos(x/x/1e6)"]
)
def test_constants_keep_their_digits(constant: str) -> None:
    right = {"log": np.log1p(1e-9), "exp": np.expm1(1e-11), "1-c": 2 * np.sin(0.5e-6) ** 2}[constant[:3]]
    act = activation(f"x*tanh(x)/({constant})")
    x = np.array([-2.3, 0.4, 7.0])
    np.testing.assert_allclose(act(x), x * np.tanh(x) / right, rtol=1e-14)


@pytest.mark.parametrize("inner", ["min(1e6, x)", "where(x>0, 1e6, x)"])
@pytest.mark.parametrize("outer", ["expm1(expm1({}))", "exp(exp({}))+x", "sinh(exp({}))", "cosh(exp({}))-x"])
def test_towers_of_exponentials_are_refused_at_once(outer: str, inner: str) -> None:
    start = time.process_time()
    with pytest.raises(ExpressionError, match=r"finite|costly"):
        activation(outer.format(inner))
    assert time.process_time() - start < 20.0  # a minute, by as many digits as the number has
