"""Run files and checkpoints: a run's traces on disk, written and read. The only importer of h5py.

    run.h5                attrs: filetype, schema, run_id, status, options (JSON text) ...
      /rounds/<name>      one row a round, (T,) or (T, width)
      /clients/<name>     a long table, one row for each participant of each round
      /ends               (T,) committed rows of /clients after each round
      /committed          [rounds, client rows]: the valid rows; beyond them is room for the next rounds
      /population/<name>  facts about all clients; /partition/{offsets, indices}; /sessions/<name>
      /<dimension>        coordinates of dimensions without a column as their scale
    run.ckpt/000123.h5    the state after a round, beside the run file

A dying process must not damage the file, so there are two ways to write and no third:

* A *row* goes into room already allocated, to the bytes where HDF5 would put it, then ``committed`` is set. No metadata
  of the file changes, and HDF5 need not open it.
* *Everything else* (creating, making room, truncating, attributes, sessions, packing an ended run) is done on a copy,
  and the copy is renamed into place.

So no reader ever meets a half-written file, even if the writer is killed.
"""

from fedmpi.store.checkpoint import checkpoint_folder, checkpoints, load_checkpoint, save_checkpoint
from fedmpi.store.compare import differences, verify
from fedmpi.store.files import RunFile, check_folder, check_replaceable, check_target, remove_run
from fedmpi.store.memory import MemoryStore
from fedmpi.store.read import read_arrays, read_clients, read_run, why_no_run
from fedmpi.store.rows import Column, Run
from fedmpi.store.trial import trial
from fedmpi.store.writer import lives, this_process

__all__ = [
    "Column", "MemoryStore", "Run", "RunFile", "check_folder", "check_replaceable", "check_target",
    "checkpoint_folder", "checkpoints", "differences", "lives", "load_checkpoint", "read_arrays", "read_clients",
    "read_run", "remove_run", "save_checkpoint", "this_process", "trial", "verify", "why_no_run"]
