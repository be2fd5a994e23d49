"""What coalitions are formed from: a cohort's answers, as the server hands them to every worker."""

from typing import NamedTuple

import torch

from fedmpi.core.parts import BY_CLIENT, Round, Updates


class Shared(NamedTuple):
    """A cohort as every rank has it."""

    x: torch.Tensor               # (P,) the model that it received
    shares: torch.Tensor          # (C,) float64
    updates: Updates
    state: dict                   # the strategy's


def message(cohort, state):
    """``(meta, arrays)`` that hands a ``Cohort`` and the strategy's ``state`` to every worker."""
    updates = cohort.updates
    arrays = {"x": cohort.x, "shares": cohort.shares, "support": updates.support}
    arrays |= {name: column for name in (*BY_CLIENT, "root") if (column := getattr(updates, name)) is not None}
    arrays |= {f"state/{name}": tensor for name, tensor in state.items()}
    lists = {}
    for name, part in updates.parts.items():
        rows = part if isinstance(part, list) else [part]
        lists[name] = len(rows) if isinstance(part, list) else -1
        arrays |= {f"part/{name}/{number}": row for number, row in enumerate(rows)}
    arrays |= {f"total/{name}": total for name, total in updates.totals.items()}
    meta = {"kind": "cohort", "trained": updates.trained, "N": updates.N, "round": updates.round, "lists": lists}
    return meta, {name: tensor.numpy() for name, tensor in arrays.items()}


def taken(meta, arrays):
    """The ``Shared`` cohort of such a message."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def under(prefix):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    parts = {}
    for name, count in meta["lists"].items():
        rows = [tensors[f"part/{name}/{number}"] for number in range(max(count, 1))]
        parts[name] = rows if count >= 0 else rows[0]
    columns = {name: tensors[name] for name in (*BY_CLIENT, "root") if name in tensors}
    updates = Updates(support=tensors["support"], trained=meta["trained"], N=meta["N"], parts=parts,
        totals=under("total/"),
                      round=meta["round"] and Round(*meta["round"]), **({"B": None} | columns))
    return Shared(tensors["x"], tensors["shares"], updates, under("state/"))
