"""Small pieces of English for lines that people read."""


def plural(number, noun):
    """A number and its noun.

    >>> plural(1, "worker"), plural(3000, "worker")
    ('1 worker', '3,000 workers')
    """
    ending = "" if number == 1 else "s"
    return f"{number:,} {noun}{ending}"
