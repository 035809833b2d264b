"""Every public function, method and class with arguments that nobody meant, by a seed.

``python -m tests.argument_fuzz --tries 4000 --seed 1`` tries more than the test suite does. A call may
answer, or refuse with an EOCError of one line. Another exception, an InternalError, a warning, and a call
that does not end are failures.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import random
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

import eoc_theory as eoc
from eoc_theory.errors import EOCError, InternalError
from eoc_theory.layers import Identity

from .hostile import EVERYTHING

#: CPU seconds that one call may take.
PATIENCE = 10.0


@dataclass(frozen=True)
class Target:
    """Something public: how to call it, and arguments that it takes, made anew for each call."""

    name: str
    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]


class Taylor:
    """A criterion of one's own."""

    name = "taylor"
    needs = "gradient"

    def score(self, weight: Any, derivative: Any) -> Any:
        return abs(weight * derivative)


class OwnModule(nn.Module):
    """A module class of one's own."""

    def forward(self, x: Any) -> Any:
        return x


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def masks() -> dict[str, Any]:
    return {"0": np.eye(6, 8), "2": np.ones((3, 6))}


def batch() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).standard_normal((6, 8)), np.arange(6) % 3


@lru_cache(maxsize=1)
def net() -> eoc.Architecture:
    return eoc.mlp(3, 6, in_features=8, out_features=3)


@lru_cache(maxsize=1)
def field() -> eoc.MeanField:
    return eoc.MeanField("tanh", 1.5, 0.3)


@lru_cache(maxsize=1)
def results() -> dict[str, Any]:
    """One result of each kind."""
    kernels = eoc.propagate(net(), batch())
    return {
        "Activation": eoc.activation("relu"),
        "Architecture": net(),
        "AttentionPhase": eoc.attention_phase([1.0, 2.0], [0.5, 1.0], tokens=4, depth=2),
        "CollapsePrediction": eoc.predict_collapse(net(), criterion="magnitude"),
        "Comparison": eoc.compare(net(), 0.5, seeds=1, criterion="magnitude", device="cpu"),
        "CriticalCurve": eoc.critical_curve("tanh", sigma_b=[0.0, 0.5]),
        "CriticalPoint": eoc.edge_of_chaos("tanh", sigma_b=0.2),
        "Gain": eoc.gain("tanh", sigma_b=0.2),
        "DataSummary": net().summarise(batch()),
        "Design": eoc.design(net(), 0.5, networks=0),
        "Diagnosis": eoc.diagnose(dense(), (2, 8), sparsity=0.5, criterion="magnitude"),
        "LayerScales": eoc.watch_layers(dense()).scales,
        "MeanField": field(),
        "PhaseDiagram": eoc.phase_diagram("tanh", sigma_w=[1.0, 2.0], sigma_b=[0.1, 0.2]),
        "Propagation": kernels,
        "PruningMeasurement": eoc.measure_pruning(dense(), 0.5, criterion="magnitude", device="cpu"),
        "PruningPrediction": eoc.predict_pruning(net(), 0.5, criterion="magnitude"),
        "SummaryPropagation": eoc.propagate_summary(net(), batch=5),
        "Trainability": eoc.trainability(net(), data=batch(), inputs=4),
        "WeightLayer": net().layers[0],
    }


