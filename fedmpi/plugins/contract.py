"""What a part of the user's must keep to: each answer of its functions is checked, whenever it is
asked.

``bound(kind, made, option)`` is the part that a factory made, with checks around its functions.
A breach is a UserError of one line: the option, what was expected, what came, the way out.
Exceptions of the user's own code pass through. The parts of the catalogue need none of this,
the suite holds them to more; see ``fedmpi.build.rehearsal`` for when a part of the user's is
asked for the first time.
"""

import functools
import math
import re
from typing import Callable

import numpy as np
import torch

from fedmpi.methods.datasets.dataset import Dataset, checked
from fedmpi.core.errors import UserError
from fedmpi.core.parts import (Aggregation, Augmentation, Codec, Coding, Contribution, Descent,
                               Devices, Fault, Features, Field, Fleet, Noise, Objective, Optimiser,
                               Probe, Pruner, Sampler, Schedule, Scores, Strategy, Trained, Training,
                               Weighting)
from fedmpi.core.rng import Purpose, stream


MADE = {
    "strategy": Strategy,
    "optimiser": Optimiser,
    "schedule": Schedule,
    "augment": Augmentation,
    "pruner": Pruner,
    "contribution": Contribution,
    "weighting": Weighting,
    "codec": Codec,
    "dataset": Dataset,
    "task": Objective,
    "noise": Noise,
    "features": Features,
    "fault": Fault,
    "devices": Devices,
    "sampler": Sampler,
    "aggregation": Aggregation
}
HELD = (torch.Tensor, np.ndarray, np.generic, bool, int, float, str)    # by a checkpoint
SUM = 1e-6    # that weights may be away from a sum of 1


def bound(kind, made, option):
    """The part, its functions checked; UserError where it is of another type than its kind asks
    for. Models are checked by ``fedmpi.plugins.fit``."""
    if kind in MADE:
        _check_type(made, MADE[kind], option)
    keep = KEEPERS.get(kind)
    return made if keep is None else keep(made, option)


def _require(held, option, expected, got, way_out):
    if not held:
        raise UserError(f"{option}: expected {expected}, got {got}; {way_out}")


def _check_type(made, wanted, option):
    _require(isinstance(made, wanted), option, f"a {wanted.__name__} from the factory", told(made),
             f"return {wanted.__module__}.{wanted.__name__}({', '.join(_needed(wanted))})")
    for name, annotation in wanted.__annotations__.items():
        value = getattr(made, name)
        may_lack = name in wanted._field_defaults and value is None
        if annotation in (Callable, Callable | None) and not may_lack:
            _require(callable(value), option, f"a function as {wanted.__name__}.{name}",
                     told(value), "see fedmpi/core/parts.py")


def _needed(wanted):
    return [name for name in wanted._fields if name not in wanted._field_defaults]


def told(value):
    """A value in a few words: type, shape and dtype, length."""
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _tensor(value, shape, dtype, option, what):
    """UserError unless ``value`` is a tensor of a shape and dtype."""
    wanted = f"{what} as a tensor {tuple(shape)} {str(dtype).removeprefix('torch.')}"
    fits = isinstance(value, torch.Tensor) and value.shape == tuple(shape) and value.dtype == dtype
    _require(fits, option, wanted, told(value), "see fedmpi/core/parts.py")


def _array(value, shape, kinds, option, what):
    """``value`` itself; UserError unless it is an array of a shape, its dtype one of ``kinds``."""
    names = {"f": "numbers", "iu": "integers", "b": "bools", "fiub": "numbers"}
    is_array = isinstance(value, np.ndarray)
    fits = is_array and value.shape == tuple(shape) and value.dtype.kind in kinds
    _require(fits, option, f"{what} as an array {tuple(shape)} of {names[kinds]}", told(value),
             "use numpy.asarray")
    return value


def _several(value, num, option, what):
    fits = isinstance(value, tuple) and len(value) == num
    _require(fits, option, what, told(value), "see fedmpi/core/parts.py")


