"""Local training: torch's SGD to the last bit, masks that hold, and gradients that are autograd's."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training import sgd

from fedmpi.methods.datasets.dataset import laid
from fedmpi.core.layout import bind
from fedmpi.methods.tasks.classification import classification
from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.compute.sgd import batches, dense_gradient, descend, length, train
from fedmpi.core.parts import Probe, Round, Task
from fedmpi.methods.optimisers import sgd as optimisers
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.strategies.fedprox import fedprox
from fedmpi.methods.strategies.thesis import thesis_code


def conv_net(norm=False):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 5, 3), *[nn.BatchNorm2d(5)] * norm, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 7))


def task_of(model, n=23, epochs=3, batch_size=5, lr=0.1, mask=None, probe=None, seed=2):
    """A task of random 6 x 6 images on the received values, off-mask zeroed."""
    layout, x, g = bind(model)
    mask = layout.full_mask() if mask is None else mask(layout)
    x[: layout.Q] *= mask
    live = torch.ones(layout.R)
    live[: layout.Q] = mask
    data = torch.Generator().manual_seed(seed)
    shape = (1, 6, 6) if isinstance(model[0], nn.Conv2d) else (model[0].in_features,)
    classes = model[-1].out_features
    return Task(model, layout, x, g, x.clone(), mask, live, torch.randn(n, *shape, generator=data),
                torch.randint(0, classes, (n,), generator=data), epochs, batch_size, lr, np.random.default_rng(seed),
                Round(1, 10), probe or Probe(), optimiser=optimisers.sgd(momentum=0.9, weight_decay=1e-3),
                objective=classification())


def plain(task):
    """The task with plain SGD."""
    return task._replace(optimiser=optimisers.sgd())


def half(layout):
    mask = layout.full_mask()
    mask[::2] = False
    return mask


def plain_torch(model, task, momentum, weight_decay, loss=F.cross_entropy):
    """The same training by torch.optim.SGD on a model of its own; returns the mean loss."""
    optimiser = torch.optim.SGD(model.parameters(), task.lr, momentum, weight_decay=weight_decay, fused=True)
    gen, total, n = copy.deepcopy(task.gen), 0.0, len(task.labels)
    model.train()
    for _ in range(task.epochs):
        order = torch.from_numpy(gen.permutation(n))
        for rows in order.split(task.batch_size):
            optimiser.zero_grad()
            value = loss(model(task.inputs[rows]), task.labels[rows])
            value.backward()
            optimiser.step()
            total += float(value.detach()) * len(rows)
    return total / (n * task.epochs)


@pytest.mark.parametrize("momentum, weight_decay", [(0, 0), (0.9, 0), (0, 1e-2), (0.9, 1e-3)])
@pytest.mark.parametrize("norm", [False, True])
def test_sgd_is_torch_sgd_to_the_last_bit(momentum, weight_decay, norm):
    model, twin = conv_net(norm), conv_net(norm)
    task = task_of(model)
    expected = plain_torch(twin, task, momentum, weight_decay)
    loss = sgd(task, momentum=momentum, weight_decay=weight_decay)
    for have, want in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(have, want)
    assert abs(loss - expected) < 1e-5


def test_gradients_in_another_order_than_the_weights_are_taken_right():
    """Convolutions over channels-last images give theirs so, where they have several channels."""
    def deep():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(4 * 4, 7))

    model, twin = deep(), deep()
    task = task_of(model)
    task = task._replace(inputs=laid(task.inputs))
    plain_torch(twin, task, 0.9, 1e-3)
    sgd(task, momentum=0.9, weight_decay=1e-3)
    for have, want in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(have, want)


@pytest.mark.parametrize("momentum, weight_decay", [(0, 0), (0.9, 0), (0, 0.1), (0.9, 0.1)])
def test_masked_weights_stay_exactly_zero(momentum, weight_decay):
    task = task_of(conv_net(), mask=half)
    sgd(task, momentum=momentum, weight_decay=weight_decay)
    layout = task.layout
    assert not task.x[: layout.Q][~task.mask].any()
    assert int((task.x != task.base).sum()) == int(task.mask.sum()) + 12            # all that live moved, 12 biases too


def test_masked_sgd_is_dense_sgd_with_a_masked_gradient():
    task = task_of(conv_net(), mask=half, epochs=1, batch_size=23)
    sgd(task)
    twin = task_of(conv_net(), mask=half)
    F.cross_entropy(twin.model(twin.inputs), twin.labels).backward()
    expected = twin.x[: twin.layout.R] - 0.1 * twin.g * twin.trainable
    torch.testing.assert_close(task.x[: task.layout.R], expected, rtol=0, atol=1e-7)


def test_weights_that_share_a_gradient_are_masked_each_by_its_own_mask():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)

        def forward(self, x):
            return F.linear(x, self.a.weight + self.b.weight)

    model = nn.Sequential(nn.Linear(4, 4, bias=False), Sum(), nn.Linear(3, 2, bias=False))
    task = task_of(model, mask=half, epochs=1, batch_size=23)
    flipped = task.layout.full_mask() & ~half(task.layout)
    b = next(slot for slot in task.layout.weights if slot.name == "1.b.weight")
    task.mask[b.span] = flipped[b.span]
    task.trainable[b.span] = flipped[b.span].float()
    task.x[b.span] *= task.mask[b.span]
    before = task.x.clone()
    sgd(task)
    for slot in task.layout.weights:
        moved = (task.x != before)[slot.span]
        assert moved.any() and not (moved & ~task.mask[slot.span]).any(), slot.name


def test_two_steps_of_momentum_and_decay_by_hand():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    task = task_of(model, n=1, epochs=2, lr=0.5)
    task.x[0] = 2.0
    sgd(task, momentum=0.5, weight_decay=0.1, loss=lambda out, labels: 3 * out.sum() / task.inputs[0, 0])
    # g1 = 3 + .2 = 3.2, x = 2 - 1.6 = .4; g2 = 3.04, v = 1.6 + 3.04 = 4.64, x = .4 - 2.32 = -1.92
    assert float(task.x[0]) == pytest.approx(-1.92, abs=1e-6)


def test_padding_is_never_trained():
    task = task_of(conv_net(True))
    sgd(task, momentum=0.9, weight_decay=0.1)
    assert not task.x[~task.layout.real].any()


def test_batches_cover_every_sample_once_an_epoch():
    task = task_of(conv_net(), n=23)
    rows = [labels for _, labels in batches(task._replace(labels=torch.arange(23)))]
    assert [len(r) for r in rows] == [5, 5, 5, 5, 3] and sorted(torch.cat(rows).tolist()) == list(range(23))
    fixed = [r.tolist() for _, r in batches(task._replace(labels=torch.arange(23)), shuffle=False)]
    assert sum(fixed, []) == list(range(23))


def test_epochs_are_shuffled_anew():
    task = task_of(conv_net())._replace(labels=torch.arange(23))
    one, two = (torch.cat([r for _, r in batches(task)]).tolist() for _ in range(2))
    assert one != two


def test_a_single_leftover_sample_is_dropped_only_under_batch_norm():
    for norm, last in ((False, 1), (True, 5)):
        task = task_of(conv_net(norm), n=21)
        assert [len(labels) for _, labels in batches(task)][-1] == last


def test_the_loss_is_the_mean_over_all_samples_seen():
    task = task_of(conv_net(), lr=0.0, epochs=4)
    expected = float(F.cross_entropy(task.model(task.inputs), task.labels).detach())
    assert sgd(task) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(task.x, task.base)


def test_the_probe_sees_each_dense_gradient_before_anything_is_added():
    seen = []
    task = task_of(conv_net(), mask=half, epochs=1, batch_size=23, probe=Probe(step=lambda g: seen.append(g.clone())))
    twin = task_of(conv_net(), mask=half)
    F.cross_entropy(twin.model(twin.inputs), twin.labels).backward()
    train(fedprox(mu=5.0).local, task._replace(optimiser=optimisers.sgd(0.9, 0.5)))
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], twin.g, rtol=0, atol=1e-7)
    assert seen[0][: task.layout.Q][task.layout.full_mask() & ~task.mask].any()


def test_a_mask_changed_between_epochs_is_obeyed():
    def epoch(e):
        if e == 0:
            task.mask.copy_(task.layout.full_mask() & ~task.mask)
            task.trainable[: task.layout.Q] = task.mask
        return e == 0

    task = task_of(conv_net(), mask=half, epochs=2, probe=Probe(epoch=epoch))
    sgd(task, momentum=0.9, weight_decay=1e-3)
    layout = task.layout
    assert not task.x[: layout.Q][~task.mask].any()
    assert all(bool(task.x[slot.span][task.mask[slot.span]].any()) for slot in layout.weights)


def test_dense_gradient_is_the_mean_of_autograds_and_leaves_no_trace():
    model = conv_net(True)
    task = task_of(model, mask=half)
    before = copy.deepcopy(model.state_dict())
    order = copy.deepcopy(task.gen).permutation(len(task.labels))
    got = dense_gradient(task, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values())) and not task.g.any()
    twin = copy.deepcopy(model).eval()
    want = []
    for rows in (order[:5], order[5:10]):
        want.append(torch.autograd.grad(F.cross_entropy(twin(task.inputs[rows]), task.labels[rows]), twin.parameters()))
    names = [name for name, _ in twin.named_parameters()]
    for slot in task.layout.weights + task.layout.others:
        mean = (want[0][names.index(slot.name)] + want[1][names.index(slot.name)]) / 2
        torch.testing.assert_close(got[slot.span].view(slot.shape), mean, rtol=1e-6, atol=1e-7)


def test_dense_gradient_takes_what_there_is():
    task = task_of(conv_net(), n=7)
    twin = task._replace(gen=copy.deepcopy(task.gen))
    torch.testing.assert_close(dense_gradient(task, 2), dense_gradient(twin, 99), rtol=0, atol=0)


def test_fedprox_gradient_by_hand():
    """Two full-batch steps: the first has no pull, the second ``mu (x1 - x0)``; off the mask nothing moves."""
    task = task_of(conv_net(), mask=half, epochs=2, batch_size=23, lr=0.2)
    train(fedprox(mu=0.7).local, plain(task))
    twin = task_of(conv_net(), mask=half)
    x, x0, R = twin.x, twin.x.clone(), twin.layout.R
    for _ in range(2):
        twin.g.zero_()
        F.cross_entropy(twin.model(twin.inputs), twin.labels).backward()
        x[:R] -= 0.2 * twin.trainable * (twin.g + 0.7 * (x - x0)[:R])
    torch.testing.assert_close(task.x, x, rtol=0, atol=1e-6)
    assert not task.x[: task.layout.Q][~task.mask].any()


def test_fedprox_without_pull_is_fedavg():
    one, other = task_of(conv_net()), task_of(conv_net())
    train(fedprox(mu=0.0).local, one)
    train(fedavg().local, other)
    assert torch.equal(one.x, other.x)


def test_a_stronger_pull_stays_nearer():
    distances = []
    for mu in (0.0, 1.0, 5.0):
        task = task_of(conv_net(), epochs=5)
        train(fedprox(mu=mu).local, plain(task))
        distances.append(float((task.x - task.base).norm()))
    assert distances[0] > distances[1] > distances[2]


def test_the_thesis_program_applies_softmax_twice():
    task = task_of(conv_net(), epochs=1, batch_size=23)
    twin = task_of(conv_net())
    loss = train(thesis_code().local, plain(task)).loss
    double = F.cross_entropy(twin.model(twin.inputs).softmax(dim=1), twin.labels)
    double.backward()
    assert loss == pytest.approx(float(double.detach()), abs=1e-6)
    torch.testing.assert_close(task.x[: task.layout.R], (twin.x[: task.layout.R] - 0.1 * twin.g), rtol=0, atol=1e-7)
    once = task_of(conv_net(), epochs=1, batch_size=23)
    train(thesis_code(double_softmax=False).local, plain(once))
    assert float((once.x - once.base).norm()) > 1.5 * float((task.x - task.base).norm())


def test_the_thesis_program_never_shuffles():
    task = task_of(conv_net())
    before = copy.deepcopy(task.gen).random()
    train(thesis_code().local, task)
    assert task.gen.random() == before


@pytest.mark.parametrize("n, batch_size, epochs, steps, normalises, expected", [
    (23, 5, 3, 0, False, (3, 15, 69)), (21, 5, 2, 0, True, (2, 8, 40)), (21, 5, 2, 0, False, (2, 10, 42)),
    (23, 5, 0, 5, False, (1, 5, 23)), (23, 5, 0, 6, False, (2, 6, 28)), (23, 5, 0, 12, False, (3, 12, 56)),
    (21, 5, 0, 9, True, (3, 9, 45)), (3, 5, 0, 4, False, (4, 4, 12)), (1, 5, 2, 0, True, (2, 2, 2))])
def test_how_long_a_training_is(n, batch_size, epochs, steps, normalises, expected):
    assert length(n, batch_size, epochs, steps, normalises) == expected
    task = task_of(conv_net(normalises), n=n, batch_size=batch_size, epochs=epochs)._replace(steps=steps)
    if n > 1:
        trained = descend(plain(task))
        assert (trained.steps, trained.samples) == expected[1:]


def test_local_steps_are_the_first_steps_of_as_many_epochs():
    task, twin = task_of(conv_net(), epochs=3), task_of(conv_net(), epochs=2)
    descend(task._replace(steps=10))
    descend(twin)
    assert torch.equal(task.x, twin.x)


def test_a_schedule_over_steps_is_torchs():
    model, twin = conv_net(), conv_net()
    rates = make(catalog.SCHEDULES, "linear:over=steps")
    task = task_of(model, epochs=1, lr=0.2)._replace(rates=rates)
    optimiser = torch.optim.SGD(twin.parameters(), 0.2, 0.9, weight_decay=1e-3, fused=True)
    fall = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / 5)
    for rows in torch.from_numpy(copy.deepcopy(task.gen).permutation(23)).split(5):
        optimiser.zero_grad()
        F.cross_entropy(twin(task.inputs[rows]), task.labels[rows]).backward()
        optimiser.step()
        fall.step()
    descend(task)
    for have, want in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(have, want)


@pytest.mark.parametrize("optimiser", ["sgd:momentum=0.9", "adamw"])
def test_a_training_in_the_vectors_of_the_last_one_has_the_same_bits(optimiser):
    rule = make(catalog.OPTIMISERS, optimiser)
    alone = task_of(conv_net(), mask=half)._replace(optimiser=rule)
    descend(alone)
    spare = {}
    addresses = []
    for seed in (5, 2):
        task = task_of(conv_net(), mask=half, seed=seed)._replace(optimiser=rule, spare=spare)
        descend(task)
        addresses.append({name: vector.data_ptr() for name, vector in spare.items()})
    assert torch.equal(task.x, alone.x)
    assert addresses[0] == addresses[1] and addresses[0]


def test_a_state_that_its_client_keeps_has_memory_of_its_own():
    from fedmpi.core.parts import Descent
    spare = {}
    rule = make(catalog.OPTIMISERS, "adamw")
    states = [descend(task_of(conv_net())._replace(optimiser=rule, spare=spare), Descent(resumes=True)).state
              for _ in range(2)]
    assert spare == {} and all(torch.equal(*pair) for pair in zip(*(state.values() for state in states)))
    first, second = states
    assert first["mean"].data_ptr() != second["mean"].data_ptr()
