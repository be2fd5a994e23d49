"""The place of a rank: its cores and its GPU; and the map of all ranks, for people and the run file.

Every rank has one thread and binds itself to no core. A launcher's binding holds (``mpirun -bind-to core``, ``srun
--cpu-bind=cores``). Without one, the kernel chooses: more ranks than cores are a usual case here, and a pinned rank
waits for its core while another core lies idle. A measurement of binding with a core for every rank gave no clear
answer. There is no option for it: each launcher has one, and knows caches and sockets.

A GPU is chosen by the rank's number among the workers of its node. Rank 0, the server, takes the last GPU, never the
fullest. A rank seeing a single GPU, as Slurm may bind it, takes this one.
"""

import os
import socket
import subprocess
from collections import defaultdict

from fedmpi.core.words import plural

# The number of rank 0 among the workers of its node: before the first, hence the last GPU.
SERVER = -1
SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=uuid,memory.free,mig.mode.current", "--format=csv,noheader,nounits")
NVIDIA_SMI_S = 20
# Version 1 of cgroups writes no limit of memory as a huge number of bytes.
NO_LIMIT = 1 << 60


def mine(local, gpus=True):
    """The place of rank number ``local`` of its node's workers, for JSON: ``host``, ``cores`` (numbers it may run on),
    ``quota`` (cores allowed by its cgroup, None: all), ``memory_bytes`` (still free for it), ``threads``, ``granted``
    (GPUs as Slurm names them), ``looked`` (whether it looked for any), ``gpus`` (the visible ones) and ``gpu``, its
    index or None.

    Sets CUDA_VISIBLE_DEVICES if it lists several slices of a GPU (MIG): a process can use only one."""
    import torch
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = narrowed(visible, local)
    seen = []
    if gpus:
        seen = _seen_gpus(torch.cuda, local)
    return {
        "host": socket.gethostname(),
        "local": local,
        "cores": sorted(os.sched_getaffinity(0)),
        "quota": quota(),
        "memory_bytes": memory_bytes(),
        "threads": torch.get_num_threads(),
        "gpus": seen,
        "granted": _granted(),
        "looked": gpus,
        "gpu": gpu_index(local, len(seen)),
    }


def _seen_gpus(cuda, local):
    """``visible_gpus``, with their free bytes if this rank has to ask for them."""
    seen = visible_gpus(cuda)
    # One rank a GPU or a node asks.
    asks = local in (SERVER, 0) or len(seen) == 1
    if seen and asks:
        free = free_bytes(_nvidia_smi())
        seen = [gpu | {"free_bytes": free.get(gpu["uuid"])} for gpu in seen]
    return seen


def _granted():
    """The GPUs granted by Slurm, in its own words; "" without Slurm."""
    for name in SLURM_GPUS:
        if name in os.environ:
            return os.environ[name]
    return ""


def gpu_index(local, count):
    """The GPU of rank number ``local`` of its node's workers, out of ``count`` visible ones; None without any."""
    if not count:
        return None
    return local % count


def narrowed(visible, local):
    """CUDA_VISIBLE_DEVICES for rank number ``local``: one of several slices (MIG), else unchanged."""
    names = []
    for text in visible.split(","):
        name = text.strip()
        if name:
            names.append(name)
    num_names = len(names)
    if num_names > 1 and names[0].startswith("MIG-"):
        return names[local % num_names]
    return visible


def visible_gpus(cuda):
    """``[{name, uuid, total_bytes, free_bytes}]`` of the GPUs seen by ``cuda`` (torch.cuda), without a context on
    any."""
    if not cuda.is_available():
        return []
    gpus = []
    for index in range(cuda.device_count()):
        properties = cuda.get_device_properties(index)
        uuid = str(getattr(properties, "uuid", "")).removeprefix("GPU-")
        gpus.append({"name": properties.name, "uuid": uuid, "total_bytes": properties.total_memory,
                     "free_bytes": None})
    return gpus


def _nvidia_smi():
    """The driver's own table of free memory; "" if its tool is missing."""
    # Torch would need a context for it.
    try:
        done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def free_bytes(text):
    """``{uuid: bytes}`` of ``nvidia-smi``'s lines, without GPUs cut into slices: it does not tell their parts."""
    free = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 3:
            continue
        uuid, mebibytes, slices = cells
        if mebibytes.isdecimal() and slices != "Enabled":
            free[uuid.removeprefix("GPU-")] = int(mebibytes) << 20
    return free


