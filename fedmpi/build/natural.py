"""The partition and the number of clients, if the user names none: the data set's own clients, if
it has any.

Such options are None (``fedmpi.build.options.OPEN``) until the data are loaded.
"""

import os

import numpy as np

from fedmpi.catalog import DATASETS, PARTITIONS
from fedmpi.plugins.spec import make, parse
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.methods.partition.natural import Natural


def partition_of(options, client, classes=True):
    """The spec of the partition: the user's, else natural, else the usual one.

    It is natural if the data set has clients of its own, ``client (N,)``, None for none. The usual
    one deals by ``classes``, or is iid without classes.
    """
    if options["partition"]:
        return options["partition"]
    if client is not None:
        return "natural"
    return DEFAULTS["partition"] if classes else "iid"


def with_clients(options, partition, client, client_names):
    """The options with a number of clients: the user's, else as many as there are natural clients,
    else the usual number.

    ``client (N,)`` and ``client_names`` come with the data set. UserError if --clients is not the
    number of natural clients.
    """
    if not isinstance(partition, Natural):
        return options | {"clients": options["clients"] or DEFAULTS["clients"]}
    _, kept = kept_clients(options, partition, client, client_names)
    N = len(kept)
    if options["clients"] not in (None, N):
        # iid deals out any data, also those without classes.
        raise UserError(f"--clients {options['clients']}: the data set has {N} clients of its own, "
                        f"by --partition {options['partition']}; leave --clients out (--cohort "
                        "takes some of them a round), or name another --partition, such as iid")
    return options | {"clients": N}


def kept_clients(options, partition, client, client_names):
    """``(owner (N,), kept)`` as ``Natural.chosen`` gives them. UserError without natural
    clients."""
    if client is None:
        raise UserError(f"--partition {options['partition']} needs a data set that says whose each "
                        f"sample is; --dataset {options['dataset']} does not: add a data set "
                        "client, an id a row of x_train, to a file of your own, or name another "
                        "--partition")
    try:
        num_clients = len(client_names)
        return partition.chosen(client, num_clients)
    except ValueError as error:
        raise UserError(f"--partition {options['partition']}: {error}") from error


def client_of(dataset):
    """(N,) int64: the natural client of each sample, or of each window; None for none."""
    if dataset.stream is not None:
        # torch, which commands that only write scripts do without.
        from fedmpi.methods.datasets.stream import owners

        return owners(dataset)
    return dataset.client


def settled_by_file(options):
    """The options with a partition and a number of clients, before any data are loaded.

    They follow from the clients in a user's own file. The usual options count for other data sets,
    and if there is no such file.
    """
    client, names, classes = _clients_of_file(options)
    named, _, _ = (options["partition"] or "").partition(":")
    # The data set may have clients, but they show only once it is loaded.
    if client is None and named == "natural":
        return options | {"clients": options["clients"] or DEFAULTS["clients"]}
    spec = partition_of(options, client, classes)
    partition = make(PARTITIONS, spec)
    options = options | {"partition": spec}
    return with_clients(options, partition, client, names)


def _clients_of_file(options):
    """``(client, client_names, classes)`` of a user's own file; ``(None, (), True)`` for any other
    data set.

    ``classes``: whether its targets are classes.
    """
    target, own_options = parse(DATASETS, options["dataset"])
    if target != DATASETS["hdf5"]:
        return None, (), True
    # Slow imports, only for a user's own file.
    from fedmpi.methods.datasets.owners import NAMES, owned
    from fedmpi.store import read_arrays
    file = own_options.get("file", "data.h5")
    path = os.path.join(options["data_dir"], file)
    if not os.path.isfile(path):
        return None, (), True
    arrays, _ = read_arrays(path, ("y_train",), NAMES)
    targets = np.atleast_1d(arrays["y_train"])
    num_samples = len(targets)
    client, names = owned(arrays, num_samples, path)
    # Targets that are floats are values of a regression.
    has_classes = targets.dtype.kind != "f"
    return client, names, has_classes
