"""Transformers as architectures: their shapes, their torch models, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.errors import ArgumentError, DataError

torch = pytest.importorskip("torch")
F = torch.nn.functional


def test_weights_are_as_many_as_published():
    """Linear layers and convolutions of timm's and transformers' models, counted by their own code."""
    assert eoc.vit("vit-tiny").n_weights == 3 * 256 * 192 + 12 * 12 * 192**2 + 192 * 1000
    assert eoc.vit("vit-base").n_weights == 3 * 256 * 768 + 12 * 12 * 768**2 + 768 * 1000
    assert eoc.gpt("gpt2").n_weights == 12 * 12 * 768**2 + 768 * 50_257
    blocks = 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672)
    assert eoc.gpt("llama-2-70b").n_weights == blocks + 8192 * 32_000


def own_forward(net, model, x):
    """The function that the options describe, written out with the model's own weights; tokens last."""
    named = dict(model.named_parameters())

    def dense(name, x):
        return F.linear(x, named[f"{name}.weight"], named[f"{name}.bias"])

    def norm(name, x):
        shape = (x.shape[-1],)
        if net["norm"] == "rms":
            return F.rms_norm(x, shape, named[f"{name}.weight"], 1e-5)
        return F.layer_norm(x, shape, named[f"{name}.weight"], named[f"{name}.bias"])

    def turned(x):
        half = x.shape[-1] // 2
        frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequency
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def attention(name, x):
        batch, tokens, width = x.shape
        size = width // net["heads"]
        q, k, v = (dense(f"{name}.{part}", x).view(batch, tokens, -1, size).transpose(1, 2) for part in "qkv")
        if net["positions"] == "rotary":
            q, k = turned(q), turned(k)
        shared = q.shape[1] // k.shape[1]
        k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))
        scores = q @ k.transpose(2, 3) * (1 / size if net["scores"] == "linear" else size**-0.5)
        if net["causal"]:
            scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=bool).triu(1), -math.inf)
        return dense(f"{name}.o", (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))

    def mlp(name, x):
        if net["gated"]:
            return dense(f"{name}.down", F.silu(dense(f"{name}.gate", x)) * dense(f"{name}.up", x))
        return dense(f"{name}.down", F.silu(dense(f"{name}.up", x)))

    x = named["embedding.weight"][x]
    if net["readout"] == "class":
        x = torch.cat([named["class_token.token"].T.expand(len(x), 1, -1), x], 1)
    if net["positions"] == "learned":
        x = x + named["positions.table"].T
    for block in range(net["depth"]):
        for number, (part, function) in enumerate((("attention", attention), ("mlp", mlp)), 1):
            name = f"blocks.{block}"
            if net["placement"] == "pre":
                x = x + net["residual"] * function(f"{name}.{part}", norm(f"{name}.norm{number}", x))
            else:
                x = norm(f"{name}.norm{number}", x + net["residual"] * function(f"{name}.{part}", x))
    if net["placement"] == "pre":
        x = norm("norm", x)
    return dense("head", {"mean": x.mean(1), "last": x[:, -1], "class": x[:, 0]}[net["readout"]])


PLAIN = {
    "depth": 2, "heads": 4, "norm": "layer", "placement": "pre", "causal": False, "positions": "learned",
    "readout": "mean", "residual": 1.0, "scores": "sqrt", "gated": False, "activation": "silu",
}  # fmt: skip
FORMS = {
    "pre": {},
    "post": {"placement": "post", "readout": "class", "residual": 0.5},
    "linear": {"scores": "linear", "causal": True, "positions": None},
    "llama": {
        "causal": True, "norm": "rms", "gated": True, "positions": "rotary", "readout": "last", "kv_heads": 2
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_torch_models_compute_what_the_options_say(form):
    options = PLAIN | FORMS[form]
    depth = options["depth"]
    net = eoc.transformer(width=32, vocabulary=50, tokens=7, sigma_b=0.3, sigma_qk=3.0, **options)
    model = net.to_torch(3).double()
    ids = torch.from_numpy(np.random.default_rng(0).integers(50, size=(5, 7)))
    with torch.no_grad():
        assert torch.allclose(model(ids), own_forward(options, model, ids), rtol=1e-5, atol=1e-6)
        assert torch.equal(model(ids), model(ids.float()))
    names = [f"{name}.weight" for name in net.weight_layers]
    parameters = dict(model.named_parameters())
    for name, layer in zip(names, net, strict=True):
        assert tuple(parameters[name].shape) == (layer.fan_out, layer.fan_in)
        assert float(parameters[name].detach().std()) == pytest.approx(layer.weight_std, rel=0.1)
    assert len(net) == depth * (7 if options["gated"] else 6) + 1


def test_stand_in_tokens_are_those_of_the_torch_model():
    net = eoc.gpt(None, depth=1, width=64, vocabulary=30, tokens=5, classes=4)
    batch = net.summarise(seed=2)
    assert batch.inputs.shape == (100, 5) and batch.synthetic
    assert set(np.unique(batch.inputs)) == set(range(30))
    kept = eoc.predict_pruning(net, 0.9, method="sampled", samples=2, seed=2)
    given = (batch.inputs.astype(int), batch.targets)
    assert np.array_equal(
        kept.kept, eoc.predict_pruning(net, 0.9, method="sampled", samples=2, seed=2, data=given).kept
    )


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: eoc.transformer(0, 64), "depth"),
        (lambda: eoc.transformer(2, 60, heads=7), "heads"),
        (lambda: eoc.transformer(2, 64, heads=4, kv_heads=3), "kv_heads"),
        (lambda: eoc.transformer(2, 64, norm="batch"), "norm"),
        (lambda: eoc.transformer(2, 64, readout="first"), "readout"),
        (lambda: eoc.transformer(2, 64, residual="unstable"), "residual"),
        (lambda: eoc.transformer(2, 6, heads=2, positions="rotary"), "positions"),
        (lambda: eoc.transformer(2, 64, sigma_qk=-1), "sigma_qk"),
        (lambda: eoc.vit("vit-huge"), "size"),
        (lambda: eoc.vit(None, depth=2), "width"),
        (lambda: eoc.vit(patch=15), "patch"),
        (lambda: eoc.vit(causal_mask=True), "causal_mask"),
        (lambda: eoc.gpt("gpt3"), "size"),
        (lambda: eoc.gpt(tokens=0), "tokens"),
        (lambda: eoc.gpt(window=3), "window"),
    ],
)
def test_arguments_that_do_not_fit_are_named(make, argument):
    with pytest.raises(ArgumentError, match=argument):
        make()


@pytest.mark.parametrize("bad", [30, -1, 0.5])
def test_token_numbers_outside_of_the_vocabulary(bad):
    net = eoc.transformer(1, 16, vocabulary=30, tokens=5)
    ids = np.zeros((4, 5))
    ids[2, 1] = bad
    with pytest.raises(DataError, match=r"token numbers from 0 to 29"):
        eoc.predict_pruning(net, 0.9, data=(ids, np.arange(4)), method="theory")