def _state(value, option, function, only_tensors=False):
    """UserError unless a state is a dict of what a checkpoint can hold."""
    allowed = (torch.Tensor,) if only_tensors else HELD
    words = "tensors" if only_tensors else "tensors, arrays, numbers and texts"
    is_dict = isinstance(value, dict)
    _require(is_dict, option, f"the state that {function} returns to be a dict of {words}",
             told(value), "return {} where nothing is remembered")
    for key, leaf in value.items():
        is_text = isinstance(key, str)
        _require(is_text, option, f"texts as the keys of the state that {function} returns",
                 repr(key), "use str(key)")
        if isinstance(leaf, dict) and not only_tensors:
            _state(leaf, option, function)
            continue
        held = isinstance(leaf, allowed) or leaf is None and not only_tensors
        _require(held, option, f"{words} in the state that {function} returns",
                 f"{told(leaf)} under {key!r}",
                 "checkpoints hold nothing else: make a tensor of it")


def _arrays(value, option, what):
    """UserError unless ``value`` is a dict of numpy arrays whose bytes can be sent."""
    _require(isinstance(value, dict), option, f"{what} as a dict of numpy arrays", told(value),
             "return {'name': array}")
    for name, array in value.items():
        numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        fits = numbers and isinstance(name, str)
        _require(fits, option, f"{what} as numpy arrays of numbers",
                 f"{told(array)} under {name!r}", "use tensor.numpy(), or numpy.asarray")


def _number(value, option, what):
    """UserError unless ``value`` is a number, or a tensor that holds one."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    fits = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    _require(fits, option, f"{what} as a number", told(value), "return it")


def _unwritten(option, function, inputs, versions):
    """UserError where one of ``inputs``, ``{name: tensor}``, has been written to since it had its
    version."""
    for name, tensor in inputs.items():
        _require(tensor._version == versions[name], option,
                 f"{function} to leave its input {name} as it is",
                 f"a {name} that it has written to", f"work on {name}.clone()")


def _versions(inputs):
    return {name: tensor._version for name, tensor in inputs.items()}


# ---------------------------------------------------------------- strategies


def _strategy(part, option):
    def init(layout):
        state = part.init(layout)
        _state(state, option, "init", only_tensors=True)
        return state

    def local(task):
        trained = part.local(task)
        _check_trained(trained, option)
        _trained_on_the_mask(task, option)
        return trained

    def merge(state, x, updates, weights):
        inputs = {"x": x, "U": updates.U, "weights": weights}
        before = _versions(inputs)
        answer = part.merge(state, x, updates, weights)
        _several(answer, 2, option, "(state, x) from merge")
        after, merged = answer
        _state(after, option, "merge", only_tensors=True)
        lacking = sorted(state.keys() - after.keys())
        _require(not lacking, option, "merge to keep the entries of its state",
                 f"none for {', '.join(lacking)}", "return those that do not change as well")
        _tensor(merged, (*weights.shape[:-1], len(x)), torch.float32, option,
                "the model that merge returns")
        _unwritten(option, "merge", inputs, before)
        if weights.ndim == 1:
            _still(x, merged, updates.support, option)
        return answer

    def before(state, x, mask):
        asked = part.before(state, x, mask)
        _require(isinstance(asked, Training), option, "a Training from before", told(asked),
                 "return fedmpi.core.parts.Training(x, mask)")
        _tensor(asked.x, x.shape, torch.float32, option, "x of the Training")
        _tensor(asked.mask, mask.shape, torch.bool, option, "mask of the Training")
        return asked

    def after(state, x, updates, lab):
        inputs = {"x": x, "U": updates.U}
        versions = _versions(inputs)
        answer = part.after(state, x, updates, lab)
        _several(answer, 2, option, "(state, x) from after")
        _state(answer[0], option, "after", only_tensors=True)
        _tensor(answer[1], x.shape, torch.float32, option, "the model that after returns")
        _unwritten(option, "after", inputs, versions)
        _still(x, answer[1], updates.support, option, "after")
        return answer

    kinds = ("", "labelled", "unlabelled")
    _require(part.server_data in kinds, option, f"server_data as one of {', '.join(map(repr, kinds))}",
             repr(part.server_data), "see fedmpi.core.parts.Strategy")
    kept = {"before": before, "after": after}
    there = {name: function for name, function in kept.items() if getattr(part, name) is not None}
    there |= _messages(part, option)
    if isinstance(part.local, Descent):
        return part._replace(init=init, local=_descent(part.local, option), merge=merge, **there)
    _require(callable(part.local), option, "a Descent, or a function (task) -> Trained, as Strategy.local",
             told(part.local), "see fedmpi/core/parts.py")
    return part._replace(init=init, local=local, merge=merge, **there)


def _messages(part, option):
    """The functions of a strategy that fill its messages, checked, by name."""
    _check_messages(part, option)

    def send(state):
        return _named_tensors(part.send(state), part.sends, option, "send")

    def send_to(state, client):
        return _named_tensors(part.send_to(state, client), part.sends, option, "send_to")

    def reply(task, trained):
        answer = part.reply(task, trained)
        _several(answer, 2, option, "(answer, kept) from reply")
        _named_tensors(answer[0], part.answers, option, "the answer of reply", task.layout.P)
        _named_tensors(answer[1], part.keeps, option, "what reply keeps", task.layout.P)
        return answer

    def personal(layout):
        names = part.personal(layout)
        fits = isinstance(names, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in names)
        _require(fits, option, "names of the model's tensors from personal", told(names), "return a tuple of texts")
        return names

    def record(state, updates):
        numbers = part.record(state, updates)
        _check_record(numbers, [name for name, *_ in part.columns], option)
        return numbers

    held = {"send": send, "send_to": send_to, "reply": reply, "personal": personal, "record": record}
    return {name: function for name, function in held.items() if getattr(part, name) is not None}


def _check_messages(part, option):
    """UserError unless the fields are what they must be, and there are functions that fill them."""
    for name in ("sends", "answers", "keeps"):
        _check_fields(getattr(part, name), option, name)
    sent = not part.sends or part.send or part.send_to
    _require(sent, option, "send or send_to, since sends names arrays", "neither",
             "return Strategy(..., send=lambda state: {...})")
    replied = not (part.answers or part.keeps) or part.reply
    _require(replied, option, "a function reply, since answers or keeps name arrays", "none",
             "return Strategy(..., reply=reply)")


def _check_fields(fields, option, name):
    """UserError unless a strategy's ``name`` is ``{array: Field}``, each field of a known kind."""
    _require(isinstance(fields, dict), option, f"{name} as a dict of a Field for each name", told(fields),
             "see fedmpi/core/parts.py")
    for key, field in fields.items():
        _require(isinstance(field, Field), option, f"a Field for {key!r} in {name}", told(field), "use Field()")
        known = field.on in ("support", "any") or isinstance(field.on, tuple)
        _require(known, option, f"on of the Field {key!r} as 'support', 'any' or a shape", repr(field.on),
                 "see fedmpi.core.parts.Field")
        _require(field.on == "support" or not field.coded, option,
                 f"the Field {key!r} on the support, since it is coded", f"on={field.on!r}",
                 "leave coded out: a codec is made for the values of a model")
        _require(field.fold in ("rows", "sum", "list"), option,
                 f"fold of the Field {key!r} as 'rows', 'sum' or 'list'", repr(field.fold),
                 "see fedmpi.core.parts.Field")


