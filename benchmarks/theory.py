"""Theory's kept fractions of convolutional, VGG, residual networks and transformers against pruned ones.

    python -m benchmarks.theory measure           # an hour of one core; goes on where it stopped
    python -m benchmarks.theory fit               # the error model, from the table; and its check

Networks are pruned by SNIP in plain torch: gradients by autograd, one ranking of all |W g|. What is predicted
is `eoc_theory.pruning.graph_theory.theory_laws`. The error model, error = constant + slope/width for each
kind of network, is fitted to the configurations of FITTED and checked on those of HELD_OUT, which differ in
depth, width, activation, padding, strides and images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import eoc_theory as eoc
from benchmarks.images import pink_images
from eoc_theory.networks.architecture import Architecture
from eoc_theory.pruning import theory_error
from eoc_theory.pruning.critical_sparsity import draw_critical_sparsity
from eoc_theory.pruning.error_model import LEVEL, kind_of, size_of
from eoc_theory.pruning.graph_theory import theory_laws
from eoc_theory.pruning.prediction import allocate_graph

TABLE = Path(__file__).parent / "theory.csv"
MODEL = Path(theory_error.__file__).parent / "theory_error.json"
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
#: Share of a mean absolute error that a mean's own noise makes of it alone: E|z|.
HALF_NORMAL = (2 / np.pi) ** 0.5
TANH: dict[str, Any] = {"activation": "tanh", "sigma_b": 0.2}
RELU: dict[str, Any] = {"activation": "relu"}


@dataclass(frozen=True)
class Case:
    """A network, its images and the number of networks pruned.

    Attributes:
        family: "cnn", "vgg", "resnet", "vit" or "transformer", built with `arguments` and `options`.
        size: extent of the images, or number of tokens; the number of inputs is `inputs`.
        images: "pink", "digits" or "white", or "tokens".
    """

    family: str
    arguments: tuple[int, ...]
    size: int
    inputs: int
    images: str
    seeds: int
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        words = [self.family, *map(str, self.arguments), str(self.size), self.images]
        words += [f"{key}={value}" for key, value in self.options]
        return " ".join(words)

    @property
    def network(self) -> Architecture:
        if self.family == "transformer":
            depth, width = self.arguments
            options: dict[str, Any] = {"vocabulary": VOCABULARY, "tokens": self.size, **dict(self.options)}
            return eoc.transformer(depth, width, **options)
        if self.family == "vit":
            depth, width = self.arguments
            shape = (3, self.size, self.size)
            return eoc.vit(
                None, depth=depth, width=width, patch=4, input_shape=shape, classes=10, **dict(self.options)
            )
        build = {"cnn": eoc.cnn, "vgg": eoc.vgg, "resnet": eoc.resnet}[self.family]
        return build(*self.arguments, input_shape=(3, self.size, self.size), **dict(self.options))

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (3, self.size, self.size)
        if self.images == "tokens":
            ids = np.random.default_rng(5).integers(VOCABULARY, size=(self.inputs, self.size))
            return ids.astype(float), np.arange(self.inputs) % 10
        if self.images == "digits":
            return eoc.digits_images(self.inputs, shape)
        if self.images == "pink":
            return pink_images(self.inputs, shape, seed=0)
        rng = np.random.default_rng(5)
        return rng.standard_normal((self.inputs, *shape)), np.arange(self.inputs) % 10


#: Token numbers of transformers.
VOCABULARY = 200


def _case(
    family: str, *arguments: int, size: int, b: int, on: str = "pink", n: int = 8, **options: Any
) -> Case:
    return Case(family, arguments, size, b, on, n, tuple(options.items()))


PLAIN: dict[str, Any] = {"normalisation": None}
WORDS: dict[str, Any] = {"size": 16, "b": 32, "on": "tokens"}
LLAMA: dict[str, Any] = {
    "causal": True, "norm": "rms", "gated": True, "activation": "silu", "positions": "rotary",
    "readout": "last",
}  # fmt: skip
FITTED = (
    *(_case("resnet", 20, size=32, b=100, on=on, n=12) for on in ("pink", "digits")),
    *(_case("resnet", 32, size=32, b=100, on=on) for on in ("pink", "digits")),
    _case("resnet", 20, size=32, b=100, n=12, scaling="stable"),
    _case("resnet", 20, size=16, b=100, n=12),
    _case("resnet", 20, size=16, b=100, width=32),
    _case("resnet", 32, size=16, b=100, width=32),
    _case("resnet", 20, size=16, b=50, width=64),
    _case("resnet", 20, size=16, b=100, on="white", width=32),
    *(_case("vgg", depth, size=32, b=50) for depth in (11, 16)),
    _case("vgg", 11, size=32, b=50, on="digits"),
    *(_case("vgg", 11, size=32, b=50, n=n, width=width) for width, n in ((16, 12), (32, 12), (128, 6))),
    _case("vgg", 11, size=32, b=50, on="white", width=32),
    _case("vgg", 16, size=32, b=50, n=12, width=16),
    *(_case("cnn", depth, 256, size=8, b=50, **act) for depth in (5, 10, 20) for act in (TANH, RELU)),
    *(_case("cnn", depth, 256, size=16, b=50, **act) for depth in (5, 10) for act in (TANH, RELU)),
    *(_case("cnn", 10, width, size=8, b=50, n=12, **act) for width in (64, 128) for act in (TANH, RELU)),
    *(_case("cnn", 5, 32, size=8, b=50, n=16, **act) for act in (TANH, RELU)),
    *(_case("cnn", 5, 128, size=8, b=50, n=12, **act) for act in (TANH, RELU)),
    *(_case("cnn", 10, 256, size=8, b=50, on="digits", **act) for act in (TANH, RELU)),
    *(_case("cnn", depth, 256, size=8, b=50, on="white", **RELU) for depth in (5, 10)),
    _case("cnn", 10, 256, size=8, b=50, activation="tanh", sigma_w=1.0, sigma_b=0.2),
    _case("cnn", 10, 256, size=8, b=50, activation="relu", sigma_w=1.2, sigma_b=0.2),
    *(_case("cnn", 10, 256, size=8, b=50, padding_mode="zeros", **act) for act in (TANH, RELU)),
    _case("cnn", 8, 512, size=8, b=50, n=6, **RELU),
    _case("cnn", 8, 256, size=8, b=50, activation="gelu", sigma_b=0.2),
    _case("cnn", 6, 192, size=8, b=50, activation="elu", sigma_b=0.2),
    _case("vgg", 11, size=32, b=50, **PLAIN),
    _case("resnet", 20, size=16, b=50, n=12, **PLAIN),
    _case("resnet", 20, size=16, b=50, width=64, **PLAIN),
    _case("resnet", 20, size=16, b=50, n=10, scaling="stable", **PLAIN),
    *(_case("transformer", depth, 128, **WORDS) for depth in (2, 4)),
    *(_case("transformer", 4, width, **WORDS, placement="post") for width in (128, 256)),
    *(_case("transformer", 4, width, **WORDS, **LLAMA) for width in (128, 256)),
    _case("transformer", 4, 256, **WORDS, sigma_qk=9.0),
    *(_case("vit", depth, width, size=16, b=32) for depth, width in ((4, 128), (3, 256))),
)  # fmt: skip
HELD_OUT = (
    _case("resnet", 20, size=16, b=50, on="digits", width=48),
    _case("resnet", 32, size=16, b=50, width=24),
    _case("resnet", 56, size=16, b=50, n=6, width=16),
    _case("resnet", 20, size=16, b=50, on="digits", width=32, scaling="stable"),
    _case("resnet", 20, size=16, b=50, width=32, normalisation="group"),
    _case("vgg", 13, size=32, b=50, width=24),
    _case("vgg", 16, size=32, b=50, on="digits", width=32),
    _case("vgg", 11, size=32, b=50, width=48, activation="elu"),
    _case("vgg", 13, size=32, b=50, width=32, activation="tanh"),
    _case("cnn", 7, 192, size=8, b=50, on="digits", activation="elu", sigma_b=0.2),
    _case("cnn", 15, 128, size=8, b=50, padding_mode="zeros", **TANH),
    _case("cnn", 8, 192, size=16, b=50, strides=(2, 5), padding_mode="zeros", **RELU),
    _case("cnn", 6, 320, size=8, b=50, activation="gelu", sigma_b=0.2),
    _case("cnn", 12, 96, size=8, b=50, on="digits", n=10, activation="tanh", sigma_w=1.0, sigma_b=0.2),
    _case("cnn", 7, 48, size=8, b=50, on="digits", n=12, **RELU),
    _case("cnn", 9, 160, size=8, b=50, activation="swish", sigma_b=0.2),
    _case("cnn", 5, 128, size=8, b=50, head="flatten", **TANH),
    _case("cnn", 7, 128, size=8, b=50, head="flatten", **RELU),
    _case("vgg", 11, size=32, b=50, n=10, width=32, **PLAIN),
    _case("resnet", 20, size=16, b=50, n=10, width=32, scaling="stable", **PLAIN),
    _case("resnet", 32, size=16, b=50, on="digits", width=48, scaling="stable", **PLAIN),
    _case("transformer", 6, 192, **WORDS, residual="stable"),
    _case("transformer", 3, 192, **WORDS, **LLAMA, kv_heads=1),
    _case("transformer", 2, 192, **WORDS, placement="post", sigma_qk=4.0),
    _case("vit", 4, 192, size=16, b=32, on="digits", readout="mean"),
)
#: Kinds of networks that have one entry.
GROUPS = (
    ("normalised convolutional", "normalised residual"), ("convolutional",), ("residual",), ("attention",),
)  # fmt: skip


def pruned(case: Case, seed: int) -> tuple[np.ndarray, float]:
    """Fraction kept (n_s, L) by one network pruned in plain torch, and its critical sparsity."""
    import torch
    from torch import nn

    net, (inputs, targets) = case.network, case.data
    model = net.to_torch(seed)
    model.train()
    x = torch.as_tensor(inputs, dtype=torch.float32)
    x = x if case.images == "tokens" else x.reshape(len(inputs), 3, case.size, case.size)
    loss = nn.functional.cross_entropy(model(x), torch.as_tensor(targets))
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    gradients = torch.autograd.grad(loss, weights)
    scores = [(w * g).detach().abs().numpy().ravel() for w, g in zip(weights, gradients, strict=True)]
    together = np.sort(np.concatenate(scores))
    thresholds = [together[round(s * len(together))] for s in SPARSITIES]
    kept = np.array([[float((one >= t).mean()) for one in scores] for t in thresholds])
    weakest = min(one.max() for one in scores)
    return kept, float((together <= weakest).mean())


def compared(case: Case, kept: np.ndarray, critical: np.ndarray) -> dict[str, Any]:
    """A row of the table, from what `pruned` gave for every seed, (seeds, n_s, L) and (seeds,)."""
    net = case.network
    started = time.process_time()
    laws = theory_laws(net, "snip", case.data, seed=0).laws
    spent = time.process_time() - started
    mean, std, _, _ = allocate_graph(laws, np.array(SPARSITIES))
    drawn, _ = draw_critical_sparsity(laws[0], seed=0)
    error = np.abs(mean - kept.mean(axis=0)).mean(axis=1)
    spread = kept.std(axis=0, ddof=1)
    gap = np.log10(1 - np.median(drawn)) - np.log10(1 - np.median(critical))
    return {
        "network": case.name, "held_out": case in HELD_OUT, "kind": kind_of(net), "width": size_of(net)[0],
        "depth": net.depth, "seeds": len(kept),
        **{f"mae_{s}": float(e) for s, e in zip(SPARSITIES, error, strict=True)},
        "noise": float(spread.mean() / np.sqrt(len(kept))), "std": float(std.mean()),
        "measured_std": float(spread.mean()), "s_cr_gap": float(gap), "seconds": spent,
    }  # fmt: skip


def measure() -> None:
    """Fills the table."""
    import pandas as pd

    rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    for case in (*FITTED, *HELD_OUT):
        if any(row["network"] == case.name for row in rows):
            continue
        found = [pruned(case, seed) for seed in range(case.seeds)]
        kept, critical = (np.array(part) for part in zip(*found, strict=True))
        rows.append(compared(case, kept, critical))
        pd.DataFrame(rows).to_csv(TABLE, index=False, float_format="%.4g")
        print(case.name, *(f"{rows[-1][f'mae_{s}']:.4f}" for s in SPARSITIES), flush=True)


def fit() -> None:
    """Writes the error model and prints how far it holds on the configurations held out."""
    import pandas as pd

    table = pd.read_csv(TABLE)
    entries = []
    for kinds in GROUPS:
        here = table[table["kind"].isin(kinds)]
        fitted = here[~here["held_out"]]
        constant, slope = _fitted(fitted)
        factor = _factor(fitted)
        entries.append(
            {
                "kinds": list(kinds), "constant": _rounded(constant), "slope": _rounded(slope),
                "bound_factor": _rounded(max(factor, 1.5)),
                **{of: [float(fitted[of].min()), float(fitted[of].max())] for of in ("width", "depth")},
                "configurations": len(fitted),
            }
        )  # fmt: skip
        for name, rows in (("fitted", fitted), ("held out", here[here["held_out"]])):
            expected = entries[-1]["constant"] + entries[-1]["slope"] / np.asarray(rows["width"])
            under = (_errors(rows) <= entries[-1]["bound_factor"] * expected[:, None]).all(axis=1).mean()
            print(
                f"{' and '.join(kinds)}, {name}: {len(rows)} configurations, error "
                f"{_errors(rows).mean():.4f} (expected {expected.mean():.4f}), under the bound at every "
                f"sparsity {under:.0%}"
            )
    MODEL.write_text(
        json.dumps({"sparsity": [0.8, 0.98], "kept": entries}, indent=1) + "\n", encoding="utf-8"
    )


def _errors(table: Any) -> np.ndarray:
    """Less what the measurement's noise adds, (n, n_s); no less than half of that noise, which hides them."""
    measured = table[[f"mae_{s}" for s in SPARSITIES]].to_numpy()
    noise = table["noise"].to_numpy()[:, None]
    return np.sqrt(np.maximum(measured**2 - (HALF_NORMAL * noise) ** 2, (0.5 * noise) ** 2))


def _fitted(table: Any) -> tuple[float, float]:
    """Constant and slope ≥ 0 of the errors' means, in relative terms."""
    from scipy.optimize import nnls

    errors, width = _errors(table).mean(axis=1), table["width"].to_numpy()
    design = np.stack([np.ones(len(width)), 1.0 / width], axis=1)
    size = np.full(len(width), errors.mean())
    for _ in range(50):
        found, _ = nnls(design / size[:, None], errors / size)
        size = np.maximum(design @ found, 1e-4)
    return float(found[0]), float(found[1])


def _factor(table: Any) -> float:
    """What the largest error over the sparsities stays under in LEVEL of all configurations, as a multiple of
    what the others let expect."""
    found = []
    for at in range(len(table)):
        constant, slope = _fitted(table.drop(table.index[at]))
        own = table.iloc[[at]]
        found.append(float(_errors(own).max()) / (constant + slope / float(own["width"].iloc[0])))
    return float(np.quantile(found, LEVEL))


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.theory", description=__doc__)
    parser.add_argument("action", choices=("measure", "fit"))
    {"measure": measure, "fit": fit}[parser.parse_args().action]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
