"""The name that a user probably meant by an unknown one."""


def nearest(name, names):
    """The closest of ``names``; empty if none is close to ``name``.

    >>> nearest("prunner", ["pruner", "partition"])
    'pruner'
    """
    # Only a mistake needs it, and each start would pay for it.
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return close[0] if close else ""


def hint(name, names):
    """``; did you mean ...?`` with the closest known name; empty if none is close."""
    near = nearest(name, names)
    if not near:
        return ""
    return f"; did you mean {near}?"
