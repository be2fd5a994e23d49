"""``--kernel``: checked, and ``auto`` decided by a short timing on rank 0.

The choice becomes part of the run's options, as other kernels give other bits: all ranks have the
same, and so has a run that is resumed.
"""

import time

import torch
from torch.nn import functional as F

from fedmpi.build import kinds
from fedmpi.build.network import sample
from fedmpi.compute.kernels import (AUTO, DENSE, NAMES, as_text, check_text, chosen, missing,
                                    product_of, rows_of)
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent
from fedmpi.core.words import plural
from fedmpi.server.run_state import initial_state

# A kernel must be so many times as fast as dense products: less is not worth other bits.
GAIN = 1.1
REPEATS = 5
# Samples of a timing: more of them take as long each.
MOST_ROWS = 4096


def check(setup):
    """UserError if ``--kernel`` is no kernel, or has no place in this run."""
    text = setup.options["kernel"]
    check_text(text)
    if text in (DENSE, AUTO):
        return
    why = unfit(setup.options, setup.parts)
    if why:
        raise UserError(f"--kernel {_short(text)} skips pruned weights, but {why}; take --kernel "
                        f"{DENSE}")
    kernels = chosen(text, setup.network.layout)
    mask = _first_mask(setup)
    _check_pruned(setup, mask)
    _check_blocks(setup, kernels, mask)


def _short(text):
    """The text, or the start of a long list."""
    return text if len(text) < 40 else f"{text[:37]}..."


def _check_pruned(setup, mask):
    """UserError if no weight is ever pruned."""
    is_full = torch.equal(mask, setup.network.layout.full_mask())
    if is_full and setup.parts.pruner.fixed:
        raise UserError(f"--kernel {_short(setup.options['kernel'])} skips pruned weights, and "
                        f"--pruner {setup.options['pruner']} has none; take --kernel {DENSE}")


def _check_blocks(setup, kernels, mask):
    """UserError for ``block`` where no layer's first ``mask`` is made of whole blocks."""
    layout = setup.network.layout
    in_blocks = [name for name, kernel in kernels.items() if kernel == "block"]
    for slot in layout.weights:
        if slot.name in in_blocks and product_of("block", slot.of(mask)) is not None:
            return
    if in_blocks:
        raise UserError("--kernel block: no mask is made of whole blocks of 8 x 8; take a pruner "
                        f"with block=8, or --kernel single, got --pruner {setup.options['pruner']}")


def unfit(options, parts):
    """Half a line if no kernel skips weights in this run; empty if some can."""
    if options["device"] != "cpu":
        return "that is for CPUs"
    if options["precision"] != "float32":
        return f"--precision {options['precision']} takes products of its own"
    if options["together"] > 1:
        return "clients side by side have one product for all"
    if options["ranks_per_client"] > 1:
        return "the ranks of a client have products of their own"
    if not isinstance(parts.strategy.local, Descent):
        return f"--strategy {options['strategy']} has a way of training of its own"
    if parts.pruner.units is not None or kinds.several(options):
        return "clients train networks of several kinds"
    return missing()


def _first_mask(setup):
    """(Q,) bool: the mask before round 1."""
    return initial_state(setup.run, setup.network.first)["mask"]


# --- auto ---


def kernels_decided(setup, say):
    """The ``Setup`` with ``--kernel auto`` replaced by the kernels that are the fastest here."""
    if setup.options["kernel"] != AUTO:
        return setup
    why = unfit(setup.options, setup.parts)
    rows = []
    if why:
        say(f"--kernel auto: {why}: dense")
    else:
        rows = _timings(setup)
        say(_told(rows))
    kernels = {row["layer"]: row["kernel"] for row in rows if row["kernel"] != DENSE}
    options = setup.options | {"kernel": as_text(kernels)}
    return setup._replace(options=options, kernels=tuple(rows))


def _timings(setup):
    """A dict a pruned linear layer: its sizes, the milliseconds of a step's products by each
    kernel, and the ``kernel`` to take."""
    options, network = setup.options, setup.network
    layout, mask = network.layout, _first_mask(setup)
    one = sample(setup.data).to(network.x.device)
    rows_of_one = rows_of(network.model, layout, one)
    batch = -(-options["batch_size"] // options["accumulate"])
    timings, measured = [], {}
    for slot in layout.weights:
        of_layer = slot.of(mask)
        kept = int(of_layer.sum())
        if slot.name not in rows_of_one or kept == slot.size:
            continue
        rows = rows_of_one[slot.name] * batch
        # Layers of the same sizes take the same time.
        key = slot.shape, rows, kept
        if key not in measured:
            measured[key] = milliseconds(of_layer, min(rows, MOST_ROWS))
        row = {"layer": slot.name, "shape": list(slot.shape), "rows": rows, "kept": kept}
        timings.append(row | measured[key] | {"kernel": fastest(measured[key])})
    return timings


def milliseconds(mask, rows):
    """``{kernel: milliseconds}`` of a step's products of a layer with this mask.

    The least of REPEATS, kernel by kernel in turns, in the process's own time.
    """
    gen = torch.Generator().manual_seed(0)
    X = torch.randn(rows, mask.shape[1], generator=gen, requires_grad=True)
    dY = torch.randn(rows, mask.shape[0], generator=gen)
    W = torch.randn(mask.shape, generator=gen).mul_(mask).requires_grad_()
    products = {DENSE: F.linear}
    for name in NAMES:
        product = product_of(name, mask)
        if product is not None:
            products[name] = product
    taken = {name: [] for name in products}
    # The first turn warms up.
    for turn in range(REPEATS + 1):
        for name, product in products.items():
            begin = time.process_time()
            torch.autograd.grad(product(X, W), (X, W), dY)
            if turn:
                taken[name].append(1e3 * (time.process_time() - begin))
    return {name: min(times) for name, times in taken.items()}


def fastest(times):
    """The kernel of least milliseconds, ``dense`` unless the gain is worth it."""
    best = min(times, key=times.get)
    return best if GAIN * times[best] < times[DENSE] else DENSE


def _told(rows):
    """A line for the user about the timings."""
    if not rows:
        return "--kernel auto: no linear layer is pruned: dense"
    layers = plural(len(rows), "pruned layer")
    counts = []
    for name in (*NAMES, DENSE):
        count = sum(row["kernel"] == name for row in rows)
        if count:
            counts.append(f"{count} {name}")
    dense_ms = sum(row[DENSE] for row in rows)
    chosen_ms = sum(row[row["kernel"]] for row in rows)
    return (f"--kernel auto: of {layers} {', '.join(counts)}; the products of a step in "
            f"{chosen_ms:.3g} ms, dense {dense_ms:.3g} ms")
