"""The kinds of jobs that the server sends to a worker, and their fields.

A job is a dict. Its bytes are billed to its client, hence it spends none on a name for its kind:
its fields tell it.
"""

from enum import Enum


class Job(Enum):
    """A kind of job; the value is a field of such jobs alone."""

    # Evaluate coalitions: "block" (its number), "coalitions" (hex of packed bits).
    COALITIONS = "coalitions"
    # Test clients on their own test parts: "own" (clients), "block", perhaps "networks", "alone".
    OWN_TESTS = "own"
    # The server's own compute: "lab" names it, see ``fedmpi.client.lab``.
    LAB = "lab"
    # Train several clients at once: "team" holds a training job for each.
    TEAM = "team"
    # Tell the loss of the received model: "loss" (the client), "row".
    LOSS = "loss"
    # Train a client: "client", "row", perhaps "share" (its weight in the worker's sums); of a model
    # that comes along "support", "mask", "network", "given", "t" and "number" (of its start).
    TRAIN = "client"


FIELDS = {kind.value: kind for kind in Job}


def job_of(job):
    """The ``Job`` that a dict of fields is."""
    for field, kind in FIELDS.items():
        if field in job:
            return kind
    raise ValueError(f"a job of no known kind, with the fields {', '.join(job)}")
