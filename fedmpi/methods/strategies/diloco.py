"""DiLoCo: many local steps of one optimiser, then one step of another on their mean update.

A client takes H steps (``--local-steps``) of ``--optimiser`` from the received model; their mean
update d, its outer gradient, is stepped by the server (arXiv 2311.08105)::

    sgd        x <- x + server_lr d
    heavy      v <- momentum v + d             x <- x + server_lr v
    nesterov   v <- momentum v + d             x <- x + server_lr (d + momentum v)
    adam       m, v as FedAdam's               x <- x + server_lr m / (sqrt(v) + tau)

``inner=keep``: a client's optimiser goes on where its last round ended, moments and number of
steps, and only the weights are the received ones, as in the paper; ``reset`` begins it anew each
round. The paper's AdamW is ``--optimiser adamw:beta2=0.95,weight_decay=0.1``, and its learning rate
a cosine over all steps of the run, ``--schedule cosine:over=run``.

A kept state stays with its client and is not billed. Where a weight is pruned its moments are
forgotten: a weight that grows again starts from 0, while the number of steps goes on. Running
statistics are averaged without the outer step. The paper's mean is uniform.

With ``fragments=F`` a merge is of one of F sets of layers, in turn (Streaming DiLoCo, arXiv
2501.18512; ``fedmpi.methods.strategies.fragments``)::

    round t        up: what the client's fragment f = (t - 1) mod F has moved by since its last
                   merge;    down: the fragment of round t - 1;    H = F times --local-steps
    server         the outer step of fragment f alone, with a memory of its own
    client         goes on with its own values of all other fragments

``delay=tau``: a client takes tau steps of a round before it replaces its values of the received
fragment, as if they came so late, by ``(1 - mixing) received + mixing own``. Departures from the
paper: values have the bits of ``--codec``; the server's model, evaluated and exported, holds each
fragment as of its last merge. A client whose answer is not merged goes on from its state before
that round.

Cost: a vector on the server, two with adam; a vector or two more kept by each client. Streaming
takes two more vectors a client, and a byte a weight on the server.
"""

from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Descent, Strategy
from fedmpi.core.reduce import mean
from fedmpi.methods.strategies.fragments import (MOST, arrival, fragment_of, most_fragments,
                                                 never_merged, numbers, schedule)
from fedmpi.methods.strategies.server_memory import stepped

# The numbers of the fragments, in the server's state.
FRAGMENT = "fragment"
# {outer rule: names of its vectors on the server}.
MEMORIES = {"sgd": (), "heavy": ("velocity",), "nesterov": ("velocity",), "adam": ("m", "v")}


@needs(momentum="outer!=sgd", beta2="outer=adam", tau="outer=adam", pattern="fragments!=1")
def diloco(outer: Literal["sgd", "heavy", "nesterov", "adam"] = "nesterov", server_lr: float = 0.7,
           momentum: float = 0.9, inner: Literal["keep", "reset"] = "keep", beta2: float = 0.99,
           tau: float = 1e-3, fragments: int = 1,
           pattern: Literal["strided", "sequential"] = "strided", delay: int = 0,
           mixing: float = 0.0):
    """Local steps of one optimiser, an outer step of another on their mean.

    ``momentum`` is adam's beta1, too. Adam's steps are of length ``server_lr`` whatever the
    update's: take about .01. ``fragments``: so many sets of layers are merged in turn, one a round.
    ``pattern``: neighbouring layers are of different fragments, or of one. ``delay``: the steps of
    a round after which the received values arrive; ``mixing``: the share of a client's own values
    in what it goes on with.

    Paper: Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language
        Models", arXiv 2311.08105; Douillard et al. 2025, "Streaming DiLoCo with overlapping
        communication", arXiv 2501.18512, for fragments, delay and mixing.
    Up: the kept values of the update, as FedAvg, once in --local-steps steps; with fragments those
        of one of them.
    Down: the kept values of the model, as FedAvg; with fragments those of the last one merged.
    Example: fedmpi train --strategy diloco --optimiser adamw:beta2=0.95 --lr 0.001 --local-steps 20
    """
    _check(server_lr, momentum, beta2, tau)
    _check_streaming(fragments, delay, mixing)
    rule = _rule(outer, server_lr, momentum, beta2, tau)
    streams = fragments > 1 or delay > 0 or mixing > 0
    local = Descent(resumes=inner == "keep")
    if streams:
        local = local._replace(arrives=arrival(mixing), delay=delay)

    def init(layout):
        """The server's state before round 1: vectors of 0, float32 (P,) each.

        With fragments also their numbers, uint8 (P,).
        """
        state = {name: torch.zeros(layout.P) for name in MEMORIES[outer]}
        if fragments > 1:
            state[FRAGMENT] = numbers(layout, fragments, pattern)
        return state

    def merge(state, x, updates, weights):
        d = mean(updates, weights)
        if fragments == 1:
            return stepped(rule, state, x, updates, d)
        moving = updates.support[: updates.trained]
        number = fragment_of(updates.round.t, fragments)
        chosen = state[FRAGMENT][moving] == number
        memory = {name: state[name] for name in MEMORIES[outer]}
        memory, x = stepped(rule, memory, x, updates, d, chosen)
        return state | memory, x

    def refuses(facts):
        if streams:
            yield from _does_not_stream(facts, fragments, delay)

    def notes(facts):
        yield from never_merged(facts, fragments)
        keeps_nothing = inner == "keep" and not facts.optimiser_state
        if "inner" in facts.user_options and keeps_nothing:
            yield f"inner=keep has no effect: {facts.named['optimiser']} has no state to keep"

    return Strategy(
        init,
        merge,
        local,
        # The paper's mean.
        weighting="uniform",
        linear=True,
        additive=True,
        in_pieces=not streams,
        travels=schedule(fragments, pattern) if streams else None,
        refuses=refuses,
        notes=notes,
    )


