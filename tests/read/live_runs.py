"""Small runs: options of short ones, and a run file that nobody plays."""

import pathlib

import numpy as np
from conftest import environment

import fedmpi as package
from fedmpi.methods.tasks.classification import classification
from fedmpi.server import record
from fedmpi.store import RunFile

SMALL = ("--clients", 5, "--cohort", 3, "--rounds", 5, "--local-epochs", 1, "--train-samples", 300,
         "--model", "2nn:hidden=12", "--strategy", "thesis")
LOSING = ("--pruner", "rigl:every=2", "--devices", "tiers:slow=0.5,dropout=0.3")
ROUNDS = record.round_columns(False, 1, ["size"], classification())
CLIENTS = record.client_columns(["size"])


def live_run(path, planned=6):
    """A run file that nobody plays, and ``play()``, which adds a round."""
    store = RunFile.create(path, {"options": {"rounds": planned, "clients": 2}, "status": "running"}, ROUNDS, CLIENTS,
                           {"noise": (np.zeros(2), "1", "noise")}, ([0], []))

    def play():
        t = store.rounds + 1
        row = {c.name: [0] * c.width if c.width else 0 for c in ROUNDS}
        rows = {c.name: np.zeros(2, c.dtype) for c in CLIENTS}
        row |= {"round": t, "accuracy": t / 10, "round_s": 2.0, "recorded": 100.0 + 4 * t, "asked": 2, "merged": 2}
        store.append(row,
                     rows | {"round": np.full(2, t), "client": np.arange(2)})

    return store, play


def small_terminal():
    """The environment of a process in a terminal of 90 x 24 characters."""
    return environment(PYTHONPATH=str(pathlib.Path(package.__file__).parents[1]), TERM="xterm", COLUMNS="90",
                       LINES="24")
