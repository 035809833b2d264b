"""Builders of networks with attention: transformers over tokens, over images' patches, and causal ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..activations import Activation
from ..activations import activation as _activation
from ..base import checks
from ..base.boundary import public
from ..errors import ArgumentError
from ..layers import (
    AdaptiveAveragePool,
    Attention,
    ChannelNorm,
    ClassToken,
    Convolution,
    Dense,
    Embedding,
    Flatten,
    Nonlinearity,
    Pick,
    PositionEmbedding,
    PositionwiseDense,
    Product,
    Rotary,
    Shape,
    Sinusoids,
    Sum,
    WeightLaw,
    WeightLayer,
)
from .architecture import Architecture
from .graph import GraphBuilder

Norm = Literal["layer", "rms"]
Positions = Literal["learned", "sinusoidal", "rotary"]
Readout = Literal["mean", "last", "class", "tokens"]
#: Blocks of a transformer, at most.
MOST_BLOCKS = 1000
#: Channels of a head where the number of heads is not given, as published transformers have.
HEAD = 64
#: Channels at most.
MOST_WIDTH = 1 << 20
#: Base of the rotary frequencies (Su et al. 2021).
ROTARY_BASE = 10_000.0

#: Published sizes: blocks, width, heads and what else differs from the builder's own values.
VITS: dict[str, dict[str, Any]] = {
    "vit-tiny": {"depth": 12, "width": 192, "heads": 3},
    "vit-small": {"depth": 12, "width": 384, "heads": 6},
    "vit-base": {"depth": 12, "width": 768, "heads": 12},
    "vit-large": {"depth": 24, "width": 1024, "heads": 16},
}
_LLAMA: dict[str, Any] = {
    "norm": "rms", "activation": "silu", "gated": True, "positions": "rotary", "output_scale": "none",
    "vocabulary": 32_000,
}  # fmt: skip
GPTS: dict[str, dict[str, Any]] = {
    "gpt2": {"depth": 12, "width": 768, "heads": 12},
    "gpt2-medium": {"depth": 24, "width": 1024, "heads": 16},
    "gpt2-large": {"depth": 36, "width": 1280, "heads": 20},
    "gpt2-xl": {"depth": 48, "width": 1600, "heads": 25},
    "llama-2-7b": {"depth": 32, "width": 4096, "heads": 32, "hidden": 11_008, **_LLAMA},
    "llama-2-70b": {
        "depth": 80, "width": 8192, "heads": 64, "kv_heads": 8, "hidden": 28_672, **_LLAMA
    },
}  # fmt: skip


@public
def transformer(
    depth: int,
    width: int,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    vocabulary: int = 1000,
    tokens: int = 32,
    classes: int = 10,
    activation: Any = "gelu",
    gated: bool = False,
    norm: Norm | None = "layer",
    placement: Literal["pre", "post"] = "pre",
    causal: bool = False,
    positions: Positions | None = "learned",
    readout: Readout = "mean",
    residual: float | Literal["stable"] = 1.0,
    scores: Literal["sqrt", "linear"] | float = "sqrt",
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
    sigma_qk: float | None = None,
    std: float | None = None,
    output_scale: Literal["none", "depth"] = "none",
    embedding_std: float | None = None,
    position_std: float | None = None,
    law: WeightLaw = "normal",
) -> Architecture:
    """Build a transformer that makes one vector of logits of `tokens` token numbers.

    Each of `depth` blocks is attention and then an MLP, each a residual branch x + α f(x) with its
    normalisation. Inputs are vectors of `tokens` whole numbers under `vocabulary`. Layers are named
    "embedding", "blocks.0.norm1", "blocks.0.attention.q" (.k, .v, .o), "blocks.0.norm2", "blocks.0.mlp.up"
    (.gate, .down), …, "norm", "head".

    Args:
        depth: number of blocks.
        width: channels of a token.
        heads: heads of attention, by default one for 64 channels; must divide `width`.
        kv_heads: heads of keys and values, each shared by heads/kv_heads (grouped queries); by default
            `heads`.
        hidden: channels inside the MLP, 4 · width by default (8/3 · width where it is gated).
        vocabulary: number of tokens.
        tokens: length T of an input.
        classes: number of logits.
        activation: of the MLP: anything `eoc.activation` takes.
        gated: whether the MLP is down(φ(gate x) · up x): SwiGLU with "silu", GeGLU with "gelu".
        norm: "layer" (LayerNorm over channels), "rms" (RMSNorm) or None.
        placement: "pre", x + α f(norm(x)) with a last norm before the readout, or "post", norm(x + α f(x)).
        causal: whether tokens attend to themselves and earlier ones alone.
        positions: "learned", "sinusoidal" (Vaswani et al. 2017), "rotary" (on q and k) or None.
        readout: what the head sees: the "mean" over tokens, the "last" token, or a "class" token's; "tokens"
            gives every token logits, and targets are (B, T).
        residual: strength α; "stable" is 1/√(2 · depth), one over the root of the number of branches.
        scores: factor of q·k: "sqrt" 1/√d for d channels a head, "linear" 1/d, or a number.
        sigma_w, sigma_b: σ_w of all weights, of variance σ_w²/fan_in, and of biases.
        sigma_qk: the product σ_q σ_k, σ_w² by default.
        std: instead, standard deviation of all weights, as in published code; 0.02 of GPT-2 and BERT.
        output_scale: "depth" divides the weights of the last matrix of each branch by √(2 · depth), as GPT-2.
        embedding_std, position_std: of embeddings of tokens (1, or `std`) and positions (the same).
        law: of the weights: "normal", "uniform", "truncated" or "orthogonal".

    Raises:
        ArgumentError: an argument outside the above.
    """
    depth = checks.integer("depth", depth, minimum=1, maximum=MOST_BLOCKS)
    width = checks.integer("width", width, minimum=1, maximum=MOST_WIDTH)
    vocabulary = checks.integer("vocabulary", vocabulary, minimum=1)
    tokens = checks.integer("tokens", tokens, minimum=1)
    form = _form(
        depth, width, heads=heads, kv_heads=kv_heads, hidden=hidden, activation=activation, gated=gated,
        norm=norm, placement=placement, causal=causal, positions=positions, readout=readout,
        residual=residual, scores=scores,
    )  # fmt: skip
    scales = _scales(depth, sigma_w, sigma_b, sigma_qk, std, output_scale, law)
    own = _spread("embedding_std", embedding_std, scales)
    net = _Builder(Shape(tokens), form, scales)
    net.graph.add(Embedding("embedding", vocabulary, width, own))
    net.body(_spread("position_std", position_std, scales, own), own)
    name = _title(f"{placement}-norm transformer" if norm else "transformer", depth, width)
    return net.finished(checks.integer("classes", classes, minimum=1), name)


@public
def vit(
    size: str | None = "vit-tiny",
    *,
    depth: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    patch: int = 16,
    input_shape: Sequence[int] = (3, 224, 224),
    classes: int = 1000,
    readout: Literal["class", "mean"] = "class",
    std: float | None = None,
    sigma_w: float | None = None,
    position_std: float | None = None,
    **options: Any,
) -> Architecture:
    """Build a vision transformer (Dosovitskiy et al. 2021): pre-norm blocks over patches of an image.

    The first layer "patches" is a convolution with kernel and stride `patch`.

    Args:
        size: "vit-tiny", "vit-small", "vit-base", "vit-large", whose depth, width and heads count where those
            are not given; None where all of them are.
        depth, width, heads: as in `eoc.transformer`.
        patch: extent of a patch, which divides that of the images.
        input_shape: channels, height and width.
        classes: number of logits.
        readout: "class" (a class token's) or "mean".
        std: standard deviation of all weights, 0.02 by default, as published; or else `sigma_w`.
        position_std: of the position embeddings and the class token, 0.02 by default, as published.
        options: others of `eoc.transformer`: hidden, activation, norm, residual, sigma_qk, ….

    Raises:
        ArgumentError: an argument outside the above.
    """
    chosen = _sized(size, VITS, {"depth": depth, "width": width, "heads": heads})
    channels, *space = checks.extents("input_shape", input_shape, (3,), "(C, H, W)")
    patch = checks.integer("patch", patch, minimum=1)
    if any(n % patch for n in space):
        raise ArgumentError(f"patch must divide the images' extents {tuple(space)}, got {patch}")
    given = _options(options, _OF_BLOCKS | {"sigma_b", "sigma_qk", "output_scale", "law"})
    form: dict[str, Any] = {**chosen, "readout": readout}
    form |= {key: given.pop(key) for key in _OF_BLOCKS & given.keys()}
    if std is None and sigma_w is None:
        std = 0.02
    scales = _scales(
        form["depth"], 1.0 if sigma_w is None else sigma_w, given.pop("sigma_b", 0.0),
        given.pop("sigma_qk", None), std, given.pop("output_scale", "none"), given.pop("law", "normal"),
    )  # fmt: skip
    spread = 0.02 if position_std is None else checks.non_negative("position_std", position_std)
    net = _Builder(Shape(channels, tuple(space)), _form(**form), scales)
    weight = scales.layer("patches", channels * patch**2, net.form.width, kernel=(patch, patch))
    net.graph.add(Convolution("patches", weight, (patch, patch), ((0, 0),) * 2, (1, 1)))
    net.body(spread, spread)
    name = _title("ViT", net.form.depth, net.form.width, size, depth, width, heads)
    return net.finished(checks.integer("classes", classes, minimum=1), name)


@public
def gpt(
    size: str | None = "gpt2",
    *,
    depth: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    tokens: int = 64,
    classes: int | None = None,
    std: float | None = None,
    sigma_w: float | None = None,
    **options: Any,
) -> Architecture:
    """Build a causal pre-norm transformer over tokens that predicts the next one from the last.

    Args:
        size: "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl" (Radford et al. 2019), "llama-2-7b",
            "llama-2-70b" (Touvron et al. 2023: RMSNorm, SwiGLU, rotary positions, grouped queries), whose
            values count where others are not given; None where depth and width are.
        depth, width, heads: as in `eoc.transformer`.
        tokens: length T of an input.
        classes: number of logits, by default that of tokens. The head's weights are its own: where a model
            ties them to the embedding they are taken as independent.
        std: standard deviation of all weights, 0.02 by default, as published; or else `sigma_w`.
        options: others of `eoc.transformer`; vocabulary is 50,257 and output_scale "depth" by default, as in
            GPT-2.

    Raises:
        ArgumentError: an argument outside the above.
    """
    chosen = _sized(size, GPTS, {"depth": depth, "width": width, "heads": heads})
    named: dict[str, Any] = {"causal": True, "readout": "last", "output_scale": "depth", "vocabulary": 50_257}
    known = {
        "kv_heads", "hidden", "activation", "gated", "norm", "positions", "residual", "scores", "sigma_b",
        "sigma_qk", "output_scale", "embedding_std", "position_std", "law", "vocabulary", "placement",
        "readout",
    }  # fmt: skip
    named |= chosen | _options(options, known)
    if std is None and sigma_w is None:
        std = 0.02
    if sigma_w is not None:
        named["sigma_w"] = sigma_w
    named["classes"] = named["vocabulary"] if classes is None else classes
    form = named.pop("depth"), named.pop("width")
    net = transformer(*form, tokens=tokens, std=std, **named)
    blocks, channels = map(int, form)
    return replace(net, name=_title("GPT", blocks, channels, size, depth, width, heads))


def _title(kind: str, depth: int, width: int, size: str | None = None, *changed: int | None) -> str:
    """What the network is called: by its published size, if none of its extents is `changed`."""
    if size is not None and all(value is None for value in changed):
        return size
    return f"{kind}, {depth} block{'s' if depth > 1 else ''} of width {width}"


def _sized(size: str | None, sizes: dict[str, dict[str, Any]], given: dict[str, Any]) -> dict[str, Any]:
    """The values of a published size, and those that are given."""
    chosen: dict[str, Any] = {}
    if size is not None:
        chosen = dict(sizes[checks.one_of("size", size, tuple(sizes))])
    if given["width"] is not None and given["heads"] is None:
        # Heads and MLP of another width are not those of the size.
        chosen.pop("heads", None)
        chosen.pop("kv_heads", None)
        chosen.pop("hidden", None)
    chosen |= {key: value for key, value in given.items() if value is not None}
    for key in ("depth", "width"):
        if key not in chosen:
            raise ArgumentError(f"{key} must be given where size is None, got None")
    chosen.setdefault("heads", None)
    return chosen


def _options(options: dict[str, Any], known: set[str]) -> dict[str, Any]:
    for key in options:
        if key not in known:
            raise ArgumentError(f"{key!r} is no option; options are {', '.join(sorted(known))}")
    return dict(options)


@dataclass(frozen=True)
class _Form:
    """What all blocks of a transformer are; see `transformer`."""

    depth: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    activation: Activation
    gated: bool
    norm: Norm | None
    placement: str
    causal: bool
    positions: Positions | None
    readout: Readout
    residual: float
    scale: float

    @property
    def head(self) -> int:
        """Channels of a head."""
        return self.width // self.heads


#: Options of `vit` that say what its blocks are.
_OF_BLOCKS = {
    "kv_heads", "hidden", "activation", "gated", "norm", "placement", "causal", "residual", "scores"
}  # fmt: skip


def _form(
    depth: int, width: int, *, heads: Any = None, kv_heads: Any = None, hidden: Any = None,
    activation: Any = "gelu", gated: Any = False, norm: Any = "layer", placement: Any = "pre",
    causal: Any = False, positions: Any = "learned", readout: Any = "mean", residual: Any = 1.0,
    scores: Any = "sqrt",
) -> _Form:  # fmt: skip
    """Checked arguments; without others than depth and width the blocks of `vit`."""
    depth = checks.integer("depth", depth, minimum=1, maximum=MOST_BLOCKS)
    width = checks.integer("width", width, minimum=1, maximum=MOST_WIDTH)
    gated = checks.flag("gated", gated)
    heads = max(1, width // HEAD) if heads is None else checks.integer("heads", heads, minimum=1)
    if width % heads:
        raise ArgumentError(f"heads must divide width = {width}, got {heads}")
    kv_heads = heads if kv_heads is None else checks.integer("kv_heads", kv_heads, minimum=1)
    if heads % kv_heads:
        raise ArgumentError(f"kv_heads must divide heads = {heads}, got {kv_heads}")
    usual = 8 * width // 3 if gated else 4 * width
    hidden = usual if hidden is None else checks.integer("hidden", hidden, minimum=1)
    if norm is not None:
        checks.one_of("norm", norm, ("layer", "rms"))
    checks.one_of("placement", placement, ("pre", "post"))
    if positions is not None:
        checks.one_of("positions", positions, ("learned", "sinusoidal", "rotary"))
    if positions == "rotary" and (width // heads) % 2:
        size = width // heads
        raise ArgumentError(f"positions 'rotary' needs an even number of channels a head, got {size}")
    checks.one_of("readout", readout, ("mean", "last", "class", "tokens"))
    if isinstance(residual, str):
        checks.one_of("residual", residual, ("stable",))
        strength = 1.0 / math.sqrt(2 * depth)
    else:
        strength = checks.positive("residual", residual)
    size = width // heads
    if isinstance(scores, str):
        checks.one_of("scores", scores, ("sqrt", "linear"))
        scale = 1.0 / math.sqrt(size) if scores == "sqrt" else 1.0 / size
    else:
        scale = checks.positive("scores", scores)
    return _Form(
        depth, width, heads, kv_heads, hidden, _activation(activation), gated, norm, placement,
        checks.flag("causal", causal), positions, readout, strength, scale,
    )  # fmt: skip


@dataclass(frozen=True)
class _Scales:
    """The distributions that weights are sampled from.

    Attributes:
        sigma_w, sigma_b, law: of all weights and biases.
        sigma_qk: σ_q σ_k, None for that of the others.
        std: of every weight instead of σ_w; None where that counts.
        output: factor of the last matrix of each branch.
    """

    sigma_w: float
    sigma_b: float
    sigma_qk: float | None
    std: float | None
    output: float
    law: WeightLaw

    def layer(
        self, name: str, fan_in: int, fan_out: int, *, factor: float = 1.0, scores: bool = False,
        kernel: tuple[int, ...] = (), activation: Activation | None = None,
    ) -> WeightLayer:  # fmt: skip
        sigma_w = self.sigma_w if self.std is None else self.std * math.sqrt(fan_in)
        if scores and self.sigma_qk is not None:
            sigma_w = math.sqrt(self.sigma_qk)
        return WeightLayer(
            name, fan_in, fan_out, factor * sigma_w, self.sigma_b, activation, self.law, kernel
        )


def _scales(
    depth: int, sigma_w: Any, sigma_b: Any, sigma_qk: Any, std: Any, output_scale: Any, law: Any
) -> _Scales:
    checks.one_of("law", law, ("normal", "uniform", "truncated", "orthogonal"))
    checks.one_of("output_scale", output_scale, ("none", "depth"))
    return _Scales(
        checks.positive("sigma_w", sigma_w),
        checks.non_negative("sigma_b", sigma_b),
        None if sigma_qk is None else checks.positive("sigma_qk", sigma_qk),
        None if std is None else checks.positive("std", std),
        1.0 if output_scale == "none" else 1.0 / math.sqrt(2 * depth),
        law,
    )


def _spread(name: str, given: Any, scales: _Scales, otherwise: float | None = None) -> float:
    """The standard deviation of an embedding."""
    if given is not None:
        return checks.non_negative(name, given)
    return otherwise if otherwise is not None else 1.0 if scales.std is None else scales.std


class _Builder:
    """Adds a transformer's layers one by one."""

    def __init__(self, shape: Shape, form: _Form, scales: _Scales) -> None:
        self.graph = GraphBuilder(shape)
        self.form, self._scales = form, scales
        #: Axes of positions that tokens lie on.
        self._axes = max(len(shape.space), 1)
        self._frequencies = tuple(
            ROTARY_BASE ** (-2.0 * i / form.head) for i in range(form.head // 2)
        )  # fmt: skip

    @property
    def _here(self) -> int:
        return len(self.graph.nodes) - 1

    def body(self, position_std: float, class_std: float) -> None:
        """Positions, blocks and the last norm, on the tokens so far."""
        form = self.form
        if form.readout == "class":
            self._axes = 1
            self.graph.add(ClassToken("class_token", class_std))
        if form.positions == "learned":
            self.graph.add(PositionEmbedding("positions", position_std))
        elif form.positions == "sinusoidal":
            self.graph.add(Sinusoids("positions"))
        for block in range(form.depth):
            name = f"blocks.{block}"
            self._branch(name, 1, self._attention)
            self._branch(name, 2, self._mlp)
        if form.placement == "pre" and form.norm is not None:
            self._norm("norm")

    def finished(self, classes: int, name: str) -> Architecture:
        """With a readout and a head, called `name`."""
        if self.form.readout == "tokens":
            self._dense("head", self.form.width, classes, self._here)
            return Architecture.from_graph(self.graph.build(), name)
        if self.form.readout == "mean":
            self.graph.add(AdaptiveAveragePool("pool", (1,) * self._axes))
            self.graph.add(Flatten("flatten"))
        else:
            self.graph.add(Pick("readout", 0 if self.form.readout == "class" else -1))
        self.graph.add(Dense("head", self._scales.layer("head", self.form.width, classes)))
        return Architecture.from_graph(self.graph.build(), name)

    def _norm(self, name: str, *source: int) -> int:
        return self.graph.add(ChannelNorm(name, centred=self.form.norm == "layer"), *source)

    def _branch(self, block: str, number: int, function: Any) -> None:
        """x + α f(x) with its norm."""
        form, start = self.form, self._here
        if form.norm is not None and form.placement == "pre":
            self._norm(f"{block}.norm{number}")
        function(block)
        self.graph.add(Sum(f"{block}.add{number}", (1.0, form.residual)), start, self._here)
        if form.norm is not None and form.placement == "post":
            self._norm(f"{block}.norm{number}")

    def _dense(self, name: str, fan_in: int, fan_out: int, source: int, **options: Any) -> int:
        weight = self._scales.layer(name, fan_in, fan_out, **options)
        return self.graph.add(PositionwiseDense(name, weight), source)

    def _attention(self, block: str) -> None:
        form, start, name = self.form, self._here, f"{block}.attention"
        kv = form.head * form.kv_heads
        q = self._dense(f"{name}.q", form.width, form.width, start, scores=True)
        k = self._dense(f"{name}.k", form.width, kv, start, scores=True)
        if form.positions == "rotary":
            q, k = (
                self.graph.add(Rotary(f"{name}.rotary_{which}", form.head, self._frequencies), source)
                for which, source in (("q", q), ("k", k))
            )
        v = self._dense(f"{name}.v", form.width, kv, start)
        scores = Attention(f"{name}.heads", form.heads, form.kv_heads, form.scale, form.causal)
        mixed = self.graph.add(scores, q, k, v)
        self._dense(f"{name}.o", form.width, form.width, mixed, factor=self._scales.output)

    def _mlp(self, block: str) -> None:
        form, start, name = self.form, self._here, f"{block}.mlp"
        act = form.activation
        if form.gated:
            gate = self._dense(f"{name}.gate", form.width, form.hidden, start, activation=act)
            gate = self.graph.add(Nonlinearity(f"{name}.act", act), gate)
            up = self._dense(f"{name}.up", form.width, form.hidden, start)
            inside = self.graph.add(Product(f"{name}.product"), gate, up)
        else:
            up = self._dense(f"{name}.up", form.width, form.hidden, start, activation=act)
            inside = self.graph.add(Nonlinearity(f"{name}.act", act), up)
        self._dense(f"{name}.down", form.hidden, form.width, inside, factor=self._scales.output)
