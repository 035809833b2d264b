"""A last layer whose weights are the table that tokens are looked up in: how the two uses meet.

The gradient of such a weight is that of both uses: of the logits, and of every place where the token stands.
A token's row also lies in the residual stream at the token's own place, so that its own logit there is large,
and what that logit sends back lies along the row. Of other places rows are as good as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..networks.graph import Graph

Array = np.ndarray


@dataclass
class TiedTable:
    """The table of a weight layer.

    Attributes:
        table: position of the node that looks rows up.
        padding: token number whose row gets no gradient there.
        ids: token numbers of the inputs, (T, B).
        rows: that were looked up, (channels, T, B) in each repeat.
    """

    table: int
    padding: int | None
    ids: Array = field(default_factory=lambda: np.zeros((0, 0), int))
    rows: list[Array] = field(default_factory=list)

    def see(self, numbers: Array, rows: list[Array]) -> None:
        """What was looked up on the way forwards."""
        self.ids, self.rows = np.rint(numbers).astype(int), rows

    @property
    def _places(self) -> tuple[Array, Array, Array]:
        """Of each token's own logit in (classes, T, B)."""
        tokens, inputs = np.ix_(*map(np.arange, self.ids.shape))
        return self.ids, tokens, inputs

    def with_own_logits(self, logits: Array, x: Array, repeat: int, fan_in: int) -> Array:
        """Logits (classes, T, B) with each token's own one from the layer's input x (channels, T, B).

        Fewer channels than the layer's `fan_in` give its mean, and its fluctuations larger than they are.
        """
        if logits.shape[1:] != self.ids.shape or self.ids.max() >= len(logits):
            return logits
        rows = self.rows[repeat % len(self.rows)]
        own = np.einsum("ctb,ctb->tb", rows, x) * (fan_in / len(x))
        own = own.mean() + (own - own.mean()) * math.sqrt(min(1.0, len(x) / fan_in))
        logits = logits.copy()
        logits[self._places] = own
        return logits

    def sent_along(self, deltas: Sequence[Array], repeat: int) -> tuple[list[Array], Array | None]:
        """Gradients by the logits, in several draws, without those by the tokens' own logits; and what these
        send back along the rows, (channels, T, B)."""
        if deltas[0].shape[1:] != self.ids.shape or self.ids.max() >= len(deltas[0]):
            return list(deltas), None
        others = [delta.copy() for delta in deltas]
        for delta in others:
            delta[self._places] = 0.0
        own = np.mean([delta[self._places] for delta in deltas], axis=0, dtype=np.float32)
        return others, self.rows[repeat % len(self.rows)] * own

    def gradient(self, sent: Array, classes: int) -> Array:
        """Of the rows, (classes, channels), for gradients (channels, T, B) by what was looked up."""
        found = np.zeros((max(classes, int(self.ids.max()) + 1), len(sent)), sent.dtype)
        np.add.at(found, self.ids.reshape(-1), sent.reshape(len(sent), -1).T)
        if self.padding is not None:
            found[self.padding] = 0.0
        return found[:classes]


def tied_tables(graph: Graph) -> dict[int, TiedTable]:
    """Those of the weight layers, by their positions: a table goes by the name of the layer whose weights it
    is."""
    layers = {graph.nodes[at].layer.name: at for at in graph.weighted}
    found: dict[int, TiedTable] = {}
    for position, node in enumerate(graph.nodes):
        layer = node.layer
        if layer.vocabulary and layer.weighted is None and layer.name in layers:
            found[layers[layer.name]] = TiedTable(position, getattr(layer, "padding", None))
    return found
