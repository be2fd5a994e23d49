"""Ranks of adapters that differ by client (FLoRA, arXiv 2409.05976; HetLoRA, arXiv 2401.06432).

Client n trains the first r_n rows of each A and as many columns of each B; the others are 0 there,
and do not travel. A mean (fedavg) takes each entry over the clients that hold it; ``--strategy
flora`` adds the exact products, whatever the ranks.
"""

from fedmpi.core.parts import Pruner
from fedmpi.methods.pruning.dense import unmoved


def ranks(of: str = "8/4/2"):
    """Adapters of the ranks ``of``, dealt to the clients in turn: client n has the n-th.

    ``of`` is joined by /; no rank is above that of --adapters. There are no other masks.

    Paper: Wang et al. 2024, "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous
        Low-Rank Adaptations", arXiv 2409.05976.
    Up: the values of the client's own ranks.
    Down: as many, and the positions of the client's own mask every round.
    Example: fedmpi train --strategy flora --adapters lora:rank=4 --pruner ranks:of=4/2 --lr 0.01
        --model vit:depth=1,width=16,heads=2
    """
    own_ranks = _numbers(of)

    def start(layout, x, now, gen):
        return {}, layout.full_mask()

    def masks(state, mask, x, layout, clients):
        distinct = {rank: _mask_of(layout, rank) for rank in sorted(set(own_ranks))}
        return [distinct[own_ranks[client % len(own_ranks)]] for client in clients.tolist()]

    def refuses(facts):
        adapters = facts.layout.adapters
        if not adapters:
            yield "it cuts adapters, and the model has none; give --adapters lora, say"
            return
        slots = {slot.name: slot for slot in facts.layout.weights}
        if adapters[0].A not in slots:
            yield f"{facts.named['adapters']} does not train A; take --adapters lora"
            return
        rank = slots[adapters[0].A].shape[0]
        if max(own_ranks) > rank:
            yield f"of must be at most {rank}, the rank of {facts.named['adapters']}"

    def notes(facts):
        if len(own_ranks) > facts.clients:
            yield (f"of names {len(own_ranks)} ranks for {facts.clients} clients: the last ones "
                   "have no effect")

    return Pruner(
        start,
        unmoved,
        masks=masks,
        nominal=_whole,
        fixed=True,
        refuses=refuses,
        notes=notes,
    )


def _numbers(of):
    """A list of ranks."""
    words = of.split("/")
    if not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(f"of must be ranks >= 1 joined by /, as 8/4/2, got {of!r}")
    return [int(word) for word in words]


def _mask_of(layout, rank):
    """bool (Q,): the first ``rank`` rows of each A, columns of each B, and all else."""
    mask = layout.full_mask()
    slots = {slot.name: slot for slot in layout.weights}
    for adapter in layout.adapters:
        A = slots[adapter.A].of(mask)
        A[rank:] = False
        B = slots[adapter.B].of(mask)
        B[:, rank:] = False
    return mask


def _whole(state, mask, layout):
    """The tested model has all ranks."""
    return mask
