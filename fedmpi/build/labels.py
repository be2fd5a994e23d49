"""Names for several parts of one kind."""

from fedmpi.plugins.spec import split


def labels(specs):
    """A label for each spec: its name, with a number if the name comes again."""
    taken = []
    for spec in specs:
        factory, _ = split(spec)
        # A user's own factory is package.module:function.
        _, _, name = factory.rpartition(":")
        label = name
        number = 1
        while label in taken:
            number += 1
            label = f"{name}-{number}"
        taken.append(label)
    return taken
