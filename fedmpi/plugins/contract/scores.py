"""The contract of contributions and weightings."""

import torch

from fedmpi.core.parts import Scores
from fedmpi.plugins.contract.require import (check_arrays, check_state, check_tensor, check_tuple,
                                             few, in_words, require, with_functions)

# The sum of weights may be away from 1 by this much.
TOLERANCE = 1e-6


def contribution(part, option):
    """The ``Contribution``, its functions checked."""

    def init(n):
        state = part.init(n)
        check_state(state, option, "init")
        return state

    def score(state, cohort, utility, gen):
        scores = part.score(state, cohort, utility, gen)
        require(isinstance(scores, Scores), option, "Scores from score", in_words(scores),
                "return fedmpi.core.parts.Scores(phi)")
        shape = (len(cohort.clients),)
        check_tensor(scores.phi, shape, torch.float64, option, "the scores phi")
        check_state(scores.state, option, "score")
        if scores.error is not None:
            check_tensor(scores.error, shape, torch.float64, option, "the standard errors")
        return scores

    def report(task):
        arrays = part.report(task)
        check_arrays(arrays, option, "what report returns")
        return arrays

    return with_functions(part, {"init": init, "score": score, "report": report})


def weighting(part, option):
    """The ``Weighting``, its functions checked."""

    def init(n):
        state = part.init(n)
        _check_weighing(state, len(n), option, "init")
        return state

    def weigh(state, phi, cohort):
        answer = part.weigh(state, phi, cohort)
        check_tuple(answer, 2, option, "(state, weights) from weigh")
        state_after, weights = answer
        N = len(state["weights"])
        _check_weighing(state_after, N, option, "weigh")
        check_tensor(weights, phi.shape, torch.float64, option, "the weights that weigh returns")
        _check_weights(weights, option)
        return answer

    return part._replace(init=init, weigh=weigh)


def _check_weights(weights, option):
    total = float(weights.sum())
    sums_to_1 = abs(total - 1) <= TOLERANCE
    fits = sums_to_1 and bool((weights >= 0).all())
    require(fits, option, "weights >= 0 that sum to 1",
            f"{few(weights)} with the sum {total:.6g}",
            "divide by the sum, and let none be negative")


def _check_weighing(state, N, option, function):
    """A state must hold the weights of all N clients."""
    check_state(state, option, function)
    names = ", ".join(state) or "an empty one"
    require("weights" in state, option,
            f"an entry weights ({N},) in the state that {function} returns", names,
            "see fedmpi.core.parts.Weighting")
    # score is the remembered contribution, which a sampler may ask for.
    for name in ("weights", "score"):
        if name in state:
            check_tensor(state[name], (N,), torch.float64, option, f"state[{name!r}] of {function}")
