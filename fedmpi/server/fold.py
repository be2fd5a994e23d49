"""From a cohort's answers to what strategies and estimators work on: one tensor of updates, a client a row."""

import torch

from fedmpi.client.answer import size_of
from fedmpi.client.numbers import Number
from fedmpi.core import exact_sum
from fedmpi.core.parts import Round, Updates
from fedmpi.core.support import below


def stack(fed, replies, support):
    """``Updates`` of the clients that count, by their ``replies``: on the announced ``support (K,)``, or on the union
    where clients' masks differ from it."""
    if replies[0].values is None:
        # They are in the workers' sums, and nobody looks at them.
        U, B = torch.empty(len(replies), 0), None
    elif not any(reply.own for reply in replies):
        U, B = rows_of([reply.values for reply in replies]), None
    else:
        support = union(fed.layout, support if fed.kinds is None else None, replies)
        U, B = _on_union(replies, support)
    parts, totals = _parts(fed, replies, support)
    return Updates(U, B, support, trained=below(support, fed.layout.R), parts=parts, totals=totals,
                   **_columns(fed, replies))


def union(layout, support, replies):
    """int32: the positions that any client of the cohort holds, or the server, whose ``support`` is None where its
    model is no client's."""
    held = torch.zeros(layout.P, dtype=torch.bool)
    # Keep the server's positions even if no client kept them.
    if support is not None:
        held[support] = True
    for reply in replies:
        held[reply.support] = True
    return torch.nonzero(held).flatten().int()


def _on_union(replies, support):
    """``(U, B)``, both (C, K), of answers on supports of their own."""
    U = torch.zeros(len(replies), len(support))
    B = torch.zeros(len(replies), len(support), dtype=torch.bool)
    for row, reply in enumerate(replies):
        columns = torch.searchsorted(support, reply.support)
        U[row, columns] = reply.values
        B[row, columns] = True
    return U, B


def _spread(values, of, support):
    """(K,) on ``support``: ``values`` on a part ``of`` it, 0 elsewhere."""
    whole = torch.zeros(len(support))
    whole[torch.searchsorted(support, of)] = values
    return whole


def rows_of(values):
    """(C, K): vectors as the rows of one tensor; no copy where they are that already, one after the other."""
    first = values[0]
    step, storage = 4 * len(first), first.untyped_storage().data_ptr()
    if all(each.untyped_storage().data_ptr() == storage and each.data_ptr() == first.data_ptr() + row * step
           for row, each in enumerate(values)):
        return first.as_strided((len(values), len(first)), (len(first), 1))
    return torch.stack(values)


def _columns(fed, replies):
    """What is known of each client in numbers, all (C,) float64."""
    columns = {"n": Number.SAMPLES, "losses": Number.LOSS}
    if fed.strategy.steps:
        columns |= {"steps": Number.STEPS, "travelled": Number.TRAVELLED}
    return {name: torch.tensor([float(reply.numbers[number]) for reply in replies], dtype=torch.float64)
            for name, number in columns.items()}


def _parts(fed, replies, support):
    """``(parts, totals)`` of the strategy's answers, each by the rule of its field."""
    parts, totals = {}, {}
    for name, field in fed.strategy.answers.items():
        if name not in replies[0].parts:
            continue
        rows = [reply.parts[name] for reply in replies]
        if field.on == "support":
            rows = [row if len(row) == len(support) and not reply.own else _spread(row, reply.support, support)
                    for row, reply in zip(rows, replies)]
        if field.fold == "sum":
            totals[name] = exact(rows)
        else:
            parts[name] = rows if field.fold == "list" else torch.stack(rows)
    return parts, totals


def exact(rows):
    """The sum of float32 tensors of one shape, to the same bits in any order."""
    total = torch.zeros(rows[0].numel(), dtype=torch.int64)
    for row in rows:
        values = row.float().flatten()
        exact_sum.add(total, values, 1.0, exact_sum.magnitude(values))
    return exact_sum.mean(total, 1.0).view(rows[0].shape)


def summed(fed, updates, shares, support):
    """The ``updates`` of C clients with one row instead of theirs: the mean by ``shares (C,)``, which the workers have
    added up, to the same bits in any order. What else clients answered stays a row each."""
    answers = {name: field for name, field in fed.strategy.answers.items() if field.fold == "sum"}
    K = len(support)
    sizes = [K, *(size_of(field, K) for field in answers.values())]
    step, *others = torch.from_numpy(fed.transport.total(sum(sizes))).split(sizes)
    totals = {name: exact_sum.mean(total, 1.0) for name, total in zip(answers, others)}
    totals = {name: total if answers[name].on == "support" else total.view(answers[name].on)
              for name, total in totals.items()}
    step = exact_sum.mean(step, float(shares.sum()))
    return updates._replace(U=step[None], B=None, support=support, n=updates.n.sum()[None],
                            trained=below(support, fed.layout.R), totals=totals)


def still(layout, strategy, C, N):
    """``Updates`` of C of N clients that changed nothing, on the dense tail alone: what a strategy's merge is tried
    with before clients train."""
    support, ones = layout.tail, torch.ones(C, dtype=torch.float64)
    parts, totals = {}, {}
    for name, field in strategy.answers.items():
        if field.on == "any":
            continue
        none = torch.zeros(len(support) if field.on == "support" else field.on)
        if field.fold == "sum":
            totals[name] = none
        else:
            parts[name] = [none] * C if field.fold == "list" else torch.stack([none] * C)
    return Updates(torch.zeros(C, len(support)), None, support, ones, below(support, layout.R),
                   torch.zeros(len(support)), parts, totals, steps=ones, travelled=ones, losses=ones, seconds=ones,
                   clients=torch.arange(C), N=N, round=Round(1, 1))
