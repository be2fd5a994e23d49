"""The laws find what breaks them, and the catalogue keeps them; other tests hold some kinds to theirs."""

import pytest
import torch

from fedmpi import catalog, laws
from fedmpi.laws.check import LAWS
from fedmpi.laws.hold import hold, near, same

HERE = ("task", "optimiser", "schedule", "augment", "model", "dataset", "partition", "noise", "features", "fault",
        "devices",
        "sampler", "timing")
# They want files or a download, or samples of many classes.
ELSEWHERE = {"mnist", "fashion-mnist", "emnist", "cifar10", "cifar100", "svhn", "hdf5", "natural", "trace",
             "torchvision", "asymmetric", "text", "shakespeare", "tokens",
             "leaf-femnist", "leaf-shakespeare", "tff-emnist", "tff-cifar100", "tff-shakespeare", "parquet"}
ENTRIES = [(kind, name) for kind in HERE for name in catalog.KINDS[kind] if name not in ELSEWHERE]


def test_every_kind_has_laws():
    assert LAWS.keys() == catalog.KINDS.keys()


@pytest.mark.parametrize("kind, name", ENTRIES)
def test_the_catalogue_keeps_the_laws(kind, name):
    LAWS[kind](name)


BROKEN = '''
from fedmpi.core.parts import Scores
from fedmpi.methods.codecs.float16 import float16
from fedmpi.methods.contribution.size import size
from fedmpi.methods.noise.symmetric import symmetric
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.weighting.uniform import uniform

calls = []


def codec():
    return float16()._replace(bound=lambda values: 0 * values)


def strategy():
    def merge(state, x, updates, weights):
        moved = x.clone()
        moved[updates.support] += updates.U[0]
        return state, moved

    return fedavg()._replace(merge=merge, linear=False)


def contribution():
    part = size()
    return part._replace(score=lambda *given: Scores(part.score(*given).phi / 0))


def weighting():
    part = uniform()

    def weigh(state, phi, cohort):
        state["weights"][0] += 1
        return part.weigh(state, phi, cohort)

    return part._replace(weigh=weigh)


def optimiser():
    part = sgd()
    return part._replace(step=lambda x, g, state, lr: x.sub_(float(torch.as_tensor(lr).max()) * g.mean() + 0 * g))


def noise():
    part = symmetric()

    def corrupt(labels, level, classes, gen):
        calls.append(level)
        return (labels + len(calls)) % classes

    return part._replace(corrupt=corrupt)


import torch
'''


@pytest.mark.parametrize("kind, told", [
    ("codec", "beyond the bound"), ("strategy", "clients in another order make another model"),
    ("contribution", "scores are not finite"), ("weighting", "weigh wrote to its state"),
    ("optimiser", "move each row of x as if it were alone"), ("noise", "the same generator made other labels")])
def test_what_breaks_a_law_is_told(tmp_path, monkeypatch, kind, told):
    (tmp_path / "broken_methods.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Exception, match=told):
        laws.check(kind, f"broken_methods:{kind}")


def test_how_laws_are_told():
    with pytest.raises(AssertionError, match="^two and two$"):
        hold(False, "two and two")
    with pytest.raises(AssertionError, match="^apart: .*not close"):
        near(torch.zeros(1), torch.ones(1), "apart")
    assert same({"a": 1.0}, {"a": torch.tensor(1.0)}) and not same({"a": 1}, {"b": 1})
