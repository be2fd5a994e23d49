"""The parts that a run is made of: tuples of pure functions and the values that pass between them.

This is the contract of every kind of part, in one place. A method is a factory with keyword arguments (its options)
that returns one of these; ValueError, with what it got and what it expected, refuses an option. Sizes: P values in the
model vector, Q prunable, R trained, K kept (the support), C clients in the cohort, N clients in all, M coalitions.

============  ==================================  =====================================================
kind          its factory returns                 asked by
============  ==================================  =====================================================
strategy      ``Strategy``                        clients that train, the server that merges
optimiser     ``Optimiser``                       clients, in every step
schedule      ``Schedule``                        clients, in every step
augment       ``Augmentation``                    clients, for every batch
pruner        ``Pruner``                          the server after each merge, clients while they train
contribution  ``Contribution``                    the server after the answers, before the merge
weighting     ``Weighting``                       the server after the scores, before the merge
codec         ``Codec``                           both ends of every message
dataset       ``Dataset``, from ``(data_dir)``    the server, once before the run
partition     a function, see ``Partition``       the server, once before the run
noise         ``Noise``                           the server, once before the run
features      ``Features``                        each worker, once for each of its clients
fault         ``Fault``                           the server before the run, clients while they train
model         a network, see ``Model``            every rank, once
task          ``Objective``                       clients in every step, whoever evaluates
devices       ``Devices``                         the server, at moments of virtual time
sampler       ``Sampler``                         the server, at the start of a round
aggregation   ``Aggregation``                     the server, to know when to merge
============  ==================================  =====================================================

What holds for all of them: functions do not write to what they are given, but for what is said to change in place;
chance comes from the generator that they are given, never from torch's or numpy's own; a state is a dict that a
checkpoint can hold; the same arguments give the same answer. ``fedmpi.laws`` tests a part for all that, and
``fedmpi.plugins.contract`` checks the answers of parts that are not the catalogue's while they run.
"""

import contextlib
import math
from typing import Any, Callable, NamedTuple, Protocol

import numpy as np
import torch

from fedmpi.core.layout import Layout


class Round(NamedTuple):
    """Where a run stands: round ``t`` in 1..``rounds``, 0 before the first.

    A part that looks at ``rounds`` says what it makes of it: its field ``planned`` is a function of a schedule, and
    where that returns the same number for two schedules, the part does the same. A run can be extended by more rounds
    as far as they agree, see ``fedmpi.build.extend``; a part that looks at ``t`` alone has no ``planned``.
    """

    t: int
    rounds: int


class Facts(NamedTuple):
    """What a part may know of a run before it starts: its sizes, and properties of its other parts.

    Any part that is a tuple of functions has ``refuses(facts) -> lines``, each a reason, with a way out, why it cannot
    work in this run: the first one of any part ends the run before work starts. It has ``notes(facts) -> lines``, each
    a sentence for the user about something in this part that comes to nothing in this run. Before each line comes the
    option that names the part. ``named`` holds how other parts were named, for these lines and for nothing else.
    """

    layout: Layout
    named: dict = {}                   # {option: "--option value"}
    given: frozenset = frozenset()     # names of the part's options that somebody gave
    rounds: int = 1
    epochs: int = 1               # that a client trains a round, the last perhaps cut short
    steps: int = 1                # the most that any client takes a round
    clients: int = 1              # in all
    cohort: int = 1               # clients that are merged at once
    largest: int = 1              # the most that are: all of them, where round 1 asks everybody
    drawn: int = 1                # clients that the sampler draws at once
    at_work: int = 1              # clients that are at work at once
    fixed_cohort: bool = False    # somebody gave --cohort
    everybody: bool = True        # all clients take part in every round
    timed: bool = True            # devices have a speed: there is a model of time
    asynchronous: bool = False    # answers are merged as they arrive: clients share no rounds
    candidates: bool = False      # the sampler asks more clients for their loss than it keeps
    opening: bool = False         # round 1 asks everybody
    common_model: bool = True     # all clients of a round receive the same model
    pruner_reports: bool = False  # clients report to the pruner what they saw while they trained
    server_update: bool = False   # the strategy asks for an update of the server's own samples
    needs_previous: bool = False  # some client's answer follows from the model of the round before
    own_masks: bool = False       # clients train masks of their own
    scored: bool = True           # weights in the merge follow from scores
    even: bool = False            # all clients weigh the same in the merge
    touched: int = 1              # clients that this part changes: of features and faults
    shape: tuple = ()             # of a sample
    ids: bool = False             # inputs are whole numbers that reach the model as they are
    judged: tuple = ()            # how estimators were named that look at updates, or ask for utilities
    fixed_masks: bool = True      # the first mask stays
    coded: bool = False           # the codec changes values
    own_tests: bool = False       # clients have test parts of their own
    sends: bool = False           # the strategy sends more than the model


