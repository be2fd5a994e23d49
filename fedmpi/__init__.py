"""fedmpi: federated learning of large sparse models, simulated over MPI."""

__version__ = "0.1.0"


def open(path):
    """A run file as pandas frames, also while it is being written: ``fedmpi.open("run.h5").rounds``; see
    ``fedmpi.read.dataframes.Frames``. UserError in one line if it is none."""
    from fedmpi.read.dataframes import open_run
    return open_run(path)


def load_model(path, masks=False):
    """The torch state dict that ``fedmpi export-model`` wrote, dense whichever way; with ``masks`` a pair of it and
    {name: bool mask}. UserError in one line if there is none."""
    from fedmpi.read.trained import load
    found = load(path)
    return (found.state, found.masks) if masks else found.state
