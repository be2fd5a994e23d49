"""A finding is one line of the doctor's table; and words shared by all findings."""

from typing import NamedTuple

from fedmpi.transport import place

# The worst last.
SEVERITIES = ("ok", "note", "warning", "error")
GB = 1e9


class Finding(NamedTuple):
    """One line of the table; ``expected`` and ``way_out`` are empty if all is well."""

    severity: str
    subject: str
    got: str
    expected: str = ""
    way_out: str = ""


def good(subject, got):
    """The finding of a subject without trouble."""
    return Finding("ok", subject, got)


def named(numbers):
    """Ranks in words: ``rank 3``, ``ranks 0-2,5``."""
    ranges = place.ranges(sorted(numbers))
    if len(numbers) == 1:
        return f"rank {ranges}"
    return f"ranks {ranges}"


def compared(ranks, value):
    """``(text, whether all ranks have one value)``.

    The text is this value, else ``a on ranks 0-3; b on rank 4``. ``value(facts)`` takes a rank's
    facts.
    """
    ranks_with = {}
    for rank, facts in ranks.items():
        own = value(facts)
        ranks_with.setdefault(own, []).append(rank)
    if len(ranks_with) == 1:
        only = next(iter(ranks_with))
        return str(only), True
    parts = []
    for own, numbers in ranks_with.items():
        parts.append(f"{own} on {named(numbers)}")
    return "; ".join(parts), False
