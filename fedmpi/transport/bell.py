"""Waking a rank of the same machine that waits, by a signal: a rank that need not look by itself sleeps longer.

SIGURG is ignored where nobody waits for it, so a signal that comes too late, or to another process, does nothing.
"""

import contextlib
import os
import signal

BELL = signal.SIGURG


def listen():
    """Keep the signal for ``doze``: to be called before there are other threads, MPI's among them, which might take it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [BELL])


def doze(seconds):
    """Sleep until ``ring``, or for ``seconds``."""
    signal.sigtimedwait([BELL], seconds)


def ring(pid):
    """Wake a process of this machine that dozes; one that does not will not sleep the next time."""
    with contextlib.suppress(OSError):
        os.kill(pid, BELL)
