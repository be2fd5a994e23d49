"""A worker's parts, built from the set-up message."""

from fedmpi.build.parts import of_worker
from fedmpi.client.worker import WorkerParts
from fedmpi.compute.augment import joined


def worker_parts(options, shape, outputs, parts=None):
    """A worker's ``WorkerParts``; its model has the initial values of the seed.

    A worker in rank 0's process shares rank 0's ``parts``; any other worker makes its own.
    """
    parts = parts or of_worker(options)
    reports = {
        label: part.report for label, part in parts.contributions.items() if part.report is not None
    }
    return WorkerParts(
        model=parts.network(shape, outputs),
        strategy=parts.strategy,
        pruner=parts.pruner,
        codec=parts.codec,
        reports=reports,
        weighs=next(iter(parts.contributions)),
        features=parts.features,
        faults=parts.faults,
        epochs=options["local_epochs"],
        batch_size=options["batch_size"],
        lr=options["lr"],
        seed=options["seed"],
        rounds=options["rounds"],
        objective=parts.task,
        optimiser=parts.optimiser,
        rates=parts.schedule,
        clip_norm=options["clip_norm"],
        accumulate=options["accumulate"],
        steps=options["local_steps"],
        augment=joined(parts.augmentations))
