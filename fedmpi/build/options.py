"""The options of a run, and what they are where nobody says otherwise."""

from fedmpi.core.errors import UserError
from fedmpi.transport.watch import SILENCE_S

PARTS = {"dataset": "digits", "partition": "dirichlet:beta=0.5", "noise": "graded", "features": "none",
         "model": "small-cnn", "server_model": None, "task": "classification", "strategy": "thesis",
         "optimiser": None, "schedule": "constant",
         "pruner": None, "contribution": None, "weighting": None,
         "codec": "float32", "devices": "none", "sampler": "uniform", "aggregation": "sync"}
# options that may be given more than once, and their kinds
SEVERAL = {"fault": "fault", "observe": "contribution", "augment": "augment", "also_model": "model"}
# The kind of each option that is not called like it.
KIND_OF = SEVERAL | {"server_model": "model"}
DEFAULTS = PARTS | {"fault": [], "observe": [], "augment": [], "also_model": [],
                    "data_dir": "data", "train_samples": 0, "validation": 0.1,
                    "client_test": 0.0, "client_test_every": 0,
                    "server_data": "0", "server_gflops": 0.0,
                    "clients": 32, "cohort": 0, "rounds": 50, "local_epochs": 2, "local_steps": 0,
                    "batch_size": 10, "lr": 0.1, "clip_norm": 0.0, "precision": "float32", "seed": 0,
                    "on_error": "fatal", "quorum": 0.5, "out": None, "device": "auto", "server_device": "auto",
                    "evaluate_every": 1, "save_every": 0, "keep": 2, "until": 0, "silence": SILENCE_S,
                    "task_limit": 0.0, "together": 1}


# What follows from the data where nobody names it (fedmpi.build.natural): None until they are loaded.
OPEN = {"partition": None, "clients": None}


def completed(given):
    """All options of a run of which ``given`` are said; None stands for what is not.

    The run of which no data set is named is the demonstration: it shows that clients with wrong labels are found,
    and so it has some. Once a data set is named nobody's labels are touched unasked.
    """
    said = {key: value for key, value in given.items() if value is not None}
    named = {"noise": "none"} if "dataset" in said else {}
    if said.get("local_steps"):
        named["local_epochs"] = 0
    return one_length(DEFAULTS | named | said)


def one_length(options):
    """The options themselves; UserError unless either epochs or steps say how long a client trains in a round."""
    epochs, steps = options["local_epochs"], options["local_steps"]
    if bool(epochs) == bool(steps):
        raise UserError(f"--local-epochs {epochs} and --local-steps {steps}: one of them says how long a client "
                        "trains in a round; leave one out, or make it 0")
    return options


def opened(given):
    """``completed``, but None for what follows from the data where nobody names it."""
    said = {key for key, value in given.items() if value is not None}
    return completed(given) | {key: None for key in OPEN if key not in said}
