"""Large images at lower resolution: what is kept, what it changes, what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ModelError
from eoc_theory.networks.architecture import Architecture
from eoc_theory.networks.downsample import within_reach
from eoc_theory.propagation.channel_plan import planned
from eoc_theory.signals.data import DataSummary


def pink(count, size, seed=0):
    """1/f noise in three correlated channels, mean square 1, (count, 3 · size²)."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(size)
    amplitude = 1.0 / np.maximum(np.hypot(frequency[:, None], frequency), 1.0 / size)
    common, own = rng.standard_normal((count, 1, size, size)), rng.standard_normal((count, 3, size, size))
    noise = np.sqrt(0.9) * common + np.sqrt(0.1) * own
    images = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
    images -= images.mean(axis=0)
    return (images / np.sqrt(np.mean(images**2))).reshape(count, -1)


def batch(size, count=10):
    return DataSummary(pink(count, size), np.arange(count) % 5, 5)


def test_small_images_stay_as_they_are():
    net, data = eoc.resnet(8, classes=5), batch(32)
    same, summary, notes = within_reach(net, data)
    assert same is net and notes == ()
    np.testing.assert_array_equal(summary.inputs, data.inputs)


def test_attention_keeps_all_of_its_tokens():
    """Its means over tokens shrink with their number: a ninth of them would be another network."""
    net = eoc.vit(None, depth=2, width=32, heads=2, patch=8, input_shape=(3, 72, 72), classes=5, std=0.2)
    rng = np.random.default_rng(0)
    data = DataSummary(rng.standard_normal((10, 3 * 72 * 72)), np.arange(10) % 5, 5)
    same, summary, notes = within_reach(net, data)
    assert same is net and notes == ()
    np.testing.assert_array_equal(summary.inputs, data.inputs)
    kept = eoc.predict_pruning(net, 0.9, data=data, method="sampled")
    assert not any("taken at" in note for note in kept.notes)
    images = data.inputs.reshape(10, 3, 72, 72).astype(np.float32)
    seeds = [
        eoc.measure_pruning(net.to_torch(seed), 0.9, data=(images, data.targets)).kept for seed in range(6)
    ]
    assert np.abs(kept.kept - np.mean(seeds, axis=0)).mean() < 0.01


def squeezed(torch, size):
    """A convolutional network with a gate that a mean over positions makes, and its pieces."""
    nn = torch.nn

    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4, bias=False)
            self.body, self.norm = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
            self.down, self.up, self.head = nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8, 5)
            for layer in (self.stem, self.body, self.down, self.up, self.head):
                nn.init.normal_(layer.weight, 0.0, (2.0 / layer.weight[0].numel()) ** 0.5)

        def forward(self, x):
            x = torch.relu(self.norm(self.body(torch.relu(self.stem(x)))))
            gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
            return self.head((x * gate[:, :, None, None]).mean((2, 3)))

    torch.manual_seed(0)
    return eoc.Architecture.from_torch(Squeezed(), torch.zeros(2, 3, size, size))


def test_gates_of_means_over_positions_keep_their_resolution():
    """How much a mean varies depends on how many positions there are."""
    torch = pytest.importorskip("torch")
    net = squeezed(torch, 96)
    rng = np.random.default_rng(0)
    data = DataSummary(rng.standard_normal((20, 3 * 96 * 96)), np.arange(20) % 5, 5)
    same, _, notes = within_reach(net, data)
    assert same is net and notes == ()
    kept = eoc.predict_pruning(net, 0.8, data=data, method="sampled", samples=12).kept
    images = data.inputs.reshape(20, 3, 96, 96).astype(np.float32)
    seeds = [
        eoc.measure_pruning(net.to_torch(seed), 0.8, data=(images, data.targets)).kept for seed in range(12)
    ]
    error = np.std(seeds, axis=0, ddof=1) * (2 / 12) ** 0.5
    assert (np.abs(kept - np.mean(seeds, axis=0)) < 0.02 + 3.0 * error).all()
    # Kernels over positions are of a lower resolution, and say so.
    assert any("taken at" in note for note in net.propagate(data).notes)


def test_theory_of_such_gates_is_at_their_resolution_or_refused():
    torch = pytest.importorskip("torch")
    planned(squeezed(torch, 64), None, 0)
    with pytest.raises(ModelError, match=r"3x1024x1024 are too large .*method='sampled'"):
        eoc.predict_pruning(squeezed(torch, 1024), 0.8, method="theory")


@pytest.mark.parametrize(("size", "taken"), [(64, 64), (65, 33), (96, 48), (224, 56)])
def test_large_images_are_averages_of_squares(size, taken):
    net = eoc.resnet(18, form="imagenet", width=4, input_shape=(3, size, size), classes=5)
    smaller, summary, notes = within_reach(net, batch(size))
    assert smaller.graph.input_shape.space == (taken, taken)
    assert [w.weight_shape for w in smaller.graph.weight_layers] == [
        w.weight_shape for w in net.graph.weight_layers
    ]
    assert len(notes) == (size > 64)
    if notes:
        assert notes == (f"images of 3x{size}x{size} taken at 3x{taken}x{taken}",)
    assert np.mean(summary.inputs**2) == pytest.approx(1.0)


def test_each_pixel_is_the_mean_of_its_square():
    net = eoc.resnet(18, form="imagenet", width=4, input_shape=(3, 80, 80), classes=5)
    data = batch(80, 5)
    _, summary, _ = within_reach(net, data)
    squares = data.inputs.reshape(5, 3, 40, 2, 40, 2).mean(axis=(3, 5)).reshape(5, -1)
    np.testing.assert_allclose(summary.inputs, squares / np.sqrt(np.mean(squares**2)), rtol=1e-10)


def test_a_lower_resolution_changes_little():
    """A strided network on 40×40, and as it would be taken were that too large."""
    net = eoc.resnet(8, width=8, input_shape=(3, 40, 40), classes=5)
    data = batch(40)
    smaller, summary, _ = within_reach(net, data, largest=20)
    whole, lower = net.propagate(data), smaller.propagate(summary)
    difference = (lower.log_moment - whole.log_moment)[:-1]
    assert np.std(difference) < 0.25
    assert np.std(difference) > 0.0
    assert np.abs(np.log(lower.chi / whole.chi))[:-1].max() < 0.5


def test_networks_of_one_resolution():
    """A dense layer on all positions' entries ties them to it: left as they are, or refused if too large."""
    flat = eoc.cnn(3, 4, input_shape=(3, 96, 96), classes=5, head="flatten")
    assert within_reach(flat, batch(96))[0] is flat
    with pytest.raises(ModelError, match=r"images of 3x96x96 are too large .* takes no smaller ones"):
        flat.propagate(batch(96))


def test_many_large_layers_are_taken_smaller_still():
    net = eoc.resnet(20, width=4, input_shape=(3, 64, 64), classes=5)
    assert net.propagate(batch(64)).notes == ("images of 3x64x64 taken at 3x32x32",)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_resnet_50_at_224_within_two_gibibytes():
    # VmHWM belongs to the new program alone; ru_maxrss would count the process that starts it.
    code = (
        "import eoc_theory as eoc\n"
        "found = eoc.resnet(50, form='imagenet').propagate()\n"
        "assert len(found.log_moment) == 54 and found.notes\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2 << 30


def test_the_smaller_network_is_an_architecture():
    net = eoc.vgg(11, width=4, input_shape=(3, 96, 96), classes=5)
    smaller, _, _ = within_reach(net, batch(96))
    assert isinstance(smaller, Architecture) and smaller.weight_layers == net.weight_layers
