"""The models of coalitions: what the strategy would have merged from some of the cohort."""

import torch


def coalition_models(strategy, state, x, updates, shares, coalitions):
    """(M, P): the model ``x (P,)`` moved by what the strategy merges from each of ``coalitions (M, C) bool``, whose
    members keep the proportions of ``shares (C,)``. One product where the merge is linear, else merge by merge.
    Nobody is worth what updates of 0 are: ``x``, and where the server has momentum what that makes of it."""
    W = coalitions * shares
    W = W / W.sum(dim=1, keepdim=True).clamp(min=1e-300)
    if strategy.linear:
        return strategy.merge(state, x, updates, W)[1]
    still = strategy.merge(state, x, updates._replace(U=torch.zeros_like(updates.U)), shares)[1] if state else x
    models = still.repeat(len(coalitions), 1)
    for row, chosen in enumerate(W > 0):                   # a member of weight 0 is none
        if chosen.any():
            models[row] = strategy.merge(state, x, updates.rows(chosen), W[row][chosen])[1]
    return models