def _cgroups(controller, root):
    """Folders of this process's cgroup and of all above it, of version 1 (by ``controller``) and of version 2."""
    try:
        with open(f"{root}/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return
    for _, names, path in lines:
        # Version 2 names no controllers.
        if names == "":
            base = f"{root}/sys/fs/cgroup"
        elif controller in names.split(","):
            base = f"{root}/sys/fs/cgroup/{controller}"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for stop in range(len(parts), -1, -1):
            yield "/".join([base, *parts[:stop]])


def _number(path):
    """The number in a file; None if the file is missing or holds no number."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    except OSError:
        return None
    if text.lstrip("-").isdecimal():
        return int(text)
    return None


def quota(root=""):
    """The cores this process may use by its cgroups, a float; None without a bound."""
    quotas = []
    for folder in _cgroups("cpu", root):
        allowed, period = _cpu_limit(folder)
        if allowed and period and allowed > 0:
            quotas.append(allowed / period)
    return min(quotas, default=None)


def _cpu_limit(folder):
    """``(allowed, period)`` of a cgroup, microseconds of CPU and of time; None for no number."""
    try:
        with open(f"{folder}/cpu.max", encoding="utf-8") as file:
            allowed, period = file.read().split()
    # Version 1 has two other files.
    except OSError:
        return _number(f"{folder}/cpu.cfs_quota_us"), _number(f"{folder}/cpu.cfs_period_us")
    return _decimal(allowed), _decimal(period)


def _decimal(text):
    """The number; None for another text, such as ``max``."""
    if text.isdecimal():
        return int(text)
    return None


# The files of versions 2 and 1: a cgroup's limit of memory, and its use.
MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def memory_bytes(root=""):
    """Bytes this process can still get: the node's available ones, or the rest of its cgroup's."""
    bounds = [_meminfo(root).get("MemAvailable", 0)]
    for folder in _cgroups("memory", root):
        for limit_file, used_file in MEMORY_FILES:
            limit = _number(f"{folder}/{limit_file}")
            used = _number(f"{folder}/{used_file}")
            if limit and used is not None and limit < NO_LIMIT:
                bounds.append(limit - used + _reclaimable(folder))
    return max(0, min(bounds))


def swap_bytes():
    """Bytes of swap in use on this node."""
    sizes = _meminfo()
    return sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)


def _meminfo(root=""):
    """``{name: bytes}`` of /proc/meminfo."""
    sizes = {}
    with open(f"{root}/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            name, number, *unit = line.split()
            factor = 1024 if unit == ["kB"] else 1
            sizes[name.rstrip(":")] = int(number) * factor
    return sizes


def _reclaimable(folder):
    """Bytes of files in a cgroup's memory; it would give them up."""
    try:
        with open(f"{folder}/memory.stat", encoding="utf-8") as file:
            rows = dict(line.split() for line in file)
    except OSError:
        return 0
    # Version 1 has both names; the first counts the cgroups below, too.
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))


def ranges(numbers):
    """Sorted numbers as ranges.

    >>> ranges([0, 1, 2, 3, 8])
    '0-3,8'
    """
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = []
    for first, last in runs:
        if first == last:
            texts.append(str(first))
        else:
            texts.append(f"{first}-{last}")
    return ",".join(texts)


def by_node(places):
    """``{node: [rank]}`` of ``places``, a dict of places by rank; a node is named by its first rank."""
    nodes = defaultdict(list)
    for rank in sorted(places):
        nodes[places[rank].get("node", 0)].append(rank)
    return dict(nodes)


def by_gpu(places, ranks):
    """``{name: [rank]}`` of the GPUs used by ``ranks`` of one node.

    The name is the index; if ranks see different GPUs under one index, the first digits of the UUID.
    """
    users = [rank for rank in ranks if places[rank]["gpu"] is not None]
    uuids = defaultdict(set)
    for rank in users:
        index = places[rank]["gpu"]
        uuids[index].add(gpu_of(places[rank])["uuid"])
    ambiguous = any(len(different) > 1 for different in uuids.values())
    gpus = defaultdict(list)
    for rank in users:
        name = str(places[rank]["gpu"])
        if ambiguous:
            name = gpu_of(places[rank])["uuid"][:8]
        gpus[name].append(rank)
    return dict(gpus)


