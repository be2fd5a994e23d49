"""A run file laid out anew: with more room, with fewer rows, or packed.

HDF5 cannot change how a data set lies in its file, nor give back what a data set took. So everything is copied into a
new file beside the old one, which takes its place when it is whole and on the disk. Whoever has the old one open reads
on in it, and a process that is killed or a disk that is full leaves it as it was.
"""

import os

import h5py

from fedmpi.store.disk import beginning, finish
from fedmpi.store.scales import OF_SCALES, bare_scale, is_bare, is_scale, scale_name
from fedmpi.store.tables import (ENDS, PACKED, PACKED_FROM, ROW_DIMS, attach_scales, clear,
                                 columns_of, copy_rows, create_tables, row_data, table_bytes)

FACTS = {"population", "partition", "sessions"}
MADE_ANEW = {"committed", *ROW_DIMS, *ROW_DIMS.values(), *ENDS.values()}


def lay_out(source, path, rows, room, packed=False):
    """Replaces the run file ``path``, open as ``source``, by one with the first ``rows``, (rounds, client rows, own
    rows), and with ``room``. Attributes and data sets that others have added stay."""
    columns = columns_of(source)
    with beginning(path, _most_bytes(source, path, columns, room)) as f:
        _copy_attrs(source, f)
        _copy_facts(source, f, packed)
        create_tables(f, columns, room, packed)
        copy_rows(source, f, *rows)
        if not packed:
            clear(f, *rows)
        for (data, _), (wanted, _) in zip(row_data(source), row_data(f)):
            _copy_attrs(data, wanted)
        attach_scales(f)
    finish(path)


def _most_bytes(source, path, columns, room):
    """What the new file takes at most: its tables, and all else that the old one holds."""
    tables = sum(data.id.get_storage_size() for data, _ in row_data(source))
    return table_bytes(columns, room) + os.path.getsize(path) - tables


def _copy_attrs(source, target):
    """Those that the target lacks, without what HDF5 itself writes of scales."""
    for name in source.attrs:
        if name not in target.attrs and name not in OF_SCALES:
            kind = source.attrs.get_id(name)
            target.attrs.create(name, source.attrs[name], shape=kind.shape, dtype=kind.dtype)


def _copy_facts(source, f, packed):
    """Everything but the tables: coordinates, population, partition, sessions, and what is not ours."""
    for name in source:
        item = source[name]
        if name in MADE_ANEW:
            continue
        if name in FACTS:
            _copy_group(item, f.create_group(name, track_order=True), packed)
        elif not isinstance(item, h5py.Dataset) or not is_scale(item):
            source.copy(name, f)
        elif is_bare(item):
            bare_scale(f, name, len(item))
        else:
            _copy_fact(item, f, name, packed)


def _copy_group(source, group, packed):
    _copy_attrs(source, group)
    for name in source:
        if isinstance(source[name], h5py.Dataset):
            _copy_fact(source[name], group, name, packed)
        else:
            source.copy(name, group)


def _copy_fact(data, group, name, packed):
    """A data set that does not grow; where it is large, packed."""
    large = data.ndim and data.dtype.kind in "biuf" and data.nbytes > PACKED_FROM
    how = PACKED if packed and large else {}
    copy = group.create_dataset(name, data=data[...], dtype=data.dtype, **how)
    _copy_attrs(data, copy)
    if is_scale(data):
        copy.make_scale(scale_name(data))
