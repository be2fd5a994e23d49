"""FedPCL: clients share prototypes, the mean features of each class, and no weights.

A model's body, all before its last linear layer, makes features of inputs, which are brought to
length 1: ``z``. Each client trains the body to bring z to the prototypes of its class and away
from all others, its own and other clients' (arXiv 2209.10083)::

    loss(z, y) = sum_i  -ln ( exp(z p_iy / T) / sum_c exp(z p_ic / T) )      over clients i

with client i's prototype p_ic of class c, or the mean of all clients' if i lacks the class;
classes without any prototype are left out. Afterwards a client takes the means of z over its
samples of each class, in evaluation mode, and sends those of its own classes. The server keeps
each client's last ones, takes their mean a class over the clients that have it, whatever their
sizes, and sends both to everybody. No weight travels: each client has a model of its own, which it
keeps, and the server has none to test: ``--client-test`` measures the clients' models.

Before there are prototypes, in round 1, nothing is trained: clients only send the prototypes of
their first model. The training loss of round 1 is recorded as 0.

Departures. The paper's backbones are pretrained and frozen, and a projection behind them is
trained. Here the whole body is trained, from the same first weights on all clients; frozen
parameters stay as they are. The paper takes two augmented views of an image, here
there is one, by ``--augment``. The paper's loss against mean prototypes alone is left out, as in
the authors' code, which contrasts a prototype with the samples of a batch instead of a sample with
prototypes.

Cost: a step costs FedAvg's without the last layer; a forward pass over the client's samples is
added, and no column of FLOPs counts it.
"""

from functools import partial

import torch
from torch.nn import functional as F

from fedmpi.compute.features import giving_features, split
from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent, Strategy, Trained, own_loss, without_model
from fedmpi.methods.strategies.without_weights import (ANYTHING, AT_ONCE, check_trained,
                                                       every_tensor, notes_of)

# The square of the largest distance between two vectors of length 1.
FARTHEST = 4.0
# Cross entropy leaves out targets of this number.
NOT_A_TARGET = -100


def fedpcl(temperature: float = 0.07, predict: str = "own", first: str = "collect",
           before: str = ""):
    """Contrast of features with all clients' prototypes; models are personal and never travel.

    ``predict`` chooses the prototypes among which a client looks for the one nearest to a
    sample: its ``own``, so that it never predicts a class without samples of its own, or
    ``global``, the means over clients. Before there are prototypes, clients ``collect`` theirs
    or, with ``first=train``, also train against them. ``before`` names a module of the model:
    its inputs are the features, instead of those of the last linear layer.

    Paper: Tan et al. 2022, "Federated Learning from Pre-Trained Models: A Contrastive Learning
        Approach", arXiv 2209.10083.
    Up: a float32 feature vector for each of the client's classes, and a byte for each class.
    Down: such vectors of all clients' classes, and of the mean of each class.
    Example: fedmpi train --strategy fedpcl --model small-cnn --partition classes
        --client-test 0.2 --lr 0.001
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    _check_choice("predict", predict, ("own", "global"))
    _check_choice("first", first, ("collect", "train"))

    def fits(network, sample):
        check_features(network, sample, split(network, sample, before))

    def body_of(task):
        return split(task.model, task.inputs[:1], before)

    def local(task):
        body = body_of(task)
        # Nobody has prototypes before round 1 has collected them.
        if first == "collect" and not len(task.message["owned"]):
            return Trained(0.0, 0, 0)
        has_prototype, prototypes = targets(task, body.features)
        loss = partial(
            contrast,
            has_prototype=has_prototype,
            prototypes=prototypes,
            temperature=temperature)
        with giving_features(task.model, body.module):
            return descend(task, Descent(loss=loss))

    def reply(task, trained):
        classes, rows = collected(task, body_of(task).features)
        own = {"classes": classes, "prototypes": rows}
        # They are sent, and kept for predictions.
        return own, own

    def predicted(task, inputs):
        has_prototype, rows = candidates(task, predict, inputs.device)
        features = body_of(task).features(inputs)
        z = F.normalize(features.float(), dim=1)
        return nearness(z, has_prototype, rows) / temperature

    return Strategy(
        nobodys,
        merge,
        local,
        optimiser="adam:weight_decay=0.0001",
        contribution="uniform",
        weighting="uniform",
        fits=fits,
        refuses=without_model,
        notes=notes,
        sends={"owned": ANYTHING, "rows": ANYTHING, "means": ANYTHING},
        send=send,
        answers={"classes": ANYTHING, "prototypes": ANYTHING},
        keeps={"classes": ANYTHING, "prototypes": ANYTHING},
        reply=reply,
        personal=every_tensor,
        predict=predicted,
        # Clients answer with prototypes alone.
        update=False,
        classes=True,
        # Prototypes come from networks of any kind.
        by_entry=True,
    )


def notes(facts):
    """Lines for the user about options without effect."""
    untested = ("the server has no model to test, so that nothing will say what clients have "
                "learnt")
    alike = "in means of prototypes all clients count alike"
    yield from own_loss(facts)
    yield from notes_of(facts, untested, "prototypes", alike)


def check_features(network, sample, body):
    """ValueError where the ``body`` makes no vectors, or has nothing to train."""
    if len(body.shape) != 1:
        raise ValueError("prototypes are means of one vector a sample, and the features are of "
                         f"shape {body.shape}; name another module by before")
    check_trained(network, sample, body.features, "before")


def _check_choice(option, value, choices):
    if value not in choices:
        raise ValueError(f"{option} must be {' or '.join(choices)}, got {value}")


# --- on clients ---

def targets(task, features):
    """``(has_prototype, prototypes)``, see ``filled``: all clients', or first its own."""
    sent = task.message
    if len(sent["owned"]):
        return filled(sent["owned"], sent["rows"], sent["means"])
    has_prototype, rows = collected(task, features)
    return has_prototype, rows[None]


