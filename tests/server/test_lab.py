"""The server's own compute: the same bits on any number of workers, in any order of their answers."""

import contracts
import pytest
import torch

from fedmpi import catalog
from fedmpi.build.worker import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.core import flops
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.parts import Training
from fedmpi.laws import engine
from fedmpi.plugins.spec import make
from fedmpi.server import lab, loop
from fedmpi.transport.local import Local

DATA = {"dataset": "synthetic:samples=200,size=4,noise=0.3,classes=4", "strategy": "feddu", "server_data": "0.3"}


class Several:
    """Workers in one process: jobs go to them in turn, and answers come back in the opposite order."""

    def __init__(self, workers):
        self.ranks = [Local(worker) for worker in workers]

    def share(self, meta, arrays):
        for rank in self.ranks:
            rank.share(meta, arrays)

    def publish(self, meta, arrays):
        return [rank.publish(meta, arrays) for rank in self.ranks][0]

    def map(self, jobs, arrays=None, meanwhile=()):
        arrays = arrays or [{}] * len(jobs)
        found = [next(self.ranks[number % len(self.ranks)].map([job], [given]))._replace(index=number)
                 for number, (job, given) in enumerate(zip(jobs, arrays))]
        return iter(found[::-1])


def worker():
    return Worker(worker_parts, lambda name, local_rank: torch.device("cpu"))


