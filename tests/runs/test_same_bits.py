"""The most valuable tests: the same bits on any number of ranks, in any order of arrival, stopped and resumed."""

import os
import random

import pytest

from fedmpi.store import read_run, verify

SMALL = ("--rounds", 5, "--clients", 9, "--model", "small-cnn:width=4", "--lr", 0.1, "--local-epochs", 1,
         "--train-samples", 600)
METHODS = {
    "thesis": ("--strategy", "thesis:server_momentum=0.5", "--pruner", "rigl:every=2,sparsity=0.8", "--cohort", 6),
    "feddst": ("--strategy", "feddst:mu=0.1", "--pruner", "feddst:every=2,alpha=0.3", "--contribution", "loo-cosine",
               "--codec", "int8"),
    "text": ("--strategy", "thesis-text", "--contribution", "loo", "--cohort", 5, "--codec", "float16",
             "--devices", "drawn", "--timing", "sync:over=0.4", "--sampler", "contribution"),
    "norms": ("--strategy", "thesis:server_momentum=0.3", "--pruner", "set", "--model", "norm_model:net",
              "--partition", "iid"),
    "judged": ("--strategy", "thesis-text", "--pruner", "adaptive:every=2,spread=0.15", "--contribution", "gtg-shapley",
               "--observe", "shapley", "--observe", "comfedsv", "--observe", "least-core-mc", "--observe", "or-shapley",
               "--observe", "information-gain", "--observe", "influence-hessian", "--fault", "free-rider:kind=stale",
               "--fault", "scaled", "--fault", "duplicate", "--features", "rotation", "--cohort", 6, "--weighting",
               "tanh", "--client-test", 0.3),
    "fltrust": ("--strategy", "fltrust", "--server-data", 0.1, "--contribution", "tmc-shapley", "--fault",
                "free-rider:kind=random", "--fault", "feature-noise", "--noise", "fedcorr", "--features", "gaussian"),
    "feddu": ("--strategy", "feddu:decay=1", "--server-data", "40:labels=0+1+2", "--server-gflops", 0.1,
              "--devices", "drawn", "--pruner", "rigl:every=2,sparsity=0.5", "--cohort", 4),
    "fedbuff": ("--timing", "fedbuff:buffer=2,concurrency=4", "--pruner", "set:every=2", "--strategy", "thesis",
                "--devices", "drawn:dropout=0.2,availability=0.8", "--on-error", "drop"),
    "late": ("--timing", "sync:deadline=30", "--devices", "tiers:dropout=0.1", "--cohort", 5,
             "--sampler", "power-of-choice:candidates=7", "--strategy", "fedavg", "--contribution", "cosine"),
    "prunefl": ("--strategy", "prunefl", "--pruner", "prunefl:every=2", "--partition", "shards", "--noise", "thesis"),
    "smaller": ("--strategy", "fedmp", "--pruner", "fedmp:by=speed", "--devices", "tiers:slow=0.4,fast=0.2",
                "--contribution", "loo", "--model", "norm_model:net", "--partition", "iid", "--cohort", 6),
    "sums": ("--strategy", "fedavg", "--weighting", "size", "--observe", "loo"),
    "signs": ("--strategy", "fedavg", "--codec", "sign:block=64", "--cohort", 6, "--pruner", "rigl:every=2",
              "--together", 4),
    "owed": ("--timing", "fedbuff:buffer=2,concurrency=4", "--pruner", "set:every=2", "--strategy", "thesis",
             "--devices", "drawn:dropout=0.2", "--codec", "int8:feedback=true,entropy=true"),
    "teams": ("--model", "norm_model:net", "--together", 4, "--pruner", "rigl:every=2", "--partition", "iid",
              "--fault", "free-rider"),
    "scaffold": ("--strategy", "scaffold", "--pruner", "set:every=2,sparsity=0.5", "--cohort", 6, "--contribution",
                 "cosine", "--codec", "int8:feedback=true"),
    "feddyn": ("--strategy", "feddyn:alpha=0.1", "--optimiser", "sgd", "--pruner", "feddst:every=2", "--cohort", 5),
    "fedper": ("--strategy", "fedper", "--optimiser", "adam", "--schedule", "cosine", "--cohort", 6, "--lr", 0.01),
    "fedpcl": ("--strategy", "fedpcl", "--partition", "classes", "--cohort", 6, "--lr", 0.01, "--client-test", 0.2),
    "fedgkt": ("--strategy", "fedgkt:server_epochs=2", "--server-model", "norm_model:head", "--also-model",
               "norm_model:wide", "--model", "norm_model:narrow", "--cohort", 6, "--lr", 0.01, "--client-test", 0.2),
    "kinds": ("--strategy", "fedper", "--also-model", "norm_model:net", "--also-model", "norm_model:net", "--partition",
              "iid", "--pruner", "static:sparsity=0.5", "--contribution", "size", "--cohort", 6, "--client-test", 0.2),
    "diloco": ("--strategy", "diloco", "--optimiser", "adamw:beta2=0.95", "--local-epochs", 0, "--local-steps", 5,
               "--schedule", "cosine:warmup=3,over=run", "--codec", "topk:share=0.05,chunk=64,bits=3", "--pruner",
               "set:every=2,sparsity=0.5", "--cohort", 6, "--lr", 0.01),
    "streaming": ("--strategy", "diloco:fragments=3,delay=1,mixing=0.2,momentum=0.5", "--optimiser", "adamw",
                  "--local-epochs", 0, "--local-steps", 4, "--codec", "topk:share=0.1,chunk=64", "--pruner",
                  "static:sparsity=0.5", "--lr", 0.01),
    "senders": ("--strategy", "diloco:outer=heavy,server_lr=0.3,inner=reset", "--optimiser", "adamw", "--codec",
                "topk:share=0.1,chunk=100,average=senders", "--pruner", "feddst:every=2", "--lr", 0.01),
    "flora": ("--strategy", "flora", "--model", "vit:depth=1,width=16,heads=2", "--adapters", "lora:rank=4,also=head",
              "--pruner", "ranks:of=4/2/1", "--contribution", "loo", "--cohort", 6, "--client-test", 0.2, "--lr", 0.01),
    "adapters": ("--strategy", "diloco", "--model", "vit:depth=1,width=16,heads=2", "--adapters",
                 "lora:rank=4,on=all,also=norms", "--codec", "topk:share=0.2,chunk=64", "--cohort", 6, "--lr", 0.01),
    "fednova": ("--strategy", "fednova", "--partition", "quantity", "--contribution", "loo", "--clip-norm", 1.0),
    "flying": ("--together", 3, "--timing", "fedbuff:buffer=3,concurrency=5", "--devices", "drawn",
               "--pruner", "set", "--client-test", 0.2, "--client-test-every", 2),
}


