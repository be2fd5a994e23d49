"""Findings: the meaning of measured facts, each with the expected value and a way out. Pure;
``fedmpi.cluster.examine`` measures.

Exit codes: 0 if nothing is worse than a note, 1 for warnings, 2 for errors.
"""

import os
import statistics
from functools import partial
from typing import NamedTuple

from fedmpi.transport import place
from fedmpi.run.surroundings import LOCKING
from fedmpi.core.wide import labelled

SEVERITIES = ("ok", "note", "warning", "error")
SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "fuse.sshfs", "ceph", "wekafs", "9p")   # between nodes
GB = 1e9
# What is expected. Times and rates are those of one node; between nodes the network may be slower, and says so.
WAITING = 0.05                # share of a core that a waiting rank may burn
ROUND_TRIP_S = 0.02           # there and back, 8 bytes
RATE = 100e6                  # bytes a second between two ranks, long messages
AGAINST_BARE = 0.25           # of what the MPI alone does, long messages, ranks on cores of their own
SYNC_S = 0.5                  # until 1 MiB is on the disk
CLOCK_S = 1.0                 # by which nodes may differ: times in logs and of files
LEFT_BYTES = 200e6            # of memory, for each rank, beside what it has taken already
SHM_BYTES = 64e6              # that MPI's messages inside a node take from /dev/shm, at least
DISK_BYTES = 1e9              # free where run files lie, and where the data of a node are shared
FILES = 256                   # open files, a process
STACK_BYTES = 1 << 20


class Finding(NamedTuple):
    """One line of the table; ``expected`` and ``way_out`` are empty if all is well."""

    severity: str
    subject: str
    got: str
    expected: str = ""
    way_out: str = ""


def _good(subject, got):
    return Finding("ok", subject, got)


def judged(facts):
    """The ``Finding``s of all facts that ``examine.measured`` brings, the worst first."""
    ranks = facts["ranks"]
    found = [*_around(facts["around"], facts["mislaunched"]), *_mpi(ranks, facts["mpirun"]), *_places(ranks),
             *_gpus(ranks), *_torch(ranks), *_versions(ranks), *_speed(ranks, facts["probe"]),
             *_folder(facts["folder"]), *_room(ranks), *_limits(ranks)]
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def exit_code(findings):
    """0, 1 for warnings, 2 for errors."""
    worst = max((SEVERITIES.index(finding.severity) for finding in findings), default=0)
    return max(0, worst - 1)


def file_system(path, mounts):
    """The type of the file system of ``path``; ``mounts`` is the text of /proc/self/mountinfo."""
    best, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # The kernel writes a blank in a path as \040.
        point = before.split()[4].replace("\\040", " ")
        is_inside = path == point or path.startswith(point.rstrip("/") + "/")
        if is_inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _around(around, mislaunched):
    """Findings about the surroundings, which this process did not choose."""
    if mislaunched:
        yield Finding("error", "launcher", mislaunched, "ranks of one job, or one process", "as it says")
    if not around["folder"]:
        yield Finding("error", "working folder", "it was removed, or cannot be reached", "a folder that is there",
                      "cd to one that exists, or give absolute paths")
    if around["umask"] & 0o700:
        yield Finding("error", "umask", f"{around['umask']:04o} takes our own permission from files that we make",
                      "0022 or 0077, say", "umask 0022 before the start")
    if not around["home"]:
        yield Finding("note", "HOME", "there is no home folder that takes files",
                      "one, where torch and matplotlib keep what they have compiled",
                      "this works; export HOME to a folder of yours where starts are slow")
    yield from _text(around)
    yield from _hdf5(around["hdf5"])


