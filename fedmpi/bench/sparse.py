"""Where sparse products beat dense ones: a linear layer's three products by size, batch, sparsity.

Kernels take turns on one thread, in the process's own time: the machine's other work does not
count. A figure is the median over the turns, a speed-up the median of the quotients of one turn.
"""

import json
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch

from fedmpi.bench import kernels
from fedmpi.bench.ratios import ratios
from fedmpi.compute.kernels import missing

PRODUCTS = ("forward", "dX", "dW")
ALL_PRODUCTS = (*PRODUCTS, "step")
# Beside dense ones.
OTHERS = ("masked", "bf16", "csr", "bsr", "single", "block")
# Those of ``--kernel``, the last one in blocks of SIDE alone.
OWN, SIDE = ("single", "block"), 8
# The least seconds that a timing lasts: shorter work is repeated.
LEAST_S = 0.002
# The aim: so many times as fast a step as dense at this sparsity, in blocks.
AIM, AIM_SPARSITY = 1.5, 0.95


def measure(sizes, batches, sparsities, block, repeats, path, say):
    """Print the map of speed-ups and crossovers; write it to ``path`` as JSON unless None.

    ``block`` is the side of the blocks, which divides all ``sizes``."""
    torch.set_num_threads(1)
    # torch calls its sparse matrices a beta.
    warnings.filterwarnings("ignore", message="Sparse (CSR|BSR)")
    torch.manual_seed(0)
    rows = []
    say("a linear layer of n x n, one thread: milliseconds a step (forward, dX, dW) when dense, and")
    say("how many times as fast the others are; csr (MKL) and single: any mask; bsr (MKL) and "
        f"block: masks of {block}x{block}")
    columns = _right_aligned(OTHERS)
    say(f"{'n':>6}{'batch':>7}{'sparsity':>10}{'dense ms':>10}{columns}")
    for n in sizes:
        for batch in batches:
            for sparsity in sparsities:
                cell = _cell(n, batch, sparsity, block, repeats)
                rows += cell
                say(_line(n, batch, sparsity, cell))
    _say_crossovers(rows, sparsities, say)
    _say_aim(rows, block, say)
    if torch.cuda.is_available():
        rows += _on_gpu(sizes, batches, repeats, say)
    if path is not None:
        _write(path, rows, block, repeats)
    return 0


def _write(path, rows, block, repeats):
    """Write all figures as JSON."""
    figures = {
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "block": block,
        "repeats": repeats,
        "rows": rows,
    }
    text = json.dumps(figures, indent=1)
    Path(path).write_text(text, encoding="utf-8")


# --- one setting ---


def random_blocks(n, sparsity, size):
    """bool (n, n): blocks of ``size`` x ``size`` at random, ``1 - sparsity`` of them kept."""
    side = n // size
    num_blocks = side * side
    share = round((1 - sparsity) * num_blocks)
    num_kept = max(share, 1)
    order = torch.randperm(num_blocks)
    kept = torch.zeros(num_blocks, dtype=torch.bool)
    kept[order[:num_kept]] = True
    grid = kept.view(side, side)
    return grid.repeat_interleave(size, 0).repeat_interleave(size, 1)


def _cell(n, batch, sparsity, block, repeats):
    """The rows of one setting: a dict a kernel and product."""
    single = random_blocks(n, sparsity, 1)
    in_blocks = random_blocks(n, sparsity, block)
    W = torch.randn(n, n)
    contenders = {
        "dense": kernels.dense(W, single),
        "masked": kernels.masked(W, single),
        "bf16": kernels.bf16(W, single),
        "csr": kernels.csr(W, single),
        "bsr": kernels.bsr(W, in_blocks, block),
    }
    if not missing():
        contenders["single"] = kernels.own(W, single, "single")
        if block == SIDE:
            contenders["block"] = kernels.own(W, in_blocks, "block")
    X, dY = torch.randn(batch, n), torch.randn(batch, n)
    taken = _turns(contenders, X, dY, repeats, _cpu_s)
    facts = {"device": "cpu", "n": n, "batch": batch, "sparsity": sparsity}
    return _rows(facts, taken, "dense")


def _rows(facts, taken, reference):
    """A dict a kernel and product, ``step`` being all three, against the reference's turns."""
    rows = []
    for name, products in taken.items():
        for product, seconds in products.items():
            quotients = ratios(taken[reference][product], seconds)
            row = {
                **facts,
                "kernel": name,
                "product": product,
                "ms": 1e3 * statistics.median(seconds),
                "times_as_fast": statistics.median(quotients),
                "least": min(quotients),
                "most": max(quotients),
            }
            rows.append(row)
    return rows


def _turns(contenders, X, dY, repeats, timed):
    """``{kernel: {product: [seconds a turn]}}``, kernel by kernel in each turn."""
    taken = {name: {product: [] for product in PRODUCTS} for name in contenders}
    for turn in range(repeats + 1):
        for name, kernel in contenders.items():
            works = (
                lambda: kernel.forward(X),
                lambda: kernel.backward_x(dY),
                lambda: kernel.backward_w(dY, X),
            )
            for product, work in zip(PRODUCTS, works):
                seconds = timed(work)
                # The first turn warms up.
                if turn:
                    taken[name][product].append(seconds)
    for products in taken.values():
        turns = zip(*products.values())
        products["step"] = [sum(turn) for turn in turns]
    return taken


