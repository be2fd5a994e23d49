"""FedPCL: clients share prototypes, the mean features of each class, and no weights (arXiv 2209.10083).

A model's body, all before its last linear layer, makes features of inputs, which are brought to length 1: ``z``. Each
client trains the body to bring z to the prototypes of its class and away from all others, whoever's they are::

    loss(z, y) = sum_i  -ln ( exp(z p_iy / T) / sum_c exp(z p_ic / T) )      over all clients i that have prototypes

where p_ic is client i's prototype of class c, or the mean of all clients' where i lacks the class; classes of which
nobody has a prototype are left out. Afterwards it takes the means of z over its samples of each class, in evaluation
mode, and sends those of its own classes. The server keeps each client's last ones, takes their mean a class over the
clients that have it, whatever their sizes, and sends both to everybody. No weight travels: each client has a model of
its own, which it keeps, and the server has none to test: what counts is ``--client-test``.

Where no prototypes are there yet, in round 1, nothing is trained: clients only send what their first model gives. That
round's training loss is recorded as 0.

Departures. The paper's backbones are pretrained and frozen, and a projection behind them is trained. Here the whole
body is trained, from the same first weights on all clients; a model with frozen parameters keeps those as they are. It
takes two augmented views of an image, here there is one, by ``--augment``. The paper's loss against mean prototypes
alone is left out, as in the authors' code, which contrasts a prototype with the samples of a batch instead of a sample
with prototypes.

Cost: a step costs FedAvg's without the last layer; a forward pass over the client's samples is added, which no column
of FLOPs counts.
"""

from functools import partial

import torch
from torch.nn import functional as F

from fedmpi.compute.features import giving_features, split
from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent, Field, Strategy, Trained, without_model
from fedmpi.core.tensors import mode

AT_ONCE = 500            # samples in a forward pass
FARTHEST = 4.0           # the square of the largest distance between two vectors of length 1
NOT_A_TARGET = -100      # what cross entropy leaves out


def fedpcl(temperature: float = 0.07, predict: str = "own", first: str = "collect", before: str = ""):
    """Contrast of features with all clients' prototypes; models are personal and never travel.

    ``predict`` says by whose prototypes a client finds the class of a sample, the nearest: its ``own``, by which it
    never finds a class that it lacks, or ``global``, the means over clients. ``first`` says what clients do before
    there are prototypes: they ``collect`` theirs, or ``train`` against those that they collect first. ``before`` names
    the module of the model whose inputs are the features, in place of its last linear layer.

    Paper: Tan et al. 2022, "Federated Learning from Pre-Trained Models: A Contrastive Learning Approach", arXiv
        2209.10083.
    Up: a float32 feature vector for each of the client's classes, and a byte for each class.
    Down: such vectors of all clients' classes, and of the mean of each class.
    Example: fedmpi train --strategy fedpcl --model small-cnn --partition classes --client-test 0.2 --lr 0.001
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    for option, value, choices in (("predict", predict, ("own", "global")), ("first", first, ("collect", "train"))):
        if value not in choices:
            raise ValueError(f"{option} must be {' or '.join(choices)}, got {value}")

    def fits(network, sample):
        found = split(network, sample, before)
        if len(found.shape) != 1:
            raise ValueError("prototypes are means of one vector a sample, and the features are of shape "
                             f"{found.shape}; name another module by before")
        with mode(network, training=False):
            trained = found.features(sample).requires_grad
        if not trained:
            raise ValueError("nothing that is trained comes before its features: use a model of more layers")

    def body_of(task):
        return split(task.model, task.inputs[:1], before)

    def local(task):
        given, body = task.given, body_of(task)
        if len(given["owned"]):
            known, prototypes = filled(given["owned"], given["rows"], given["means"])
        elif first == "train":
            known, rows = collected(task, body.features)
            prototypes = rows[None]
        else:
            return Trained(0.0, 0, 0)
        loss = partial(contrast, known=known, prototypes=prototypes, temperature=temperature)
        with giving_features(task.model, body.module):
            return descend(task, Descent(loss=loss))

    def reply(task, trained):
        classes, rows = collected(task, body_of(task).features)
        own = {"classes": classes, "prototypes": rows}
        return own, own

    def merge(state, x, updates, weights):
        if "classes" not in updates.parts:
            return state, x
        return with_those_of(state, updates.clients, updates.parts["classes"], updates.parts["prototypes"]), x

    def send(state):
        owned, rows = state["owned"], state["rows"]
        return {"owned": owned, "rows": rows, "means": means_of(owned, rows)}

    def predicted(task, inputs):
        known, rows = torch.zeros(task.classes, dtype=torch.bool, device=inputs.device), None
        if predict == "own" and task.kept:
            known, rows = task.kept["classes"], task.kept["prototypes"]
        elif len(task.given["owned"]):
            known, rows = task.given["owned"].any(dim=0), task.given["means"]
        z = F.normalize(body_of(task).features(inputs).float(), dim=1)
        return nearness(z, known, rows) / temperature

    def notes(facts):
        if not facts.own_tests:
            yield ("the server has no model to test, so that nothing will say what clients have learnt; give "
                   "--client-test 0.2, say")
        if facts.coded:
            yield f"{facts.named['codec']} has no effect: prototypes travel as float32"
        if not facts.even:
            yield f"{facts.named['weighting']} has no effect: in means of prototypes all clients count alike"

    anything = Field(on="any", fold="list")
    return Strategy(lambda layout: nobodys(), merge, local, optimiser="adam:weight_decay=0.0001",
                    contribution="uniform", weighting="uniform", fits=fits, refuses=without_model, notes=notes,
                    sends=dict.fromkeys(("owned", "rows", "means"), anything), send=send,
                    answers={"classes": anything, "prototypes": anything},
                    keeps={"classes": anything, "prototypes": anything},
                    reply=reply, personal=every_tensor, predict=predicted, update=False, classes=True, by_entry=True)


def every_tensor(layout):
    """The names of all tensors in the model's vector."""
    return [slot.name for slot in layout.weights + layout.others + layout.buffers]


