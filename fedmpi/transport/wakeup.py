"""Wakes a waiting rank of the same machine by a signal.

A rank that others wake need not look for messages by itself, and sleeps longer. SIGURG is ignored
by default, so a signal coming too late, or to another process, does nothing.
"""

import contextlib
import os
import signal

WAKEUP = signal.SIGURG


def listen():
    """Keep the signal for ``dozing``.

    To be called before other threads exist: they, or MPI's, might take it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [WAKEUP])


def dozing(longest, always_woken):
    """A ``nap`` for ``messages.wait``, ended by the signal; ``longest`` in seconds.

    If every message wakes this rank (``always_woken``), the whole of it is slept at once. Else naps
    grow as for other ranks.
    """

    def nap(waited):
        seconds = longest
        if not always_woken:
            seconds = min(waited / 10, longest)
        return signal.sigtimedwait([WAKEUP], seconds)

    return nap


def wake(pid):
    """Wake a dozing process of this machine; a process still awake will skip its next nap.

    None: nobody.
    """
    if pid is not None:
        # The process may have ended meanwhile.
        with contextlib.suppress(OSError):
            os.kill(pid, WAKEUP)