def lines(places):
    """The map of ``places``: a line a node, and one a GPU in use."""
    for ranks in by_node(places).values():
        gpus = by_gpu(places, ranks)
        host = places[ranks[0]]["host"]
        noun = _plural("rank", ranks)
        line = f"{host}: {noun} {ranges(ranks)}, {_cores(places, ranks)}"
        if not gpus:
            line += ", no GPU"
        yield line
        for name, users in gpus.items():
            gpu = gpu_of(places[users[0]])
            total_gib = gpu["total_bytes"] / 2 ** 30
            user_list = " ".join(map(str, users))
            yield f"  gpu {name} ({gpu['name']}, {total_gib:.0f} GiB): ranks {user_list}"


def _plural(noun, items):
    if len(items) > 1:
        return f"{noun}s"
    return noun


def free_of(places, ranks):
    """``{uuid: bytes}`` free on the GPUs of one node, as far as any of its ``ranks`` has asked: one asks for all."""
    free = {}
    for rank in ranks:
        for gpu in places[rank]["gpus"]:
            if gpu["free_bytes"] is not None:
                free[gpu["uuid"]] = gpu["free_bytes"]
    return free


def gpu_of(place):
    """The description of the GPU used by the rank at ``place``."""
    return place["gpus"][place["gpu"]]


def _union_of_cores(places, ranks):
    return set().union(*(places[rank]["cores"] for rank in ranks))


def _cores(places, ranks):
    """The line's part about one node: its ranks' number of cores, and whether they share them."""
    union = _union_of_cores(places, ranks)
    num_cores = len(union)
    num_ranks = len(ranks)
    text = f"{num_cores} {_plural('core', union)}"
    if num_ranks > 1:
        numbers = [len(set(places[rank]["cores"])) for rank in ranks]
        # A core of several ranks is counted once in the union.
        is_shared = sum(numbers) != num_cores
        if is_shared:
            text += f" shared by {num_ranks} ranks"
        else:
            text += f", {min(numbers)} a rank"
    first = places[ranks[0]]
    quota = first["quota"]
    if quota is not None and quota < num_cores:
        text += f" (its cgroup allows {quota:g})"
    return text


def warnings(places):
    """Signs of mistakes of the user's, a line each."""
    for ranks in by_node(places).values():
        yield from _crowded(places, ranks)
        yield from _too_many_threads(places, ranks)
    blind = [rank for rank, place in places.items() if _is_blind(place)]
    if blind:
        yield (f"Slurm granted GPUs ({places[blind[0]]['granted']}), but torch sees none on ranks {ranges(blind)}: "
               "check CUDA_VISIBLE_DEVICES, and that torch is built for CUDA")


def _is_blind(place):
    """Whether a rank sees none of its granted GPUs."""
    return place["granted"] and place.get("looked") and not place["gpus"]


def _crowded(places, ranks):
    """A line for each set of cores of one node with more ranks than cores, while others have their own."""
    bound = defaultdict(list)
    for rank in ranks:
        bound[tuple(places[rank]["cores"])].append(rank)
    if len(bound) == 1:
        return
    host = places[ranks[0]]["host"]
    union = _union_of_cores(places, ranks)
    for cores, same in bound.items():
        num_cores = len(cores)
        if len(same) > num_cores:
            binding = f"{num_cores} {_plural('core', cores)} ({ranges(cores)})"
            yield (f"{host}: ranks {ranges(same)} are bound to {binding}, though the node's ranks "
                   f"have {len(union)}: see -bind-to of mpirun, --cpu-bind of srun")


def _too_many_threads(places, ranks):
    """A line if ranks of one node have more threads than cores."""
    eager = []
    for rank in ranks:
        place = places[rank]
        if place["threads"] > len(place["cores"]):
            eager.append(rank)
    if eager:
        first = places[eager[0]]
        yield (f"{first['host']}: ranks {ranges(eager)} have {first['threads']} threads on "
               f"{plural(len(first['cores']), 'core')}: set OMP_NUM_THREADS=1")


def recorded(places):
    """The places for the run file: a small dict a rank."""
    rows = []
    for rank, place in sorted(places.items()):
        row = {"rank": rank, "host": place["host"], "cores": ranges(place["cores"])}
        if place["gpu"] is not None:
            gpu = gpu_of(place)
            row |= {"gpu": place["gpu"], "gpu_name": gpu["name"], "gpu_uuid": gpu["uuid"]}
        rows.append(row)
    return rows
