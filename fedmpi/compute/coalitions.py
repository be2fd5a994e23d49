"""The models of coalitions: merges of some of the cohort's clients."""

import torch


def coalition_models(strategy, state, x, updates, shares, coalitions):
    """(M, P): the model that the strategy merges from each of ``coalitions (M, C) bool``.

    The model before the merge is ``x (P,)``. A coalition's members keep the proportions of
    ``shares (C,)``. One product computes a linear merge, else each coalition is merged by itself.
    The empty coalition counts as zero updates: ``x``, unless the server has momentum.
    """
    W = coalitions * shares
    # The empty coalition has no weight to divide by.
    totals = W.sum(dim=1, keepdim=True).clamp(min=1e-300)
    W = W / totals
    if strategy.linear:
        _, models = strategy.merge(state, x, updates, W)
        return models

    unmoved = _unmoved(strategy, state, x, updates, shares)
    models = unmoved.repeat(len(coalitions), 1)
    for row, weights in enumerate(W):
        # A client of weight 0 is no member.
        members = weights > 0
        if members.any():
            answers = updates.rows(members)
            _, model = strategy.merge(state, x, answers, weights[members])
            models[row] = model
    return models


def _unmoved(strategy, state, x, updates, shares):
    """(P,): the merge of updates that are zero."""
    if not state:
        # A server without a memory moves by updates alone.
        return x
    zeros = torch.zeros_like(updates.U)
    unmoved = updates._replace(U=zeros)
    _, model = strategy.merge(state, x, unmoved, shares)
    return model
