"""From a cohort's answers to one tensor of updates, a client a row."""

import torch

from fedmpi.client.answer import size_of
from fedmpi.client.stats import Stats
from fedmpi.core import exact_sum
from fedmpi.core.parts import Round, Updates
from fedmpi.core.support import below, positions_of


def stack(run, replies, support):
    """``Updates`` of C ``replies``, on the server's ``support (K,)``.

    If some client's support differs from it, the updates are on the union of all supports.
    """
    B = sent = None
    if replies[0].values is None:
        # The updates are in the workers' sums, and no estimator looks at them.
        U = torch.empty(len(replies), 0)
    elif not any(reply.custom_mask for reply in replies):
        vectors = [reply.values for reply in replies]
        U = rows_of(vectors)
    else:
        if run.kinds is not None:
            # With several networks the server's own model is not any client's.
            support = None
        support = union(run.layout, support, replies)
        U, B = _on_union(replies, support)
    if replies[0].sent is not None:
        sent = torch.stack([_on_all(reply, support) for reply in replies])
    parts, totals = _parts(run, replies, support)
    trained = below(support, run.layout.R)
    columns = _columns(run, replies)
    return Updates(
        U, B, support, trained=trained, parts=parts, totals=totals, sent=sent, **columns)


def union(layout, support, replies):
    """int32: the positions of all clients' supports, and of the server's ``support``, if any."""
    is_kept = torch.zeros(layout.P, dtype=torch.bool)
    # Keep the server's positions even if no client kept them.
    if support is not None:
        is_kept[positions_of(support)] = True
    for reply in replies:
        is_kept[positions_of(reply.support)] = True
    positions = torch.nonzero(is_kept).flatten()
    return positions.int()


def _on_union(replies, support):
    """``(U, B)``, both (C, K): updates on the union ``support (K,)``, and their own positions."""
    shape = len(replies), len(support)
    U = torch.zeros(shape)
    B = torch.zeros(shape, dtype=torch.bool)
    for row, reply in enumerate(replies):
        # Supports are sorted, and each is part of the union.
        columns = torch.searchsorted(support, positions_of(reply.support))
        U[row, columns] = reply.values
        B[row, columns] = True
    return U, B


def _on_all(reply, support):
    """(K,) bool on the union ``support (K,)``: the values that a client's message had."""
    if len(reply.sent) == len(support):
        return reply.sent
    whole = torch.zeros(len(support), dtype=torch.bool)
    columns = torch.searchsorted(positions_of(support), positions_of(reply.support))
    whole[columns] = reply.sent
    return whole


def _spread(values, of, support):
    """(K,) on ``support``: ``values`` at the positions ``of``, a part of it, and 0 elsewhere."""
    whole = torch.zeros(len(support))
    columns = torch.searchsorted(positions_of(support), positions_of(of))
    whole[columns] = values
    return whole


def rows_of(values):
    """(C, K): a list of vectors as the rows of one tensor, without a copy if they lie so."""
    if not _in_one_block(values):
        return torch.stack(values)
    first = values[0]
    K = len(first)
    return first.as_strided((len(values), K), (K, 1))


def _in_one_block(values):
    """Whether float32 vectors lie one behind the other in one storage."""
    first = values[0]
    storage = first.untyped_storage().data_ptr()
    row_bytes = 4 * len(first)
    expected = first.data_ptr()
    for vector in values:
        if vector.untyped_storage().data_ptr() != storage:
            return False
        if vector.data_ptr() != expected:
            return False
        expected += row_bytes
    return True


def _columns(run, replies):
    """``{name: (C,) float64}``: the numbers that merging may go by."""
    columns = {
        "n": _column(replies, Stats.SAMPLES),
        "losses": _column(replies, Stats.LOSS),
    }
    if run.strategy.steps:
        columns["steps"] = _column(replies, Stats.STEPS)
        columns["travelled"] = _column(replies, Stats.TRAVELLED)
    return columns


