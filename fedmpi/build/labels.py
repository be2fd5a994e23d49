"""What parts of one kind are called where a run has several of them."""

from fedmpi.plugins.spec import split


def labels(specs):
    """The names of the parts of these specs, numbered where one comes again."""
    given = []
    for spec in specs:
        name = label = split(spec)[0].rpartition(":")[2]
        number = 1
        while label in given:
            number += 1
            label = f"{name}-{number}"
        given.append(label)
    return given
