"""The process writing a run file, and whether it is alive: a run in progress must not be replaced."""

import json
import os


def this_process():
    """A text naming this process among all others of this machine, now and later."""
    pid = os.getpid()
    return json.dumps({"pid": pid, "started": _started(pid), "boot": _boot(), "space": _space()})


def lives(text):
    """Whether the process named by ``this_process`` is alive. None if this process cannot see it: on another machine,
    in another container, or from before the last boot."""
    if not text:
        return None
    process = json.loads(text)
    here = _boot(), _space()
    there = process["boot"], process["space"]
    if None in here or there != here:
        return None
    return _started(process["pid"]) == process["started"]


def _boot():
    """The id of the kernel's present start, different on every machine; None if the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _space():
    """The name space of process numbers: a container has its own. None if the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid):
    """The process's start, in ticks since the boot; None if no such process is alive."""
    # The start tells processes apart: the system uses their numbers again.
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state = fields[0]
    ticks = int(fields[19])
    # Z and X: dead, but nobody has waited for it.
    if state in "ZX":
        return None
    return ticks