#: What each function is given where it is not tried; what is not named has its default.
GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "activation": lambda: {"spec": "tanh"},
    "activation_names": dict,
    "attention_phase": lambda: {
        "score_scale": [1.0, 2.0],
        "residual_strength": [0.5],
        "tokens": 4,
        "depth": 2,
    },
    "cnn": lambda: {"depth": 3, "channels": 2, "input_shape": (1, 4, 4), "classes": 2},
    "compare": lambda: {
        "factory": net(),
        "sparsity": 0.5,
        "criterion": "magnitude",
        "seeds": 1,
        "device": "cpu",
    },
    "connected_weights": lambda: {"model": dense(), "masks": masks()},
    "critical_curve": lambda: {"activation": "tanh", "sigma_b": [0.1, 0.2]},
    "criterion": lambda: {"spec": "snip"},
    "design": lambda: {"net": net(), "sparsity": 0.5, "criterion": "magnitude", "networks": 0},
    "diagnose": lambda: {
        "model": dense(),
        "example_input": (2, 8),
        "sparsity": 0.5,
        "criterion": "magnitude",
    },
    "digits": lambda: {"n": 10},
    "digits_images": lambda: {"n": 10, "shape": (1, 8, 8)},
    "edge_of_chaos": lambda: {"activation": "tanh"},
    "gain": lambda: {"activation": "tanh"},
    "gpt": lambda: {"depth": 1, "width": 8, "heads": 2, "tokens": 4, "vocabulary": 9},
    "initialize_": lambda: {"model": dense()},
    "lightning_callback": dict,
    "load_images": lambda: {"name": "mnist", "n": 10, "folder": idx_files()},
    "trainability": lambda: {"net": dense(), "masks": masks(), "inputs": 3, "device": "cpu"},
    "transformer": lambda: {"depth": 1, "width": 8, "heads": 2, "tokens": 4},
    "vit": lambda: {"depth": 1, "width": 8, "heads": 2, "patch": 4, "input_shape": (1, 8, 8)},
    "magnitude_bound": lambda: {"alphas": [1.0, 2.0], "zetas": [1.0, 1.0], "width": 50.0},
    "load_masks": lambda: {"path": saved_masks()},
    "save_masks": lambda: {"masks": masks(), "path": "saved.safetensors"},
    "watch_layers": lambda: {"model": dense()},
    "masks_of": lambda: {"model": eoc.prune_(dense(), masks())},
    "measure_pruning": lambda: {"model": dense(), "sparsity": 0.5, "device": "cpu"},
    "mlp": lambda: {"depth": 3, "width": 6},
    "phase_diagram": lambda: {"activation": "tanh", "sigma_w": [1.0, 2.0], "sigma_b": [0.1]},
    "predict_collapse": lambda: {"net": net(), "criterion": "magnitude"},
    "predict_pruning": lambda: {"net": net(), "sparsity": 0.5, "criterion": "magnitude"},
    "propagate": lambda: {"net": net()},
    "propagate_summary": lambda: {"net": net(), "batch": 5},
    "prune_": lambda: {"model": dense(), "masks": masks()},
    "rearrange_masks": lambda: {"masks": masks()},
    "register_criterion": lambda: {"criterion": Taylor()},
    "register_layer": lambda: {"module": OwnModule, "layer": lambda module, name, shapes: Identity(name)},
    "rescale_": lambda: {"model": eoc.prune_(dense(), masks())},
    "resnet": lambda: {"depth": 8, "width": 2, "input_shape": (1, 8, 8)},
    "snip_bound": lambda: {"depth": 10, "width": 100.0, "chi": 0.5},
    "vgg": lambda: {"depth": 11, "width": 2},
}
#: The same of methods that need arguments.
OF_METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "Activation.__call__": lambda: {"x": [0.5, -1.0]},
    "AttentionPhase.share": lambda: {"phase": "trainable"},
    "AttentionPhase.from_json": lambda: {"text": results()["AttentionPhase"].to_json()},
    "Architecture.from_graph": lambda: {"graph": net().as_graph()},
    "Architecture.from_torch": lambda: {"model": dense()},
    "CollapsePrediction.quantile": lambda: {"p": 0.5},
    "CollapsePrediction.probability": lambda: {"sparsity": 0.5},
    "DataSummary.spread_indices": lambda: {"size": 3},
    "DataSummary.take": lambda: {"chosen": np.array([0, 1])},
    "Diagnosis.to_html": lambda: {"path": "page.html"},
    "MeanField.variance_map": lambda: {"q": [0.5, 1.0]},
    "MeanField.iterate_variance": lambda: {"q0": 1.0, "depth": 5},
    "MeanField.correlation_map": lambda: {"c": [0.1, 0.9]},
    "MeanField.correlation_deficit": lambda: {"one_minus_c": [0.1, 0.9]},
    "MeanField.iterate_correlation": lambda: {"one_minus_c0": 0.5, "depth": 5},
    "Propagation.gradient_into": lambda: {"layer": 1, "net": net()},
}
CONSTRUCTED = {
    "Gain": lambda: {"point": eoc.edge_of_chaos("tanh", sigma_b=0.2)},
    "Architecture": lambda: {"layers": net().layers},
    "DataSummary": lambda: {"inputs": batch()[0], "targets": batch()[1], "classes": 3},
    "MeanField": lambda: {"activation": "tanh", "sigma_w": 1.5},
    "WeightLayer": lambda: {"name": "a", "fan_in": 3, "fan_out": 4, "sigma_w": 1.0, "sigma_b": 0.1},
}
#: Further starting points, where arguments meet other code.
MORE = (
    Target("activation of a function", eoc.activation, lambda: {"spec": np.tanh, "kinks": [0.0]}),
    Target(
        "compare models", eoc.compare, lambda: {"factory": lambda seed: dense(), "sparsity": 0.5, "seeds": 1}
    ),
    Target("design of a model", eoc.design, lambda: {"net": dense(), "sparsity": 0.5, "networks": 1}),
    Target(
        "measure grasp",
        eoc.measure_pruning,
        lambda: {"model": dense(), "sparsity": [0.5], "criterion": "grasp"},
    ),
    Target("predict snip", eoc.predict_pruning, lambda: {"net": net(), "sparsity": [0.5], "samples": 2}),
    Target("predict graph", eoc.predict_pruning, lambda: {"net": small(), "sparsity": 0.5, "samples": 2}),
    Target("collapse snip", eoc.predict_collapse, lambda: {"net": net(), "samples": 2}),
    Target(
        "rescale by signal",
        eoc.rescale_,
        lambda: {"model": eoc.prune_(dense(), masks()), "by": "signal", "data": batch()[0]},
    ),
    Target(
        "predicted trainability",
        eoc.trainability,
        lambda: {"net": net(), "sparsity": 0.5, "criterion": "random"},
    ),
    Target("snip_bound kappa", eoc.snip_bound, lambda: {"depth": 10, "width": 100.0, "kappa": 0.5}),
)