def _text(around):
    """Findings about letters: in output, and in the names of files."""
    utf8 = "LC_ALL=C.UTF-8 before the start"
    said = around["locale"] or "no locale is set"
    if not around["locale_known"]:
        yield Finding("note", "locale", f"{said}, which this machine does not have", "one of locale -a", utf8)
    if not _is_utf8(around["names"]):
        yield Finding("warning", "locale", f"{said}: names of files are read as {around['names']}",
                      "UTF-8, else names with other letters may not be found", f"{utf8}, or PYTHONUTF8=1")
    if _is_utf8(around["output"]):
        yield _good("locale", f"{said}; what comes out is UTF-8")
    else:
        yield Finding("note", "locale", f"{said}: what comes out is {around['output']}, pictures are drawn with it",
                      "UTF-8, for finer pictures", f"{utf8}, and unset PYTHONIOENCODING")


def _is_utf8(encoding):
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _hdf5(variables):
    """Findings about variables of HDF5 that change what it does."""
    locking = variables.get(LOCKING)
    if locking in ("TRUE", "1", "BEST_EFFORT"):
        yield Finding("note", "HDF5", f"{LOCKING}={locking}: HDF5 locks whatever it opens", "it is not set",
                      "this works; a run waits for whoever looks at it, so unset it")
    elif locking not in (None, "", "FALSE", "0"):
        yield Finding("note", "HDF5", f"{LOCKING}={locking} says nothing to HDF5", "TRUE, FALSE or BEST_EFFORT",
                      "unset it")
    others = [f"{name}={value}" for name, value in sorted(variables.items()) if name != LOCKING]
    if others:
        yield Finding("note", "HDF5", ", ".join(others), "none of them is set", "this works where run files can be "
                      "written, see there; else unset them")


def _groups(ranks, value):
    """``{value: [rank]}``."""
    by_value = {}
    for rank, facts in ranks.items():
        by_value.setdefault(value(facts), []).append(rank)
    return by_value


def _who(numbers):
    plural = "s" if len(numbers) > 1 else ""
    return f"rank{plural} {place.ranges(sorted(numbers))}"


def _unequal(ranks, value):
    """``a on ranks 0-3, b on rank 4``, and whether all ranks have one value."""
    by_value = _groups(ranks, value)
    if len(by_value) == 1:
        only = next(iter(by_value))
        return str(only), True
    parts = [f"{shown} on {_who(numbers)}" for shown, numbers in by_value.items()]
    return "; ".join(parts), False


CUDA_AWARE = {True: "yes", False: "no", None: "it does not say"}


def _mpi(ranks, mpirun):
    first = ranks[0]["mpi"]
    if "error" in first:
        yield Finding("warning", "MPI", first["error"], "an MPI that mpi4py can load; one process works without",
                      "load the cluster's MPI module, or pip install 'fedmpi[mpi]'; on a login node, ask inside a job")
    else:
        yield _library(ranks, first)
    yield from _launcher(ranks, mpirun, first)


def _library(ranks, first):
    text, same = _unequal(ranks, lambda facts: facts["mpi"]["library"])
    if not same:
        return Finding("error", "MPI", text, "one MPI library on all ranks", "load the same modules on all nodes")
    aware = CUDA_AWARE[first["cuda_aware"]]
    return _good("MPI", f"{text}, MPI {first['standard']}, mpi4py {first['mpi4py']} "
                 f"({first['binary']}), threads {first['threads']}, CUDA-aware: {aware} (not used: messages "
                 "are coded on the host)")


def _launcher(ranks, mpirun, library):
    started_by, _ = _unequal(ranks, lambda facts: facts["launcher"])
    path = mpirun["path"]
    if not path and started_by == "none":
        yield Finding("note", "launcher", "no mpirun in PATH", "one, for more than one rank",
                      "load the cluster's MPI module, or start by srun")
        return
    if path and started_by != "srun" and _is_foreign(mpirun["text"], library):
        yield Finding("warning", "launcher", f"{_whose(path, mpirun['text'])}, "
                      f"mpi4py loads {library['library']}", "both of one MPI", "put that MPI's bin first in PATH")
        return
    yield _good("launcher", f"started by {started_by}; mpirun is {path or 'missing'}")
    yield from _typed_launcher(mpirun, library)


