"""Options that were called otherwise: run files and users' files of before still have these names."""

# {former name: name of today}. A run file keeps the names that it was written with.
OPTIONS = {"aggregation": "timing"}


def present_names(options):
    """``{option: value}`` with each option under its name of today.

    >>> present_names({"aggregation": "sync", "rounds": 3})
    {'timing': 'sync', 'rounds': 3}
    """
    return {OPTIONS.get(name, name): value for name, value in options.items()}
