"""Everything that belongs to a computation is on its device.

Without an accelerator torch's "meta" device stands for one: tensors there have shapes and no values, and what
mixes them with tensors of the CPU is an error. With a GPU the same networks are scored on both.
"""

import numpy as np
import pytest

import eoc_theory as eoc

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from eoc_theory.base.isolation import converted  # noqa: E402
from eoc_theory.pytorch.batches import as_batch  # noqa: E402
from eoc_theory.pytorch.losses import as_loss  # noqa: E402
from eoc_theory.pytorch.measure.gradient_scores import _Loss, _scored  # noqa: E402
from eoc_theory.pytorch.ranked import ranked_weights  # noqa: E402
from eoc_theory.pytorch.sample.laws import read_laws  # noqa: E402
from eoc_theory.pytorch.sample.redraw import redraw_  # noqa: E402

F = nn.functional
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 12, batch_first=True)
        self.attention, self.norm = nn.MultiheadAttention(12, 3, batch_first=True), nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, ids):
        x = self.lstm(self.embedding(ids))[0]
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = x + torch.sin(positions)[:, None]
        return self.head(self.norm(x + self.attention(x, x, x)[0]).mean(1))


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.depthwise = nn.Dropout(0.1), nn.Conv2d(8, 8, 3, groups=8)
        self.register_buffer("scale", torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.gelu(self.norm(self.stem(x))) * self.scale
        return self.head(self.drop(F.silu(self.depthwise(x)).mean((2, 3))))


IDS = torch.randint(0, 20, (6, 7), generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5
PICTURES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5
PROBLEMS = {
    "tokens": (Tokens, IDS, "cross_entropy"),
    "images": (Images, PICTURES, "cross_entropy"),
    "evaluation": (lambda: Images().eval(), PICTURES, "cross_entropy"),
    "regression": (Images, (PICTURES[0], torch.randn(6, 5)), "mse"),
    "own loss": (Images, PICTURES, nn.CrossEntropyLoss(weight=torch.ones(5))),
}


def on_meta(model, data, loss, criterion):
    """Redrawn on the CPU, then forwards, backwards and scored on the meta device."""
    batch, goal, rule = as_batch(model, data, loss=loss), as_loss(loss), eoc.criterion(criterion)
    ranked = ranked_weights(model, batch, goal)
    redraw_(converted(model).model, read_laws(model, ranked.weights), [0])
    with _Loss(model, ranked.weights, batch, goal, "meta", torch.float32, 0, False) as objective:
        objective._noting = False  # its sums are read on the way
        gradients = objective.part_gradients(slice(0, batch.size))
        return _scored(rule, list(gradients), objective.leaves)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("criterion", ["snip"])
def test_nothing_is_left_on_the_cpu(name, criterion):
    make, data, loss = PROBLEMS[name]
    scores = on_meta(make(), data, loss, criterion)
    assert all(score.device.type == "meta" for score in scores)


def test_a_tensor_left_on_the_cpu_is_seen():
    """That the test above can fail."""

    class Mixed(Images):
        def forward(self, x):
            return super().forward(x) + torch.zeros(5)[None].expand(len(x), 5)

    with pytest.raises(Exception, match="device"):
        on_meta(Mixed(), PICTURES, "cross_entropy", "snip")


@needs_cuda
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_masks_are_those_of_the_cpu_up_to_ties(name, criterion):
    make, data, loss = PROBLEMS[name]
    torch.manual_seed(0)
    model = make().eval()  # dropout draws other numbers on another device
    found = [
        eoc.measure_pruning(model, 0.6, criterion=criterion, data=data, loss=loss, device=d, dtype="float64")
        for d in ("cpu", "cuda")
    ]
    for layer, mask in found[0].masks.items():
        assert np.mean(mask != found[1].masks[layer]) < 0.01


@needs_cuda
@pytest.mark.parametrize("name", PROBLEMS)
def test_sampled_predictions_are_those_of_the_cpu(name):
    make, data, loss = PROBLEMS[name]
    torch.manual_seed(0)
    model = make().eval()
    kept = [
        eoc.predict_pruning(model, 0.6, data=data, loss=loss, device=d, method="sampled").kept
        for d in ("cpu", "cuda")
    ]
    assert np.allclose(*kept, atol=1e-3)
