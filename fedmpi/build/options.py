"""The options of a run, and their default values."""

from fedmpi.core.errors import UserError
from fedmpi.transport.watch import SILENCE_S

# The usual spec of each kind of part; None follows from the strategy, or stands for no part.
PARTS = {
    "dataset": "digits",
    "partition": "dirichlet:beta=0.5",
    "noise": "graded",
    "features": "none",
    "model": "small-cnn",
    "adapters": "none",
    "server_model": None,
    "task": "classification",
    "strategy": "thesis",
    "optimiser": None,
    "schedule": "constant",
    "pruner": None,
    "contribution": None,
    "weighting": None,
    "codec": "float32",
    "devices": "none",
    "sampler": "uniform",
    "timing": "sync"
}
# Options that may be given more than once, and their kinds.
SEVERAL = {"fault": "fault", "observe": "contribution", "augment": "augment", "also_model": "model"}
# The kind of each option that is not called like it.
KIND_OF = SEVERAL | {"server_model": "model"}
DEFAULTS = PARTS | {name: [] for name in SEVERAL} | {
    # Data.
    "data_dir": "data",
    "train_samples": 0,
    "validation": 0.1,
    "client_test": 0.0,
    "client_test_every": 0,
    "server_data": "0",
    "server_gflops": 0.0,
    # The model's first values.
    "init_from": None,
    # Clients and their training.
    "clients": 32,
    "cohort": 0,
    "rounds": 50,
    "local_epochs": 2,
    "local_steps": 0,
    "batch_size": 10,
    "lr": 0.1,
    "clip_norm": 0.0,
    "accumulate": 1,
    "precision": "float32",
    "kernel": "dense",
    "seed": 0,
    # Errors, devices, files.
    "on_error": "fatal",
    "quorum": 0.5,
    "out": None,
    "device": "auto",
    "server_device": "auto",
    "evaluate_every": 1,
    "save_every": 0,
    "keep": 2,
    "until": 0,
    "silence": SILENCE_S,
    "task_limit": 0.0,
    "together": 1,
    "ranks_per_client": 1
}

# Options that follow from the data (fedmpi.build.natural), unless the user names them: None until
# the data are loaded.
OPEN = {"partition": None, "clients": None}


def completed(overrides):
    """All options of a run, by the user's options ``overrides``; a value of None counts as missing.

    A run without a named data set is the demonstration: it has clients with wrong labels, to show
    that these are found. With a named data set, labels change only if the user asks for it.
    """
    named = {key: value for key, value in overrides.items() if value is not None}
    implied = {}
    if "dataset" in named:
        implied["noise"] = "none"
    if named.get("local_steps"):
        implied["local_epochs"] = 0
    return one_length(DEFAULTS | implied | named)


def one_length(options):
    """The options themselves; UserError unless either epochs or steps limit a client's training in
    a round."""
    epochs = options["local_epochs"]
    steps = options["local_steps"]
    if bool(epochs) == bool(steps):
        raise UserError(f"--local-epochs {epochs} and --local-steps {steps}: one of them says how "
                        "long a client trains in a round; leave one out, or make it 0")
    return options


def opened(overrides):
    """``completed``, but None for options that follow from the data, unless the user names them."""
    missing = {key: None for key in OPEN if overrides.get(key) is None}
    return completed(overrides) | missing