def _does_not_stream(facts, fragments, delay):
    """Yield the reasons why fragments, or a delay, cannot work in this run."""
    num_layers = most_fragments(facts.layout)
    if fragments > num_layers:
        yield f"fragments must be at most the {num_layers} layers of the model, got {fragments}"
    if not facts.everybody:
        yield ("clients keep their own model, and must take part in every round; leave "
               f"{facts.named.get('cohort', '--cohort')} out")
    if facts.candidates:
        yield (f"clients would tell {facts.named['sampler']} the loss of a part of the model; take "
               "--sampler uniform")
    if facts.asynchronous:
        yield f"clients are merged in rounds; take --timing sync, not {facts.named['timing']}"
    if not facts.fixed_masks:
        yield (f"clients keep values of their own, whose mask {facts.named['pruner']} would move; "
               "take --pruner static or dense")
    if facts.trained_otherwise:
        yield ("a --fault bends the training from the received model, and clients go on from "
               "their own; take a fault of the data, or leave fragments, delay and mixing out")
    if delay >= facts.steps:
        yield (f"delay must be below the {facts.steps} steps of a round, got {delay}; take a "
               "smaller one, or a larger --local-steps")
    elif delay and not facts.same_steps:
        yield "with a delay clients must take as many steps each; give --local-steps"


def _rule(outer, server_lr, momentum, beta2, tau):
    """``rule(d, **vectors) -> (step, vectors)`` of the server, see ``stepped``."""

    def sgd(d):
        return server_lr * d, {}

    def heavy(d, velocity):
        velocity = momentum * velocity + d
        return server_lr * velocity, {"velocity": velocity}

    def nesterov(d, velocity):
        velocity = momentum * velocity + d
        return server_lr * (d + momentum * velocity), {"velocity": velocity}

    def adam(d, m, v):
        m = momentum * m + (1 - momentum) * d
        v = beta2 * v + (1 - beta2) * d.square()
        return server_lr * m / (v.sqrt() + tau), {"m": m, "v": v}

    return {"sgd": sgd, "heavy": heavy, "nesterov": nesterov, "adam": adam}[outer]


def _check_streaming(fragments, delay, mixing):
    if not 1 <= fragments <= MOST:
        raise ValueError(f"fragments must be between 1 and {MOST}, got {fragments}")
    if delay < 0:
        raise ValueError(f"delay must be >= 0 steps, got {delay}")
    if not 0 <= mixing < 1:
        raise ValueError(f"mixing must be in [0, 1), got {mixing}")


def _check(server_lr, momentum, beta2, tau):
    if not server_lr > 0:
        raise ValueError(f"server_lr must be > 0, got {server_lr}")
    if not (0 <= momentum < 1 and 0 <= beta2 < 1):
        raise ValueError(f"momentum and beta2 must be in [0, 1), got {momentum} and {beta2}")
    if not tau > 0:
        raise ValueError(f"tau must be > 0, got {tau}")
