"""Faulty clients: who they are, what they hold, see and send; pruned weights and padding stay zero whatever they do."""

import copy

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fedmpi.catalog import FAULTS
from fedmpi.plugins.spec import make
from fedmpi.methods.fault.duplicate import duplicate
from fedmpi.methods.fault.feature_noise import feature_noise
from fedmpi.methods.fault.free_rider import free_rider
from fedmpi.methods.fault.label_flip import label_flip
from fedmpi.methods.fault.scaled import scaled
from fedmpi.methods.fault.sign_flip import sign_flip
from fedmpi.core.layout import bind
from fedmpi.core.parts import Probe, Round, Task
from fedmpi.methods.tasks.classification import classification
from fedmpi.methods.pruning.feddst import feddst
from fedmpi.compute.sgd import train
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.strategies.fedavg import fedavg
from specs import options_of, specs

OPTIONS = {"share": st.floats(0, 0.9), "partial": st.floats(0, 1), "std": st.floats(0, 10), "factor": st.floats(0, 100),
           "scale": st.floats(0, 100), "kind": st.sampled_from(["zero", "random", "stale"])}
TRAINING = ["free-rider:kind=zero", "free-rider:kind=random", "free-rider:kind=stale", "scaled", "sign-flip"]


def any_of(name):
    """Random specs of a fault; std goes with one kind of free-rider."""
    return specs(FAULTS, name, OPTIONS).filter(lambda spec: not re.match("free-rider.*std", spec) or "=random" in spec)


