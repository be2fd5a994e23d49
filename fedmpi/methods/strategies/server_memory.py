"""Servers that remember a vector or two from merge to merge: a velocity, moments, a drift.

    d: the mean update, on the kept and trained weights;      m: the memory there
    step, m <- rule(d, m);      x <- x + step;      memory <- m, and 0 on all other weights

A pruned weight thus loses its memory, so that it does not revive. Buffers (running statistics)
move by the plain mean update: a running variance must not be stepped.
"""

import torch

from fedmpi.core.reduce import moved, on_support


def stepped(rule, state, x, updates, mean_update, chosen=None):
    """``(state, x)`` after a step by ``rule``, of a state ``{name: (P,) float32}``.

    ``rule(d (T,), **vectors) -> (step (T,), vectors)`` sees the T trained weights alone. For
    coalitions, a row each of ``mean_update (M, K)``, x is (M, P), and nothing is remembered.
    ``mean_update`` is written to. With ``chosen (T,) bool`` all other weights stay, and keep their
    memory.
    """
    moving = updates.support[: updates.trained]
    vectors = {}
    for name, vector in state.items():
        vectors[name] = vector.index_select(0, moving)
    trained = mean_update[..., : updates.trained]
    step, after = rule(trained, **vectors)
    if chosen is not None:
        step = torch.where(chosen, step, 0.0)
        after = {name: torch.where(chosen, after[name], vectors[name]) for name in after}
    trained.copy_(step)
    # Coalitions are hypothetical: only a real merge is remembered.
    if mean_update.ndim == 1:
        state = {}
        for name, values in after.items():
            state[name] = on_support(values, moving, len(x))
    return state, moved(x, updates.support, mean_update)
