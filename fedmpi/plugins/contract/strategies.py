"""The contract of strategies: training, merging, messages."""

import torch

from fedmpi.core.parts import Descent, Field, Trained, Training, Travels
from fedmpi.plugins.contract.require import (PARTS, check_number, check_state, check_tensor,
                                             check_tuple, check_unwritten, in_words, require,
                                             versions, with_functions)

SERVER_DATA = ("", "labelled", "unlabelled")
FIELD = "see fedmpi.core.parts.Field"


def strategy(part, option):
    """The ``Strategy``, its functions checked."""
    kinds = ", ".join(map(repr, SERVER_DATA))
    require(part.server_data in SERVER_DATA, option, f"server_data as one of {kinds}",
            repr(part.server_data), "see fedmpi.core.parts.Strategy")
    _check_messages(part, option)
    _check_part(part, option)
    return with_functions(part, {
        "init": _init(part, option),
        "local": _local(part.local, option),
        "merge": _merge(part, option),
        "before": _before(part, option),
        "after": _after(part, option),
        "send": _send(part, option),
        "send_to": _send_to(part, option),
        "reply": _reply(part, option),
        "personal": _personal(part, option),
        "travels": _travels(part, option),
        "record": _record(part, option),
    })


def _init(part, option):

    def init(layout):
        state = part.init(layout)
        check_state(state, option, "init", only_tensors=True)
        return state

    return init


# ---------------------------------------------------------------- training


def _local(own_local, option):
    """Local training, a Descent or a function, checked."""
    if isinstance(own_local, Descent):
        return _descent(own_local, option)
    require(callable(own_local), option,
            "a Descent, or a function (task) -> Trained, as Strategy.local", in_words(own_local),
            PARTS)

    def local(task):
        trained = own_local(task)
        check_trained(trained, option)
        _check_mask_kept(task, option)
        return trained

    return local


def _descent(descent, option):
    """The Descent, its shift checked."""
    if descent.shift is None:
        return descent

    def shift(task):
        vector = descent.shift(task)
        check_tensor(vector, (task.layout.R,), torch.float32, option,
                     "what the shift of local returns")
        return vector

    return descent._replace(shift=shift)


def check_trained(trained, option):
    """Local training must return its loss, steps and samples."""
    is_trained = isinstance(trained, Trained)
    require(is_trained, option, "a Trained from local", in_words(trained),
            "return fedmpi.core.parts.Trained(loss, steps, samples)")
    check_number(trained.loss, option, "the loss of what local returns")
    for name in ("steps", "samples"):
        check_number(getattr(trained, name), option, f"the {name} of what local returns")


def _check_mask_kept(task, option):
    """No pruned weight may have moved."""
    x = task.x[: task.layout.Q]
    moved = x.ne(0) & ~task.mask
    if not bool(moved.any()):
        return
    # A divergence leaves 0 times infinity there, which the worker reports.
    num_moved = int(torch.count_nonzero(moved & x.isfinite()))
    require(not num_moved, option, "local to leave pruned weights at 0",
            f"{num_moved} that it has moved", "multiply gradients by task.trainable")


# ---------------------------------------------------------------- merging


def _merge(part, option):

    def merge(state, x, updates, weights):
        inputs = {"x": x, "U": updates.U, "weights": weights}
        before = versions(inputs)
        answer = part.merge(state, x, updates, weights)
        check_tuple(answer, 2, option, "(state, x) from merge")
        state_after, merged = answer
        check_state(state_after, option, "merge", only_tensors=True)
        # An entry that disappears would be missed by the next merge.
        lacking = sorted(state.keys() - state_after.keys())
        listed = ", ".join(lacking)
        require(not lacking, option, "merge to keep the entries of its state",
                f"none for {listed}", "return those that do not change as well")
        # Weights of several coalitions, a row each, make as many models.
        shape = (*weights.shape[:-1], len(x))
        check_tensor(merged, shape, torch.float32, option, "the model that merge returns")
        check_unwritten(option, "merge", inputs, before)
        if weights.ndim == 1:
            _check_still(x, merged, updates.support, option, "merge")
        return answer

    return merge


def _before(part, option):

    def before(state, x, mask):
        training = part.before(state, x, mask)
        is_training = isinstance(training, Training)
        require(is_training, option, "a Training from before",
                in_words(training), "return fedmpi.core.parts.Training(x, mask)")
        check_tensor(training.x, x.shape, torch.float32, option, "x of the Training")
        check_tensor(training.mask, mask.shape, torch.bool, option, "mask of the Training")
        return training

    return before


def _after(part, option):

    def after(state, x, updates, lab):
        inputs = {"x": x, "U": updates.U}
        before = versions(inputs)
        answer = part.after(state, x, updates, lab)
        check_tuple(answer, 2, option, "(state, x) from after")
        state_after, x_after = answer
        check_state(state_after, option, "after", only_tensors=True)
        check_tensor(x_after, x.shape, torch.float32, option, "the model that after returns")
        check_unwritten(option, "after", inputs, before)
        _check_still(x, x_after, updates.support, option, "after")
        return answer

    return after


