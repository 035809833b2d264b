"""Diagnosis of models that no theory reads, against plain torch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, DataError, ModelError
from eoc_theory.networks.resolve import Options
from eoc_theory.pytorch.batches import Batch
from eoc_theory.pytorch.losses import Loss
from eoc_theory.pytorch.models import prunable_weights
from eoc_theory.pytorch.sample.attention import mean_entropy
from eoc_theory.pytorch.sample.door import sampled_network
from eoc_theory.pytorch.sample.observe import mean_cosine, observed
from eoc_theory.pytorch.sample.rescaled import Rescaled, even_factors
from eoc_theory.reports.diagnosis.signals import gradient_trend


class Block(nn.Module):
    """Attention written out, and a perceptron, each in a residual branch."""

    def __init__(self, width: int, heads: int = 2, sharp: float = 1.0) -> None:
        super().__init__()
        self.norm, self.heads, self.sharp = nn.LayerNorm(width), heads, sharp
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        size, tokens, width = x.shape
        split = self.qkv(self.norm(x)).reshape(size, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = self.sharp * split[0] @ split[1].transpose(-2, -1) / math.sqrt(width / self.heads)
        mixed = (scores.softmax(dim=-1) @ split[2]).transpose(1, 2).reshape(size, tokens, width)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(x)))


class Tokens(nn.Module):
    """A small transformer on token ids; returns a dict."""

    def __init__(self, depth: int = 2, sharp: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.blocks = nn.ModuleList(Block(16, sharp=sharp) for _ in range(depth))
        self.head = nn.Linear(16, 4)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x.mean(dim=1))}


def token_data(size: int = 6):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 30, (size, 7), generator=generator), torch.arange(size) % 4


def transformer(**options) -> Tokens:
    torch.manual_seed(0)
    return Tokens(**options)


def chain(depth: int, width: int, activation, gain: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [nn.Linear(width, width), activation()]
        if gain is not None:
            nn.init.normal_(parts[-2].weight, std=gain / math.sqrt(width))
    return nn.Sequential(*parts, nn.Linear(width, 5))


def vectors(size: int, width: int):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, width, generator=generator), torch.arange(size) % 5


def seen_by_hand(model, inputs, targets, pick=lambda out: out):
    """Outputs and the loss's gradients by them, of every Linear layer, in double precision."""
    model = model.double().requires_grad_(True)
    outputs, names = {}, {module: name for name, module in model.named_modules()}

    def hook(module, args, output):
        output.retain_grad()
        outputs[names[module]] = output

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Linear)]
    F.cross_entropy(pick(model(inputs)), targets).backward()
    for handle in handles:
        handle.remove()
    return outputs


# --- signals


def test_signals_and_gradients_are_those_of_plain_hooks():
    model = transformer().double()
    ids, targets = token_data()
    weights = prunable_weights(model)
    found = observed(model, weights, Batch((ids,), {}, targets), Loss())
    by_hand = seen_by_hand(model, ids, targets, lambda out: out["logits"])
    assert [weight.name for weight in weights] == list(by_hand)
    for at, output in enumerate(by_hand.values()):
        assert found.signal[at] == pytest.approx(float(output.detach().square().mean()), rel=1e-4)
        assert found.gradient[at] == pytest.approx(float(output.grad.square().mean()), rel=1e-3)
        assert found.entries[at] == output[0].numel()
    assert found.order.tolist() == list(range(len(by_hand)))
    # Tokens and inputs, pair by pair.
    output = by_hand["blocks.1.fc2"].detach()
    pairs = [F.cosine_similarity(one[i], one[j], dim=0) for one in output for i in range(7) for j in range(i)]
    at = list(by_hand).index("blocks.1.fc2")
    assert found.token_similarity[at] == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)
    rows = output.flatten(1)
    pairs = [F.cosine_similarity(rows[i], rows[j], dim=0) for i in range(6) for j in range(i)]
    assert found.input_similarity[at] == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)
    assert np.isnan(found.token_similarity[-1])


