"""The parts of a run: tuples of pure functions, and the values between them.

This module is the contract of every kind of part, in one place. A method is a factory: it takes
its options as keyword arguments and returns one of these tuples. A factory refuses a bad option
by ValueError, with the wrong value and the accepted ones.

Sizes: P values in the model vector, Q prunable, R trained, K kept (the support), C clients in the
cohort, N clients in all, M coalitions.

============  ==================================  ============================================
kind          its factory returns                 called by
============  ==================================  ============================================
strategy      ``Strategy``                        clients that train, the server that merges
optimiser     ``Optimiser``                       clients, in every step
schedule      ``Schedule``                        clients, in every step
augment       ``Augmentation``                    clients, for every batch
pruner        ``Pruner``                          the server after each merge, training clients
contribution  ``Contribution``                    the server, before the merge
weighting     ``Weighting``                       the server after the scores, before the merge
codec         ``Codec``                           both ends of every message
dataset       ``Dataset``, from ``(data_dir)``    the server, once before the run
partition     a function, see ``Partition``       the server, once before the run
noise         ``Noise``                           the server, once before the run
features      ``Features``                        each worker, once for each of its clients
fault         ``Fault``                           the server before the run, training clients
model         a network, see ``Model``            every rank, once
adapters      ``Adapters``                        every rank, once, on its new model
task          ``Objective``                       clients in every step, and every evaluation
devices       ``Devices``                         the server, at moments of virtual time
sampler       ``Sampler``                         the server, at the start of a round
timing        ``Timing``                          the server, to know when to merge
============  ==================================  ============================================

Rules for all kinds:

* A function never writes to its arguments, unless its contract says "in place".
* Chance comes from the generator argument, never from torch's or numpy's own generators.
* A state is a dict of values for a checkpoint.
* The same arguments give the same answer.

``fedmpi.laws`` tests a part against these rules. ``fedmpi.plugins.contract`` checks the answers of
parts from outside the catalogue while they run.
"""

import contextlib
import math
from typing import Any, Callable, NamedTuple, Protocol

import numpy as np
import torch

from fedmpi.core.layout import Layout
from fedmpi.core.renamed import renamed
from fedmpi.core.support import positions_of


def __getattr__(name):
    # A plain AttributeError would not say the new name to ``from ... import Known``.
    if name == "Known":
        raise ImportError("Known is called ClientRecords now")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- a run as its parts see it ---


class Round(NamedTuple):
    """A moment of a run: round ``t`` in 1..``rounds``, 0 before the first.

    A part with a use for ``rounds`` has a field ``planned``. ``planned(Round(t, rounds))`` is the
    number that the part makes of ``rounds`` in round t. A run can be extended after round t if
    these numbers of rounds 0 to t are the same for the old ``rounds`` and for the new, see
    ``fedmpi.build.extend``. A part with a use for ``t`` alone has no ``planned``.
    """

    t: int
    rounds: int


@renamed(given="user_options", judged="estimators")
class Facts(NamedTuple):
    """The facts about a run before its start, for its parts: sizes, and other parts' traits.

    A part, if it is a tuple of functions, has two functions of these facts:

    * ``refuses(facts) -> lines``: each line is a reason, with a way out, why the part cannot work
      in this run. The first line of any part ends the run before work starts.
    * ``notes(facts) -> lines``: each line is a sentence for the user about a setting of this part
      without effect in this run.

    The part's option is put before each line. ``named`` holds the names of the other
    parts, for these lines and for nothing else.
    """

    layout: Layout
    named: dict = {}                   # {option: "--option value"}
    user_options: frozenset = frozenset()    # names of the part's options that the user gave
    rounds: int = 1
    epochs: int = 1               # of a client in a round; the last may be cut short
    steps: int = 1                # the most steps of any client in a round
    clients: int = 1              # in all
    cohort: int = 1               # clients that are merged at once
    largest: int = 1              # the largest cohort of any round: round 1 may ask everybody
    drawn: int = 1                # clients that the sampler draws at once
    at_work: int = 1              # clients that are at work at once
    fixed_cohort: bool = False    # the user gave --cohort
    everybody: bool = True        # all clients take part in every round
    timed: bool = True            # devices have a speed: there is a model of time
    asynchronous: bool = False    # answers are merged as they arrive: clients share no rounds
    candidates: bool = False      # the sampler asks more clients for their loss than it keeps
    opening: bool = False         # round 1 asks everybody
    common_model: bool = True     # all clients of a round receive the same model
    pruner_reports: bool = False  # clients send observations from their training to the pruner
    server_update: bool = False   # the strategy asks for an update of the server's own samples
    needs_previous: bool = False  # some client's answer follows from the previous round's model
    own_masks: bool = False       # clients train masks of their own
    # Clients train masks of their own in one round, too: the pruner gives or moves them.
    pruned_apart: bool = False
    scored: bool = True           # weights in the merge follow from scores
    even: bool = False            # all clients weigh the same in the merge
    touched: int = 1              # clients that this part changes: of features and faults
    shape: tuple = ()             # of a sample
    ids: bool = False             # inputs are whole numbers that reach the model as they are
    stream: bool = False          # samples are windows of a stream of tokens
    estimators: tuple = ()        # names of those that look at updates or ask for utilities
    fixed_masks: bool = True      # the first mask stays
    coded: bool = False           # the codec changes values
    own_tests: bool = False       # clients have test parts of their own
    sends: bool = False           # the strategy sends more than the model
    linear: bool = True           # the merge is a weighted mean
    trained_otherwise: bool = False   # some clients' training is bent by a fault
    linear_steps: bool = True     # the optimiser says how far its steps go, see Optimiser.travelled
    optimiser_state: tuple = ()   # names of the tensors of the optimiser's state
    resumes: bool = False         # clients keep the optimiser's state from round to round
    clipped: bool = False         # the user gave --clip-norm: gradients may be shortened
    same_steps: bool = False      # all clients take as many steps in a round
    headline: str = "accuracy"    # the task's metric by which models are compared
    usual_loss: bool = True       # the loss is that of --task classification


