"""Class-wise cosine: does a client move every class's weights as the cohort does (ShapFed, arXiv 2406.00569).

    phi_n = 1 / classes * sum_c cos(Delta_n[c], Delta[c]),    Delta = sum_m r_m Delta_m

Delta_n[c] is class c's row of the last linear layer's update with its bias, r the cohort's present
weights. The paper's text takes the last layer's gradients, hence updates; its program compares the
weights themselves, which share the received model and are all alike. The paper's average over
rounds (0.9) is the weighting's ``memory``. Rows are compared on the entries that a client holds,
with the mean over each entry's holders. A row that is all 0, the client's or the mean's, counts 0:
a client without samples of a class is still judged, as its row falls.

Only the paper's scores are played. Its other half is left out: there every client receives a model of its own, the
better the more it contributed; here all receive the same one, and a score earns weight in the merge alone.

The last layer is the last prunable tensor of two dimensions, in the order in which the model declares them. Cost: the
last layer's columns once. Sees: updates. Blind spots: a client is part of the mean that it is held against; everything
below the last layer; an error that most clients share.
"""

import torch

from fedmpi.core.parts import Contribution, Scores


def shapfed():
    """Agreement with the mean update, class by class of the last layer.

    The paper's scores only: its personal models, better for those who contribute more, are not sent. All clients
    receive the same model.

    Paper: Tastan et al. 2024, "Redefining Contributions: Shapley-Driven Federated Learning", arXiv 2406.00569.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more; the paper sends each client a model of its own.
    """

    def score(state, cohort, utility, gen):
        return Scores(class_cosines(cohort.updates, cohort.shares, cohort.layout).mean(dim=1))

    def refuses(facts):
        if not linear_layers(facts.layout):
            yield ("it compares classes in the last linear layer, and this model has none; use cosine, "
                   "which takes the whole update")

    return Contribution(score, refuses=refuses, classes=True)


def class_cosines(updates, shares, layout):
    """``(C, classes) float64``: the cosines of every client's rows with the rows of the mean update."""
    columns, row = class_columns(layout, updates.support)
    U = updates.U[:, columns].double()
    B = torch.ones_like(U) if updates.B is None else updates.B[:, columns].double()
    U = U * B
    share = shares @ B
    mean = torch.where(share > 0, shares @ U / share.clamp(min=1e-300), 0.0)
    classes = last_layer(layout).shape[0]

    def by_class(values):
        return torch.zeros(len(U), classes, dtype=torch.float64).index_add_(1, row, values)

    squares = by_class(U * U) * by_class(B * mean * mean)
    return torch.where(squares > 0, by_class(U * mean) / squares.sqrt().clamp(min=1e-300), 0.0)


def class_columns(layout, support):
    """``(columns, class of each)``, int64: the columns of ``support`` that hold the last layer's weights and biases."""
    weight = last_layer(layout)
    bias = [slot for slot in layout.others if slot.name == weight.name.removesuffix("weight") + "bias"]
    columns, row = [], []
    for slot, width in [(weight, weight.shape[1])] + [(slot, 1) for slot in bias]:
        first, last = torch.searchsorted(support, torch.tensor([slot.offset, slot.offset + slot.size],
                                                               dtype=support.dtype)).tolist()
        columns.append(torch.arange(first, last))
        row.append((support[first:last].long() - slot.offset) // width)
    return torch.cat(columns), torch.cat(row)


def linear_layers(layout):
    """The slots of linear layers' weights."""
    return [slot for slot in layout.weights if len(slot.shape) == 2]


def last_layer(layout):
    """The slot of the last linear layer's weight."""
    return linear_layers(layout)[-1]