def rng(seed=0):
    return np.random.default_rng(seed)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def task_of(sparse=True, seed=0, probe=None):
    """A client's task on a small network of all three regions, some of its weights pruned."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    layout, x, g = bind(model)
    mask = layout.full_mask()
    if sparse:
        mask[::2] = False
    x[: layout.Q] *= mask
    live = torch.ones(layout.R)
    live[: layout.Q] = mask
    data = torch.Generator().manual_seed(2)
    task = Task(model, layout, x, g, x.clone(), mask, live, torch.randn(9, 1, 4, 4, generator=data),
                torch.randint(0, 5, (9,), generator=data), 2, 4, 0.1, rng(seed), Round(2, 10), optimiser=sgd(0.9),
                objective=classification())
    return task if probe is None else task._replace(probe=probe(task))


def previous_of(task):
    """The model received before: other values on the same support."""
    return torch.where(task.base != 0, task.base + 0.5, 0.0)


def play(spec, task, previous=None):
    """The loss that a faulty client reports; ``task.x`` is what it sends."""
    return make(FAULTS, spec).local(task, lambda: train(fedavg().local, task), previous).loss


def trained(**options):
    """``(task, loss)`` after honest training."""
    task = task_of(**options)
    return task, train(fedavg().local, task).loss


def kept(task):
    """bool (P,): trained entries, which are neither pruned nor padding nor buffers."""
    entries = task.layout.real.clone()
    entries[: task.layout.Q] = task.mask
    entries[task.layout.R:] = False
    return entries


# --- laws of every kind ---

@pytest.mark.parametrize("name", FAULTS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), clients=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_the_share_at_fault_is_exact_and_its_quality_a_fraction(name, data, clients, seed):
    spec = data.draw(any_of(name))
    fault = make(FAULTS, spec)
    who = fault.who(clients, rng(seed))
    assert who.dtype == bool and who.shape == (clients,) and np.array_equal(who, fault.who(clients, rng(seed)))
    assert who.sum() == round(options_of(FAULTS, spec).get("share", 0) * clients)
    assert 0 <= fault.quality <= 1


@pytest.mark.parametrize("name", [name for name in FAULTS if make(FAULTS, name).shards])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_shards_of_honest_clients_stay_and_copies_name_their_source(name, data, sizes, seed):
    fault = make(FAULTS, data.draw(any_of(name)))
    who = fault.who(len(sizes), rng(seed))
    shards = np.split(rng(seed).permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    for shard in shards:
        shard.flags.writeable = False
    if who.all():
        with pytest.raises(ValueError, match="needs an honest client to copy: got share=.*, expected less than 1$"):
            fault.shards(shards, who, rng(seed))
        return
    new, source = fault.shards(shards, who, rng(seed))
    again, source_again = fault.shards(shards, who, rng(seed))
    assert same(new, again) and np.array_equal(source, source_again) and len(new) == len(sizes)
    assert source.dtype == np.int64 and source.shape == who.shape and np.array_equal(source >= 0, who)
    assert not who[source[who]].any()
    for n, shard in enumerate(new):
        assert shard.dtype == np.int64 and len(shard) >= 1 and len(np.unique(shard)) == len(shard)
        if who[n]:
            assert np.isin(shard, np.concatenate([shards[n], shards[source[n]]])).all()
        else:
            assert np.array_equal(shard, shards[n])


@pytest.mark.parametrize("name", [name for name in FAULTS if make(FAULTS, name).labels])
@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 5), max_size=40), classes=st.integers(6, 9), targeted=st.booleans(),
       seed=st.integers(0, 99))
def test_labels_are_a_valid_copy(name, labels, classes, targeted, seed):
    fault = make(FAULTS, name + ":source=1,target=3" * targeted)
    labels = np.array(labels, np.int64)
    labels.flags.writeable = False
    new = fault.labels(labels, classes, rng(seed))
    assert new.dtype == np.int64 and new.shape == labels.shape and np.all((new >= 0) & (new < classes))
    assert not np.shares_memory(new, labels) and np.array_equal(new, fault.labels(labels, classes, rng(seed)))


@pytest.mark.parametrize("name", [name for name in FAULTS if make(FAULTS, name).inputs])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), shape=st.sampled_from([(3, 7), (4, 2, 3, 5), (1, 1, 1, 1)]), seed=st.integers(0, 2**32))
def test_inputs_are_new_and_of_the_same_shape(name, data, shape, seed):
    fault = make(FAULTS, data.draw(any_of(name)))
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = inputs.clone()
    new = fault.inputs(inputs, rng(seed))
    assert new.shape == inputs.shape and new.dtype == torch.float32 and bool(new.isfinite().all())
    assert torch.equal(inputs, before) and new.data_ptr() != inputs.data_ptr()
    assert torch.equal(new, fault.inputs(inputs, rng(seed)))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_shuffled_text_has_the_same_tokens_in_another_order(rate):
    fault = make(FAULTS, f"shuffled:rate={rate}")
    tokens = rng(1).integers(0, 5, 1000)
    new = fault.tokens(tokens, rng(2))
    assert np.array_equal(np.sort(new), np.sort(tokens)) and fault.quality == 1 - rate
    # One place in five gets a token of its own kind.
    assert np.mean(new != tokens) == pytest.approx(0.8 * rate, abs=0.04)


def test_shuffling_needs_text(fedmpi):
    told = fedmpi(1, "train", "--dataset", "synthetic:samples=60,size=4", "--model", "logistic", "--clients", 3,
                  "--fault", "shuffled:share=0.5", code=2)
    assert "these samples are no windows of a text" in told and told.strip().count("\n") == 0


def test_every_kind_that_trains_otherwise_is_tested():
    assert {spec.partition(":")[0] for spec in TRAINING} == {name for name in FAULTS if make(FAULTS, name).local}


@pytest.mark.parametrize("spec", TRAINING)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_nothing_is_written_off_the_mask_and_chance_is_the_tasks(spec, sparse, first):
    results = []
    for global_seed in (3, 4):
        task, twin = task_of(sparse), task_of(sparse)
        previous = None if first else previous_of(task)
        torch.manual_seed(global_seed)
        loss = play(spec, task, previous)
        layout = task.layout
        assert np.isfinite(loss) and bool(task.x.isfinite().all())
        assert not task.x[: layout.R][~kept(task)[: layout.R]].any() and not task.x[~layout.real].any()
        for name in ("base", "mask", "trainable", "inputs", "labels"):
            assert torch.equal(getattr(task, name), getattr(twin, name)), f"{spec} wrote to task.{name}"
        assert first or torch.equal(previous, previous_of(twin))
        results.append((loss, task.x.clone()))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("spec", TRAINING)
def test_buffers_are_sent_as_received_or_as_trained(spec):
    task, (honest, _) = task_of(), trained()
    play(spec, task, previous_of(task))
    want = task.base if spec.startswith("free-rider") else honest.x
    assert torch.equal(task.x[task.layout.R:], want[task.layout.R:])
    assert not torch.equal(honest.x[task.layout.R:], honest.base[task.layout.R:])


@pytest.mark.parametrize("spec", TRAINING)
def test_a_mask_that_moved_during_training_is_obeyed(spec):
    moving = feddst(every=2, alpha=0.5).probe
    task = task_of(probe=moving)
    before = task.mask.clone()
    play(spec, task, previous_of(task))
    assert torch.equal(task.mask, before) == spec.startswith("free-rider")
    assert not task.x[: task.layout.R][~kept(task)[: task.layout.R]].any()


# --- each kind ---

def test_a_duplicate_holds_exactly_what_its_source_does():
    shards = np.split(np.arange(50), 5)
    fault = duplicate(share=0.4)
    who = fault.who(5, rng(1))
    new, source = fault.shards(shards, who, rng(2))
    assert fault.quality == 1 and who.sum() == 2
    assert all(np.array_equal(new[n], shards[source[n]]) for n in np.flatnonzero(who))


@pytest.mark.parametrize("partial, own", [(0.0, 10), (0.3, 7), (0.5, 5), (0.9, 1)])
def test_a_partial_duplicate_keeps_the_rest_of_its_own(partial, own):
    shards = [np.arange(10), np.arange(10, 30)]
    fault = duplicate(share=0.5, partial=partial)
    new, source = fault.shards(shards, np.array([True, False]), rng())
    assert list(source) == [1, -1] and fault.quality == 1
    assert np.sum(new[0] < 10) == own and np.sum(new[0] >= 10) == 2 * (10 - own)


@pytest.mark.parametrize("partial", [0.01, 0.49, 0.5, 0.51, 0.99])
def test_a_duplicate_of_one_sample_holds_one(partial):
    new, _ = duplicate(partial=partial).shards([np.array([3]), np.array([5])], np.array([True, False]), rng())
    assert len(new[0]) == 1


def test_labels_are_flipped_end_to_end_or_from_one_class_to_another():
    labels = np.array([0, 1, 2, 3, 4])
    assert list(label_flip().labels(labels, 5, rng())) == [4, 3, 2, 1, 0]
    assert list(label_flip(source=1, target=4).labels(labels, 5, rng())) == [0, 4, 2, 3, 4]
    with pytest.raises(ValueError, match="must be classes below 5, got 1 and 7"):
        label_flip(source=1, target=7).labels(labels, 5, rng())


def test_feature_noise_has_its_deviation_and_the_quality_of_the_signal_left():
    inputs = torch.zeros(50, 200)
    assert abs(float(feature_noise(std=2.0).inputs(inputs, rng()).std()) - 2) < 0.05
    assert [feature_noise(std=std).quality for std in (0.0, 1.0, 3.0)] == [1, 0.5, 0.1]
    assert torch.equal(feature_noise(std=0.0).inputs(inputs, rng()), inputs)


def test_free_riders_do_not_train_and_report_the_received_models_loss():
    def train():
        raise AssertionError("a free-rider trained")

    for kind in ("zero", "random", "stale"):
        task, twin = task_of(), task_of()
        told = free_rider(kind=kind).local(task, train, None)
        twin.model.eval()
        assert told[1:] == (0, 0, 0.0, {})
        expected = F.cross_entropy(twin.model(twin.inputs), twin.labels).detach()
        assert told.loss == pytest.approx(float(expected), rel=1e-5)


def test_a_zero_free_rider_sends_back_what_it_received():
    task = task_of()
    play("free-rider:kind=zero", task)
    assert torch.equal(task.x, task.base)


def test_a_random_free_rider_sends_noise_of_its_deviation_from_the_tasks_generator():
    task, other = task_of(), task_of(seed=5)
    for each in (task, other):
        play("free-rider:kind=random,std=0.5", each)
    update = (task.x - task.base)[kept(task)]
    assert bool((update != 0).all()) and 0.35 < float(update.std()) < 0.65
    assert not torch.equal(task.x, other.x)


def test_a_stale_free_rider_sends_the_last_change_and_nothing_in_the_first_round():
    task = task_of()
    previous = previous_of(task)
    play("free-rider:kind=stale", task, previous)
    torch.testing.assert_close((task.x - task.base)[kept(task)], (task.base - previous)[kept(task)])
    first = task_of()
    play("free-rider:kind=stale", first, None)
    assert torch.equal(first.x, first.base)
    assert [free_rider(kind=kind).needs_previous_model for kind in ("zero", "random", "stale")] == [False, False, True]


def test_a_stale_free_rider_sends_nothing_on_weights_pruned_since():
    task = task_of()
    play("free-rider:kind=stale", task, torch.ones(task.layout.P))    # the model before was dense
    assert not task.x[: task.layout.R][~kept(task)[: task.layout.R]].any()


@pytest.mark.parametrize("spec, factor", [("scaled:factor=10", 10), ("scaled:factor=0.5", 0.5), ("sign-flip", -1),
                                          ("sign-flip:scale=3", -3)])
def test_stretched_updates_are_honest_ones_times_a_factor(spec, factor):
    task, (honest, honest_loss) = task_of(), trained()
    loss, R = play(spec, task), task.layout.R
    assert loss == honest_loss
    torch.testing.assert_close((task.x - task.base)[:R], factor * (honest.x - honest.base)[:R], rtol=1e-4, atol=1e-6)


def test_qualities_of_those_who_send_something_else():
    assert [scaled(factor=factor).quality for factor in (10.0, 1.0, 0.5, 0.0)] == [0.1, 1, 0.5, 0]
    assert sign_flip().quality == label_flip().quality == free_rider().quality == 0


def test_the_loss_that_is_evaluated_leaves_no_trace_of_gradients():
    task = task_of(probe=lambda task: Probe())
    before = copy.deepcopy(task.model.state_dict())
    play("free-rider", task)
    assert not task.g.any()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), task.model.state_dict().values()))


@pytest.mark.parametrize("make, message", [
    (lambda: duplicate(share=1.5), r"share must be in \[0, 1\], got 1.5"),
    (lambda: duplicate(partial=-1), r"partial must be in \[0, 1\], got -1"),
    (lambda: label_flip(source=3), "source and target must be two different .*, got source=3 and target=-1"),
    (lambda: label_flip(source=3, target=3), "source and target must be two different"),
    (lambda: label_flip(source=-2, target=-2), "source and target must be two different"),
    (lambda: feature_noise(std=-1.0), "std must be >= 0 and finite, got -1.0"),
    (lambda: free_rider(kind="lazy"), "kind must be one of zero, random, stale, got 'lazy'"),
    (lambda: free_rider(std=float("nan")), "std must be >= 0 and finite, got nan"),
    (lambda: free_rider(std=0.5), "std has no effect with kind=zero: it is for kind=random; leave std out"),
    (lambda: scaled(factor=-2.0), "factor must be >= 0 and finite, got -2.0"),
    (lambda: scaled(share=2), r"share must be in \[0, 1\], got 2"),
    (lambda: sign_flip(scale=float("inf")), "scale must be >= 0 and finite, got inf")])
def test_refusals_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