def _is_foreign(version_text, library):
    """Whether a launcher is not of the MPI that mpi4py loads, as far as known."""
    if "error" in library:
        return False
    return _is_open_mpi(version_text) != _is_open_mpi(library["library"])


def _typed_launcher(mpirun, library):
    """A note if PATH has another mpirun than fedmpi starts, and it starts no rank of the MPI that
    mpi4py loads."""
    typed, text = mpirun["typed"], mpirun["typed_text"]
    if typed and _is_foreign(text, library):
        yield Finding("note", "launcher", f"{_whose(typed, text)} and comes first in PATH, mpi4py loads "
                      f"{library['library']}", f"to start by {mpirun['path']}, as fedmpi itself does",
                      f"put {os.path.dirname(mpirun['path'])} first in PATH, or type that path")


def _whose(path, text):
    kind = "Open MPI" if _is_open_mpi(text) else "another MPI"
    return f"{path} is of {kind}"


def _is_open_mpi(text):
    return "Open MPI" in text or "OpenRTE" in text


def _places(ranks):
    for line in place.lines(ranks):
        if not line.startswith(" "):
            yield _good("ranks", line)
    for line in place.warnings(ranks):
        yield Finding("warning", "ranks", line, "a core a rank, or all for all", "as it says")
    for numbers in place.by_node(ranks).values():
        yield from _cores(ranks, numbers)


def _num_cores(ranks, numbers):
    """Cores that any of the ranks ``numbers`` of a node may use."""
    return len(set().union(*(ranks[rank]["cores"] for rank in numbers)))


def _cores(ranks, numbers):
    """Findings about the ranks ``numbers`` of one node."""
    first, num, cores = ranks[numbers[0]], len(numbers), _num_cores(ranks, numbers)
    allowed = min(cores, first["quota"] or cores)
    if allowed < min(cores, num):
        yield Finding("warning", "cores", f"{first['host']}: its cgroup allows {first['quota']:g} of {cores} cores "
                      f"to {num} rank(s)", "as many as ranks",
                      "ask for more (--cpus-per-task, --ntasks), or start fewer ranks")
    if num > cores:
        plural = "s" if cores > 1 else ""
        yield Finding("note", "cores", f"{first['host']}: {num} ranks on {cores} core{plural}",
                      "a core a rank is fastest", "this works; for speed start fewer ranks, or ask for more cores")


def _gpus(ranks):
    blind = {rank: facts for rank, facts in ranks.items() if facts["driver"] and not facts["gpus"]}
    if blind:
        yield _blind(blind)
    for numbers in place.by_node(ranks).values():
        free_of = place.free_of(ranks, numbers)
        for name, users in place.by_gpu(ranks, numbers).items():
            yield _gpu(ranks, name, users, free_of)
    if not blind and not any(facts["gpus"] for facts in ranks.values()):
        yield _good("GPU", "none")


def _blind(ranks):
    """About ``ranks`` with a driver, but without a GPU that torch sees."""
    first = next(iter(ranks.values()))
    built = first["torch"]["cuda"] or "none"
    return Finding(
        "warning", "GPU",
        f"{_who(ranks)}: {first['driver']}, but torch (CUDA {built}) sees none; "
        f"CUDA_VISIBLE_DEVICES={first['visible']}",
        "torch sees the GPUs",
        "install a torch built for a CUDA that the driver knows, or check CUDA_VISIBLE_DEVICES; else --device cpu")


def _gpu(ranks, name, users, free_of):
    """About one GPU with its ranks ``users``; ``free_of`` are the free bytes by uuid, as far as
    known."""
    first = ranks[users[0]]
    gpu = place.gpu_of(first)
    free = ""
    if gpu["uuid"] in free_of:
        free = f"{free_of[gpu['uuid']] / GB:.0f} GB free of "
    line = f"{first['host']}: gpu {name}, {gpu['name']}, {free}{gpu['total_bytes'] / GB:.0f} GB: {_who(users)}"
    if len(users) == 1:
        return _good("GPU", line)
    turns = "ranks on one GPU take turns"
    if not first["mps"]:
        turns += " unless MPS runs"
    return Finding("note", "GPU", line, turns,
                   "this works; start nvidia-cuda-mps-control, or fewer ranks, where it is slow")


