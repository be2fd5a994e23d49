"""Class-wise cosine: does a client move every class's weights as the cohort does (ShapFed).

    phi_n = 1 / classes * sum_c cos(Delta_n[c], Delta[c]),    Delta = sum_m r_m Delta_m

Delta_n[c] is class c's row of the last linear layer's update with its bias, r the cohort's present
weights (arXiv 2406.00569). The paper's text takes the last layer's gradients, hence updates; its
program compares the weights themselves, which share the received model and are all alike. The
paper's average over rounds (0.9) is the weighting's ``memory``. Rows are compared on the client's
own entries, with the mean over each entry's holders. A row of zeros, the client's or the mean's,
counts 0: a client without samples of a class is still judged, as its row falls.

Only the paper's scores are played. Its other half is left out: there every client receives a model
of its own, the better the more it contributed; here all receive the same one, and a score earns
weight in the merge alone.

The last layer is the last prunable tensor of two dimensions, in the order in which the model
declares them. Cost: the last layer's columns once. Sees: updates. Blind spots: a client is part
of the mean to which it is compared; everything below the last layer; an error that most clients
share.
"""

import torch

from fedmpi.core.parts import Contribution, Scores


def shapfed():
    """Agreement with the mean update, class by class of the last layer.

    The paper's scores only: its personal models, better for larger contributors, are not
    sent. All clients receive the same model.

    Paper: Tastan et al. 2024, "Redefining Contributions: Shapley-Driven Federated Learning", arXiv
        2406.00569.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more; the paper sends each client a model of its own.
    """

    def score(state, cohort, utility, gen):
        """The mean cosine over the classes."""
        by_class = class_cosines(cohort.updates, cohort.shares, cohort.layout)
        return Scores(by_class.mean(dim=1))

    def refuses(facts):
        if not linear_layers(facts.layout):
            yield ("it compares classes in the last linear layer, and this model has none; use "
                   "cosine, which takes the whole update")

    return Contribution(score, refuses=refuses, classes=True)


def class_cosines(updates, shares, layout):
    """``(C, classes) float64``: the cosines of clients' rows with the rows of the mean update."""
    columns, class_of = class_columns(layout, updates.support)
    U = updates.U[:, columns].double()
    if updates.B is None:
        B = torch.ones_like(U)
    else:
        B = updates.B[:, columns].double()
    U = U * B
    mean = _mean_over_holders(U, B, shares)
    C = len(U)
    classes = last_layer(layout).shape[0]

    def by_class(values):
        """``(C, classes)``: the sums of ``values (C, k)`` over each class's columns."""
        sums = torch.zeros(C, classes, dtype=torch.float64)
        return sums.index_add_(1, class_of, values)

    own_squares = by_class(U * U)
    # The mean's length as well is over the client's own entries.
    mean_squares = by_class(B * mean * mean)
    squares = own_squares * mean_squares
    lengths = squares.sqrt().clamp(min=1e-300)
    cosines = by_class(U * mean) / lengths
    return torch.where(squares > 0, cosines, 0.0)


def _mean_over_holders(U, B, shares):
    """float64 (k,): the mean of the rows of ``U (C, k)`` over the holders of each entry."""
    share = shares @ B
    mean = shares @ U / share.clamp(min=1e-300)
    return torch.where(share > 0, mean, 0.0)


def class_columns(layout, support):
    """``(columns, class of each)``, int64: the columns of the last layer's weights and biases."""
    weight = last_layer(layout)
    # A model need not have one.
    bias_name = weight.name.removesuffix("weight") + "bias"
    biases = [slot for slot in layout.others if slot.name == bias_name]
    pieces = [_columns_of(weight, weight.shape[1], support)]
    pieces += [_columns_of(bias, 1, support) for bias in biases]
    columns, classes = zip(*pieces)
    return torch.cat(columns), torch.cat(classes)


def _columns_of(slot, width, support):
    """``(columns, class of each)``, int64, of one slot with ``width`` entries a class."""
    start = slot.offset
    end = start + slot.size
    edges = torch.tensor([start, end], dtype=support.dtype)
    first, last = torch.searchsorted(support, edges).tolist()
    columns = torch.arange(first, last)
    inside = support[first:last].long() - start
    return columns, inside // width


def linear_layers(layout):
    """The slots of linear layers' weights."""
    return [slot for slot in layout.weights if len(slot.shape) == 2]


def last_layer(layout):
    """The slot of the last linear layer's weight."""
    return linear_layers(layout)[-1]
