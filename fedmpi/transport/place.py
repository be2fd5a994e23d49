"""Where a rank runs: its cores and its GPU, from what it sees; and the map of all ranks, for people and for the run
file.

Every rank has one thread and binds itself to no core. Where the launcher bound it (``mpirun -bind-to core``, ``srun
--cpu-bind=cores``) that holds; where it did not, the kernel chooses: more ranks than cores are a usual case here, and
a pinned rank waits for its core while another lies idle. Whether binding pays where every rank has a core was measured
without a clear answer; there is no option for it, as each launcher has one, which knows caches and sockets.

A GPU is chosen by the number of the rank among the workers of its node, and rank 0, the server, takes the last one,
which is never the fullest. A rank that sees one GPU, as Slurm may bind it, takes that.
"""

import os
import socket
import subprocess
from collections import defaultdict

SERVER = -1                   # the number of rank 0 among the workers of its node: before the first, hence the last GPU
SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")


def mine(local, gpus=True):
    """What rank number ``local`` of its node's workers has, as JSON takes it: ``host``, ``cores`` (those it may run
    on), ``quota`` (cores that its cgroup allows, None: all), ``memory_bytes`` (still free for it), ``threads``,
    ``granted`` (GPUs as Slurm names them), ``looked`` (whether it looked for any), ``gpus`` (those it sees) and
    ``gpu``, its index.

    Sets CUDA_VISIBLE_DEVICES where it lists several slices of a GPU (MIG): a process can use one, hence its own."""
    import torch
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = narrowed(visible, local)
    seen = visible_gpus(torch.cuda) if gpus else []
    if seen and (local in (SERVER, 0) or len(seen) == 1):               # one rank a GPU or a node asks
        free = free_bytes(_nvidia_smi())
        seen = [gpu | {"free_bytes": free.get(gpu["uuid"])} for gpu in seen]
    return {"host": socket.gethostname(), "local": local, "cores": sorted(os.sched_getaffinity(0)), "quota": quota(),
            "memory_bytes": memory_bytes(), "threads": torch.get_num_threads(), "gpus": seen,
            "granted": next((os.environ[name] for name in SLURM_GPUS if name in os.environ), ""),
            "looked": gpus, "gpu": gpu_index(local, len(seen))}


def gpu_index(local, count):
    """Which of ``count`` visible GPUs rank number ``local`` of its node's workers takes; None where there is none."""
    return local % count if count else None


