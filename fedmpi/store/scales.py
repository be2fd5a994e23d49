"""Dimensions, units and names of data sets in netCDF's form, for xarray, ncdump and h5dump.

Every axis of every data set has a label, the name of its dimension. A *scale* is attached to it: the data set of this
name in the same group, or at the root. A scale with values of its own, such as /rounds/round, holds the dimension's
coordinates. A bare scale tells only the dimension's length; its name is netCDF's own phrase for this.
"""

import h5py
from h5py import h5ds

# netCDF's phrase for a dimension without coordinates.
BARE = "This is a netCDF dimension but not a netCDF variable.%10d"
BARE_CHUNK = 1 << 16
# The attributes holding HDF5's own record of scales.
OF_SCALES = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}


def describe(data, unit, description, machine=False):
    """Stores the meaning of a data set, in our words and in netCDF's."""
    data.attrs.update(unit=unit, description=description, machine=machine, long_name=description)
    if unit:
        data.attrs["units"] = unit


def label(data, *dims):
    """Names the axes of ``data``; a data set named as one of them becomes the scale of the first."""
    for axis, dim in zip(data.dims, dims, strict=True):
        axis.label = dim
    if data.name.rsplit("/", 1)[-1] in dims:
        data.make_scale(dims[0])


def bare_scale(f, name, length):
    """Makes the dimension ``name``, without coordinates and of any length.

    It holds no values and takes no room.
    """
    # Chunks that nobody writes are not stored.
    data = f.create_dataset(
        name,
        (length,),
        "int8",
        maxshape=(None,),
        chunks=(BARE_CHUNK,),
        fillvalue=-1)
    describe(data, "1", f"the dimension {name}: its length, and no values")
    label(data, name)
    data.make_scale(BARE % length)


def is_bare(data):
    """Whether ``bare_scale`` made the data set."""
    return is_scale(data) and scale_name(data).startswith(BARE[:40])


def is_scale(data):
    return h5ds.is_scale(data.id)


def scale_name(data):
    """The name of a scale's dimension, as the scale says it."""
    return h5ds.get_scale_name(data.id).decode()


def attach(f, group):
    """Attaches its scales to every data set in ``group``: scales in the group itself, else at the root ``f``."""
    scales = {}
    for data in group.values():
        if not isinstance(data, h5py.Dataset) or is_scale(data):
            continue
        for axis in data.dims:
            dim = axis.label
            if dim not in scales:
                scales[dim] = scale_of(f, group, dim)
            if scales[dim]:
                axis.attach_scale(scales[dim])


def scale_of(f, group, dim):
    """The scale of the dimension ``dim`` in ``group``; None without one."""
    if not dim:
        return None
    return group.get(dim) or f.get(dim)
