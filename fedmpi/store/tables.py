"""/rounds, /clients, /own and all else that a run file holds beside its attributes: made, described, read back.

Rows are counted as a triple: of /rounds, of /clients and of /own, which only runs have whose clients have test parts.

A file has one of two forms. While it grows, each table has room for rows to come: allocated, neither compressed nor
shuffled, so that a row is written to its place without HDF5 (``places``). Once it has ended it is *packed*: shuffled
and compressed, without room.
"""

import sys

import h5py
import numpy as np

from fedmpi.store.rows import Column, dtype_name, own_dims
from fedmpi.store.scales import attach, bare_scale, describe, label, scale_of

EXPECTED = 1024, 4096, 4096           # (rounds, client rows, own rows) where nobody says how many will come
LEAST_ROOM, ROOM_BYTES, CHUNK_BYTES = 16, 8 << 20, 64 << 10
PACKED = {"shuffle": True, "compression": "gzip", "compression_opts": 6}
PACKED_FROM = 4096                    # bytes of a data set beside the tables: below, its chunks take more than it saves
ROW_DIMS = {"rounds": "round", "clients": "participation", "own": "own_test"}
ENDS = {"clients": "ends", "own": "own_ends"}         # of a table with several rows a round: its rows after each round
POPULATION_DIM = "client"
GROUPS = ("rounds", "clients", "own", "population", "partition", "sessions")
MISSING = "missing"                   # the name of -1 in an enumeration


