"""FedGKT: small networks on clients, a large one on the server, and knowledge instead of weights (arXiv 2007.14513).

A client's network is an extractor of features and a small classifier on them. It trains both, on its labels and on what
the server's network last said about its samples, z_s::

    loss(z, y) = CE(z, y) + alpha KD(z_s, z)            in its first round CE alone
    KD(teacher, student) = T^2 KL( softmax(teacher / T) + 1e-7  ||  softmax(student / T) ),   the mean over samples

Then it sends, from one pass in evaluation mode, the features H of its samples, its own outputs z_c and the labels.
The server trains its network on the features of all clients, one client's batches after the other's, in the order in
which they were sent::

    loss(z, y) = KD(z_c, z) + alpha CE(z, y)

and sends back the outputs z_s of the last epoch, as they were before each batch's step. No weight travels, no client's
network is averaged: each client keeps its own. A sample is classified by the server's network on the features of the
client's: what counts is ``--client-test``.

Departures. Optimisers start anew each round, as for all strategies here; the authors' code keeps them. A client deals
its samples anew each epoch, as z_s travels with its sample; the authors' code must keep one order. A last batch of a
single sample joins the one before it. The features of test samples are not sent: clients are tested where the
simulation has their samples, which costs no bytes.

Cost: the client's last pass is counted by no column of FLOPs; the server's training is, by ``flops_server``.
"""

from functools import partial

import torch
from torch.nn import functional as F

from fedmpi.compute.features import split
from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent, Field, Strategy, without_model
from fedmpi.core.tensors import mode

AT_ONCE = 500            # samples in a forward pass
LEAST = 1e-7             # added to the teacher's probabilities


