"""Runs with several networks: their specs, their clients, the methods that refuse them."""

import copy

import torch

from fedmpi.compute.sgd import casting
from fedmpi.core.errors import UserError
from fedmpi.core.flops import Costs, costs
from fedmpi.core.kinds import SERVER, NetworkKinds, kind
from fedmpi.core.layout import bind
from fedmpi.core.tensors import mode
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.own_network import OwnNetwork


def specs(options):
    """``{spec: option}`` of the clients' networks, each once, under its first option."""
    named = {options["model"]: "--model"}
    for spec in options.get("also_model", ()):
        named.setdefault(spec, "--also-model")
    return named


def several(options):
    """Whether the run has more than one network."""
    return len(specs(options)) > 1 or bool(options.get("server_model"))


def of_clients(options, N):
    """(N,) int64: each client's network, as its number in the order of ``specs``.

    Clients are dealt out evenly to --model and every --also-model, in an order drawn by the seed. A
    network that is given twice gets twice as many.
    """
    distinct = list(specs(options))
    models = options["model"], *options["also_model"]
    turns = torch.tensor([distinct.index(spec) for spec in models])
    gen = stream(options["seed"], Purpose.KIND, N)
    order = torch.from_numpy(gen.permutation(N))
    turn = torch.arange(N) % len(turns)
    network_of = torch.empty(N, dtype=torch.int64)
    network_of[order] = turns[turn]
    return network_of


def kinds(options, model, layout, sample, N):
    """The ``NetworkKinds`` of a run with several networks, None for a run with one.

    ``model`` is a ``Several`` with this ``layout``, ``sample (1, ...)`` an input for its networks.
    """
    if not several(options):
        return None
    clients_kinds = tuple(kind(layout, name) for name in model.names)
    clients_costs = []
    for kind_alone, network in zip(clients_kinds, model.of_clients):
        clients_costs.append(_costs(layout, kind_alone, network, sample))
    of_all = NetworkKinds(clients_kinds, of_clients(options, N), tuple(clients_costs))
    if model.of_server is None:
        return of_all
    server = kind(layout, SERVER)
    # All clients' networks give features of one shape.
    first = model.of_clients[0]
    with mode(model, training=False), torch.no_grad():
        features = model.features(first, sample)
    server_costs = _costs(layout, server, model.of_server, features)
    return of_all._replace(server=server, server_costs=server_costs)


def _costs(layout, of_kind, network, sample):
    """The ``Costs`` of one network by the layers of the common layout. ``of_kind`` is its ``NetworkKind``.

    The layers of other networks have 0 uses.
    """
    own_costs = costs(network, of_kind.layout, sample)
    # A network's layers stand in the common layout in their own order.
    macs_per_weight = iter(own_costs.macs_per_weight)
    common = []
    for slot in layout.weights:
        is_own = slot.name.startswith(of_kind.name + ".")
        common.append(next(macs_per_weight) if is_own else 0.0)
    return Costs(tuple(common), own_costs.dense, own_costs.frozen)


def evaluator(evaluators, several):
    """``evaluate(vector (P,))`` of several networks; see ``fedmpi.compute.evaluate.evaluator``.

    The loss and each metric are means over the clients, each with its own network. Figures of each
    network follow: ``accuracy_mlp``, ``loss_mlp``.
    """
    names = [one.name for one in several.kinds]
    shares = several.shares().tolist()

    def evaluate(vector):
        mean_loss, means, by_network = 0.0, {}, {}
        for name, share, of_network in zip(names, shares, evaluators):
            loss, metrics = yield from of_network(vector)
            mean_loss += share * loss
            by_network[f"loss_{name}"] = loss
            for metric, value in metrics.items():
                before = means.get(metric, 0.0)
                means[metric] = before + share * value
                by_network[f"{metric}_{name}"] = value
        return mean_loss, means | by_network

    return evaluate


def own_network(options, parts, model, several, device):
    """The ``OwnNetwork`` for the server to train on ``device``; None without ``server_model``."""
    if several is None or several.server is None:
        return None
    network = copy.deepcopy(model.of_server)
    buffers = [slot.name for slot in several.server.layout.buffers]
    layout, x, g = bind(network, buffers)
    expected = several.server.layout.digest
    assert layout.digest == expected, "the server's network is laid out in two ways"
    settings = {
        "epochs": options["local_epochs"],
        "batch_size": options["batch_size"],
        "lr": options["lr"]
    }
    cast = casting(options["precision"], device)
    return OwnNetwork(
        several.server, network, x, g, cast,
        parts.optimiser, parts.schedule, options["clip_norm"], settings)


def check_run(options, parts):
    """UserError if a part of the run does not go with several networks, or a network is missing."""
    if parts.strategy.features is not None and not options["server_model"]:
        raise UserError(f"--strategy {options['strategy']}: the server trains a network of its own "
                        "on the clients' features; say by --server-model which one")
    if options["also_model"] and len(specs(options)) == 1:
        raise UserError(f"--also-model {options['model']} has no effect: it is --model itself; "
                        "leave it out, or name another network")
    if not several(options):
        return
    begin = "--server-model:"
    if options["also_model"]:
        begin = "--also-model gives clients networks of several kinds, but"
    for why in _refusals(options, parts):
        raise UserError(f"{begin} {why}")


def _refusals(options, parts):
    """Yield the reasons against several networks, each with a way out."""
    yield from _refusals_of_strategy(options, parts.strategy)
    pruner, codec = parts.pruner, parts.codec
    if pruner.masks or pruner.units or pruner.moves or pruner.probe:
        yield (f"--pruner {options['pruner']} gives clients masks of their own, or asks them for "
               "reports about one network; take dense or static")
    if codec.weights or codec.feedback:
        yield (f"--codec {options['codec']} codes weights apart from biases, or remembers what it "
               "lost: take float32 or float16")
    one_network = ", ".join(_of_one_network(parts.contributions))
    if one_network:
        yield (f"{one_network} compares updates, or judges coalitions of one network; take "
               "--contribution size or uniform, and nothing to --observe")
    if parts.sampler.candidates:
        yield f"--sampler {options['sampler']} asks clients for the loss of one common model"
    if parts.timing.buffer:
        yield f"--timing {options['timing']} merges as answers arrive; take sync"
    if any(fault.needs_previous_model for fault in parts.faults):
        yield ("a fault sends the whole model of the round before: leave out "
               "free-rider:kind=stale")


def _refusals_of_strategy(options, strategy):
    named = f"--strategy {options['strategy']}"
    messages = {**strategy.sends, **strategy.answers, **strategy.keeps}
    whole = any(field.on == "support" for field in messages.values())
    if whole or not strategy.by_entry:
        yield (f"{named} combines whole updates, or sends more vectors than the model; take "
               "fedavg, fedprox, fedper, fedbn, fedpcl or fedgkt")
    trains_one = strategy.after and strategy.features is None
    if strategy.server_data or trains_one:
        yield f"{named} works with one network on the server's samples"


def _of_one_network(contributions):
    """Labels of the estimators that need updates, or utilities, of one common network."""
    return [label for label, part in contributions.items() if part.updates or part.validated]