def nothing(facts):
    """No lines: ``refuses`` or ``notes`` of a part with nothing to say."""
    return ()


def wants_images(facts):
    """``refuses`` of augmentations: samples that are not images."""
    if len(facts.shape) != 3:
        yield (
            "it changes images (channels, height, width), and the samples are of shape "
            f"{facts.shape}; leave it out"
        )
    elif facts.ids:
        yield (
            "it changes images, and these samples are whole numbers that reach the model as they "
            "are; leave it out"
        )


def leaves_nobody_out(facts):
    """``notes`` of samplers: all clients take part anyway."""
    if facts.everybody:
        yield (
            f"no effect: all {facts.clients} clients take part in every round; give a --cohort "
            "below that"
        )


def wants_linear_steps(facts):
    """``refuses`` of strategies that divide by ``Trained.travelled``."""
    if not facts.linear_steps:
        yield (
            "it divides by how far clients went, and the steps of "
            f"{facts.named['optimiser']} have no such length; take --optimiser sgd"
        )


def own_loss(facts):
    """``notes`` of strategies whose clients train by the strategy's loss instead of the task's."""
    if not facts.usual_loss:
        yield (
            f"clients train by a loss of its own: that of {facts.named['task']} counts in "
            "tests alone"
        )


def without_model(facts):
    """``refuses`` of strategies that keep all tensors on the clients.

    Their server has no model, and receives no update of one.
    """
    if facts.estimators:
        yield (
            f"clients send no update of a model, which {', '.join(facts.estimators)} would judge; "
            "take --contribution uniform, and nothing to --observe"
        )
    if not facts.fixed_masks:
        yield (
            "clients send no update of a model, from which the pruner's next mask would follow; "
            "take --pruner dense, or static"
        )
    if facts.candidates:
        yield (
            "the server has no model whose loss the sampler could ask clients for; "
            "take --sampler uniform"
        )


# --- training ---


