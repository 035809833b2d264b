"""What an installation without torch does: all names are there, and theory works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import eoc_theory as eoc

for name in eoc.__all__:
    getattr(eoc, name)
net = eoc.mlp(depth=4, width=20, activation="tanh")
assert eoc.predict_pruning(net, 0.5).method == "theory"
assert eoc.predict_collapse(net).method == "theory"
assert eoc.design(net, 0.5, networks=0).sparsity == 0.5
assert eoc.diagnose(net).method == "theory"
image = eoc.cnn(3, 4, input_shape=(1, 6, 6))
assert eoc.predict_pruning(image, 0.5, method="theory").method == "theory"
needing = {
    "measure_pruning": lambda: eoc.measure_pruning(object(), 0.5),
    "compare": lambda: eoc.compare(net, 0.5, seeds=1),
    "initialize_": lambda: eoc.initialize_(object()),
    "prune_": lambda: eoc.prune_(object(), {}),
    "rescale_": lambda: eoc.rescale_(object()),
    "connected_weights": lambda: eoc.connected_weights(object(), {}),
    "to_torch": lambda: net.to_torch(),
}
for name, call in needing.items():
    try:
        call()
    except eoc.EOCError as error:
        assert "pip install 'eoc-theory[torch]'" in str(error), (name, error)
    else:
        raise AssertionError(f"{name} did without torch")
print("done")
"""


def test_theory_needs_no_torch_and_the_rest_says_so():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]
