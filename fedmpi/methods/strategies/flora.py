"""FLoRA: clients' adapters are stacked, so that the model gets their exact mean product.

    W <- W + scale sum_n p_n B_n A_n = scale [B_1 ... B_C] [p_1 A_1; ...; p_C A_C]

Then every adapter begins anew: A is drawn as at the start, B is 0. The next A follows from the
present one, so that all of them follow from the run's seed. Clients are sent the stack and repeat
the server's product. What else is trained (``also`` of the adapters) is averaged as by FedAvg.

Departures. All clients begin a round with the same new A, which the model's message brings: rank
(d_in + d_out) values a layer beside the stack. The paper's clients may draw their own. Clients that
missed merges would need those stacks too; a round's message holds, and bills, the last one alone.
"""

import hashlib

import torch

from fedmpi.core.adapters import drawn_A
from fedmpi.core.parts import Field, Strategy
from fedmpi.core.reduce import average, mean, moved
from fedmpi.core.support import below


def flora():
    """The exact mean product of the clients' adapters, added to the frozen model.

    Ranks may differ by client: ``--pruner ranks``.

    Paper: Wang et al. 2024, "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous
        Low-Rank Adaptations", arXiv 2409.05976.
    Up: 4 bytes for every value of A and B, of the client's own rank.
    Down: the stack of all clients' A and B of the last round, and the new A and B.
    Example: fedmpi train --strategy flora --adapters lora:rank=2 --lr 0.01
        --model vit:depth=1,width=16,heads=2
    """

    def refuses(facts):
        layout = facts.layout
        if not layout.adapters:
            yield "it merges adapters, and the model has none; give --adapters lora, say"
        elif len(_places(layout)) < len(layout.adapters):
            yield f"{facts.named['adapters']} does not train A; take --adapters lora"
        if facts.asynchronous:
            yield ("merges change the model beside the adapters, which clients that are at work "
                   "would not have; take --timing sync")

    def notes(facts):
        if not facts.everybody:
            yield ("a client that missed rounds would be sent their stacks, too: of these only the "
                   "last is in the bytes down")

    return Strategy(
        _init,
        _merge,
        refuses=refuses,
        notes=notes,
        sends={"stack": Field(on="any"), "merges": Field(on=())},
        send=_send,
        absorb=_absorb,
    )


def _init(layout):
    """The server's state: where adapters lie, and the last stack."""
    return {
        "places": _places(layout),
        "scales": torch.tensor([adapter.scale for adapter in layout.adapters]),
        "stack": torch.zeros(0),
        "merges": torch.tensor(0),
    }


def _places(layout):
    """int64 (L, 6): offsets of A, B and W in the vector, and r, d_in, d_out, of each adapter.

    Without adapters of which a tensor lies outside the vector.
    """
    slots = {slot.name: slot for slot in layout.slots}
    rows = []
    for adapter in layout.adapters:
        tensors = [slots.get(name) for name in (adapter.A, adapter.B, adapter.weight)]
        if None in tensors:
            continue
        A, B, W = tensors
        rank, d_in = A.shape
        d_out, _ = B.shape
        rows.append([A.offset, B.offset, W.offset, rank, d_in, d_out])
    return torch.tensor(rows, dtype=torch.int64).view(-1, 6)


def _send(state):
    return {"stack": state["stack"], "merges": state["merges"]}


def _merge(state, x, updates, weights):
    """``(state, x)``: the base changed by the stack of the clients' adapters, new adapters."""
    places = state["places"]
    if not len(places):
        return average(state, x, updates, weights)
    trained, held = _clients_adapters(x, updates, places)
    stack = _stacked(trained, held, weights, places)
    # What is trained beside the adapters; their own mean goes.
    step = mean(updates, weights)
    x = moved(x, updates.support, step)
    _add(x, stack, places, state["scales"])
    _begin_anew(x, places)
    merges = state["merges"] + 1
    return state | {"stack": stack, "merges": merges}, x


def _absorb(layout, x, message):
    """Add the stack of a ``message`` to the base in ``x (P,)``, in place, as the server did."""
    scales = torch.tensor([adapter.scale for adapter in layout.adapters])
    _add(x, message["stack"].cpu(), _places(layout), scales)


def _clients_adapters(x, updates, places):
    """``(values (C, Q'), held (C, Q') bool)``: the clients' models as far as adapters reach.

    A client holds, of each adapter, the first rows of A and as many columns of B.
    """
    stop = _stop(places)
    count = below(updates.support, stop)
    positions = updates.support[:count].long()
    values = torch.zeros(len(updates.U), stop)
    values[:, positions] = x[positions] + updates.U[:, :count]
    if updates.B is None:
        return values, torch.ones_like(values, dtype=torch.bool)
    held = torch.zeros_like(values, dtype=torch.bool)
    held[:, positions] = updates.B[:, :count]
    return values.mul_(held), held


def _stop(places):
    """The end of the last adapter in the vector."""
    A, B, _, rank, d_in, d_out = places.unbind(1)
    return int(torch.maximum(A + rank * d_in, B + rank * d_out).max())


def _stacked(trained, held, weights, places):
    """float32: of each layer p_n A_n (R, d_in), a client below the other, then B_n^T (R, d_out).

    R is the sum of the clients' ranks.
    """
    pieces = []
    shares = weights.float()
    for A, B, _, rank, d_in, d_out in places.tolist():
        As = trained[:, A: A + rank * d_in].view(-1, rank, d_in)
        Bs = trained[:, B: B + rank * d_out].view(-1, d_out, rank)
        # The first column of A tells which rows a client has.
        rows = held[:, A: A + rank * d_in: d_in]
        scaled = shares[:, None, None] * As
        pieces.append(scaled[rows].flatten())
        pieces.append(Bs.transpose(1, 2)[rows].flatten())
    return torch.cat(pieces)


def _add(x, stack, places, scales):
    """Add the product of a ``stack`` to the base in ``x (P,)``, in place."""
    values_per_rank = int(places[:, 4:].sum())
    R = len(stack) // values_per_rank
    start = 0
    for (_, _, W, _, d_in, d_out), scale in zip(places.tolist(), scales.tolist()):
        middle, stop = start + R * d_in, start + R * (d_in + d_out)
        A = stack[start:middle].view(R, d_in)
        B = stack[middle:stop].view(R, d_out)
        weight = x[W: W + d_out * d_in].view(d_out, d_in)
        weight.add_(B.T @ A, alpha=scale)
        start = stop


def _begin_anew(x, places):
    """Draw each A of ``x (P,)`` anew, and set each B to 0, in place."""
    gen = torch.Generator()
    for A, B, _, rank, d_in, d_out in places.tolist():
        own_A = x[A: A + rank * d_in].view(rank, d_in)
        digest = hashlib.blake2b(own_A.numpy().tobytes(), digest_size=7)
        gen.manual_seed(int.from_bytes(digest.digest(), "big"))
        drawn_A(own_A, gen)
        x[B: B + rank * d_out] = 0