def nothing(facts):
    """No line: what ``refuses`` and ``notes`` of a part say where it has no more to say."""
    return ()


def wants_images(facts):
    """What ``refuses`` of an augmentation tells where samples are no images."""
    if len(facts.shape) != 3:
        yield (f"it changes images (channels, height, width), and the samples are of shape "
               f"{facts.shape}; leave it out")
    elif facts.ids:
        yield ("it changes images, and these samples are whole numbers that reach the model as they "
               "are; leave it out")


def leaves_nobody_out(facts):
    """What ``notes`` of a sampler tells where all clients take part anyway."""
    if facts.everybody:
        yield (f"no effect: all {facts.clients} clients take part in every round; give a --cohort "
               "below that")


def without_model(facts):
    """What ``refuses`` of a strategy tells all of whose tensors are personal: the server has no model, and gets no
    update of one."""
    if facts.judged:
        yield (f"clients send no update of a model, which {', '.join(facts.judged)} would judge; "
               "take --contribution uniform, and nothing to --observe")
    if not facts.fixed_masks:
        yield ("clients send no update of a model, from which the pruner's next mask would follow; "
               "take --pruner dense, or static")
    if facts.candidates:
        yield ("the server has no model whose loss the sampler could ask clients for; "
               "take --sampler uniform")


class Objective(NamedTuple):
    """What a model is trained for and measured by (``--task``).

    ``loss(outputs (n, ...), targets (n, ...), reduction)`` works as torch's losses do: ``"mean"`` and ``"sum"`` give
    one differentiable value, ``"none"`` one value a sample (n,). ``metrics`` is ``{name: metric(outputs, targets) ->
    (n,) float or bool}``, one value a sample, whose means over all samples are recorded under these names.
    ``headline`` names the metric by which models are compared and selected; the larger the better where ``higher``.
    ``unit`` is that of the loss. ``check(outputs, targets, classes, option)`` raises UserError where a model's outputs
    for a few samples do not fit the targets; ``classes`` is 0 where the data set has none.

    ``worst``: what a coalition's loss counts as where it is larger, or not a number. ``totals(outputs, targets) ->
    (summed loss () float64, {metric: sum})`` gives the sums over the samples where that is faster than one value a
    sample. ``classes``: the targets are classes, one a sample, which some parts are made for.
    """

    loss: Callable
    metrics: dict
    headline: str
    check: Callable
    higher: bool = True
    unit: str = "nat"
    worst: float = 100.0
    totals: Callable | None = None
    classes: bool = False


class Optimiser(NamedTuple):
    """How a gradient moves a model (``--optimiser``), the same arithmetic as torch's own optimisers.

    ``init(x) -> state``, a dict of tensors, zero at the start: of the shape of ``x (..., R)``, whose rows are several
    clients, or of a count (...). ``step(x, g, state, lr)`` moves x and the state in place, elementwise, and may write
    to g; ``lr`` is a number, a tensor of no dimensions on the device, or a rate a row (G, 1). ``fused(xs, gs, states,
    lr)`` is the same step of one client in one kernel: ``xs`` and ``gs`` are lists of a tensor for each parameter,
    ``states`` has such a list for each entry of the shape of x, and counts as they are; None where there is no such
    kernel. ``travelled(lrs (steps,)) -> float`` is the displacement of a constant gradient of 1 after steps of these
    learning rates, which FedNova and SCAFFOLD divide by; None where the step is not linear in the gradients (Adam).
    """

    name: str
    init: Callable
    step: Callable
    travelled: Callable | None = None
    fused: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Schedule(NamedTuple):
    """How the clients' learning rate changes (``--schedule``).

    ``rate(now: Round, step, steps) -> factor`` of ``--lr`` for the step number ``step``, from 0, of a client's
    ``steps`` in a round; only where ``within`` does it depend on the last two. ``planned`` as for Round.
    """

    rate: Callable
    within: bool = False
    planned: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Augmentation(NamedTuple):
    """How training images are changed each time that they are seen (``--augment``).

    ``draw(gen, n, shape (C, H, W)) -> (n, width)`` int64 is what chance decides of n images, ``gen`` a numpy generator;
    ``apply(images (n, C, H, W), drawn (n, width)) -> new images`` of the same shape does it, on any device, each image
    by its own row.
    """

    draw: Callable
    apply: Callable
    width: int
    refuses: Callable = wants_images       # see Facts
    notes: Callable = nothing