def _torch(ranks):
    text, same = _unequal(ranks, _built)
    if same:
        yield _good("torch", text)
    else:
        yield Finding("warning", "torch", text, "one build on processors of one kind, for the same bits in every run",
                      "ask for nodes of one kind; which rank trains which client may differ from run to run")


def _built(facts):
    """The build of a rank's torch, as text."""
    torch = facts["torch"]
    libraries = [name for name, key in (("MKL", "mkl"), ("oneDNN", "onednn")) if torch[key]]
    return (f"{facts['versions']['torch']}, CUDA {torch['cuda'] or 'none'}, "
            f"{' and '.join(libraries) or 'no MKL'}, {torch['vectors']}, {facts['threads']} thread(s) a rank")


def _version_of(name, facts):
    return facts["versions"][name]


def _versions(ranks):
    versions = ranks[0]["versions"]
    all_same = True
    for name in versions:
        text, same = _unequal(ranks, partial(_version_of, name))
        all_same = all_same and same
        if not same:
            yield Finding("error", "versions", f"{name} {text}", "the same on all ranks",
                          "activate one environment on all nodes")
    if all_same:
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        if len(ranks) > 1:
            text += ", on all ranks"
        yield _good("versions", text)


def _speed(ranks, probe):
    if probe is None:
        return
    pairs = probe["pairs"]
    yield _latency(pairs)
    sizes = {int(size) for pair in pairs.values() for size in pair["rates"]}
    alone = all(_num_cores(ranks, numbers) >= len(numbers) for numbers in place.by_node(ranks).values())
    for size in sorted(sizes):
        yield _rate(pairs, size, alone)
    yield _broadcast(probe["broadcast"], len(ranks) - 1)
    yield _waiting(probe["waiting"])
    yield from _clocks(ranks, pairs)


def _latency(pairs):
    worst = max(pairs, key=lambda rank: pairs[rank]["round_trip_s"])
    longest = pairs[worst]["round_trip_s"]
    median = statistics.median(pair["round_trip_s"] for pair in pairs.values())
    bare = statistics.median(pair["bare_round_trip_s"] for pair in pairs.values())
    line = (f"8 bytes to a worker and back: median {median * 1e6:.0f} us, worst "
            f"{longest * 1e6:.0f} us (rank {worst}); MPI alone {bare * 1e6:.0f} us, "
            f"{median / bare:.2g} times faster, and never asleep")
    if longest < ROUND_TRIP_S:
        return _good("latency", line)
    return Finding("warning", "latency", line, f"at most {ROUND_TRIP_S * 1e3:.0f} ms",
                   "fewer ranks a core, or a faster network: see UCX_TLS, FI_PROVIDER")


def _broadcast(measured, num_workers):
    seconds, bare = measured["seconds"], measured["bare_seconds"]
    return _good("broadcast", f"{measured['bytes'] / 2 ** 20:.0f} MiB to {num_workers} worker(s): "
                 f"{seconds * 1e3:.1f} ms; MPI alone {bare * 1e3:.1f} ms, {seconds / bare:.2g} times")


def _waiting(share_of):
    """About the share of a core that each waiting rank burns."""
    busy = [rank for rank, share in share_of.items() if share > WAITING]
    line = f"a rank that waits burns {max(share_of.values()):.1%} of a core, at most"
    if not busy:
        return _good("waiting", line)
    return Finding("warning", "waiting", f"{line} ({_who(busy)})", f"at most {WAITING:.0%}",
                   "another program may burn it; is a thread of MPI's own spinning (UCX, MPICH_ASYNC_PROGRESS)?")


