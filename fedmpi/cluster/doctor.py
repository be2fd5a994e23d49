"""What measured facts mean: findings, each with what is expected and a way out. Pure;
``fedmpi.cluster.examine`` measures.

Exit codes: 0 where nothing is worse than a note, 1 where there are warnings, 2 where there are errors.
"""

import os
import statistics
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
    """One line of the table; ``expected`` and ``way_out`` are empty where all is well."""

    severity: str
    subject: str
    got: str
    expected: str = ""
    way_out: str = ""


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
    """The type of the file system that ``path`` lies on; ``mounts`` is the text of /proc/self/mountinfo."""
    best, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _around(around, mislaunched):
    """Findings about what this process did not choose."""
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
    """Findings about letters: those that come out, and those in the names of files."""
    utf8 = "LC_ALL=C.UTF-8 before the start"
    said = around["locale"] or "no locale is set"
    if not around["locale_known"]:
        yield Finding("note", "locale", f"{said}, which this machine does not have", "one of locale -a", utf8)
    if not _is_utf8(around["names"]):
        yield Finding("warning", "locale", f"{said}: names of files are read as {around['names']}",
                      "UTF-8, else names with other letters may not be found", f"{utf8}, or PYTHONUTF8=1")
    if _is_utf8(around["output"]):
        yield Finding("ok", "locale", f"{said}; what comes out is UTF-8")
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
    found = {}
    for rank, facts in ranks.items():
        found.setdefault(value(facts), []).append(rank)
    return found


def _who(numbers):
    return f"rank{'s' * (len(numbers) > 1)} {place.ranges(sorted(numbers))}"


def _unequal(ranks, value):
    """``a on ranks 0-3, b on rank 4``, and whether that is one value only."""
    groups = _groups(ranks, value)
    if len(groups) == 1:
        return str(next(iter(groups))), True
    return "; ".join(f"{each} on {_who(numbers)}" for each, numbers in groups.items()), False


def _mpi(ranks, mpirun):
    first = ranks[0]["mpi"]
    if "error" in first:
        yield Finding("warning", "MPI", first["error"], "an MPI that mpi4py can load; one process works without",
                      "load the cluster's MPI module, or pip install 'fedmpi[mpi]'; on a login node, ask inside a job")
    else:
        text, same = _unequal(ranks, lambda facts: facts["mpi"]["library"])
        if same:
            aware = {True: "yes", False: "no", None: "it does not say"}[first["cuda_aware"]]
            yield Finding("ok", "MPI", f"{text}, MPI {first['standard']}, mpi4py {first['mpi4py']} "
                          f"({first['binary']}), threads {first['threads']}, CUDA-aware: {aware} (not used: messages "
                          "are coded on the host)")
        else:
            yield Finding("error", "MPI", text, "one MPI library on all ranks", "load the same modules on all nodes")
    yield from _launcher(ranks, mpirun, first)


def _launcher(ranks, mpirun, library):
    text, _ = _unequal(ranks, lambda facts: facts["launcher"])
    known = "error" not in library
    foreign = known and _is_open_mpi(mpirun["text"]) != _is_open_mpi(library["library"])
    if not mpirun["path"] and text == "none":
        yield Finding("note", "launcher", "no mpirun in PATH", "one, for more than one rank",
                      "load the cluster's MPI module, or start by srun")
    elif mpirun["path"] and foreign and text != "srun":
        yield Finding("warning", "launcher", f"{_whose(mpirun['path'], mpirun['text'])}, "
                      f"mpi4py loads {library['library']}", "both of one MPI", "put that MPI's bin first in PATH")
    else:
        yield Finding("ok", "launcher", f"started by {text}; mpirun is {mpirun['path'] or 'missing'}")
        yield from _typed_launcher(mpirun, library, known)


def _typed_launcher(mpirun, library, known):
    """What PATH has is not what fedmpi starts, and starts no rank of the MPI that mpi4py loads."""
    typed, text = mpirun["typed"], mpirun["typed_text"]
    if typed and known and _is_open_mpi(text) != _is_open_mpi(library["library"]):
        yield Finding("note", "launcher", f"{_whose(typed, text)} and comes first in PATH, mpi4py loads "
                      f"{library['library']}", f"to start by {mpirun['path']}, as fedmpi itself does",
                      f"put {os.path.dirname(mpirun['path'])} first in PATH, or type that path")