class Descent(NamedTuple):
    """Local training that is plain descent on the mini-batches' loss, but for what is said here: what clients can be
    trained with side by side (``fedmpi.compute.stacked``).

    ``mu`` adds ``mu (x - base)`` to the gradient, base being the received model; ``shift(task) -> (R,)`` or None is
    one constant vector more that is added to every gradient of this client and round. ``loss`` takes the place of the
    objective's; ``shuffle`` deals the samples anew each epoch. With ``batches`` of its own a client trains alone.
    """

    mu: float = 0.0
    shift: Callable | None = None
    loss: Callable | None = None
    shuffle: bool = True
    batches: tuple = ()           # of slices, the rows of each batch of an epoch, in place of what is dealt


class Trained(NamedTuple):
    """What a client's local training came to."""

    loss: float                   # the mean over all samples seen
    steps: int                    # of the optimiser
    samples: int                  # seen, all epochs
    travelled: float = math.nan   # the optimiser's ``travelled`` of its steps' learning rates, where it has one


class Field(NamedTuple):
    """How one named array of a message travels.

    ``on`` says what it holds: ``"support"``, the values (K,) on the kept positions of the client's mask, for which the
    parts give and get a vector (P,); a tuple, a fixed shape; or ``"any"``, an array of any shape that may differ from
    client to client. ``fold`` says what the server gets of a cohort of C: ``"rows"`` one tensor (C, ...), ``"sum"``
    the exact sum over the cohort, which workers add up where they add up updates, or ``"list"`` of C tensors. ``coded``
    arrays, on the support only, pass through ``--codec``. All others travel in the dtype that they have. What is not
    ``billed`` would not travel in a real federation.
    """

    on: str | tuple = "support"
    fold: str = "rows"
    coded: bool = False
    billed: bool = True


class Probe(NamedTuple):
    """What a pruner watches while a client trains.

    ``step(g)`` sees the dense gradient (R,) of each step before masking; ``epoch(e)`` follows epoch ``e`` and returns
    True where it changed the task's mask in place; ``report()`` returns named arrays to send, numpy, after training
    (one named ``index`` holds sorted positions in [0, Q)). For the FLOPs: ``extra`` samples went through a pass of
    their own with a dense gradient, ``dense`` samples of the training had theirs taken densely.
    """

    step: Callable | None = None
    epoch: Callable | None = None
    report: Callable = dict
    extra: int = 0
    dense: int = 0


class Task(NamedTuple):
    """One client's local training. ``x`` is trained in place; off the mask it is zero and stays so."""

    model: torch.nn.Module
    layout: Layout
    x: torch.Tensor               # (P,) the model's own vector, at the received values when training starts
    g: torch.Tensor               # (R,) its gradient
    base: torch.Tensor            # (P,) the received values, read-only
    mask: torch.Tensor            # (Q,) bool, may be changed by the probe in place
    live: torch.Tensor            # (R,) float32, 1 where trained: mask, then ones
    inputs: torch.Tensor          # (n, ...) float32 on the model's device
    labels: torch.Tensor          # (n, ...) targets: (n,) int64 where they are classes
    epochs: int
    batch_size: int
    lr: float
    gen: Any                      # numpy generator of (TRAIN, round, client)
    schedule: Round
    probe: Probe = Probe()
    casting: Callable = contextlib.nullcontext    # the context of forward passes, see compute.sgd.casting
    recorder: Any = None          # graphs.Recorder of the model, on a GPU
    given: dict = {}              # what the strategy sent beside the model, by name; on the device
    kept: dict = {}               # what this client kept of its last round that counted; empty before; on the device
    optimiser: Optimiser | None = None            # None in tasks that nobody trains
    rates: Schedule | None = None                 # of lr; None: it stays
    clip_norm: float = 0.0        # the largest norm of a step's gradient, 0: any
    steps: int = 0                # where not 0, training ends after so many, within the last of the epochs
    augment: Augmentation | None = None
    objective: Objective | None = None            # what it is trained for; the engine always gives one
    classes: int = 0              # that the data set has
    server: Callable | None = None                # (features) -> outputs of the server's own network, in own tests