def _rate(pairs, size, alone):
    """About messages of ``size`` bytes; ranks must be ``alone`` on their cores for the comparison
    with bare MPI."""
    rates, shares = {}, []
    for rank, pair in pairs.items():
        if size in map(int, pair["rates"]):
            rates[rank] = _at(pair["rates"], size)
            shares.append(rates[rank] / _at(pair["bare_rates"], size))
    slow, share = min(rates, key=rates.get), statistics.median(shares)
    median = statistics.median(rates.values())
    line = (f"{size >> 20} MiB between rank 0 and a worker: median {median / GB:.2g} GB/s, "
            f"least {rates[slow] / GB:.2g} GB/s (rank {slow}); {share:.2g} of MPI alone")
    if rates[slow] < RATE:
        return Finding("warning", "bandwidth", line, f"{RATE / GB:g} GB/s",
                       "is this the fast network? see UCX_NET_DEVICES, FI_PROVIDER")
    if alone and share < AGAINST_BARE:
        return Finding("note", "bandwidth", line, f"{AGAINST_BARE:g} of MPI alone",
                       "a busy node shows less; repeat it on a quiet one")
    return _good("bandwidth", line)


def _at(rates, size):
    """The rate at ``size``; JSON makes texts of the keys."""
    if size in rates:
        return rates[size]
    return rates[str(size)]


def _clocks(ranks, pairs):
    far = {}
    for rank, pair in pairs.items():
        if abs(pair["clock_s"]) > CLOCK_S + pair["clock_error_s"]:
            far[rank] = pair["clock_s"]
    if not far:
        largest = max(abs(pair["clock_s"]) for pair in pairs.values())
        yield _good("clocks", f"within {largest:.1g} s of rank 0's")
        return
    rank = max(far, key=lambda rank: abs(far[rank]))
    yield Finding("warning", "clocks", f"{ranks[rank]['host']} is {far[rank]:+.1f} s off rank 0's clock",
                  f"{CLOCK_S:g} s at most", "tell the administrators: chrony or ntp does not run there")


def _folder(folder):
    where = f"{folder['path']} ({folder['type'] or 'unknown file system'})"
    if folder["write"]:
        yield Finding("error", "run files", f"{where}: HDF5 cannot write there: {folder['write']}",
                      "a folder to write to", "give another --out, or make it writable")
        return
    if folder["rename"]:
        yield Finding("error", "run files", f"{where}: renaming fails: {folder['rename']}",
                      "a file takes another's place",
                      "take a POSIX file system: run files and checkpoints are put in place by renaming")
    locks = folder["lock"] or folder["hdf5_lock"]
    if locks:
        yield Finding("warning", "run files", f"{where}: file locking does not work: {locks}", "flock works",
                      "it runs, but nothing keeps two runs from one file; on Lustre mount with flock, or take another "
                      "folder")
    able = "writes, appends, reopens" if locks else "writes, appends, reopens, locks"
    yield _sync(folder["sync_s"], f"{where}: HDF5 {able}; 1 MiB on the disk in {folder['sync_s']:.2g} s")
    yield _disk("run files", folder, "give another --out, or make room")


def _sync(seconds, line):
    if seconds <= SYNC_S:
        return _good("run files", line)
    return Finding("note", "run files", line, f"{SYNC_S:g} s", "each checkpoint waits for the disk: raise "
                   "--save-every, or take a faster folder and copy the run at the end")


def _disk(subject, disk, way_out):
    line = f"{disk['path']} ({disk['type'] or 'unknown'}): {disk['free_bytes'] / GB:.1f} GB free"
    if disk["free_bytes"] < DISK_BYTES:
        return Finding("warning", subject, line, f"{DISK_BYTES / GB:g} GB", way_out)
    return Finding("ok", subject, line)


