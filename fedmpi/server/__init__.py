"""Rank 0: one round, and what belongs to it."""