NORMS = """
from torch import nn

def net(shape, classes):
    # momentum=None averages by a counter, which lives outside the vector; dropout draws from torch's own generator
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                         nn.Linear(144, classes))

def narrow(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, classes))

def wide(shape, classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 24), nn.ReLU(),
                         nn.Linear(24, classes))

def head(shape, classes):
    return nn.Sequential(nn.Linear(24, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, classes))
"""


@pytest.fixture(scope="module", autouse=True)
def norm_model(tmp_path_factory):
    """A model with batch statistics, an integer counter and dropout, importable here and on other ranks."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "norm_model.py").write_text(NORMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


def train(method, out, *more):
    """The arguments of that method's run."""
    return ["train", *SMALL, *METHODS[method], "--out", out, *more]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, fedmpi):
    """``alone(method) -> path`` of that method's run in one process."""
    made = {}

    def run(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "alone.h5"
            fedmpi(1, *train(method, made[method]))
        return made[method]

    return run


WHOLE = [(2, "thesis"), (3, "feddst"), (3, "prunefl"), (3, "norms"), (3, "fltrust"), (3, "feddu"), (3, "fedbuff"),
         (3, "flying"), (3, "signs"), (3, "owed"), (4, "thesis"), (4, "text"), (4, "judged"), (4, "late"), (4, "teams"),
         (3, "diloco"), (3, "senders"), (5, "diloco"), (3, "streaming"), (3, "flora"), (3, "adapters"),
         (3, "scaffold"), (3, "feddyn"), (3, "fedper"), (3, "fednova"), (3, "fedpcl"), (3, "fedgkt"), (3, "kinds"),
         (5, "fedgkt"), (5, "scaffold"), (5, "feddyn"),
         (5, "fedper"), (4, "smaller")]
PARTS = [("thesis", 2, 1, 1), ("thesis", 3, 3, 1), ("thesis", 1, 1, 2), ("feddst", 3, 1, 1), ("text", 4, 1, 1),
         ("prunefl", 2, 1, 1), ("norms", 2, 1, 1), ("judged", 3, 1, 2), ("fltrust", 2, 1, 1), ("feddu", 3, 1, 1),
         ("fedbuff", 3, 1, 1), ("late", 2, 1, 1), ("teams", 2, 1, 3), ("flying", 3, 1, 1), ("signs", 3, 1, 3),
         ("owed", 3, 1, 1), ("scaffold", 2, 3, 1), ("feddyn", 3, 1, 3), ("fedper", 2, 1, 1), ("fedpcl", 3, 3, 1),
         ("fedgkt", 2, 3, 1), ("kinds", 3, 1, 3), ("diloco", 2, 3, 1), ("diloco", 3, 1, 3), ("senders", 2, 1, 3),
         ("streaming", 2, 1, 3), ("streaming", 1, 3, 1),
         ("flora", 2, 3, 1), ("flora", 3, 1, 3), ("adapters", 2, 3, 1),
         ("smaller", 2, 1, 1)]


@pytest.fixture(scope="module")
def many(tmp_path_factory, fedmpi, in_turn):
    """``many(ranks) -> folder`` with all that so many ranks play, in one launch: METHOD.h5 of ``WHOLE``, METHOD-STOP.h5
    of ``PARTS``, of which one process plays the first part where these ranks have the second."""
    made = {}

    def launch(ranks):
        if ranks not in made:
            folder = made[ranks] = tmp_path_factory.mktemp(f"ranks-{ranks}")
            commands = [train(method, folder / f"{method}.h5") for size, method in WHOLE if size == ranks]
            for method, stop, first, then in PARTS:
                begin = train(method, folder / f"{method}-{stop}.h5", "--until", stop)
                if first == ranks:
                    commands.append(begin)
                elif then == ranks:
                    fedmpi(1, *begin)
                    commands.append(["train", "--resume", folder / f"{method}-{stop}.h5"])
            in_turn(ranks, commands, FEDMPI_ALL_RANKS="1")
        return made[ranks]

    return launch


@pytest.mark.parametrize("ranks, method", WHOLE)
def test_any_number_of_ranks_gives_the_same_bits(alone, many, ranks, method):
    out = many(ranks) / f"{method}.h5"
    assert verify(alone(method), out) == []
    assert set(read_run(out).clients["rank"]) - {-1} == set(range(1, ranks))     # every worker had its share


def test_33_ranks_give_the_same_bits(fedmpi, alone, tmp_path):
    fedmpi(33, *train("thesis", tmp_path / "many.h5"), FEDMPI_ALL_RANKS="1")
    assert verify(alone("thesis"), tmp_path / "many.h5") == []


def test_any_number_of_nodes_gives_the_same_bits(alone, in_turn, tmp_path):
    """MPICH takes one machine for several nodes, here two of two ranks and two of one: shared data, sums and coalitions
    go by a leader a node."""
    methods = ("sums", "judged")
    in_turn(6, [train(method, tmp_path / f"{method}.h5") for method in methods], MPIR_CVAR_NUM_CLIQUES="4")
    for method in methods:
        assert verify(alone(method), tmp_path / f"{method}.h5") == []


@pytest.mark.parametrize("method, stop, first, then", PARTS)
def test_a_run_stopped_and_resumed_gives_the_same_bits(fedmpi, alone, many, tmp_path, method, stop, first, then):
    ranks = max(first, then)
    out = (many(ranks) if ranks > 1 else tmp_path) / f"{method}-{stop}.h5"
    if ranks == 1:
        fedmpi(1, *train(method, out, "--until", stop))
    if then == 1:
        fedmpi(1, "train", "--resume", out)
    assert verify(alone(method), out) == []
    assert [(session["ranks"], session["done"]) for session in read_run(out).sessions] == [(first, 0), (then, stop)]


def test_another_seed_gives_another_run(fedmpi, alone, tmp_path):
    fedmpi(1, *train("thesis", tmp_path / "other.h5", "--seed", 1))
    lines = verify(alone("thesis"), tmp_path / "other.h5")
    assert any("weights_digest" in line and "round 1" in line for line in lines)
    assert "option seed: 0 against 1" in lines


def test_order_of_arrival_does_not_matter(tmp_path):
    """The same rounds with replies shuffled: what a slow or a fast rank changes is only the order."""
    import torch

    from fedmpi.build.federation import shared_arrays
    from fedmpi.build.setup import message, set_up
    from fedmpi.run import launch
    from fedmpi.server import loop
    from fedmpi.server.run_state import initial_state
    from fedmpi.build.options import DEFAULTS
    from fedmpi.transport.local import Local

    class Shuffled(Local):
        def map(self, jobs, arrays=None, meanwhile=()):
            replies = list(super().map(jobs, arrays, meanwhile))
            random.Random(1).shuffle(replies)
            return iter(replies)

    def final(transport_of):
        options = DEFAULTS | dict(rounds=3, clients=6, pruner="feddst:every=2", contribution="cosine",
                                  strategy="feddst",
                                  model="small-cnn:width=4", local_epochs=1, device="cpu", observe=["loo"])
        setup = set_up(options, torch.device("cpu"))
        transport = transport_of(launch.worker())
        run = setup.run._replace(transport=transport)
        transport.share({"kind": "data"}, shared_arrays(setup.data))
        state = initial_state(run, setup.network.first)
        transport.publish(*message(setup, state))
        rows = []
        for t in range(1, 4):
            state, row, clients = loop.evaluated_round(run, state, t)
            rows.append((row["weights_digest"], row["up_bytes"], clients["contribution"].tolist(),
                         clients["score_loo"].tolist()))
        return rows

    assert final(Local) == final(Shuffled)