class Training(NamedTuple):
    """A training on the server's own samples, as the strategy's clients train: on the samples ``on``, from the model
    ``x (P,)`` on ``mask (Q,) bool``. A setting of 0 is that of the run."""

    x: torch.Tensor
    mask: torch.Tensor
    on: str = "server"
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0


class Lab(NamedTuple):
    """The server's own compute in one round, done by all ranks, to the same bits on any number of them.

    Samples are named by ``on``: ``"server"``, those of ``--server-data``, or ``"validation"``. Models are vectors
    (P,); ``mask (Q,) bool`` says off which weights they are zero, by which FLOPs are counted: as dense ones where it
    is None. No input is written to.

    ``evaluate(models (M, P), on, mask=None) -> (loss (M,), headline (M,))``, float64, the means over all samples in
    evaluation mode. ``outputs(x, on, rows=None, of="", mask=None) -> (n, ...) float32`` of the samples ``rows``, a
    pair (start, stop), all where it is None: the model's, or those of its module named ``of``. ``gradient(x, on,
    mask=None) -> (R,) float32`` is the dense gradient of the mean loss, in evaluation mode. ``train(trainings) ->
    [(x (P,), Trained)]``, in their order: several go to several ranks. The trained vectors are those that were given
    but on the masks and on what is never pruned.

    ``fit(x (P,), samples, loss, epochs=0, batch_size=0, lr=0.0) -> (x (P,), Trained)`` trains the server's own network,
    that of ``--server-model``, on what clients have sent: ``samples`` is a list of (inputs (n, ...), targets (n, ...)),
    which are gone through in their order, in batches that never hold samples of two of them;
    ``loss(outputs, targets) -> ()``. It is done by rank 0 alone, as steps follow one another.

    ``sizes`` holds the numbers of samples by name, ``labels`` how many of them have each label (L,), and under
    ``"clients"`` those of every client (N, L), as it sees them.
    """

    evaluate: Callable
    outputs: Callable
    gradient: Callable
    train: Callable
    sizes: dict
    labels: dict
    round: Round
    mask: torch.Tensor            # (Q,) bool: that of the model which was trained in this round
    fit: Callable | None = None


class Updates(NamedTuple):
    """What a cohort sent: a client a row, a kept weight a column.

    Where workers add updates up, merge gets their mean as the one row of U and n; all else has a row a client.
    """

    U: torch.Tensor               # (C, K) float32: trained minus received
    B: torch.Tensor | None        # (C, K) bool, which entries a client holds, U being 0 elsewhere; None where all do
    support: torch.Tensor         # (K,) int32, sorted positions in x
    n: torch.Tensor               # (C,) float64 samples
    trained: int                  # the first `trained` columns are trained parameters, the rest buffers
    root: torch.Tensor | None = None    # (K,) float32: of the server's training beside the clients', see Strategy
    parts: dict = {}              # what else clients answered, {name: (C, ...) or list of C tensors}, see Field
    totals: dict = {}             # and what of it is a sum over the cohort, {name: tensor}
    steps: torch.Tensor | None = None   # (C,) float64: steps of each client's optimiser
    travelled: torch.Tensor | None = None   # (C,) float64, see Trained
    losses: torch.Tensor | None = None      # (C,) float64: mean training losses
    seconds: torch.Tensor | None = None     # (C,) float64 of virtual time until each answer
    clients: torch.Tensor | None = None     # (C,) int64
    N: int = 0                    # clients in all
    round: Round | None = None

    def rows(self, chosen):
        """The updates of the chosen rows, ``chosen (C,) bool``. Sums over the cohort stay as they are."""
        columns = {name: column[chosen] for name in BY_CLIENT if (column := getattr(self, name)) is not None}
        parts = {name: _rows(part, chosen) for name, part in self.parts.items()}
        return self._replace(parts=parts, **columns)


BY_CLIENT = ("U", "B", "n", "steps", "travelled", "losses", "seconds", "clients")


