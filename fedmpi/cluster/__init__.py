"""Slurm and the machine: batch scripts, and the doctor, who checks a machine before a run."""
