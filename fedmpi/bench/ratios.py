"""Ratios of two sides of a measurement, taken turn by turn: the machine's speed changes over minutes."""

import statistics


def ratios(ours, reference):
    """The quotients, one a turn."""
    return [own / other for own, other in zip(ours, reference)]


def spread(numbers):
    """``1.02 (of 5: 1.00 to 1.10)``, with three decimals: the median, the count, the least and the largest."""
    median = statistics.median(numbers)
    return f"{median:.3f} (of {len(numbers)}: {min(numbers):.3f} to {max(numbers):.3f})"
