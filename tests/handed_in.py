"""Models that are easily damaged, and all that can be seen of a model and of the process, to be compared."""

from __future__ import annotations

import functools
import random
import warnings
import weakref

import numpy as np
import torch
from models import ZOO, MyLinear
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, prune

import eoc_theory as eoc


class Counter:
    """A helper that a model tells of its passes."""

    def __init__(self):
        self.passes, self.seen = 0, []

    def update(self, x):
        self.passes += 1
        self.seen.append(float(x.detach().mean()))


class Stateful(nn.Module):
    """Writes to all it has whenever it runs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5)
        self.counter, self.history, self.cache = Counter(), [], {}
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.plain, self.array = torch.zeros(2), np.zeros(2)
        self.last = None

    def forward(self, x):
        self.calls += 1
        self.plain += 1
        self.array += 1
        self.counter.update(x)
        self.history.append(1)
        self.cache[len(self.cache)] = x
        self.last = torch.tanh(self.a(x))
        self.training = True
        return self.b(self.last)


class WritesWeights(nn.Module):
    """Clamps and masks its weights in place, as quantised and constrained networks do."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        self.a.weight.data.clamp_(-0.1, 0.1)
        with torch.no_grad():
            self.b.weight.mul_(0.5)
        self.a.bias.requires_grad_(False)
        return self.b(F.relu(self.a(x)))


class Tied(nn.Module):
    """The embedding's weights are the head's."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body = nn.Embedding(5, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(torch.tanh(self.body(self.embedding(x.long().clamp(0, 4)).mean(1))))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn, self.head = kind(3, 7, batch_first=True), nn.Linear(7, 5)

    def forward(self, x):
        return self.head(self.rnn(x.view(len(x), 2, 3))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 5)

    def forward(self, x):
        x = x.unsqueeze(1).expand(-1, 3, -1)
        return self.head(self.attention(x, x, x)[0].mean(1))


class Noisy(nn.Module):
    """Draws from every generator there is."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.own = nn.Linear(6, 8), nn.Linear(8, 5), torch.Generator()
        self.rng, self.random = np.random.default_rng(0), random.Random(0)

    def forward(self, x):
        x = x + torch.randn_like(x) + np.random.rand() + random.random()
        x = x + torch.rand(1, generator=self.own).to(x) + self.rng.random() + self.random.random()
        return self.b(torch.relu(self.a(x)))


class Closures(nn.Module):
    """Layers that are reached through lambdas, partials, defaults, lists, tuples and weak references."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.steps = [lambda x: self.a(x), functools.partial(F.linear, weight=self.b.weight), torch.tanh]
        self.pair = (weakref.ref(self.c), lambda x, c=self.c: c(x))
        self.pool = F.max_pool1d
        self.forward = self.run

    def run(self, x):
        for step in self.steps:
            x = step(x)
        return self.pair[0]()(x) + self.pair[1](x)


class ListedParameters(nn.Module):
    """Holds tensors that it has not registered."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 5)
        self.scales = [nn.Parameter(torch.ones(8)), {"shift": torch.zeros(8)}]

    def forward(self, x):
        return self.b(torch.tanh(self.a(x) * self.scales[0] + self.scales[1]["shift"]))


def shared(kind=nn.Tanh):
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, kind(), layer, kind(), nn.Linear(6, 5))


def one_prelu_twice():
    act = nn.PReLU()
    return nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 5))


def two_names():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    model.alias = model[0]
    model.forward = lambda x: model[2](model[1](model.alias(x)))
    return model


def chain(act=nn.ReLU, norm=None, dtype=None, bias=True):
    layers = [nn.Linear(6, 8, bias=bias), *([] if norm is None else [norm]), act(), nn.Linear(8, 5)]
    return nn.Sequential(*layers).to(dtype)


def tied_linears():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 5))
    model[2].weight = model[0].weight
    return model