def _room(ranks):
    for numbers in place.by_node(ranks).values():
        facts = [ranks[rank] for rank in numbers]
        host, num = facts[0]["host"], len(numbers)
        yield _memory(host, num, min(rank["memory_bytes"] for rank in facts))
        swapped = max(rank["swap_bytes"] for rank in facts)
        if swapped > GB:
            yield Finding("note", "memory", f"{host}: {swapped / GB:.1f} GB are swapped out", "no swap in use",
                          "other programs fill this node; rounds may stall")
        yield _temporary(host, facts[0]["temporary"])
        if num > 1:
            yield _shared_memory(host, facts[0]["shm"])


def _memory(host, num, left):
    line = f"{host}: {left / GB:.1f} GB left for {num} rank(s) that have loaded torch"
    needed = LEFT_BYTES * num
    if left >= needed:
        return _good("memory", line)
    return Finding("warning", "memory", line, f"{needed / GB:.1f} GB",
                   "fewer ranks a node, or ask for more (--mem)")


def _temporary(host, disk):
    way_out = "set TMPDIR to a folder of the node's own: ranks map the data from a file there"
    if not disk["path"]:
        return Finding("error", "temporary", f"{host}: no folder takes temporary files", "one", way_out)
    path = f"{host}: {disk['path']}"
    if disk["type"] in SHARED:
        return Finding("warning", "temporary", f"{path} lies on {disk['type']}, between nodes",
                       "a disk of the node's own", way_out)
    return _disk("temporary", disk | {"path": path}, way_out)


def _shared_memory(host, shm):
    line = f"{host}: /dev/shm has {shm['free_bytes'] / GB:.2g} GB free"
    if shm["free_bytes"] >= SHM_BYTES:
        return _good("shared memory", line)
    return Finding("warning", "shared memory", line,
                   f"{SHM_BYTES / GB:g} GB: MPI's messages inside a node pass through it",
                   "in a container start it with --ipc=host or --shm-size=1g, else free it")


def _limits(ranks):
    text, _ = _unequal(ranks, lambda facts: _limits_text(facts["limits"]))
    low = [rank for rank, facts in ranks.items() if _is_low(facts["limits"])]
    if not low:
        yield _good("limits", text)
        return
    yield Finding("warning", "limits", f"{text}, {_who(low)}", f"{FILES} open files and 1 MiB of stack at least",
                  "ulimit -n 4096 -s 8192 before the start")


def _is_low(limits):
    """Whether a process may have too few open files or too little stack; -1 means unlimited."""
    return 0 <= limits["open_files"] < FILES or 0 <= limits["stack_bytes"] < STACK_BYTES


def _limits_text(limits):
    files = limits["open_files"]
    if files < 0:
        files = "unlimited"
    core, stack, locked = (_size_text(limits[name]) for name in ("core_bytes", "stack_bytes", "locked_bytes"))
    return f"open files {files}, core {core}, stack {stack}, locked {locked}"


def _size_text(value):
    if value < 0:
        return "unlimited"
    return f"{value >> 20} MiB"


def text(findings, width=None):
    """The table, at most ``width`` wide: problems first, each with the expected value and the way
    out, then all that is well."""
    rows, space = [], max(len(finding.subject) for finding in findings)
    for finding in findings:
        rows.append((f"{finding.severity:<8} {finding.subject:<{space}}", finding.got))
        if finding.expected:
            rows.append(("", f"expected: {finding.expected}; way out: {finding.way_out}"))
    lines = labelled(rows, width)
    return "\n".join(lines) + f"\n\n{verdict(findings)}"


def verdict(findings):
    """The number of findings of each severity, in a line."""
    parts = []
    for severity in ("error", "warning", "note"):
        num = sum(finding.severity == severity for finding in findings)
        if num:
            plural = "s" if num > 1 else ""
            parts.append(f"{num} {severity}{plural}")
    return f"{', '.join(parts) or 'nothing to complain of'}; exit code {exit_code(findings)}"


def as_json(facts, findings):
    """All of it as JSON takes it."""
    return {"exit_code": exit_code(findings), "findings": [finding._asdict() for finding in findings], **facts}