class Objective(NamedTuple):
    """A model's loss for training, and its metrics (``--task``).

    ``loss(outputs (n, ...), targets (n, ...), reduction)`` works as torch's losses do: ``"mean"``
    and ``"sum"`` give one differentiable value, ``"none"`` one value a sample (n,).

    ``metrics`` is ``{name: metric(outputs, targets) -> (n,) float or bool}``, one value a sample.
    The means over all samples are recorded under these names. ``headline`` names the metric by
    which models are compared and selected; ``higher``: the larger the better. ``unit`` is the
    unit of the loss.

    ``check(outputs, targets, classes, option)`` raises UserError if a model's outputs for a few
    samples do not fit the targets; ``classes`` is 0 if the data set has none.

    ``worst`` replaces a coalition's loss if it is larger, or not a number. ``totals(outputs,
    targets) -> (summed loss () float64, {metric: sum})`` gives the sums over the samples, if there
    is a faster way to them than one value a sample. ``classes`` is True if every target is one
    class; parts that need classes refuse other tasks.

    ``outputs(targets (N, ...), classes) -> int`` is the number of a model's outputs for the targets
    of all training samples: more than one for a mean and a variance, say. None: one for each class,
    label or value.

    ``derived`` is ``{name: metric(mean loss, token_bytes) -> float}``: metrics that are no means
    over samples, but follow from the mean loss over all of them, such as the perplexity. They are
    recorded, too. ``token_bytes`` are the bytes of text for a token, see ``Stream``.
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
    outputs: Callable | None = None
    derived: dict = {}

    @property
    def recorded(self):
        """The names of all metrics of an evaluation."""
        return [*self.metrics, *self.derived]


class Optimiser(NamedTuple):
    """The step from a gradient to a model (``--optimiser``), in the arithmetic of torch's own.

    ``init(x) -> state`` is a dict of tensors, zero at the start: of the shape of ``x (..., R)``,
    whose rows are several clients, or counts (...).

    ``step(x, g, state, lr)`` changes x and the state in place, elementwise, and may write to g.
    ``lr`` is a number, a tensor of no dimensions on the device, or a rate a row (G, 1).

    ``fused(xs, gs, states, lr)`` is the same step of one client in one kernel. ``xs`` and ``gs``
    are lists of a tensor for each parameter; ``states`` has such a list for each entry of the
    shape of x, and counts as they are. None: there is no such kernel.

    ``travelled(lrs (steps,)) -> float`` is the displacement of a constant gradient of 1 after
    steps of these learning rates; FedNova and SCAFFOLD divide by it. None: the step is not linear
    in the gradients (Adam).

    ``grown(state, layout, mask (Q,) bool)`` changes the state of weights that have grown, in place;
    ``state`` has no dimension but (R,). None: they begin at 0.
    """

    name: str
    init: Callable
    step: Callable
    travelled: Callable | None = None
    fused: Callable | None = None
    grown: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Schedule(NamedTuple):
    """The clients' learning rate over time (``--schedule``).

    ``rate(now: Round, step, steps) -> factor`` multiplies ``--lr`` in step number ``step``, from
    0, of a client's ``steps`` in a round. It depends on ``step`` and ``steps`` only if ``within``.
    ``planned`` as for Round.
    """

    rate: Callable
    within: bool = False
    planned: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Augmentation(NamedTuple):
    """A random change of training images, a new one in every epoch (``--augment``).

    ``draw(gen, n, shape (C, H, W)) -> (n, width)`` int64 holds the random choices for n images;
    ``gen`` is a numpy generator. ``apply(images (n, C, H, W), drawn (n, width)) -> new images`` of
    the same shape changes each image by its own row of choices, on any device.
    """

    draw: Callable
    apply: Callable
    width: int
    refuses: Callable = wants_images       # see Facts
    notes: Callable = nothing


class Descent(NamedTuple):
    """Local training by mini-batch descent with a few changes.

    ``fedmpi.compute.stacked`` trains such clients side by side.

    ``mu`` adds ``mu (x - base)`` to the gradient, base being the received model. ``shift(task) ->
    (R,)`` or None is a constant vector, added to every gradient of this client and round.
    ``loss`` replaces the objective's. ``shuffle`` deals the samples anew each epoch. If it
    ``resumes``, a client keeps its optimiser's state until its next round, and goes on from there.

    ``arrives(task)``, of a strategy of which a part of the model travels, changes ``task.x`` in
    place before step number ``delay``, from 0; after the last step of a shorter training. It says
    what the client makes of the received part. Such clients train one by one.
    """

    mu: float = 0.0
    shift: Callable | None = None
    loss: Callable | None = None
    shuffle: bool = True
    resumes: bool = False
    arrives: Callable | None = None
    delay: int = 0


class Trained(NamedTuple):
    """The result of a client's local training, beside its vector."""

    loss: float                   # the mean over all samples seen
    steps: int                    # of the optimiser
    samples: int                  # seen, all epochs
    # ``Optimiser.travelled`` of the steps' learning rates; NaN without it.
    travelled: float = math.nan
    # {name: tensor}: the optimiser's state at the end, of a ``Descent`` that resumes.
    state: dict = {}


class Travels(NamedTuple):
    """The part of the model that travels in a round."""

    down: torch.Tensor            # (P,) bool: the values that clients receive
    up: torch.Tensor              # (P,) bool: the values whose updates clients send


class Field(NamedTuple):
    """How one named array of a message travels.

    ``on`` names its contents: ``"support"``, the values (K,) on the kept positions of the client's
    mask, as a vector (P,) in the parts' hands; a tuple, a fixed shape; or ``"any"``, an array of a
    shape that may differ from client to client.

    ``fold`` names the server's view of a cohort of C: ``"rows"`` one tensor (C, ...); ``"sum"``
    the exact sum over the cohort, added up by workers if they add up updates; or ``"list"`` of C
    tensors.

    ``coded`` arrays, on the support only, pass through ``--codec``. All others travel in their own
    dtype. ``billed=False``: its bytes are not counted, as it would not travel in a real federation.
    """

    on: str | tuple = "support"
    fold: str = "rows"
    coded: bool = False
    billed: bool = True


class Probe(NamedTuple):
    """A pruner's view of a client's training.

    ``step(g)`` sees the dense gradient (R,) of each step before masking. ``epoch(e)`` follows
    epoch ``e`` and returns True if it changed the task's mask in place. ``report()`` returns named
    numpy arrays to send after training; one named ``index`` holds sorted positions in [0, Q).

    For the FLOPs: ``extra`` samples went through a pass of their own with a dense gradient, and
    ``dense`` samples of the training had their gradient taken densely.
    """

    step: Callable | None = None
    epoch: Callable | None = None
    report: Callable = dict
    extra: int = 0
    dense: int = 0


