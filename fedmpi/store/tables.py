"""/rounds, /clients, /own and the other contents of a run file beside its attributes: made, described, read back.

Rows are counted as a triple: of /rounds, of /clients and of /own. Only runs with clients' test parts have /own.

A file has one of two forms. While it grows, each table has room for further rows: allocated, neither compressed nor
shuffled, so that rows are written to their places without HDF5 (``places``). An ended run's file is *packed*: shuffled
and compressed, without room.
"""

import sys

import h5py
import numpy as np

from fedmpi.store.rows import Column, dtype_name, own_dims
from fedmpi.store.scales import attach, bare_scale, describe, label, scale_of

# The expected (rounds, client rows, own rows) unless the caller says how many will come.
EXPECTED = 1024, 4096, 4096
LEAST_ROOM, ROOM_BYTES, CHUNK_BYTES = 16, 8 << 20, 64 << 10
PACKED = {"shuffle": True, "compression": "gzip", "compression_opts": 6}
# Smaller data sets beside the tables are not packed, in bytes: chunks would take more than packing saves.
PACKED_FROM = 4096
# HDF5's table of chunks, a chunk, and its attributes, a column.
BYTES_A_CHUNK, BYTES_A_COLUMN = 256, 6000
ROW_DIMS = {"rounds": "round", "clients": "participation", "own": "own_test"}
# For a table with several rows a round: the data set of its numbers of rows after each round.
ENDS = {"clients": "ends", "own": "own_ends"}
POPULATION_DIM = "client"
GROUPS = ("rounds", "clients", "own", "population", "partition", "sessions")
# The name of -1 in an enumeration.
MISSING = "missing"


def start_room(columns, expected=EXPECTED):
    """A new file's room for (rounds, client rows, own rows), up to the expected numbers."""
    # A caller may leave out the last numbers.
    complete = (*expected, *EXPECTED[len(expected):])
    rounds, client_rows, own_rows = map(min, complete, EXPECTED)
    round_room = _start_rows(columns["rounds"], rounds)
    client_room = _start_rows(columns["clients"], client_rows)
    own_room = 0
    if columns["own"]:
        own_room = _start_rows(columns["own"], own_rows)
    return round_room, client_room, own_room


def _start_rows(columns, most):
    """``most`` rows, or as many as fit into ROOM_BYTES; at least LEAST_ROOM."""
    row_bytes = sum(map(_row_bytes, columns))
    fitting = ROOM_BYTES // max(row_bytes, 1)
    return max(LEAST_ROOM, min(most, fitting))


def _row_bytes(column):
    return np.dtype(column.dtype).itemsize * max(column.width, 1)


def room_of(f):
    """(rounds, client rows, own rows) the file has room for."""
    clients = f["clients"]
    own = f.get("own", {})
    round_room = len(f["ends"])
    # Without columns no row needs room.
    client_room = min(map(len, clients.values()), default=sys.maxsize)
    own_room = min(map(len, own.values()), default=0)
    return round_room, client_room, own_room


def columns_of(f):
    """``{table: the Columns of its data sets}``; an empty list for a missing table."""
    columns = {}
    for table in ROW_DIMS:
        group = f.get(table, {})
        columns[table] = [column_of(data) for data in group.values()]
    return columns


def committed(f):
    """The valid (rounds, client rows, own rows)."""
    rounds, client_rows = f["committed"][...].tolist()
    # Not stored: rows of /own follow from the rounds.
    own_rows = 0
    if rounds and "own_ends" in f:
        own_rows = int(f["own_ends"][rounds - 1])
    return rounds, client_rows, own_rows


def dtypes_of(group):
    return {name: data.dtype for name, data in group.items()}


def is_packed(f):
    return f["ends"].compression is not None


# ---------------------------------------------------------------- tables of rows


