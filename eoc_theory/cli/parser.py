"""The options of every command. Values are checked by the library, whose errors name them."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ..base.suggestions import did_you_mean
from ..base.version import __version__
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
PLOT_HELP = "write a picture; the suffix .png, .pdf or .svg sets its format"


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
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        metavar="SHELL",
        help="print the script that completes words in bash, zsh or tcsh (the extra `completion`)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _init(commands)
    _gain(commands)
    _curve(commands)
    _phase(commands)
    _explore(commands)
    _predict(commands)
    _collapse(commands)
    _compare(commands)
    _diagnose(commands)
    _design(commands)
    _trainability(commands)
    _attention(commands)
    return parser


# --- commands -----------------------------------------------------------------------------------------------


def _command(
    commands: Any, name: str, summary: str, examples: list[str], run: str
) -> argparse.ArgumentParser:
    """A sub-parser whose command is the function `run` of `commands.py`, imported when it is called."""

    def call(args: argparse.Namespace) -> int:
        from . import commands as module

        return getattr(module, run)(args)

    made = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {e}" for e in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(run=call)
    made.add_argument(
        "--json", action="store_true", help="print only JSON, whose keys are the attributes of the API"
    )
    shown = made.add_mutually_exclusive_group()
    shown.add_argument(
        "--progress",
        action="store_const",
        const=True,
        help="tell on stderr how far long work is, also where that is no terminal",
    )
    shown.add_argument(
        "--quiet",
        action="store_const",
        const=False,
        dest="progress",
        help="tell nothing on stderr but errors",
    )
    return made


def _init(commands: Any) -> None:
    examples = [
        "eoc init tanh --sigma-b 0.2",
        'eoc init "x/(1+exp(-x))" --sigma-b 0.8',
        "eoc init gelu --q 1 --json",
        "eoc init relu --dropout 0.1             (keeps variances and gradients; there is no edge of chaos)",
        'eoc init --sigma-b 0.1 -- "-sin(x)"     (-- comes before an expression that starts with a minus)',
    ]
    made = _command(commands, "init", "the edge-of-chaos initialisation of an activation", examples, "init")
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    given = made.add_mutually_exclusive_group()
    given.add_argument("--sigma-b", type=number, metavar="S", help="bias scale (default: 0)")
    given.add_argument("--sigma-w", type=number, metavar="S", help="weight scale: s.d. of a weight × √fan_in")
    given.add_argument("--q", type=number, metavar="Q", help="variance of the pre-activations")
    _dropout(made)


def _gain(commands: Any) -> None:
    examples = ["eoc gain tanh --sigma-b 0.2", "eoc gain gelu --q 1", "eoc gain silu --q 1 --json"]
    made = _command(
        commands, "gain", "the edge of chaos as a gain for torch, JAX, Flax and Keras", examples, "gain"
    )
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    given = made.add_mutually_exclusive_group()
    given.add_argument("--sigma-b", type=number, metavar="S", help="bias scale (default: 0)")
    given.add_argument("--q", type=number, metavar="Q", help="variance of the pre-activations")
    _dropout(made)


def _explore(commands: Any) -> None:
    examples = [
        "eoc explore --html explorer.html",
        'eoc explore gelu "x/(1+exp(-1.7*x))" --html explorer.html',
    ]
    made = _command(
        commands,
        "explore",
        "a page for a browser that shows phases, maps and pruning as σ_w, σ_b and depth are moved",
        examples,
        "explore",
    )
    made.add_argument(
        "activations",
        nargs="*",
        metavar="ACT",
        help="names or expressions in x (default: fifteen common activations, some half a minute)",
    )
    made.add_argument(
        "--html",
        required=True,
        type=html_page,
        metavar="FILE",
        help="write one self-contained page; the suffix must be .html",
    )


def _curve(commands: Any) -> None:
    examples = ["eoc curve tanh --sigma-b 0:1:21 --plot curve.png"]
    made = _command(commands, "curve", "the edge of chaos as a curve, σ_w against σ_b", examples, "curve")
    made.add_argument("activation", metavar="ACT", help=ACT_HELP)
    _grid(made, "--sigma-b", "0:2:21", "bias scales")
    _dropout(made)
    _plot(made)


def _phase(commands: Any) -> None:
    examples = [
        "eoc phase tanh --sigma-w 0.5:3:200 --sigma-b 0:1:200 --plot phase.png",
        "eoc phase tanh --dropout 0.1 --plot dropout.png",
    ]
    made = _command(
        commands,
        "phase",
        "the ordered and the chaotic phase, with depth scales, on a grid",
        examples,
        "phase",
    )
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
    made = _command(
        commands, "predict", "the fraction of weights that pruning keeps in each layer", examples, "predict"
    )
    _network(made)
    _sparsity(made, required=True)
    _sampling(made, "networks to sample for snip and grasp (default: chosen by the kind of network)")
    _method(made, "where networks are sampled in torch: auto, cpu, cuda … (default: auto)")
    _layers(made)
    _plot(made)


def _collapse(commands: Any) -> None:
    examples = ["eoc collapse --activation tanh --depth 100 --width 100 --init 2,0.2 --sparsity 0.2,0.3"]
    made = _command(
        commands,
        "collapse",
        "the distribution of the critical sparsity, at which a layer collapses",
        examples,
        "collapse",
    )
    _network(made)
    _sparsity(made, required=False)
    _sampling(made, "networks to sample for snip and grasp (default: chosen by the kind of network)")
    _method(made, "where networks are sampled in torch: auto, cpu, cuda … (default: auto)")
    _plot(made)


def _compare(commands: Any) -> None:
    examples = [
        "eoc compare --activation tanh --depth 30 --width 100 --sparsity 0.5,0.9 --data digits --seeds 20 "
        "--plot compare.png"
    ]
    made = _command(
        commands, "compare", "the prediction beside networks that are really pruned", examples, "compare"
    )
    _network(made)
    _sparsity(made, required=True)
    made.add_argument("--seeds", type=whole, default=10, metavar="N", help="networks to prune (default: 10)")
    made.add_argument("--seed", type=whole, default=0, metavar="N", help="the first seed (default: 0)")
    _method(made, "auto, cpu, cuda … (default: auto)")
    _layers(made)
    _plot(made)


def _diagnose(commands: Any) -> None:
    examples = [
        "eoc diagnose mynets:make_resnet --input-shape 3,32,32 --sparsity 0.98",
        "eoc diagnose src/nets.py:Classifier --input-shape 784 --data mnist.npz --html report.html",
    ]
    made = _command(
        commands, "diagnose", "what is wrong with a torch model's initialisation, and what to use instead",
        examples, "diagnose",
    )  # fmt: skip
    made.add_argument(
        "model",
        metavar="MODULE:FACTORY",
        help="a function or class that returns the model when called without arguments, or the model itself. "
        "MODULE may be a file such as src/nets.py, and is looked for in this folder first. It is imported, "
        "which runs its code",
    )
    made.add_argument(
        "--input-shape",
        type=counts,
        metavar="C,H,W",
        help="shape of one input: features, or channels and extents (default: that of the data; without "
        "data: the features of the first Linear layer)",
    )
    made.add_argument(
        "--sparsity",
        type=fraction,
        default=0.9,
        metavar="S",
        help="fraction of the weights to remove (default: 0.9)",
    )
    _pruning(made, "--input-shape")
    _method(made, "auto, cpu, cuda … (default: auto)", "theory where the model can be read, else sampled")
    made.add_argument(
        "--loss",
        type=loss,
        default="cross_entropy",
        help="of sampled networks: cross_entropy, mse or bce (default: cross_entropy)",
    )
    made.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="seed of torch while the model is made, and of the samples (default: 0)",
    )
    _layers(made)
    _plot(made)
    made.add_argument(
        "--html",
        type=html_page,
        metavar="FILE",
        help="write one self-contained page; the suffix must be .html",
    )
    made.add_argument(
        "--interactive",
        action="store_true",
        help="with --html: a picture that names the layer under the pointer (needs Plotly; adds 4.5 MB)",
    )


def _design(commands: Any) -> None:
    examples = [
        "eoc design --activation relu --depth 100 --width 100 --sparsity 0.99",
        "eoc design --activation tanh --depth 60 --width 100 --init 0.9,0.2 --sparsity 0.98 --data digits "
        "--plot design.png",
        "eoc design --activation relu --depth 5 --width 200 --sparsity 0.98 --goal training --data digits",
        "eoc design src/nets.py:make_resnet --input-shape 3,32,32 --sparsity 0.98",
    ]
    made = _command(
        commands,
        "design",
        "an initialisation and an allocation of weights to layers that avoid collapse at a sparsity",
        examples,
        "design",
    )
    _own_or_described(made, criterion=None, usual="snip; with --goal training synflow, snip under attention")
    made.add_argument(
        "--goal",
        type=str.lower,
        default="connection",
        metavar="GOAL",
        help="connection: the least change that avoids collapse; training: the network that is likely to "
        "train best (default: connection)",
    )
    made.add_argument(
        "--sparsity", required=True, type=fraction, metavar="S", help="fraction of the weights to remove"
    )
    made.add_argument(
        "--max-collapse-probability",
        type=fraction,
        default=0.01,
        metavar="P",
        help="highest accepted probability that a layer collapses or is disconnected (default: 0.01)",
    )
    _way(made)
    made.add_argument(
        "--networks",
        type=whole,
        metavar="N",
        help="networks to sample and prune for each option, to see whether paths through them are left; "
        "0: none (default: 1 to 8, as many as are cheap, and up to 32 where these leave it open)",
    )
    made.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="seed of everything random (default: 0)"
    )
    _layers(made)
    _plot(made)


def _trainability(commands: Any) -> None:
    examples = [
        "eoc trainability --activation relu --depth 6 --width 200 --sparsity 0.9 --data digits",
        "eoc trainability src/nets.py:make_resnet --input-shape 3,32,32 --sparsity 0.98 --criterion synflow",
    ]
    made = _command(
        commands,
        "trainability",
        "how well a network can be trained, by its Jacobian and its neural tangent kernel: of a torch model "
        "measured, of a described network predicted",
        examples,
        "trainability",
    )
    _own_or_described(made, criterion="random", usual="random")
    made.add_argument(
        "--sparsity",
        type=fraction,
        default=0.0,
        metavar="S",
        help="fraction of the weights to remove (default: 0)",
    )
    _way(
        made,
        "theory for fully connected layers and masks that do not look at gradients or paths, else sampled",
    )
    made.add_argument(
        "--inputs", type=whole, default=32, metavar="N", help="inputs that are looked at (default: 32)"
    )
    made.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="seed of everything random (default: 0)"
    )
    _layers(made)
    _plot(made)


def _attention(commands: Any) -> None:
    examples = [
        "eoc attention --depth 12 --tokens 64 --plot attention.png",
        "eoc attention --norm post --activation none --score-scale 0.5,1,2,4 --residual-strength 0.1:1:10",
    ]
    made = _command(
        commands,
        "attention",
        "where transformers can be trained: rank collapse, entropy collapse and gradients on a grid",
        examples,
        "attention",
    )
    _grid(made, "--score-scale", "0.1:32:50:log", "σ_qσ_k")
    _grid(made, "--residual-strength", "0.05:5:50:log", "factors of the residual branches")
    for option, kind, metavar, default, text in (
        ("--tokens", whole, "T", 64, "number of tokens"),
        ("--depth", whole, "L", 12, "number of blocks"),
        ("--norm", str, "NORM", "pre", "pre or post: where LayerNorm stands"),
        ("--activation", str, "ACT", "gelu", "of the MLP; none: blocks of attention alone"),
        ("--gain", number, "G", 1.0, "σ_vσ_o, of value and output matrix together"),
        ("--mlp-gain", number, "G", 1.0, "standard deviation of the MLP's output"),
        ("--skip", number, "S", 1.0, "factor of the skip connections; 0: none"),
        ("--similarity", number, "P", 0.0, "correlation of two tokens at the input"),
        ("--gradient-similarity", number, "P", 0.0, "the same of gradients at the output"),
    ):
        shown = (
            f"{text} (default: {default:g})" if isinstance(default, float) else f"{text} (default: {default})"
        )
        made.add_argument(option, type=kind, metavar=metavar, default=default, help=shown)
    _plot(made)


# --- groups of options --------------------------------------------------------------------------------------


def _own_or_described(made: argparse.ArgumentParser, *, criterion: str | None, usual: str) -> None:
    """A torch model by its name, or the options that describe a network."""
    made.add_argument(
        "model",
        nargs="?",
        metavar="MODULE:FACTORY",
        help="your own torch model, as in eoc diagnose, instead of the options that describe a network",
    )
    made.add_argument(
        "--input-shape",
        type=counts,
        metavar="C,H,W",
        help="with MODULE:FACTORY: shape of one input (default: that of the data; without data: the features "
        "of the first Linear layer)",
    )
    _network(made, required=False, criterion=criterion, usual=usual)


def _network(
    made: argparse.ArgumentParser,
    *,
    required: bool = True,
    criterion: str | None = "snip",
    usual: str = "snip",
) -> None:
    net = made.add_argument_group("network")
    net.add_argument("--activation", metavar="ACT", help=f"{ACT_HELP}; the default of resnet and vgg is relu")
    net.add_argument(
        "--depth",
        required=required,
        type=whole,
        metavar="L",
        help="number of weight layers (resnet, vgg: the number in the name)",
    )
    net.add_argument(
        "--width",
        "--channels",
        type=whole,
        metavar="N",
        help="units or channels of each hidden layer (resnet, vgg: channels of the first stage; default: 16, "
        "64)",
    )
    net.add_argument(
        "--kind",
        type=str.lower,
        default="mlp",
        help="mlp, fully connected; cnn, plain convolutions; resnet, stable-resnet (depth 6n + 2) or vgg "
        "(11, 13, 16, 19, 34, 49) (default: mlp)",
    )
    net.add_argument(
        "--image",
        type=counts,
        metavar="C,H,W",
        help="shape of one image (default: that of the data; without data: 3,32,32)",
    )
    net.add_argument(
        "--padding", type=str.lower, help="padding of cnn: circular, zeros or reflect (default: circular)"
    )
    net.add_argument(
        "--normalisation",
        type=str.lower,
        help="normalisation of resnet and vgg: batch, group, layer or none (default: batch)",
    )
    net.add_argument(
        "--mode",
        type=str.lower,
        help="mode of batch normalisation: training or evaluation (default: training)",
    )
    _distribution(net)
    net.add_argument(
        "--in-features",
        type=whole,
        metavar="N",
        help="features of one input (default: those of the data; without data: 64)",
    )
    net.add_argument(
        "--out-features",
        type=whole,
        metavar="N",
        help="number of classes (default: that of the data; without data: 10)",
    )
    _pruning(made, "--image", criterion, usual)


def _distribution(net: Any) -> None:
    """The scales and the distribution of the weights."""
    net.add_argument(
        "--init",
        type=initialisation,
        default="eoc",
        metavar="INIT",
        help="eoc, kaiming, pytorch or SIGMA_W,SIGMA_B (default: eoc)",
    )
    net.add_argument(
        "--sigma-b",
        type=number,
        metavar="S",
        help="bias scale of --init eoc (default: 0.2; 0 for homogeneous activations such as relu)",
    )
    net.add_argument(
        "--law",
        type=str.lower,
        help="distribution of the weights: normal or uniform, in convolutional networks also truncated or "
        "orthogonal (default: normal; with --init pytorch: uniform)",
    )


def _pruning(
    made: argparse.ArgumentParser, image: str, criterion: str | None = "snip", usual: str = "snip"
) -> None:
    """The criterion, with its default and how that is told, and the data.

    `image` is the option that says how large images are.
    """
    pruning = made.add_argument_group("pruning")
    pruning.add_argument(
        "--criterion",
        type=str.lower,
        default=criterion,
        metavar="CRITERION",
        help="snip, grasp, magnitude, synflow, synflow-oneshot, random, uniform, erk, smart-ratio or force, "
        f"with options as in 'snip(rounds=100)' (default: {usual})",
    )
    pruning.add_argument(
        "--data",
        type=data_name,
        default="none",
        metavar="DATA",
        help=f"digits (as images, enlarged to {image}); mnist, fashion-mnist, cifar10, cifar100 or "
        "tiny-imagenet; FILE.npz with arrays inputs and targets; none: uncorrelated inputs (default: none)",
    )
    pruning.add_argument(
        "--data-folder",
        metavar="DIR",
        help="folder with the published files of the set (default: mnist, fashion-mnist and cifar10 are "
        "fetched once from OpenML)",
    )
    pruning.add_argument(
        "--batch",
        type=whole,
        metavar="N",
        help="number of inputs to use (default: 100 of an image set, all of a file)",
    )


def _sparsity(made: argparse.ArgumentParser, *, required: bool) -> None:
    made.add_argument(
        "--sparsity",
        required=required,
        action="extend",
        type=fractions,
        metavar="S",
        help="fraction of the weights to remove; for several, separate them with commas or repeat the option",
    )


def _sampling(made: argparse.ArgumentParser, samples_help: str) -> None:
    made.add_argument("--samples", type=whole, metavar="N", help=samples_help)
    made.add_argument("--seed", type=whole, default=0, metavar="N", help="seed of the samples (default: 0)")


_AUTO = "theory for fully connected networks, else sampled"


def _way(made: argparse.ArgumentParser, auto: str = _AUTO) -> None:
    made.add_argument(
        "--method",
        type=str.lower,
        default="auto",
        help="theory: kernels and closed forms, no network is sampled; sampled: sampled networks, in torch; "
        f"auto: {auto} (default: auto)",
    )


def _method(made: argparse.ArgumentParser, device_help: str, auto: str = _AUTO) -> None:
    _way(made, auto)
    made.add_argument(
        "--exclude",
        type=lambda text: text.split(","),
        default=(),
        metavar="NAMES",
        help="layers whose weights stay, separated by commas; patterns such as 'layers.*' too",
    )
    made.add_argument("--device", type=device, default="auto", help=device_help)


def _layers(made: argparse.ArgumentParser) -> None:
    made.add_argument("--all-layers", action="store_true", help="print every layer of a deep network")


def _grid(made: argparse.ArgumentParser, option: str, default: str, what: str) -> None:
    made.add_argument(
        option,
        type=grid,
        default=grid(default),
        metavar="GRID",
        help=f"{what}: LOW:HIGH:POINTS, evenly, or LOW:HIGH:POINTS:log; or numbers separated by commas "
        f"(default: {default})",
    )


def _dropout(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--dropout",
        type=fraction,
        default=0.0,
        metavar="P",
        help="probability of dropping an activation (default: 0)",
    )


def _plot(made: argparse.ArgumentParser) -> None:
    made.add_argument("--plot", type=picture, metavar="FILE", help=PLOT_HELP)


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


def picture(text: str, *suffixes: str) -> Any:
    """A file name for a picture, or a file with one of the `suffixes`, checked before any work is done."""
    from ..reports.plots import check_path

    try:
        return check_path(text, suffixes) if suffixes else check_path(text)
    except EOCError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def html_page(text: str) -> Any:
    """A file name for a page."""
    return picture(text, ".html", ".htm")


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
