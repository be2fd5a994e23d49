"""The arithmetic on models: local training, evaluation, derivatives, side by side and recorded on a GPU."""
