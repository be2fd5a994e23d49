"""A whole training step of a sparse GPT: dense products against those of ``--kernel``.

A step includes its batch, attention, the loss, the masked gradient, and AdamW. Kernels take turns on
one thread, in the process's own time; speed-ups are medians of the quotients of one turn. ``auto``
has the kernels of ``--kernel auto``, dense ones too.
"""

import statistics
import time

import torch

from fedmpi.bench.ratios import ratios
from fedmpi.build.kernels import fastest, milliseconds
from fedmpi.compute.kernels import DENSE, NAMES, missing, rows_of
from fedmpi.compute.sgd import descend
from fedmpi.core.allocator import keep_freed_memory
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.models.gpt import gpt
from fedmpi.methods.optimisers.adamw import adamw
from fedmpi.methods.pruning.static import static
from fedmpi.methods.tasks.lm import lm

VOCAB = 64


def measure(width, depth, heads, context, batch, sparsities, steps, repeats, say):
    """Print milliseconds a step of each kernel, by sparsity; returns the exit code."""
    why = missing()
    if why:
        raise UserError(f"there is nothing to compare: {why}")
    torch.set_num_threads(1)
    # As a run does.
    keep_freed_memory()
    say(f"a step of a GPT of {depth} layers, {width} wide, {batch} windows of {context} tokens, on "
        "one thread: milliseconds when dense, and how many times as fast the others are")
    say(f"{'sparsity':>10}{'mask':>8}{'dense ms':>10}{'single':>9}{'block':>9}{'auto':>9}")
    for sparsity in sparsities:
        for block in ("none", "8"):
            task = _task(width, depth, heads, context, batch, sparsity, block)
            say(_line(task, sparsity, block, steps, repeats))
    return 0


def _task(width, depth, heads, context, batch, sparsity, block):
    """The ``Task`` of one client with random tokens."""
    torch.manual_seed(0)
    model = gpt((context,), VOCAB, depth=depth, width=width, heads=heads)
    layout, x, g = bind(model)
    gen = stream(0, Purpose.TRAIN, 0)
    _, mask = static(sparsity, block=block).init(layout, x, Round(0, 1), gen)
    trainable = torch.ones(layout.R)
    trainable[: layout.Q] = mask.float()
    x[: layout.R] *= trainable
    drawn = gen.integers(0, VOCAB, (2 * batch, context + 1))
    tokens = torch.from_numpy(drawn)
    return Task(
        model=model,
        layout=layout,
        x=x,
        g=g,
        base=x.clone(),
        mask=mask,
        trainable=trainable,
        inputs=tokens[:, :-1],
        labels=tokens[:, 1:],
        epochs=0,
        batch_size=batch,
        lr=1e-3,
        gen=gen,
        now=Round(1, 1),
        optimiser=adamw(),
        objective=lm())


def _line(task, sparsity, block, steps, repeats):
    """A line of the table."""
    taken_ms = _taken_ms(task, _kernels(task, block), steps, repeats)
    words = []
    for name in (*NAMES, "auto"):
        word = "-"
        if name in taken_ms:
            speeds = ratios(taken_ms[DENSE], taken_ms[name])
            word = f"{statistics.median(speeds):.2f}"
        words.append(f"{word:>9}")
    mask = "single" if block == "none" else f"{block}x{block}"
    dense_ms = statistics.median(taken_ms[DENSE])
    return f"{sparsity:10g}{mask:>8}{dense_ms:10.1f}{''.join(words)}"


def _kernels(task, block):
    """``{name: {name of a weight: kernel}}`` of the sides to compare."""
    linear = [slot.name for slot in task.layout.weights]
    kernels = {DENSE: {}, "single": dict.fromkeys(linear, "single")}
    if block != "none":
        kernels["block"] = dict.fromkeys(linear, "block")
    return kernels | {"auto": _auto(task)}


def _taken_ms(task, kernels, steps, repeats):
    """``{name: [milliseconds a step]}``, one a repeat: the sides take turns."""
    taken_ms = {name: [] for name in kernels}
    # The first turn warms up.
    for turn in range(repeats + 1):
        for name, of_layers in kernels.items():
            task.x.copy_(task.base)
            begin = time.process_time()
            descend(task._replace(kernels=of_layers, steps=steps))
            taken_s = time.process_time() - begin
            if turn:
                taken_ms[name].append(1e3 * taken_s / steps)
    return taken_ms


def _auto(task):
    """``{name of a weight: kernel}`` as ``--kernel auto`` chooses."""
    rows = rows_of(task.model, task.layout, task.inputs[:1])
    kernels, measured = {}, {}
    for slot in task.layout.weights:
        of_layer = slot.of(task.mask)
        key = slot.shape, int(of_layer.sum())
        if key not in measured:
            measured[key] = milliseconds(of_layer, rows[slot.name] * task.batch_size)
        kernel = fastest(measured[key])
        if kernel != DENSE:
            kernels[slot.name] = kernel
    return kernels
