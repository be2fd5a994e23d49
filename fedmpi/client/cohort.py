"""A cohort's updates on every rank: from them the workers form the models of coalitions."""

from typing import NamedTuple

import torch

from fedmpi.core.parts import BY_CLIENT, Round, Updates

# Fields of Updates with a row for each client, or a column for each weight; each may be None.
COLUMNS = (*BY_CLIENT, "server_update")
# The number of rows of a part in one tensor, which is no list.
ONE_TENSOR = -1


class Shared(NamedTuple):
    """A cohort as every rank has it."""

    x: torch.Tensor               # (P,) the model that clients received
    shares: torch.Tensor          # (C,) float64
    updates: Updates
    state: dict                   # the strategy's


def message(cohort, state):
    """``(meta, arrays)`` that hands a ``Cohort`` and the strategy's ``state`` to every worker."""
    updates = cohort.updates
    tensors = {"x": cohort.x, "shares": cohort.shares, "support": updates.support}
    for name in COLUMNS:
        column = getattr(updates, name)
        if column is not None:
            tensors[name] = column
    for name, tensor in state.items():
        tensors[f"state/{name}"] = tensor
    lists = {}
    for name, part in updates.parts.items():
        is_list = isinstance(part, list)
        rows = part if is_list else [part]
        lists[name] = len(rows) if is_list else ONE_TENSOR
        for number, row in enumerate(rows):
            tensors[f"part/{name}/{number}"] = row
    for name, total in updates.totals.items():
        tensors[f"total/{name}"] = total
    meta = {
        "kind": "cohort",
        "trained": updates.trained,
        "N": updates.N,
        "round": updates.round,
        "lists": lists,
    }
    return meta, {name: tensor.numpy() for name, tensor in tensors.items()}


def taken(meta, arrays):
    """The ``Shared`` cohort of such a message."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    parts = {}
    for name, count in meta["lists"].items():
        if count == ONE_TENSOR:
            parts[name] = tensors[f"part/{name}/0"]
        else:
            parts[name] = [tensors[f"part/{name}/{number}"] for number in range(count)]
    columns = {name: tensors[name] for name in COLUMNS if name in tensors}
    columns.setdefault("B", None)
    updates = Updates(
        places=tensors["support"],
        trained=meta["trained"],
        N=meta["N"],
        parts=parts,
        totals=_under(tensors, "total/"),
        round=meta["round"] and Round(*meta["round"]),
        **columns)
    return Shared(tensors["x"], tensors["shares"], updates, _under(tensors, "state/"))


def _under(tensors, prefix):
    """The tensors whose path begins with ``prefix``, by the rest of their paths."""
    return {path.removeprefix(prefix): tensor
            for path, tensor in tensors.items() if path.startswith(prefix)}
