"""Groups of ranks that train one client: who is in which, and how a group's ranks speak.

The first rank of a group leads: rank 0 gives it jobs, and hears its answers. The others are told to
follow, and the leader hands them the job. So a job reaches all of a group in the same place of
their messages from rank 0. Tensors travel in a process group of torch, whose ranks find each other
by a store at the leader.
"""

import socket
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.transport import messages
from fedmpi.transport.place import gpu_of

# The leader's word to others in the place of a job that is not for them: shorter than any job.
NOTHING = np.zeros(1, np.uint8)


class Circle(NamedTuple):
    """A worker's way to the ranks of its group."""

    # The group's ranks, the leader first.
    comm: Any
    # A ``fedmpi.compute.divided.Group``.
    group: Any


def grouped(places, size):
    """Groups of ``size`` ranks, tuples, of ``{rank: place}`` of the workers.

    Ranks of a node make groups of their own as far as they go; the others follow in their order.
    """
    by_node = defaultdict(list)
    for rank, place in sorted(places.items()):
        node = place.get("node", 0)
        by_node[node].append(rank)
    ordered, others = [], []
    for ranks in by_node.values():
        whole = len(ranks) // size * size
        ordered += ranks[:whole]
        others += ranks[whole:]
    ordered += others
    starts = range(0, len(ordered), size)
    return [tuple(ordered[start: start + size]) for start in starts]


def check(groups, places):
    """UserError if two ranks of a group share a GPU."""
    for ranks in groups:
        users = {}
        for rank in ranks:
            if places[rank]["gpu"] is None:
                # A rank without any is refused when it builds its model.
                continue
            gpu = gpu_of(places[rank])
            first = users.setdefault(gpu["uuid"], rank)
            if first != rank:
                raise UserError(
                    f"--ranks-per-client {len(ranks)}: ranks {first} and {rank} of a client share "
                    f"the GPU {gpu['name']} of {places[rank]['host']}, each needs one of its own: "
                    "take as many workers a node as it has GPUs, or --device cpu")


def leading(groups, active, size):
    """The leaders of the groups that take jobs, if as many workers as ``active`` ranks may work."""
    most = max(1, len(active) // size)
    leaders = [ranks[0] for ranks in groups]
    return sorted(leaders)[:most]


def joined(comm, ranks, backend):
    """The ``Circle`` of this rank among the ``ranks`` of its group; all of them call this."""
    # Ranks have a transport long before torch.
    from fedmpi.compute.divided import Group
    own = comm.Create_group(comm.group.Incl(ranks))
    group = Group(own.rank, own.size, _process_group(own, backend))
    return Circle(own, group)


def _process_group(comm, backend):
    """The process group of torch of the ranks of ``comm``."""
    from torch import distributed
    if not distributed.is_available():
        raise UserError("--ranks-per-client: this torch is built without torch.distributed; take 1")
    hosts = comm.allgather(socket.gethostname())
    is_near = len(set(hosts)) == 1
    address = "localhost" if is_near else hosts[0]
    store = None
    if comm.rank == 0:
        # Any free port.
        store = distributed.TCPStore(
            address, 0, comm.size, is_master=True, wait_for_workers=False)
    port = comm.bcast(store and store.port)
    if store is None:
        store = distributed.TCPStore(address, port, comm.size)
    distributed.init_process_group(
        backend, store=store, rank=comm.rank, world_size=comm.size)
    return distributed.group.WORLD


def left(circle):
    """Leave the group; None is no group."""
    if circle is None:
        return
    from torch import distributed
    distributed.destroy_process_group()


def hand_on(circle, buffer):
    """As the leader: give the packed job ``buffer`` to the others of the group."""
    for rank in range(1, circle.comm.size):
        messages.send(circle.comm, buffer, rank)


def handed(circle):
    """As another rank of the group: the leader's packed job, None if there is none for it."""
    buffer, _ = messages.receive(circle.comm, 0)
    return None if len(buffer) == len(NOTHING) else buffer
