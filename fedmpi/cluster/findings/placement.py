"""Findings about the places of ranks: cores and GPUs."""

from fedmpi.cluster.findings.finding import GB, Finding, good, named
from fedmpi.core.words import plural
from fedmpi.transport import place


def places(ranks):
    """Findings about the ranks of each node, and their cores."""
    for line in place.lines(ranks):
        # Indented lines go into details.
        if not line.startswith(" "):
            yield good("ranks", line)
    for line in place.warnings(ranks):
        yield Finding(
            "warning", "ranks", line,
            expected="a core a rank, or all for all",
            way_out="as it says")
    for numbers in place.by_node(ranks).values():
        yield from _cores(ranks, numbers)


def num_cores(ranks, numbers):
    """Cores of all the ranks ``numbers`` of a node together."""
    cores = set()
    for rank in numbers:
        cores.update(ranks[rank]["cores"])
    return len(cores)


def _cores(ranks, numbers):
    """Findings about the ranks ``numbers`` of one node."""
    first = ranks[numbers[0]]
    host, quota = first["host"], first["quota"]
    num_ranks = len(numbers)
    cores = num_cores(ranks, numbers)
    # A cgroup may allow less time than there are cores; None if it does not say.
    allowed = min(cores, quota or cores)
    if allowed < min(cores, num_ranks):
        yield Finding(
            "warning", "cores",
            f"{host}: its cgroup allows {quota:g} of {cores} cores to {plural(num_ranks, 'rank')}",
            expected="as many as ranks",
            way_out="ask for more (--cpus-per-task, --ntasks), or start fewer ranks")
    if num_ranks > cores:
        yield Finding(
            "note", "cores", f"{host}: {plural(num_ranks, 'rank')} on {plural(cores, 'core')}",
            expected="a core a rank is fastest",
            way_out="this works; for speed start fewer ranks, or ask for more cores")


def gpus(ranks):
    """Findings about each GPU, and about ranks blind to theirs."""
    blind = {}
    any_gpu = False
    for rank, facts in ranks.items():
        if facts["gpus"]:
            any_gpu = True
        elif facts["driver"]:
            blind[rank] = facts
    if blind:
        yield _blind(blind)
    for numbers in place.by_node(ranks).values():
        free_of = place.free_of(ranks, numbers)
        for name, users in place.by_gpu(ranks, numbers).items():
            yield _gpu(ranks, name, users, free_of)
    if not blind and not any_gpu:
        yield good("GPU", "none")


def _blind(ranks):
    """About ``ranks`` with a driver, but without a GPU for torch."""
    first = next(iter(ranks.values()))
    built_for = first["torch"]["cuda"] or "none"
    driver, visible = first["driver"], first["visible"]
    return Finding(
        "warning", "GPU",
        f"{named(ranks)}: {driver}, but torch (CUDA {built_for}) sees none; "
        f"CUDA_VISIBLE_DEVICES={visible}",
        expected="torch sees the GPUs",
        way_out="install a torch built for a CUDA that the driver knows, "
                "or check CUDA_VISIBLE_DEVICES; else --device cpu")


def _gpu(ranks, name, users, free_of):
    """About one GPU with its ranks ``users``.

    ``free_of`` are the free bytes by uuid, as far as known.
    """
    first = ranks[users[0]]
    gpu = place.gpu_of(first)
    size = f"{gpu['total_bytes'] / GB:.0f} GB"
    uuid = gpu["uuid"]
    if uuid in free_of:
        size = f"{free_of[uuid] / GB:.0f} GB free of {size}"
    line = f"{first['host']}: gpu {name}, {gpu['name']}, {size}: {named(users)}"
    if len(users) == 1:
        return good("GPU", line)
    turns = "ranks on one GPU take turns"
    if not first["mps"]:
        turns += " unless MPS runs"
    return Finding(
        "note", "GPU", line,
        expected=turns,
        way_out="this works; start nvidia-cuda-mps-control, or fewer ranks, where it is slow")
