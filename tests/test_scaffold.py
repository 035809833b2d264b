"""What the package costs to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "matplotlib", "numba", "pandas", "sklearn", "torch._dynamo")


def loaded_by(statements: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after running `statements`."""
    code = f"{statements}\nimport sys\nprint(*[m for m in {HEAVY!r} + ('sympy',) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light():
    assert loaded_by("import eoc_theory") == set()


def test_edge_of_chaos_of_a_named_activation_is_light():
    assert loaded_by("import eoc_theory as eoc\neoc.edge_of_chaos('tanh', sigma_b=0.2)") == set()


def test_sampling_leaves_torchs_compiler_alone():
    """It takes 4 s to import."""
    net = "eoc.resnet(8, width=2, input_shape=(1, 4, 4))"
    loaded = loaded_by(f"import eoc_theory as eoc\neoc.predict_pruning({net}, 0.9)")
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded


def test_public_names_exist():
    import eoc_theory

    assert eoc_theory.__all__
    for name in eoc_theory.__all__:
        assert getattr(eoc_theory, name) is not None
