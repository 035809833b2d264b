"""The README's Python examples run as they stand, one after the other, as a reader would type them."""

from __future__ import annotations

from pathlib import Path

import pytest

import eoc_theory as eoc
from docs.generate.blocks import blocks
from docs.generate.running import run_page

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.slow
def test_examples_run(tmp_path):
    torch = pytest.importorskip("torch")
    page = README.read_text(encoding="utf-8")
    assert sum(block.language == "python" for block in blocks(page)) == 4
    inputs, targets = eoc.digits(50)
    layers = [torch.nn.Linear(64, 40), torch.nn.Tanh(), torch.nn.Linear(40, 40), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(40, 10))
    images, labels = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets)
    names = {"model": model, "images": images, "labels": labels}
    # The comparison's size is the reader's choice; here it only has to work.
    page = page.replace("seeds=20", "seeds=2")
    assert run_page(page, str(README), tmp_path, names, all_shown=False) == []
    assert {path.name for path in tmp_path.iterdir()} == {"kept.png", "comparison.png"}
    assert names["point"].sigma_w == pytest.approx(1.30414584, abs=1e-8)
    assert f"{names['point'].convergence.constant:.2f}" == "7.08"
    kept = [float((layer.weight != 0).float().mean()) for layer in layers[::2]]
    assert max(kept) < 0.9
