"""Small pieces of English for the lines that a run prints."""


def plural(number, noun):
    """``1 worker``, ``3 workers``"""
    ending = "" if number == 1 else "s"
    return f"{number} {noun}{ending}"
