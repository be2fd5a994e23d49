"""Runs with several networks: which there are, who trains which, and what does not go with them."""

import copy

import torch

from fedmpi.compute.sgd import casting
from fedmpi.core.errors import UserError
from fedmpi.core.flops import Costs, costs
from fedmpi.core.kinds import SERVER, Kinds, kind
from fedmpi.core.layout import bind
from fedmpi.core.tensors import mode
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.own_network import OwnNetwork


def specs(options):
    """``{spec: option}`` of the networks that clients train, each once, and the option that names it."""
    named = {options["model"]: "--model"}
    for spec in options.get("also_model", ()):
        named.setdefault(spec, "--also-model")
    return named


def several(options):
    """Whether the run has more than one network."""
    return len(specs(options)) > 1 or bool(options.get("server_model"))


def of_clients(options, N):
    """(N,) int64: which of the networks, in the order of ``specs``, each client trains.

    Clients are dealt out evenly to --model and every --also-model, in an order drawn by the seed. A
    network that is given twice gets twice as many.
    """
    numbers = {spec: number for number, spec in enumerate(specs(options))}
    turns = [numbers[spec] for spec in (options["model"], *options["also_model"])]
    order = torch.from_numpy(stream(options["seed"], Purpose.KIND, N).permutation(N))
    of = torch.empty(N, dtype=torch.int64)
    of[order] = torch.tensor(turns)[torch.arange(N) % len(turns)]
    return of


def kinds(options, model, layout, sample, N):
    """The ``Kinds`` of a run with several networks; None where it has one. ``model`` is a ``Several``
    with this ``layout``, seen on ``sample (1, ...)``."""
    if not several(options):
        return None
    found = tuple(kind(layout, name) for name in model.names)
    each = tuple(_costs(layout, one, network, sample) for one, network in zip(found, model.of_clients))
    of = of_clients(options, N)
    if model.of_server is None:
        return Kinds(found, of, each)
    server = kind(layout, SERVER)
    with mode(model, training=False), torch.no_grad():
        features = model.features(model.of_clients[0], sample)
    return Kinds(found, of, each, server, _costs(layout, server, model.of_server, features))


def _costs(layout, one, network, sample):
    """The ``Costs`` of a network by the layers of the common layout: those of the others are never used."""
    own = costs(network, one.layout, sample)
    uses = iter(own.uses)
    placed = [next(uses) if slot.name.startswith(one.name + ".") else 0.0 for slot in layout.weights]
    return Costs(tuple(placed), own.dense, own.frozen)


def evaluator(evaluators, several):
    """``evaluate(vector (P,))`` as ``fedmpi.compute.evaluate.evaluator`` makes it, of several networks.

    The loss and each metric are means over the clients, each with the network that it trains. Beside
    them stand those of each network: ``accuracy_mlp``, ``loss_mlp``.
    """
    names = [one.name for one in several.kinds]
    shares = several.shares().tolist()

    def evaluate(vector):
        mean_loss, means, own = 0.0, {}, {}
        for name, share, of_network in zip(names, shares, evaluators):
            loss, metrics = yield from of_network(vector)
            mean_loss += share * loss
            own[f"loss_{name}"] = loss
            for metric, value in metrics.items():
                means[metric] = means.get(metric, 0.0) + share * value
                own[f"{metric}_{name}"] = value
        return mean_loss, means | own

    return evaluate


def own_network(options, parts, model, several, device):
    """The ``OwnNetwork`` that the server trains on ``device``; None where it has none."""
    if several is None or several.server is None:
        return None
    network = copy.deepcopy(model.of_server)
    buffers = [slot.name for slot in several.server.layout.buffers]
    layout, x, g = bind(network, buffers)
    assert layout.digest == several.server.layout.digest, "the server's network is laid out in two ways"
    settings = {"epochs": options["local_epochs"], "batch_size": options["batch_size"], "lr": options["lr"]}
    return OwnNetwork(several.server, network, x, g, casting(options["precision"], device), parts.optimiser,
                      parts.schedule, options["clip_norm"], settings)


def check_run(options, parts):
    """UserError where a part of the run does not go with several networks, or a network is lacking."""
    strategy, named = parts.strategy, f"--strategy {options['strategy']}"
    if strategy.features is not None and not options["server_model"]:
        raise UserError(f"{named}: the server trains a network of its own on the clients' features; say by "
                        "--server-model which one")
    if options["also_model"] and len(specs(options)) == 1:
        raise UserError(f"--also-model {options['model']} has no effect: it is --model itself; leave it out, or name "
                        "another network")
    if not several(options):
        return
    for why, applies in _refusals(options, parts).items():
        if applies:
            raise UserError(f"--also-model gives clients networks of several kinds, but {why}"
                            if options["also_model"] else f"--server-model: {why}")


def _refusals(options, parts):
    """``{why: whether it applies}``: what does not go with several networks, each with a way out."""
    strategy, pruner, codec = parts.strategy, parts.pruner, parts.codec
    messages = {**strategy.sends, **strategy.answers, **strategy.keeps}
    whole = any(field.on == "support" for field in messages.values())
    moving = pruner.masks or pruner.units or pruner.moves or pruner.probe
    judging = [label for label, part in parts.contributions.items() if part.updates or part.validated]
    lab = strategy.server_data or strategy.after and strategy.features is None
    return {
        f"--strategy {options['strategy']} combines whole updates, or sends more vectors than the model; take "
        "fedavg, fedprox, fedper, fedbn, fedpcl or fedgkt": whole or not strategy.by_entry,
        f"--strategy {options['strategy']} works with one network on the server's samples": lab,
        f"--pruner {options['pruner']} gives clients masks of their own, or asks them for reports about one network; "
        "take dense or static": moving,
        f"--codec {options['codec']} codes weights apart from biases, or remembers what it lost: take float32 or "
        "float16": codec.weights or codec.feedback,
        f"{', '.join(judging)} compares updates, or judges coalitions of one network; take --contribution size or "
        "uniform, and nothing to --observe": judging,
        f"--sampler {options['sampler']} asks clients for the loss of one common model": parts.sampler.candidates,
        f"--aggregation {options['aggregation']} merges as answers arrive; take sync": parts.aggregation.buffer,
        f"--together {options['together']} trains clients of one network side by side; take --together 1":
            options["together"] > 1,
        "a fault sends the whole model of the round before: leave out free-rider:kind=stale":
            any(fault.stale for fault in parts.faults),
    }
