"""The worker: a rank's answers to the server's jobs."""
