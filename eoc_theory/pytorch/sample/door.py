"""A model, factory or architecture as a network whose scores are sampled."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ...criteria.synflow.mean_flow import refuse_attention
from ...errors import CallbackError, EOCError, ModelError
from ...networks.architecture import Architecture
from ...networks.downsample import within_reach
from ...networks.graph import Graph
from ...networks.queries import absent_tokens, mode_notes
from ...networks.resolve import Options
from ...networks.unread import UnreadNetwork
from ...signals.parts import check_absent
from ..batches import Batch, as_batch
from ..devices import chosen_device
from ..factories import made
from ..inputs import example_shape
from ..lazy import torch
from ..losses import as_loss
from ..measure.run_flow import RUN_NOTE
from ..models import prunable_weights
from ..products import has_candidates
from ..ranked import Ranked, ranked_weights
from ..read import read_network
from .laws import ParameterLaw
from .recorder import Recorder
from .sampler import Sampler
from .sources import Built, Made, Redrawn, Source


def as_network(net: Any, data: Any, options: Options, *, seed: int = 0) -> Architecture | UnreadNetwork:
    """A model, or what a factory makes, as plain data: a chain of fully connected layers is read as that.

    Any other is to be sampled, but for scores that follow from a graph, where there is one. Args and errors
    as of `sampled_network`.
    """
    if options.from_graph:
        return _with_flow(net, data, options, seed)
    if options.method == "auto" and not options.beyond_theory:
        model = net if isinstance(net, torch.nn.Module) else made(net, 0)
        weights = prunable_weights(model, required=False)
        if all(isinstance(weight.module, torch.nn.Linear) for weight in weights):
            with suppress(ModelError):
                read = read_network(model, data, options.example_input)
                if read.is_chain:
                    return read
    return sampled_network(net, data, options, seed=seed)


def _with_flow(net: Any, data: Any, options: Options, seed: int) -> Architecture | UnreadNetwork:
    """As it is read, where that has a positive network; sampled where not, where layers stay, or if asked."""
    if isinstance(net, Architecture):
        return sampled_network(net, data, options, seed=seed)
    graph, reason = None, ""
    try:
        read = read_network(net, data, options.example_input, only_structure=True)
        refuse_attention(read.as_graph())
        if options.method != "sampled" and "exclude" not in options.beyond_theory:
            return read
        graph = read.as_graph()
    except ModelError as error:
        reason = str(error)
    return sampled_network(net, data, options, seed=seed, reason=reason, graph=graph)


def sampled_network(
    net: Any, data: Any, options: Options, *, seed: int = 0, reason: str = "", graph: Graph | None = None
) -> UnreadNetwork:
    """What samples networks like `net`.

    Args:
        net: an architecture, a model, whose weights are drawn anew, or a factory.
        data: what scores are computed on, as `eoc_theory.pytorch.batches.as_batch` takes it.
        options: how networks are run.
        seed: of stand-in data.
        reason: why the network is not read.
        graph: of a model that is, for SynFlow's positive network.

    Raises:
        ArgumentError, DataError, ModelError: a model that cannot be run on the data.
    """
    example, known = None, dict[str, ParameterLaw]()
    notes: tuple[str, ...] = ()
    absent: tuple[int, ...] = ()
    if isinstance(net, Architecture):
        if not options.beyond_theory:
            net, data, notes = within_reach(net, data, seed=seed)
        absent = absent_tokens(net.as_graph())
        data = net.summarise(None, seed=seed) if data is None and absent else data
        model, example, graph = net.to_torch(0), example_shape(net), net.as_graph()
    elif isinstance(net, torch.nn.Module):
        model = net
    else:
        model, known = _watched(net)
    if not prunable_weights(model, required=False) and not has_candidates(model, []):
        raise ModelError(f"net ({type(model).__name__}) has no weights of matrix products to prune")
    if options.example_input is not None:
        example = options.example_input
    loss = as_loss(options.loss, options.output)
    batch = None
    # Criteria that look at no data can do without a run.
    optional = data is None and example is None and not options.needs_data and not options.from_graph
    with suppress(*((EOCError,) if optional else ())):
        batch = as_batch(model, data, example, seed, loss, options.output)
    if batch is not None and absent:
        check_absent(batch.inputs.numpy(), absent)
    ranked = ranked_weights(model, batch, loss, options.exclude)
    source = _source(net, model, ranked, known)
    run = (f"{RUN_NOTE} ({reason})",) if options.from_graph and graph is None else ()
    sampler = Sampler(
        source,
        batch,
        loss,
        chosen_device(options.device, model),
        options.dtype,
        ranked.multiplications,
        ranked.held,
        _notes(model, notes, ranked, source, batch, options) + run,
        draws=ranked.draws,
        graph=graph,
    )
    return UnreadNetwork(source.layers, sampler, source.laws_known, reason)


def _notes(
    model: Any, first: tuple[str, ...], ranked: Ranked, source: Source, batch: Batch | None, options: Options
) -> tuple[str, ...]:
    # SynFlow knows neither a mode nor the batch.
    own = () if batch is None or options.from_graph else batch.notes
    modes = () if options.from_graph else batch_norm_notes(model)
    return (*first, *modes, *ranked.notes, *source.notes, *own)


def batch_norm_notes(model: Any) -> tuple[str, ...]:
    """The modes that the model's batch normalisations are in."""
    kinds = torch.nn.modules.batchnorm._BatchNorm
    return mode_notes({m.training or m.running_mean is None for m in model.modules() if isinstance(m, kinds)})


def _watched(factory: Any) -> tuple[Any, dict[str, ParameterLaw]]:
    """A network of a factory's, and the laws of its parameters that were recorded while it was made."""
    with suppress(CallbackError), Recorder() as recorder:
        model = made(factory, 0)
        return model, recorder.laws(model)
    return made(factory, 0), {}


def _source(net: Any, model: Any, ranked: Ranked, known: dict[str, ParameterLaw]) -> Source:
    if isinstance(net, Architecture):
        names = {weight.name for weight in ranked.weights}
        return Built(net, tuple(layer for layer in net.layers if layer.name in names))
    if model is net:
        return Redrawn(model, ranked.weights)
    return Made(net, model, ranked.weights, known)