# --- on clients ---

def collected(task, features):
    """``(classes (C,) bool, rows (own, d) float32)``: which classes the client has, and its prototypes of these."""
    task.model.eval()
    with torch.no_grad(), task.casting():
        z = torch.cat([F.normalize(features(few).float(), dim=1) for few in task.inputs.split(AT_ONCE)])
    # A product: additions by index come in any order on a GPU.
    belongs = F.one_hot(task.labels, task.classes).float()
    counts = belongs.sum(dim=0)
    classes = counts > 0
    return classes, (belongs.t() @ z)[classes] / counts[classes, None]


def filled(owned, rows, means):
    """``(known (C,) bool, prototypes (m, G, d))`` of m clients and the G classes of which anybody has a prototype;
    ``owned (m, C)``, ``rows`` those of all clients, one after the other, ``means (G, d)`` for what clients lack."""
    known = owned.any(dim=0)
    prototypes = means.expand(len(owned), *means.shape).clone()
    prototypes[owned[:, known]] = rows
    return known, prototypes


def contrast(features, labels, known, prototypes, temperature):
    """The mean over samples of the sum over clients; a sample of a class without any prototype counts as 0.

    ``features (n, d)`` of any length, ``labels (n,)`` int64, ``known (C,) bool`` with G true, ``prototypes (m, G,
    d)``."""
    m, G, _ = prototypes.shape
    z = F.normalize(features.float(), dim=1)
    logits = (z @ prototypes.flatten(0, 1).t() / temperature).view(len(z), m, G)
    places = torch.where(known, known.cumsum(0) - 1, NOT_A_TARGET)
    targets = places[labels][:, None].expand(-1, m)
    total = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=NOT_A_TARGET, reduction="sum")
    return total / len(z)


def nearness(z, known, rows):
    """(n, C): minus half the squared distance of ``z (n, d)`` from each class's prototype; classes without one are
    farther away than any other can be. ``rows`` are those of ``known (C,) bool``."""
    outputs = z.new_full((len(z), len(known)), -FARTHEST)
    if rows is not None:
        outputs[:, known] = -0.5 * (z[:, None] - rows).square().sum(dim=2)
    return outputs


# --- on the server ---

def nobodys():
    """The server's state before anybody has answered: whose prototypes there are, ``clients (m,)`` ascending, of which
    classes, ``owned (m, C)``, and ``rows``, those of all clients, one after the other."""
    return {"clients": torch.empty(0, dtype=torch.int64), "owned": torch.empty(0, 0, dtype=torch.bool),
            "rows": torch.empty(0, 0)}


def with_those_of(state, clients, classes, prototypes):
    """The state once ``clients (C,)`` have sent theirs, two lists of a tensor a client."""
    held = state["rows"].split(state["owned"].sum(dim=1).tolist())
    known = dict(zip(state["clients"].tolist(), zip(state["owned"], held)))
    known |= dict(zip(clients.tolist(), zip(classes, prototypes)))
    ordered = sorted(known)
    owned, rows = zip(*(known[client] for client in ordered))
    return {"clients": torch.tensor(ordered), "owned": torch.stack(owned), "rows": torch.cat(rows)}


def means_of(owned, rows):
    """(G, d): the mean of each class over the clients that have it, of the G classes that anybody has."""
    if not len(owned):
        return torch.empty(0, 0)
    counts = owned.sum(dim=0)
    classes = owned.nonzero()[:, 1]
    sums = torch.zeros(owned.shape[1], rows.shape[1]).index_add_(0, classes, rows)
    known = counts > 0
    return sums[known] / counts[known, None]
