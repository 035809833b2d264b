"""The distribution of a layer's weights, read from the weights themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...errors import ModelError
from ...layers import WeightLaw
from ...layers.weight_layer import CUT, INSIDE_CUT
from ..unit_scales import runs_of_one_scale

#: Log-likelihood by which one law must beat another to be told from one layer's weights alone.
DECISIVE = 6.0
_CHUNK = 1 << 16  # entries in double precision that stay in a processor's cache


@dataclass(frozen=True)
class Weights:
    """What a layer's parameters say of their law.

    Attributes:
        fan_in: inputs of one output unit.
        shape: of the weight tensor.
        sigma_w, sigma_b: scales, σ_w = √(fan_in · mean W²) with masked weights as 0, σ_b = √(mean b²).
        log_likelihood: of the weights that are not masked, under each law of independent weights at its most
            likely scale.
        orthogonal: whether the rows, or the columns, are orthogonal and of one length.
        unit_scales: of runs of output units whose weights have scales of their own: how many units, and their
            scale over that of all; () where all have one.
    """

    fan_in: int
    shape: tuple[int, ...]
    sigma_w: float
    sigma_b: float
    log_likelihood: dict[WeightLaw, float]
    orthogonal: bool
    unit_scales: tuple[tuple[int, float], ...] = ()


def read_weights(
    name: str,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    biases: torch.Tensor | None,
    bias_mask: torch.Tensor | None,
) -> Weights:
    """The scales and the law of a layer's weights and biases, each under a mask of zeros and ones or None.

    Raises:
        ModelError: not finite, constant but not 0, not of mean 0, with taps of the kernel that are 0
            throughout (delta-orthogonal, Dirac), or of a law with two values.
    """
    fan_in = math.prod(weight.shape[1:])
    moments = Moments.of(weight, mask)
    sigma_w = math.sqrt(fan_in * moments.square)
    if not sigma_w < math.inf:
        raise ModelError(
            f"the weights of layer {name!r} must be finite, got scale {sigma_w} (the theory needs random "
            "weights of mean zero)"
        )
    # A layer that begins at 0, as the last one of published models may, has a law without width.
    silent = moments.square == 0.0 and mask is None
    if moments.square == 0.0 and not silent:
        raise ModelError(f"the weights of layer {name!r} that its mask leaves are all 0")
    if not silent:
        _check_random(name, weight, mask, moments, fan_in)
    sigma_b = 0.0
    if biases is not None:
        sigma_b = math.sqrt(Moments.of(biases, bias_mask).square)
        if not math.isfinite(sigma_b):
            raise ModelError(f"the biases of layer {name!r} must be finite, got scale {sigma_b}")
    return Weights(
        fan_in,
        tuple(weight.shape),
        sigma_w,
        sigma_b,
        moments.log_likelihood(),
        mask is None and not silent and is_orthogonal(weight, moments),
        _unit_scales(weight, math.sqrt(moments.square)) if mask is None else (),
    )


def off_mean(tensor: torch.Tensor, mask: torch.Tensor | None = None) -> str:
    """What is wrong with numbers that the theory takes as random ones of mean 0; "" where nothing is.

    A constant is the same shift of all units, which random numbers of that size are not: ReLU units under
    it are more of them alive. A mean of up to a tenth of the standard deviation is none to speak of.
    """
    moments = Moments.of(tensor, mask)
    n, mean = moments.total, moments.mean
    variance = max(moments.square - mean**2, 0.0)
    constant = n > 1 and variance <= 1e-12 * moments.square
    # Fewer than 16 numbers do not show a mean.
    beyond_chance = n >= 16 and mean**2 * n > 36.0 * variance and mean**2 > 0.01 * variance
    if moments.square == 0.0 or not (constant or beyond_chance):
        return ""
    return (
        f"have mean {mean:.4g} and standard deviation {0.0 if constant else math.sqrt(variance):.4g}, "
        "and the theory needs random ones of mean 0, or 0 throughout (method='sampled' takes them as they "
        "are)"
    )


def _unit_scales(weight: torch.Tensor, rms: float) -> tuple[tuple[int, float], ...]:
    runs = runs_of_one_scale(weight)
    if len(runs) < 2:
        return ()
    return tuple(
        (stop - start, math.sqrt(float(weight[start:stop].double().square().mean())) / rms)
        for start, stop in runs
    )


def weights_of_law(name: str, shape: tuple[int, ...], law: str, std: float, sigma_b: float) -> Weights:
    """What is said of weights of a known law, of this standard deviation.

    Raises:
        ModelError: they are no random weights of mean 0.
    """
    if law not in ("normal", "uniform", "truncated", "orthogonal") or not std > 0.0:
        raise ModelError(f"the weights of layer {name!r} must be random and of mean 0, got law {law!r}")
    fan_in = math.prod(shape[1:])
    likelihood: dict[WeightLaw, float] = {"normal": 0.0, "uniform": 0.0, "truncated": 0.0}
    if law in likelihood:
        likelihood[law] = float(math.prod(shape))  # type: ignore[index]
    return Weights(fan_in, shape, std * math.sqrt(fan_in), sigma_b, likelihood, law == "orthogonal")


def laws(weights: list[Weights]) -> list[WeightLaw]:
    """The law of each layer.

    "orthogonal" where the rows or columns say so, else the most likely of "normal", "uniform" and
    "truncated". A layer with too few weights to tell is given the law most likely for all layers together.
    """
    names: tuple[WeightLaw, ...] = ("normal", "uniform", "truncated")
    together: dict[WeightLaw, float] = {law: sum(w.log_likelihood[law] for w in weights) for law in names}

    def most_likely(scores: dict[WeightLaw, float]) -> WeightLaw | None:
        first, second = sorted(names, key=lambda law: -scores[law])[:2]
        return first if scores[first] - scores[second] > DECISIVE else None

    common = most_likely(together) or "normal"
    return ["orthogonal" if w.orthogonal else most_likely(w.log_likelihood) or common for w in weights]


@dataclass(frozen=True)
class Moments:
    """Of a tensor: all entries count in `square` and `mean`, those that are not masked in the others."""

    square: float
    mean: float
    total: int
    kept: int
    kept_square: float
    kurtosis: float
    largest: float

    @classmethod
    def of(cls, tensor: torch.Tensor, mask: torch.Tensor | None) -> Moments:
        # The fourth powers are of entries divided by the largest, or small weights would underflow.
        alive = None if mask is None else mask.reshape(-1) != 0
        entries = tensor.reshape(-1) if alive is None else tensor.reshape(-1)[alive]
        largest = float(torch.linalg.vector_norm(entries, math.inf)) if entries.numel() else 0.0
        scale = largest if 0 < largest < math.inf else 1.0
        first = second = fourth = 0.0
        for part in entries.split(_CHUNK):
            part = part.to(device="cpu", dtype=torch.float64) / scale
            square = part * part
            first += float(part.sum())
            second += float(square.sum())
            fourth += float(square @ square)
        kept = entries.numel()
        total = tensor.numel()
        if not math.isfinite(largest) or not math.isfinite(second):
            return cls(math.nan, math.nan, total, kept, math.nan, math.nan, largest)
        return cls(
            square=second / total * scale**2 if total else 0.0,
            mean=first / total * scale if total else 0.0,
            total=total,
            kept=kept,
            kept_square=second / kept * scale**2 if kept else 0.0,
            kurtosis=fourth * kept / second**2 if second > 0 else math.nan,
            largest=largest,
        )

    def log_likelihood(self) -> dict[WeightLaw, float]:
        n, rms = self.kept, math.sqrt(self.kept_square)
        if rms == 0.0:
            return {"normal": 0.0, "uniform": 0.0, "truncated": 0.0}
        # The uncut law is most likely as wide as the entries, or as near to that as the largest allows.
        return log_likelihoods(n, rms, reach=self.largest, uncut=max(rms, self.largest / CUT))


def log_likelihoods(count: int, rms: float, *, reach: float, uncut: float) -> dict[WeightLaw, float]:
    """Of `count` entries of mean 0 and this root mean square, under each law that has a density.

    Args:
        reach: where the uniform law ends.
        uncut: standard deviation of the normal law that the truncated one is cut from.
    """
    half_log = 0.5 * math.log(2 * math.pi)
    return {
        "normal": -count * (0.5 + half_log + math.log(rms)),
        "uniform": -count * math.log(2.0 * reach),
        "truncated": -count * (0.5 * (rms / uncut) ** 2 + half_log + math.log(uncut) + math.log(INSIDE_CUT)),
    }


def _check_random(
    name: str, weight: torch.Tensor, mask: torch.Tensor | None, moments: Moments, fan_in: int
) -> None:
    needs = "(the theory needs random weights of mean zero)"
    n, mean = moments.total, moments.mean
    variance = max(moments.square - mean**2, 0.0)
    if n > 1 and variance <= 1e-12 * moments.square:
        raise ModelError(f"the weights of layer {name!r} are constant, {mean:.4g} {needs}")
    # A mean m of the weights adds up to fan_in · m² against the variance, where all inputs are equal; six
    # sampling errors of a mean of 0 lie beyond chance, and beyond reach of fewer than 36 weights.
    if mean**2 * fan_in > 0.05 * variance and mean**2 * n > 36.0 * moments.square:
        raise ModelError(
            f"the weights of layer {name!r} have mean {mean:.4g} and standard deviation "
            f"{math.sqrt(variance):.4g} {needs}"
        )
    if mask is None and weight.dim() > 2 and math.prod(weight.shape[2:]) > 1:
        dead = (weight == 0).reshape(*weight.shape[:2], -1).all(0).all(0)
        if bool(dead.any()):
            raise ModelError(
                f"the weights of layer {name!r} are 0 at {int(dead.sum())} of {dead.numel()} taps of the "
                "kernel: delta-orthogonal and Dirac convolutions cannot be read"
            )
    # No law that can be told has a kurtosis under 1.8; its sampling error is at most 1.6/√n there.
    if mask is None and n > 1 and moments.kurtosis < 1.7 - 6.0 / math.sqrt(n):
        raise ModelError(
            f"the weights of layer {name!r} have kurtosis {moments.kurtosis:.3g}: known are the normal (3), "
            "truncated normal (2.37) and uniform (1.8) laws and orthogonal matrices"
        )


def is_orthogonal(weight: torch.Tensor, moments: Moments) -> bool:
    """Whether W Wᵀ or WᵀW, of W as (out, the rest), is a multiple of the identity.

    Tested on a few random vectors, so that it costs as much as reading the weights: W Wᵀ v = g² v.
    """
    rows, columns = weight.shape[0], math.prod(weight.shape[1:])
    if min(rows, columns) < 2:
        return False
    # Rounding is the limit; independent weights miss by √(rows/columns), which can be as small in float16.
    rounding = 3e-2 if weight.dtype in (torch.float16, torch.bfloat16) else 1e-4
    tolerance = min(rounding, 0.1 * math.sqrt(min(rows, columns) / max(rows, columns)))
    matrix = weight.reshape(rows, columns)
    if rows > columns:
        matrix = matrix.T
    expected = moments.square * max(rows, columns)
    some = matrix[:4].double()
    if float((some @ some.T / expected).fill_diagonal_(0.0).abs().max()) > 10.0 * tolerance:
        return False
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(matrix.shape[0], 4, generator=generator).to(matrix.device)
    matrix = matrix.float()
    image = matrix @ (matrix.T @ v)
    return float((image / expected - v).norm() / v.norm()) < tolerance
