"""Samples for laws: a small network with all regions of the vector, updates, a task, a cohort."""

import numpy as np
import torch

from fedmpi.core.layout import bind
from fedmpi.core.parts import Cohort, Round, Strategy, Task, Updates
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.tasks.classification import classification

CLASSES = 10


def small_network():
    """``((model, gradient), layout, x)``, the model's parameters being views of x."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16, CLASSES),
    )
    layout, x, g = bind(model)
    return (model, g), layout, x


def small_layout():
    """``(layout, x (P,))`` of a convolution, a norm and a linear layer."""
    _, layout, x = small_network()
    return layout, x


def random_updates(layout, mask, clients=3, own=False, seed=0, of=None):
    """Random ``Updates`` on the support of ``mask (Q,)``.

    With ``own`` each client lacks some of the entries, and sends 0 there. The updates have
    the answers of the strategy ``of`` as well.
    """
    gen = torch.Generator().manual_seed(seed)
    support = layout.support(mask)
    shape = (clients, len(support))
    U = torch.randn(shape, generator=gen)
    B = None
    if own:
        B = torch.rand(shape, generator=gen) < 0.7
        # A client sends 0 for an entry outside its own mask.
        U = U * B
    is_trained = support < layout.R
    updates = Updates(
        U,
        B,
        support,
        n=torch.arange(1, clients + 1, dtype=torch.float64) * 10,
        trained=int(is_trained.sum()),
        clients=torch.arange(clients),
        N=2 * clients,
        round=Round(1, 10),
    )
    if of is None:
        return updates
    return answered(updates, of, gen)


def answered(updates, strategy: Strategy, gen):
    """The updates with random values of all answers of a strategy's clients."""
    C, K = updates.U.shape
    parts, totals = {}, {}
    for name, field in strategy.answers.items():
        shape = field.on
        if shape == "support":
            shape = (K,)
        if shape == "any":
            parts[name] = [torch.randn(3, generator=gen) for _ in range(C)]
        elif field.fold == "sum":
            totals[name] = torch.randn(shape, generator=gen)
        else:
            parts[name] = torch.randn(C, *shape, generator=gen)
    # Unequal, as with clients of unequal sizes.
    steps = torch.arange(1, C + 1, dtype=torch.float64)
    travelled = 0.1 * steps
    return updates._replace(parts=parts, totals=totals, steps=steps, travelled=travelled)


def small_task(client=0, network=None):
    """A client's task on random samples, before it trains: ``task.x`` is the received model."""
    (model, g), layout, x = network or small_network()
    gen = torch.Generator().manual_seed(client)
    # Clients of different sizes, the last batch cut short.
    n = 12 + client
    return Task(
        model,
        layout,
        x,
        g,
        base=x.clone(),
        mask=layout.full_mask(),
        trainable=torch.ones(layout.R),
        inputs=torch.randn(n, 1, 4, 4, generator=gen),
        labels=torch.randint(0, CLASSES, (n,), generator=gen),
        epochs=1,
        batch_size=4,
        lr=0.1,
        gen=np.random.default_rng(client),
        now=Round(1, 5),
        optimiser=sgd(),
        objective=classification(),
    )


def small_cohort(clients=3):
    """A ``Cohort`` of random updates, with equal shares."""
    layout, x = small_layout()
    return Cohort(
        clients=torch.arange(clients),
        updates=random_updates(layout, layout.full_mask(), clients),
        now=Round(1, 5),
        shares=torch.full((clients,), 1 / clients, dtype=torch.float64),
        x=x,
        layout=layout,
    )


class Additive:
    """The utility of a game with a fixed worth of every client.

    Also of a model with a linear loss, by its gradient and curvature.
    """

    VALUE = torch.tensor([.5, -.2, .1, 0., .3], dtype=torch.float64)

    def __init__(self, clients, layout):
        self.value = self.VALUE[clients]
        self.layout = layout

    def __call__(self, coalitions, of="loss"):
        return coalitions.double() @ self.value

    def on(self, updates, x):
        return self

    def gradient(self, x):
        return torch.ones(self.layout.R)

    def curvature(self, x, v):
        return v.clone()
