"""Wakes a waiting rank of the same machine by a signal: a rank with a bell need not look by itself, and sleeps longer.

SIGURG is ignored by default, so a signal coming too late, or to another process, does nothing.
"""

import contextlib
import os
import signal

BELL = signal.SIGURG


def listen():
    """Keep the signal for ``dozing``. To be called before other threads exist: they, or MPI's, might take it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [BELL])


def dozing(longest, rung):
    """A ``nap`` for ``messages.wait``, ended by a bell; ``longest`` in seconds. With ``rung`` every message rings, so
    the whole of it is slept at once; without, naps grow as for other ranks."""

    def nap(waited):
        seconds = longest
        if not rung:
            seconds = min(waited / 10, longest)
        return signal.sigtimedwait([BELL], seconds)

    return nap


def ring(pid):
    """Wake a dozing process of this machine; a process still awake will skip its next nap. None: nobody."""
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, BELL)