def test_residual_branches_end_where_they_are_added():
    model = transformer()
    ids, targets = token_data()
    weights = prunable_weights(model)
    found = observed(model, weights, Batch((ids,), {}, targets), Loss())
    ends = {weights[i].name for i in found.residual}
    assert ends == {f"blocks.{n}.{name}" for n in range(2) for name in ("proj", "fc2")}


def entropy_by_hand(weights: torch.Tensor) -> float:
    keys = (weights > 0).sum(-1).double()
    entropy = torch.special.entr(weights.double()).sum(-1)
    return float((entropy[keys > 1] / keys[keys > 1].log()).mean())


class Causal(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.qkv, self.head, self.how = nn.Linear(8, 24), nn.Linear(8, 4), how
        self.seen = None

    def forward(self, x):
        q, k, v = (part.unsqueeze(1) for part in self.qkv(x).chunk(3, dim=-1))
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        self.seen = (4.0 * q @ k.transpose(-2, -1)).masked_fill(~mask, -math.inf).softmax(-1).detach()
        if self.how == "causal":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=4.0)
        elif self.how == "mask":
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=4.0)
        else:
            scores = 4.0 * q @ k.transpose(-2, -1) + torch.where(mask, 0.0, -1e4)
            out = F.softmax(scores, -1) @ v
        return self.head(out.squeeze(1).mean(1))


@pytest.mark.parametrize("how", ["causal", "mask", "written out"])
def test_entropy_of_attention(how):
    torch.manual_seed(0)
    model = Causal(how).double()
    x = torch.randn(5, 6, 8, dtype=torch.float64)
    found = observed(model, prunable_weights(model), Batch((x,), {}, torch.arange(5) % 4), Loss())
    model(x)
    # The softmax of the test's own is noted as well, with the same entropy.
    assert found.attention == ("attention 1", "attention 2")
    assert found.attention_entropy == pytest.approx([entropy_by_hand(model.seen)] * 2, abs=1e-5)
    assert 0.2 < found.attention_entropy[0] < 0.95


def test_entropy_of_torchs_own_attention():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(48, 4)).double()
    x = 3.0 * torch.randn(5, 6, 8, dtype=torch.float64)
    found = observed(model, prunable_weights(model), Batch((x,), {}, torch.arange(5) % 4), Loss())
    weights = layer.self_attn(x, x, x, need_weights=True, average_attn_weights=False)[1]
    assert found.attention == ("0.self_attn",)
    assert found.attention_entropy[0] == pytest.approx(entropy_by_hand(weights), abs=1e-5)


def test_entropy_and_cosines_at_their_ends():
    assert mean_entropy(torch.zeros(3, 5)) == pytest.approx(1.0)
    assert mean_entropy(1e3 * torch.eye(4)) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(mean_entropy(torch.zeros(3, 1)))
    assert float(mean_cosine(torch.ones(4, 3))) == pytest.approx(1.0)
    assert float(mean_cosine(torch.eye(4))) == pytest.approx(0.0, abs=1e-12)


# --- the diagnosis


@pytest.fixture(scope="module")
def tokens() -> eoc.Diagnosis:
    return eoc.diagnose(transformer(), data=token_data(), sparsity=0.8)


def test_kept_is_that_of_predict_pruning(tokens):
    same = eoc.predict_pruning(transformer(), 0.8, data=token_data())
    assert tokens.method == "sampled" == same.method and tokens.layers == same.layers
    np.testing.assert_array_equal(tokens.kept, same.kept)
    np.testing.assert_array_equal(tokens.kept_std, same.kept_std)
    np.testing.assert_array_equal(tokens.before.zero_scores, same.zero_scores)
    again = eoc.diagnose(transformer(), data=token_data(), sparsity=0.8)
    assert again.to_json() == tokens.to_json()


