"""One of every class of results that public functions return, as code that a notebook can run."""

from __future__ import annotations

#: What the examples are made of.
SETUP = """
import numpy as np
import torch

import eoc_theory as eoc

torch.manual_seed(0)
net = eoc.mlp(6, 12, in_features=16, out_features=4)
residual = eoc.resnet(8, width=4, input_shape=(1, 8, 8), classes=4)
module = net.to_torch(seed=1)
attentive = torch.nn.Sequential(
    torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.nn.Flatten(), torch.nn.Linear(32, 3)
)
batch = (np.random.default_rng(0).standard_normal((20, 16)), np.arange(20) % 4)

def scales_of(model, data):
    with eoc.watch_layers(model) as watch:
        model(torch.as_tensor(data[0], dtype=torch.float32)).square().mean().backward()
    return watch.scales


tokens = (torch.randn(12, 4, 8), torch.arange(12) % 3)
"""

#: Class → expressions. Those with a picture have `plot`.
RESULTS = {
    "CriticalPoint": [
        "eoc.edge_of_chaos('tanh', sigma_b=0.2)",
        "eoc.edge_of_chaos('gelu')",
        "eoc.edge_of_chaos('relu', dropout=0.1)",
        "eoc.edge_of_chaos('sin', sigma_b=1.0)",
        "eoc.edge_of_chaos('tanh(x)' + ' + 0.001*x' * 60, sigma_b=0.1)",
    ],
    "CriticalCurve": [
        "eoc.critical_curve('tanh', sigma_b=np.linspace(0, 1, 20))",
        "eoc.critical_curve('relu', sigma_b=[0, 0.5])",
    ],
    "MeanField": ["eoc.MeanField('relu', 2.0, 0.1)", "eoc.MeanField('tanh', 1.5, 0.2, dropout=0.1)"],
    "PhaseDiagram": [
        "eoc.phase_diagram('tanh', sigma_w=np.linspace(0.5, 3, 12), sigma_b=np.linspace(0, 1, 11))",
        "eoc.phase_diagram('relu', sigma_w=[1.0, 2.0], sigma_b=[0.0, 0.1], dropout=0.2)",
    ],
    "AttentionPhase": [
        "eoc.attention_phase(np.geomspace(0.1, 32, 8), np.geomspace(0.05, 5, 7))",
    ],
    "LayerScales": ["scales_of(net.to_torch(seed=3), batch)"],
    "Propagation": ["eoc.propagate(net)"],
    "SummaryPropagation": ["eoc.propagate_summary(net, batch=20)"],
    "GraphPropagation": ["residual.propagate()"],
    "DataSummary": ["net.summarise(batch)", "net.summarise()"],
    "PruningPrediction": [
        "eoc.predict_pruning(net, 0.9)",
        "eoc.predict_pruning(net, np.linspace(0, 0.99, 40), criterion='magnitude')",
        "eoc.predict_pruning(residual, [0.5, 0.9], samples=2)",
        "eoc.predict_pruning(attentive, 0.9, data=tokens, samples=2)",
    ],
    "CollapsePrediction": [
        "eoc.predict_collapse(net)",
        "eoc.predict_collapse(residual, criterion='synflow-oneshot')",
    ],
    "PruningMeasurement": [
        "eoc.measure_pruning(module, 0.9, data=batch)",
        "eoc.measure_pruning(module, [0.5, 0.9], data=batch, collapse=False)",
        "eoc.measure_pruning(module, [0.5, 0.9], criterion='magnitude', masks=False)",
    ],
    "Comparison": [
        "eoc.compare(net, [0.5, 0.9], data=batch, seeds=2)",
        "eoc.compare(residual, 0.9, seeds=1)",
    ],
    "Design": [
        "eoc.design(net, 0.9, networks=1)",
        "eoc.design(residual, 0.95, criterion='magnitude', networks=0)",
    ],
    "Diagnosis": [
        "eoc.diagnose(eoc.mlp(20, 12, init=(2.5, 0.2)), sparsity=0.95)",
        "eoc.diagnose(residual)",
        "eoc.diagnose(attentive, data=tokens)",
    ],
    "SnipBound": ["eoc.snip_bound(100, 100, chi=0.5)", "eoc.snip_bound(np.array([100, 200]), 100, chi=0.5)"],
    "MagnitudeBound": ["eoc.magnitude_bound([1.0, 0.5, 1.0], [1.0, 1.0, 1.0], 50)"],
    "Trainability": [
        "eoc.trainability(module, data=batch, inputs=4)",
        "eoc.trainability(net, sparsity=0.5, data=batch)",
    ],
    "Rescaling": ["eoc.rescale_(net.to_torch(seed=2), sigma_w=1.2)"],
}

#: Classes with a picture.
DRAWN = (
    "AttentionPhase",
    "CriticalCurve",
    "PhaseDiagram",
    "PruningPrediction",
    "CollapsePrediction",
    "PruningMeasurement",
    "Comparison",
    "Design",
    "Diagnosis",
    "Trainability",
)
