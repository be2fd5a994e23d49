"""Dimensions, units and names of data sets as netCDF wants them: what xarray, ncdump and h5dump look for.

Every axis of every data set has a label, the name of its dimension, and a *scale* is attached to it: the data set of
that name in its group, or at the root. A scale with values of its own, such as /rounds/round, holds the coordinates of
the dimension; one that only says how long the dimension is, is called by netCDF's own words for that.
"""

import h5py
from h5py import h5ds

BARE = "This is a netCDF dimension but not a netCDF variable.%10d"
OF_SCALES = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}         # attributes that HDF5 keeps them in


def describe(data, unit, description, machine=False):
    """Says what a data set holds, in our words and in those of netCDF."""
    data.attrs.update(unit=unit, description=description, machine=machine, long_name=description)
    if unit:
        data.attrs["units"] = unit


def label(data, *dims):
    """Names the axes of ``data``; the one that its own dimension is called by becomes its scale."""
    for axis, dim in zip(data.dims, dims, strict=True):
        axis.label = dim
    if data.name.rsplit("/", 1)[-1] in dims:
        data.make_scale(dims[0])


def bare_scale(f, name, length):
    """Makes the dimension ``name``, of coordinates that are nothing but its length. It holds no values, so that it
    takes no room; it can be as long as wanted."""
    data = f.create_dataset(name, (length,), "int8", maxshape=(None,), chunks=(1 << 16,), fillvalue=-1)
    describe(data, "1", f"the dimension {name}: its length, and no values")
    label(data, name)
    data.make_scale(BARE % length)


def is_bare(data):
    """Whether ``bare_scale`` made the data set."""
    return is_scale(data) and scale_name(data).startswith(BARE[:40])


def is_scale(data):
    return h5ds.is_scale(data.id)


def scale_name(data):
    """The name that a scale gives to its dimension."""
    return h5ds.get_scale_name(data.id).decode()


def attach(f, group):
    """Attaches its scales to every data set in ``group``: those in the group itself, else those at the root ``f``."""
    for data in group.values():
        if not isinstance(data, h5py.Dataset) or is_scale(data):
            continue
        for axis in data.dims:
            if scale := scale_of(f, group, axis.label):
                axis.attach_scale(scale)


def scale_of(f, group, dim):
    """The data set that is the scale of the dimension ``dim`` in ``group``; None where there is none."""
    if not dim:
        return None
    return group.get(dim) or f.get(dim)
