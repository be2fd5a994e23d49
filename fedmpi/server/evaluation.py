"""The evaluation of the new model, in slices of work between the answers of the next round."""

import torch

from fedmpi.client.stats import advice
from fedmpi.compute.evaluate import finite
from fedmpi.server import record
from fedmpi.server.model import model_tested
from fedmpi.server.slices import Stopwatch


def evaluates(period):
    """``is_due(now: Round) -> bool``: every ``period``-th round is evaluated, and the last one."""
    def is_due(now):
        return now.t % period == 0 or now.t == now.rounds

    return is_due


def evaluated(run, state, merged, due=True):
    """A generator of slices of work, which ends in the columns about the new model of ``state``.

    These are its digest, and losses and metrics on the test and validation sets: NaN unless
    ``due``, and if the server has no model. ``merged (P,)`` is the model before pruning and
    growing; where pruning changed it, it is tested as well.
    """
    row = {"weights_digest": record.digest(state["x"], state["mask"])}
    yield
    if not (due and run.layout.travels):
        return row | record.no_evaluation(run)
    x = model_tested(run, state)
    timed = Stopwatch()
    loss, metrics = yield from timed(run.test(x))
    way_out = advice("training", run.codec.exact)
    row["loss"] = finite(loss, "the merged model", way_out)
    row |= metrics
    before = metrics
    if not torch.equal(x, merged):
        _, before = yield from timed(run.test(merged))
    headline = run.objective.headline
    row[f"{headline}_before"] = before[headline]
    if run.validate is not None:
        loss, metrics = yield from timed(run.validate(x))
        row["val_loss"] = finite(loss, "the merged model, on validation samples,", way_out)
        row |= {f"val_{name}": value for name, value in metrics.items()}
    row["evaluate_s"] = timed.seconds
    return row