def spread(W, **options):
    """``(run, x, RoundLab)`` of a first round whose server works on W workers."""

    def several(first):
        return Several([first, *(worker() for _ in range(W - 1))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Local", several)
        run, state = contracts.assembled(**DATA | options)
    gen = torch.Generator().manual_seed(1)
    x = torch.where(run.layout.real, state["x"] + 0.1 * torch.randn(run.layout.P, generator=gen), 0.0)
    return run, x, lab.round_lab(run, 1, state["mask"])


@pytest.fixture
def small_jobs(monkeypatch):
    """Jobs of 7 samples each, so that a few samples are many jobs."""
    monkeypatch.setattr(lab, "ROWS", 7)


def asked(x, work):
    """All that a lab can be asked, as tensors."""
    mask = work.mask
    models = torch.stack([x, x * 0.5, -x])
    trained = work.train([Training(x, mask), Training(x, mask), Training(x, mask, on="validation", lr=0.01)])
    return [*work.evaluate(models), *work.evaluate(x[None], "validation"), work.outputs(x),
            work.outputs(x, "validation", rows=(3, 12)), work.gradient(x), *(each for each, _ in trained)]


def test_any_number_of_workers_gives_the_same_bits(small_jobs):
    (_, x, one), (_, y, three) = spread(1), spread(3)
    assert torch.equal(x, y)
    for alone, together in zip(asked(x, one.lab), asked(y, three.lab), strict=True):
        assert torch.equal(alone, together)
    assert one.spent == three.spent


def test_a_model_is_worth_what_the_server_itself_would_find():
    run, x, work = spread(1)
    loss, right = work.lab.evaluate(x[None], "validation")
    expected, metrics = loop.finish(run.validate(x))
    assert (float(loss[0]), float(right[0])) == pytest.approx((expected, metrics["accuracy"]))


def test_models_are_evaluated_each_by_itself():
    _, x, work = spread(2)
    models = torch.stack([x * scale for scale in (1.0, 0.1, -1.0, 2.0)])
    together = work.lab.evaluate(models)
    for row, model in enumerate(models):
        alone = work.lab.evaluate(model[None])
        torch.testing.assert_close(torch.stack(alone).flatten(), torch.stack(together)[:, row])


def test_the_gradient_is_that_of_the_servers_derivatives(small_jobs):
    run, x, work = spread(3)
    gradient, _ = run.derivatives
    torch.testing.assert_close(work.lab.gradient(x, "validation"), gradient(x), rtol=1e-5, atol=1e-7)


def test_outputs_are_those_of_the_model_or_of_one_of_its_modules(small_jobs):
    run, x, work = spread(2)
    logits = work.lab.outputs(x, "server")
    assert logits.shape == (run.server.sizes["server"], 4) and logits.dtype == torch.float32
    loss, right = work.lab.evaluate(x[None], "server")
    data = run.transport.ranks[0].worker.data
    labels = torch.from_numpy(data["labels"][-len(logits):])
    assert float((logits.argmax(1) == labels).double().mean()) == pytest.approx(float(right[0]))
    assert float(torch.nn.functional.cross_entropy(logits.double(), labels)) == pytest.approx(float(loss[0]))
    last = list(dict(run.transport.ranks[0].worker.home.model.named_modules()))[-1]
    torch.testing.assert_close(work.lab.outputs(x, of=last), logits)
    assert torch.equal(work.lab.outputs(x, rows=(7, 14)), logits[7:14])


def test_a_training_descends_and_leaves_pruned_weights_alone():
    run, x, work = spread(1, pruner="static:sparsity=0.5")
    mask = work.lab.mask
    off = torch.ones(run.layout.P, dtype=torch.bool)
    off[run.layout.support(mask)] = False
    before = x.clone()
    [(after, trained)] = work.lab.train([Training(x, mask, epochs=5)])
    assert torch.equal(x, before) and torch.equal(after[off], x[off])
    n = run.server.sizes["server"]
    assert (trained.samples, trained.steps) == (5 * n, 5 * -(-n // 10))
    served = loop.model_on(x, run.layout.support(mask), run.layout)
    kept = loop.model_on(after, run.layout.support(mask), run.layout)
    first, last = work.lab.evaluate(torch.stack([served, kept]))[0].tolist()
    assert last < first


def test_trainings_of_a_round_draw_differently_and_settings_hold():
    _, x, work = spread(1)
    given = Training(x, work.lab.mask)
    (a, _), (b, _), (still, _) = work.lab.train([given, given, given._replace(lr=1e-30)])
    assert not torch.equal(a, b)
    torch.testing.assert_close(still, x)
    assert work.lab.train([]) == []


def test_flops_of_own_work_are_booked_apart():
    run, x, work = spread(1, pruner="static:sparsity=0.5")
    mask, n = work.lab.mask, run.server.sizes["server"]
    one = flops.forward(run.layout, run.costs, mask)
    work.lab.evaluate(torch.stack([x, x]), mask=mask)
    work.lab.outputs(x, rows=(0, 5), mask=mask)
    assert work.spent == {"flops_server": 0, "flops_lab": pytest.approx((2 * n + 5) * one)}
    work.lab.train([Training(x, mask)])
    assert work.spent["flops_server"] == pytest.approx(flops.training(run.layout, run.costs, mask, 2 * n, 0, 0)[1])
    assert work.spent["flops_lab"] == pytest.approx((2 * n + 5) * one)


def test_the_servers_work_takes_virtual_time():
    rows = {}
    for gflops in (0.0, 1e-3):
        run, state = contracts.assembled(strategy="feddu:decay=1", server_data="12:labels=0", server_gflops=gflops,
                                         partition="classes:per_client=2", cohort=2)
        rows[gflops] = contracts.run_rounds(run, state, 2)[1]
    for free, slow in zip(rows[0.0], rows[1e-3]):
        assert free["sim_s"] == 0 and free["flops_server"] == slow["flops_server"] > 0
        assert slow["sim_s"] == pytest.approx((slow["flops_server"] + slow["flops_lab"]) / 1e6)
    assert rows[1e-3][1]["sim_total_s"] == pytest.approx(sum(row["sim_s"] for row in rows[1e-3]))


def test_a_training_beside_the_clients_takes_time_only_where_it_is_the_last():
    """Clients take 3 s each way round; the server's training that goes on meanwhile is done before, or after."""
    from breaking import devices
    for gflops in (1.0, 1e-6):
        run, state = contracts.assembled(strategy="fltrust", server_data="12", server_gflops=gflops)
        _, row, _ = loop.evaluated_round(run._replace(devices=devices(3, latency=1.5)), state, 1)
        assert row["sim_s"] == pytest.approx(max(3.0, row["flops_server"] / (gflops * 1e9)))


@pytest.mark.parametrize("strategy, idle", [("feddu:decay=1", "fedavg"), ("fltrust", "median")])
def test_bytes_of_own_work_are_no_clients(strategy, idle):
    options = {"partition": "classes:per_client=2", "cohort": 2, "server_data": "12"}
    run, state = contracts.assembled(strategy=strategy, **options)
    _, row, clients = loop.evaluated_round(run, state, 1)
    plain = run._replace(strategy=make(catalog.STRATEGIES, idle))
    _, alone, others = loop.evaluated_round(plain, state, 1)
    assert row["flops_server"] > 0 == alone["flops_server"]
    for name in ("up_bytes", "down_bytes"):
        assert row[name] == alone[name] and clients[name].tolist() == others[name].tolist()


def test_samples_that_are_not_there_are_asked_for_by_name():
    _, x, work = spread(1, validation=0.0)
    with pytest.raises(UserError, match="give --validation"):
        work.lab.evaluate(x[None], "validation")
    with pytest.raises(ValueError, match="validation or server, got 'test'"):
        work.lab.outputs(x, "test")


def test_labels_that_the_server_does_not_know_stay_hidden():
    run, x, work = spread(1)
    blind = lab.round_lab(run._replace(server=run.server._replace(labelled=False)), 1, work.lab.mask).lab
    assert torch.equal(blind.outputs(x), work.lab.outputs(x))
    for ask in (lambda: blind.evaluate(x[None]), lambda: blind.gradient(x),
                lambda: blind.train([Training(x, work.lab.mask)])):
        with pytest.raises(UserError, match="unlabelled"):
            ask()


def test_what_runs_out_of_gpu_memory_is_asked_again_once():
    run, x, work = spread(1)
    expected = work.lab.gradient(x)
    model, left = run.transport.ranks[0].worker.home.model, [1]

    def crowded(module, given):
        if left[0]:
            left[0] -= 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(crowded)
    assert torch.equal(work.lab.gradient(x), expected)
    left[0] = 99
    with pytest.raises(FedError, match="out of GPU memory twice"):
        work.lab.gradient(x)
