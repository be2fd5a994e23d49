"""Scores of the clients' contributions: estimators ask for the utilities of coalitions of clients.

All ranks evaluate the models of these coalitions.
"""

import time
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client.cohort import message
from fedmpi.core.errors import DivergedError
from fedmpi.core.rng import Purpose, stream
from fedmpi.transport.base import watched

# The two utilities of a model, in the order of a worker's answer; "accuracy" is an old name.
COLUMNS = {"loss": 0, "headline": 1, "accuracy": 1}


class RoundScores(NamedTuple):
    """The scores of a round by every estimator of the run, and their price."""

    scores: dict                  # {label: Scores}
    num_coalitions: dict          # {label: distinct coalitions that the estimator asked for}
    seconds: dict                 # {label: seconds}
    calls: int                    # models evaluated, by all estimators together

    @property
    def states(self):
        """``{label: state}`` of the estimators after the round."""
        return {label: scores.state for label, scores in self.scores.items()}


def score(run, state, cohort, reports, t):
    """``RoundScores`` of a ``Cohort``; ``reports`` holds a ``{label: arrays}`` for each client.

    All estimators draw from the same stream, and the one that weighs asks first: its scores are the
    same whoever else observes.
    """
    utility = Utility(
        transport=run.transport,
        derivatives=run.derivatives,
        block=run.block,
        cohort=cohort,
        state=state["strategy"],
        tell=run.tell)
    scores, num_coalitions, seconds = {}, {}, {}
    for label, part in run.contributions.items():
        begin = time.perf_counter()
        # Utilities that another estimator asked for are known, but count for this one, too.
        utility.wanted = set()
        own_reports = [report.get(label, {}) for report in reports]
        cohort = cohort._replace(reports=own_reports)
        gen = stream(run.seed, Purpose.CONTRIBUTION, t)
        own_state = state["contribution"][label]
        scores[label] = part.score(own_state, cohort, utility, gen)
        _check_finite(run, t, label, scores[label].phi)
        num_coalitions[label] = len(utility.wanted)
        seconds[label] = time.perf_counter() - begin
    return RoundScores(scores, num_coalitions, seconds, utility.calls)


def _check_finite(run, t, label, phi):
    """Raise DivergedError if the estimator that weighs gave a score ``phi`` that is not finite.

    Observers are only warned about.
    """
    if bool(phi.isfinite().all()):
        return
    line = f"round {t}: {label} found scores that are not finite: {phi.tolist()}"
    if label == run.weighs:
        raise DivergedError(line)
    run.tell(f"warning: {line}")


class Utility:
    """``utility(coalitions (M, C) bool, of="loss") -> (M,) float64``, the more the better.

    A coalition stands for the model that the strategy would have merged from its clients alone,
    with their present shares. The empty coalition counts as zero updates: it leaves the received
    model, unless the server has momentum. ``of="loss"`` gives minus the model's validation loss;
    ``of="headline"`` gives the objective's headline metric, or minus it if less is better. Values
    worse than the objective's ``worst`` (100 nats in classification) count as ``worst``, as does
    NaN.

    Each distinct coalition is evaluated once, in blocks spread over the workers. Blocks are cut
    by the question and never by the number of ranks: so the bits are the same on any number.
    ``calls`` counts the evaluated models. ``wanted`` holds the present estimator's distinct
    coalitions: its price if it were alone.
    """

    def __init__(self, transport, derivatives, block, cohort, state, tell=lambda line: None):
        """``derivatives`` is ``(gradient, curvature)`` of the validation loss, or None.

        ``block`` is the number of models in one job, ``state`` the strategy's; ``tell(line)`` hears
        of the progress of long work.
        """
        self.transport = transport
        self.block = block
        self.tell = tell
        self.cohort = cohort
        self.state = state
        # Estimators that follow the loss's slope ask for these.
        self.gradient, self.curvature = derivatives or (None, None)
        self.values_of = {}       # {bits of a coalition: its values, by COLUMNS}
        self.wanted = set()
        self.others = []          # utilities of the same clients with other updates
        # Shared with ``others``: the utility whose cohort the workers hold.
        self.loaded = [None]

    @property
    def calls(self):
        by_others = sum(len(other.values_of) for other in self.others)
        return len(self.values_of) + by_others

    def on(self, updates, x):
        """The utility of the same clients with other ``updates``, of another model ``x (P,)``."""
        cohort = self.cohort._replace(updates=updates, x=x)
        other = Utility(
            transport=self.transport,
            derivatives=None,
            block=self.block,
            cohort=cohort,
            state=self.state,
            tell=self.tell)
        other.loaded = self.loaded
        # Its coalitions are a part of this estimator's price.
        other.wanted = self.wanted
        self.others.append(other)
        return other

    def __call__(self, coalitions, of="loss"):
        packed = np.packbits(coalitions.numpy(), axis=1)
        keys = [bytes(row) for row in packed]
        self.wanted.update((id(self), key) for key in keys)
        new = [key for key in keys if key not in self.values_of]
        if new:
            # A dict keeps the order of the question, and drops repetitions.
            distinct = list(dict.fromkeys(new))
            self._load()
            self._evaluate(distinct)
        column = COLUMNS[of]
        values = [self.values_of[key][column] for key in keys]
        return torch.tensor(values, dtype=torch.float64)

    def _evaluate(self, keys):
        """Have the workers evaluate the coalitions ``keys``, and note the values."""
        starts = range(0, len(keys), self.block)
        blocks = [keys[start: start + self.block] for start in starts]
        jobs = []
        for number, block in enumerate(blocks):
            coalitions = [key.hex() for key in block]
            job = {"block": number, "coalitions": coalitions}
            jobs.append(job)
        t = self.cohort.now.t
        line = f"round {t}: blocks of {self.block} coalitions evaluated"
        replies = self.transport.map(jobs)
        for reply in watched(replies, len(jobs), self.tell, line):
            block = blocks[reply.meta["block"]]
            if reply.meta["crowded"]:
                self.tell(f"warning: rank {reply.rank} ran out of GPU memory with {len(block)} "
                          "models side by side and took one at a time, which may differ in the "
                          "last bits")
            values = reply.arrays["values"]
            self.values_of |= dict(zip(block, values))

    def _load(self):
        """Hand the cohort's updates to every worker, unless they hold them already."""
        if self.loaded[0] is self:
            return
        meta, arrays = message(self.cohort, self.state)
        self.transport.share(meta, arrays)
        self.loaded[0] = self