def test_every_way_to_show_it(tokens, tmp_path):
    told = json.loads(tokens.to_json())
    assert told["method"] == "sampled" and len(told["signals"]["signal"]) == len(tokens.layers)
    frame = tokens.to_frame()
    np.testing.assert_array_equal(frame["gradient"], tokens.signals.gradient)
    text = str(tokens)
    for word in ("Tokens stay apart", "entropy of attention", "sampled and run", "gradient", "tokens"):
        assert word in text
    assert len(tokens.plot(tmp_path / "tokens.png").axes) == 4
    tokens.to_html(tmp_path / "tokens.html")
    page = (tmp_path / "tokens.html").read_text()
    assert "Signals and gradients" in page and "sampled" in page and "edge of chaos" not in page


def test_vanishing_gradients_are_found_with_their_factor_and_cured():
    model, data = chain(20, 40, nn.Tanh), vectors(40, 40)
    found = eoc.diagnose(model, data=data, method="sampled")
    theory = eoc.diagnose(model, data=data)
    assert theory.method == "theory" and found.method == "sampled"
    # PyTorch's default has χ = σ_w² E[φ'²] a little under 1/3.
    assert 10 ** gradient_trend(found.signals) == pytest.approx(
        np.exp(np.log(theory.chi[:-1]).mean()), rel=0.1
    )
    assert found.problems[0] == "vanishing" and found.phase == "ordered" and "vanish" in found.verdict
    assert found.cure is not None and found.after.collapse_probability < found.collapse_probability
    assert found.cure.steps == ("eoc.initialize_(model)",)
    assert abs(gradient_trend(found.signals_after)) < 0.1


def test_exploding_gradients_of_what_cannot_be_read():
    class Mixed(nn.Module):
        """Data-dependent control flow, which no reader follows."""

        def __init__(self) -> None:
            super().__init__()
            self.body = chain(14, 40, nn.Tanh, gain=3.0)

        def forward(self, x):
            return self.body(x if float(x.sum()) > -1e9 else -x)

    found = eoc.diagnose(Mixed(), data=vectors(30, 40), sparsity=0.9)
    assert found.method == "sampled" and found.phase == "chaotic" and "exploding" in found.problems
    assert found.cure is not None and set(found.cure.factors) <= set(found.layers)
    # The factors bring σ_w = 3 down to about 1, and the gradient with it.
    chi = float(eoc.MeanField("tanh", 3.0, 1.0 / math.sqrt(3 * 40)).chi())
    assert chi > 1.5 and 10 ** gradient_trend(found.signals) == pytest.approx(chi, rel=0.1)
    assert 10 ** gradient_trend(found.signals_after) < 1.5


def test_even_factors_make_signals_even():
    data = vectors(8, 40)
    net = sampled_network(chain(6, 40, nn.ReLU), data, Options())
    factors = even_factors(net.sampler, 1, 0)
    stream = [0, 0x746F7263, 0]
    model, _ = Rescaled(net.sampler.source, factors).network(stream)
    outputs = seen_by_hand(model, data[0].double(), data[1])
    for name, output in outputs.items():
        plain = output - model.get_submodule(name).bias
        assert float(plain.square().mean()) == pytest.approx(1.0, rel=1e-5)


def test_tokens_that_are_alike():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(8))
            self.head = nn.Linear(12, 4)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
                x = x + 10.0 * x.mean(dim=1, keepdim=True)
            return self.head(x.mean(dim=1))

    torch.manual_seed(0)
    found = eoc.diagnose(Mean(), data=(torch.randn(6, 5, 12), torch.arange(6) % 4), method="sampled")
    assert "rank collapse" in found.problems and "alike" in found.verdict


def test_attention_that_is_sharp():
    found = eoc.diagnose(transformer(sharp=1e4), data=token_data(), sparsity=0.5)
    assert "entropy collapse" in found.problems and "single keys" in found.verdict