@lru_cache(maxsize=1)
def small() -> eoc.Architecture:
    return eoc.cnn(3, 2, input_shape=(1, 4, 4), classes=2)


@lru_cache(maxsize=1)
def saved_masks() -> str:
    """A file of masks."""
    path = Path(tempfile.mkdtemp(prefix="masks-")) / "masks.safetensors"
    eoc.save_masks({"0": np.array([[True, False]])}, path)
    return str(path)


@lru_cache(maxsize=1)
def idx_files() -> str:
    """A folder with forty pictures in the form of MNIST."""
    folder = tempfile.mkdtemp(prefix="idx-")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 0x803, 40, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 0x801, 40) + bytes(i % 10 for i in range(40))
        Path(folder, f"{part}-images-idx3-ubyte").write_bytes(images)
        Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


def targets() -> list[Target]:
    """All that is public and takes arguments."""
    found = [Target(name, getattr(eoc, name), given) for name, given in GIVEN.items()]
    for name, result in results().items():
        cls = type(result)
        found.append(Target(name, cls, CONSTRUCTED.get(name) or _fields_of(result)))
        for method in _methods(cls):
            given = OF_METHODS.get(f"{name}.{method}", dict)
            found.append(Target(f"{name}.{method}", getattr(result, method), given))
    return found + list(MORE)