def fedgkt(cut: str = "", alpha: float = 0.5, temperature: float = 100.0, server_epochs: int = 0,
           server_lr: float = 0.0):
    """Small networks on clients teach a large one on the server, and the other way round.

    ``cut`` names the module of the clients' network whose inputs are the features, in place of its last linear layer;
    with several networks all of them have one of that name. ``server_epochs`` and ``server_lr`` are those of the
    server's training, 0: the clients'. The network of the server is ``--server-model``.

    Paper: He, Annavaram and Avestimehr 2020, "Group Knowledge Transfer: Federated Learning of Large CNNs at the Edge",
        arXiv 2007.14513.
    Up: for each sample its features and outputs, as float32, and a byte for its label.
    Down: for each sample the outputs of the server's network, as float32; nothing before the client's first round.
    Example: fedmpi train --strategy fedgkt --model small-cnn --server-model 2nn --client-test 0.2 --lr 0.01
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    if server_epochs < 0 or server_lr < 0:
        raise ValueError(f"server_epochs and server_lr must be >= 0, got {server_epochs} and {server_lr}")

    def features(network, inputs):
        return split(network, inputs[:1], cut).features(inputs)

    def fits(network, sample):
        extractor = split(network, sample, cut).features
        with mode(network, training=False):
            trained = extractor(sample).requires_grad
        if not trained:
            raise ValueError("nothing that is trained comes before its features: use a network of more layers, or name "
                             "another module by cut")

    def local(task):
        logits = task.given.get("logits")
        if logits is None:
            return descend(task)
        taught = task._replace(labels=beside(logits, task.labels))
        return descend(taught, Descent(loss=partial(client_loss, alpha=alpha, temperature=temperature)))

    def reply(task, trained):
        cut_open = split(task.model, task.inputs[:1], cut)
        task.model.eval()
        with torch.no_grad(), task.casting():
            made = [(cut_open.features(few), task.model(few)) for few in task.inputs.split(AT_ONCE)]
        of_samples, outputs = (torch.cat(parts).float() for parts in zip(*made))
        return {"features": of_samples, "logits": outputs, "labels": as_small(task.labels, task.classes)}, {}

    def merge(state, x, updates, weights):
        return state, x

    def after(state, x, updates, lab):
        answers = updates.parts
        targets = [beside(*pair) for pair in zip(answers["logits"], answers["labels"])]
        samples = list(zip(answers["features"], targets))
        outputs = []

        def loss(made, wanted):
            outputs.append(made.detach().float().cpu())
            return server_loss(made, wanted, alpha, temperature)

        x, trained = lab.fit(x, samples, loss, epochs=server_epochs, lr=server_lr)
        sizes = [len(wanted) for wanted in targets]
        last = torch.cat(outputs)[-sum(sizes):]
        state = with_logits(state, updates.clients.tolist(), last.split(sizes))
        return state | {"loss": torch.tensor([trained.loss], dtype=torch.float64)}, x

    def send_to(state, client):
        logits = logits_of(state).get(client)
        return {} if logits is None else {"logits": logits}

    def predict(task, inputs):
        return task.server(features(task.model, inputs))

    def record(state, updates):
        return {"server_loss": float(state["loss"])}

    def notes(facts):
        if not facts.own_tests:
            yield ("the networks of clients and server are tested together, on clients' own test parts: without them "
                   "no accuracy is recorded; give --client-test 0.2, say")
        if facts.coded:
            yield f"{facts.named['codec']} has no effect: features and outputs travel as float32"
        if not facts.even:
            yield f"{facts.named['weighting']} has no effect: the server's network sees every sample alike"

    def every_tensor(layout):
        return [slot.name for slot in layout.slots]

    anything = Field(on="any", fold="list")
    return Strategy(
        lambda layout: nothing_yet(),
        merge,
        local,
        optimiser="sgd:momentum=0.9,nesterov=true,weight_decay=0.001",
        contribution="uniform",
        weighting="uniform",
        after=after,
        refuses=without_model,
        notes=notes,
        sends={"logits": anything},
        send_to=send_to,
        answers=dict.fromkeys(("features", "logits", "labels"), anything),
        reply=reply,
        personal=every_tensor,
        predict=predict,
        fits=fits,
        update=False,
        columns=(("server_loss", "nat", "mean loss of the server's own network in its training, KD and CE together"),),
        record=record,
        classes=True,
        by_entry=True,
        features=features)


# --- losses ---

def distillation(teacher, student, temperature):
    """(): ``T^2 KL(softmax(teacher / T) + 1e-7 || softmax(student / T))``, the mean over samples, of two (n, C)."""
    wanted = F.softmax(teacher / temperature, dim=1) + LEAST
    made = F.log_softmax(student / temperature, dim=1)
    return temperature ** 2 * F.kl_div(made, wanted, reduction="batchmean")


def beside(logits, labels):
    """(n, C + 1) float32: outputs (n, C) and, last, the classes (n,), as targets that stay together."""
    return torch.cat([logits, labels.to(logits.dtype)[:, None]], dim=1)


def client_loss(outputs, targets, alpha, temperature):
    """CE + alpha KD of ``outputs (n, C)`` and the targets (n, C + 1) of ``beside``."""
    teacher, labels = targets[:, :-1], targets[:, -1].long()
    taught = distillation(teacher, outputs.float(), temperature)
    return F.cross_entropy(outputs.float(), labels) + alpha * taught


def server_loss(outputs, targets, alpha, temperature):
    """KD + alpha CE, likewise."""
    teacher, labels = targets[:, :-1], targets[:, -1].long()
    taught = distillation(teacher, outputs.float(), temperature)
    return taught + alpha * F.cross_entropy(outputs.float(), labels)


def as_small(labels, classes):
    """The labels in a byte each, where classes are that few."""
    return labels.to(torch.uint8 if classes <= 256 else torch.int32)


# --- what the server holds ---

def nothing_yet():
    """The server's state before anybody has answered: ``clients (m,)`` ascending, whose samples it has outputs for,
    how many, ``sizes (m,)``, the outputs, one client's after the other's, and the loss of its last training."""
    return {"clients": torch.empty(0, dtype=torch.int64), "sizes": torch.empty(0, dtype=torch.int64),
            "logits": torch.empty(0, 0), "loss": torch.full((1,), torch.nan, dtype=torch.float64)}


def logits_of(state):
    """``{client: (n, C)}`` of what the server holds."""
    rows = state["logits"].split(state["sizes"].tolist())
    return dict(zip(state["clients"].tolist(), rows))


def with_logits(state, clients, logits):
    """The state once the server has said something new about the samples of ``clients``."""
    held = logits_of(state) | dict(zip(clients, logits))
    ordered = sorted(held)
    rows = [held[client] for client in ordered]
    return state | {"clients": torch.tensor(ordered), "sizes": torch.tensor([len(each) for each in rows]),
                    "logits": torch.cat(rows)}
