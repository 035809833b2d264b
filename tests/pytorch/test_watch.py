"""Scales of layers while a model trains: the plain hook, and Lightning's callback with a real trainer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import eoc_theory as eoc

torch: Any = pytest.importorskip("torch")


def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))


def hooks(net: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._backward_hooks) for module in net.modules())


def test_scales_are_those_of_autograd():
    net, inputs = model(), torch.randn(7, 6)
    targets = torch.arange(7) % 3
    with eoc.watch_layers(net) as watch:
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()
    first = torch.nn.functional.linear(inputs, net[0].weight, net[0].bias).detach().requires_grad_()
    last = torch.nn.functional.linear(torch.tanh(first), net[2].weight, net[2].bias)
    last.retain_grad()
    torch.nn.functional.cross_entropy(last, targets).backward()
    scales = watch.scales
    assert scales.layers == ("0", "2") and list(scales.kept) == [1.0, 1.0]
    assert scales.signal == pytest.approx(
        [float(x.detach().square().mean()) for x in (first, last)], rel=1e-5
    )
    assert scales.gradient == pytest.approx([float(x.grad.square().mean()) for x in (first, last)], rel=1e-5)
    assert hooks(net) == 0
    assert json.loads(scales.to_json())["layers"] == ["0", "2"]


def test_masks_and_layers_that_are_not_called():
    net = eoc.prune_(model(), {"2": np.arange(30).reshape(3, 10) % 2 == 0})
    with eoc.watch_layers(net) as watch, torch.no_grad():
        net[0](torch.ones(2, 6))
    assert list(watch.scales.kept) == [1.0, 0.5]
    assert np.isfinite(watch.scales.signal[0]) and np.isnan(watch.scales.signal[1])
    assert np.isnan(watch.scales.gradient).all()
    assert set(watch.scales.metrics("x")) == {"x/kept/0", "x/kept/2", "x/signal/0"}


def test_hooks_go_where_the_block_fails_and_other_things_are_refused():
    net = model()
    with pytest.raises(ZeroDivisionError), eoc.watch_layers(net):
        net(torch.ones(2, 6)).sum() / 0 if False else 1 / 0
    assert hooks(net) == 0
    with pytest.raises(eoc.EOCError, match=r"torch\.nn\.Module"):
        eoc.watch_layers(object())
    with pytest.raises(eoc.EOCError, match="no"):
        eoc.watch_layers(torch.nn.ReLU())


def lightning_module(pl, net: Any):
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


def test_lightning_s_trainer_logs_the_scales(tmp_path):
    pl = pytest.importorskip("lightning.pytorch")
    csv_logger = pytest.importorskip("lightning.pytorch.loggers").CSVLogger
    net = eoc.prune_(model(), {"2": np.arange(30).reshape(3, 10) % 2 == 0})
    callback = eoc.lightning_callback(every=3, prefix="scales")
    rows = torch.utils.data.TensorDataset(torch.randn(40, 6), torch.arange(40) % 3)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=csv_logger(tmp_path),
        log_every_n_steps=1,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(lightning_module(pl, net), torch.utils.data.DataLoader(rows, batch_size=8))
    assert [step for step, _ in callback.history] == [0, 3, 6, 9]
    for _, scales in callback.history:
        assert scales.layers == ("net.0", "net.2")
        assert list(scales.kept) == [1.0, 0.5]  # training leaves what is removed at 0
        assert np.all(scales.signal > 0.0) and np.all(scales.gradient > 0.0)
    assert hooks(net) == 0
    (logged,) = tmp_path.rglob("metrics.csv")
    assert {"scales/kept/net.2", "scales/signal/net.0"} <= set(logged.read_text().splitlines()[0].split(","))


def test_without_lightning_the_error_says_what_to_install(monkeypatch):
    from eoc_theory.pytorch import watch

    watch._callback_class.cache_clear()
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(eoc.EOCError, match=r"pip install 'eoc-theory\[lightning\]'"):
        eoc.lightning_callback()
    watch._callback_class.cache_clear()
    with pytest.raises(eoc.EOCError, match="every must be"):
        eoc.lightning_callback(every=0)