def _named_tensors(found, fields, option, function, P=None):
    """``found`` itself; UserError unless it is a dict of tensors by names of the fields,
    vectors (P,) of those on the support where P is said."""
    _require(isinstance(found, dict), option, f"a dict of tensors as {function}", told(found),
             "return {name: tensor}")
    for name, tensor in found.items():
        known = ", ".join(fields) or "(none)"
        _require(name in fields, option, f"names of {known} as {function}", repr(name), "give it a Field")
        _require(isinstance(tensor, torch.Tensor), option, f"{name} of {function} as a tensor",
                 told(tensor), "use torch.as_tensor")
        if fields[name].on == "support" and P is not None:
            _require(tensor.shape == (P,), option, f"{name} of {function} as a vector ({P},)",
                     told(tensor), "it is on the support: give the whole vector")
    return found


def _check_record(numbers, wanted, option):
    """UserError unless there is a number for each of the strategy's own columns."""
    fits = isinstance(numbers, dict) and sorted(numbers) == sorted(wanted)
    _require(fits, option, f"a number for each of the columns {', '.join(wanted)} from record",
             told(numbers), "return {name: number}")
    for name, number in numbers.items():
        _number(number, option, f"{name} of record")


def _descent(descent, option):
    """The Descent, its shift checked."""
    if descent.shift is None:
        return descent

    def shift(task):
        found = descent.shift(task)
        _tensor(found, (task.layout.R,), torch.float32, option, "what the shift of local returns")
        return found

    return descent._replace(shift=shift)


