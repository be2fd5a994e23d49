"""The state of a run: before round 1, and as checkpoints hold it."""

import torch

from fedmpi.core.parts import Round
from fedmpi.core.rng import Purpose, stream
from fedmpi.server import asynchronous, client_states
from fedmpi.server.model import model_on

# Names of entries of the state in earlier checkpoints, and their names now.
NEW_NAMES = {
    "held": "last_round_of",
    "changed": "mask_since",
    "sent": "last_sent_mask",
    "least": "earliest_finish",
}


def initial_state(run, x):
    """The state before round 1, from the initial vector ``x (P,)``: all that a checkpoint holds.

    It is a nested dict of tensors and numbers:

    * ``x (P,)`` and ``mask (Q,)``: the model; ``strategy``, ``pruner``, ``weighting`` and
      ``contribution``: states of these parts; ``now``: virtual time in seconds;
    * ``last_sent_mask (Q,)``: the mask of the last model message; ``mask_since``: the first round
      of the present mask; ``last_round_of (N,)``: the last round of each client; ``losses (N,)``:
      its last training loss;
    * ``previous (P,)``: the model of the round before, for faults that replay it;
    * ``clients`` and ``grown (Q,)``: see ``fedmpi.server.client_states``;
    * ``flight``: clients at work between two rounds, see ``fedmpi.server.asynchronous``.
    """
    gen = stream(run.seed, Purpose.MASK)
    pruner, mask = run.pruner.init(run.layout, x, Round(0, run.rounds), gen)
    if not run.pruner.keeps_pruned_values:
        x = model_on(x, run.layout.compact(mask), run.layout)
    N = len(run.sizes)
    contribution = {label: part.init(run.sizes) for label, part in run.contributions.items()}
    state = {
        "x": x,
        "mask": mask,
        "last_sent_mask": torch.zeros_like(mask),
        "mask_since": 1,
        "last_round_of": torch.zeros(N, dtype=torch.int64),
        "strategy": run.strategy.init(run.layout),
        "pruner": pruner,
        "weighting": run.weighting.init(run.sizes),
        "now": 0.0,
        "losses": torch.full((N,), torch.nan, dtype=torch.float64),
        "contribution": contribution,
    }
    if run.needs_previous_model:
        state["previous"] = torch.zeros_like(x)
    if run.kept_fields:
        state["clients"] = {}
        state["grown"] = torch.zeros(run.layout.Q, dtype=torch.int32)
    if run.timing.buffer:
        at_work = run.timing.concurrency or run.cohort
        state["flight"] = asynchronous.nobody(at_work)
    return state


def saved_state(state):
    """A run's state, as a checkpoint holds it."""
    if "clients" not in state:
        return state
    clients = client_states.as_dict(state["clients"])
    return state | {"clients": clients}


def loaded_state(state):
    """A run's state from a checkpoint."""
    state = _with_new_names(state)
    if "flight" in state:
        state["flight"] = _with_new_names(state["flight"])
    if "clients" not in state:
        return state
    clients = client_states.from_dict(state["clients"])
    return state | {"clients": clients}


def _with_new_names(state):
    return {NEW_NAMES.get(name, name): entry for name, entry in state.items()}