def narrowed(visible, local):
    """CUDA_VISIBLE_DEVICES for rank number ``local``: of several slices (MIG) one, else as it was."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names[local % len(names)] if len(names) > 1 and names[0].startswith("MIG-") else visible


def visible_gpus(cuda):
    """``[{name, uuid, total_bytes, free_bytes}]`` of what ``cuda`` (torch.cuda) sees, without a context on any."""
    if not cuda.is_available():
        return []
    found = [cuda.get_device_properties(index) for index in range(cuda.device_count())]
    return [{"name": gpu.name, "uuid": str(getattr(gpu, "uuid", "")).removeprefix("GPU-"),
             "total_bytes": gpu.total_memory, "free_bytes": None} for gpu in found]


def _nvidia_smi():
    """What the driver's own tool says of memory; empty where it cannot be asked. Torch would need a context for it."""
    try:
        return subprocess.run(["nvidia-smi", "--query-gpu=uuid,memory.free,mig.mode.current",
                               "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def free_bytes(text):
    """``{uuid: bytes}`` of ``nvidia-smi``'s lines; GPUs cut into slices, whose parts it does not tell, are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return {row[0].removeprefix("GPU-"): int(row[1]) << 20 for row in rows
            if len(row) == 3 and row[1].isdecimal() and row[2] != "Enabled"}


def _cgroups(controller, root):
    """Folders of this process's cgroup and of those above it, of version 1 (by ``controller``) and of version 2."""
    try:
        with open(f"{root}/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return
    for _, names, path in lines:
        if names == "" or controller in names.split(","):
            base = f"{root}/sys/fs/cgroup/{controller if names else ''}".rstrip("/")
            parts = [part for part in path.split("/") if part]
            yield from ("/".join([base, *parts[:stop]]) for stop in range(len(parts), -1, -1))


def _number(path):
    """The number that a file holds; None where it holds none, or is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdecimal() else None


def quota(root=""):
    """Cores that the cgroup lets this process use, a float; None where it sets no bound."""
    found = []
    for folder in _cgroups("cpu", root):
        allowed, period = _number(f"{folder}/cpu.cfs_quota_us"), _number(f"{folder}/cpu.cfs_period_us")
        try:
            with open(f"{folder}/cpu.max", encoding="utf-8") as file:
                allowed, period = (int(text) if text.isdecimal() else None for text in file.read().split())
        except OSError:
            pass
        if allowed and period and allowed > 0:
            found.append(allowed / period)
    return min(found, default=None)


def memory_bytes(root=""):
    """Bytes that this process can still get: what the node has available, or what its cgroup has left."""
    found = [_meminfo(root).get("MemAvailable", 0)]
    for folder in _cgroups("memory", root):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, used = _number(f"{folder}/{limit}"), _number(f"{folder}/{used}")
            if limit and used is not None and limit < 1 << 60:           # version 1 writes no limit as a huge one
                found.append(limit - used + _reclaimable(folder))
    return max(0, min(found))


def swap_bytes():
    """Bytes of swap in use on this node."""
    found = _meminfo()
    return found.get("SwapTotal", 0) - found.get("SwapFree", 0)


def _meminfo(root=""):
    """``{name: bytes}`` of /proc/meminfo."""
    with open(f"{root}/proc/meminfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return {row[0].rstrip(":"): int(row[1]) * (1024 if row[-1] == "kB" else 1) for row in rows}


def _reclaimable(folder):
    """Bytes of files that a cgroup's memory holds and would give up."""
    try:
        with open(f"{folder}/memory.stat", encoding="utf-8") as file:
            rows = dict(line.split() for line in file)
    except OSError:
        return 0
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))


def ranges(numbers):
    """``0-3,8`` of sorted numbers."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def by_node(places):
    """``{node: [rank]}`` of ``places``, a dict of places by rank; a node is named by its first rank."""
    found = defaultdict(list)
    for rank in sorted(places):
        found[places[rank].get("node", 0)].append(rank)
    return dict(found)


def by_gpu(places, ranks):
    """``{name: [rank]}`` of the GPUs that ``ranks`` of one node use: by index, or by the first digits of the UUID where
    ranks see different ones under the same index."""
    used = [(rank, places[rank]["gpu"], places[rank]["gpus"][places[rank]["gpu"]]) for rank in ranks
            if places[rank]["gpu"] is not None]
    found, known = defaultdict(list), defaultdict(set)
    for _, index, gpu in used:
        known[index].add(gpu["uuid"])
    unlike = any(len(uuids) > 1 for uuids in known.values())
    for rank, index, gpu in used:
        found[gpu["uuid"][:8] if unlike else str(index)].append(rank)
    return dict(found)


def lines(places):
    """The map of ``places``: a line a node, and one a GPU in use."""
    for ranks in by_node(places).values():
        host, gpus = places[ranks[0]]["host"], by_gpu(places, ranks)
        told = f"rank{'s' * (len(ranks) > 1)} {ranges(ranks)}"
        yield f"{host}: {told}, {_cores(places, ranks)}{'' if gpus else ', no GPU'}"
        for name, users in gpus.items():
            gpu = gpu_of(places[users[0]])
            yield (f"  gpu {name} ({gpu['name']}, {gpu['total_bytes'] / 2 ** 30:.0f} GiB): ranks "
                   f"{' '.join(map(str, users))}")


def free_of(places, ranks):
    """``{uuid: bytes}`` free on the GPUs of one node, as far as any of its ``ranks`` has asked: one asks for all."""
    return {gpu["uuid"]: gpu["free_bytes"] for rank in ranks for gpu in places[rank]["gpus"]
            if gpu["free_bytes"] is not None}


def gpu_of(place):
    """What is known of the GPU that the rank at ``place`` uses."""
    return place["gpus"][place["gpu"]]


def _cores(places, ranks):
    """Of one node: how many cores its ranks have, and whether they share them."""
    sets = [set(places[rank]["cores"]) for rank in ranks]
    union, each = set().union(*sets), min(map(len, sets))
    quota = places[ranks[0]]["quota"]
    told = f"{len(union)} core{'s' * (len(union) > 1)}"
    if sum(map(len, sets)) == len(union) and len(ranks) > 1:
        told += f", {each} a rank"
    elif len(ranks) > 1:
        told += f" shared by {len(ranks)} ranks"
    return told + (f" (its cgroup allows {quota:g})" if quota is not None and quota < len(union) else "")


def warnings(places):
    """What is unlike what a user will have meant, a line each."""
    for ranks in by_node(places).values():
        first = places[ranks[0]]
        union = set().union(*(places[rank]["cores"] for rank in ranks))
        crowd = defaultdict(list)
        for rank in ranks:
            crowd[tuple(places[rank]["cores"])].append(rank)
        for cores, same in crowd.items():
            if len(crowd) > 1 and len(same) > len(cores):
                yield (f"{first['host']}: ranks {ranges(same)} are bound to {len(cores)} core{'s' * (len(cores) > 1)} "
                       f"({ranges(cores)}), though the node's ranks have {len(union)}: see -bind-to of mpirun, "
                       "--cpu-bind of srun")
        eager = [rank for rank in ranks if places[rank]["threads"] > len(places[rank]["cores"])]
        if eager:
            yield (f"{first['host']}: ranks {ranges(eager)} have {places[eager[0]]['threads']} threads on "
                   f"{len(places[eager[0]]['cores'])} core(s): set OMP_NUM_THREADS=1")
    if blind := [rank for rank, place in places.items() if place["granted"] and place.get("looked")
                 and not place["gpus"]]:
        yield (f"Slurm granted GPUs ({places[blind[0]]['granted']}), but torch sees none on ranks {ranges(blind)}: "
               "check CUDA_VISIBLE_DEVICES, and that torch is built for CUDA")


def recorded(places):
    """The places for the run file: a small dict a rank."""
    return [{"rank": rank, "host": place["host"], "cores": ranges(place["cores"])}
            | ({} if place["gpu"] is None else {"gpu": place["gpu"], "gpu_name": gpu_of(place)["name"],
                                                "gpu_uuid": gpu_of(place)["uuid"]})
            for rank, place in sorted(places.items())]
