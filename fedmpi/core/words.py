"""Small pieces of English for lines that people read."""


def plural(number, noun):
    """``1 worker``, ``3 workers``"""
    ending = "" if number == 1 else "s"
    return f"{number:,} {noun}{ending}"