def _check_trained(trained, option):
    """UserError unless local training has told what it came to."""
    _require(isinstance(trained, Trained), option, "a Trained from local", told(trained),
             "return fedmpi.core.parts.Trained(loss, steps, samples)")
    _number(trained.loss, option, "the loss of what local returns")
    for name in ("steps", "samples"):
        _number(getattr(trained, name), option, f"the {name} of what local returns")


def _trained_on_the_mask(task, option):
    """UserError where a pruned weight has moved. One that is not finite is what a divergence
    leaves, 0 times infinity, and the worker tells of that."""
    x = task.x[:task.layout.Q]
    moved = x.ne(0) & ~task.mask
    if bool(moved.any()):
        num_moved = int(torch.count_nonzero(moved & x.isfinite()))
        _require(not num_moved, option, "local to leave pruned weights at 0",
                 f"{num_moved} that it has moved", "multiply gradients by task.live")


def _still(x, merged, support, option, function="merge"):
    """UserError where an entry outside the support has moved."""
    moved = merged != x
    moved[support] = False
    num_moved = int(torch.count_nonzero(moved))
    _require(not num_moved, option, f"{function} to move entries of the support only",
             f"{num_moved} others, pruned weights or padding, that it has moved",
             "write to x.clone() at updates.support")


# ---------------------------------------------------------------- optimisers and what goes with them


def _optimiser(part, option):
    """Two steps on two rows and on each alone must agree, and a weight of 0 without gradient
    stay."""
    x = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, 0.0]])
    gradients = [torch.tensor([[0.5, 1.0, 0.0], [-2.0, 0.25, 0.0]]), torch.tensor([[-1.0, 0.5, 0.0], [1.0, 2.0, 0.0]])]
    rows = _moved(part, x, gradients, option)
    for row in range(2):
        alone = _moved(part, x[row], [each[row] for each in gradients], option)
        _require(torch.allclose(alone, rows[row], rtol=1e-5, atol=1e-7), option,
                 "step to move each row of x as if it were alone", f"{_few(rows[row])} for {_few(alone)}",
                 "work elementwise, and keep counts of the shape x.shape[:-1]")
    _require(not bool(rows[:, 2].any()), option, "step to leave a weight of 0 without a gradient", "one that moved",
             "pruned weights must stay at 0")
    return part


def _moved(part, x, gradients, option):
    """``x`` after a step by each of the gradients."""
    x, state = x.clone(), part.init(x.clone())
    _state(state, option, "init", only_tensors=True)
    for name, tensor in state.items():
        fits = tensor.shape in (x.shape, x.shape[:-1])
        _require(fits, option, f"state[{name!r}] of init of the shape of x {tuple(x.shape)} or of a count "
                 f"{tuple(x.shape[:-1])}", told(tensor), "see fedmpi.core.parts.Optimiser")
    for g in gradients:
        part.step(x, g.clone(), state, 0.1)
    return x


def _schedule(part, option):
    def rate(now, step, steps):
        factor = part.rate(now, step, steps)
        _number(factor, option, "the factor that rate returns")
        _require(factor >= 0 and math.isfinite(factor), option, "a finite factor >= 0 from rate", told(factor),
                 "the learning rate is --lr times that")
        return factor

    return part._replace(rate=rate)


def _augment(part, option):
    def draw(gen, n, shape):
        drawn = part.draw(gen, n, shape)
        _tensor(drawn, (n, part.width), torch.int64, option, "what draw returns")
        return drawn

    def apply(images, drawn):
        before = images._version
        return _unwritten_images(part.apply(images, drawn), images, before, option)

    return part._replace(draw=draw, apply=apply)


def _unwritten_images(found, images, version, option):
    _check_inputs(found, images, option)
    _unwritten(option, "apply", {"images": images}, {"images": version})
    return found


# ---------------------------------------------------------------- pruners


def check_mask(mask, layout, option, function):
    """UserError unless a mask is bool (Q,), False on padding, and keeps something."""
    _tensor(mask, (layout.Q,), torch.bool, option, f"the mask that {function} returns")
    padding = int(torch.count_nonzero(mask[~layout.real[: layout.Q]]))
    _require(not padding, option, f"the mask of {function} to be False on padding",
             f"{padding} entries that are True", "use & layout.full_mask()")
    _require(bool(mask.any()), option, f"{function} to keep some weights", "a mask without any",
             "keep one at least")


