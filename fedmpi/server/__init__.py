"""Rank 0: its rounds, and the parts of a round."""
