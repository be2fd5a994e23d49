"""Clients' own test parts: who is tested on what."""

import numpy as np
import pytest
import torch

import contracts
from fedmpi.build import held_out
from fedmpi.build.federation import shared_arrays
from fedmpi.build.population import population
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError


NETWORK = torch.nn.Linear(4, 2)


def federation(**options):
    return contracts.dealt(DEFAULTS | contracts.SMALL | options)


def part(offsets, indices, client):
    return indices[offsets[client]: offsets[client + 1]]


@pytest.mark.parametrize("samples, share, tested", [
    (1, 0.9, 0), (2, 0.2, 0), (2, 0.25, 1), (2, 0.9, 1), (3, 0.2, 1), (10, 0.2, 2), (10, 0.25, 3), (10, 0.96, 9),
    (0, 0.5, 0)])
def test_a_share_of_each_client_is_held_out_and_one_sample_stays(samples, share, tested):
    (training,), (test,) = held_out.parted([np.arange(samples) * 7], share, 0)
    assert (len(training), len(test)) == (samples - tested, tested)


def test_parts_are_disjoint_and_together_what_the_client_was_dealt():
    gen = np.random.default_rng(0)
    shards = np.split(gen.permutation(90), [20, 21, 60])
    training, test = held_out.parted(shards, 0.3, 5)
    for shard, one, other in zip(shards, training, test):
        assert set(one).isdisjoint(other) and set(one) | set(other) == set(shard)
        for each in (one, other):                          # in the order in which they were dealt
            assert (np.diff([shard.tolist().index(sample) for sample in each]) > 0).all()


def test_a_split_follows_from_seed_and_client_alone():
    shards = [np.arange(10), np.arange(10, 30), np.arange(30, 40)]
    tests = held_out.parted(shards, 0.3, 1)[1]
    alone = held_out.parted([shards[0][:0], shards[1], shards[2][:1]], 0.3, 1)[1]
    other = held_out.parted(shards, 0.3, 2)[1]
    assert tests[1].tolist() == alone[1].tolist() != other[1].tolist()
    assert (tests[0] - 0).tolist() != (tests[2] - 30).tolist()


def test_a_sample_that_a_client_holds_twice_is_in_one_part_only():
    shard = np.repeat(np.arange(10), 3)
    (training,), (test,) = held_out.parted([shard], 0.2, 0)
    assert len(test) == 6 and len(set(test)) == 2 and set(training).isdisjoint(test)


def test_without_the_option_data_stay_as_they_were():
    plain, split = federation(), federation(client_test=0.25)
    assert plain.held_out is None and "test_offsets" not in shared_arrays(plain)
    assert plain.digest != split.digest and plain.validation.tolist() == split.validation.tolist()
    for client in range(3):
        tested = part(split.held_out.offsets, split.held_out.indices, client)
        trained = part(split.offsets, split.indices, client)
        dealt = part(plain.offsets, plain.indices, client)
        assert sorted([*tested, *trained]) == sorted(dealt)
    assert split.sizes.tolist() == [27, 27, 27] and split.held_out.sizes.tolist() == [9, 9, 9]


def test_nothing_is_wrong_with_test_parts_and_nobody_trains_on_one():
    options = dict(clients=6, noise="symmetric:rate=0.5", features="gaussian:sigma=0.5", client_test=0.25,
                   fault=["duplicate:share=0.34", "label-flip:share=0.34"])
    split = federation(**options)
    copies = np.flatnonzero(split.source >= 0)
    assert len(copies) == 2 and set(split.indices).isdisjoint(split.held_out.indices)
    for client in copies:
        assert part(split.offsets, split.indices, client).tolist() == part(
            split.offsets, split.indices, split.source[client]).tolist()
        # It is tested on its own samples, and by its own skew.
        assert len(part(split.held_out.offsets, split.held_out.indices, client))
        assert split.held_out.features[client] == 0.5 * client / 6
        assert split.features[client] == split.features[split.source[client]]


def test_nobody_with_a_test_part_is_refused_and_some_are_told():
    with pytest.raises(UserError, match="no client holds enough samples"):
        federation(clients=90, client_test=0.2)
    options = DEFAULTS | contracts.SMALL | dict(client_test=0.5, partition="quantity:beta=0.3,min_size=1", clients=12)
    split = contracts.dealt(options)
    empty = int((split.held_out.sizes == 0).sum())
    assert 0 < empty < 12
    line, = held_out.remarks(options, split)
    assert line.startswith(f"--client-test 0.5: {empty} of 12 clients hold too few samples")
    tests = held_out.own_tests(options, split, 12, NETWORK, torch.zeros(1, 4))
    assert tests.clients.tolist() == np.flatnonzero(split.held_out.sizes).tolist() and (tests.samples > 0).all()
    assert population(options | {"fault": []}, split)["test_samples"][0].tolist() == (
        split.held_out.sizes.tolist())


def test_how_often_is_told_to_have_no_effect_without_test_parts():
    options = DEFAULTS | contracts.SMALL | {"client_test_every": 3}
    line, = held_out.remarks(options, federation())
    assert line.startswith("--client-test-every 3 has no effect")


@pytest.mark.parametrize("trained, given, every", [
    # 27 samples tested; 3 forward passes of 27 * 2 epochs a client trained; a tenth of that may be spent.
    (3, {}, 1), (1, {}, 2), (1, {"evaluate_every": 5}, 5), (1, {"client_test_every": 7}, 7),
    (1, {"local_epochs": 1}, 4), (1, {"local_epochs": 1, "evaluate_every": 3}, 6)])
def test_test_parts_cost_a_tenth_of_the_training_at_most(trained, given, every):
    options = DEFAULTS | contracts.SMALL | {"client_test": 0.25} | given
    tests = held_out.own_tests(options, federation(client_test=0.25), trained, NETWORK, torch.zeros(1, 4))
    assert tests.test_every == every and tests.samples.tolist() == [9, 9, 9]
