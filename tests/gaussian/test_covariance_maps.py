"""Maps of a batch's covariance against single duals, and their iteration through layers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from eoc_theory.activations import activation
from eoc_theory.errors import ArgumentError
from eoc_theory.gaussian.duals import covariance_maps, dual, propagate_kernel
from eoc_theory.gaussian.duals.compiled import _compiled, _numpy_series
from eoc_theory.gaussian.duals.quadrature import second_moment

SMOOTH = ["tanh", "silu", "mish", "softplus", "gelu_tanh", "asinh", "sigmoid"]
CLOSED = ["relu", "leaky_relu(0.2)", "abs", "erf", "gelu", "sin", "cos", "cube", "snake", "identity", "step"]
PIECEWISE = ["hardtanh", "relu6", "hardsigmoid", "softshrink", "hardshrink", "threshold(0.3, 1)", "hardswish"]
KINKED = ["elu", "elu(0.5)", "celu(2)", "selu", "softsign"]


def batch(size: float, seed: int = 0, inputs: int = 6) -> np.ndarray:
    """A covariance with different variances, a negative correlation and a close pair."""
    z = np.random.default_rng(seed).standard_normal((inputs, 8))
    z[1] = 1.2 * z[0] + 0.05 * z[1]
    z[3] = -z[2] + 0.2 * z[3]
    return size**2 * z @ z.T / 8


def true_error(name: str, K: np.ndarray, maps: object) -> float:
    """Largest error relative to √(E f_i² E f_j²), against single duals."""
    f, worst, q = activation(name), 0.0, np.diag(K)
    for i in range(len(K)):
        for j in range(i + 1):
            c = 1.0 if i == j else min(1.0, max(-1.0, K[i, j] / np.sqrt(q[i] * q[j])))
            for order, values in ((0, maps.phi), (1, maps.dphi)):  # type: ignore[attr-defined]
                scale = np.sqrt(second_moment(f, q[i], order) * second_moment(f, q[j], order))
                exact = float(dual(f, q[i], q[j], c, order=order).value)
                if scale > 0:
                    worst = max(worst, abs(values[i, j] - exact) / scale)
    return worst


@pytest.mark.parametrize("name", SMOOTH + CLOSED + PIECEWISE)
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_maps_reach_the_tolerance(name: str, size: float) -> None:
    K = batch(size)
    maps = covariance_maps(name, K, tolerance=1e-8)
    assert maps.error <= 1e-8
    assert true_error(name, K, maps) <= max(maps.error, 1e-11)


@pytest.mark.parametrize("name", KINKED)
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_maps_of_other_kinked_functions_claim_no_more_than_they_reach(name: str, size: float) -> None:
    K = batch(size)
    maps = covariance_maps(name, K, tolerance=1e-8)
    assert true_error(name, K, maps) <= maps.error
    assert maps.error <= (1e-7 if size < 1 else 1e-2)


@pytest.mark.parametrize("name", ["tanh", "elu", "relu", "hardtanh"])
def test_looser_tolerances_are_kept_too(name: str) -> None:
    K = batch(1.0)
    maps = covariance_maps(name, K, tolerance=1e-4)
    assert true_error(name, K, maps) <= max(maps.error, 1e-11) <= 1e-4


@pytest.mark.parametrize("name", ["tanh", "relu", "hardtanh", "elu"])
def test_maps_are_symmetric_positive_semidefinite_and_permute_with_the_batch(name: str) -> None:
    K = batch(1.0, inputs=20)
    maps = covariance_maps(name, K)
    order = np.random.default_rng(1).permutation(20)
    moved = covariance_maps(name, K[np.ix_(order, order)])
    for values, other in ((maps.phi, moved.phi), (maps.dphi, moved.dphi)):
        assert values is not None and other is not None
        assert np.array_equal(values, values.T)
        assert np.linalg.eigvalsh(values)[0] > -1e-9 * np.trace(values)
        np.testing.assert_allclose(other, values[np.ix_(order, order)], rtol=1e-11, atol=1e-12)


def test_the_diagonal_holds_second_moments_also_for_single_inputs() -> None:
    for name in ("tanh", "relu", "elu", "hardshrink", "gelu"):
        maps = covariance_maps(name, [[0.7]])
        assert maps.phi[0, 0] == pytest.approx(second_moment(activation(name), 0.7, 0), rel=1e-10)
        assert maps.dphi is not None
        assert maps.dphi[0, 0] == pytest.approx(second_moment(activation(name), 0.7, 1), rel=1e-10)


def test_stacks_and_zero_variances() -> None:
    stack = np.stack([batch(1.0), batch(0.5)])
    maps = covariance_maps("tanh", stack, derivative=False)
    assert maps.dphi is None
    np.testing.assert_array_equal(maps.phi[1], covariance_maps("tanh", stack[1]).phi)
    K = np.diag([0.0, 1.0])
    for name, at_zero in (("relu", 0.0), ("sigmoid", 0.25), ("tanh", 0.0), ("hardtanh", 0.0)):
        assert covariance_maps(name, K).phi[0, 0] == pytest.approx(at_zero, abs=1e-12)


def test_wrong_covariances_are_refused() -> None:
    with pytest.raises(ArgumentError, match="shape"):
        covariance_maps("tanh", np.ones((2, 3)))
    with pytest.raises(ArgumentError, match="finite"):
        covariance_maps("tanh", [[np.nan]])
    with pytest.raises(ArgumentError, match="variances"):
        covariance_maps("tanh", [[-1.0]])
    with pytest.raises(ArgumentError, match="tolerance"):
        covariance_maps("tanh", [[1.0]], tolerance=0.0)


def test_propagation_iterates_the_maps() -> None:
    K = batch(1.0)
    layers = propagate_kernel("tanh", K, 1.3, 0.2, 4)
    assert layers.K.shape == (5, 6, 6)
    assert layers.dphi is not None
    for layer in range(4):
        maps = covariance_maps("tanh", layers.K[layer])
        np.testing.assert_array_equal(layers.phi[layer], maps.phi)
        np.testing.assert_array_equal(layers.dphi[layer], maps.dphi)
        np.testing.assert_allclose(layers.K[layer + 1], 0.04 + 1.69 * maps.phi, rtol=1e-14)


def test_the_compiled_loop_and_numpy_agree_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for inputs, terms in ((1, 1), (7, 2), (100, 9), (300, 12)):
        x = rng.uniform(-1, 1, (inputs, inputs))
        x = 0.5 * (x + x.T)
        table = rng.standard_normal((terms, inputs))
        out = np.empty_like(x)
        _compiled()(x, table, out)
        np.testing.assert_array_equal(out, _numpy_series(x, table))


def test_small_work_leaves_numba_alone() -> None:
    code = (
        "import sys, numpy as np; from eoc_theory.gaussian.duals import covariance_maps; "
        "covariance_maps('tanh', np.eye(50)); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_number_of_threads_cannot_be_told_from_the_bits() -> None:
    code = (
        "import hashlib, numpy as np; from eoc_theory.gaussian.duals import propagate_kernel; "
        "x = np.random.default_rng(0).standard_normal((100, 64)); K = np.einsum('if,jf->ij', x, x) / 64; "
        "print([hashlib.md5(propagate_kernel(name, K, 1.2, 0.2, 3).dphi.tobytes()).hexdigest()"
        " for name in ('tanh', 'elu', 'hardtanh')])"
    )
    outputs = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
        outputs.add(run.stdout)
    assert len(outputs) == 1
