"""Lines about a job before it starts: ranks, memory, GPUs, and rounds in the wall time."""

import math
import os
from collections import Counter

from fedmpi.build import footprint
from fedmpi.cluster.sbatch import (DATA_BYTES, WEIGHTS, cohort, gigabytes, node_bytes, on_node,
                                   seconds)
from fedmpi.core.errors import DataError
from fedmpi.core.stop import notice
from fedmpi.core.words import plural
from fedmpi.plugins.spec import split
from fedmpi.transport import place

# Until the first round of a job.
START_S = 60
GB = 1e9


def foretold(job, options, measured=None):
    """Lines about the course of the job, with its rounds if there is a measurement."""
    yield _ranks_text(job, cohort(options), options)
    if job.gpus:
        ranks = f"shared by {on_node(job)} ranks there"
        yield f"{plural(job.gpus, 'GPU')} a node, {ranks}"
    else:
        yield "no GPU"
    yield _memory_text(job, options, measured)
    if job.gpus:
        yield on_gpus(job, options)
    if job.cpus_per_task > 1:
        yield (f"{job.cpus_per_task} CPUs a rank, each of which trains on one thread: "
               "they bring memory or room, not speed")
    yield from _log_warning(job)
    if measured:
        yield fitting(job, options, measured)
    again = f"it queues itself again at most {plural(job.requeues, 'time')}"
    yield f"{job.signal} asks it to stop in time; {again}, and resumes {options['out']}"


def _log_warning(job):
    """A line if Slurm cannot write the log; it would tell nobody."""
    folder = os.path.dirname(job.log or "")
    is_pattern = "%" in folder
    if is_pattern or os.path.isdir(folder or "."):
        return
    yield (f"warning: there is no folder {folder} here for the log, and Slurm makes none: "
           f"mkdir -p {folder} first")


def _num_workers(job, options):
    """Clients at once: a rank each, or several, but for the server; at least one."""
    return max((job.ranks - 1) // options["ranks_per_client"], 1)


def _ranks_text(job, clients, options):
    workers = _num_workers(job, options)
    size = options["ranks_per_client"]
    most = math.ceil(clients / workers)
    ranks = f"{plural(job.ranks, 'rank')} on {plural(job.nodes, 'node')}"
    trained = f"{plural(clients, 'client')} a round, {most} each at most"
    who = plural(workers, "worker")
    if size > 1:
        who = f"{plural(workers, 'group')} of {size} workers"
    work = f"{who} for {trained}"
    text = f"{ranks}; {work}"
    if workers > clients:
        text += f"; {workers - clients} will lie idle"
    return text


def _memory_text(job, options, measured):
    need = node_bytes(job, options, measured)
    rank_need = need / job.ranks * job.nodes
    source = "measured"
    if not measured:
        source = f"estimated{_without(options)}"
    asked = job.memory or gigabytes(need)
    needs = f"{rank_need / GB:.1f} GB a rank and {need / GB:.1f} GB a node"
    return f"about {needs}, {source}; asks for {asked} a node"


def _without(options):
    """The model and the data set unknown to the estimate, in words."""
    unknown = []
    for kind, table in (("model", WEIGHTS), ("dataset", DATA_BYTES)):
        spec = options[kind]
        name, _ = split(spec)
        if name not in table:
            unknown.append(f"--{kind} {spec}")
    if not unknown:
        return ""
    return f" without {' and '.join(unknown)}"


def on_gpus(job, options):
    """The needs of the fullest GPU, by the data and the model themselves.

    Without the data, a line about their lack.
    """
    from fedmpi.build.needs import planned_needs
    try:
        worker, server = planned_needs(options)
    except DataError as error:
        return f"GPU memory: not estimated here, without the data: {error}"
    needs = []
    for workers, has_server in gpu_loads(job, options["server_device"] != "cpu"):
        need = workers * worker.total + has_server * server.total
        needs.append((need, workers, has_server))
    most, workers, has_server = max(needs)
    users = footprint.users(workers, has_server)
    fullest = f"about {most / GB:.2g} GB of the fullest GPU, for {users} on it, estimated"
    return f"{fullest}; a worker takes {footprint.in_words(worker)}"


def gpu_loads(job, server_on_gpu):
    """``[(workers, whether the server is there)]`` of the GPUs of the first node.

    If there are more nodes, also of one without the server. ``server_on_gpu``: whether the server
    takes a GPU at all.
    """
    ranks = on_node(job)
    other_ranks = ranks
    if job.ranks > 1:
        other_ranks -= 1
    loads = _loads_of_node(job.gpus, other_ranks, server_on_gpu)
    if job.nodes > 1:
        loads += _loads_of_node(job.gpus, ranks, False)
    return loads


def _loads_of_node(num_gpus, num_workers, has_server):
    server_gpu = place.gpu_index(place.SERVER, num_gpus)
    workers_on = Counter()
    for local in range(num_workers):
        gpu = place.gpu_index(local, num_gpus)
        workers_on[gpu] += 1
    loads = []
    for gpu in range(num_gpus):
        is_server_here = has_server and gpu == server_gpu
        loads.append((workers_on[gpu], is_server_here))
    return loads


def fitting(job, options, measured):
    """The rounds that fit the wall time, by a measurement in one process."""
    clients = cohort(options)
    most = math.ceil(clients / _num_workers(job, options))
    # One process trained all clients, the busiest worker trains this part of them.
    share = most / clients
    saved_s = measured.shared_s * (1 - share)
    round_s = measured.round_s - saved_s
    _, notice_s = notice(job.signal)
    left_s = seconds(job.time) - notice_s - START_S
    room = int(max(0, left_s) / round_s)
    rounds = options["rounds"]
    fit = f"{min(room, rounds)} of {plural(rounds, 'round')}"
    here = f"a round took {measured.round_s:.2g} s in one process here"
    there = f"about {round_s:.2g} s on {plural(job.ranks, 'rank')} of that speed"
    return f"{here}, {there}: --time {job.time} has room for {fit}"