def _pruner(part, option):
    def init(layout, x, schedule, gen):
        answer = part.init(layout, x, schedule, gen)
        _several(answer, 2, option, "(state, mask) from init")
        _state(answer[0], option, "init")
        check_mask(answer[1], layout, option, "init")
        return answer

    def evolve(state, mask, x, replies, schedule, gen):
        inputs = {"mask": mask, "x": x, "U": replies.updates.U}
        before = _versions(inputs)
        answer = part.evolve(state, mask, x, replies, schedule, gen)
        _several(answer, 2, option, "(state, mask) from evolve")
        _state(answer[0], option, "evolve")
        _unwritten(option, "evolve", inputs, before)
        if answer[1] is not mask:
            check_mask(answer[1], replies.layout, option, "evolve")
        if part.exact and answer[1] is not mask:
            kept, was = int(torch.count_nonzero(answer[1])), int(torch.count_nonzero(mask))
            _require(kept == was, option,
                     f"evolve to keep {was} weights, since the Pruner is exact", kept,
                     "grow as many as are dropped, or return Pruner(..., exact=False)")
        return answer

    def masks(state, mask, x, layout, clients):
        found = part.masks(state, mask, x, layout, clients)
        fits = isinstance(found, list) and len(found) == len(clients)
        _require(fits, option, f"a list of {len(clients)} masks, one a client, from masks",
                 told(found), "see fedmpi/core/parts.py")
        for own in {id(each): each for each in found}.values():
            check_mask(own, layout, option, "masks")
            _require(not bool(
                (own & ~mask).any()), option, "the masks of clients to be subsets of the mask",
                     f"one with {int(torch.count_nonzero(own & ~mask))} weights beyond it",
                     "use own & mask")
        return found

    def nominal(state, mask, layout):
        found = part.nominal(state, mask, layout)
        check_mask(found, layout, option, "nominal")
        return found

    def probe(task):
        found = part.probe(task)
        _require(isinstance(found, Probe), option, "a Probe from probe", told(found),
                 "return fedmpi.core.parts.Probe(...)")
        return found._replace(
            report=functools.partial(_reported, found.report, task.layout.Q, option))

    kept = {"masks": masks, "nominal": nominal, "probe": probe}
    there = {name: function for name, function in kept.items() if getattr(part, name) is not None}
    return part._replace(init=init, evolve=evolve, **there)


def _reported(report, Q, option):
    """The arrays that a probe reports; ``index`` must be sorted positions in [0, Q)."""
    arrays = report()
    _arrays(arrays, option, "what the probe reports")
    if "index" in arrays:
        index = arrays["index"]
        fits = index.ndim == 1 and index.dtype.kind in "iu" and bool(
            (np.diff(index.astype(np.int64)) > 0).all())
        inside = fits and (not len(index) or 0 <= index[0] and index[-1] < Q)
        _require(inside, option, f"the probe's index to hold sorted positions in [0, {Q})",
                 told(index), "use numpy.unique")
    return arrays


# ------------------------------------------------------- who contributed, and what that earns


def _contribution(part, option):
    def init(n):
        state = part.init(n)
        _state(state, option, "init")
        return state

    def score(state, cohort, utility, gen):
        found, C = part.score(state, cohort, utility, gen), len(cohort.clients)
        _require(isinstance(found, Scores), option, "Scores from score", told(found),
                 "return fedmpi.core.parts.Scores(phi)")
        _tensor(found.phi, (C,), torch.float64, option, "the scores phi")
        _state(found.state, option, "score")
        if found.error is not None:
            _tensor(found.error, (C,), torch.float64, option, "the standard errors")
        return found

    def report(task):
        arrays = part.report(task)
        _arrays(arrays, option, "what report returns")
        return arrays

    return part._replace(init=init, score=score, report=part.report and report)