def with_gradients():
    model = chain(nn.Tanh)
    model(torch.ones(2, 6)).sum().backward()
    model[0].bias.requires_grad_(False)
    return model


def with_hooks():
    model, seen = chain(nn.Tanh), []

    def hook(module, args, output):
        module.last = output
        seen.append(output)

    model[0].register_forward_hook(hook)
    model[1].register_forward_pre_hook(lambda module, args: seen.append(len(args)))
    model[2].register_full_backward_hook(lambda module, g, h: seen.append("back"))
    model[2].weight.register_hook(lambda g: g * 0)
    model.seen = seen
    return model


def views():
    flat = torch.randn(6 * 8 + 8 * 5) * 0.3
    model = chain(nn.Tanh)
    model[0].weight = nn.Parameter(flat[:48].view(8, 6))
    model[2].weight = nn.Parameter(flat[48:].view(5, 8))
    return model


def masked(run):
    model = chain(nn.Tanh)
    eoc.prune_(model, {"0": np.arange(48).reshape(8, 6) % 3 > 0})
    if run:
        model(torch.ones(2, 6)).sum().backward()
    return model


def masked_by_torch():
    model = chain(nn.Tanh)
    prune.random_unstructured(model[0], "weight", 0.4)
    model(torch.ones(2, 6))
    return model


def normed(how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(how(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 5))


def transposed():
    return nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, 5))


def made_in_inference_mode():
    with torch.inference_mode():
        return chain(nn.Tanh)


def replaced_forward():
    model = chain(nn.Tanh)
    old = model[0].forward
    model[0].forward = lambda x: old(x) * 2
    return model


def fixed(model):
    return model.eval()


#: Factories and the shape of one input.
FRAGILE = {
    **{name: entry for name, entry in ZOO.items() if name not in ("VGG-11", "LeNet")},
    "a module twice": (shared, (6,)),
    "an in-place module twice": (lambda: shared(lambda: nn.ReLU(inplace=True)), (6,)),
    "one PReLU twice": (one_prelu_twice, (6,)),
    "two names": (two_names, (6,)),
    "tied linears": (tied_linears, (6,)),
    "tied embedding": (Tied, (6,)),
    "LSTM": (Recurrent, (6,)),
    "GRU": (lambda: Recurrent(nn.GRU), (6,)),
    "attention": (Attention, (6,)),
    "writes to itself": (Stateful, (6,)),
    "writes its weights": (WritesWeights, (6,)),
    "draws": (Noisy, (6,)),
    "closures": (Closures, (6,)),
    "listed parameters": (ListedParameters, (6,)),
    "BatchNorm, training": (lambda: chain(norm=nn.BatchNorm1d(8)), (6,)),
    "BatchNorm, evaluation": (lambda: fixed(chain(norm=nn.BatchNorm1d(8))), (6,)),
    "mixed modes": (lambda: nn.Sequential(chain(norm=nn.BatchNorm1d(8)).eval(), nn.Dropout(0.5)), (6,)),
    "dropout": (lambda: chain(norm=nn.Dropout(0.3)), (6,)),
    "spectral norm": (lambda: normed(nn.utils.spectral_norm), (6,)),
    "spectral norm, parametrised": (lambda: normed(parametrizations.spectral_norm), (6,)),
    "weight norm": (lambda: normed(nn.utils.weight_norm), (6,)),
    "weight norm, parametrised": (lambda: normed(parametrizations.weight_norm), (6,)),
    "gradients and a frozen bias": (with_gradients, (6,)),
    "all frozen": (lambda: chain(nn.Tanh).requires_grad_(False), (6,)),
    "hooks": (with_hooks, (6,)),
    "views": (views, (6,)),
    "masked": (lambda: masked(False), (6,)),
    "masked and run": (lambda: masked(True), (6,)),
    "masked by torch": (masked_by_torch, (6,)),
    "float16": (lambda: chain(nn.Tanh, dtype=torch.float16), (6,)),
    "bfloat16": (lambda: chain(nn.Tanh, dtype=torch.bfloat16), (6,)),
    "float64": (lambda: chain(nn.Tanh, dtype=torch.float64), (6,)),
    "complex": (lambda: chain(nn.Tanh, dtype=torch.complex64), (6,)),
    "inference mode": (made_in_inference_mode, (6,)),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(5)), (6,)),
    "meta": (lambda: chain(nn.Tanh).to("meta"), (6,)),
    "compiled": (lambda: torch.compile(chain(nn.Tanh), backend="eager"), (6,)),
    "scripted": (lambda: torch.jit.script(chain(nn.Tanh)), (6,)),
    "replaced forward": (replaced_forward, (6,)),
    "no gradient": (lambda: nn.Sequential(nn.Linear(6, 8), NoGradient(), nn.Linear(8, 5)), (6,)),
    "in place on the input": (lambda: nn.Sequential(nn.ReLU(inplace=True), *chain(nn.Tanh)), (6,)),
    "graph module": (lambda: eoc.cnn(2, 8, input_shape=(3, 8, 8)).to_torch(), (3, 8, 8)),
    "transposed": (transposed, (3, 8, 8)),
    "subclass": (lambda: nn.Sequential(MyLinear(6, 8), nn.Tanh(), MyLinear(8, 5)), (6,)),
}  # fmt: skip


