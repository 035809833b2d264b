"""Activations from torch modules and functions, and back."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

from eoc_theory.activations import activation, activation_names
from eoc_theory.errors import ActivationError

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


class PlainSubclass(nn.ReLU):
    pass


class SquaredReLU(nn.ReLU):
    def forward(self, x):
        return super().forward(x) ** 2


MODULES = [
    (nn.ReLU(), "relu"), (nn.LeakyReLU(0.2), "leaky_relu(0.2)"), (nn.ReLU6(), "relu6"),
    (nn.ELU(0.5), "elu(0.5)"),
    (nn.SELU(), "selu"), (nn.CELU(2.0), "celu(2)"), (nn.GELU(), "gelu"), (nn.GELU("tanh"), "gelu_tanh"),
    (nn.SiLU(), "silu"), (nn.Mish(), "mish"), (nn.Softplus(2.0), "softplus(2)"),
    (nn.Softplus(1.0, 5.0), "softplus(1, 5)"), (nn.Softsign(), "softsign"), (nn.Sigmoid(), "sigmoid"),
    (nn.LogSigmoid(), "log_sigmoid"), (nn.Tanh(), "tanh"), (nn.Tanhshrink(), "tanhshrink"),
    (nn.Softshrink(0.25), "softshrink(0.25)"), (nn.Hardshrink(0.25), "hardshrink(0.25)"),
    (nn.Hardtanh(-2, 3), "hardtanh(-2, 3)"), (nn.Hardsigmoid(), "hardsigmoid"), (nn.Hardswish(), "hardswish"),
    (nn.Threshold(0.5, 20.0), "threshold(0.5, 20)"), (nn.Identity(), "identity"),
    (nn.PReLU(), "leaky_relu(0.25)"),
    (nn.RReLU(0.1, 0.3), "leaky_relu(0.2)"), (PlainSubclass(), "relu"), (nn.Tanh, "tanh"),
]  # fmt: skip
FUNCTIONS = [
    (torch.relu, "relu"), (F.relu, "relu"), (torch.tanh, "tanh"), (F.gelu, "gelu"), (F.silu, "silu"),
    (F.softplus, "softplus"), (F.elu, "elu"), (torch.sigmoid, "sigmoid"), (torch.special.expit, "sigmoid"),
    (torch.erf, "erf"), (F.hardtanh, "hardtanh"), (torch.sin, "sin"), (F.mish, "mish"),
    (F.leaky_relu, "leaky_relu"), (torch.abs, "abs"), (torch.square, "square"), (torch.sign, "sign"),
    (torch.arctan, "atan"), (F.logsigmoid, "log_sigmoid"), (F.hardswish, "hardswish"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), MODULES)
def test_modules_are_read_with_their_parameters(module, name: str) -> None:
    made = activation(module)
    assert made.name == name
    x = torch.linspace(-9.03, 9.1, 1001, dtype=torch.float64)
    module = module() if isinstance(module, type) else copy.deepcopy(module)
    expected = module.double().eval()(x).detach().numpy()
    # torch's Softplus drops exp(−threshold) beyond its threshold.
    np.testing.assert_allclose(made(x.numpy()), expected, atol=3e-9 if name.startswith("softplus") else 4e-15)


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_functions_are_recognised(function, name: str) -> None:
    assert activation(function) is activation(name)


@pytest.mark.parametrize(
    "name", [*activation_names(), "silu(2)", "softplus(1, 3)", "x/(1+exp(-x))", "abs(abs(x)-1)"]
)
def test_to_torch_has_the_same_values_and_derivatives(name: str) -> None:
    made = activation(name)
    module = made.to_torch().double().eval()
    # Away from the kinks, where torch chooses a side of its own.
    x = torch.linspace(-5.03, 5.02, 400, dtype=torch.float64, requires_grad=True)
    value = module(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    at = x.detach().numpy()
    np.testing.assert_allclose(value.detach().numpy(), made(at), rtol=1e-12, atol=1e-13)
    # torch's own Hardsigmoid differentiates with a slope of 1/6 in single precision.
    atol = 1e-8 if name == "hardsigmoid" else 1e-13
    np.testing.assert_allclose(slope.detach().numpy(), made.derivative(1)(at), rtol=1e-12, atol=atol)
    assert isinstance(copy.deepcopy(module), nn.Module)


def test_numerical_callables_to_torch_twice_differentiable() -> None:
    made = activation(_bump)
    module = made.to_torch()
    x = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    value = module(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    for order, tensor in enumerate((value, slope, bend)):
        np.testing.assert_allclose(tensor.detach().numpy(), made.derivative(order)(x.detach().numpy()))
    assert module(torch.zeros(2, dtype=torch.float32)).dtype == torch.float32
    assert pickle.loads(pickle.dumps(module)).activation is made


def _bump(x: np.ndarray) -> np.ndarray:
    return np.tanh(x) * np.exp(-(x**2))


def test_expression_modules_do_not_overflow_and_can_be_saved() -> None:
    module = activation("x/(1 + exp(-x))").to_torch()
    x = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 1000.0]
    assert x.grad.tolist() == [0.0, 1.0]
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again(x), y)


def test_other_modules_and_functions_are_measured() -> None:
    squared = activation(SquaredReLU())
    assert squared.kinks == (0.0,)
    np.testing.assert_allclose(squared.derivative(2)([-1.0, 3.0]), [0.0, 2.0], atol=1e-10)
    stacked = activation(nn.Sequential(nn.Tanh(), nn.ReLU()))
    np.testing.assert_allclose(stacked([-1.0, 0.5]), [0.0, np.tanh(0.5)])
    assert isinstance(stacked.to_torch(), nn.Sequential)
    assert activation(torch.sinh).growth.kind == "exponential"
    own = activation(lambda x: torch.relu(x) * 2.0)
    assert own.slopes == (0.0, 2.0)
    assert activation(nn.Dropout(0.5)).slopes == (1.0, 1.0)  # evaluation mode


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (nn.Softmax(-1), "elementwise"),
        (nn.PReLU(3), "PReLU must have one slope for all channels, got 3"),
        (nn.LayerNorm(5), "raised RuntimeError"),
        (nn.Linear(3, 3), "raised RuntimeError"),
        (nn.Conv2d, "give an instance of Conv2d"),
        (torch.log, "is not finite at x = 0"),
        (torch.softmax, "raised TypeError"),
    ],
)
def test_what_is_no_activation(spec, problem: str) -> None:
    with pytest.raises(ActivationError) as caught:
        activation(spec)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torch_models_keep_their_precision() -> None:
    module = nn.Sequential(nn.PReLU(), nn.Tanh())
    activation(module)
    assert module[0].weight.dtype == torch.float32
    assert module.training


def test_without_torch_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from eoc_theory.activations import activation\n"
        "try: activation('erf').to_torch()\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingDependencyError to_torch needs torch")
