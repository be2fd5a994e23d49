"""Which process writes a run file, and whether it still lives: a run that goes on must not be replaced."""

import json
import os


def this_process():
    """A text that names this process among all others of this machine, now and later."""
    pid = os.getpid()
    return json.dumps({"pid": pid, "started": _started(pid), "boot": _boot(), "space": _space()})


def lives(text):
    """Whether the process that ``this_process`` named lives; None where that cannot be seen from here: it ran on
    another machine, in another container, or before this machine was booted."""
    if not text:
        return None
    named = json.loads(text)
    here = _boot(), _space()
    if None in here or (named["boot"], named["space"]) != here:
        return None
    return _started(named["pid"]) == named["started"]


def _boot():
    """The id of the kernel's present start, which no two machines share; None where there is none to read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _space():
    """The name space that numbers of processes are of: a container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid):
    """When the process began, in ticks since the boot, so that a number that is used again is another process; None
    where there is no such process, or a dead one that nobody has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks
