"""A stream of tokens dealt out: every part of it is one piece of the stream, cut at tokens.

    | a client's training part | its own test part | the server's own | validation |

Natural clients' stretches are each cut in this way. Otherwise the stream is cut as a whole, and
clients get neighbouring pieces of its beginning, of the sizes that the partition says. No two
parts share a token, and no window crosses a border.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.build import server_data
from fedmpi.build.natural import kept_clients
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream as random_stream
from fedmpi.methods.datasets.stream import num_windows, owners, starts_of, stretches_of
from fedmpi.methods.partition.natural import Natural


class Dealt(NamedTuple):
    """The first tokens of the windows in order of each part of the stream."""

    validation: np.ndarray
    server: np.ndarray
    # An array a client, of its training windows and of its own test part's.
    shards: list
    tests: list
    client_names: tuple


def dealt(options, partition, dataset):
    """The ``Dealt`` stream of a data set. UserError where it is too short for its parts."""
    window = dataset.stream.window
    stretches, names = _stretches(options, partition, dataset)
    least = partition.min_size if isinstance(partition, Natural) else 1
    stretches = _shortened(options, stretches, window)
    share = options["validation"]
    stretches, validation = cut(stretches, share, window, least)
    if share and not len(validation):
        raise UserError(f"--validation {share}: the clients' stretches of tokens are too short for "
                        "a validation part; give --validation 0, or a smaller context")
    stretches, server = _of_server(options, stretches, window, least)
    if not isinstance(partition, Natural):
        stretches = _pieces(options, partition, stretches, window)
    _check_sizes(options, stretches, window, least)
    stretches, tests = cut(stretches, options["client_test"], window, 1, keep_empty=True)
    return Dealt(
        validation=starts_of(validation, window),
        server=starts_of(server, window),
        shards=[starts_of([one], window) for one in stretches],
        tests=[starts_of([one], window) for one in tests],
        client_names=names)


def cut(stretches, share, window, least, keep_empty=False):
    """``(stretches (n, 2), ends)``: a share of the tokens cut off the end of each stretch.

    ``least`` windows stay, and an end is at least a window. ``keep_empty`` keeps an end of no
    tokens for a stretch that cannot be cut.
    """
    starts, stops = stretches.T
    lengths = stops - starts
    wanted = np.floor(share * lengths + 0.5).astype(np.int64)
    spare = lengths - (least * window + 1)
    taken = np.minimum(wanted, spare)
    # Fewer tokens than a window's would be lost to both parts.
    taken[taken <= window] = 0
    borders = stops - taken
    rest = _pairs(starts, borders)
    ends = _pairs(borders, stops)
    if keep_empty:
        return rest, ends
    return rest, ends[taken > 0]


def _pairs(starts, stops):
    """(n, 2): stretches."""
    return np.stack([starts, stops], axis=1)


def _stretches(options, partition, dataset):
    """``(stretches (n, 2), names)``: those of natural clients with enough windows, else one."""
    if not isinstance(partition, Natural):
        whole = [0, len(dataset.x_train)]
        return np.array([whole], np.int64), ()
    all_names = dataset.client_names
    owner = owners(dataset)
    _, kept = kept_clients(options, partition, owner, all_names)
    names = tuple(all_names[client] for client in kept)
    stretches = stretches_of(dataset.stream.offsets)
    return stretches[kept], names


def _shortened(options, stretches, window):
    """The beginnings of the stretches, with about ``--train-samples`` windows in all."""
    wanted = options["train_samples"]
    starts, stops = stretches.T
    lengths = stops - starts
    total = int(num_windows(lengths, window).sum())
    if wanted > total:
        raise UserError(f"--train-samples {wanted}: {options['dataset']} has {total} windows")
    if not wanted:
        return stretches
    shares = np.ceil(wanted / total * lengths).astype(np.int64)
    # A window's last target belongs to it.
    fewer = np.minimum(shares + 1, lengths)
    return _pairs(starts, starts + fewer)


def _of_server(options, stretches, window, least):
    """``(stretches, server)``: the server's own pieces, by --server-data."""
    wanted = server_data.wanted(options["server_data"])
    named = f"--server-data {options['server_data']}"
    if wanted.labels:
        raise UserError(f"{named}: a stream of tokens has no labels; leave labels out")
    share = wanted.share
    if wanted.count:
        starts, stops = stretches.T
        share = wanted.count / num_windows(stops - starts, window).sum()
    if share >= 1:
        raise UserError(f"{named}: clients need some of the windows; take fewer")
    stretches, server = cut(stretches, share, window, least)
    if share and not len(server):
        raise UserError(f"{named}: that is less than a window of any stretch; take more")
    return stretches, server


def _pieces(options, partition, stretches, window):
    """(clients, 2): neighbouring pieces of one stretch, of the sizes that the partition deals."""
    [[start, stop]] = stretches
    total = int(num_windows(stop - start, window))
    # Targets that are no classes: a partition by class refuses them.
    no_classes = np.zeros(total, np.float32)
    gen = random_stream(options["seed"], Purpose.PARTITION)
    try:
        shards = partition(no_classes, options["clients"], gen)
    except ValueError as error:
        raise UserError(f"--partition {options['partition']}: {error}") from error
    sizes = [len(shard) for shard in shards]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    shares = ends / ends[-1]
    borders = start + np.floor(shares * (stop - start)).astype(np.int64)
    return stretches_of(borders)


def _check_sizes(options, stretches, window, least):
    """UserError if a client has no window."""
    starts, stops = stretches.T
    counts = num_windows(stops - starts, window)
    num_short = int((counts < least).sum())
    if num_short:
        needed = least * window + 1
        raise UserError(f"--partition {options['partition']}: {num_short} of {len(counts)} clients "
                        f"would hold fewer than {needed} tokens, {least} x {window} and a last "
                        "target; take fewer --clients, or a smaller context of the data set")


def check_faults(options, faults, shards, window):
    """UserError for faults that a stream of tokens does not go with.

    After ``Fault.shards`` the windows of each of the clients' ``shards`` must be neighbours.
    """
    for spec, fault in zip(options["fault"], faults):
        if fault.inputs is not None:
            raise UserError(f"--fault {spec}: it changes the values of inputs, and these are "
                            "tokens; leave it out")
    if all((np.diff(shard) == window).all() for shard in shards):
        return
    [spec] = [spec for spec, fault in zip(options["fault"], faults) if fault.shards is not None]
    raise UserError(f"--fault {spec}: it mixes the samples of two clients, and a client's tokens "
                    "are one stretch of a text; take partial=1")