@renamed(live="trainable", given="message", schedule="now")
class Task(NamedTuple):
    """One client's local training. ``x`` is trained in place; off the mask it stays zero."""

    model: torch.nn.Module
    layout: Layout
    x: torch.Tensor               # (P,) the model's own vector, first at the received values
    g: torch.Tensor               # (R,) its gradient
    base: torch.Tensor            # (P,) the received values, read-only
    mask: torch.Tensor            # (Q,) bool, may be changed by the probe in place
    trainable: torch.Tensor            # (R,) float32, 1 on trained entries: the mask, then ones
    inputs: torch.Tensor          # (n, ...) float32 on the model's device
    labels: torch.Tensor          # (n, ...) targets: (n,) int64 if they are classes
    epochs: int
    batch_size: int
    lr: float
    gen: Any                      # numpy generator of (TRAIN, round, client)
    now: Round
    probe: Probe = Probe()
    # The context of forward passes, see ``compute.sgd.casting``.
    casting: Callable = contextlib.nullcontext
    recorder: Any = None          # graphs.Recorder of the model, on a GPU
    # {name: (R,)}: the optimiser's vectors of this rank's last training, free to be written to.
    # None: every training has vectors of its own.
    spare: dict | None = None
    # {name: tensor on the device} of the strategy's, see ``Strategy.sends``.
    message: dict = {}
    # {name: tensor on the device} that this client kept of its last merged round.
    kept: dict = {}
    optimiser: Optimiser | None = None            # None in tasks without training
    # {name: tensor on the device}: the optimiser's state at the end of the client's last round, for
    # a ``Descent`` that resumes; else empty. Training goes on in these tensors.
    inner: dict = {}
    rates: Schedule | None = None                 # of lr; None: constant
    clip_norm: float = 0.0        # the largest norm of a step's gradient, 0: any
    accumulate: int = 1           # parts of a batch, whose gradients are added up
    # {name of a weight: kernel} of linear layers that skip pruned weights in steps of training.
    kernels: dict = {}
    steps: int = 0                # training ends after so many; 0: after the epochs
    augment: Augmentation | None = None
    objective: Objective | None = None            # the engine always gives one
    classes: int = 0              # of the data set
    # (features) -> outputs of the server's own network, in clients' own tests.
    server: Callable | None = None
    # (m,) int64 on the device, where samples are windows of a stream: training draws windows that
    # begin at any token of it, while inputs and labels hold each token once.
    stretch: torch.Tensor | None = None
    # (P,) bool on the device, where only a part of the model travels: the values that came in this
    # round. ``base`` then has the last received value of each entry, and x the client's own values.
    came: torch.Tensor | None = None


class Training(NamedTuple):
    """A training on the server's own samples, by the same descent as the strategy's clients.

    It starts from the model ``x (P,)`` on ``mask (Q,) bool`` and uses the samples ``on``. A
    setting of 0 stands for the run's own.
    """

    x: torch.Tensor
    mask: torch.Tensor
    on: str = "server"
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0


class Lab(NamedTuple):
    """The server's own compute in one round, done by all ranks: the same bits on any number.

    ``on`` names samples: ``"server"``, the samples of ``--server-data``, or ``"validation"``.
    Models are vectors (P,). ``mask (Q,) bool`` tells their nonzero weights, to count FLOPs; None
    counts a dense model. No input is written to.

    * ``evaluate(models (M, P), on, mask=None) -> (loss (M,), headline (M,))``: float64 means over
      all samples in evaluation mode.
    * ``outputs(x, on, rows=None, of="", mask=None) -> (n, ...) float32``: the model's outputs, or
      its module's named ``of``, for the samples ``rows``, a pair (start, stop); None: all.
    * ``gradient(x, on, mask=None) -> (R,) float32``: the dense gradient of the mean loss, in
      evaluation mode.
    * ``train(trainings) -> [(x (P,), Trained)]``, in their order: several go to several ranks. A
      trained vector differs from its start on the mask and on never-pruned values only.
    * ``fit(x (P,), samples, loss, epochs=0, batch_size=0, lr=0.0) -> (x (P,), Trained)`` trains
      the server's own network (``--server-model``) on the clients' answers. ``samples`` is a list
      of (inputs (n, ...), targets (n, ...)), used in their order; no batch holds samples of two of
      them. ``loss(outputs, targets) -> ()``. Rank 0 does it alone, as steps follow one another.

    ``sizes`` holds the numbers of samples by name, and ``labels`` how many of them have each label
    (L,); under ``"clients"`` it holds those counts for every client (N, L), as the client sees
    its labels.
    """

    evaluate: Callable
    outputs: Callable
    gradient: Callable
    train: Callable
    sizes: dict
    labels: dict
    round: Round
    mask: torch.Tensor            # (Q,) bool, of the model that was trained in this round
    fit: Callable | None = None


class Adapters(NamedTuple):
    """Small trained matrices beside a frozen model (``--adapters``).

    ``attach(network, gen, base) -> network`` freezes the network's parameters but for a few, and
    puts modules with an adapter in the place of others, see ``fedmpi.core.adapters``. Chance comes
    from ``gen``, a torch generator, the same on every rank. ``base``: merges change the adapted
    weights, which become buffers. All tensors that the network had keep their names. None: the whole
    network is trained. ValueError for a network without a place for adapters.
    """

    attach: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


# --- the server's side ---