def _rows(part, chosen):
    """The chosen rows of a tensor (C, ...) or of a list of C tensors."""
    if isinstance(part, list):
        return [row for row, wanted in zip(part, chosen.tolist()) if wanted]
    return part[chosen]


class Strategy(NamedTuple):
    """How clients train and the server merges.

    ``init(layout) -> state``, a flat dict of tensors; ``merge(state, x (P,), updates, weights (C,) float64 summing to
    1) -> (state, x)``, in which entries outside the support do not move. ``local`` is a ``Descent``, or a function
    ``local(task) -> Trained`` that trains ``task.x`` in place. ``optimiser``, ``pruner``, ``contribution`` and
    ``weighting`` are the parts it is used with where the user names none (no weighting: the contribution's own). Where
    ``linear``, merge also takes weights (M, C), a coalition a row and 0 for who is out, and returns x (M, P). Where
    ``additive``, merging one row, the mean of the updates by their weights, with weight 1 is the same merge.

    ``server_data`` says what it does with the samples of ``--server-data``: nothing, or it works with them
    ``"labelled"`` or ``"unlabelled"``. ``before(state, x (P,), mask) -> Training`` is what the server trains while the
    clients train, x being the model that they train: what that adds to x is ``updates.root (K,)``. ``after(state, x
    (P,), updates, lab) -> (state, x)`` is the server's own work on what was merged, once a round that merges
    something; entries outside the support do not move. Coalitions are judged by what is merged, without that.

    Messages hold more than the model and its update where the strategy says so, each array by its ``Field``:

    * ``sends`` names what goes to clients beside the model: ``send(state) -> {name: tensor}`` to all of them,
      ``send_to(state, client) -> {name: tensor}`` to one. Clients find it in ``task.given``.
    * ``answers`` names what clients answer beside their update, and ``keeps`` what each of them keeps for itself until
      it takes part again: ``reply(task, trained) -> (answer, kept)``, two dicts, once the client has trained. The
      server finds the answers in ``updates.parts`` and ``updates.totals``, the client what it kept in ``task.kept``,
      which is empty before its first round and stays as it was where its answer was not merged.
    * Where all tensors are personal the server has no model, and its loss and metrics are NaN.
    * ``steps`` asks for ``updates.steps`` and ``updates.travelled``.
    * ``by_entry``: the merge takes each entry of the vector by itself, over the clients that hold it, and the strategy
      needs nothing of a client's update as a whole. Only then may clients train networks of several kinds
      (``--also-model``): in ``updates.B`` each holds the entries of its own network.
    * ``features(network, inputs (n, ...)) -> (n, ...)`` is what a network of the server's own takes of a client's
      network (``--server-model``). ``Lab.fit`` trains that network, and ``task.server`` is it where clients are tested.
    * ``personal(layout) -> names`` are tensors of the model that stay with each client: they are trained, kept, and
      neither sent nor merged.

    A client is tested on its own test part (``--client-test``) by the model that it would be sent now, its personal
    tensors laid over it, or by ``own_model(task) -> (P,)`` where that gives one: ``task`` is the client's as it would
    train now, with ``given`` and ``kept``; it may train ``task.x`` in place and return it. None: the model itself.
    Where a client's outputs are not its model's, ``predict(task, inputs (n, ...)) -> (n, classes)`` gives them, of such
    a task and with its model at that vector, in evaluation mode and without gradients.

    ``fits(network, sample (1, ...))`` raises ValueError where the network cannot be trained this way.

    ``columns`` are columns of its own in the run file's table of rounds, which ``record(state, updates) -> {name:
    number}`` fills after each merge.
    """

    init: Callable
    merge: Callable
    local: Descent | Callable = Descent()
    optimiser: str = "sgd:momentum=0.9,weight_decay=0.001"
    pruner: str = "dense"
    contribution: str = "size"
    weighting: str = ""
    linear: bool = False
    server_data: str = ""
    before: Callable | None = None
    after: Callable | None = None
    additive: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None
    sends: dict = {}                       # {name: Field}
    send: Callable | None = None
    send_to: Callable | None = None
    answers: dict = {}                     # {name: Field}
    keeps: dict = {}                       # {name: Field}
    reply: Callable | None = None
    personal: Callable | None = None
    own_model: Callable | None = None
    predict: Callable | None = None
    fits: Callable | None = None
    update: bool = True                    # clients answer with the update of their model
    steps: bool = False                    # and with how many steps they took and how far those travelled: 16 bytes
    columns: tuple = ()                    # of (name, unit, description)
    record: Callable | None = None
    classes: bool = False                  # it is made for one class a sample: refused for other tasks
    by_entry: bool = False
    features: Callable | None = None


