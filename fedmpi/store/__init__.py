"""Run files and checkpoints: what a run leaves on disk, and how it is read again. The only importer of h5py.

    run.h5                attrs: filetype, schema, run_id, status, options (JSON text) ...
      /rounds/<name>      one row a round, (T,) or (T, width)
      /clients/<name>     a long table, one row for each participant of each round
      /ends               (T,) rows of /clients that are committed after each round
      /committed          [rounds, client rows] that are valid; what lies beyond is room for the next rounds
      /population/<name>  facts about all clients; /partition/{offsets, indices}; /sessions/<name>
      /<dimension>        coordinates of dimensions that no column is the scale of
    run.ckpt/000123.h5    the state after a round, beside the run file

A process that dies must not take the file with it, so there are two ways to write and no third:

* A *row* goes into room that is already allocated, to the bytes where HDF5 would put it, then ``committed`` is set. No
  metadata of the file changes, and HDF5 need not open it.
* *Everything else* (create, more room, truncate, attributes, sessions, and packing a run that has ended) is done on a
  copy, which is renamed into place.

A reader therefore never meets a half-written file, whatever moment it comes or the writer is killed at.
"""

from fedmpi.store.checkpoint import checkpoint_folder, checkpoints, load_checkpoint, save_checkpoint
from fedmpi.store.compare import differences, verify
from fedmpi.store.files import RunFile, check_folder, check_replaceable, check_target, remove_run
from fedmpi.store.memory import MemoryStore
from fedmpi.store.read import read_arrays, read_run, why_no_run
from fedmpi.store.rows import Column, Run
from fedmpi.store.trial import trial
from fedmpi.store.writer import lives, this_process

__all__ = [
    "Column", "MemoryStore", "Run", "RunFile", "check_folder", "check_replaceable", "check_target",
    "checkpoint_folder", "checkpoints", "differences", "lives", "load_checkpoint", "read_arrays", "read_run",
    "remove_run", "save_checkpoint", "this_process", "trial", "verify", "why_no_run"]
