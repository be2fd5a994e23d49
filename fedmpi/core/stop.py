"""Asked to stop: a signal sets a flag, the run ends at its next safe point and exits with code 85, "come back".

A scheduler says some time before it kills. A round may use half of that time to end. Then it is given up where the next
client's task ends; resumed, it is played again to the same bits. After three quarters whatever goes on is broken off.
"""

import contextlib
import math
import os
import signal
import threading
import time

from fedmpi.core.errors import BrokenOff, Stopped, UserError

COME_BACK = 85                # exit code of a run that was asked to stop and can be resumed
KILL_WAIT_S = 30              # between SIGTERM and SIGKILL, unless a cluster changed Slurm's KillWait
USUAL = "USR1@120"            # as #SBATCH --signal writes it


def notice(text):
    """``(signal number, seconds)`` of a text such as ``USR1@120``."""
    name, at, seconds = text.removeprefix("SIG").partition("@")
    number = getattr(signal, "SIG" + name, None)
    if name not in ("USR1", "USR2", "HUP", "XCPU") or at and not (seconds.isdecimal() and int(seconds)):
        raise UserError(f"a signal is USR1, USR2, HUP or XCPU, with the seconds of notice after an @, got {text!r}")
    return number, int(seconds or 120)


def notices():
    """``{signal number: seconds of notice}`` of what asks a run to stop: SIGTERM, what FEDMPI_SIGNAL says, and SIGHUP,
    by which a terminal says that it goes, unless nohup has made that pass."""
    usual = {signal.SIGTERM: KILL_WAIT_S}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        usual[signal.SIGHUP] = KILL_WAIT_S
    return usual | dict([notice(os.environ.get("FEDMPI_SIGNAL") or USUAL)])


class Stop:
    """``asked`` names the signal that asked the run to stop, empty where none did; until the time ``by`` a round may
    still end."""

    def __init__(self):
        self.by, self.asked = math.inf, ""
        self._whole, self._late = False, False

    def ask(self, number, frame=None):
        """Handles the signal ``number``; of several the most urgent counts."""
        seconds, now = notices()[number], time.monotonic()
        if now + seconds / 2 < self.by:
            self.by, self.asked = now + seconds / 2, signal.Signals(number).name
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, seconds * 3 / 4)

    def check(self):
        """A safe point inside a round: raises where the round must not go on."""
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
        """An alarm that comes while the block runs breaks off what follows it."""
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
    """Signals ask ``stop`` while the block runs; once one did, the process is to end and those that come later pass."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: stop.ask for number in notices()} | {signal.SIGALRM: stop.break_off}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stop.asked else handler)


def pass_on(send):
    """From now on ``send(number)`` is called with every signal that asks to stop: on ranks that only serve."""
    for number in notices():
        signal.signal(number, lambda number, frame: send(number))


def ignore():
    """From now on signals that ask to stop pass: on ranks that are about to leave, or not ready yet."""
    for number in notices():
        signal.signal(number, signal.SIG_IGN)
