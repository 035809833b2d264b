"""The options of every command. Values are checked by the library, whose errors name them."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from ..base.suggestions import did_you_mean
from ..base.version import __version__
from ..base.whole_files import PICTURES, check_path
from ..errors import EOCError
from ..errors.text import one_line
from .completion import PrintCompletion
from .mistakes import of_parser

#: Points of a grid that is given as LOW:HIGH:POINTS.
MOST_POINTS = 1_000_000

Init = str | tuple[float, float]

#: Initialisations that have a name.
INITIALISATIONS = ("eoc", "kaiming", "pytorch")
#: Losses that have a name.
LOSSES = ("cross_entropy", "mse", "bce")
#: Kinds of devices that torch knows.
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "mtia", "ipu", "xla", "vulkan", "meta")

ACT_HELP = "a name such as tanh or 'leaky_relu(0.1)', or an expression in x such as 'x/(1+exp(-x))'"


class OneLineParser(argparse.ArgumentParser):
    """Reports unusable arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {one_line(of_parser(message, self))}", file=sys.stderr)
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``eoc``; the parsed arguments hold `command` and `run`."""
    parser = OneLineParser(
        prog="eoc",
        description="Theory of deep networks at initialisation: the edge of chaos, what pruning keeps, "
        "and when layers collapse.",
        epilog="example: eoc init tanh --sigma-b 0.2; 'eoc COMMAND --help' shows examples for each command; "
        'eval "$(eoc --print-completion bash)" completes words in a shell',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"eoc {__version__}")
    text = "print the script that completes words in bash, zsh or tcsh (the extra `completion`)"
    parser.add_argument("--print-completion", action=PrintCompletion, metavar="SHELL", help=text)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _init,
        _gain,
        _curve,
        _phase,
        _explore,
        _predict,
        _collapse,
        _compare,
        _diagnose,
        _design,
        _trainability,
        _attention,
    ):
        add(commands)
    return parser


#: Command → the module of `commands` that it lives in.
_HOME = {
    **dict.fromkeys(("init", "gain", "curve"), "critical"),
    **dict.fromkeys(("phase", "attention"), "phases"),
    **dict.fromkeys(("predict", "collapse"), "pruning"),
    **dict.fromkeys(("diagnose", "design", "trainability"), "models"),
    "explore": "explorer",
    "compare": "comparison",
}


# --- commands -----------------------------------------------------------------------------------------------


def _command(commands: Any, name: str, summary: str, examples: list[str]) -> argparse.ArgumentParser:
    """A sub-parser whose command is the function `name` of a module of `commands`, imported when called."""

    def call(args: argparse.Namespace) -> int:
        return getattr(import_module(f"{__package__}.commands.{_HOME[name]}"), name)(args)

    made = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {e}" for e in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(run=call)
    _flag(made, "--json", "print only JSON, whose keys are the attributes of the API")
    shown = made.add_mutually_exclusive_group()
    text = "tell on stderr how far long work is, also where that is no terminal"
    shown.add_argument("--progress", action="store_const", const=True, help=text)
    text = "tell nothing on stderr but errors"
    shown.add_argument("--quiet", action="store_const", const=False, dest="progress", help=text)
    return made


def _option(made: Any, name: str, kind: Any, text: str, metavar: str | None = None, **more: Any) -> None:
    """An option with a value of the type `kind`; a `default` that is given is told at the end of `text`."""
    if "default" in more:
        default = more["default"]
        text = f"{text} (default: {f'{default:g}' if isinstance(default, float) else default})"
    made.add_argument(name, type=kind, help=text, metavar=metavar, **more)


def _flag(made: Any, name: str, text: str) -> None:
    made.add_argument(name, action="store_true", help=text)


def _init(commands: Any) -> None:
    examples = [
        "eoc init tanh --sigma-b 0.2",
        'eoc init "x/(1+exp(-x))" --sigma-b 0.8',
        "eoc init gelu --q 1 --json",
        "eoc init relu --dropout 0.1             (keeps variances and gradients; there is no edge of chaos)",
        'eoc init --sigma-b 0.1 -- "-sin(x)"     (-- comes before an expression that starts with a minus)',
    ]
    made = _command(commands, "init", "the edge-of-chaos initialisation of an activation", examples)
    _point(made, sigma_w=True)


def _gain(commands: Any) -> None:
    examples = ["eoc gain tanh --sigma-b 0.2", "eoc gain gelu --q 1", "eoc gain silu --q 1 --json"]
    made = _command(commands, "gain", "the edge of chaos as a gain for torch, JAX, Flax and Keras", examples)
    _point(made)


def _explore(commands: Any) -> None:
    examples = [
        "eoc explore --html explorer.html",
        'eoc explore gelu "x/(1+exp(-1.7*x))" --html explorer.html',
    ]
    summary = "a page for a browser that shows phases, maps and pruning as σ_w, σ_b and depth are moved"
    made = _command(commands, "explore", summary, examples)
    text = "names or expressions in x (default: fifteen common activations, some half a minute)"
    made.add_argument("activations", nargs="*", metavar="ACT", help=text)
    _page(made, required=True)


def _curve(commands: Any) -> None:
    examples = ["eoc curve tanh --sigma-b 0:1:21 --plot curve.png"]
    made = _command(commands, "curve", "the edge of chaos as a curve, σ_w against σ_b", examples)
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    _grid(made, "--sigma-b", "0:2:21", "bias scales")
    _dropout(made)
    _plot(made)


def _phase(commands: Any) -> None:
    examples = [
        "eoc phase tanh --sigma-w 0.5:3:200 --sigma-b 0:1:200 --plot phase.png",
        "eoc phase tanh --dropout 0.1 --plot dropout.png",
    ]
    summary = "the ordered and the chaotic phase, with depth scales, on a grid"
    made = _command(commands, "phase", summary, examples)
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    _grid(made, "--sigma-w", "0.5:3:100", "weight scales")
    _grid(made, "--sigma-b", "0:1:100", "bias scales")
    _dropout(made)
    _plot(made)


def _predict(commands: Any) -> None:
    examples = [
        "eoc predict --activation relu --depth 100 --width 100 --sparsity 0.7",
        "eoc predict --activation tanh --depth 30 --width 300 --init 2,0.2 --sparsity 0.5,0.9 --data digits",
        "eoc predict --kind resnet --activation relu --depth 20 --sparsity 0.98 --data digits",
    ]
    summary = "the fraction of weights that pruning keeps in each layer"
    made = _command(commands, "predict", summary, examples)
    _network(made)
    _sparsity(made, required=True)
    _sampling(made)
    _layers(made)
    _plot(made)


def _collapse(commands: Any) -> None:
    examples = ["eoc collapse --activation tanh --depth 100 --width 100 --init 2,0.2 --sparsity 0.2,0.3"]
    summary = "the distribution of the critical sparsity, at which a layer collapses"
    made = _command(commands, "collapse", summary, examples)
    _network(made)
    _sparsity(made, required=False)
    _sampling(made)
    _plot(made)


def _compare(commands: Any) -> None:
    examples = [
        "eoc compare --activation tanh --depth 30 --width 100 --sparsity 0.5,0.9 --data digits --seeds 20 "
        "--plot compare.png"
    ]
    summary = "the prediction beside networks that are really pruned"
    made = _command(commands, "compare", summary, examples)
    _network(made)
    _sparsity(made, required=True)
    _option(made, "--seeds", whole, "networks to prune", "N", default=10)
    _option(made, "--seed", whole, "the first seed", "N", default=0)
    _method(made, "auto, cpu, cuda …")
    _layers(made)
    _plot(made)


def _diagnose(commands: Any) -> None:
    examples = [
        "eoc diagnose mynets:make_resnet --input-shape 3,32,32 --sparsity 0.98",
        "eoc diagnose src/nets.py:Classifier --input-shape 784 --data mnist.npz --html report.html",
    ]
    summary = "what is wrong with a torch model's initialisation, and what to use instead"
    made = _command(commands, "diagnose", summary, examples)
    text = (
        "a function or class that returns the model when called without arguments, or the model itself. "
        "MODULE may be a file such as src/nets.py, and is looked for in this folder first. It is imported, "
        "which runs its code"
    )
    made.add_argument("model", metavar="MODULE:FACTORY", help=text)
    _option(made, "--input-shape", counts, _INPUT_SHAPE, "C,H,W")
    _option(made, "--sparsity", fraction, _REMOVED, "S", default=0.9)
    _pruning(made, "--input-shape")
    _method(made, "auto, cpu, cuda …", "theory where the model can be read, else sampled")
    _option(made, "--loss", loss, "of sampled networks: cross_entropy, mse or bce", default="cross_entropy")
    _option(
        made, "--seed", whole, "seed of torch while the model is made, and of the samples", "N", default=0
    )
    _layers(made)
    _plot(made)
    _page(made)
    text = "with --html: a picture that names the layer under the pointer (needs Plotly; adds 4.5 MB)"
    _flag(made, "--interactive", text)


def _design(commands: Any) -> None:
    examples = [
        "eoc design --activation relu --depth 100 --width 100 --sparsity 0.99",
        "eoc design --activation tanh --depth 60 --width 100 --init 0.9,0.2 --sparsity 0.98 --data digits "
        "--plot design.png",
        "eoc design --activation relu --depth 5 --width 200 --sparsity 0.98 --goal training --data digits",
        "eoc design src/nets.py:make_resnet --input-shape 3,32,32 --sparsity 0.98",
    ]
    summary = "an initialisation and an allocation of weights to layers that avoid collapse at a sparsity"
    made = _command(commands, "design", summary, examples)
    _own_or_described(made, criterion=None, usual="snip; with --goal training synflow, snip under attention")
    text = "connection: the least change that avoids collapse; training: the network that is likely to "
    _option(made, "--goal", str.lower, f"{text}train best", "GOAL", default="connection")
    _option(made, "--sparsity", fraction, _REMOVED, "S", required=True)
    text = "highest accepted probability that a layer collapses or is disconnected"
    _option(made, "--max-collapse-probability", fraction, text, "P", default=0.01)
    _way(made)
    text = (
        "networks to sample and prune for each option, to see whether paths through them are left; "
        "0: none (default: 1 to 8, as many as are cheap, and up to 32 where these leave it open)"
    )
    _option(made, "--networks", whole, text, "N")
    _option(made, "--seed", whole, "seed of everything random", "N", default=0)
    _layers(made)
    _plot(made)


def _trainability(commands: Any) -> None:
    examples = [
        "eoc trainability --activation relu --depth 6 --width 200 --sparsity 0.9 --data digits",
        "eoc trainability src/nets.py:make_resnet --input-shape 3,32,32 --sparsity 0.98 --criterion synflow",
    ]
    summary = (
        "how well a network can be trained, by its Jacobian and its neural tangent kernel: of a torch model "
        "measured, of a described network predicted"
    )
    made = _command(commands, "trainability", summary, examples)
    _own_or_described(made, criterion="random", usual="random")
    _option(made, "--sparsity", fraction, _REMOVED, "S", default=0.0)
    _way(
        made,
        "theory for fully connected layers and masks that do not look at gradients or paths, else sampled",
    )
    _option(made, "--inputs", whole, "inputs that are looked at", "N", default=32)
    _option(made, "--seed", whole, "seed of everything random", "N", default=0)
    _layers(made)
    _plot(made)


def _attention(commands: Any) -> None:
    examples = [
        "eoc attention --depth 12 --tokens 64 --plot attention.png",
        "eoc attention --norm post --activation none --score-scale 0.5,1,2,4 --residual-strength 0.1:1:10",
    ]
    summary = "where transformers can be trained: rank collapse, entropy collapse and gradients on a grid"
    made = _command(commands, "attention", summary, examples)
    _grid(made, "--score-scale", "0.1:32:50:log", "σ_qσ_k")
    _grid(made, "--residual-strength", "0.05:5:50:log", "factors of the residual branches")
    _option(made, "--tokens", whole, "number of tokens", "T", default=64)
    _option(made, "--depth", whole, "number of blocks", "L", default=12)
    _option(made, "--norm", str, "pre or post: where LayerNorm stands", "NORM", default="pre")
    _option(made, "--activation", str, "of the MLP; none: blocks of attention alone", "ACT", default="gelu")
    _option(made, "--gain", number, "σ_vσ_o, of value and output matrix together", "G", default=1.0)
    _option(made, "--mlp-gain", number, "standard deviation of the MLP's output", "G", default=1.0)
    _option(made, "--skip", number, "factor of the skip connections; 0: none", "S", default=1.0)
    _option(made, "--similarity", number, "correlation of two tokens at the input", "P", default=0.0)
    text = "the same of gradients at the output"
    _option(made, "--gradient-similarity", number, text, "P", default=0.0)
    _plot(made)


# --- groups of options --------------------------------------------------------------------------------------

_REMOVED = "fraction of the weights to remove"
_INPUT_SHAPE = (
    "shape of one input: features, or channels and extents (default: that of the data; without data: the "
    "features of the first Linear layer)"
)
_AUTO = "theory for fully connected networks, else sampled"


def _point(made: argparse.ArgumentParser, *, sigma_w: bool = False) -> None:
    """An activation, and what fixes the point on its edge of chaos."""
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    given = made.add_mutually_exclusive_group()
    _option(given, "--sigma-b", number, "bias scale (default: 0)", "S")
    if sigma_w:
        _option(given, "--sigma-w", number, "weight scale: s.d. of a weight × √fan_in", "S")
    _option(given, "--q", number, "variance of the pre-activations", "Q")
    _dropout(made)


def _own_or_described(made: argparse.ArgumentParser, *, criterion: str | None, usual: str) -> None:
    """A torch model by its name, or the options that describe a network."""
    text = "your own torch model, as in eoc diagnose, instead of the options that describe a network"
    made.add_argument("model", nargs="?", metavar="MODULE:FACTORY", help=text)
    text = (
        "with MODULE:FACTORY: shape of one input (default: that of the data; without data: the features "
        "of the first Linear layer)"
    )
    _option(made, "--input-shape", counts, text, "C,H,W")
    _network(made, required=False, criterion=criterion, usual=usual)


def _network(
    made: argparse.ArgumentParser,
    *,
    required: bool = True,
    criterion: str | None = "snip",
    usual: str = "snip",
) -> None:
    net = made.add_argument_group("network")
    _option(net, "--activation", None, f"{ACT_HELP}; the default of resnet and vgg is relu", "ACT")
    text = "number of weight layers (resnet, vgg: the number in the name)"
    _option(net, "--depth", whole, text, "L", required=required)
    text = (
        "units or channels of each hidden layer (resnet, vgg: channels of the first stage; default: 16, 64)"
    )
    net.add_argument("--width", "--channels", type=whole, metavar="N", help=text)
    text = (
        "mlp, fully connected; cnn, plain convolutions; resnet, stable-resnet (depth 6n + 2) or vgg "
        "(11, 13, 16, 19, 34, 49)"
    )
    _option(net, "--kind", str.lower, text, default="mlp")
    text = "shape of one image (default: that of the data; without data: 3,32,32)"
    _option(net, "--image", counts, text, "C,H,W")
    _option(net, "--padding", str.lower, "padding of cnn: circular, zeros or reflect (default: circular)")
    text = "normalisation of resnet and vgg: batch, group, layer or none (default: batch)"
    _option(net, "--normalisation", str.lower, text)
    text = "mode of batch normalisation: training or evaluation (default: training)"
    _option(net, "--mode", str.lower, text)
    _distribution(net)
    text = "features of one input (default: those of the data; without data: 64)"
    _option(net, "--in-features", whole, text, "N")
    text = "number of classes (default: that of the data; without data: 10)"
    _option(net, "--out-features", whole, text, "N")
    _pruning(made, "--image", criterion, usual)


def _distribution(net: Any) -> None:
    """The scales and the distribution of the weights."""
    text = "eoc, kaiming, pytorch or SIGMA_W,SIGMA_B"
    _option(net, "--init", initialisation, text, "INIT", default="eoc")
    text = "bias scale of --init eoc (default: 0.2; 0 for homogeneous activations such as relu)"
    _option(net, "--sigma-b", number, text, "S")
    text = (
        "distribution of the weights: normal or uniform, in convolutional networks also truncated or "
        "orthogonal (default: normal; with --init pytorch: uniform)"
    )
    _option(net, "--law", str.lower, text)


def _pruning(
    made: argparse.ArgumentParser, image: str, criterion: str | None = "snip", usual: str = "snip"
) -> None:
    """The criterion, with its default and how that is told, and the data.

    `image` is the option that says how large images are.
    """
    pruning = made.add_argument_group("pruning")
    text = (
        "snip, grasp, magnitude, synflow, synflow-oneshot, random, uniform, erk, smart-ratio or force, "
        f"with options as in 'snip(rounds=100)' (default: {usual})"
    )
    pruning.add_argument("--criterion", type=str.lower, default=criterion, metavar="CRITERION", help=text)
    text = (
        f"digits (as images, enlarged to {image}); mnist, fashion-mnist, cifar10, cifar100 or "
        "tiny-imagenet; FILE.npz with arrays inputs and targets; none: uncorrelated inputs"
    )
    _option(pruning, "--data", data_name, text, "DATA", default="none")
    text = (
        "folder with the published files of the set (default: mnist, fashion-mnist and cifar10 are "
        "fetched once from OpenML)"
    )
    _option(pruning, "--data-folder", None, text, "DIR")
    text = "number of inputs to use (default: 100 of an image set, all of a file)"
    _option(pruning, "--batch", whole, text, "N")


def _sparsity(made: argparse.ArgumentParser, *, required: bool) -> None:
    text = f"{_REMOVED}; for several, separate them with commas or repeat the option"
    _option(made, "--sparsity", fractions, text, "S", required=required, action="extend")


def _sampling(made: argparse.ArgumentParser) -> None:
    text = "networks to sample for snip and grasp (default: chosen by the kind of network)"
    _option(made, "--samples", whole, text, "N")
    _option(made, "--seed", whole, "seed of the samples", "N", default=0)
    _method(made, "where networks are sampled in torch: auto, cpu, cuda …")


def _way(made: argparse.ArgumentParser, auto: str = _AUTO) -> None:
    text = "theory: kernels and closed forms, no network is sampled; sampled: sampled networks, in torch; "
    _option(made, "--method", str.lower, f"{text}auto: {auto}", default="auto")


def _method(made: argparse.ArgumentParser, device_help: str, auto: str = _AUTO) -> None:
    _way(made, auto)
    text = "layers whose weights stay, separated by commas; patterns such as 'layers.*' too"
    made.add_argument("--exclude", type=lambda text: text.split(","), default=(), metavar="NAMES", help=text)
    _option(made, "--device", device, device_help, default="auto")


def _layers(made: argparse.ArgumentParser) -> None:
    _flag(made, "--all-layers", "print every layer of a deep network")


def _grid(made: argparse.ArgumentParser, option: str, default: str, what: str) -> None:
    text = (
        f"{what}: LOW:HIGH:POINTS, evenly, or LOW:HIGH:POINTS:log; or numbers separated by commas "
        f"(default: {default})"
    )
    made.add_argument(option, type=grid, default=grid(default), metavar="GRID", help=text)


def _dropout(made: argparse.ArgumentParser) -> None:
    _option(made, "--dropout", fraction, "probability of dropping an activation", "P", default=0.0)


def _plot(made: argparse.ArgumentParser) -> None:
    text = "write a picture; the suffix .png, .pdf or .svg sets its format"
    _option(made, "--plot", picture, text, "FILE")


def _page(made: argparse.ArgumentParser, required: bool = False) -> None:
    text = "write one self-contained page; the suffix must be .html"
    _option(made, "--html", html_page, text, "FILE", required=required)


# --- kinds of values ----------------------------------------------------------------------------------------


def _reader(accepted: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read`, with an error that says what is accepted and, where that can be told, what to write instead."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            instead = _instead(text, read)
            raise argparse.ArgumentTypeError(f"must be {accepted}, got {text[:60]!r}{instead}") from None

    return convert


#: Longer texts are no slip of somebody who meant a few numbers, and patterns take long to look through them.
_LONGEST_MISTAKE = 500
#: What people write for a number or between numbers, and what is meant.
_MEANT = (
    (re.compile(r"(\d+),(\d+)"), r"\1.\2"),  # a decimal comma
    (re.compile(r"([\d.,]+)\s*[xX×]\s*(?=\d)"), r"\1,"),  # 3x32x32
    (re.compile(r"[\[(](.*)[\])]"), r"\1"),  # [0.5, 0.9]
    (re.compile(r"([\d.]+)[\s;|]+(?=[\d.])"), r"\1,"),  # 0.5;0.9
    (re.compile(r",\s+"), ","),
    (re.compile(r"([\d.]+)-([\d.]+)"), r"\1:\2:21"),  # 0-1
    (re.compile(r"([\d.]+)(?::|\.\.)([\d.]+)"), r"\1:\2:21"),  # 0:1
    (re.compile(r"(\d+)\.\d+"), r"\1"),  # 5.5 layers
)


def _instead(text: str, read: Callable[[str], Any]) -> str:
    """What to write for `text`, "" if that cannot be told."""
    if len(text) > _LONGEST_MISTAKE:
        return ""
    if _PERCENT.fullmatch(text):
        pattern = [(_PERCENT, lambda found: f"{float(found[1]) / 100:g}")]
        text = text.replace(" ", "")
    else:
        pattern = list(_MEANT)
    for meant, form in pattern:
        other = meant.sub(form, text.strip())
        if other == text:
            continue
        try:
            read(other)
        except ValueError:
            continue
        return f"; write {other}"
    return ""


_PERCENT = re.compile(r"\s*([\d.]+)\s*%\s*")


def _read_fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or 0.0 <= value < 1.0:
        return value  # what is no number is refused by the library, as there
    hint = ""
    if value == 1.0:
        hint = "; 1 leaves nothing, write a number under 1 such as 0.99"
    elif 1.0 < value < 100.0:
        hint = f"; for {value:g} % write {value / 100:g}"
    raise argparse.ArgumentTypeError(f"must be a number in [0, 1), got {text}{hint}")


def _read_fractions(text: str) -> list[float]:
    parts = text.split(",")
    if any(_PERCENT.fullmatch(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be fractions in [0, 1), got {text[:60]!r}; write {_unpercent(parts)}"
        )
    return [_read_fraction(part) for part in parts]


def _unpercent(parts: list[str]) -> str:
    found = [(part, _PERCENT.fullmatch(part)) for part in parts]
    return ",".join(f"{float(match[1]) / 100:g}" if match else part.strip() for part, match in found)


def data_name(text: str) -> str:
    """The name of a data set in lower case; a file's as it is."""
    return text if text.lower().endswith(".npz") else text.lower()


