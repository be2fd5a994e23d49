"""Samples of the server's own: apart from all others, and nothing without the option."""

import contracts
import numpy as np
import pytest

from fedmpi.build.options import DEFAULTS
from fedmpi.build.server_data import Wanted, wanted
from fedmpi.core.errors import UserError
from fedmpi.store import read_run


def federation(**options):
    return contracts.dealt(DEFAULTS | contracts.SMALL | options)


@pytest.mark.parametrize("text, expected", [
    ("0", Wanted(0.0, 0, ())), ("0.05", Wanted(0.05, 0, ())), ("400", Wanted(0.0, 400, ())),
    ("0.1:labels=0+3", Wanted(0.1, 0, (0, 3))), ("1", Wanted(0.0, 1, ())), ("12:labels=2", Wanted(0.0, 12, (2,)))])
def test_shares_and_counts(text, expected):
    assert wanted(text) == expected


@pytest.mark.parametrize("text, why", [
    ("many", "not how it is written"), ("-1", "0 or more"), ("nan", "0 or more"), ("2.5", "whole one"),
    ("0.1:classes=0", "unknown classes"), ("0.1:labels=a", "not how it is written"), ("0:labels=1", "no effect"),
    ("5:labels=7", "no label 7 among 4"), ("200", "take fewer"), ("0.9", "take fewer")])
def test_what_is_none_is_told(text, why):
    with pytest.raises(UserError, match=f"--server-data {text}.*{why}"):
        federation(server_data=text)


def test_nobody_else_holds_them():
    plain, data = federation(), federation(server_data="24")
    kinds = [data.validation, data.server, data.indices]
    assert [len(each) for each in kinds] == [12, 24, 84]
    assert len(np.unique(np.concatenate(kinds))) == 120
    assert np.array_equal(data.validation, plain.validation) and not len(plain.server)
    assert plain.digest != data.digest == federation(server_data="24").digest
    assert not np.array_equal(data.server, federation(server_data="24", seed=1).server)


def test_a_share_is_one_of_all_training_samples():
    assert len(federation(server_data="0.2").server) == 24


def test_labels_that_are_wanted():
    data = federation(server_data="20:labels=1+3")
    assert set(data.dataset.y_train[data.server]) == {1, 3} and len(data.server) == 20


def test_natural_clients_keep_what_they_need(tmp_path):
    pool, least = np.arange(12), 3
    owner = np.repeat([0, 1, 2], 4)

    def spare(order):
        found = np.zeros(len(order), bool)
        for client in range(3):
            found[np.flatnonzero(owner[order] == client)[: 4 - least]] = True
        return found

    from fedmpi.build.server_data import taken
    options = {"server_data": "3", "seed": 0}
    server, left = taken(options, None, pool, 12, spare)
    assert sorted(owner[server]) == [0, 1, 2] and len(left) == 9
    with pytest.raises(UserError, match="only 3 of the 12"):
        taken(options | {"server_data": "4"}, None, pool, 12, spare)


@pytest.mark.parametrize("options, line", [
    ({"server_data": "10"}, "--server-data 10 has no effect: --strategy fedavg"),
    ({"server_gflops": 1.0}, "--server-gflops 1 has no effect"),
    ({"strategy": "fltrust", "server_data": "0.0"}, "give --server-data"),
    ({"strategy": "feddu", "server_data": "0.0"}, "give --server-data")])
def test_strategies_say_whether_they_want_them(options, line):
    with pytest.raises(UserError, match=line):
        contracts.assembled(**options)


def test_the_run_file_says_what_they_are(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    told = fedmpi(1, "train", "--dataset", "synthetic:samples=200,size=4,classes=4", "--model", "logistic", "--clients",
                  3, "--rounds", 1, "--strategy", "feddu", "--server-data", "20:labels=1+3", "--out", out)
    assert "20 of the server's own" in told
    found = read_run(out).attrs["server_data"]
    assert found["samples"] == 20 == sum(found["labels"]) and found["labels"][0] == found["labels"][2] == 0
    assert found["labelled"] is True