class NoGradient(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            return x * 2


class Stops(nn.Module):
    """Raises when it is run, after it was written to."""

    def __init__(self, error):
        super().__init__()
        self.error, self.layer = error, nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.layer.weight.data.zero_()
        self.stopped = True
        raise self.error


def inputs_of(shape, n=20):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, *shape)), np.arange(n) % 3


# --- what there is to be seen


def seen(thing, known=None):
    """All that a thing holds, down to the bits, as plain data; identities of what can be replaced."""
    known = set() if known is None else known
    if isinstance(thing, torch.Tensor):
        return _tensor(thing)
    if isinstance(thing, (str, int, float, bool, type(None))):
        return thing
    if isinstance(thing, np.ndarray):
        return ("array", thing.tobytes())
    if isinstance(thing, torch.Generator):
        return ("generator", thing.get_state().numpy().tobytes())
    if isinstance(thing, np.random.Generator):
        return ("generator", str(thing.bit_generator.state))
    if isinstance(thing, random.Random):
        return ("generator", thing.getstate())
    if id(thing) in known:
        return ("again", id(thing))
    known.add(id(thing))
    if isinstance(thing, dict):
        return ("dict", id(thing), [(key, seen(value, known)) for key, value in thing.items()])
    if isinstance(thing, (list, tuple)):
        return (type(thing).__name__, id(thing), [seen(value, known) for value in thing])
    if isinstance(thing, nn.Module) or type(thing).__module__ == __name__:
        return (type(thing), id(thing), [(key, seen(value, known)) for key, value in vars(thing).items()])
    closure = getattr(thing, "__closure__", None) or ()
    return ("object", id(thing), [seen(cell.cell_contents, known) for cell in closure])


def _tensor(tensor):
    grad = tensor.grad if tensor.is_leaf else None
    return (
        id(tensor),
        type(tensor),
        tensor.dtype,
        str(tensor.device),
        tensor.requires_grad,
        None if isinstance(tensor, nn.UninitializedParameter) or tensor.is_inference() else tensor._version,
        _bytes(tensor),
        None if grad is None else (id(grad), _bytes(grad)),
        repr(tensor._backward_hooks),
    )


def _bytes(tensor):
    if tensor.is_meta or isinstance(tensor, nn.UninitializedParameter):
        return None
    return (
        tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        if tensor.ndim
        else tensor.item()
    )


def states():
    """The process's random states and torch's modes."""
    return (
        random.getstate(),
        str(np.random.get_state()),
        np.random.get_state()[1].tobytes(),
        torch.get_rng_state().numpy().tobytes(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
    )
