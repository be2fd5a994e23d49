"""FedGKT: small networks on clients, a large one on the server, and knowledge instead of weights.

A client's network is an extractor of features and a small classifier on them. It trains both, on
its labels and on z_s, the last outputs of the server's network for its samples (arXiv 2007.14513)::

    loss(z, y) = CE(z, y) + alpha KD(z_s, z)            in its first round CE alone
    KD(teacher, student) = T^2 KL( softmax(teacher / T) + 1e-7  ||  softmax(student / T) )

with the mean over samples. Then it sends, from one pass in evaluation mode, the features H of its
samples, its own outputs z_c and the labels. The server trains its network on the features of all
clients, one client's batches after the other's, in the order of the clients' own samples::

    loss(z, y) = KD(z_c, z) + alpha CE(z, y)

and sends back the outputs z_s of the last epoch, as they were before each batch's step. No weight
travels, no client's network is averaged: each client keeps its own. A sample is classified by the
server's network on the features of the client's: ``--client-test`` measures both together.

Departures. Optimisers start anew each round, as for all strategies here; the authors' code keeps
them. A client deals its samples anew each epoch, since z_s travels with its sample; the authors'
code must keep one order. A last batch of a single sample joins the one before it. The features of
test samples are not sent: clients are tested inside the simulation, which costs no bytes.

Cost: the client's last pass is counted by no column of FLOPs; the server's training is, by
``flops_server``.
"""

from functools import partial

import torch
from torch.nn import functional as F

from fedmpi.compute.features import split
from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent, Strategy, own_loss, without_model
from fedmpi.methods.strategies.without_weights import (ANYTHING, AT_ONCE, check_trained,
                                                       every_tensor, notes_of)

# Added to the teacher's probabilities.
LEAST = 1e-7