@renamed(root="server_update")
class Updates(NamedTuple):
    """A cohort's answers: a client a row, a kept weight a column.

    If workers add updates up, merge gets their mean as the one row of U and n; all other tensors
    keep a row a client.
    """

    U: torch.Tensor               # (C, K) float32: trained minus received
    # (C, K) bool: the entries that a client holds, U being 0 elsewhere; None: all of them.
    B: torch.Tensor | None
    places: Any                   # (K,) sorted positions in x: int32, or a Support
    n: torch.Tensor               # (C,) float64 samples
    trained: int                  # number of columns of trained parameters; buffers follow
    # (K,) float32: the update of the server's training beside the clients', see Strategy.
    server_update: torch.Tensor | None = None
    # Further answers, see Field: {name: (C, ...) or list of C tensors}, and {name: sum}.
    parts: dict = {}
    totals: dict = {}
    steps: torch.Tensor | None = None       # (C,) float64: steps of each client's optimiser
    travelled: torch.Tensor | None = None   # (C,) float64, see Trained
    losses: torch.Tensor | None = None      # (C,) float64: mean training losses
    seconds: torch.Tensor | None = None     # (C,) float64 of virtual time until each answer
    clients: torch.Tensor | None = None     # (C,) int64
    N: int = 0                              # clients in all
    round: Round | None = None
    # (C, K) bool: the entries that a client's codec has sent; None: all that the client holds. Means
    # are over these, see Codec.
    sent: torch.Tensor | None = None

    @property
    def support(self):
        """(K,) int32: the sorted positions in x."""
        return positions_of(self.places)

    def rows(self, chosen):
        """The updates of the rows ``chosen (C,) bool``. Sums over the cohort stay as they are."""
        parts = {name: _rows(part, chosen) for name, part in self.parts.items()}
        replaced = {"parts": parts}
        for name in BY_CLIENT:
            column = getattr(self, name)
            if column is not None:
                replaced[name] = column[chosen]
        return self._replace(**replaced)


BY_CLIENT = ("U", "B", "sent", "n", "steps", "travelled", "losses", "seconds", "clients")


def _rows(part, chosen):
    """The chosen rows of a tensor (C, ...) or of a list of C tensors."""
    if isinstance(part, list):
        return [row for row, wanted in zip(part, chosen.tolist()) if wanted]
    return part[chosen]


class Strategy(NamedTuple):
    """How clients train and the server merges.

    ``init(layout) -> state`` is a flat dict of tensors. ``merge(state, x (P,), updates, weights
    (C,) float64 summing to 1) -> (state, x)`` moves no entry outside the support. ``local`` is a
    ``Descent``, or a function ``local(task) -> Trained``; it trains ``task.x`` in place.
    ``optimiser``, ``pruner``, ``contribution`` and ``weighting`` name its parts by default; an
    empty weighting stands for the contribution's own.

    ``linear``: merge also takes weights (M, C), a coalition a row with 0 for absent clients, and
    returns x (M, P). ``additive``: merge needs the weighted mean of the updates alone, so workers
    may form it; merge then gets this mean as its one row, with weight 1.

    ``server_data`` is ``"labelled"`` or ``"unlabelled"`` if it works with the samples of
    ``--server-data``, else empty. ``before(state, x (P,), mask) -> Training`` is the server's
    training beside the clients, x being the model for all of them; the result is
    ``updates.server_update (K,)``, a difference from x. ``after(state, x (P,), updates, lab) ->
    (state, x)`` is the server's own work on the merged model, once after each merge; entries
    outside the support do not move. Coalitions are scored by merged models without this work.

    Messages may hold more than the model and its update, each array with its ``Field``:

    * ``sends`` names the arrays for clients beside the model: ``send(state) -> {name: tensor}`` to
      all of them, ``send_to(state, client) -> {name: tensor}`` to one. Clients find them in
      ``task.message``.
    * ``answers`` names the arrays in a client's answer beside its update, and ``keeps`` a client's
      arrays for itself, until its next round: ``reply(task, trained) -> (answer,
      kept)``, two dicts, once the client has trained. The server finds answers in
      ``updates.parts`` and ``updates.totals``. A client finds its kept arrays in ``task.kept``,
      empty before its first round, and unchanged if its answer was not merged.
    * If all tensors are personal the server has no model: its loss and metrics are NaN.
    * ``steps`` asks for ``updates.steps`` and ``updates.travelled``.
    * ``by_entry``: the merge takes each entry of the vector by itself, over the clients with this
      entry, and the strategy needs nothing of a client's update as a whole. Only then may clients
      train networks of several kinds (``--also-model``): in ``updates.B`` each client holds the
      entries of its own network.
    * ``in_pieces``: merge may get a piece of the vector at a time, with the same piece of x, of the
      support and of the state's vectors (P,), so that the server holds no whole mean of a large
      model. It must not look at ``updates.totals``.
    * ``features(network, inputs (n, ...)) -> (n, ...)`` makes the inputs of the server's own
      network (``--server-model``) from a client's network. ``Lab.fit`` trains the server's
      network, and ``task.server`` calls it when clients are tested.
    * ``personal(layout) -> names`` are each client's own tensors of the model: trained and kept,
      neither sent nor merged.
    * ``travels(layout, t) -> Travels`` is the part of the model that travels in round t; None: all
      of it. Clients keep their own values of the whole model, beginning with the first one, and
      ``updates.U`` is 0 at all other entries. ``local`` is a Descent that ``arrives``.
    * ``absorb(layout, x (P,), message)`` lets merges change the weights beside ``--adapters``
      (``layout.base``), which neither train nor travel: it repeats the change of the last merge in
      ``x``, a rank's own, in place, from the tensors of ``sends``. ``state["merges"]`` counts the
      changes, and travels among ``sends``: a rank repeats each of them once.

    A client is tested on its own test part (``--client-test``) by the present model with the
    client's personal tensors laid over it, or by ``own_model(task) -> (P,)``, unless the result is
    None. ``task`` is the client's as it would train now, with ``message`` and ``kept``; the
    function may train ``task.x`` in place and return it. If a client's outputs are not its model's,
    ``predict(task, inputs (n, ...)) -> (n, classes)`` gives them, for such a task with its model
    at the tested vector, in evaluation mode and without gradients.

    ``fits(network, sample (1, ...))`` raises ValueError if the network cannot be trained this way.

    ``columns`` are further columns of the run file's table of rounds; ``record(state, updates) ->
    {name: number}`` fills them after each merge.
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
    travels: Callable | None = None
    own_model: Callable | None = None
    predict: Callable | None = None
    fits: Callable | None = None
    update: bool = True                    # clients answer with the update of their model
    # Clients answer with their number of steps and with ``Trained.travelled``: 16 bytes.
    steps: bool = False
    columns: tuple = ()                    # of (name, unit, description)
    record: Callable | None = None
    classes: bool = False                  # needs one class a sample: refused for other tasks
    by_entry: bool = False
    in_pieces: bool = False
    features: Callable | None = None
    absorb: Callable | None = None


@renamed(residuals="keeps_pruned_values")
class Pruner(NamedTuple):
    """The choice of kept weights.

    ``init(layout, x, now, gen) -> (state, mask)`` with ``now``, a Round, at ``now.t == 0``.
    ``evolve(state, mask, x, replies, now, gen) -> (state, mask)`` follows each merge, with
    the same mask object if nothing changes; a pruner returns ``(state, mask, x)`` to rewind weights
    to earlier values. ``probe(task) -> Probe`` runs on clients, or is None.

    The server zeroes pruned weights. If the pruner ``keeps_pruned_values`` it leaves their last
    values, which are not sent. ``exact``: the number of kept weights never changes, as the server
    asserts. ``moves``: clients change their masks while they train, so updates do not add up.
    ``watches``: its probes see steps or epochs of a training, which then runs on one rank.

    ``masks(state, mask, x, layout, clients (C,)) -> C masks``, subsets of the mask, gives every
    client a mask of its own to train. The global model is then cut to ``nominal(state, mask,
    layout) -> mask``.

    ``units(state, x, structure, clients (C,), fleet, gen) -> C dicts {layer: (n,) bool}`` gives
    every client a smaller network, only of the True units (``fedmpi.core.units``).
    Clients of the same network get the same object, and the mask is full.
    """

    init: Callable
    evolve: Callable
    probe: Callable | None = None
    keeps_pruned_values: bool = False
    exact: bool = True
    masks: Callable | None = None
    nominal: Callable | None = None
    units: Callable | None = None
    moves: bool = False
    fixed: bool = False           # its first mask stays
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None
    watches: bool = False


@renamed(uses="macs_per_weight")
class Replies(NamedTuple):
    """A pruner's view of a round: the updates, their weights in the merge, the clients' reports."""

    updates: Updates
    weights: torch.Tensor         # (C,) float64
    reports: list                 # C dicts of numpy arrays
    layout: Layout
    # Multiplications a weight and sample, a layer: 1 for linear, positions for convolutions.
    macs_per_weight: tuple
    clients: torch.Tensor         # (C,) int64
    scores: torch.Tensor          # (N,) float64: every client's remembered contribution
    sizes: torch.Tensor           # (N,) float64 samples


@renamed(schedule="now")
class Cohort(NamedTuple):
    """The clients of a round, as estimators of contributions see them."""

    clients: torch.Tensor         # (C,) int64
    updates: Updates
    now: Round
    shares: torch.Tensor          # (C,) float64 summing to 1: weights before this round's scores
    x: torch.Tensor               # (P,) the model that they received, 0 off the support
    layout: Layout
    reports: list | tuple = ()    # C dicts of numpy arrays, from the contribution's ``report``


class Scores(NamedTuple):
    """An estimator's result for a round."""

    phi: torch.Tensor             # (C,) float64, more is better
    state: dict = {}
    # (C,) float64 standard errors, if phi is an estimate from samples.
    error: torch.Tensor | None = None