def create_tables(f, columns, room, packed=False):
    """Makes /rounds, /clients, /own, the ends of the latter two and /committed.

    With ``room`` for (rounds, client rows, own rows), still unwritten: see ``clear``. Without
    columns of /own there is no /own.
    """
    for (table, dim), rows in zip(ROW_DIMS.items(), room):
        if table == "own" and not columns[table]:
            continue
        group = f.create_group(table, track_order=True)
        lengths = {}
        for column in columns[table]:
            data = _create_column(group, column, rows, packed)
            lengths |= _label_column(f, data, dim, column, lengths)
    for table, ends in ENDS.items():
        if table not in f:
            continue
        # netCDF's convention: these columns tell the rows apart.
        f[table].attrs["coordinates"] = "round client"
        counts = Column(ends, "int64", "1", f"rows of /{table} that are committed after each round")
        label(_create_column(f, counts, room[0], packed), ends)
    valid = f.create_dataset("committed", data=np.zeros(2, np.int64))
    describe(valid, "1", "[rounds, client rows] that are valid; what lies beyond is room for the next rounds")
    label(valid, "committed")


def _create_column(group, column, rows, packed):
    dtype = stored_dtype(column)
    row_shape = ()
    if column.width:
        row_shape = (column.width,)
    options = {}
    if packed:
        options = PACKED
    chunk_rows = _chunk_rows(column, rows)
    data = group.create_dataset(
        column.name,
        (rows, *row_shape),
        dtype,
        maxshape=(None, *row_shape),
        chunks=(chunk_rows, *row_shape),
        fillvalue=nothing(dtype),
        **options)
    describe(data, column.unit, column.description, column.machine)
    if dtype.kind == "f":
        data.attrs["_FillValue"] = nothing(dtype)
    return data


def stored_dtype(column):
    """The dtype of a column in the file: an enumeration has a name for missing values, too."""
    if not column.names:
        return np.dtype(column.dtype)
    values = {MISSING: -1}
    values |= {name: value for value, name in enumerate(column.names)}
    return h5py.enum_dtype(values, basetype=column.dtype)


def nothing(dtype):
    """The value of unwritten rows: NaN, -1 (all bits set where there is no sign), an empty text."""
    if dtype.kind == "f":
        return dtype.type(np.nan)
    if dtype.kind == "i":
        return dtype.type(-1)
    if dtype.kind == "u":
        return np.iinfo(dtype).max
    return np.zeros((), dtype)[()]


def _chunk_rows(column, rows):
    fitting = CHUNK_BYTES // _row_bytes(column)
    return max(1, min(rows, fitting))


def _label_column(f, data, dim, column, lengths):
    """Names the axes of a column; dimensions with other lengths than ``{dimension: length}`` need a scale. Returns
    the dimensions' lengths."""
    dims = [dim]
    if column.width:
        dims.append(column.dim)
    label(data, *dims)
    own_lengths = dict(zip(dims, data.shape))
    for name, length in own_lengths.items():
        if lengths.get(name) != length:
            _need_scale(f, data.parent, name, length)
    return own_lengths


def _need_scale(f, group, name, length):
    """Makes the dimension ``name`` at the root, unless it has a scale. ValueError for a scale of another length."""
    scale = scale_of(f, group, name)
    if scale is None:
        bare_scale(f, name, length)
    elif len(scale) != length:
        raise ValueError(f"dimension {name} has the lengths {len(scale)} and {length}")


def clear(pairs):
    """Writes "nothing" to each of ``row_data`` from its number of rows on, so that all the room is allocated."""
    # Chunk by chunk: a whole column may not fit into memory.
    for data, first in pairs:
        chunk_rows = data.chunks[0]
        num_rows = len(data)
        value = nothing(data.dtype)
        for start in range(first, num_rows, chunk_rows):
            stop = start + chunk_rows
            data[start:stop] = value


def copy_rows(pairs, targets):
    """Copies the first rows of each table, as many as ``row_data`` says, from one file's data sets to another's."""
    # Chunk by chunk: a whole column may not fit into memory.
    for (data, size), (target, _) in zip(pairs, targets, strict=True):
        chunk_rows = target.chunks[0]
        for start in range(0, size, chunk_rows):
            stop = min(start + chunk_rows, size)
            target[start:stop] = data[start:stop]


def row_data(f, rounds=0, client_rows=0, own_rows=0):
    """[(data set, number)] of every data set with rows: the number of its table."""
    pairs = []
    for ends in ENDS.values():
        if ends in f:
            pairs.append((f[ends], rounds))
    numbers = rounds, client_rows, own_rows
    for table, num_rows in zip(ROW_DIMS, numbers):
        group = f.get(table, {})
        pairs += [(data, num_rows) for data in group.values()]
    return pairs


def table_bytes(columns, room):
    """An upper bound of the bytes on the disk, for tables with this room."""
    num_rounds = room[0]
    # The ends: 8 bytes a round.
    total = len(ENDS) * num_rounds * 8
    for table, rows in zip(ROW_DIMS, room):
        for column in columns[table]:
            total += _column_bytes(column, rows)
    return total


def _column_bytes(column, rows):
    chunk_rows = _chunk_rows(column, rows)
    num_chunks = -(-rows // chunk_rows)
    chunk_bytes = chunk_rows * _row_bytes(column)
    return num_chunks * (chunk_bytes + BYTES_A_CHUNK) + BYTES_A_COLUMN


def column_of(data):
    """The Column of a data set."""
    attrs = data.attrs
    name = data.name.rsplit("/", 1)[-1]
    width, dim = 0, ""
    if data.ndim > 1:
        width = data.shape[1]
    if width:
        dim = data.dims[1].label or own_dims(name, 2)[0]
    return Column(
        name,
        dtype_name(data.dtype),
        attrs["unit"],
        attrs["description"],
        machine=bool(attrs["machine"]),
        width=width,
        dim=dim,
        names=_enumeration(data.dtype))


def _enumeration(dtype):
    """The names of the values 0, 1 ...; () for a dtype without names."""
    if dtype.kind != "i":
        return ()
    values = h5py.check_enum_dtype(dtype) or {}
    # Without -1, the name of missing values.
    present = [name for name, value in values.items() if value >= 0]
    return tuple(sorted(present, key=values.get))


# ---------------------------------------------------------------- data sets of fixed size


def create_coordinates(f, coordinates):
    """Makes a data set at the root for each dimension with coordinates: ``{name: numbers or texts}``."""
    for name, values in coordinates.items():
        data = _create_fact(f, name, values)
        describe(data, "", f"the dimension {name}")
        label(data, name)


def create_population(f, population):
    """Makes /population, and the clients' numbers.

    Of ``{name: (values (N, ...), unit, description, dimension of each further axis)}``.
    """
    for name, (values, unit, description, *dims) in population.items():
        group = f.require_group("population")
        if POPULATION_DIM not in group:
            _create_clients(group, len(values))
        data = _create_fact(group, name, values)
        describe(data, unit, description)
        further = [*dims, *own_dims(name, data.ndim)[len(dims):]]
        label(data, POPULATION_DIM, *further)
        for dim, length in zip(further, data.shape[1:]):
            _need_scale(f, group, dim, length)


def _create_clients(group, num_clients):
    """Makes the coordinates of the population's dimension: the clients' numbers."""
    clients = group.create_dataset(POPULATION_DIM, data=np.arange(num_clients))
    describe(clients, "1", "client, from 0")
    label(clients, POPULATION_DIM)


def _create_fact(group, name, values):
    values = np.asarray(values)
    dtype = values.dtype
    if dtype.kind in "UO":
        dtype = h5py.string_dtype()
    return group.create_dataset(name, data=values.astype(dtype), dtype=dtype)


def fact_values(data):
    """The values of a data set of fixed size, texts as texts."""
    if h5py.check_string_dtype(data.dtype):
        return data.asstr()[...].astype(str)
    return data[...]


PARTITION = {
    "offsets": "client i trains on the samples indices[offsets[i]:offsets[i + 1]]",
    "indices": "training samples, client after client",
    "test_offsets": "client i has the test part test_indices[test_offsets[i]:test_offsets[i + 1]]",
    "test_indices": "samples of the training data that are clients' own test parts, client after client",
}


def create_partition(f, *arrays):
    """Makes /partition of the first two or of all four of PARTITION."""
    for (name, description), values in zip(PARTITION.items(), arrays):
        array = np.asarray(values)
        data = f.create_dataset(f"partition/{name}", data=array)
        describe(data, "1", description)
        label(data, name)


def attach_scales(f):
    """Attaches every data set to the scales of its dimensions."""
    for name in GROUPS:
        if name in f:
            attach(f, f[name])
