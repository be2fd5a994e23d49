"""A run file laid out anew: with more room, with fewer rows, or packed.

HDF5 can neither change the layout of a data set nor give back its bytes. So everything is copied into a new file beside
the old one, and the new file replaces it once it is whole and on the disk. Programs with the old file open go on
reading it; a killed process or a full disk leaves it as it was.
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
    rows), and with ``room``. Attributes and data sets added by other programs stay."""
    columns = columns_of(source)
    # HDF5 opens a data set anew each time it is asked for by name.
    old_data = row_data(source, *rows)
    with beginning(path, _most_bytes(old_data, path, columns, room)) as f:
        _copy_attrs(source, f)
        _copy_facts(source, f, packed)
        create_tables(f, columns, room, packed)
        new_data = row_data(f, *rows)
        copy_rows(old_data, new_data)
        f["committed"][...] = rows[:2]
        # A packed file has no room to clear.
        if not packed:
            clear(new_data)
        for (data, _), (target, _) in zip(old_data, new_data):
            _copy_attrs(data, target)
        attach_scales(f)
    finish(path)


def _most_bytes(old_data, path, columns, room):
    """The most bytes the new file takes: its tables, and everything else in the old file."""
    tables = sum(data.id.get_storage_size() for data, _ in old_data)
    return table_bytes(columns, room) + os.path.getsize(path) - tables


def _copy_attrs(source, target):
    """Copies the attributes missing in the target, without HDF5's own ones about scales."""
    present = {*target.attrs, *OF_SCALES}
    for name in source.attrs:
        if name in present:
            continue
        stored = source.attrs.get_id(name)
        target.attrs.create(name, source.attrs[name], shape=stored.shape, dtype=stored.dtype)


def _copy_facts(source, f, packed):
    """Copies everything but the tables: coordinates, population, partition, sessions, and additions of others."""
    for name in source:
        if name not in MADE_ANEW:
            _copy_item(source, f, name, packed)


def _copy_item(source, f, name, packed):
    item = source[name]
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
    """Copies a data set of fixed size; packed if it is large."""
    is_large = data.ndim and data.dtype.kind in "biuf" and data.nbytes > PACKED_FROM
    options = {}
    if packed and is_large:
        options = PACKED
    copy = group.create_dataset(name, data=data[...], dtype=data.dtype, **options)
    _copy_attrs(data, copy)
    if is_scale(data):
        copy.make_scale(scale_name(data))
