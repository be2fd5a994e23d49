"""FLoRA: clients' adapters are stacked, so that the model gets their exact mean product.

    W <- W + scale sum_n p_n B_n A_n = scale [B_1 ... B_C] [p_1 A_1; ...; p_C A_C]

Then every adapter begins anew: A is drawn as at the start, B is 0. The next A follows from the
present one, so that all of them follow from the run's seed. Clients are sent the stack and repeat
the server's product. What else is trained (``also`` of the adapters) is averaged as by FedAvg.

Departures. All clients begin a round with the same new A, which the model's message brings, so that
rank (d_in + d_out) values a layer come beside the stack. The paper's clients may draw their own. Clients that
missed merges would need those stacks too; a round's message holds, and bills, the last one alone.
"""

import hashlib
from typing import NamedTuple

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


class Place(NamedTuple):
    """Where an adapter lies in the vector: the offsets of A, B and W, and their sizes."""

    A: int
    B: int
    W: int
    rank: int
    d_in: int
    d_out: int

    def A_of(self, vectors):
        """A (..., rank, d_in) of ``vectors (..., n)``, a view."""
        return _matrix(vectors, self.A, self.rank, self.d_in)

    def B_of(self, vectors):
        """B (..., d_out, rank), a view."""
        return _matrix(vectors, self.B, self.d_out, self.rank)

    def W_of(self, vectors):
        """W (..., d_out, d_in), a view."""
        return _matrix(vectors, self.W, self.d_out, self.d_in)

    @property
    def stop(self):
        """The end of A and B in the vector."""
        end_of_A = self.A + self.rank * self.d_in
        end_of_B = self.B + self.rank * self.d_out
        return max(end_of_A, end_of_B)


def _matrix(vectors, offset, rows, columns):
    """(..., rows, columns): a matrix in ``vectors (..., n)``, a view."""
    values = vectors.narrow(-1, offset, rows * columns)
    return values.unflatten(-1, (rows, columns))


def _places(layout):
    """A ``Place`` an adapter, without adapters of which a tensor lies outside the vector."""
    slots = {slot.name: slot for slot in layout.slots}
    places = []
    for adapter in layout.adapters:
        A, B, W = (slots.get(name) for name in (adapter.A, adapter.B, adapter.weight))
        if None in (A, B, W):
            continue
        rank, d_in = A.shape
        d_out, _ = B.shape
        place = Place(A.offset, B.offset, W.offset, rank, d_in, d_out)
        places.append(place)
    return places


def _scales(layout):
    return torch.tensor([adapter.scale for adapter in layout.adapters])


def _init(layout):
    """The server's state: the adapters' places, int64 (L, 6), and the last stack."""
    places = torch.tensor(_places(layout), dtype=torch.int64)
    return {
        "places": places,
        "scales": _scales(layout),
        "stack": torch.zeros(0),
        "merges": torch.tensor(0),
    }


def _send(state):
    return {"stack": state["stack"], "merges": state["merges"]}


def _merge(state, x, updates, weights):
    """``(state, x)``: the base changed by the stack of the clients' adapters, new adapters."""
    places = [Place(*numbers) for numbers in state["places"].tolist()]
    if not places:
        return average(state, x, updates, weights)
    trained, held = _clients_adapters(x, updates, places)
    stack = _stacked(trained, held, weights, places)
    # The mean of all else that is trained; that of the adapters is written over.
    step = mean(updates, weights)
    x = moved(x, updates.places, step)
    _add(x, stack, places, state["scales"])
    _begin_anew(x, places)
    merges = state["merges"] + 1
    return state | {"stack": stack, "merges": merges}, x


def _absorb(layout, x, message):
    """Add the stack of a ``message`` to the base in ``x (P,)``, in place, as the server did."""
    stack = message["stack"].cpu()
    _add(x, stack, _places(layout), _scales(layout))


def _clients_adapters(x, updates, places):
    """``(values (C, n), held (C, n) bool)``: the clients' models up to the last adapter's end.

    A client holds the first rows of each A, and as many columns of each B.
    """
    n = max(place.stop for place in places)
    count = below(updates.support, n)
    positions = updates.support[:count].long()
    values = torch.zeros(len(updates.U), n)
    values[:, positions] = x[positions] + updates.U[:, :count]
    if updates.B is None:
        return values, torch.ones_like(values, dtype=torch.bool)
    held = torch.zeros_like(values, dtype=torch.bool)
    held[:, positions] = updates.B[:, :count]
    values *= held
    return values, held


def _stacked(trained, held, weights, places):
    """float32: of each layer p_n A_n (R, d_in), a client below the other, then B_n^T (R, d_out).

    R is the sum of the clients' ranks.
    """
    shares = weights.float()[:, None, None]
    pieces = []
    for place in places:
        scaled = shares * place.A_of(trained)
        columns = place.B_of(trained).transpose(1, 2)
        # (C, rank): the rows that a client has, by their first entry.
        rows = place.A_of(held)[:, :, 0]
        pieces.append(scaled[rows].flatten())
        pieces.append(columns[rows].flatten())
    return torch.cat(pieces)


def _add(x, stack, places, scales):
    """Add the products of a ``stack`` to the base in ``x (P,)``, in place."""
    values_a_rank = sum(place.d_in + place.d_out for place in places)
    R = len(stack) // values_a_rank
    lengths = []
    for place in places:
        lengths += [R * place.d_in, R * place.d_out]
    pieces = iter(stack.split(lengths))
    for place, scale in zip(places, scales.tolist()):
        A = next(pieces).view(R, place.d_in)
        B = next(pieces).view(R, place.d_out)
        weight = place.W_of(x)
        weight.addmm_(B.T, A, alpha=scale)


def _begin_anew(x, places):
    """Draw each A of ``x (P,)`` anew, and set each B to 0, in place."""
    gen = torch.Generator()
    for place in places:
        A = place.A_of(x)
        gen.manual_seed(_seed_from(A))
        drawn_A(A, gen)
        place.B_of(x).zero_()


def _seed_from(A):
    """A seed that follows from the values of ``A``."""
    values = A.numpy().tobytes()
    digest = hashlib.blake2b(values, digest_size=7).digest()
    return int.from_bytes(digest, "big")