def _column(replies, number):
    values = [float(reply.numbers[number]) for reply in replies]
    return torch.tensor(values, dtype=torch.float64)


def _parts(run, replies, support):
    """``(parts, totals)`` of the strategy's answers, each folded by the rule of its field."""
    parts, totals = {}, {}
    for name, field in run.strategy.answers.items():
        if name not in replies[0].parts:
            continue
        rows = [reply.parts[name] for reply in replies]
        if field.on == "support":
            pairs = zip(rows, replies)
            rows = [_on_support(row, reply, support) for row, reply in pairs]
        if field.fold == "sum":
            totals[name] = exact(rows)
        elif field.fold == "list":
            parts[name] = rows
        else:
            parts[name] = torch.stack(rows)
    return parts, totals


def _on_support(row, reply, support):
    """(K,): a client's part of an answer on the ``support (K,)`` of all of them."""
    if len(row) == len(support) and not reply.custom_mask:
        return row
    return _spread(row, reply.support, support)


def exact(rows):
    """The sum of float32 tensors of one shape, to the same bits in any order."""
    first = rows[0]
    total = torch.zeros(first.numel(), dtype=torch.int64)
    for row in rows:
        values = row.float().flatten()
        size = exact_sum.magnitude(values)
        exact_sum.add(total, values, 1.0, size)
    whole = exact_sum.mean(total, 1.0)
    return whole.view(first.shape)


def summed(run, updates, whole, support):
    """``updates`` with one row for all C clients: their mean, the ``whole`` of shares being there.

    The workers have added it up, to the same bits in any order. Other answers keep a row a client.
    """
    K = len(support)
    sizes, fields = [K], {}
    for name, field in run.strategy.answers.items():
        if field.fold == "sum":
            fields[name] = field
            sizes.append(size_of(field, K))
    num_values = sum(sizes)
    means = torch.empty(num_values)

    def take(start, piece):
        sums = torch.from_numpy(piece)
        into = means[start: start + len(sums)]
        num_of_update = min(max(K - start, 0), len(sums))
        # The update is a mean, the others are sums.
        into[:num_of_update] = exact_sum.mean(sums[:num_of_update], whole)
        into[num_of_update:] = exact_sum.mean(sums[num_of_update:], 1.0)

    run.transport.total_pieces(num_values, take)
    mean, *others = means.split(sizes)
    totals = {}
    for name, total in zip(fields, others):
        totals[name] = _total(total, fields[name])
    return updates._replace(
        U=mean[None],
        B=None,
        places=support,
        n=updates.n.sum()[None],
        trained=below(support, run.layout.R),
        totals=totals)


def _total(total, field):
    """The ``total (n,)`` of an answer in the shape of its field."""
    if field.on == "support":
        return total
    return total.view(field.on)


def still(layout, strategy, C, N):
    """``Updates`` of C of N clients that changed nothing, on the dense positions alone.

    With them a strategy's merge is tried before clients train.
    """
    support = layout.dense_support
    parts, totals = {}, {}
    for name, field in strategy.answers.items():
        if field.on == "any":
            continue
        shape = len(support) if field.on == "support" else field.on
        zeros = torch.zeros(shape)
        if field.fold == "sum":
            totals[name] = zeros
        elif field.fold == "list":
            parts[name] = [zeros] * C
        else:
            rows = [zeros] * C
            parts[name] = torch.stack(rows)
    ones = torch.ones(C, dtype=torch.float64)
    return Updates(
        U=torch.zeros(C, len(support)),
        B=None,
        places=support,
        n=ones,
        trained=below(support, layout.R),
        server_update=torch.zeros(len(support)),
        parts=parts,
        totals=totals,
        steps=ones,
        travelled=ones,
        losses=ones,
        seconds=ones,
        clients=torch.arange(C),
        N=N,
        round=Round(1, 1))