class Pruner(NamedTuple):
    """Which weights live.

    ``init(layout, x, schedule, gen) -> (state, mask)`` with ``schedule.t == 0``; ``evolve(state, mask, x, replies,
    schedule, gen) -> (state, mask)`` after each merge, the same mask object where nothing changes, or ``(state, mask,
    x)`` where it takes weights back to what they were (rewinding); ``probe(task) -> Probe`` on clients, or
    None. The server zeroes what the mask prunes, unless the pruner keeps ``residuals``: their
    last values, which are not sent. Where ``exact`` the number of kept weights never changes, and the server asserts
    it. ``masks(state, mask, x, layout, clients (C,)) -> C masks``, subsets of the mask, gives every client one of its
    own to train; the model that counts is then cut to ``nominal(state, mask, layout) -> mask``. ``units(state, x,
    structure, clients (C,), fleet, gen) -> C dicts {layer: (n,) bool}`` gives every client a smaller network, without
    the units that are False (``fedmpi.core.units``); clients that train the same get the same object, and the mask is
    full. Where clients ``move`` their masks while they train, updates do not add up.
    """

    init: Callable
    evolve: Callable
    probe: Callable | None = None
    residuals: bool = False
    exact: bool = True
    masks: Callable | None = None
    nominal: Callable | None = None
    units: Callable | None = None
    moves: bool = False
    fixed: bool = False           # its first mask stays
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None


class Replies(NamedTuple):
    """What a pruner may learn from a round: the updates, the weights they were merged with, the clients' reports."""

    updates: Updates
    weights: torch.Tensor         # (C,) float64
    reports: list                 # C dicts of numpy arrays
    layout: Layout
    uses: tuple                   # multiplications a weight and sample, a layer (1 for linear, positions for conv)
    clients: torch.Tensor         # (C,) int64
    scores: torch.Tensor          # (N,) float64: every client's remembered contribution
    sizes: torch.Tensor           # (N,) float64 samples


class Cohort(NamedTuple):
    """Who took part in a round, for those that judge contributions."""

    clients: torch.Tensor         # (C,) int64
    updates: Updates
    schedule: Round
    shares: torch.Tensor          # (C,) float64 summing to 1: the weights they have before this round is judged
    x: torch.Tensor               # (P,) the model that they received, 0 off the support
    layout: Layout
    reports: list = ()            # C dicts of numpy arrays, as the contribution's own ``report`` made them


class Scores(NamedTuple):
    """What an estimator found in a round."""

    phi: torch.Tensor             # (C,) float64, more is better
    state: dict = {}
    error: torch.Tensor | None = None   # (C,) float64 standard errors, where phi is an estimate from samples


class Contribution(NamedTuple):
    """Who contributed.

    ``score(state, cohort, utility, gen) -> Scores``, where ``utility(coalitions (M, C) bool, of="loss") -> (M,)
    float64`` is minus the validation loss (``of="headline"``, or by its old name ``"accuracy"``: the objective's
    headline, its sign turned where less is better) of what the strategy would have merged from each coalition; see
    ``fedmpi.server.score.Utility`` for what else it offers. ``init(n (N,) float64) -> state``, a dict.
    ``report(task) -> dict of numpy arrays`` runs on the client, at the received model before it trains, and is sent
    with its update. ``weighting`` turns the scores into weights where the user names no other.
    """

    score: Callable
    weighting: str = "relu"
    init: Callable = lambda n: {}
    report: Callable | None = None
    validated: bool = False       # asks for utilities, hence for validation samples on the server
    opening: bool = False         # wants everybody in round 1
    cumulative: bool = False      # scores hold what earlier rounds brought: the last one counts
    updates: bool = True          # looks at single updates, or asks for utilities
    classes: bool = False         # is made for one class a sample: refused for other tasks
    sees: str = "updates"         # what it looks at: recorded, since some look at what clients would not show
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None