class Contribution(NamedTuple):
    """An estimator of the clients' contributions.

    ``score(state, cohort, utility, gen) -> Scores``. ``utility(coalitions (M, C) bool, of="loss")
    -> (M,) float64`` is minus the validation loss of the strategy's merge of each coalition.
    ``of="headline"``, or by its old name ``"accuracy"``, takes the objective's headline instead,
    with its sign turned if less is better. See ``fedmpi.server.score.Utility`` for its other
    functions.

    ``init(n (N,) float64) -> state``, a dict. ``report(task) -> dict of numpy arrays`` runs on the
    client, at the received model before it trains, and is sent with its update. ``weighting``
    turns the scores into weights if the user names no other.
    """

    score: Callable
    weighting: str = "relu"
    init: Callable = lambda n: {}
    report: Callable | None = None
    validated: bool = False       # asks for utilities, hence for validation samples on the server
    opening: bool = False         # wants everybody in round 1
    cumulative: bool = False      # scores include earlier rounds: the last one counts
    updates: bool = True          # looks at single updates, or asks for utilities
    classes: bool = False         # needs one class a sample: refused for other tasks
    sees: str = "updates"         # its inputs; recorded, as clients would not show some of them
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None


class Weighting(NamedTuple):
    """The rule from scores to weights in the merge.

    ``init(n (N,) float64) -> state`` holds ``weights (N,)`` float64, every client's weight up to a
    common factor, and ``score (N,)`` if scores are remembered apart from them.
    ``weigh(state, phi (C,), cohort) -> (state, weights (C,) float64 summing to 1)`` leaves clients
    outside the cohort as they were. ``fixed``: weights follow from sizes alone, and a cohort's are
    in proportion to ``state["weights"]``.
    """

    init: Callable
    weigh: Callable
    fixed: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None