def _whose(path, text):
    return f"{path} is of {'Open MPI' if _is_open_mpi(text) else 'another MPI'}"


def _is_open_mpi(text):
    return "Open MPI" in text or "OpenRTE" in text


def _places(ranks):
    for line in place.lines(ranks):
        if not line.startswith(" "):
            yield Finding("ok", "ranks", line)
    for line in place.warnings(ranks):
        yield Finding("warning", "ranks", line, "a core a rank, or all for all", "as it says")
    for numbers in place.by_node(ranks).values():
        first = ranks[numbers[0]]
        cores = len(set().union(*(ranks[rank]["cores"] for rank in numbers)))
        allowed = min(cores, first["quota"] or cores)
        if allowed < min(cores, len(numbers)):
            yield Finding("warning", "cores", f"{first['host']}: its cgroup allows {first['quota']:g} of {cores} cores "
                          f"to {len(numbers)} rank(s)", "as many as ranks",
                          "ask for more (--cpus-per-task, --ntasks), or start fewer ranks")
        if len(numbers) > cores:
            yield Finding("note", "cores", f"{first['host']}: {len(numbers)} ranks on {cores} core{'s' * (cores > 1)}",
                          "a core a rank is fastest", "this works; for speed start fewer ranks, or ask for more cores")


def _gpus(ranks):
    blind = {rank: facts for rank, facts in ranks.items() if facts["driver"] and not facts["gpus"]}
    if blind:
        first = next(iter(blind.values()))
        yield Finding("warning", "GPU", f"{_who(blind)}: {first['driver']}, but torch (CUDA "
                      f"{first['torch']['cuda'] or 'none'}) sees none; CUDA_VISIBLE_DEVICES={first['visible']}",
                      "torch sees the GPUs",
                      "install a torch built for a CUDA that the driver knows, or check CUDA_VISIBLE_DEVICES; else "
                      "--device cpu")
    for numbers in place.by_node(ranks).values():
        known = place.free_of(ranks, numbers)
        for name, users in place.by_gpu(ranks, numbers).items():
            gpu = place.gpu_of(ranks[users[0]])
            free = f"{known[gpu['uuid']] / GB:.0f} GB free of " if gpu["uuid"] in known else ""
            line = (f"{ranks[users[0]]['host']}: gpu {name}, {gpu['name']}, {free}{gpu['total_bytes'] / GB:.0f} GB: "
                    f"{_who(users)}")
            if len(users) > 1:
                yield Finding("note", "GPU", line,
                              "ranks on one GPU take turns" + " unless MPS runs" * (not ranks[users[0]]["mps"]),
                              "this works; start nvidia-cuda-mps-control, or fewer ranks, where it is slow")
            else:
                yield Finding("ok", "GPU", line)
    if not blind and not any(facts["gpus"] for facts in ranks.values()):
        yield Finding("ok", "GPU", "none")


def _torch(ranks):
    def built(facts):
        parts = [name for name, there in (("MKL", facts["torch"]["mkl"]),
                                          ("oneDNN", facts["torch"]["onednn"])) if there]
        return (f"{facts['versions']['torch']}, CUDA {facts['torch']['cuda'] or 'none'}, "
                f"{' and '.join(parts) or 'no MKL'}, {facts['torch']['vectors']}, {facts['threads']} thread(s) a rank")

    text, same = _unequal(ranks, built)
    yield Finding("ok", "torch", text) if same else Finding(
        "warning", "torch", text, "one build on processors of one kind, for the same bits in every run",
        "ask for nodes of one kind; which rank trains which client may differ from run to run")


def _versions(ranks):
    for name in ranks[0]["versions"]:
        text, same = _unequal(ranks, lambda facts: facts["versions"][name])
        if not same:
            yield Finding("error", "versions", f"{name} {text}", "the same on all ranks",
                          "activate one environment on all nodes")
    if len({tuple(facts["versions"].items()) for facts in ranks.values()}) == 1:
        yield Finding("ok", "versions", ", ".join(f"{name} {each}" for name, each in ranks[0]["versions"].items())
                      + (", on all ranks" if len(ranks) > 1 else ""))


