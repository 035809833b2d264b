"""Which connections survive, neuron by neuron (Hayou, Ton, Doucet & Teh 2021, figure 1)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ArgumentError
from .style import COLUMN, finish, label, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...pytorch.measure.measure import PruningMeasurement

Array = np.ndarray
Masks = Mapping[str, Array]


def plot_connections(
    networks: Mapping[str, PruningMeasurement | Masks],
    path: str | os.PathLike[str] | None = None,
    *,
    layers: Sequence[str] = (),
) -> Figure:
    """Fraction of each neuron's incoming weights that survive: rows are layers, columns neurons.

    Args:
        networks: title → `PruningMeasurement` of one sparsity, or masks by layer name, each of shape
            (fan_out, fan_in). Networks stand side by side.
        path: file to write (png, pdf or svg), or None.
        layers: names of layers whose whole masks are drawn below, a black dot for every weight that is kept.

    Raises:
        ArgumentError: no network, no masks or several sets of them, a layer that is not there, or `path`
            cannot be written.
    """
    if not isinstance(networks, Mapping) or not networks:
        raise ArgumentError("networks must map titles to measurements or masks, got none")
    found = {title: _masks(title, network) for title, network in networks.items()}
    for name in layers:
        missing = [title for title, masks in found.items() if name not in masks]
        if missing:
            raise ArgumentError(
                f"layers must be names of masked layers, got {name!r}, which {missing[0]!r} lacks"
            )
    with style():
        columns = len(found)
        width = max(COLUMN, 1.7 * columns)
        each = width / columns
        figure = new_figure(width, each + 0.75 + (each + 0.15) * len(layers) * 0.95)
        grid = figure.subplots(1 + len(layers), columns, squeeze=False)
        for column, (title, masks) in enumerate(found.items()):
            image = _draw_fractions(grid[0, column], title, masks, first=column == 0)
            for row, name in enumerate(layers, start=1):
                _draw_mask(grid[row, column], name, masks[name], first=column == 0)
        bar = figure.colorbar(image, ax=list(grid[0]), location="top", shrink=0.75, aspect=30, pad=0.02)
        bar.set_label("fraction of a neuron's incoming weights kept")
        return finish(figure, path)


def incoming_fractions(masks: Masks) -> Array:
    """Fraction of incoming weights kept, shape (layers, neurons of the widest); NaN beyond a layer's own."""
    rows = [mask.reshape(len(mask), -1).mean(axis=1) for mask in masks.values()]
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def _masks(title: str, network: Any) -> dict[str, Array]:
    masks = network if isinstance(network, Mapping) else getattr(network, "masks", None)
    if not isinstance(masks, Mapping) or not masks:
        raise ArgumentError(
            f"networks must hold masks of one sparsity by layer, got {type(masks).__name__} for {title!r}"
        )
    arrays = {name: np.asarray(mask) for name, mask in masks.items()}
    for name, mask in arrays.items():
        if mask.ndim < 2 or mask.size == 0:
            raise ArgumentError(
                f"masks must have shape (fan_out, fan_in), got {mask.shape} for layer {name!r}"
            )
    return arrays


def _draw_fractions(ax: Axes, title: str, masks: Masks, *, first: bool) -> Any:
    table = incoming_fractions(masks)
    depth, neurons = table.shape
    ax.set_facecolor("0.85")
    image = ax.imshow(
        np.ma.masked_invalid(table),
        cmap="cividis",
        vmin=0.0,
        vmax=1.0,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, neurons + 0.5, depth + 0.5, 0.5),
    )
    ax.set_box_aspect(1.0)
    ax.set_title(label(title))
    ax.set_xlabel("neuron")
    if first:
        ax.set_ylabel("weight layer")
    return image


def _draw_mask(ax: Axes, name: str, mask: Array, *, first: bool) -> None:
    flat = mask.reshape(len(mask), -1)
    ax.imshow(
        flat,
        cmap="Greys",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, flat.shape[1] + 0.5, len(flat) + 0.5, 0.5),
    )
    ax.set_box_aspect(1.0)
    ax.set_title(f"{label(name)}: {flat.mean():.1%} kept")
    ax.set_xlabel("from neuron")
    if first:
        ax.set_ylabel("to neuron")
