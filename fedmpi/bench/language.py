"""Rounds of a language model, H local steps a client, against the bare steps.

Both sides train the same network in the same process, turn by turn, in as many steps of AdamW over
windows of as many tokens. The reference has neither messages nor merges: a plain PyTorch loop over
random tokens on the device. Ours is the wall time of whole rounds, without evaluation and
checkpoints: they come as seldom as the user wants, and have benches of their own. Without
``repeats`` the reference is left out, for models too large to be there twice.
"""

import os
import statistics
import tempfile
import time

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi import catalog
from fedmpi.bench.ratios import ratios, spread, turn
from fedmpi.bench.reference import (
    WithReference, device_name, num_workers, slowest_s, wait_for)
from fedmpi.bench.round import BARE, Arm
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out
from fedmpi.compute.sgd import casting
from fedmpi.core.words import plural
from fedmpi.plugins.spec import make
from fedmpi.run import launch

# Tokens of the chain that clients train on: its text is of no matter, and short.
CHAIN_VOCAB = 64
# The first round allocates memory, records graphs and builds kernels.
WARM_UP = 1
LR, BETAS, WEIGHT_DECAY = 6e-4, (0.9, 0.95), 0.1
GB = 1e9


def measure(
        device, repeats, say, *,
        model, vocab, context, batch_size, local_steps, clients, precision, accumulate):
    """Print seconds a round, tokens a second and the ratio to the bare steps; the exit code.

    A client takes ``local_steps`` of ``batch_size`` windows of ``context`` tokens; ``accumulate``
    divides each batch into so many parts. Of the ``vocab`` tokens of the model the data have 64.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {
        "model": model,
        "shape": (context,),
        "vocab": vocab,
        "batch_size": batch_size,
        "steps": local_steps,
        "precision": precision,
        "accumulate": accumulate,
        "seed": 0,
    }
    options = _options(device, clients, **sizes)

    def server(connect):
        return _play(connect, options, sizes, repeats, say)

    def worker():
        return WithReference(launch.worker(), plain)

    return launch.on_ranks(server, worker, say)


def _options(device, clients, model, shape, vocab, batch_size, steps, precision, accumulate, seed):
    """The options of a run."""
    context, = shape
    # Every client has some windows more than a batch.
    num_tokens = clients * context * (batch_size + 2)
    chain = f"vocab={min(CHAIN_VOCAB, vocab)},tokens={num_tokens},test={4 * context}"
    beta1, beta2 = BETAS
    return BARE | {
        "task": "lm",
        "dataset": f"markov:{chain},context={context}",
        "model": _with_vocab(model, vocab),
        "optimiser": f"adamw:beta1={beta1},beta2={beta2},weight_decay={WEIGHT_DECAY}",
        "strategy": "diloco:inner=reset",
        "contribution": "uniform",
        "weighting": "uniform",
        "lr": LR,
        "clients": clients,
        "batch_size": batch_size,
        "local_steps": steps,
        "precision": precision,
        "accumulate": accumulate,
        "device": device,
        "evaluate_every": BARE["rounds"],
        "save_every": BARE["rounds"],
        "seed": seed,
    }


def _with_vocab(model, vocab):
    """The spec of a model of ``vocab`` tokens."""
    separator = "," if ":" in model else ":"
    return f"{model}{separator}vocab={vocab}"


def _play(connect, options, sizes, repeats, say):
    torch.set_num_threads(1)
    transport = connect()
    data, _ = dealt_out(*made(options))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.h5")
        arm = Arm(options, data.dataset, transport, path, say)
        transport.share({"kind": "data"}, shared_arrays(data))
        workers = num_workers(transport)
        say(_head(arm, options, sizes, workers))
        arm.set_up()
        warm_up_s = arm.play(WARM_UP)
        say(f"first round, with allocations: {warm_up_s:.3f} s")
        if not repeats:
            say(f"second round: {arm.play(1):.3f} s")
            _say_memory(transport, say)
            return 0
        seconds = _turns(arm, transport, options, sizes, repeats, say)
        _say_memory(transport, say)
    own, bare = seconds
    tokens = options["clients"] * sizes["steps"] * sizes["batch_size"] * sizes["shape"][0]
    own_s, bare_s = statistics.median(own), statistics.median(bare)
    say(f"a round: {own_s:.3f} s against {bare_s:.3f} s of bare steps: ratio "
        f"{spread(ratios(own, bare))}")
    say(f"tokens a second: {tokens / own_s:,.0f} against {tokens / bare_s:,.0f}")
    return 0


def _head(arm, options, sizes, workers):
    num_weights = arm.run.layout.num_parameters
    return (
        f"{options['model']} ({num_weights:,} weights, {sizes['precision']}), "
        f"{plural(options['clients'], 'client')} of {sizes['steps']} steps, batch "
        f"{sizes['batch_size']} x {sizes['shape'][0]} tokens, {plural(workers, 'worker')} on "
        f"{device_name(options['device'])}")


def _turns(arm, transport, options, sizes, repeats, say):
    """``(ours, the bare steps')``: lists of seconds a round, one a repeat, without the warm-up."""
    own, bare = [], []
    clients, workers = options["clients"], num_workers(transport)
    jobs = []
    for worker in range(workers):
        num_clients = len(range(worker, clients, workers))
        task = sizes | {"device": options["device"], "clients": num_clients}
        jobs.append({"plain": task})
    for repeat in range(repeats + 1):
        replies = transport.map(jobs)
        bare.append(slowest_s(replies))
        own.append(arm.play(1))
        say(f"{turn(repeat)}: ours {own[-1]:.3f} s, bare steps {bare[-1]:.3f} s")
    return own[1:], bare[1:]


def _say_memory(transport, say):
    """Print each worker's largest memory of its GPU so far."""
    jobs = [{"plain": None}] * num_workers(transport)
    for reply in transport.map(jobs):
        peak_bytes, = reply.arrays["plain"]
        if peak_bytes:
            say(f"rank {reply.rank}: {peak_bytes / GB:.1f} GB of its GPU at most, in tensors")


# ---------------------------------------------------------------- a worker's own jobs


def plain(worker, task):
    """(1,) float64: seconds of the bare steps of a ``task``; of None, bytes of the GPU at most."""
    if task is None:
        return np.array([_peak_bytes(worker.device)])
    return np.array([_bare_s(worker.device, task)])


def _peak_bytes(device):
    if device.type != "cuda":
        return 0.0
    return float(torch.cuda.max_memory_allocated(device))


def _bare_s(device, task):
    """Seconds of ``torch.optim.AdamW`` over ``task["clients"]`` times ``task["steps"]`` steps."""
    model_spec, vocab, shape = task["model"], task["vocab"], tuple(task["shape"])
    torch.manual_seed(task["seed"])
    model = make(catalog.MODELS, _with_vocab(model_spec, vocab), shape, vocab).to(device)
    model.train()
    # Fused: one kernel for all weights, as ours.
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    cast = casting(task["precision"], device)
    batch_size, context = task["batch_size"], shape[0]
    ids = torch.randint(0, vocab, (batch_size, context + 1), device=device)
    part_size = -(-batch_size // task["accumulate"])
    parts = ids.split(part_size)

    def step():
        optimiser.zero_grad()
        for part in parts:
            inputs, targets = part[:, :-1], part[:, 1:]
            with cast():
                outputs = model(inputs)
            loss = F.cross_entropy(outputs.float().flatten(0, 1), targets.flatten())
            share = len(part) / batch_size
            (share * loss).backward()
        optimiser.step()

    # The first step builds kernels and the optimiser's state.
    step()
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(task["clients"] * task["steps"]):
        step()
    wait_for(device)
    return time.perf_counter() - begin