def _weighting(part, option):
    def init(n):
        state = part.init(n)
        _weighing(state, len(n), option, "init")
        return state

    def weigh(state, phi, cohort):
        answer = part.weigh(state, phi, cohort)
        _several(answer, 2, option, "(state, weights) from weigh")
        _weighing(answer[0], len(state["weights"]), option, "weigh")
        weights = answer[1]
        _tensor(weights, phi.shape, torch.float64, option, "the weights that weigh returns")
        total = float(weights.sum())
        fits = bool((weights >= 0).all()) and abs(total - 1) <= SUM
        _require(fits, option, "weights >= 0 that sum to 1",
                 f"{_few(weights)} with the sum {total:.6g}",
                 "divide by the sum, and let none be negative")
        return answer

    return part._replace(init=init, weigh=weigh)


def _weighing(state, N, option, function):
    _state(state, option, function)
    _require("weights" in state, option,
             f"an entry weights ({N},) in the state that {function} returns", ", ".join(state)
             or "an empty one", "see fedmpi.core.parts.Weighting")
    for name in ("weights", "score"):
        if name in state:
            _tensor(state[name], (N,), torch.float64, option, f"state[{name!r}] of {function}")


def _few(values):
    """The first few of some numbers."""
    return "[" + ", ".join(f"{value:.4g}"
                           for value in values[:4].tolist()) + ", ..." * (len(values) > 4) + "]"


# ---------------------------------------------------------------- the wire


def _codec(part, option):
    def encode(values, *coding):
        before = values._version
        arrays = part.encode(values, *coding)
        _arrays(arrays, option, "what encode returns")
        _require(values._version == before, option, "encode to leave its input as it is",
                 "values that it has written "
                 "to", "work on values.clone()")
        return arrays

    def decode(arrays, K):
        values = part.decode(arrays, K)
        _tensor(values, (K,), torch.float32, option, "what decode returns")
        return values

    if part.down is not None:
        _check_type(part.down, Codec, f"{option}: its codec down")
    trial = torch.tensor([0.0, 1.0, -1.5, 3e-5, -2e4])
    coding = [Coding(stream(0, Purpose.ENCODE, 0, 0), 0, -1)] * part.draws
    back = decode(encode(trial.clone(), *coding), len(trial))
    _require(not part.exact or torch.equal(back, trial), option,
             "decode to give back the very values, since the Codec "
             "is exact", f"{_few(back)} for {_few(trial)}", "return Codec(..., exact=False)")
    return part._replace(encode=encode, decode=decode)


# ---------------------------------------------------------------- what is learnt

METRIC = re.compile("[a-z][a-z0-9_]*")    # a name that can be a column of a run file


def _task(part, option):
    _check_metrics(part, option)

    @functools.wraps(part.loss)
    def loss(outputs, targets, reduction="mean"):
        value = part.loss(outputs, targets, reduction=reduction)
        shape = (len(outputs),) if reduction == "none" else ()
        _floats(value, shape, option, f"the loss with reduction={reduction}")
        return value

    def held(name, metric):
        def checked_metric(outputs, targets):
            values = metric(outputs, targets)
            _floats(values, (len(outputs),), option, f"the metric {name}", also=(torch.bool,))
            return values

        return checked_metric

    metrics = {name: held(name, metric) for name, metric in part.metrics.items()}
    return part._replace(loss=loss, metrics=metrics)


def _floats(value, shape, option, what, also=()):
    """UserError unless ``value`` is a float tensor of a shape, or one of a dtype in ``also``."""
    is_tensor = isinstance(value, torch.Tensor)
    fits = is_tensor and value.shape == shape and (value.is_floating_point() or value.dtype in also)
    _require(fits, option, f"{what} as a tensor {tuple(shape)} of floats", told(value),
             "see fedmpi.core.parts.Objective")


def _check_metrics(part, option):
    """UserError for metrics that cannot be columns of a run file, or a headline that is none."""
    fits = isinstance(part.metrics, dict) and all(map(callable, part.metrics.values()))
    _require(fits and part.metrics, option, "metrics as {name: function}", told(part.metrics),
             "see fedmpi.core.parts.Objective")
    for name in part.metrics:
        fits = isinstance(name, str) and METRIC.fullmatch(name)
        _require(fits, option, "names of metrics in small letters, digits and _", repr(name),
                 "call it otherwise")
    _require(part.headline in part.metrics, option,
             f"a headline among the metrics {', '.join(part.metrics)}", repr(part.headline),
             "name one of them")
    fits = isinstance(part.worst, (int, float)) and 0 < part.worst < math.inf
    _require(fits, option, "worst as a finite number > 0", told(part.worst),
             "it is what a coalition's loss counts as where it is no number")


