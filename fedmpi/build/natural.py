"""The partition and the number of clients where nobody names them: a data set's own clients, if it
has any.

Here is all that decides it. Options that may follow from the data are None
(``fedmpi.build.options.OPEN``) until the data are there.
"""

import os

import numpy as np

from fedmpi.catalog import DATASETS, PARTITIONS
from fedmpi.plugins.spec import make, parse
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.methods.partition.natural import Natural


def partition_of(options, client, classes=True):
    """The spec of the partition: the one named, else natural where ``client (N,)`` says whose each sample is, None
    being that nobody says, else the usual one, which deals by ``classes`` where the data have some."""
    usual = DEFAULTS["partition"] if classes else "iid"
    if client is not None:
        usual = "natural"
    return options["partition"] or usual


def with_clients(options, partition, client, client_names):
    """The options with a number of clients: those named, else the natural clients of ``client (N,)`` and
    ``client_names``, else the usual ones. UserError where --clients is not their number."""
    if not isinstance(partition, Natural):
        return options | {"clients": options["clients"] or DEFAULTS["clients"]}
    there = len(kept_clients(options, partition, client, client_names)[1])
    if options["clients"] not in (None, there):
        raise UserError(f"--clients {options['clients']}: the data set has {there} clients of its "
                        f"own, by --partition {options['partition']}; leave --clients out, or name "
                        f"another --partition, such as {DEFAULTS['partition']}")
    return options | {"clients": there}


def kept_clients(options, partition, client, client_names):
    """``(owner (N,), kept)`` as ``Natural.chosen`` gives them; UserError where the data set has no
    clients."""
    if client is None:
        raise UserError(f"--partition {options['partition']} needs a data set that says whose each "
                        f"sample is; --dataset {options['dataset']} does not: add a data set "
                        "client, an id a row of x_train, to a file of your own, or name another "
                        "--partition")
    try:
        return partition.chosen(client, len(client_names))
    except ValueError as error:
        raise UserError(f"--partition {options['partition']}: {error}") from error


def settled_by_file(options):
    """The options with a partition and a number of clients before any data are loaded, for what plans runs.

    Of a user's own file only the clients are read; where there is no such file, and of other data sets, the usual
    options count.
    """
    client, names, classes = _clients_of_file(options)
    natural_named = (options["partition"] or "").partition(":")[0] == "natural"
    if client is None and natural_named:
        return options | {"clients": options["clients"] or DEFAULTS["clients"]}
    options = options | {"partition": partition_of(options, client, classes)}
    partition = make(PARTITIONS, options["partition"])
    return with_clients(options, partition, client, names)


def _clients_of_file(options):
    """``(client, client_names, classes)`` of the data set where it is a user's own file, ``classes`` whether its
    targets are classes; ``(None, (), True)`` where it is none."""
    target, given = parse(DATASETS, options["dataset"])
    if target != DATASETS["hdf5"]:
        return None, (), True
    from fedmpi.methods.datasets.owners import NAMES, owned
    from fedmpi.store import read_arrays
    path = os.path.join(options["data_dir"], given.get("file", "data.h5"))
    if not os.path.isfile(path):
        return None, (), True
    arrays, _ = read_arrays(path, ("y_train",), NAMES)
    targets = np.atleast_1d(arrays["y_train"])
    return *owned(arrays, len(targets), path), targets.dtype.kind != "f"