def fedgkt(cut: str = "", alpha: float = 0.5, temperature: float = 100.0, server_epochs: int = 0,
           server_lr: float = 0.0):
    """Small networks on clients teach a large one on the server, and the other way round.

    ``cut`` names a module of the clients' network: its inputs are the features, instead of those
    of the last linear layer; with several networks all of them have one of that name.
    ``server_epochs`` and ``server_lr`` are those of the server's training, 0: the clients'. The
    network of the server is ``--server-model``.

    Paper: He, Annavaram and Avestimehr 2020, "Group Knowledge Transfer: Federated Learning of
        Large CNNs at the Edge", arXiv 2007.14513.
    Up: for each sample its features and outputs, as float32, and a byte for its label.
    Down: for each sample the outputs of the server's network, as float32; nothing before the
        client's first round.
    Example: fedmpi train --strategy fedgkt --model small-cnn --server-model 2nn --client-test 0.2
        --lr 0.01
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if server_epochs < 0 or server_lr < 0:
        raise ValueError("server_epochs and server_lr must be >= 0, got "
                         f"{server_epochs} and {server_lr}")

    def features(network, inputs):
        return split(network, inputs[:1], cut).features(inputs)

    def fits(network, sample):
        check_trained(network, sample, split(network, sample, cut).features, "cut")

    def local(task):
        logits = task.message.get("logits")
        # The server has said nothing yet: cross-entropy alone.
        if logits is None:
            return descend(task, Descent(loss=F.cross_entropy))
        taught = task._replace(labels=beside(logits, task.labels))
        loss = partial(client_loss, alpha=alpha, temperature=temperature)
        return descend(taught, Descent(loss=loss))

    def reply(task, trained):
        return answered(task, split(task.model, task.inputs[:1], cut)), {}

    def after(state, x, updates, lab):
        loss = partial(server_loss, alpha=alpha, temperature=temperature)
        fit = partial(lab.fit, epochs=server_epochs, lr=server_lr)
        return taught_server(state, x, updates, loss, fit)

    def predict(task, inputs):
        return task.server(features(task.model, inputs))

    server_column = ("server_loss", "nat",
                     "mean loss of the server's own network in its training, KD and CE together")
    return Strategy(
        nothing_yet,
        merge,
        local,
        optimiser="sgd:momentum=0.9,nesterov=true,weight_decay=0.001",
        contribution="uniform",
        weighting="uniform",
        after=after,
        refuses=without_model,
        notes=notes,
        sends={"logits": ANYTHING},
        send_to=send_to,
        answers={"features": ANYTHING, "logits": ANYTHING, "labels": ANYTHING},
        reply=reply,
        personal=every_tensor,
        predict=predict,
        fits=fits,
        # Clients answer with features and outputs alone.
        update=False,
        columns=(server_column,),
        record=record,
        classes=True,
        # Knowledge comes from networks of any kind.
        by_entry=True,
        features=features,
    )


def notes(facts):
    """Lines for the user about options without effect."""
    untested = ("the networks of clients and server are tested together, on clients' own test "
                "parts: without them no accuracy is recorded")
    alike = "the server's network sees every sample alike"
    yield from own_loss(facts)
    yield from notes_of(facts, untested, "features and outputs", alike)


# --- losses ---

def distillation(teacher, student, temperature):
    """(): ``T^2 KL(softmax(teacher / T) + 1e-7 || softmax(student / T))`` of two (n, C).

    The mean over samples."""
    wanted = F.softmax(teacher / temperature, dim=1) + LEAST
    made = F.log_softmax(student / temperature, dim=1)
    return temperature ** 2 * F.kl_div(made, wanted, reduction="batchmean")


def beside(logits, labels):
    """(n, C + 1) float32: outputs (n, C) and, last, the classes (n,), as one array of targets."""
    column = labels.to(logits.dtype)[:, None]
    return torch.cat([logits, column], dim=1)


def client_loss(outputs, targets, alpha, temperature):
    """CE + alpha KD of ``outputs (n, C)`` and the targets (n, C + 1) of ``beside``."""
    ce, kd = _both_losses(outputs, targets, temperature)
    return ce + alpha * kd


def server_loss(outputs, targets, alpha, temperature):
    """KD + alpha CE, likewise."""
    ce, kd = _both_losses(outputs, targets, temperature)
    return kd + alpha * ce


def _both_losses(outputs, targets, temperature):
    """``(CE, KD)`` of ``outputs (n, C)`` and the targets (n, C + 1) of ``beside``."""
    outputs = outputs.float()
    teacher = targets[:, :-1]
    labels = targets[:, -1].long()
    kd = distillation(teacher, outputs, temperature)
    return F.cross_entropy(outputs, labels), kd


# --- on clients ---

def answered(task, network):
    """The client's answer: ``features`` and ``logits`` float32, ``labels``, a sample a row.

    ``network`` is the ``Split`` of the client's.
    """
    task.model.eval()
    pieces = []
    with torch.no_grad(), task.casting():
        for part in task.inputs.split(AT_ONCE):
            of_part = network.features(part)
            pieces.append((of_part, network.head(of_part)))
    features, logits = zip(*pieces)
    return {
        "features": torch.cat(features).float(),
        "logits": torch.cat(logits).float(),
        "labels": as_small(task.labels, task.classes),
    }


def as_small(labels, classes):
    """The labels in a byte each, or as int32 for more than 256 classes."""
    if classes <= 256:
        return labels.to(torch.uint8)
    return labels.to(torch.int32)


# --- on the server ---

def nothing_yet(layout):
    """The server's state before anybody has answered.

    ``clients (m,)`` int64, ascending: the clients with outputs, for ``sizes (m,)`` samples each;
    ``logits``: the outputs, one client's after the other's; ``loss (1,)`` of the last training."""
    return {
        "clients": torch.empty(0, dtype=torch.int64),
        "sizes": torch.empty(0, dtype=torch.int64),
        "logits": torch.empty(0, 0),
        "loss": torch.full((1,), torch.nan, dtype=torch.float64),
    }


def merge(state, x, updates, weights):
    """Everything as it is: no weight travels."""
    return state, x


def taught_server(state, x, updates, loss, fit):
    """``(state, x)`` after the server's training on the clients' answers.

    ``fit(x, samples, loss) -> (x, Trained)`` trains it by ``loss(outputs, targets)``."""
    answers = updates.parts
    pairs = zip(answers["logits"], answers["labels"])
    targets = [beside(logits, labels) for logits, labels in pairs]
    samples = list(zip(answers["features"], targets))
    outputs = []

    def watched_loss(made, wanted):
        """The loss of a batch, whose outputs are noted."""
        outputs.append(made.detach().float().cpu())
        return loss(made, wanted)

    x, trained = fit(x, samples, watched_loss)
    sizes = [len(wanted) for wanted in targets]
    # Batches come in order: the last epoch's outputs are the last rows.
    last = torch.cat(outputs)[-sum(sizes):]
    state = with_logits(state, updates.clients.tolist(), last.split(sizes))
    mean_loss = torch.tensor([trained.loss], dtype=torch.float64)
    return state | {"loss": mean_loss}, x


def send_to(state, client):
    """The server's outputs for this client's samples, once there are any."""
    # Clients are sorted. To take all outputs apart for each client would take long for many.
    place = int(torch.searchsorted(state["clients"], client))
    if place == len(state["clients"]) or int(state["clients"][place]) != client:
        return {}
    start = int(state["sizes"][:place].sum())
    return {"logits": state["logits"][start: start + int(state["sizes"][place])]}


def record(state, updates):
    """The round's own column of the run file."""
    return {"server_loss": float(state["loss"])}


def logits_of(state):
    """``{client: (n, C)}``: the server's outputs for each client's samples."""
    rows = state["logits"].split(state["sizes"].tolist())
    return dict(zip(state["clients"].tolist(), rows))


def with_logits(state, clients, logits):
    """The state with new outputs for the samples of ``clients``."""
    of_client = logits_of(state)
    of_client.update(zip(clients, logits))
    ordered = sorted(of_client)
    rows = [of_client[client] for client in ordered]
    sizes = [len(outputs) for outputs in rows]
    return state | {
        "clients": torch.tensor(ordered),
        "sizes": torch.tensor(sizes),
        "logits": torch.cat(rows),
    }
