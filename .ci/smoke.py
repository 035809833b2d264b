"""What an installed wheel must do, whichever extras are there: ``python smoke.py [EXTRA …]``.

Run from a folder that is not the checkout. Needs no test runner; exit code 0 means that all of it works.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path


def theory() -> None:
    """All that needs no extra."""
    import numpy as np

    import eoc_theory as eoc

    assert eoc.__version__ == metadata.version("eoc-theory"), "the metadata has another version"
    point = eoc.edge_of_chaos("tanh", sigma_b=0.2)
    assert abs(point.sigma_w - 1.3041458400577) < 1e-9
    assert abs(eoc.gain("relu") - 2**0.5) < 1e-12
    assert eoc.edge_of_chaos("x/(1+exp(-x))", sigma_w=1.7).error < 1e-8
    net = eoc.mlp(depth=10, width=50, activation="tanh", init=(1.1, 0.2))
    kept = eoc.predict_pruning(net, sparsity=0.9)
    assert abs(float(np.average(kept.kept, weights=net.weights)) - 0.1) < 0.01
    assert kept.to_frame() is not None and json.loads(kept.to_json())
    with tempfile.TemporaryDirectory() as folder:
        for name in ("kept.png", "kept.svg", "kept.pdf"):
            kept.plot(Path(folder) / name)
            assert (Path(folder) / name).stat().st_size > 1000
        page = Path(folder) / "explorer.html"
        command("explore", "relu", "erf", "--html", str(page))
        assert "Theory.MeanField" in page.read_text(encoding="utf-8"), "the templates are not in the wheel"
    assert "1.30414584" in command("init", "tanh", "--sigma-b", "0.2")
    found = json.loads(command("collapse", "--activation", "relu", "--depth", "8", "--width", "30", "--json"))
    assert found["criterion"] == "snip"


def without_torch() -> None:
    """What needs torch says so in one line."""
    import eoc_theory as eoc

    try:
        eoc.measure_pruning(object(), 0.5)
    except eoc.EOCError as error:
        assert "torch" in str(error) and "\n" not in str(error), str(error)
    else:
        raise AssertionError("measure_pruning took what is no model")


def torch() -> None:
    """Real networks."""
    import torch

    import eoc_theory as eoc

    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))
    eoc.initialize_(model, sigma_b=0.2, seed=0)
    batch = torch.randn(16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 5
    measured = eoc.measure_pruning(model, 0.5, criterion="snip", data=batch, device="cpu")
    eoc.prune_(model, measured.masks)
    share = sum(int((layer.weight != 0).sum()) for layer in (model[0], model[2])) / 750
    assert abs(share - 0.5) < 0.01
    net = eoc.cnn(4, 4, input_shape=(1, 8, 8), classes=3)
    assert eoc.predict_pruning(net, 0.5, samples=2).method == "sampled"
    assert eoc.diagnose(model, (2, 20), sparsity=0.5, criterion="magnitude").sparsity == 0.5


def data() -> None:
    """The digits images."""
    import eoc_theory as eoc

    inputs, targets = eoc.digits(20)
    assert inputs.shape == (20, 64) and len(targets) == 20


def cluster() -> None:
    """Dask's scheduler, which studies run on."""
    import distributed

    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        assert client.submit(lambda: 6 * 7).result() == 42


def safetensors() -> None:
    """Masks in files, without torch."""
    import numpy as np

    import eoc_theory as eoc

    masks = {"0": np.array([[True, False], [True, True]])}
    with tempfile.TemporaryDirectory() as folder:
        eoc.save_masks(masks, Path(folder) / "masks.safetensors")
        assert np.array_equal(eoc.load_masks(Path(folder) / "masks.safetensors")["0"], masks["0"])


def lightning() -> None:
    """The callback, in a real trainer."""
    import lightning.pytorch as pl
    import torch

    import eoc_theory as eoc

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = eoc.lightning_callback(every=2)
    rows = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, callbacks=[callback], default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(Module(), torch.utils.data.DataLoader(rows, batch_size=4))
    assert [step for step, _ in callback.history] == [0, 2, 4, 6]
    assert all((scales.gradient > 0).all() for _, scales in callback.history)


def interactive() -> None:
    """A page with the layers under the pointer."""
    import eoc_theory as eoc

    found = eoc.predict_pruning(eoc.mlp(5, 20), 0.9, criterion="magnitude")
    with tempfile.TemporaryDirectory() as folder:
        found.plot_interactive(Path(folder) / "kept.html")
        assert "layers.0" in (Path(folder) / "kept.html").read_text(encoding="utf-8")


def completion() -> None:
    """The shell's script."""
    assert "eoc" in command("--print-completion", "bash")


CHECKS: dict[str, Callable[[], None]] = {
    "torch": torch,
    "data": data,
    "cluster": cluster,
    "safetensors": safetensors,
    "lightning": lightning,
    "interactive": interactive,
    "completion": completion,
}


def command(*arguments: str) -> str:
    """What `eoc` prints."""
    eoc = Path(sys.executable).parent / ("eoc.exe" if sys.platform == "win32" else "eoc")
    done = subprocess.run([str(eoc), *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"eoc {' '.join(arguments)}: {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def main(extras: list[str]) -> None:
    """Runs all checks."""
    import eoc_theory

    home = Path(eoc_theory.__file__).resolve()
    assert "site-packages" in home.parts, f"this is a checkout, not a wheel: {home}"
    theory()
    if not {"torch", "lightning"} & set(extras):
        without_torch()
    for extra in extras:
        CHECKS[extra]()
    installed = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "numba", "pandas")
    )
    print(
        f"eoc-theory {eoc_theory.__version__} works with {installed}; extras: {', '.join(extras) or 'none'}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