def _speed(ranks, probe):
    if probe is None:
        return
    pairs, alone = probe["pairs"], all(len(set().union(*(ranks[rank]["cores"] for rank in numbers))) >= len(numbers)
                                       for numbers in place.by_node(ranks).values())
    trips = [pair["round_trip_s"] for pair in pairs.values()]
    worst = max(pairs, key=lambda rank: pairs[rank]["round_trip_s"])
    bare = statistics.median(pair["bare_round_trip_s"] for pair in pairs.values())
    line = (f"8 bytes to a worker and back: median {statistics.median(trips) * 1e6:.0f} us, worst "
            f"{max(trips) * 1e6:.0f} us (rank {worst}); MPI alone {bare * 1e6:.0f} us, "
            f"{statistics.median(trips) / bare:.2g} times faster, and never asleep")
    yield Finding("ok", "latency", line) if max(trips) < ROUND_TRIP_S else Finding(
        "warning", "latency", line, f"at most {ROUND_TRIP_S * 1e3:.0f} ms",
        "fewer ranks a core, or a faster network: see UCX_TLS, FI_PROVIDER")
    for size in sorted({int(size) for pair in pairs.values() for size in pair["rates"]}):
        yield _rate(pairs, size, alone)
    whole = probe["broadcast"]
    yield Finding("ok", "broadcast", f"{whole['bytes'] / 2 ** 20:.0f} MiB to {len(ranks) - 1} worker(s): "
                  f"{whole['seconds'] * 1e3:.1f} ms; MPI alone {whole['bare_seconds'] * 1e3:.1f} ms, "
                  f"{whole['seconds'] / whole['bare_seconds']:.2g} times")
    busy = {rank: share for rank, share in probe["waiting"].items() if share > WAITING}
    line = f"a rank that waits burns {max(probe['waiting'].values()):.1%} of a core, at most"
    yield Finding("ok", "waiting", line) if not busy else Finding(
        "warning", "waiting", f"{line} ({_who(busy)})", f"at most {WAITING:.0%}",
        "another program may burn it; is a thread of MPI's own spinning (UCX, MPICH_ASYNC_PROGRESS)?")
    yield from _clocks(ranks, pairs)


def _rate(pairs, size, alone):
    """Of messages of ``size`` bytes; ``alone`` where ranks have cores of their own, else the comparison says
    nothing."""
    of = {rank: pair for rank, pair in pairs.items() if size in map(int, pair["rates"])}
    rates = {rank: _at(pair["rates"], size) for rank, pair in of.items()}
    shares = {rank: rates[rank] / _at(pair["bare_rates"], size) for rank, pair in of.items()}
    slow = min(rates, key=rates.get)
    line = (f"{size >> 20} MiB between rank 0 and a worker: median {statistics.median(rates.values()) / GB:.2g} GB/s, "
            f"least {rates[slow] / GB:.2g} GB/s (rank {slow}); {statistics.median(shares.values()):.2g} of MPI alone")
    if rates[slow] < RATE:
        return Finding("warning", "bandwidth", line, f"{RATE / GB:g} GB/s",
                       "is this the fast network? see UCX_NET_DEVICES, FI_PROVIDER")
    if alone and statistics.median(shares.values()) < AGAINST_BARE:
        return Finding("note", "bandwidth", line, f"{AGAINST_BARE:g} of MPI alone",
                       "a busy node shows less; repeat it on a quiet one")
    return Finding("ok", "bandwidth", line)


def _at(rates, size):
    return rates[size] if size in rates else rates[str(size)]


def _clocks(ranks, pairs):
    far = {rank: pair["clock_s"]
           for rank, pair in pairs.items() if abs(pair["clock_s"]) > CLOCK_S + pair["clock_error_s"]}
    if far:
        rank = max(far, key=lambda rank: abs(far[rank]))
        yield Finding("warning", "clocks", f"{ranks[rank]['host']} is {far[rank]:+.1f} s off rank 0's clock",
                      f"{CLOCK_S:g} s at most", "tell the administrators: chrony or ntp does not run there")
    else:
        yield Finding("ok", "clocks",
                      f"within {max(abs(pair['clock_s']) for pair in pairs.values()):.1g} s of rank 0's")


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
    line = (f"{where}: HDF5 writes, appends, reopens{'' if locks else ', locks'}; 1 MiB on the disk in "
            f"{folder['sync_s']:.2g} s")
    yield Finding("ok", "run files", line) if folder["sync_s"] <= SYNC_S else Finding(
        "note", "run files", line, f"{SYNC_S:g} s", "each checkpoint waits for the disk: raise --save-every, "
        "or take a faster folder and copy the run at the end")
    yield _disk("run files", folder, "give another --out, or make room")


