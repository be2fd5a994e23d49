"""The common shape of all kinds of pictures."""

from typing import Callable, NamedTuple

# Of most pictures, in widths.
HEIGHT = 0.72


class Picture(NamedTuple):
    """One kind of picture: three functions that share the numbers of one run or of several groups.

    ``find(groups or run)`` returns these numbers, or None if a run has not recorded them.
    ``draw(place, numbers)`` draws them on a figure or on a part of one, ``say(numbers)`` puts them
    into words. ``each``: a picture shows one run, not several groups. ``size(numbers)`` is its
    height over its width, without the ``names(numbers)`` lines of names above it."""

    # For --help.
    line: str
    find: Callable
    draw: Callable
    say: Callable
    each: bool = False
    size: Callable = lambda numbers: HEIGHT
    names: Callable = lambda numbers: 0


def capitalized(text):
    """``text`` with a capital first letter; the other letters stay as they are."""
    return text[:1].upper() + text[1:]


def sentence(parts):
    """One sentence about all lines of a picture, from one part a line.

    Several parts begin with the names of their lines, whose case is kept."""
    if len(parts) == 1:
        return capitalized(parts[0])
    return "; ".join(parts)


def prefixes(lines):
    """The beginning of the part about each line: its name and a colon, nothing for a single
    line."""
    if len(lines) == 1:
        return [""]
    return [f"{line.label}: " for line in lines]


def fraction_axis(ax):
    """Fix the y axis of ``ax`` at 0 to 1, with a little room at both ends."""
    ax.set_ylim(-0.02, 1.02)
    ax.set_autoscaley_on(False)
