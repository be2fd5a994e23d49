"""The partition and the number of clients where nobody names them: a data set's own clients, if it
has any.

Here is all that decides it. Options that may follow from the data are None
(``fedmpi.build.options.OPEN``) until the data are there.
"""

import os

import numpy as np

from fedmpi import catalog
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.methods.partition.natural import Natural


def settled(options, client, client_names, classes=True):
    """The options with a partition and a number of clients: those named, else the natural clients
    of ``client (N,)`` and ``client_names``, else the usual ones, which deal by ``classes`` where
    the data have some. UserError where --clients is not their number."""
    usual = DEFAULTS["partition"] if classes else "iid"
    if client is not None:
        usual = "natural"
    options = options | {"partition": options["partition"] or usual}
    partition = catalog.make(catalog.PARTITIONS, options["partition"])
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
    """``settled`` before any data are loaded, for what plans runs: of a user's own file only the
    clients are read; where there is no such file, and of other data sets, the usual options
    count."""
    client, names, classes = _clients_of_file(options)
    natural_named = (options["partition"] or "").partition(":")[0] == "natural"
    if client is None and natural_named:
        return options | {"clients": options["clients"] or DEFAULTS["clients"]}
    return settled(options, client, names, classes)


def _clients_of_file(options):
    """``(client, client_names)`` of the data set where it is a user's own file, else ``(None,
    ())``."""
    target, given = catalog.parse(catalog.DATASETS, options["dataset"])
    if target != catalog.DATASETS["hdf5"]:
        return None, (), classes
    from fedmpi.methods.datasets.owners import NAMES, owned
    from fedmpi.store import read_arrays
    path = os.path.join(options["data_dir"], given.get("file", "data.h5"))
    if not os.path.isfile(path):
        return None, (), classes
    arrays, _ = read_arrays(path, ("y_train",), NAMES)
    return *owned(arrays, len(np.atleast_1d(arrays["y_train"])), path), classes