class Fleet(NamedTuple):
    """The abilities of the N clients' devices at one moment of virtual time."""

    speed: torch.Tensor           # (N,) float64 FLOP/s; infinite: training takes no time
    down: torch.Tensor            # (N,) float64 B/s to the client; infinite: no time
    up: torch.Tensor              # (N,) float64 B/s from the client
    latency: torch.Tensor         # (N,) float64 s a message, each way
    dropout: torch.Tensor         # (N,) float64 probability that an asked client never answers
    available: torch.Tensor       # (N,) bool: the clients that can be asked


class Devices(NamedTuple):
    """The clients' devices.

    ``at(seconds, N, draw) -> Fleet`` at a moment of virtual time; ``draw(*key)`` is the generator
    of the run's seed and the non-negative integers ``key``. The same arguments give the same
    fleet. ``digest`` is the sha256 of the devices' file, if any: another file makes another run.
    If they are not ``timed`` nothing takes time, and all answers come at once.
    """

    at: Callable
    digest: str = ""
    timed: bool = True
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class ClientRecords(NamedTuple):
    """A sampler's information about clients; NaN for a client without an answer yet."""

    available: torch.Tensor       # (N,) bool
    sizes: torch.Tensor           # (N,) float64 samples
    scores: torch.Tensor          # (N,) float64: every client's remembered contribution
    losses: torch.Tensor          # (N,) float64: training loss of the client's last round


class Sampler(NamedTuple):
    """The choice of a round's clients.

    ``draw(gen, count, records) -> int64 (count,)`` distinct clients, all available; fewer if fewer
    are available. If ``candidates`` is not 0 the server draws ``max(count, candidates)`` clients,
    sends them the model, asks for its loss on their samples, and ``choose(count, clients (d,),
    losses (d,)) -> int64`` keeps ``count`` of them.
    """

    draw: Callable
    candidates: int = 0
    choose: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = leaves_nobody_out


class Timing(NamedTuple):
    """The timing of merges, in virtual time.

    Synchronous if ``buffer`` is 0: the server asks ``ceil(count * (1 + over))`` clients, merges
    the first ``count`` answers and waits ``deadline`` seconds at most.

    Else ``concurrency`` clients (0: the cohort) are always at work, each on the model of its own
    start, and ``buffer`` answers make a merge. Their updates are scaled by ``discount(staleness
    (C,) float64) -> (C,)``; staleness counts merges since the client's start. ``mixing``: an
    update counts from the server's present model, not from its client's received model.
    """

    deadline: float = math.inf
    over: float = 0.0
    buffer: int = 0
    concurrency: int = 0
    discount: Callable | None = None
    mixing: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


# --- messages ---


class Coding(NamedTuple):
    """The facts about a message for a codec with random choices."""

    # A numpy Generator, the same on any rank for this array; use no other chance.
    gen: Any
    t: int                        # the round whose model is trained
    client: int                   # whose update it is, -1 for the model itself


class Codec(NamedTuple):
    """Values on the wire: ``encode(values (K,) float32) -> dict of numpy arrays``, and back.

    The values of an update are finite: in place of one that has diverged, and will not be merged,
    zeros are encoded. ``decode(arrays, K) -> (K,)``. ``bound(values) -> (K,)`` is the largest error
    of each value after a round trip. A codec for updates only names in ``down`` the codec for
    models.

    * ``exact``: decoding gives back the very values, and their number alone decides the size.
    * ``feedback``: before it encodes an update a client adds this multiple of the losses of its
      earlier encodings, and remembers the new loss. 0 or False: it remembers nothing.
    * ``weights``: only prunable weights are coded; biases, norms and running averages travel as
      float32 beside them. ``trained``: only running averages do.
    * ``sent(arrays, K) -> (K,) bool`` are the values that a message has, for a codec that leaves
      some out: the mean of each value is over the clients that sent it. None: over all clients.
    * ``draws``: it is called as ``encode(values, coding)``, for the same chance on any number of
      ranks.
    """

    encode: Callable
    decode: Callable
    bound: Callable
    down: "Codec | None" = None
    exact: bool = False
    feedback: float = 0.0
    weights: bool = False
    trained: bool = False
    sent: Callable | None = None
    draws: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    # (num_dense, num_averages) -> the codec for another vector; filled in by fedmpi.wire.codecs.
    refit: Callable | None = None


# --- data and its flaws ---


class Noise(NamedTuple):
    """Wrong labels: ``rates(clients, gen) -> (clients,) float64`` are the clients' levels.

    ``corrupt(labels (n,), level, classes, gen) -> copy``. If clients have something in common,
    ``shared(classes, gen)`` draws it once and ``corrupt`` gets it as a fifth argument.
    """

    rates: Callable
    corrupt: Callable
    shared: Callable | None = None
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


