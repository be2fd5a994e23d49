"""The device of a rank: a CPU or a GPU."""

import os

from fedmpi.core.errors import UserError
from fedmpi.transport import place


def pick_device(name, local_rank):
    """The device for ``cpu`` or ``cuda`` of rank number ``local_rank`` of its node's workers."""
    import torch
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device or --server-device cuda: torch sees no GPU on this rank; "
                        "use cpu, or check CUDA_VISIBLE_DEVICES")
    # Without this variable, deterministic cuBLAS raises.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling costs time, and every value is written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False
    index = place.gpu_index(local_rank, torch.cuda.device_count())
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def on_device(options):
    """The options with ``--device auto`` and ``--server-device auto`` decided: a GPU if rank 0 sees
    one."""
    import torch
    device, server_device = options["device"], options["server_device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if server_device == "auto":
        server_device = device
    return options | {"device": device, "server_device": server_device}


def wishes(options):
    """The set of devices that may be used, ``cpu`` or ``cuda``: auto and None may become a GPU."""
    names = (options["device"], options["server_device"])
    return {"cpu" if name == "cpu" else "cuda" for name in names}


def placed(own, others, options):
    """``{rank: place}`` of rank 0, at ``own``, and of the others. A place shows a GPU only if the
    options use it."""
    training = {options["device"]}
    serving = {options["server_device"]}
    if not others:
        # Alone, rank 0 trains clients, too.
        serving |= training
    places = {0: _used(own | {"node": 0}, serving)}
    for rank, where in others.items():
        places[rank] = _used(where, training)
    return places


def _used(where, devices):
    """A rank's place, without its GPU unless the ``devices`` name one."""
    gpu = where["gpu"] if "cuda" in devices else None
    return where | {"gpu": gpu}
