"""Recipes, plans and runs for tests of studies."""

import numpy as np

from fedmpi.commands.runs import toml
from fedmpi.store.rows import Run
from fedmpi.study.recipe import Study
from fedmpi.study.recipe_check import check_recipe

RECIPE = """\
title = "Two arms"
question = "Which is better?"
lacks = ["a third arm"]
measures = ["accuracy", "up_mb", "weight_noise_spearman"]
against = "size"
[fixed]
dataset = "synthetic:samples=120"
model = "logistic"
clients = 3
rounds = 4
local-epochs = 1
noise = "graded"
strategy = "fedavg"
[arms.size]
contribution = "size"
weighting = "size"
[arms.cosine]
contribution = "cosine"
pruner = "static:sparsity={S}"
[[claim]]
says = "cosine beats size"
measure = "accuracy"
plus = [{ arm = "cosine" }]
minus = [{ arm = "size" }]
above = 0
[[figure]]
kind = "factor"
x = "S"
[[figure]]
kind = "curves"
[[figure]]
kind = "weights"
[size.smoke]
seeds = [0, 1]
grid = { S = ["0", "0.5"] }
"""


def read(text, tmp_path):
    """The checked tables of a recipe with this text."""
    path = tmp_path / "r.toml"
    path.write_text(text)
    tables = toml(path, "r.toml")
    check_recipe(tables, "r.toml")
    return tables


def planned(**grid):
    """A Study of two arms and three seeds, without runs."""
    return Study("s", "t", {}, [0, 1, 2], ["a", "b"], grid, {}, {})


def learning(values):
    """``values`` of runs all of which have learned something."""
    return lambda arm, cell, seed, name: 1.0 if name == "learned" else values(arm, cell, seed, name)


def run_of(accuracy=(0.1,), val_accuracy=(0.1,), weights=None, noise=None, up_mb=10):
    """A Run as read from its file: ``weights`` (T, N), ``noise`` (N,), each round ``up_mb`` MB up
    and twice as many down."""
    N = 2 if noise is None else len(noise)
    if weights is None:
        weights = np.ones((len(accuracy), N)) / N
    T = len(weights)
    population = {}
    if noise is not None:
        population["noise"] = np.array(noise)
        population["quality"] = 1 - np.array(noise)
    up_bytes = np.full(T, up_mb * 1e6)
    return Run(
        attrs={"options": {"clients": N}},
        rounds={
            "accuracy": np.array(accuracy),
            "val_accuracy": np.array(val_accuracy),
            "up_bytes": up_bytes,
            "down_bytes": 2 * up_bytes,
        },
        clients={"client": np.tile(np.arange(N), T), "weight": np.ravel(weights)},
        population=population,
        partition=None,
        sessions={},
        columns={},
        ends=np.arange(1, T + 1) * N)