def _disk(subject, disk, way_out):
    line = f"{disk['path']} ({disk['type'] or 'unknown'}): {disk['free_bytes'] / GB:.1f} GB free"
    if disk["free_bytes"] < DISK_BYTES:
        return Finding("warning", subject, line, f"{DISK_BYTES / GB:g} GB", way_out)
    return Finding("ok", subject, line)


def _room(ranks):
    for numbers in place.by_node(ranks).values():
        facts = [ranks[rank] for rank in numbers]
        host, left = facts[0]["host"], min(each["memory_bytes"] for each in facts)
        line = f"{host}: {left / GB:.1f} GB left for {len(numbers)} rank(s) that have loaded torch"
        yield Finding("ok", "memory", line) if left >= LEFT_BYTES * len(numbers) else Finding(
            "warning", "memory", line, f"{LEFT_BYTES * len(numbers) / GB:.1f} GB",
            "fewer ranks a node, or ask for more (--mem)")
        if max(each["swap_bytes"] for each in facts) > GB:
            swapped = max(each["swap_bytes"] for each in facts) / GB
            yield Finding("note", "memory", f"{host}: {swapped:.1f} GB are swapped out", "no swap in use",
                          "other programs fill this node; rounds may stall")
        yield from _shared_room(host, facts[0], len(numbers))


def _shared_room(host, facts, count):
    disk, shm = facts["temporary"], facts["shm"]
    way_out = "set TMPDIR to a folder of the node's own: ranks map the data from a file there"
    if not disk["path"]:
        yield Finding("error", "temporary", f"{host}: no folder takes temporary files", "one", way_out)
    elif disk["type"] in SHARED:
        yield Finding("warning", "temporary", f"{host}: {disk['path']} lies on {disk['type']}, between nodes",
                      "a disk of the node's own", way_out)
    else:
        yield _disk("temporary", disk | {"path": f"{host}: {disk['path']}"}, way_out)
    if count > 1:
        line = f"{host}: /dev/shm has {shm['free_bytes'] / GB:.2g} GB free"
        yield Finding("ok", "shared memory", line) if shm["free_bytes"] >= SHM_BYTES else Finding(
            "warning", "shared memory", line, f"{SHM_BYTES / GB:g} GB: MPI's messages inside a node pass through it",
            "in a container start it with --ipc=host or --shm-size=1g, else free it")


def _limits(ranks):
    def told(limits):
        def size(value):
            return "unlimited" if value < 0 else f"{value >> 20} MiB"

        files = "unlimited" if limits["open_files"] < 0 else limits["open_files"]
        return (f"open files {files}, core {size(limits['core_bytes'])}, stack {size(limits['stack_bytes'])}, "
                f"locked {size(limits['locked_bytes'])}")

    text, _ = _unequal(ranks, lambda facts: told(facts["limits"]))
    low = [rank for rank, facts in ranks.items() if 0 <= facts["limits"]["open_files"] < FILES
           or 0 <= facts["limits"]["stack_bytes"] < STACK_BYTES]
    yield Finding("warning", "limits", f"{text}, {_who(low)}", f"{FILES} open files and 1 MiB of stack at least",
                  "ulimit -n 4096 -s 8192 before the start") if low else Finding("ok", "limits", text)


def text(findings, width=None):
    """The table, at most ``width`` wide: problems first, each with what is expected and the way out, then what is
    well."""
    rows, space = [], max(len(finding.subject) for finding in findings)
    for finding in findings:
        rows.append((f"{finding.severity:<8} {finding.subject:<{space}}", finding.got))
        if finding.expected:
            rows.append(("", f"expected: {finding.expected}; way out: {finding.way_out}"))
    lines = labelled(rows, width)
    return "\n".join(lines) + f"\n\n{verdict(findings)}"


def verdict(findings):
    """How many of each, in a line."""
    count = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    told = [f"{count[name]} {name}{'s' * (count[name] > 1)}" for name in ("error", "warning", "note") if count[name]]
    return (", ".join(told) or "nothing to complain of") + f"; exit code {exit_code(findings)}"


def as_json(facts, findings):
    """All of it as JSON takes it."""
    return {"exit_code": exit_code(findings), "findings": [finding._asdict() for finding in findings], **facts}
