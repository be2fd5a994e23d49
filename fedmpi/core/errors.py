"""Every exception that somebody catches.

    FedError
    |- UserError        a mistake of the user's: one clear line, exit code 2
    |  |- DataError     a data set that is missing, damaged or of the wrong shape
    |  `- Mislaunched   a process that takes itself for a rank, and was not started as one
    |- CheckpointError  a checkpoint that is damaged or belongs to another run
    |- WireError        a message that does not fit its receiver (layout, support, length)
    |- DivergedError    a loss or an update that is not finite
    |- DiskError        a disk that is full, read-only or broken
    |- LostRank         a rank that is dead, stopped or out of reach
    |- WorkerError      an exception on another rank, with that rank's traceback
    `- Stopped          a signal asked the run to stop, and it did at a safe point: exit code 85
       `- BrokenOff     it did not get there in time, so ranks may be in the middle of something

Factories raise plain ``ValueError`` for a bad hyper-parameter; the command line turns it into one line and exit code 2.
"""


class FedError(Exception):
    """Root of the project's own exceptions."""


class UserError(FedError):
    """A mistake of the user's: one clear line, exit code 2; found before work starts wherever it can be."""


class DataError(UserError):
    """A data set that is missing, damaged or of the wrong shape."""


class Mislaunched(UserError):
    """A process that takes itself for a rank, by the environment, and was not started as one."""


class CheckpointError(FedError):
    """A checkpoint that is damaged or belongs to another run."""


class WireError(FedError):
    """A message that does not fit its receiver: another layout, support, schema or length."""


class DivergedError(FedError):
    """A loss or an update that is not finite."""


class DiskError(FedError):
    """A disk that is full, read-only or broken, where something had to be written."""


class LostRank(FedError):
    """Another rank is dead, stopped or out of reach: no word of it for too long."""


class WorkerError(FedError):
    """An exception on another rank; ``trace`` is that rank's formatted traceback."""

    def __init__(self, rank, trace, user=False):
        super().__init__(f"rank {rank} failed:\n{trace}")
        self.rank, self.trace, self.user = rank, trace, user


class Stopped(FedError):
    """A signal asked the run to stop, and it did at a safe point: no other rank is in the middle of an exchange."""


class BrokenOff(Stopped):
    """The same, but no safe point came in time."""
