"""The network and the data that a command's options describe."""

from __future__ import annotations

import argparse
import os
import zipfile
from typing import Any, cast

import numpy as np

from .. import checks
from ..architecture import Architecture, Init, mlp
from ..data import DataSummary, digits
from ..errors import ArgumentError, DataError

KINDS = ("mlp",)


def network(args: argparse.Namespace) -> tuple[Architecture, DataSummary | None]:
    """The architecture, and the batch it is scored on (None: the library's stand-in).

    Raises:
        EOCError: an option that the library refuses, or data that do not fit.
    """
    if args.kind not in KINDS:
        raise ArgumentError(f"kind must be 'mlp', the only one so far, got {args.kind!r}")
    if args.sigma_b is not None and args.init != "eoc":
        raise ArgumentError("sigma_b goes with --init eoc only; other scales are --init SIGMA_W,SIGMA_B")
    data = _load(args.data, args.batch)
    features, classes = (64, 10) if data is None else (data[0][0].size, _classes(data[1]))
    net = mlp(
        args.depth,
        args.width,
        activation=args.activation,
        in_features=features if args.in_features is None else args.in_features,
        out_features=classes if args.out_features is None else args.out_features,
        init=cast(Init, args.init),
        sigma_b=args.sigma_b,
        law=args.law,
    )
    return net, None if data is None else net.summarise(data)


def describe(args: argparse.Namespace, net: Architecture, data: DataSummary | None) -> str:
    """The network and its batch in one line."""
    layer = net.layers[min(1, net.depth - 1)]
    act = net.layers[0].activation
    name = "linear" if act is None else act.name
    scales = f"sigma_w {layer.sigma_w:.6g}, sigma_b {layer.sigma_b:.6g}"
    batch = "uncorrelated inputs" if data is None else f"{data.size} inputs of {os.path.basename(args.data)}"
    init = f" ({args.init})" if isinstance(args.init, str) else ""
    return f"{name}, {net.depth} weight layers, width {args.width}, {scales}{init}; {args.criterion}, {batch}"


def _load(name: str, batch: int | None) -> tuple[np.ndarray, np.ndarray] | None:
    """(inputs, targets) of ``digits`` or of a .npz file; None for ``none``."""
    if name == "none":
        if batch is not None:
            raise ArgumentError("batch goes with --data digits or --data FILE.npz only")
        return None
    if name == "digits":
        return digits(100 if batch is None else batch)
    if not name.endswith(".npz"):
        raise ArgumentError(f"data must be digits, none or a FILE.npz, got {name!r}")
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
    except (KeyError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"data must be {wanted}, got {name!r} ({reason})") from None
    numeric = inputs.dtype.kind in "biuf" and targets.dtype.kind in "biuf"
    if not numeric or inputs.ndim < 2 or not inputs.size or targets.shape != inputs.shape[:1]:
        raise DataError(
            f"data must be {wanted}, got {inputs.dtype} {inputs.shape} and {targets.dtype} {targets.shape}"
        )
    return inputs, targets


def _classes(targets: np.ndarray) -> int:
    largest: Any = targets.max()
    if not np.isfinite(largest) or largest < 0:
        raise DataError(f"targets must be class numbers >= 0, got {largest}")
    return int(largest) + 1