def _fields_of(result: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {name: getattr(result, name) for name in result.__dataclass_fields__}


def _methods(cls: type) -> Iterator[str]:
    """Public methods that take arguments."""
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__call__"):
            if len(inspect.signature(function).parameters) > 1:
                yield name


def parameters(target: Target) -> list[str]:
    """The arguments that a target has."""
    return list(inspect.signature(target.call).parameters)


class Late(BaseException):
    """The time is up."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(call: Callable[[], Any], patience: float = PATIENCE) -> str | None:
    """What is wrong with how a call ends; None where it answers or refuses as it should."""
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(printed):
        warnings.simplefilter("always")
        try:
            with _limited(patience):
                call()
            wrong = None
        except InternalError as error:
            wrong = f"InternalError: {error}"
        except EOCError as error:
            wrong = _ill_said(str(error))
        except Late:
            wrong = f"did not end within {patience:g} s of CPU"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
    if wrong is None and caught:
        wrong = (
            f"{caught[0].category.__name__}: {caught[0].message} ({caught[0].filename}:{caught[0].lineno})"
        )
    if wrong is None and printed.getvalue():
        wrong = f"printed to stderr: {printed.getvalue()[:200]!r}"
    return wrong


def _ill_said(message: str) -> str | None:
    if not message or "\n" in message or not message.isprintable():
        return f"not one printable line: {message[:200]!r}"
    if "fits into memory" in message:
        return f"not refused beforehand: {message[:200]}"
    return f"{len(message)} characters: {message[:80]!r}" if len(message) > 1000 else None


@dataclass(frozen=True)
class Trial:
    """One call: which target, and which of its arguments have which of the hostile values."""

    target: Target
    chosen: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        return f"{self.target.name}({', '.join(f'{name}=#{index}' for name, index in self.chosen)})"

    def values(self) -> dict[str, Any]:
        return {name: EVERYTHING[index]() for name, index in self.chosen}

    def run(self, patience: float = PATIENCE) -> str | None:
        arguments = self.target.arguments()
        values = self.values()
        given = {**arguments, **values}
        wrong = outcome(lambda: self.target.call(**given), patience)
        return wrong and f"{self.label}: {', '.join(f'{k}={picture(v)}' for k, v in values.items())}: {wrong}"


def picture(value: Any) -> str:
    try:
        return ascii(value)[:60]
    except Exception:
        return f"<{type(value).__name__}>"


def trials(seed: int, count: int, found: list[Target]) -> Iterator[Trial]:
    """Arguments one at a time, each third time in pairs; targets in turn, values by the seed."""
    rng = random.Random(seed)
    places = [(target, name) for target in found for name in parameters(target)]
    rng.shuffle(places)
    for index in range(count):
        target, name = places[index % len(places)]
        chosen = [(name, rng.randrange(len(EVERYTHING)))]
        others = [other for other in parameters(target) if other != name]
        if others and rng.random() < 1 / 3:
            chosen.append((rng.choice(others), rng.randrange(len(EVERYTHING))))
        yield Trial(target, tuple(chosen))


@contextlib.contextmanager
def sandbox() -> Iterator[None]:
    """An empty folder, no network, nothing on stdout."""
    before = os.getcwd()
    offline = mock.patch("sklearn.datasets.fetch_openml", side_effect=OSError("no network"))
    silent = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, offline, silent:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def failures(seed: int, count: int, patience: float = PATIENCE) -> list[str]:
    """What is wrong with `count` calls."""
    with sandbox():
        return [wrong for trial in trials(seed, count, targets()) if (wrong := trial.run(patience))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=float, default=8.0, help="GiB that the process may have")
    options = parser.parse_args()
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (int(options.memory * 2**30), -1))
    bad, start = 0, time.monotonic()
    out = sys.stdout
    with sandbox():
        for trial in trials(options.seed, options.tries, targets()):
            begun = time.monotonic()
            wrong = trial.run()
            taken = time.monotonic() - begun
            if wrong:
                bad += 1
                print(ascii(wrong)[1:-1], file=out, flush=True)
            elif taken > 3:
                print(f"({taken:.1f} s: {trial.label})", file=out, flush=True)
    print(f"{options.tries} calls in {time.monotonic() - start:.0f} s, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
