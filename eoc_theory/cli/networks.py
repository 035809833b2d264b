"""The network and the data that a command's options describe."""

from __future__ import annotations

import argparse
import os
import zipfile
from typing import Any, cast

import numpy as np

from ..base import checks
from ..base.suggestions import did_you_mean
from ..errors import ArgumentError, DataError
from ..networks.architecture import Architecture, Init, mlp
from ..networks.builders import cnn, resnet, vgg
from ..signals.data import DataSummary, digits, digits_images
from ..signals.datasets import NAMES, SETS, classes_of, load_images

KINDS = ("mlp", "cnn", "resnet", "stable-resnet", "vgg")

#: Options that only some kinds of networks have, with these kinds.
_OWN = {
    "in_features": ("mlp",),
    "image": ("cnn", "resnet", "stable-resnet", "vgg"),
    "padding": ("cnn",),
    "normalisation": ("resnet", "stable-resnet", "vgg"),
    "mode": ("resnet", "stable-resnet", "vgg"),
}

#: Options that describe a network, with their defaults.
_DESCRIBED = {
    "activation": None,
    "depth": None,
    "width": None,
    "kind": "mlp",
    "init": "eoc",
    "sigma_b": None,
    "law": None,
    "out_features": None,
    **dict.fromkeys(_OWN),
}

#: Inputs where neither the data nor --image say what they are.
DEFAULT_IMAGE = (3, 32, 32)


def network(args: argparse.Namespace) -> tuple[Architecture, DataSummary | None]:
    """The architecture, and the batch it is scored on (None: the library's stand-in).

    Raises:
        EOCError: an option that the library refuses, or data that do not fit.
    """
    checks.one_of("kind", args.kind, KINDS)
    for option, kinds in _OWN.items():
        if getattr(args, option) is not None and args.kind not in kinds:
            raise ArgumentError(f"{option} goes with --kind {' or '.join(kinds)} only, got {args.kind}")
    if args.width is None and args.kind in ("mlp", "cnn"):
        raise ArgumentError(f"width must be given for --kind {args.kind}: --width N")
    if args.activation is None:
        if args.kind in ("mlp", "cnn"):
            raise ArgumentError(f"activation must be given for --kind {args.kind}: --activation ACT")
        args.activation = "relu"
    if args.sigma_b is not None and args.init != "eoc":
        raise ArgumentError("sigma_b goes with --init eoc only; other scales are --init SIGMA_W,SIGMA_B")
    data = load_data(args)
    classes = args.out_features
    if classes is None:
        # A batch may lack some of the classes that its set or file has.
        known = data is None or args.data in NAMES
        classes = classes_of(args.data) if known else _classes(args.data)
    net = _build(args, _input_shape(args, data), classes)
    return net, None if data is None else net.summarise(data)


def described_only(args: argparse.Namespace) -> None:
    """Refuses options that describe a network where MODULE:FACTORY names one.

    Raises:
        ArgumentError: one that is given.
    """
    for option, default in _DESCRIBED.items():
        if getattr(args, option) != default:
            raise ArgumentError(f"{option} describes a network, and MODULE:FACTORY {args.model!r} names one")


def _build(args: argparse.Namespace, shape: tuple[int, ...], classes: int) -> Architecture:
    laws: dict[str, Any] = {
        "activation": args.activation,
        "init": cast(Init, args.init),
        "sigma_b": args.sigma_b,
        "law": args.law,
    }
    if args.kind == "mlp":
        return mlp(args.depth, args.width, in_features=shape[0], out_features=classes, **laws)
    laws |= {"input_shape": shape, "classes": classes}
    if args.kind == "cnn":
        return cnn(args.depth, args.width, padding_mode=args.padding or "circular", **laws)
    kind = checks.one_of("normalisation", args.normalisation or "batch", ("batch", "group", "layer", "none"))
    laws["normalisation"] = None if kind == "none" else kind
    laws["training"] = (
        checks.one_of("mode", args.mode or "training", ("training", "evaluation")) == "training"
    )
    if args.width is not None:
        laws["width"] = args.width
    if args.kind == "vgg":
        return vgg(args.depth, **laws)
    return resnet(args.depth, scaling="stable" if args.kind == "stable-resnet" else "none", **laws)


def _input_shape(args: argparse.Namespace, data: tuple[np.ndarray, np.ndarray] | None) -> tuple[int, ...]:
    """(features,) of a fully connected network, (C, H, W) of another."""
    if args.kind == "mlp":
        features = 64 if data is None else data[0][0].size
        return (features if args.in_features is None else args.in_features,)
    given = None if args.image is None else tuple(args.image)
    if data is None:
        return DEFAULT_IMAGE if given is None else given
    found = data[0].shape[1:]
    if given is None and len(found) == 1:
        raise ArgumentError(
            f"image must say which shape the {found[0]} entries of an input have: --image C,H,W"
        )
    return found if given is None else given