def test_a_trained_model_is_measured_as_it_is():
    model, (inputs, targets) = chain(4, 30, nn.ReLU), vectors(40, 30)
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear):
                # Heavy tails, as no initialisation has.
                module.weight.copy_(module.weight.sign() * (8.0 * module.weight).abs() ** 3)
    found = eoc.diagnose(model, data=(inputs, targets), sparsity=0.7, method="sampled")
    same = eoc.measure_pruning(model, 0.7, data=(inputs, targets))
    assert found.method == "measured" and "the very network" in found.verdict and found.cure is None
    np.testing.assert_array_equal(found.kept, same.kept)
    assert found.critical_sparsity == same.critical_sparsity and not found.kept_std.any()
    by_hand = seen_by_hand(model, inputs[:8].double(), targets[:8])
    want = [float(output.detach().square().mean()) for output in by_hand.values()]
    np.testing.assert_allclose(found.signals.signal, want, rtol=1e-4)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 10, 2), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.lstm(x.transpose(0, 1))[0][-1])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        y = self.mid(self.down(x).relu()).relu()
        return {"out": self.last(torch.cat([self.up(y), x], dim=1))}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(5, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, left, right):
        return self.head(torch.tanh(self.left(left) * self.right(right)))


def more_models():
    generator = torch.Generator().manual_seed(2)

    def numbers(*shape):
        return torch.randn(*shape, generator=generator)

    maps = torch.randint(0, 3, (4, 8, 8), generator=generator)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(numbers(9, 7, 6), torch.arange(9) % 3), batch_size=3
    )
    named = {"left": numbers(6, 5), "right": numbers(6, 3), "labels": torch.arange(6) % 2}
    return {
        "lstm": (Recurrent, (numbers(6, 7, 6), torch.arange(6) % 3), 4 + 1),
        "loader": (Recurrent, loader, 4 + 1),
        "u-net": (UNet, (numbers(4, 2, 8, 8), maps), 4),
        "two inputs": (Pair, named, 3),
    }


@pytest.mark.parametrize("name", ["lstm", "loader", "u-net", "two inputs"])
def test_models_of_every_kind_are_diagnosed(name):
    make, data, layers = more_models()[name]
    torch.manual_seed(0)
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # Theory reads two inputs, and nothing else of these.
    method = "sampled" if name == "two inputs" else "auto"
    found = eoc.diagnose(model, data=data, sparsity=0.5, method=method)
    assert found.method == "sampled" and len(found.layers) == layers and np.isfinite(found.kept).all()
    assert (found.signals.signal > 0).all() and (found.signals.gradient > 0).all()
    assert all((before[key] == value).all() for key, value in model.state_dict().items())
    if name != "loader":
        made = eoc.diagnose(lambda: make(), data=data, sparsity=0.5, method=method)
        assert made.method == "sampled" and made.layers == found.layers


def test_losses_and_exclusions():
    x, _ = vectors(10, 12)
    model = chain(2, 12, nn.Tanh)
    found = eoc.diagnose(model, data=(x, torch.randn(10, 5)), loss="mse", exclude="0", sparsity=0.5)
    assert found.method == "sampled" and found.layers == ("2", "4")
    with pytest.raises(ArgumentError, match="loss"):
        eoc.diagnose(model, data=(x, torch.randn(10, 5)), loss="mse", method="theory")


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="method"):
        eoc.diagnose(transformer(), data=token_data(), method="guess")
    assert eoc.diagnose(transformer(), data=token_data(), method="theory").method == "theory"
    with pytest.raises((DataError, ModelError), match="example_input"):
        eoc.diagnose(UNet())
    with pytest.raises(DataError, match="takes"):
        eoc.diagnose(UNet(), data=(torch.randn(4, 5, 8, 8), torch.zeros(4, 8, 8).long()))
    with pytest.raises(ModelError, match="no SynFlow of networks with attention"):
        eoc.diagnose(transformer(), data=token_data(), criterion="synflow")


def test_dropout_leaves_the_same_bits():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(48, 4))
    data = torch.randn(5, 6, 8), torch.arange(5) % 4
    texts = {eoc.diagnose(model, data=data).to_json() for _ in range(4)}
    assert len(texts) == 1