def _cpu_s(work):
    """Seconds of this process for one call; short work is repeated."""
    calls = 0
    begin = time.process_time()
    while True:
        work()
        calls += 1
        passed = time.process_time() - begin
        if passed >= LEAST_S:
            return passed / calls


def _gpu_s(work):
    """Seconds until a GPU has done one of twenty calls."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / 20


def _on_gpu(sizes, batches, repeats, say):
    """The rows of 2:4 masks in float16 against dense products, printed."""
    rows = []
    say("on the GPU, float16, 2:4 masks, forward sparse, weights packed in each step:")
    say(f"{'n':>6}{'batch':>7}{'dense ms':>10}{'step':>9}{'forward':>9}")
    for n in sizes:
        W = torch.randn(n, n, device="cuda")
        # The first two of each four: which ones makes no difference to the time.
        mask = torch.tensor([True, True, False, False], device="cuda").repeat(n, n // 4)
        contenders = {"half": kernels.half(W, mask), "2:4": kernels.two_of_four(W, mask)}
        for batch in batches:
            X = torch.randn(batch, n, device="cuda").half()
            dY = torch.randn(batch, n, device="cuda").half()
            taken = _turns(contenders, X, dY, repeats, _gpu_s)
            facts = {"device": "cuda", "n": n, "batch": batch, "sparsity": 0.5}
            cell = _rows(facts, taken, "half")
            rows += cell
            dense_ms = _of(cell, "half", "step")["ms"]
            step = _of(cell, "2:4", "step")["times_as_fast"]
            forward = _of(cell, "2:4", "forward")["times_as_fast"]
            say(f"{n:6}{batch:7}{dense_ms:10.4f}{step:9.2f}{forward:9.2f}")
    return rows


# --- lines ---


def _of(rows, kernel, product):
    """The first row of a kernel and product; None without one."""
    of_both = [row for row in rows if (row["kernel"], row["product"]) == (kernel, product)]
    return of_both[0] if of_both else None


def _right_aligned(words):
    """The words in columns of nine characters."""
    return "".join(f"{word:>9}" for word in words)


def _line(n, batch, sparsity, cell):
    """A line of the table of steps."""
    dense_ms = _of(cell, "dense", "step")["ms"]
    speeds = []
    for name in OTHERS:
        step = _of(cell, name, "step")
        # A kernel that is not installed, or knows no blocks of this size.
        speeds.append("-" if step is None else f"{step['times_as_fast']:.2f}")
    return f"{n:6}{batch:7}{sparsity:10g}{dense_ms:10.3f}{_right_aligned(speeds)}"


def crossover(rows, kernel, product):
    """The least sparsity from which on the kernel beats dense at all larger ones; None: at none."""
    of_kernel = [row for row in rows if (row["kernel"], row["product"]) == (kernel, product)]
    of_kernel.sort(key=lambda row: -row["sparsity"])
    least = None
    for row in of_kernel:
        if row["times_as_fast"] <= 1:
            break
        least = row["sparsity"]
    return least


def _say_crossovers(rows, sparsities, say):
    """Print from which sparsity on sparse kernels win, by product."""
    measured = ", ".join(f"{sparsity:g}" for sparsity in sorted(sparsities))
    say(f"faster than dense from which sparsity on, of {measured}:")
    say(f"{'n':>6}{'batch':>7}{'kernel':>8}{_right_aligned(ALL_PRODUCTS)}")
    cells = {}
    for row in rows:
        setting = row["n"], row["batch"]
        cells.setdefault(setting, []).append(row)
    for (n, batch), cell in cells.items():
        for kernel in ("csr", "bsr", *OWN):
            crossings = [_crossover_word(cell, kernel, product) for product in ALL_PRODUCTS]
            say(f"{n:6}{batch:7}{kernel:>8}{_right_aligned(crossings)}")


def _crossover_word(rows, kernel, product):
    """``0.95`` or ``never``."""
    if _of(rows, kernel, product) is None:
        return "-"
    least = crossover(rows, kernel, product)
    return "never" if least is None else f"{least:g}"


def _say_aim(rows, block, say):
    """Print the least and the most speed-up of a step in blocks at the sparsity of the aim."""
    for kernel in ("bsr", "block"):
        speeds = []
        for row in rows:
            setting = (row["kernel"], row["product"], row["sparsity"])
            if setting == (kernel, "step", AIM_SPARSITY):
                speeds.append(row["times_as_fast"])
        if speeds:
            say(f"{kernel}: a step in {block}x{block} blocks at sparsity {AIM_SPARSITY} is "
                f"{min(speeds):.2f} to {max(speeds):.2f} times as fast as dense; the aim is {AIM}")