def describe(args: argparse.Namespace, net: Architecture, data: DataSummary | None) -> str:
    """The network and its batch in one line."""
    layer = net.layers[min(1, net.depth - 1)]
    act = net.layers[0].activation
    facts = [
        "linear" if act is None else act.name,
        "1 weight layer" if net.depth == 1 else f"{net.depth} weight layers",
        f"width {net.layers[0].fan_out}" if net.depth > 1 else f"{net.in_features} features",
    ]
    if args.kind != "mlp":
        facts[0] = f"{args.kind} of {facts[0]}"
        facts.append(f"inputs {net.input_shape}")
    if args.kind in _OWN["normalisation"]:
        facts.append(_normalisation(args))
    init = f" ({args.init})" if isinstance(args.init, str) else ""
    facts += [f"sigma_w {layer.sigma_w:.6g}", f"sigma_b {layer.sigma_b:.6g}{init}"]
    return f"{', '.join(facts)}; {args.criterion}, {batch_of(args, data)}"


def batch_of(args: argparse.Namespace, data: DataSummary | tuple[Any, Any] | None) -> str:
    """What is scored on, in a few words."""
    if data is None:
        return "uncorrelated inputs"
    size = data.size if isinstance(data, DataSummary) else len(data[1])
    return f"{size} {'input' if size == 1 else 'inputs'} of {os.path.basename(args.data)}"


def _normalisation(args: argparse.Namespace) -> str:
    kind = args.normalisation or "batch"
    if kind == "batch":
        return f"batch normalisation in {args.mode or 'training'} mode"
    return "no normalisation" if kind == "none" else f"{kind} normalisation"


def load_data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray] | None:
    """(inputs, targets) of an image set or of a .npz file; None for ``none``."""
    name, batch = args.data, args.batch
    if args.data_folder is not None and name not in SETS:
        raise ArgumentError(f"data_folder goes with --data {', '.join(SETS)} only, got {name!r}")
    if name == "none":
        if batch is not None:
            raise ArgumentError("batch goes with --data of an image set or FILE.npz only")
        return None
    if name == "digits":
        count = 100 if batch is None else batch
        return digits(count) if args.kind == "mlp" else digits_images(count, args.image or DEFAULT_IMAGE)
    if name in SETS:
        return load_images(name, 100 if batch is None else batch, folder=args.data_folder)
    if not name.endswith(".npz"):
        meant = did_you_mean(name, ("digits", *SETS, "none"))
        accepted = f"digits, {', '.join(SETS)}, none or a FILE.npz"
        raise ArgumentError(f"data must be {accepted}, got {name!r}{meant}")
    inputs, targets = _read_npz(name)
    if batch is None:
        return inputs, targets
    batch = checks.integer("batch", batch, minimum=1)
    if batch > len(inputs):
        raise ArgumentError(f"batch must be at most {len(inputs)}, the inputs in {name!r}, got {batch}")
    return inputs[:batch], targets[:batch]


def _read_npz(name: str) -> tuple[np.ndarray, np.ndarray]:
    wanted = "an .npz file with arrays 'inputs' (batch, …) and 'targets' (batch,)"
    try:
        with np.load(name, allow_pickle=False) as file:
            inputs, targets = file["inputs"], file["targets"]
    except OSError as error:
        raise DataError(
            f"data file {name!r} cannot be read: {error.strerror or 'not an .npz file'}"
        ) from None
    except KeyError as missing:
        raise DataError(f"data must be {wanted}, got {name!r} ({missing.args[0]})") from None
    except (ValueError, EOFError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile):
        # NumPy's own words advise to unpickle it; a header may promise more than there is memory.
        raise DataError(f"data must be {wanted}, got {name!r} (not an archive of plain arrays)") from None
    numeric = inputs.dtype.kind in "biuf" and targets.dtype.kind in "biuf"
    if not numeric or inputs.ndim < 2 or not inputs.size or targets.shape != inputs.shape[:1]:
        raise DataError(
            f"data must be {wanted}, got {inputs.dtype} {inputs.shape} and {targets.dtype} {targets.shape}"
        )
    return inputs, targets


def _classes(name: str) -> int:
    """Number of classes in all of a file that `load_data` has read."""
    with np.load(name, allow_pickle=False) as file:
        largest: Any = file["targets"].max()
    if not np.isfinite(largest) or largest < 0:
        raise DataError(f"targets must be class numbers >= 0, got {largest}")
    return int(largest) + 1
