"""Files that a command writes."""

import os

from fedmpi.errors import UserError


def check_new(path, overwrite):
    """UserError, before any work, where ``path`` lies in no folder that takes it, or exists and may not be replaced."""
    from fedmpi.store import check_folder
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    check_folder(path)
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{path} exists: give --overwrite, or another name")