class Features(NamedTuple):
    """Changed inputs: ``levels(clients, gen) -> (clients,) float64``, recorded as the truth.

    ``apply(inputs (n, ...) float32 on any device, labels (n,) int64 true labels, level, classes,
    gen) -> new tensor`` of the same shape, dtype and device. ``gen`` is a numpy generator of the
    client: the same one gives the same inputs. Level 0 changes no value.
    """

    levels: Callable
    apply: Callable
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing


@renamed(stale="needs_previous_model")
class Fault(NamedTuple):
    """Faulty clients: the choice of them, their true quality, and their behaviour.

    ``who(clients, gen) -> (clients,) bool``. ``quality`` in [0, 1] is the truth for judging
    estimators, 1 for an honest client. ``shards(shards, who, gen) -> (new list, source (clients,)
    int64)`` takes and gives int64 arrays of sample numbers; ``source`` is the origin of a client's
    copied samples, -1 for none. ``labels(labels (n,), classes, gen) -> copy``; ``inputs(inputs
    (n, ...) float32, gen) -> new tensor``; ``tokens(stretch (m,) int64, gen) -> copy``, of a text.

    ``local(task, train, previous) -> Trained`` replaces the strategy's local training, ``train()
    -> Trained``: it changes ``task.x (P,)`` in place, on trainable weights only. Its chance comes
    from ``task.gen`` alone. If it ``needs_previous_model``, ``previous (P,)`` is the model of the
    round before, None in the first round; otherwise it is None.
    """

    who: Callable
    quality: float
    shards: Callable | None = None
    labels: Callable | None = None
    inputs: Callable | None = None
    tokens: Callable | None = None
    local: Callable | None = None
    needs_previous_model: bool = False
    refuses: Callable = nothing            # see Facts
    notes: Callable = nothing
    planned: Callable | None = None        # see Round


class Stream(NamedTuple):
    """A data set whose samples are windows of a stream of tokens.

    A sample is ``window`` tokens, and its targets are the tokens one place further on. Training
    begins windows anywhere; evaluation goes through windows one after the other.
    """

    window: int
    vocab: int              # tokens lie in [0, vocab)
    # (n + 1,) int64: no window crosses the border of a stretch x[offsets[i]:offsets[i + 1]]. There
    # is one for each of client_names, or only one.
    offsets: np.ndarray
    test_offsets: np.ndarray
    # Bytes of UTF-8 text for a token, mean of the training and of the test part; NaN: unknown.
    token_bytes: tuple = (math.nan, math.nan)


@renamed(told="remarks")
class Dataset(NamedTuple):
    """Arrays of samples and their targets, from a factory ``(data_dir, **options)``.

    ``checked`` of ``fedmpi.methods.datasets.dataset`` tests these rules and raises DataError; its
    ``moments`` gives mean and std. Fields with a default may be left out.

    Samples are (N, C, H, W) images, (N, F) features, or of any other shape that the model takes.
    Targets are classes (N,) int64; values (N,) or (N, d) float32; or labels (N, C) uint8, 1 if
    the sample has label c: ``fedmpi list task`` names the uses of each.

    With a ``stream`` the samples are windows of tokens: x_train (N,) and x_test are tokens as
    uint16, int32 or int64, y_train and y_test are empty (N, 0), and ``classes`` is 0.
    ``fedmpi.methods.datasets.stream.dataset_of`` makes such a data set.
    """

    # (N, ...), C-contiguous: uint8, float32, or whole numbers as int16, int32 or int64.
    x_train: np.ndarray
    y_train: np.ndarray     # (N,) int64 in [0, classes); (N,) or (N, d) float32; (N, C) uint8
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int            # 0 if targets are no classes
    # A float per channel, one for features. Both apply after uint8 is divided by 255.
    mean: tuple
    std: tuple
    names: tuple = ()       # a text per class or label; empty: their numbers
    client: np.ndarray | None = None    # (N,) int64: the natural client of each training sample
    client_names: tuple = ()            # a text per natural client
    ids: bool = False       # samples are whole numbers and no images, such as an embedding's
    remarks: tuple = ()        # lines for the user about the reading of the arrays
    stream: Stream | None = None


class Partition(Protocol):
    """The deal of samples to clients: the function that a partition's factory returns.

    ``labels (n,) int64`` are the training samples' targets, read only; ``gen`` is a numpy
    generator. The answer is a list of ``clients`` int64 arrays of sample numbers in [0, n): at
    least one number each, and no sample twice. A sample may be left out. ValueError if such a
    partition cannot be made.
    """

    def __call__(self, labels, clients, gen): ...


class Model(Protocol):
    """The network: ``factory(shape, outputs, **options) -> torch.nn.Module``.

    ``shape`` is the shape of one sample without the batch, and ``outputs`` the task's number of
    outputs: a logit a class or label, or a value. The module takes inputs (n, *shape), float32
    or, of whole numbers, int64. Its outputs (n, outputs) are float32 or bfloat16, finite, without
    a softmax, and have a gradient. Initial weights come from torch's global
    generator, seeded the same on every rank. In evaluation mode a sample's outputs follow from this
    sample alone. A language model takes shorter windows of tokens, too: ``fedmpi sample`` begins
    with one token.

    ``parameter.prunable = True`` or ``False`` overrules the choice of pruned parameters, and
    ``requires_grad = False`` freezes. ValueError for a shape that it cannot take.
    """

    def __call__(self, shape, outputs): ...
