"""Slurm and the machine: batch scripts, and whether everything that a run needs is there."""