class Weighting(NamedTuple):
    """What weight a score earns.

    ``init(n (N,) float64) -> state`` holds ``weights (N,)`` float64, every client's weight up to a common factor, and
    ``score (N,)`` where scores are remembered apart from them; ``weigh(state, phi (C,), cohort) -> (state, weights (C,)
    float64 summing to 1)`` leaves clients that did not take part as they were. Where ``fixed``, weights follow from
    sizes alone, and those of a cohort are in proportion to ``state["weights"]``.
    """

    init: Callable
    weigh: Callable
    fixed: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None


class Fleet(NamedTuple):
    """What the N clients' devices can do at one moment of virtual time."""

    speed: torch.Tensor           # (N,) float64 FLOP/s; infinite: training takes no time
    down: torch.Tensor            # (N,) float64 B/s to the client; infinite: the message is there at once
    up: torch.Tensor              # (N,) float64 B/s from the client
    latency: torch.Tensor         # (N,) float64 s a message, each way
    dropout: torch.Tensor         # (N,) float64 probability that a client that was asked never answers
    available: torch.Tensor       # (N,) bool: who can be asked


class Devices(NamedTuple):
    """The clients' devices: ``at(seconds, N, draw) -> Fleet`` at a moment of virtual time, where ``draw(*key)`` is the
    generator of the run's seed and the non-negative integers ``key``. The same arguments give the same fleet.
    ``digest`` is the sha256 of what they were read from, where that is a file: another file makes another run. Where
    they are not ``timed`` nothing takes time, and all answers come at once."""

    at: Callable
    digest: str = ""
    timed: bool = True
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Known(NamedTuple):
    """What a sampler may go by; NaN where the server has not heard from a client yet."""

    available: torch.Tensor       # (N,) bool
    sizes: torch.Tensor           # (N,) float64 samples
    scores: torch.Tensor          # (N,) float64: every client's remembered contribution
    losses: torch.Tensor          # (N,) float64: training loss when it last took part


class Sampler(NamedTuple):
    """Who takes part in a round.

    ``draw(gen, count, known) -> int64 (count,)`` distinct clients, all available (fewer where fewer are). Where
    ``candidates`` is not 0, the server draws ``max(count, candidates)`` instead, sends them the model, asks for its
    loss on their samples, and ``choose(count, clients (d,), losses (d,)) -> int64`` keeps ``count`` of them.
    """

    draw: Callable
    candidates: int = 0
    choose: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = leaves_nobody_out


class Aggregation(NamedTuple):
    """When the server merges, in virtual time.

    Synchronous where ``buffer`` is 0: the server asks ``ceil(count * (1 + over))`` clients, merges the first ``count``
    answers and waits ``deadline`` seconds at most. Else ``concurrency`` clients (0: the cohort) are always at work,
    each on the model of its own start, and ``buffer`` answers make a merge, their updates scaled by
    ``discount(staleness (C,) float64) -> (C,)``, where staleness counts merges since the client's start; where
    ``mixing``, an update counts from the server's present model, not from the one that its client received.
    """

    deadline: float = math.inf
    over: float = 0.0
    buffer: int = 0
    concurrency: int = 0
    discount: Callable | None = None
    mixing: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Coding(NamedTuple):
    """What a codec that draws may know of the message that it encodes."""

    gen: Any                      # numpy generator of (ENCODE, round, client)
    t: int                        # the round whose model is trained
    client: int                   # whose update it is, -1 for the model itself


