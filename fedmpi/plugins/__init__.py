"""Factories of the user's own: found without being imported, and held to their kind's contract."""
