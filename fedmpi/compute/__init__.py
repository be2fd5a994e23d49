"""The arithmetic on models: local training, alone or side by side, evaluation, derivatives."""