class Codec(NamedTuple):
    """Values on the wire: ``encode(values (K,) float32) -> dict of numpy arrays``, ``decode(arrays, K) -> (K,)``.

    ``bound(values) -> (K,)`` is the largest error of each value after a round trip. Where it is for updates only, the
    server publishes models by the codec ``down``. Where it is ``exact``, decoding gives back the very values, and their
    number alone decides the size. Where there is ``feedback``, a client adds what earlier encodings of
    its updates have lost before it encodes, and remembers what that loses. Where it is for ``weights``, what is never
    pruned (biases, norms, running averages) travels as float32 beside it. Where it ``draws``, it is called as
    ``encode(values, coding)``: by chance that is the same on any number of ranks.
    """

    encode: Callable
    decode: Callable
    bound: Callable
    down: "Codec | None" = None
    exact: bool = False
    feedback: bool = False
    weights: bool = False
    draws: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Noise(NamedTuple):
    """``rates(clients, gen) -> (clients,) float64`` levels; ``corrupt(labels (n,), level, classes, gen) -> copy``.

    Where clients have something in common, ``shared(classes, gen)`` draws it once and ``corrupt`` gets it as a fifth
    argument.
    """

    rates: Callable
    corrupt: Callable
    shared: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Features(NamedTuple):
    """``levels(clients, gen) -> (clients,) float64`` that are recorded as the truth; ``apply(inputs (n, ...) float32 on
    any device, labels (n,) int64 true labels, level, classes, gen) -> new tensor`` of the same shape, dtype and device.

    ``gen`` is a numpy generator of the client: the same one gives the same inputs. Level 0 changes no value.
    """

    levels: Callable
    apply: Callable
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Fault(NamedTuple):
    """Who is at fault, what such a client is worth, and what it does.

    ``who(clients, gen) -> (clients,) bool``; ``quality`` in [0, 1] is the truth that estimators are judged by, 1 for an
    honest client. ``shards(shards, who, gen) -> (new list, source (clients,) int64)`` takes and gives int64 arrays of
    sample numbers; ``source`` is the client that each one copies, -1 for none. ``labels(labels (n,), classes, gen) ->
    copy``; ``inputs(inputs (n, ...) float32, gen) -> new tensor``.

    ``local(task, train, previous) -> Trained`` stands in for the strategy's local training, which is ``train() ->
    Trained``: ``task.x (P,)`` is changed in place, on live weights only. Its chance comes from ``task.gen`` alone.
    Where ``stale`` the engine gives ``previous (P,)``, the model published in the round before, None in the first
    round; otherwise None.
    """

    who: Callable
    quality: float
    shards: Callable | None = None
    labels: Callable | None = None
    inputs: Callable | None = None
    local: Callable | None = None
    stale: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None        # see Round


class Dataset(NamedTuple):
    """Arrays of samples and their targets, from a factory ``(data_dir, **options)``.

    ``checked`` of ``fedmpi.methods.datasets.dataset`` holds them to what is said here, and raises DataError; its
    ``moments`` gives mean and std. The last five fields may be left out. Samples are (N, C, H, W) images, (N, F)
    features, or of any other shape that the model takes. Targets are classes (N,) int64; values (N,) or (N, d)
    float32; or labels (N, C) uint8, 1 where label c holds, as ``fedmpi list task`` has uses for them.
    """

    # (N, ...), C-contiguous: uint8, float32, or whole numbers as int16, int32 or int64.
    x_train: np.ndarray
    y_train: np.ndarray     # (N,) int64 in [0, classes); (N,) or (N, d) float32; (N, C) uint8
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int            # 0 where targets are no classes
    mean: tuple             # a float per channel, one for features; applies after uint8 is divided by 255
    std: tuple
    names: tuple = ()       # a text per class or label; empty where they are called by their numbers
    client: np.ndarray | None = None    # (N,) int64: the natural client of each training sample
    client_names: tuple = ()            # a text per natural client
    ids: bool = False       # samples are all whole numbers and no images: an embedding's, perhaps
    told: tuple = ()        # lines for the user about how the arrays were read


class Partition(Protocol):
    """Who holds which samples: the function that a partition's factory returns.

    ``labels (n,) int64`` are the training samples' targets, which are only read; ``gen`` is a numpy generator. The
    answer is a list of ``clients`` int64 arrays of sample numbers in [0, n): at least one number each, and no sample
    twice. Samples that are left out are nobody's. ValueError where such a partition cannot be.
    """

    def __call__(self, labels, clients, gen): ...


class Model(Protocol):
    """The network: ``factory(shape, classes, **options) -> torch.nn.Module``.

    ``shape`` is that of one sample without the batch, and ``classes`` the number of outputs that the task asks for:
    a logit a class or label, or a value. The module takes inputs (n, *shape), float32 or, of whole numbers, int64, and
    gives outputs (n, classes): float32 or bfloat16, finite, without a softmax, and with a gradient. Initial weights
    come from torch's global generator, which is seeded before, the same on every rank. In evaluation mode each
    sample's outputs follow from that sample alone. ``parameter.prunable = True`` or ``False`` overrules what is
    pruned, and ``requires_grad = False`` freezes. ValueError for a shape that it cannot take.
    """

    def __call__(self, shape, classes): ...