# ---------------------------------------------------------------- data and what is wrong with them


def _dataset(made, option):
    for name in ("mean", "std"):
        values = getattr(made, name)
        fits = isinstance(values, (tuple, list, np.ndarray)) and np.ndim(values) == 1
        _require(fits, option, f"{name} as a tuple with a number for each channel", told(values),
                 "fedmpi.methods.datasets.dataset.moments(x_train) gives both")
    whole = isinstance(made.classes, (int, np.integer)) and not isinstance(made.classes, bool)
    _require(whole, option, "classes as a whole number", told(made.classes),
             "see fedmpi.core.parts.Dataset")
    mean, std = (tuple(float(value) for value in values) for values in (made.mean, made.std))
    return checked(made._replace(classes=int(made.classes), mean=mean, std=std),
                   option.removeprefix("--dataset "))


def _partition(part, option):
    _require(callable(part), option,
             "a function (labels, clients, gen) -> index arrays from the factory", told(part),
             "return the function that deals")

    def partition(labels, clients, gen):
        shards = part(labels, clients, gen)
        fits = isinstance(shards, (list, tuple)) and len(shards) == clients
        _require(fits, option, f"a list of {clients} index arrays, one a client", told(shards),
                 "return one for each")
        for shard in shards:
            whole = isinstance(shard, np.ndarray) and shard.ndim == 1 and shard.dtype.kind in "iu"
            _require(whole, option, "each client's samples as an array (n,) of integers",
                     told(shard), "use numpy.asarray(samples, dtype=numpy.int64)")
        empty = [client for client, shard in enumerate(shards) if not len(shard)]
        _require(not empty, option, "samples for every client",
                 f"none for client {empty[0] if empty else ''}",
                 "deal each one at least, or ask for fewer --clients")
        every = np.concatenate(shards).astype(np.int64)
        inside = bool(((every >= 0) & (every < len(labels))).all())
        _require(inside, option, f"samples in [0, {len(labels)})",
                 f"{every.min()} to {every.max()}", "they count the labels that it is given")
        most = int(np.bincount(every, minlength=1).max())
        _require(most == 1, option, "each sample with one client at most",
                 f"one that is dealt {most} times", "--fault duplicate is for copies")
        return [shard.astype(np.int64) for shard in shards]

    return partition


def _changed_labels(change, given, classes, option):
    """``change(labels)`` as int64, where that is as many integers in [0, classes) as were
    ``given``, and a copy."""
    own = given.copy()
    labels = change(own)
    _require(np.array_equal(own, given), option, "the labels that it is given to stay as they are",
             "some that it has written to", "work on labels.copy()")
    _array(labels, given.shape, "iu", option, "the labels that it returns")
    inside = not labels.size or 0 <= labels.min() and labels.max() < classes
    _require(inside, option, f"labels in [0, {classes})",
             f"{labels.min()} to {labels.max()}" if labels.size else "none",
             "take them modulo the classes")
    return labels.astype(np.int64)


def _noise(part, option):
    def rates(clients, gen):
        return _array(part.rates(clients, gen), (clients,), "fiub", option,
                      "the levels that rates returns")

    def corrupt(labels, level, classes, gen, *common):
        def change(own):
            return part.corrupt(own, level, classes, gen, *common)

        return _changed_labels(change, labels, classes, option)

    return part._replace(rates=rates, corrupt=corrupt)


def _check_inputs(found, inputs, option):
    """UserError unless changed inputs are finite, and of the shape and dtype that they had."""
    _tensor(found, inputs.shape, inputs.dtype, option, "the inputs that it returns")
    _require(bool(found.isfinite().all()), option, "finite inputs", "NaN or infinity", "clamp them")
    return found


def _features(part, option):
    def levels(clients, gen):
        return _array(part.levels(clients, gen), (clients,), "fiub", option,
                      "what levels returns").astype(np.float64)

    def apply(inputs, labels, level, classes, gen):
        return _check_inputs(part.apply(inputs, labels, level, classes, gen), inputs, option)

    return part._replace(levels=levels, apply=apply)


