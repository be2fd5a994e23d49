"""The exceptions, each caught somewhere.

    FedError
    |- UserError        a mistake of the user's: one clear line, exit code 2
    |  |- DataError     a missing or damaged data set, or one of the wrong shape
    |  `- Mislaunched   a process that takes itself for a rank, and was not started as one
    |- CheckpointError  a damaged checkpoint, or another run's
    |- WireError        a message of another layout, support or length than its receiver's
    |- DivergedError    a loss or an update with a value of infinity or NaN
    |- DiskError        a full, read-only or broken disk
    |- LostRank         a dead or stopped rank, or one out of reach
    |- WorkerError      an exception on another rank, with its traceback there
    `- Stopped          a signal asked the run to stop, and it did at a safe point: exit code 85
       `- BrokenOff     it did not get there in time, so ranks may be in the middle of an exchange

Factories raise plain ``ValueError`` for a bad hyper-parameter; the command line turns it into one
line and exit code 2.
"""


class FedError(Exception):
    """Root of the project's own exceptions."""


class UserError(FedError):
    """A mistake of the user's: one clear line, exit code 2; found before work if possible."""


class DataError(UserError):
    """A missing or damaged data set, or one of the wrong shape."""


class Mislaunched(UserError):
    """A process that takes itself for a rank, by its environment, and was not started as one."""


class CheckpointError(FedError):
    """A damaged checkpoint, or another run's."""


class WireError(FedError):
    """A message of another layout, support, schema or length than its receiver's."""


class DivergedError(FedError):
    """A loss or an update with a value of infinity or NaN."""


class DiskError(FedError):
    """A full, read-only or broken disk."""


class LostRank(FedError):
    """Another rank is dead, stopped or out of reach: no message came from it for too long."""


class WorkerError(FedError):
    """An exception on another rank.

    ``trace`` is the formatted traceback there; ``user``: it was a mistake of the user's.
    """

    def __init__(self, rank, trace, user=False):
        super().__init__(f"rank {rank} failed:\n{trace}")
        self.rank = rank
        self.trace = trace
        self.user = user


class Stopped(FedError):
    """A signal asked the run to stop, and it did at a safe point: no rank is in an exchange."""


class BrokenOff(Stopped):
    """A signal asked the run to stop, and no safe point came in time."""
