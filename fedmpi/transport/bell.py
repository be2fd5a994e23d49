"""Waking a rank of the same machine that waits, by a signal: a rank that need not look by itself sleeps longer.

SIGURG is ignored where nobody waits for it, so a signal that comes too late, or to another process, does nothing.
"""

import contextlib
import os
import signal

BELL = signal.SIGURG


def listen():
    """Keep the signal for ``dozing``: to be called before there are other threads, MPI's among them, which might take
    it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [BELL])


def dozing(longest, rung):
    """How ``messages.wait`` sleeps where a bell may ring: for ``longest`` seconds at most, and at once where it surely
    will be ``rung`` when there is something; else by and by, as others do."""
    return lambda waited: signal.sigtimedwait([BELL], longest if rung else min(waited / 10, longest))


def ring(pid):
    """Wake a process of this machine that dozes; one that does not will not sleep the next time. None: nobody."""
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, BELL)