def _fault(part, option):
    quality = part.quality
    fits = isinstance(quality, (int, float)) and 0 <= quality <= 1
    _require(fits, option, "a quality in [0, 1]", told(quality), "1 is an honest client's")

    def who(clients, gen):
        return _array(part.who(clients, gen), (clients,), "b", option, "what who returns")

    def labels(given, classes, gen):
        return _changed_labels(lambda own: part.labels(own, classes, gen), given, classes, option)

    def inputs(given, gen):
        return _check_inputs(part.inputs(given, gen), given, option)

    def shards(given, faulty, gen):
        answer = part.shards(given, faulty, gen)
        _several(answer, 2, option, "(shards, source) from shards")
        fits = isinstance(answer[0], list) and len(answer[0]) == len(given)
        _require(fits, option, f"a list of {len(given)} index arrays from shards", told(answer[0]),
                 "keep their number")
        _array(answer[1], (len(given),), "iu", option, "the source that shards returns")
        return answer

    def local(task, train, previous):
        trained = part.local(task, train, previous)
        _check_trained(trained, option)
        return trained

    kept = {"labels": labels, "inputs": inputs, "shards": shards, "local": local}
    there = {name: function for name, function in kept.items() if getattr(part, name) is not None}
    return part._replace(who=who, **there)


# ---------------------------------------------------------------- time


def _devices(part, option):
    def at(seconds, N, draw):
        fleet = part.at(seconds, N, draw)
        _require(isinstance(fleet, Fleet), option, "a Fleet from at", told(fleet),
                 "return fedmpi.core.parts.Fleet(...)")
        for name in fleet._fields:
            dtype = torch.bool if name == "available" else torch.float64
            _tensor(getattr(fleet, name), (N,), dtype, option, f"{name} of the Fleet")
        return fleet

    return part._replace(at=at)


def _sampler(part, option):
    def draw(gen, count, known):
        clients = part.draw(gen, count, known)
        most = min(count, int(known.available.sum()))
        _tensor(clients, (most,), torch.int64, option, "the clients that draw returns")
        _chosen(clients, len(known.available), option, "draw")
        _require(bool(known.available[clients].all()), option,
                 "draw to take clients that are available", "some that are not",
                 "look at known.available")
        return clients

    def choose(count, clients, losses):
        kept = part.choose(count, clients, losses)
        _tensor(kept, (min(count, len(clients)),), torch.int64, option,
                "the clients that choose returns")
        known = bool(torch.isin(kept, clients).all())
        _require(known, option, "choose to keep some of the candidates",
                 "clients that are none", "return clients, not their rows")
        _chosen(kept, int(clients.max()) + 1, option, "choose")
        return kept

    return part._replace(draw=draw, choose=part.choose and choose)


def _chosen(clients, N, option, function):
    inside = bool(((clients >= 0) & (clients < N)).all())
    _require(inside, option, f"clients in [0, {N}) from {function}", _few(clients),
             "they count from 0")
    distinct = len(clients.unique()) == len(clients)
    _require(distinct, option, f"distinct clients from {function}", "one that comes twice",
             "draw without replacement")


def _aggregation(part, option):
    def discount(staleness):
        found = part.discount(staleness)
        _tensor(found, staleness.shape, torch.float64, option, "what discount returns")
        _require(bool(found.isfinite().all()), option, "finite discounts", _few(found),
                 "see fedmpi.core.parts.Aggregation")
        return found

    for name in ("deadline", "over", "buffer", "concurrency"):
        value = getattr(part, name)
        fits = isinstance(value, (int, float)) and value >= 0 and not math.isnan(value)
        _require(fits, option, f"{name} as a number >= 0", told(value),
                 "see fedmpi.core.parts.Aggregation")
    _require(not part.buffer or part.discount is not None, option,
             "a discount where there is a buffer", "None",
             "return Aggregation(..., discount=torch.ones_like)")
    return part._replace(discount=part.discount and discount)


KEEPERS = {
    "strategy": _strategy,
    "optimiser": _optimiser,
    "schedule": _schedule,
    "augment": _augment,
    "pruner": _pruner,
    "contribution": _contribution,
    "weighting": _weighting,
    "codec": _codec,
    "dataset": _dataset,
    "task": _task,
    "partition": _partition,
    "noise": _noise,
    "features": _features,
    "fault": _fault,
    "devices": _devices,
    "sampler": _sampler,
    "aggregation": _aggregation
}
