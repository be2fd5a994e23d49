"""A training divided over the members of a group: one rank's but for rounding, the same at all members."""

import copy
import multiprocessing

import numpy as np
import pytest
import torch
from test_sgd import half, task_of
from torch import distributed, nn

from fedmpi.compute import divided
from fedmpi.compute.divided import Exchange, Group, share_of, span_of
from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent, Probe
from fedmpi.core.errors import UserError
from fedmpi.methods.optimisers.adam import adam
from fedmpi.methods.optimisers.adamw import adamw
from fedmpi.methods.optimisers.sgd import sgd


class Net(nn.Sequential):
    """A weight used twice, and one that no pass uses."""

    def __init__(self):
        torch.manual_seed(1)
        shared = nn.Linear(6, 6)
        super().__init__(nn.Linear(36, 6), shared, nn.ReLU(), shared, nn.Linear(6, 7))
        self.unused = nn.Parameter(torch.ones(40, 3))


TASKS = {
    "plain": (dict(n=23, batch_size=5), sgd(), Descent()),
    "momentum": (dict(n=21, batch_size=5, mask=half), sgd(0.9, 1e-3), Descent(mu=0.1)),
    "adamw": (dict(n=22, batch_size=7), adamw(), Descent(resumes=True)),
    "shift": (dict(n=9, batch_size=4), adam(), Descent(shift=lambda task: torch.full((task.layout.R,), 0.01))),
}
MORE = [{}, {"accumulate": 2}, {"clip_norm": 0.1}]


def made(name, more):
    """``(task, descent)`` of ``TASKS``."""
    options, optimiser, descent = TASKS[name]
    task = task_of(Net(), epochs=2, **options)
    return task._replace(optimiser=optimiser, **more), descent


def member(number, size, port, name, more, answers):
    """A forked process: its part of the training."""
    torch.set_num_threads(1)
    store = distributed.TCPStore("localhost", port, size, is_master=False)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=size)
    task, descent = made(name, more)
    result = divided.train(descent, task, Group(number, size, distributed.group.WORLD))
    state = {key: tensor.numpy() for key, tensor in result.state.items()}
    answers.put((number, task.x.numpy(), result._replace(state=state)))
    # Until all have been read: a closed connection would be another's error.
    distributed.barrier()
    distributed.destroy_process_group()


def played(size, name, more):
    """``[(x, Trained)]`` of all members, in their order."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    store = distributed.TCPStore("localhost", 0, size, is_master=True, wait_for_workers=False)
    processes = []
    for number in range(size):
        process = fork.Process(target=member, args=(number, size, store.port, name, more, answers))
        process.start()
        processes.append(process)
    rows = sorted((answers.get() for _ in processes), key=lambda row: row[0])
    for process in processes:
        process.join(60)
    return [(x, result) for _, x, result in rows]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", TASKS)
def test_a_divided_training_is_that_of_one_rank_but_for_rounding(size, name):
    more = MORE[len(name) % 3]
    task, descent = made(name, more)
    alone = descend(task, descent)
    members = played(size, name, more)
    x, trained = members[0]
    for other, same in members:
        assert np.array_equal(other, x) and same.loss == trained.loss
    assert np.allclose(x, task.x.numpy(), rtol=1e-4, atol=1e-6)
    assert trained.loss == pytest.approx(alone.loss, rel=1e-5)
    assert (trained.steps, trained.samples) == (alone.steps, alone.samples)
    assert trained.state.keys() == alone.state.keys()
    for key, tensor in alone.state.items():
        assert np.allclose(trained.state[key], tensor.numpy(), rtol=1e-3, atol=1e-6), key


def test_the_same_number_of_members_has_the_same_bits():
    first, again = (played(3, "momentum", {"clip_norm": 0.1}) for _ in range(2))
    for (x, trained), (other, same) in zip(first, again, strict=True):
        assert np.array_equal(x, other) and trained.loss == same.loss


def test_a_member_holds_its_span_of_state_and_sums_alone(alone, monkeypatch):
    task, descent = made("adamw", {})
    sizes = []

    def init(x):
        sizes.append(len(x))
        return adamw().init(x)

    task = task._replace(optimiser=adamw()._replace(init=init))
    monkeypatch.setattr(divided, "_give_weights", lambda x, spans, group: None)
    monkeypatch.setattr(divided, "_of_all", lambda value, group: value)
    monkeypatch.setattr(Exchange, "_send", lambda self, piece, owner, place: None)
    divided.train(Descent(), task, alone._replace(size=4))
    R = task.layout.R
    assert sizes == [-(-R // 4)]


@pytest.fixture
def alone():
    """A group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield Group(0, 1, distributed.group.WORLD)
    distributed.destroy_process_group()


def test_gradients_add_up_in_the_vector_again(alone):
    task, descent = made("plain", {})
    divided.train(descent, task, alone)
    assert not task.g.any()
    task.model(task.inputs).sum().backward()
    assert task.g.any()


def test_a_gradient_before_its_turn_waits(alone):
    task, _ = made("plain", {})
    slots = task.layout.trained
    sums = torch.zeros(task.layout.R)
    exchange = Exchange(slots, [slice(0, task.layout.R)], alone, sums)
    gradients = [torch.rand(slot.shape) for slot in slots]
    # The first one never comes, as of a parameter that no pass uses.
    for place in reversed(range(1, len(slots))):
        exchange.give(place, gradients[place])
        assert not sums.any() and len(exchange.early) == len(slots) - place
    exchange.finish()
    for slot, gradient in zip(slots[1:], gradients[1:]):
        assert torch.equal(slot.of(sums), gradient)
    assert not slots[0].of(sums).any() and not exchange.early


def test_spans_cover_all_weights_once_and_shares_all_samples():
    for R, size in ((10, 3), (16, 4), (2, 3), (7, 1)):
        places = [place for number in range(size) for place in range(R)[span_of(R, size, number)]]
        assert places == list(range(R))
    inputs = torch.arange(8.0)[:, None]
    for n, size in ((8, 3), (2, 3), (5, 5)):
        shares = [share_of(inputs[:n], inputs[:n, 0], size, number) for number in range(size)]
        assert sum(rows for _, _, rows in shares) == n
        counted = torch.cat([targets[:rows] for _, targets, rows in shares])
        assert torch.equal(counted, inputs[:n, 0])
        # All members take a pass.
        assert all(len(own) for own, _, _ in shares)


@pytest.mark.parametrize("change, line", [
    (dict(probe=Probe(step=print)), "the pruner watches"), (dict(probe=Probe(epoch=print)), "the pruner watches")])
def test_a_watched_training_is_refused(change, line):
    task, descent = made("plain", {})
    with pytest.raises(UserError, match=line):
        divided.train(descent, task._replace(**change), Group(0, 2, None))


def test_a_training_of_its_own_is_refused():
    task, _ = made("plain", {})
    with pytest.raises(UserError, match="a strategy's own"):
        divided.train(lambda task: None, copy.copy(task), Group(0, 2, None))
