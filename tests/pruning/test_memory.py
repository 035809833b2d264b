"""Peak memory of predictions, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What every measurement begins with: imports and first uses, whose memory is not counted.
START = """
import numpy as np
import eoc_theory as eoc

def status(entry):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(entry)).split()[1]) / 1024

def peak():
    # Not resource.getrusage: its peak is at least what the process that started this one held.
    return status("VmHWM")

def now():
    return status("VmRSS")

eoc.predict_pruning(eoc.mlp(3, 10), 0.5)
eoc.predict_collapse(eoc.mlp(3, 10))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux"),
]


def megabytes(code):
    """The numbers that the code prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path]),
    }
    ran = subprocess.run(
        [sys.executable, "-c", START + code], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return [float(number) for number in ran.stdout.split()]


def test_deep_chains_are_predicted_in_a_stream():
    code = """
before = peak()
for depth, sparsity in ((1000, 0.9), (2000, 0.5)):
    eoc.predict_pruning(eoc.mlp(depth, 100, activation="relu"), sparsity)
    print(peak() - before)
"""
    first, twice_as_deep = megabytes(code)
    assert first < 250
    assert twice_as_deep < 1.5 * first


def test_a_dense_network_is_diagnosed_in_little_more_than_a_gigabyte():
    code = """
import torch
from models import DenseNet40
eoc.diagnose(DenseNet40(), torch.zeros(2, 3, 32, 32))
print(peak())
"""
    assert megabytes(code)[0] < 1.2 * 1024


def test_ten_models_leave_little_more_than_one():
    code = """
import torch
left = []
for width in range(4, 24, 2):
    eoc.diagnose(eoc.resnet(8, width=width, input_shape=(3, 4, 4)))
    eoc.predict_collapse(eoc.mlp(8, 10 * width, activation="gelu", init=(1.4, 0.1 * width)))
    left.append(now())
print(left[0], left[-1])
"""
    first, last = megabytes(code)
    assert last < first + 300
