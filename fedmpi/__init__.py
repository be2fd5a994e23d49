"""fedmpi: federated learning of large sparse models, simulated over MPI."""

__version__ = "0.1.0"
