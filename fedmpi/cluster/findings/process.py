"""Findings about the surroundings of a process: it did not choose them itself."""

from fedmpi.cluster.findings.finding import Finding, compared, good, named
from fedmpi.run.surroundings import LOCKING

# Open files that a process needs.
FILES = 256
STACK_BYTES = 1 << 20
# Bits of a umask that take the owner's own permissions.
OWNERS_BITS = 0o700
UTF8 = "LC_ALL=C.UTF-8 before the start"


def around(facts, mislaunched):
    """Findings about the launch, folders, the umask, letters and HDF5.

    ``mislaunched`` says how a process was mistaken for a rank; empty if it was not.
    """
    if mislaunched:
        yield Finding(
            "error", "launcher", mislaunched,
            expected="ranks of one job, or one process",
            way_out="as it says")
    if not facts["folder"]:
        yield Finding(
            "error", "working folder", "it was removed, or cannot be reached",
            expected="a folder that is there",
            way_out="cd to one that exists, or give absolute paths")
    umask = facts["umask"]
    if umask & OWNERS_BITS:
        yield Finding(
            "error", "umask", f"{umask:04o} takes our own permission from files that we make",
            expected="0022 or 0077, say",
            way_out="umask 0022 before the start")
    if not facts["home"]:
        yield Finding(
            "note", "HOME", "there is no home folder that takes files",
            expected="one, where torch and matplotlib keep what they have compiled",
            way_out="this works; export HOME to a folder of yours where starts are slow")
    yield from _letters(facts)
    yield from _hdf5(facts["hdf5"])


def _letters(facts):
    """Findings about letters: in output, and in the names of files."""
    locale = facts["locale"] or "no locale is set"
    names, output = facts["names"], facts["output"]
    if not facts["locale_known"]:
        yield Finding(
            "note", "locale", f"{locale}, which this machine does not have",
            expected="one of locale -a",
            way_out=UTF8)
    if not _is_utf8(names):
        yield Finding(
            "warning", "locale", f"{locale}: names of files are read as {names}",
            expected="UTF-8, else names with other letters may not be found",
            way_out=f"{UTF8}, or PYTHONUTF8=1")
    if _is_utf8(output):
        yield good("locale", f"{locale}; what comes out is UTF-8")
        return
    yield Finding(
        "note", "locale", f"{locale}: what comes out is {output}, pictures are drawn with it",
        expected="UTF-8, for finer pictures",
        way_out=f"{UTF8}, and unset PYTHONIOENCODING")


def _is_utf8(encoding):
    letters = encoding.lower().replace("-", "").replace("_", "")
    return letters == "utf8"


def _hdf5(variables):
    """Findings about variables of the environment for HDF5."""
    locking = variables.get(LOCKING)
    # HDF5 itself knows these words only; an empty variable is as good as none.
    if locking in ("TRUE", "1", "BEST_EFFORT"):
        yield Finding(
            "note", "HDF5", f"{LOCKING}={locking}: HDF5 locks whatever it opens",
            expected="it is not set",
            way_out="this works; a run waits for whoever looks at it, so unset it")
    elif locking not in (None, "", "FALSE", "0"):
        yield Finding(
            "note", "HDF5", f"{LOCKING}={locking} says nothing to HDF5",
            expected="TRUE, FALSE or BEST_EFFORT",
            way_out="unset it")
    others = []
    for name, value in sorted(variables.items()):
        if name != LOCKING:
            others.append(f"{name}={value}")
    if others:
        yield Finding(
            "note", "HDF5", ", ".join(others),
            expected="none of them is set",
            way_out="this works where run files can be written, see there; else unset them")


def limits(ranks):
    """A finding about the limits of the processes, as ``ulimit`` sets them."""
    text, _ = compared(ranks, _limits_text)
    low = []
    for rank, facts in ranks.items():
        if _is_low(facts["limits"]):
            low.append(rank)
    if not low:
        yield good("limits", text)
        return
    yield Finding(
        "warning", "limits", f"{text}, {named(low)}",
        expected=f"{FILES} open files and 1 MiB of stack at least",
        way_out="ulimit -n 4096 -s 8192 before the start")


def _is_low(limits):
    """Whether a process may have too few open files or too little stack; -1 means unlimited."""
    few_files = 0 <= limits["open_files"] < FILES
    small_stack = 0 <= limits["stack_bytes"] < STACK_BYTES
    return few_files or small_stack


def _limits_text(facts):
    own = facts["limits"]
    files = own["open_files"]
    if files < 0:
        files = "unlimited"
    core = _size_text(own["core_bytes"])
    stack = _size_text(own["stack_bytes"])
    locked = _size_text(own["locked_bytes"])
    return f"open files {files}, core {core}, stack {stack}, locked {locked}"


def _size_text(num_bytes):
    if num_bytes < 0:
        return "unlimited"
    return f"{num_bytes >> 20} MiB"
