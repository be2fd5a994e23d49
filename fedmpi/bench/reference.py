"""The reference side of a measurement, in the same processes as ours."""

from fedmpi import build

USUAL = {"partition": "iid", "features": "none", "fault": [], "pruner": "dense", "weighting": "size", "codec": "float32",
         "sampler": "uniform", "devices": "none", "aggregation": "sync", "on_error": "fatal", "quorum": 0.5,
         "evaluate_every": 1, "together": 1, "seed": 0, "device": "cpu"}


class WithReference:
    """A worker that also answers ``{"plain": what}`` with ``{"plain": plain(worker, model, what)}``, a numpy array;
    ``model`` is a network of its own."""

    def __init__(self, worker, plain):
        self.worker, self.plain = worker, plain

    def receive(self, meta, arrays):
        self.worker.receive(meta, arrays)
        if meta["kind"] == "setup":
            self.model = build.model(meta["options"], meta["shape"], meta["classes"])

    def total(self, count):
        return self.worker.total(count)

    def run(self, job, arrays):
        if "plain" not in job:
            return self.worker.run(job, arrays)
        return {}, {"plain": self.plain(self.worker, self.model, job["plain"])}
