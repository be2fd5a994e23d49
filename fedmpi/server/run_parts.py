"""The parts of a run, as the server's rounds take them."""

import math
from typing import Any, Callable, Iterator, NamedTuple

import torch

from fedmpi.client.own_values import state_fields
from fedmpi.client.train import OWN, RESIDUAL
from fedmpi.core.layout import Layout
from fedmpi.core.parts import (Codec, Devices, Field, Objective, Pruner, Sampler,
                               Strategy, Timing, Weighting)
from fedmpi.server.lab import Holdings
from fedmpi.transport.team import NOTHING, Beside


class RunParts(NamedTuple):
    """A run's parts: built before round 1, and the same in every round.

    The run has N clients, and ``cohort`` of them take part in a round.
    """

    # The network: how the vector of its weights is laid out, and the price of using it.
    layout: Layout
    costs: Any                    # flops.Costs
    fixed: Any                    # tensors.Fixed
    batch_norm: bool              # the network has layers of that kind

    # The methods, one of each kind in the catalogue.
    objective: Objective
    strategy: Strategy
    pruner: Pruner
    contributions: dict           # {label: Contribution}: first the one that weighs, then observers
    weighting: Weighting
    codec: Codec
    sampler: Sampler
    devices: Devices
    timing: Timing

    # The clients and their rounds.
    sizes: torch.Tensor           # (N,) float64, training samples
    # (N,) float64, the fewest samples that a training sees in a round.
    min_samples_seen: torch.Tensor
    cohort: int
    rounds: int
    seed: int

    # Evaluation: vector (P,) -> a generator of slices of work that ends in (loss, {metric: mean}).
    test: Callable                # on the test set: for the run file, never for a decision
    validate: Callable | None     # on the server's validation set: for every decision
    derivatives: tuple | None     # gradient and curvature of the validation loss
    evaluate_every: int                    # rounds from one evaluation to the next
    block: int                    # coalition models that one job evaluates

    # How updates reach the server.
    transport: Any
    # Workers add updates up, because merging needs the sum alone.
    sums_on_workers: bool
    # Single updates arrive: for merging, or for an estimator.
    wants_single_updates: bool
    needs_previous_model: bool    # some fault needs the model of the round before
    server: Holdings              # the server's own samples

    # Failures.
    on_error: str                 # of a training: "fatal", "retry" (once, then drop) or "drop"
    quorum: float                 # the least share of answers that must be fit for merging

    # The rest has values that fit most runs. First the engine itself.
    tell: Callable = lambda line: None      # takes a line about work that goes on for long
    together: int = 1             # clients that one worker trains at once
    lr: Callable = lambda now: math.nan     # Round -> learning rate of a client's first step
    shelf: Any = None             # files of clients' states, if memory is too small for them

    # Whether vectors of the state before the merge may be overwritten: nobody needs them any more.
    may_overwrite: Callable = lambda: False

    # Work done while clients train: by rank 0, and by workers for the server.
    meanwhile: Iterator = iter(())          # slices of work
    beside: Beside = NOTHING

    # Features of some runs; None in all others.
    # {name: Field} of the optimiser's state that clients keep; empty: it starts anew each round.
    inner: dict = {}
    own_tests: Any = None         # own_accuracy.OwnTests: clients have test parts of their own
    kinds: Any = None             # core.kinds.NetworkKinds: the run has more networks than one
    own_network: Any = None       # own_network.OwnNetwork: a network that only the server has
    structure: Any = None         # core.units.Structure: clients train smaller networks

    @property
    def weighs(self):
        """The label of the estimator that weighs."""
        return next(iter(self.contributions))

    @property
    def kept_fields(self):
        """``{name: Field}`` of the values that a client keeps between its rounds."""
        fields = {**self.strategy.keeps, **self.inner, **state_fields(self.strategy)}
        if self.codec.feedback:
            fields[RESIDUAL] = Field()
        if self.layout.personal:
            # In a run of several networks each client keeps fewer.
            fields[OWN] = Field(on=(len(self.layout.personal_positions),))
        return fields
