"""Findings about files and room: the folder of run files, memory, temporary files."""

from fedmpi.cluster.findings.finding import GB, Finding, good
from fedmpi.core.words import plural
from fedmpi.transport import place

# File systems between nodes.
SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "fuse.sshfs", "ceph", "wekafs", "9p")
# Until 1 MiB is on the disk.
SYNC_S = 0.5
# Of memory, for each rank, beside the memory it has taken already.
LEFT_BYTES = 200e6
# Taken from /dev/shm by MPI's messages inside a node, at least.
SHM_BYTES = 64e6
# Free where run files lie, and where the data of a node are shared.
DISK_BYTES = 1e9


def folder(facts):
    """Findings about the folder for run files, by the results of a trial there."""
    kind = facts["type"] or "unknown file system"
    name = f"{facts['path']} ({kind})"
    if facts["write"]:
        yield Finding(
            "error", "run files", f"{name}: HDF5 cannot write there: {facts['write']}",
            expected="a folder to write to",
            way_out="give another --out, or make it writable")
        return
    if facts["rename"]:
        yield Finding(
            "error", "run files", f"{name}: renaming fails: {facts['rename']}",
            expected="a file takes another's place",
            way_out="take a POSIX file system: "
                    "run files and checkpoints are put in place by renaming")
    able = "writes, appends, reopens"
    locks = facts["lock"] or facts["hdf5_lock"]
    if locks:
        yield Finding(
            "warning", "run files", f"{name}: file locking does not work: {locks}",
            expected="flock works",
            way_out="it runs, but nothing keeps two runs from one file; "
                    "on Lustre mount with flock, or take another folder")
    else:
        able += ", locks"
    sync_s = facts["sync_s"]
    yield _sync(sync_s, f"{name}: HDF5 {able}; 1 MiB on the disk in {sync_s:.2g} s")
    yield _disk("run files", facts["path"], facts, "give another --out, or make room")


def _sync(seconds, line):
    if seconds <= SYNC_S:
        return good("run files", line)
    return Finding(
        "note", "run files", line,
        expected=f"{SYNC_S:g} s",
        way_out="each checkpoint waits for the disk: raise --save-every, "
                "or take a faster folder and copy the run at the end")


def _disk(subject, path, disk, way_out):
    kind = disk["type"] or "unknown"
    free_bytes = disk["free_bytes"]
    line = f"{path} ({kind}): {free_bytes / GB:.1f} GB free"
    if free_bytes >= DISK_BYTES:
        return good(subject, line)
    return Finding(
        "warning", subject, line,
        expected=f"{DISK_BYTES / GB:g} GB",
        way_out=way_out)


def room(ranks):
    """Findings about the memory and the temporary files of each node."""
    for numbers in place.by_node(ranks).values():
        on_node = [ranks[rank] for rank in numbers]
        first, num_ranks = on_node[0], len(on_node)
        host = first["host"]
        # A rank in a cgroup of its own may see less than the others.
        left = min(facts["memory_bytes"] for facts in on_node)
        yield _memory(host, num_ranks, left)
        swapped = max(facts["swap_bytes"] for facts in on_node)
        yield from _swap(host, swapped)
        yield _temporary(host, first["temporary"])
        if num_ranks > 1:
            yield _shared_memory(host, first["shm"])


def _memory(host, num_ranks, left):
    line = f"{host}: {left / GB:.1f} GB left for {plural(num_ranks, 'rank')} that have loaded torch"
    needed = LEFT_BYTES * num_ranks
    if left >= needed:
        return good("memory", line)
    return Finding(
        "warning", "memory", line,
        expected=f"{needed / GB:.1f} GB",
        way_out="fewer ranks a node, or ask for more (--mem)")


def _swap(host, swapped):
    # Less than 1 GB is usual on a node that has long been up.
    if swapped > GB:
        yield Finding(
            "note", "memory", f"{host}: {swapped / GB:.1f} GB are swapped out",
            expected="no swap in use",
            way_out="other programs fill this node; rounds may stall")


def _temporary(host, disk):
    way_out = "set TMPDIR to a folder of the node's own: ranks map the data from a file there"
    if not disk["path"]:
        return Finding(
            "error", "temporary", f"{host}: no folder takes temporary files",
            expected="one",
            way_out=way_out)
    path = f"{host}: {disk['path']}"
    if disk["type"] in SHARED:
        return Finding(
            "warning", "temporary", f"{path} lies on {disk['type']}, between nodes",
            expected="a disk of the node's own",
            way_out=way_out)
    return _disk("temporary", path, disk, way_out)


def _shared_memory(host, shm):
    free_bytes = shm["free_bytes"]
    line = f"{host}: /dev/shm has {free_bytes / GB:.2g} GB free"
    if free_bytes >= SHM_BYTES:
        return good("shared memory", line)
    return Finding(
        "warning", "shared memory", line,
        expected=f"{SHM_BYTES / GB:g} GB: MPI's messages inside a node pass through it",
        way_out="in a container start it with --ipc=host or --shm-size=1g, else free it")
