"""The steps upwards: methods that call code which is built on top of them.

Imports point downwards only. Yet a result draws itself, an architecture becomes a torch model, and torch
evaluates an activation, because people look for these as methods. Each step names the function that it calls,
which is imported when it is called. Nothing else may step upwards.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: All of them: the method that steps upwards, and the function that it calls.
STEPS = {
    "Activation.to_torch": "pytorch.activations:to_torch",
    "Activation.expression": "activations.symbolic:read",
    "Activation.__reduce__": "activations.resolve:activation",
    "activation(<of torch>)": "pytorch.activations:from_torch",
    "Architecture.from_torch": "pytorch.read:read_architecture",
    "net=<torch model>": "pytorch.weightless:read_network",
    "net=<sampled>": "pytorch.sample.door:sampled_network",
    "net=<torch model or factory>": "pytorch.sample.door:as_network",
    "data=<of torch>": "pytorch.loading:as_pair",
    "data=<several inputs>": "pytorch.loading:as_several",
    "Architecture.to_torch": "pytorch.models:build_model",
    "Architecture.propagate": "propagation.any_network:propagate_network",
    "AttentionPhase.plot": "reports.plots:plot_attention_phase",
    "CollapsePrediction.plot": "reports.plots:plot_collapse",
    "Comparison.plot": "reports.plots:plot_comparison",
    "CriticalCurve.plot": "reports.plots:plot_critical_curve",
    "Design.<table>": "reports.design.summary_text:table",
    "Design.plot": "reports.design.picture:plot_design",
    "Design.verdict": "reports.design.summary_text:verdict",
    "Design.__str__": "reports.design.summary_text:as_text",
    "Diagnosis.<table>": "reports.diagnosis.table:table",
    "Drawable.<png>": "reports.plots.files:as_png",
    "Drawable.plot_interactive": "reports.plots.interactive:draw",
    "Diagnosis.plot": "reports.diagnosis.picture:plot_diagnosis",
    "Diagnosis.__str__": "reports.diagnosis.table:as_text",
    "Diagnosis.to_html": "reports.diagnosis.page:write_page",
    "Diagnosis.paragraphs": "reports.diagnosis.verdict:paragraphs",
    "Diagnosis.paragraphs of sampled networks": "reports.diagnosis.sampled_verdict:paragraphs",
    "PhaseDiagram.plot": "reports.plots:plot_phase_diagram",
    "PruningMeasurement.plot": "reports.plots:plot_measurement",
    "PruningPrediction.plot": "reports.plots:plot_prediction",
    "Trainability.plot": "reports.plots:plot_trainability",
}


def upward(step: str) -> Any:
    """The function that a step of `STEPS` calls, imported now."""
    module, _, name = STEPS[step].partition(":")
    return getattr(import_module(f"eoc_theory.{module}"), name)