def device(text: str) -> str:
    """A device of torch, as far as its name tells."""
    kind = text.partition(":")[0].lower()
    if kind in DEVICES:
        return text.lower()
    meant = did_you_mean(kind, DEVICES).replace("'", "") or f"; write one of {', '.join(DEVICES[:4])}"
    raise argparse.ArgumentTypeError(f"must be auto or a device of torch, got {text[:60]!r}{meant}")


def _read_grid(text: str) -> list[float]:
    if ":" not in text:
        return _read_numbers(text)
    low, high, points, *kind = text.split(":")
    if kind not in ([], ["log"]):
        raise ValueError
    count = int(points)
    if count < 1:
        raise ValueError
    if count > MOST_POINTS:
        raise argparse.ArgumentTypeError(f"must have at most {MOST_POINTS} points, got {count}")
    start, stop = float(low), float(high)
    if kind:
        if not (0.0 < start < math.inf and 0.0 < stop < math.inf):
            raise ValueError
        rate = math.log(stop / start) / max(count - 1, 1)
        return [start * math.exp(i * rate) for i in range(count - 1)] + [stop if count > 1 else start]
    step = (stop - start) / max(count - 1, 1)
    return [start + i * step for i in range(count - 1)] + [stop if count > 1 else start]


def _read_numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _read_counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _read_init(text: str) -> Init:
    if "," not in text:
        if text.lower() in INITIALISATIONS:
            return text.lower()
        try:
            meant = f"; write {float(text):g},0"
        except ValueError:
            meant = did_you_mean(text, INITIALISATIONS)
        accepted = "eoc, kaiming, pytorch or SIGMA_W,SIGMA_B"
        raise argparse.ArgumentTypeError(f"must be {accepted}, got {text[:60]!r}{meant}")
    sigma_w, sigma_b = text.split(",")
    return float(sigma_w), float(sigma_b)


def picture(text: str, suffixes: tuple[str, ...] = PICTURES) -> Any:
    """A file name for a picture, or for what has the `suffixes`, checked before any work is done."""
    try:
        return check_path(text, suffixes)
    except EOCError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def html_page(text: str) -> Any:
    """A file name for a page."""
    return picture(text, (".html", ".htm"))


def loss(text: str) -> str:
    """The name of a loss."""
    if text.lower() in LOSSES:
        return text.lower()
    meant = did_you_mean(text, LOSSES)
    raise argparse.ArgumentTypeError(f"must be {', '.join(LOSSES)}, got {text[:60]!r}{meant}")


number = _reader("a number", float)
fraction = _reader("a number in [0, 1)", _read_fraction)
fractions = _reader("numbers in [0, 1), separated by commas", _read_fractions)
whole = _reader("a whole number", int)
numbers = _reader("numbers separated by commas", _read_numbers)
counts = _reader("whole numbers separated by commas", _read_counts)
grid = _reader("LOW:HIGH:POINTS, LOW:HIGH:POINTS:log or numbers separated by commas", _read_grid)
initialisation = _reader("eoc, kaiming, pytorch or SIGMA_W,SIGMA_B", _read_init)
