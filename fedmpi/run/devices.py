"""Which device a rank computes on."""

import os

from fedmpi.core.errors import UserError
from fedmpi.transport import place


def pick_device(name, local_rank):
    """The device for ``cpu`` or ``cuda`` of rank number ``local_rank`` of its node's workers."""
    import torch
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device or --server-device cuda: torch sees no GPU on this rank; use cpu, or check "
                        "CUDA_VISIBLE_DEVICES")
    # The next line asks for it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Every value is written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False
    device = torch.device("cuda", place.gpu_index(local_rank, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def on_device(options):
    """The options with ``--device auto`` decided, a GPU where rank 0 sees one, and with it the server's."""
    import torch
    device, server = options["device"], options["server_device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return options | {"device": device, "server_device": device if server == "auto" else server}


def wishes(options):
    """Devices that may be used: auto, or nothing yet, may become a GPU."""
    wanted = [options[name] for name in ("device", "server_device")]
    return {"cpu" if name == "cpu" else "cuda" for name in wanted}


def placed(own, others, options):
    """``{rank: place}`` of rank 0, at ``own``, and the others, without the GPUs that these options leave alone."""
    training = {options["device"]}
    serving = {options["server_device"]}
    if not others:
        # Alone, rank 0 trains clients, too.
        serving |= training
    places = {0: _used(own | {"node": 0}, serving)}
    for rank, there in others.items():
        places[rank] = _used(there, training)
    return places


def _used(there, devices):
    """A rank's place, without its GPU where that is none of the ``devices``."""
    gpu = there["gpu"] if "cuda" in devices else None
    return there | {"gpu": gpu}
