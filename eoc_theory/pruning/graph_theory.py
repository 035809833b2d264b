"""Score distributions of any network at infinite width, from its kernels; no network is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.one_thread import with_one_thread
from ..criteria.criterion import criterion as as_criterion
from ..criteria.distributions.magnitudes import magnitude_law
from ..networks.architecture import Architecture
from ..propagation.gaussian_graph import GaussianGraph
from ..propagation.graph_kernels import refuse_dependent_sums
from ..propagation.infinite_width import Cotangent
from ..propagation.sampled_graph import LayerSample, Scaled, layer_samples
from ..propagation.score_grid import GRID, STEP
from ..networks.downsample import within_reach
from ..criteria.distributions.gradients import max_law
from .allocation import NetworkLaws, quantiles_of
from .graph_distributions import GraphLaws

Array = np.ndarray


@with_one_thread
def theory_laws(net: Architecture, criterion: Any, data: Any = None, *, seed: int, repeats=4, inputs=30, largest=64, debug=None) -> GraphLaws:
    rule = as_criterion(criterion)
    net, batch, notes = within_reach(net, data, seed=seed, largest=largest)
    graph = net.as_graph()
    refuse_dependent_sums(graph)
    samples: dict[int, list[LayerSample]] = {}

    def take(number: int, repeat: int, g: Array) -> None:
        layer = graph.weight_layers[number]
        rng = np.random.default_rng([seed, 7, number, repeat])
        w = magnitude_law(layer).draw(rng, g.size, np.float32).reshape(g.shape)
        (found,) = layer_samples(Scaled(w * np.abs(g)))
        samples.setdefault(number, []).append(found)

    fields = GaussianGraph(graph, batch, inputs=inputs, repeats=repeats, seed=seed, take=take)
    logits = fields.forwards()
    top = Cotangent(logits, batch.targets[fields.panel.chosen], net.out_features)
    moments = fields.backwards(top)
    import os
    if os.environ.get('SAMP'): moments = fields.sampled
    elif not os.environ.get('NOL0'): moments[0] = fields.sampled[0]
    tails, nonzero, maxima = [], [], []
    for number in range(net.depth):
        own = samples[number]
        share = np.array([s.share for s in own])
        ms = np.array([s.log_rms for s in own])
        pooled = 0.5 * np.log(np.mean(np.exp(2 * (ms - ms.max())))) + ms.max()
        tail = np.mean([s.share * np.interp(GRID + pooled - s.log_rms, GRID, s.tail) for s in own], axis=0) / share.mean()
        tails.append(tail); nonzero.append(share.mean())
        rows = np.stack([s.row_maxima + s.log_rms - pooled for s in own])
        pos = np.where(np.isfinite(rows), (rows - GRID[0]) / STEP + 0.5, 0.0)
        maxima.append(max_law(np.clip(pos, 0, len(GRID) - 1).astype(np.int64), graph.weight_layers[number].fan_out))
    tails = np.array(tails)
    u = quantiles_of(tails)
    log_rms = 0.5 * moments
    if debug is not None: debug['corr']=fields.sampled-moments
    if debug is not None: debug['log_rms'] = log_rms
    t = (log_rms[:, None] + u)[None]
    return GraphLaws((NetworkLaws(tails, np.array(maxima), u, t, np.array(nonzero)[None], np.asarray(net.weights)),), notes)
