"""Asked to stop: a signal sets a flag, and the run ends at its next safe point.

Its exit code is 85, "come back". A scheduler gives notice some time before it kills. A round may
use half of that time to end. Then it is given up at the end of the next client's task; after a
resume it is played again to the same bits. After three quarters all work is broken off.
"""

import contextlib
import math
import os
import signal
import threading
import time

from fedmpi.core.errors import BrokenOff, Stopped, UserError

# Exit code of a run that was asked to stop and can be resumed.
COME_BACK = 85
# Between SIGTERM and SIGKILL, unless a cluster changed Slurm's KillWait.
KILL_WAIT_S = 30
# As #SBATCH --signal writes it.
USUAL = "USR1@120"
SIGNALS = ("USR1", "USR2", "HUP", "XCPU")


def notice(text):
    """``(signal number, seconds)`` of a text such as ``USR1@120``."""
    name, at, seconds = text.removeprefix("SIG").partition("@")
    if name not in SIGNALS or at and not _is_positive(seconds):
        raise UserError(
            "a signal is USR1, USR2, HUP or XCPU, with the seconds of notice after an @, "
            f"got {text!r}"
        )
    return getattr(signal, "SIG" + name), int(seconds or 120)


def _is_positive(text):
    """Whether a text is a whole number above 0."""
    return text.isdecimal() and int(text) > 0


def notices():
    """``{signal number: seconds of notice}`` of all requests to stop.

    These are SIGTERM, the signal of FEDMPI_SIGNAL, and SIGHUP, sent by a closing terminal, unless
    nohup has it ignored.
    """
    seconds_of = {signal.SIGTERM: KILL_WAIT_S}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        seconds_of[signal.SIGHUP] = KILL_WAIT_S
    number, seconds = notice(os.environ.get("FEDMPI_SIGNAL") or USUAL)
    seconds_of[number] = seconds
    return seconds_of


class Stop:
    """A request to stop.

    ``asked`` names the signal behind it, empty before any came. A round may still end until the
    time ``by``.
    """

    def __init__(self):
        self.by = math.inf
        self.asked = ""
        # Inside ``unbroken``, and an alarm came meanwhile.
        self._whole = self._late = False

    def ask(self, number, frame=None):
        """Handles the signal ``number``; of several the most urgent counts."""
        seconds = notices()[number]
        by = time.monotonic() + seconds / 2
        if by >= self.by:
            return
        self.by = by
        self.asked = signal.Signals(number).name
        if _in_main_thread():
            signal.setitimer(signal.ITIMER_REAL, seconds * 3 / 4)

    def check(self):
        """A safe point inside a round: raises if the round must not go on."""
        if time.monotonic() > self.by:
            raise Stopped(f"asked to stop by {self.asked}")

    def break_off(self, number, frame):
        """Handles the alarm that ``ask`` has set."""
        if self._whole:
            self._late = True
            return
        raise BrokenOff(f"asked to stop by {self.asked}, and broken off as it took too long")

    @contextlib.contextmanager
    def unbroken(self):
        """An alarm during the block waits for its end, and breaks off the code behind it."""
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
        if self._late:
            self._late = False
            self.break_off(signal.SIGALRM, None)


@contextlib.contextmanager
def heeding(stop):
    """Signals ask ``stop`` while the block runs.

    Once one has asked, the process is to end, and later signals are ignored.
    """
    if not _in_main_thread():
        yield
        return
    handlers = dict.fromkeys(notices(), stop.ask)
    handlers[signal.SIGALRM] = stop.break_off
    before = {}
    for number, handler in handlers.items():
        before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stop.asked else handler)


def _in_main_thread():
    """Whether this is the main thread, the only one that handles signals."""
    return threading.current_thread() is threading.main_thread()


def pass_on(send):
    """From now on every request to stop calls ``send(number)``: for serving ranks."""
    for number in notices():
        signal.signal(number, lambda number, frame: send(number))


def ignore():
    """From now on requests to stop are ignored: for ranks about to leave, or not ready."""
    for number in notices():
        signal.signal(number, signal.SIG_IGN)