def candidates(task, predict, device):
    """``(has_prototype (C,) bool, rows (G, d))``: prototypes of G classes that a sample may be of.

    No class and None before there are any."""
    if predict == "own" and task.kept:
        return task.kept["classes"], task.kept["prototypes"]
    owned = task.message["owned"]
    if len(owned):
        return owned.any(dim=0), task.message["means"]
    no_class = torch.zeros(task.classes, dtype=torch.bool, device=device)
    return no_class, None


def collected(task, features):
    """``(classes (C,) bool, rows (own, d) float32)``: the client's classes, and its prototypes."""
    task.model.eval()
    with torch.no_grad(), task.casting():
        parts = task.inputs.split(AT_ONCE)
        pieces = [features(part).float() for part in parts]
        z = F.normalize(torch.cat(pieces), dim=1)
    # A product: additions by index come in any order on a GPU.
    belongs = F.one_hot(task.labels, task.classes).float()
    sums = belongs.t() @ z
    counts = belongs.sum(dim=0)
    classes = counts > 0
    counts = counts[classes]
    return classes, sums[classes] / counts[:, None]


def filled(owned, rows, means):
    """``(has_prototype (C,) bool, prototypes (m, G, d))`` of m clients, for the G classes with any.

    ``owned (m, C)`` says which classes each client has, ``rows`` are all their prototypes, one
    client after the other. Classes that a client lacks get the ``means (G, d)``."""
    has_prototype = owned.any(dim=0)
    m = len(owned)
    prototypes = means.expand(m, *means.shape).clone()
    # Client by client, as the rows stand.
    prototypes[owned[:, has_prototype]] = rows
    return has_prototype, prototypes


def contrast(features, labels, has_prototype, prototypes, temperature):
    """The module's loss, the mean over samples; one of a class without prototype counts as 0.

    ``features (n, d)`` of any length, ``labels (n,)`` int64, ``has_prototype (C,)`` with G true,
    ``prototypes (m, G, d)``."""
    m, G, _ = prototypes.shape
    z = F.normalize(features.float(), dim=1)
    n = len(z)
    products = z @ prototypes.flatten(0, 1).t()
    logits = (products / temperature).view(n, m, G)
    # Each class's place among the G.
    places = has_prototype.cumsum(0) - 1
    places = torch.where(has_prototype, places, NOT_A_TARGET)
    targets = places[labels][:, None].expand(-1, m)
    logits = logits.transpose(1, 2)
    total = F.cross_entropy(logits, targets, ignore_index=NOT_A_TARGET, reduction="sum")
    return total / n


def nearness(z, has_prototype, rows):
    """float (n, C): minus half the squared distance of ``z (n, d)`` from each class's prototype.

    ``rows`` are the prototypes by ``has_prototype (C,) bool``. Classes without one are farther than
    any other can be."""
    shape = (len(z), len(has_prototype))
    outputs = z.new_full(shape, -FARTHEST)
    if rows is not None:
        ways = z[:, None] - rows
        squares = ways.square().sum(dim=2)
        outputs[:, has_prototype] = -0.5 * squares
    return outputs


# --- on the server ---

def nobodys(layout):
    """The server's state before anybody has answered.

    ``clients (m,)`` int64, ascending, are the clients with prototypes, ``owned (m, C)`` bool says
    of which classes, and ``rows`` holds the prototypes of all clients, one after the other."""
    return {
        "clients": torch.empty(0, dtype=torch.int64),
        "owned": torch.empty(0, 0, dtype=torch.bool),
        "rows": torch.empty(0, 0),
    }


def merge(state, x, updates, weights):
    """The state with the cohort's new prototypes; the model stays."""
    answers = updates.parts
    if "classes" not in answers:
        return state, x
    state = replaced(state, updates.clients, answers["classes"], answers["prototypes"])
    return state, x


def send(state):
    """The prototypes of all clients, and their means."""
    owned = state["owned"]
    rows = state["rows"]
    return {"owned": owned, "rows": rows, "means": means_of(owned, rows)}


def replaced(state, clients, classes, prototypes):
    """The state once ``clients (C,)`` have sent theirs, two lists of a tensor a client."""
    per_client = state["owned"].sum(dim=1).tolist()
    old_rows = state["rows"].split(per_client)
    old = zip(state["owned"], old_rows)
    of_client = dict(zip(state["clients"].tolist(), old))
    new = zip(classes, prototypes)
    of_client.update(zip(clients.tolist(), new))
    ordered = sorted(of_client)
    owned, rows = zip(*[of_client[client] for client in ordered])
    return {
        "clients": torch.tensor(ordered),
        "owned": torch.stack(owned),
        "rows": torch.cat(rows),
    }


def means_of(owned, rows):
    """float32 (G, d): the mean of each class's prototypes over the clients that have it.

    G classes have any. ``owned`` and ``rows`` as in the state."""
    if not len(owned):
        return torch.empty(0, 0)
    C = owned.shape[1]
    d = rows.shape[1]
    classes = owned.nonzero()[:, 1]
    sums = torch.zeros(C, d).index_add_(0, classes, rows)
    counts = owned.sum(dim=0)
    has_prototype = counts > 0
    return sums[has_prototype] / counts[has_prototype, None]
