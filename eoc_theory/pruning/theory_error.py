"""How far the kept fractions that theory gives for a graph are off, by the network's width.

Networks of many widths were really pruned and compared (`python -m benchmarks.theory`, whose table and fit
this rests on): error = constant + slope/width for each kind of network, the width being the harmonic mean of
the hidden layers' channels. The bound is what nine in ten networks stay under at every sparsity.

Those with attention were transformers, with normalisation. Without any, scales add to what differs between
networks and between draws, and matrices of heads by heads are few channels wide: single blocks of linear
attention, talking heads and gates of positions, of 64 to 256 channels, were 0.004 to 0.065 off 40 to 64
sampled networks, two to three times what is expected of transformers (`UNNORMALISED`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from ..criteria.criterion import Criterion
from ..networks.architecture import Architecture
from ..networks.queries import is_normalised
from .error_model import Trust, beyond, kind_of, size_of

Array = np.ndarray

#: By how much errors of networks with attention and without normalisation are larger.
UNNORMALISED = 2.5


@lru_cache(maxsize=1)
def theory_errors() -> Mapping[str, Any]:
    """The fitted model: one entry for several kinds of networks."""
    return json.loads(files("eoc_theory.pruning").joinpath("theory_error.json").read_text(encoding="utf-8"))


def theory_trust(net: Architecture, criterion: Criterion, sparsity: Array) -> Trust:
    """Error of the mean fraction kept that `graph_theory.theory_laws` leads to, averaged over the layers.

    Args:
        net: a network with a graph; chains have an error of their own, in `error_model`.
        criterion: what ranks; errors are known of SNIP.
        sparsity: (n_s,).

    Returns:
        Expected error and bound, each (n_s,); nan where nothing like it was measured.
    """
    sparsity = np.asarray(sparsity, dtype=float)
    model, kind = theory_errors(), kind_of(net)
    entry = next((entry for entry in model["kept"] if kind in entry["kinds"]), None)
    if entry is None or criterion.label != "snip":
        unknown = np.full(sparsity.shape, np.nan)
        what = criterion.label if entry is not None else f"{kind} networks"
        return Trust(
            unknown,
            unknown,
            (f"expected error unknown: theory's {what} was not held against pruned networks",),
        )
    width, depth = size_of(net)
    alone = kind == "attention" and not is_normalised(net.as_graph())
    expected = (entry["constant"] + entry["slope"] / width) * (UNNORMALISED if alone else 1.0)
    expected = np.minimum(expected, 1.0) * (sparsity > 0)
    outside = ["attention without normalisation"] if alone else []
    outside += beyond("width", [width], entry["width"]) + beyond("depth", [depth], entry["depth"])
    outside += beyond("sparsity", sparsity[sparsity > 0], model["sparsity"])
    notes = (
        (f"expected error extrapolated beyond what was measured: {', '.join(outside)}",) if outside else ()
    )
    return Trust(expected, np.minimum(entry["bound_factor"] * expected, 1.0), notes)