def start_room(columns, expected=EXPECTED):
    """(rounds, client rows, own rows) a file has room for at first, of those that are expected."""

    def fitting(cs, most):
        row_bytes = sum(np.dtype(c.dtype).itemsize * max(c.width, 1) for c in cs)
        return max(LEAST_ROOM, min(most, ROOM_BYTES // max(row_bytes, 1)))

    expected = (*expected, *EXPECTED[len(expected):])
    rounds, client_rows, own_rows = (min(wanted, most) for wanted, most in zip(expected, EXPECTED))
    own_room = fitting(columns["own"], own_rows) if columns["own"] else 0
    return fitting(columns["rounds"], rounds), fitting(columns["clients"], client_rows), own_room


def room_of(f):
    """(rounds, client rows, own rows) the file has room for."""
    own_room = min((len(d) for d in f["own"].values()), default=0) if "own" in f else 0
    return len(f["ends"]), min((len(d) for d in f["clients"].values()), default=sys.maxsize), own_room


def columns_of(f):
    """``{table: the Columns of its data sets}``; those of a table that the file lacks are none."""
    return {table: [column_of(data) for data in f[table].values()] if table in f else [] for table in ROW_DIMS}


def committed(f):
    """(rounds, client rows, own rows) that are valid. Rows of /own follow from the rounds."""
    rounds, client_rows = f["committed"][...].tolist()
    own_rows = int(f["own_ends"][rounds - 1]) if rounds and "own_ends" in f else 0
    return rounds, client_rows, own_rows


def dtypes_of(group):
    return {name: data.dtype for name, data in group.items()}


def is_packed(f):
    return f["ends"].compression is not None


# ---------------------------------------------------------------- tables of rows


def create_tables(f, columns, room, packed=False):
    """Makes /rounds, /clients, /own, the ends of the latter two and /committed, with ``room``, (rounds, client rows,
    own rows), and nothing in it yet: see ``clear``. Without columns of /own there is none."""
    for (table, dim), rows in zip(ROW_DIMS.items(), room):
        if table == "own" and not columns[table]:
            continue
        group = f.create_group(table, track_order=True)
        for column in columns[table]:
            data = _create_column(group, column, rows, packed)
            _label_column(f, data, dim, column)
    for table, ends in ENDS.items():
        if table not in f:
            continue
        f[table].attrs["coordinates"] = "round client"     # as netCDF has it: they tell the rows apart
        counts = Column(ends, "int64", "1", f"rows of /{table} that are committed after each round")
        label(_create_column(f, counts, room[0], packed), ends)
    committed = f.create_dataset("committed", data=np.zeros(2, np.int64))
    describe(committed, "1", "[rounds, client rows] that are valid; what lies beyond is room for the next rounds")
    label(committed, "committed")


def _create_column(group, column, rows, packed):
    dtype = stored_dtype(column)
    tail = (column.width,) if column.width else ()
    data = group.create_dataset(
        column.name, (rows, *tail), dtype, maxshape=(None, *tail), chunks=(_chunk_rows(column, rows), *tail),
        fillvalue=nothing(dtype), **(PACKED if packed else {}))
    describe(data, column.unit, column.description, column.machine)
    if dtype.kind == "f":
        data.attrs["_FillValue"] = nothing(dtype)
    return data


def stored_dtype(column):
    """The dtype of a column in the file: an enumeration has a name for what is missing, too."""
    if not column.names:
        return np.dtype(column.dtype)
    values = {MISSING: -1} | {name: value for value, name in enumerate(column.names)}
    return h5py.enum_dtype(values, basetype=column.dtype)


def nothing(dtype):
    """The value of rows that are not written yet: NaN, -1 (all bits set where there is no sign), an empty text."""
    if dtype.kind == "f":
        return dtype.type(np.nan)
    if dtype.kind == "i":
        return dtype.type(-1)
    if dtype.kind == "u":
        return np.iinfo(dtype).max
    return np.zeros((), dtype)[()]


def _chunk_rows(column, rows):
    row_bytes = np.dtype(column.dtype).itemsize * max(column.width, 1)
    return max(1, min(rows, CHUNK_BYTES // row_bytes))


def _label_column(f, data, dim, column):
    dims = [dim] if not column.width else [dim, column.dim]
    label(data, *dims)
    for name, length in zip(dims, data.shape):
        _need_scale(f, data.parent, name, length)


def _need_scale(f, group, name, length):
    """Makes the dimension at the root, where no data set of that name is there to be its scale."""
    scale = scale_of(f, group, name)
    if scale is None:
        bare_scale(f, name, length)
    elif len(scale) != length:
        raise ValueError(f"dimension {name} has the lengths {len(scale)} and {length}")


def clear(f, rounds=0, client_rows=0, own_rows=0):
    """Writes "nothing" to all rows from these on, chunk by chunk, so that all the room is allocated."""
    for data, first in row_data(f, rounds, client_rows, own_rows):
        for start in range(first, len(data), data.chunks[0]):
            data[start : start + data.chunks[0]] = nothing(data.dtype)


def copy_rows(source, f, rounds, client_rows, own_rows):
    """Copies so many rows of each table, chunk by chunk: a whole column may not fit into memory."""
    for (data, size), (wanted, _) in zip(row_data(source, rounds, client_rows, own_rows), row_data(f), strict=True):
        for start in range(0, size, wanted.chunks[0]):
            stop = min(start + wanted.chunks[0], size)
            wanted[start:stop] = data[start:stop]
    f["committed"][...] = rounds, client_rows


def row_data(f, rounds=0, client_rows=0, own_rows=0):
    """Every data set that has rows, with one of the numbers."""
    found = [(f[ends], rounds) for ends in ENDS.values() if ends in f]
    for table, rows in zip(ROW_DIMS, (rounds, client_rows, own_rows)):
        found += [(data, rows) for data in f.get(table, {}).values()]
    return found


def table_bytes(columns, room):
    """An upper bound of what tables with this room take on the disk."""
    sized = [(column, rows) for table, rows in zip(ROW_DIMS, room) for column in columns[table]]
    total = len(ENDS) * room[0] * 8
    for column, rows in sized:
        chunk = _chunk_rows(column, rows)
        chunks = -(-rows // chunk)
        row_bytes = np.dtype(column.dtype).itemsize * max(column.width, 1)
        total += chunks * (chunk * row_bytes + 256) + 6000     # HDF5's own tables of chunks, and attributes
    return total


def column_of(data):
    """The Column that a data set was made from."""
    attrs = data.attrs
    dtype = data.dtype
    width = data.shape[1] if data.ndim > 1 else 0
    name = data.name.rsplit("/", 1)[-1]
    dim = data.dims[1].label or own_dims(name, 2)[0] if width else ""
    values = h5py.check_enum_dtype(dtype) if dtype.kind == "i" else None
    names = sorted((value, name) for name, value in (values or {}).items() if value >= 0)
    return Column(name, dtype_name(dtype), attrs["unit"], attrs["description"], bool(attrs["machine"]), width, dim,
                  tuple(name for _, name in names))


# ---------------------------------------------------------------- what does not grow


def create_coordinates(f, coordinates):
    """Makes a data set at the root for each dimension whose coordinates are known: ``{name: numbers or texts}``."""
    for name, values in coordinates.items():
        data = _create_fact(f, name, values)
        describe(data, "", f"the dimension {name}")
        label(data, name)


def create_population(f, population):
    """Makes /population from ``{name: (values (N, ...), unit, description, dimension of each further axis)}``, and
    the clients' numbers."""
    for name, (values, unit, description, *dims) in population.items():
        group = f.require_group("population")
        if POPULATION_DIM not in group:
            clients = group.create_dataset(POPULATION_DIM, data=np.arange(len(values)))
            describe(clients, "1", "client, from 0")
            label(clients, POPULATION_DIM)
        data = _create_fact(group, name, values)
        describe(data, unit, description)
        further = [*dims, *own_dims(name, data.ndim)[len(dims):]]
        label(data, POPULATION_DIM, *further)
        for dim, length in zip(further, data.shape[1:]):
            _need_scale(f, group, dim, length)


def _create_fact(group, name, values):
    values = np.asarray(values)
    dtype = h5py.string_dtype() if values.dtype.kind in "UO" else values.dtype
    return group.create_dataset(name, data=values.astype(dtype), dtype=dtype)


def fact_values(data):
    """The values of a data set that does not grow, texts as texts."""
    return data.asstr()[...].astype(str) if h5py.check_string_dtype(data.dtype) else data[...]


PARTITION = {
    "offsets": "client i trains on the samples indices[offsets[i]:offsets[i + 1]]",
    "indices": "training samples, client after client",
    "test_offsets": "client i has the test part test_indices[test_offsets[i]:test_offsets[i + 1]]",
    "test_indices": "samples of the training data that are clients' own test parts, client after client",
}


def create_partition(f, *arrays):
    """Makes /partition of the first two or of all four of PARTITION."""
    for (name, description), values in zip(PARTITION.items(), arrays):
        data = f.create_dataset(f"partition/{name}", data=np.asarray(values))
        describe(data, "1", description)
        label(data, name)


def attach_scales(f):
    """Attaches every data set to the scales of its dimensions."""
    for name in GROUPS:
        if name in f:
            attach(f, f[name])
