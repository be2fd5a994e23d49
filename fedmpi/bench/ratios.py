"""Ratios of two sides of a measurement, taken turn by turn: the machine's speed changes over
minutes."""

import statistics
from typing import NamedTuple


class Summary(NamedTuple):
    """The median, the least and the largest of some numbers."""

    median: float
    least: float
    most: float


def summary(numbers):
    """The Summary of a list of numbers."""
    median = statistics.median(numbers)
    return Summary(median, min(numbers), max(numbers))


def turn(number):
    """The name of a turn; the first warms up."""
    if number == 0:
        return "warm-up"
    return f"repeat {number}"


def ratios(ours, reference):
    """The quotients, one a turn."""
    return [own / other for own, other in zip(ours, reference)]


def spread(numbers):
    """``1.02 (of 5: 1.00 to 1.10)``, with three decimals: the median, the count, the least and the
    largest."""
    count = len(numbers)
    median, least, most = summary(numbers)
    return f"{median:.3f} (of {count}: {least:.3f} to {most:.3f})"
