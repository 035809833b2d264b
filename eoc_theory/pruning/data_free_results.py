"""What the data-free predictions return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataFreeAllocation:
    """What pruning leaves of each of the L weight layers, as a law over initialisations.

    Attributes:
        criterion: the criterion's name.
        layers: names of the weight layers.
        weights: number of weights per layer, int64 (L,).
        sparsity: fractions of weights removed, (n_s,).
        kept: mean fraction of a layer's weights kept, (n_s, L).
        kept_std: its standard deviation over initialisations, (n_s, L).
        empty_probability: probability that the layer has lost all its weights, (n_s, L).
        collapse_probability: probability that some layer has, (n_s,).
    """

    criterion: str
    layers: tuple[str, ...]
    weights: np.ndarray
    sparsity: np.ndarray
    kept: np.ndarray
    kept_std: np.ndarray
    empty_probability: np.ndarray
    collapse_probability: np.ndarray


@dataclass(frozen=True)
class CollapseSamples:
    """The critical sparsity as a random variable over initialisations.

    Attributes:
        criterion: the criterion's name.
        critical_sparsity: independent draws of the smallest sparsity at which some layer has lost all its
            weights, (samples,).
        weakest_layer: probability that layer l is the first to collapse, (L,); where several go at once, they
            share.
    """

    criterion: str
    critical_sparsity: np.ndarray
    weakest_layer: np.ndarray