def _check_still(x, merged, support, option, function):
    """No entry outside the support may have moved."""
    moved = merged != x
    moved[support] = False
    num_moved = int(torch.count_nonzero(moved))
    require(not num_moved, option, f"{function} to move entries of the support only",
            f"{num_moved} others, pruned weights or padding, that it has moved",
            "write to x.clone() at updates.support")


# ---------------------------------------------------------------- messages


def _check_messages(part, option):
    """The fields must be sound, and have functions to fill them."""
    for name in ("sends", "answers", "keeps"):
        _check_fields(getattr(part, name), option, name)
    has_sender = part.send or part.send_to
    require(not part.sends or has_sender, option,
            "send or send_to, since sends names arrays", "neither",
            "return Strategy(..., send=lambda state: {...})")
    needs_reply = part.answers or part.keeps
    require(not needs_reply or part.reply, option,
            "a function reply, since answers or keeps name arrays", "none",
            "return Strategy(..., reply=reply)")


def _check_fields(fields, option, name):
    """A strategy's ``name`` must be ``{array: Field}``."""
    is_dict = isinstance(fields, dict)
    require(is_dict, option, f"{name} as a dict of a Field for each name",
            in_words(fields), PARTS)
    for key, field in fields.items():
        is_field = isinstance(field, Field)
        require(is_field, option, f"a Field for {key!r} in {name}",
                in_words(field), "use Field()")
        _check_field(field, key, option)


def _check_field(field, key, option):
    is_place = field.on in ("support", "any") or isinstance(field.on, tuple)
    require(is_place, option, f"on of the Field {key!r} as 'support', 'any' or a shape",
            repr(field.on), FIELD)
    require(field.on == "support" or not field.coded, option,
            f"the Field {key!r} on the support, since it is coded", f"on={field.on!r}",
            "leave coded out: a codec is made for the values of a model")
    require(field.fold in ("rows", "sum", "list"), option,
            f"fold of the Field {key!r} as 'rows', 'sum' or 'list'", repr(field.fold), FIELD)


def _send(part, option):

    def send(state):
        messages = part.send(state)
        return _named_tensors(messages, part.sends, option, "send")

    return send


def _send_to(part, option):

    def send_to(state, client):
        messages = part.send_to(state, client)
        return _named_tensors(messages, part.sends, option, "send_to")

    return send_to


def _reply(part, option):

    def reply(task, trained):
        pair = part.reply(task, trained)
        check_tuple(pair, 2, option, "(answer, kept) from reply")
        answer, kept = pair
        P = task.layout.P
        _named_tensors(answer, part.answers, option, "the answer of reply", P)
        _named_tensors(kept, part.keeps, option, "what reply keeps", P)
        return pair

    return reply


def _named_tensors(tensors, fields, option, function, P=None):
    """``tensors`` itself, if it is a dict of tensors by names of the fields.

    With P, fields on the support must hold vectors (P,).
    """
    require(isinstance(tensors, dict), option, f"a dict of tensors as {function}",
            in_words(tensors), "return {name: tensor}")
    names = ", ".join(fields) or "(none)"
    for name, tensor in tensors.items():
        require(name in fields, option, f"names of {names} as {function}", repr(name),
                "give it a Field")
        require(isinstance(tensor, torch.Tensor), option, f"{name} of {function} as a tensor",
                in_words(tensor), "use torch.as_tensor")
        if fields[name].on == "support" and P is not None:
            require(tensor.shape == (P,), option, f"{name} of {function} as a vector ({P},)",
                    in_words(tensor), "it is on the support: give the whole vector")
    return tensors


def _personal(part, option):

    def personal(layout):
        names = part.personal(layout)
        is_list = isinstance(names, (list, tuple, set, frozenset))
        fits = is_list and all(isinstance(name, str) for name in names)
        require(fits, option, "names of the model's tensors from personal", in_words(names),
                "return a tuple of texts")
        return names

    return personal


def _travels(part, option):

    def travels(layout, t):
        parts = part.travels(layout, t)
        require(isinstance(parts, Travels), option, "a Travels from travels", in_words(parts),
                "return fedmpi.core.parts.Travels(down, up)")
        for name, entries in parts._asdict().items():
            check_tensor(entries, (layout.P,), torch.bool, option, f"{name} of what travels returns")
        return parts

    return travels


def _check_part(part, option):
    """A strategy of which a part of the model travels must say what clients make of it."""
    if part.travels is None:
        return
    is_said = isinstance(part.local, Descent) and part.local.arrives is not None
    require(is_said, option, "local as a Descent with arrives, beside travels",
            in_words(part.local), "see fedmpi.core.parts.Descent")
    require(part.personal is None, option, "no personal tensors beside travels", "some",
            "leave one of them out")


def _record(part, option):

    def record(state, updates):
        numbers = part.record(state, updates)
        columns = [name for name, *_ in part.columns]
        fits = isinstance(numbers, dict) and sorted(numbers) == sorted(columns)
        listed = ", ".join(columns)
        require(fits, option, f"a number for each of the columns {listed} from record",
                in_words(numbers), "return {name: number}")
        for name, number in numbers.items():
            check_number(number, option, f"{name} of record")
        return numbers

    return record
