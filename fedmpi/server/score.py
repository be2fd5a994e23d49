"""What clients contributed: the utilities of coalitions, evaluated on all ranks, and the estimators that ask for
them."""

import time

import numpy as np
import torch

from fedmpi.client.cohort import message
from fedmpi.core.errors import DivergedError
from fedmpi.core.rng import Purpose, stream
from fedmpi.transport.base import watched


def judge(fed, state, cohort, reports, t):
    """``({label: Scores}, {label: coalitions asked}, {label: seconds}, models evaluated)`` of every estimator of the
    run. ``reports`` holds what each client reported, as ``{label: arrays}``.

    All draw from the same stream, and the estimator that weighs asks first: who else observes changes nothing for it.
    """
    utility = Utility(fed.transport, fed.derivatives, fed.block, cohort, state["strategy"], fed.tell)
    found, asked, seconds = {}, {}, {}
    for label, part in fed.contributions.items():
        begin, utility.asked = time.perf_counter(), set()
        own = cohort._replace(reports=[report.get(label, {}) for report in reports])
        found[label] = part.score(state["contribution"][label], own, utility, stream(fed.seed, Purpose.CONTRIBUTION, t))
        if not bool(found[label].phi.isfinite().all()):
            line = f"round {t}: {label} found scores that are not finite: {found[label].phi.tolist()}"
            if len(found) == 1:                            # it is the one that weighs
                raise DivergedError(line)
            fed.tell(f"warning: {line}")
        asked[label], seconds[label] = len(utility.asked), time.perf_counter() - begin
    return found, asked, seconds, utility.calls


class Utility:
    """``utility(coalitions (M, C) bool, of="loss") -> (M,) float64``: minus the validation loss (``of="headline"`` or,
    by its old name, ``"accuracy"``: the objective's headline, minus it where less is better) of what the strategy would
    have merged from each coalition, with the clients' present shares; of updates of 0, hence of the received model
    where the server has no momentum, where a coalition is empty. A loss above the objective's ``worst``, 100 nats of
    classification, or one that is not a number, counts as that.

    Each distinct coalition is evaluated once, in blocks spread over the workers. How blocks are cut depends on what is
    asked, never on the number of ranks, hence so do the bits. ``calls`` counts evaluated models, ``asked`` holds the
    distinct coalitions that the present estimator asked for: what it would have cost alone.
    """

    def __init__(self, transport, derivatives, block, cohort, state, tell=lambda line: None):
        """``derivatives`` is ``(gradient, curvature)`` of the validation loss, ``block`` the models that one job forms
        and evaluates, ``state`` the strategy's, ``tell(line)`` hears how far long work has come."""
        self.transport, self.block, self.cohort, self.state, self.tell = transport, block, cohort, state, tell
        self.gradient, self.curvature = derivatives or (None, None)
        self.known, self.asked, self.loaded, self.others = {}, set(), [None], []

    @property
    def calls(self):
        return len(self.known) + sum(len(other.known) for other in self.others)

    def on(self, updates, x):
        """The utility of the same clients with other ``updates`` of another model ``x (P,)``."""
        other = Utility(self.transport, None, self.block, self.cohort._replace(updates=updates, x=x), self.state,
                        self.tell)
        other.loaded, other.asked = self.loaded, self.asked
        self.others.append(other)
        return other

    def __call__(self, coalitions, of="loss"):
        keys = [bytes(row) for row in np.packbits(coalitions.numpy(), axis=1)]
        self.asked.update((id(self), key) for key in keys)
        new = list({key: row for row, key in enumerate(keys) if key not in self.known}.items())
        blocks = [new[start: start + self.block] for start in range(0, len(new), self.block)]
        if blocks:
            self._load()
        jobs = [{"block": number, "coalitions": [key.hex() for key, _ in block]} for number, block in enumerate(blocks)]
        what = f"round {self.cohort.schedule.t}: blocks of {self.block} coalitions evaluated"
        for reply in watched(self.transport.map(jobs), len(jobs), self.tell, what):
            block = blocks[reply.meta["block"]]
            if reply.meta["crowded"]:
                self.tell(f"warning: rank {reply.rank} ran out of GPU memory with {len(block)} models side by side and "
                          "took one at a time, which may differ in the last bits")
            self.known |= {key: values for (key, _), values in zip(block, reply.arrays["values"])}
        column = {"loss": 0, "headline": 1, "accuracy": 1}[of]
        return torch.tensor([self.known[key][column] for key in keys], dtype=torch.float64)

    def _load(self):
        """Hand the cohort's updates to every worker, unless they were the last."""
        if self.loaded[0] is self:
            return
        self.transport.share(*message(self.cohort, self.state))
        self.loaded[0] = self
