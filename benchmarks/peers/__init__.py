"""Peers that need packages of their own: each runs in a virtual environment that is made here when it is
absent.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / "environments"
REQUIREMENTS = {
    "neural_tangents": (
        "neural-tangents==0.6.5",
        "jax==0.4.30",
        "jaxlib==0.4.30",
        "tf2jax==0.3.6",
        "numpy<2",
        "scipy<1.14",
    ),
    "dks": ("dks==0.1.2", "absl-py", "numpy", "scipy"),
}


def interpreter(peer: str) -> Path:
    """The Python of the peer's environment; makes the environment first when there is none."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {', '.join(REQUIREMENTS[peer])} into {folder} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        result = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise SystemExit(f"the peer {peer} cannot be installed here:\n{result.stderr.strip()[-2000:]}")
        (folder / "complete").touch()
    return python


def run(peer: str, script: str, **arrays: Any) -> dict[str, np.ndarray]:
    """Run `script` (a file beside this one) in the peer's environment on named arrays; returns what it
    saves.
    """
    python = interpreter(peer)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "input.npz", Path(folder) / "output.npz"
        np.savez(source, **arrays)
        result = subprocess.run(
            [str(python), str(HERE / script), str(source), str(target)], capture_output=True, text=True
        )
        if result.returncode:
            raise SystemExit(f"{script} failed:\n{result.stderr.strip()[-2000:]}")
        with np.load(target) as loaded:
            return {name: loaded[name] for name in loaded}
