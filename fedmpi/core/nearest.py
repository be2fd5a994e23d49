"""The name that was meant, where a name is not known."""


def nearest(name, known):
    """The one of the ``known`` names that ``name`` was probably meant to be; empty where none is close."""
    # Only a mistake needs it, and each start would pay for it.
    import difflib
    close = difflib.get_close_matches(name, known, n=1)
    return close[0] if close else ""


def hint(name, known):
    """``; did you mean ...?`` where a known name is close, else an empty text."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""
