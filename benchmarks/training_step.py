"""Predicting a convolutional network against training it for one step of 128 images.

usage: python -m benchmarks.training_step

Both in one process, in turn, with the threads that torch and NumPy choose; a step is one forward and backward
pass in torch. Then what predicting VGG-16 and ResNet-50 for images of 224×224 takes, in a process of its own:
seconds of the whole process with its imports, and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

import eoc_theory as eoc
from benchmarks.ranking import peak

REPEATS, BATCH, SPARSITY = 7, 128, 0.95
#: Networks for images of 32×32, and for 224×224.
SMALL = {"ResNet-20": lambda: eoc.resnet(20), "ResNet-32": lambda: eoc.resnet(32)}
LARGE = {
    "VGG-16": lambda: eoc.vgg(16, input_shape=(3, 224, 224), classes=1000),
    "ResNet-50": lambda: eoc.resnet(50, form="imagenet"),
}


def alternating(name: str) -> tuple[list[float], list[float]]:
    """Seconds of predicting and of a training step, `REPEATS` times in turn after one of each."""
    import torch

    net, data = SMALL[name](), eoc.digits_images(100)
    model = net.to_torch(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (BATCH,), generator=generator)
    predicting, training = [], []
    for seed in range(REPEATS + 1):
        started = time.perf_counter()
        eoc.predict_pruning(net, SPARSITY, data=data, seed=seed)
        between = time.perf_counter()
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        predicting.append(between - started)
        training.append(time.perf_counter() - between)
    return predicting[1:], training[1:]


def alone(name: str) -> dict[str, float | str]:
    """Seconds of predicting a large network, and the peak memory of this process."""
    net = LARGE[name]()
    started = time.perf_counter()
    prediction = eoc.predict_pruning(net, SPARSITY)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gib": peak() / 2**30, "notes": "; ".join(prediction.notes)}


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alone", choices=list(LARGE), help=argparse.SUPPRESS)
    if name := parser.parse_args(arguments).alone:
        print(json.dumps(alone(name)))
        return
    print(f"{'32 x 32':12} {'predicting':>12} {f'step of {BATCH}':>12} {'ratio':>7}")
    for name in SMALL:
        ours, peer = (np.array(seconds) for seconds in alternating(name))
        medians = f"{np.median(ours):11.3f}s {np.median(peer):11.3f}s"
        print(f"{name:12} {medians} {np.median(peer / ours):6.2f}x", flush=True)
    print(f"\n{'224 x 224':12} {'predicting':>12} {'process':>12} {'peak memory':>12}")
    for name in LARGE:
        started = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.training_step", "--alone", name]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        whole = time.perf_counter() - started
        row = f"{name:12} {found['seconds']:11.2f}s {whole:11.2f}s {found['gib']:8.2f} GiB"
        print(f"{row}   {found['notes']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
