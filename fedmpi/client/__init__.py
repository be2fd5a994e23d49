"""The worker: what a rank does with the jobs that it is sent."""
