"""The same bits whatever else runs, in processes of their own whose caches are empty."""

import os
import subprocess
import sys

import numpy as np
import pytest

#: Calls that fill shared caches at the same time, each of them twice, and then once more one after the other.
COLD = r"""
import hashlib, sys, threading
import numpy as np
import eoc_theory as eoc

sys.setswitchinterval(float(sys.argv[1]))
order = np.random.default_rng(int(sys.argv[2])).permutation

def chain(act, **given):
    return eoc.mlp(12, 40, activation=act, in_features=20, **given)

def pruning(net, criterion="snip", **given):
    found = eoc.predict_pruning(net(), [0.5, 0.9], criterion=criterion, **given)
    return found.kept, found.kept_std, found.empty_probability, found.kept_error

def collapse(net, criterion="snip"):
    return eoc.predict_collapse(net(), criterion=criterion).samples

CALLS = [
    lambda: pruning(lambda: chain("sin")),
    lambda: pruning(lambda: chain("tanh")),
    lambda: pruning(lambda: chain("exp(-x*x)+x", init=(1.0, 0.3))),
    lambda: pruning(lambda: eoc.cnn(4, 16), samples=2),
    lambda: pruning(lambda: eoc.mlp(5, 300, activation="gelu", init=(1.4, 0.1))),
    lambda: pruning(lambda: chain("relu"), "grasp", samples=3),
    lambda: pruning(lambda: chain("relu"), "magnitude"),
    lambda: pruning(lambda: chain("tanh"), "synflow"),
    lambda: collapse(lambda: chain("silu", init=(1.7, 0.2))),
    lambda: eoc.cnn(3, 8).propagate().log_moment,
    lambda: [eoc.edge_of_chaos(name, sigma_b=0.2).sigma_w for name in ("sin", "erf", "mish", "elu")],
    lambda: eoc.phase_diagram("sin", sigma_w=np.linspace(0.5, 2, 5), sigma_b=np.linspace(0.1, 1, 4)).c_star,
]

def bits(call):
    found = call()
    parts = found if isinstance(found, tuple) else (found,)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:16]

jobs = [index for index in order(np.repeat(np.arange(len(CALLS)), 2))]
results = [set() for _ in CALLS]
gate = threading.Barrier(4)

def run(mine):
    gate.wait()
    for index in mine:
        results[index].add(bits(CALLS[index]))

threads = [threading.Thread(target=run, args=(jobs[k::4],)) for k in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for index in order(len(CALLS)):
    results[index].add(bits(CALLS[index]))
print(";".join(",".join(sorted(found)) for found in results))
"""


def cold(hash_seed, threads, interval, order):
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(hash_seed),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-c", COLD, str(interval), str(order)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return ran.stdout.strip().split(";")


@pytest.mark.slow
def test_cold_concurrent_calls_have_the_bits_of_warm_ones_alone():
    runs = [cold(0, 1, 5e-3, 0), cold(1, 4, 1e-6, 1)]
    for found in zip(*runs, strict=True):
        assert len(set(found)) == 1 and "," not in found[0]


def test_products_have_one_thread_whichever_thread_asks_first_and_leaves_last():
    code = """
import threading
import numpy as np
from threadpoolctl import threadpool_info
from eoc_theory.base.one_thread import one_thread_products

def threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def inside(entered, leave):
    with one_thread_products():
        seen.append(threads())
        entered.set()
        leave.wait()

before, seen = threads(), []
with one_thread_products():
    seen.append(threads())
assert threads() == before
entered, leave = threading.Event(), threading.Event()
other = threading.Thread(target=inside, args=(entered, leave))
with one_thread_products():
    other.start()
    entered.wait()
leave.set()
other.join()
assert threads() == before, threads()
alone = threading.Thread(target=inside, args=(threading.Event(), leave))
alone.start()
alone.join()
assert seen == [{1}] * 3, seen
assert threads() == before, threads()
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_numbers_of_workers_change_no_bit(criterion, monkeypatch):
    """Sampled networks, chains of kernels and laws of scores, by one, two, three and five at a time."""
    import concurrent.futures

    import eoc_theory as eoc
    from eoc_theory.criteria.distributions import gradients as scores
    from eoc_theory.propagation import conditioned_chain as finite_width
    from eoc_theory.pruning.prediction import predict_pruning
    from eoc_theory.pytorch.sample import sampler

    nets = [
        eoc.mlp(6, 12, activation="relu", in_features=10),
        eoc.cnn(3, 6, input_shape=(2, 6, 6), activation="tanh"),
        eoc.mlp(12, 20, in_features=10, init=(1.4, 0.1)),
    ]

    def bits():
        found = []
        for net in nets:
            pruning = predict_pruning(net, [0.5, 0.9, 0.98], criterion=criterion, samples=5)
            law = eoc.predict_collapse(net, criterion=criterion, samples=5)
            parts = pruning.kept, pruning.kept_std, pruning.empty_probability, pruning.collapse_probability
            found += [np.asarray(part).tobytes() for part in (*parts, law.samples, law.weakest_probability)]
        return found

    alone = bits()
    for workers in (1, 3, 5):

        def pool(max_workers, *, workers=workers, **options):
            return concurrent.futures.ThreadPoolExecutor(max_workers=workers, **options)

        for module in (finite_width, sampler, scores):
            monkeypatch.setattr(module, "ThreadPoolExecutor", pool)
        assert bits() == alone
