"""The schema of run files: its number, what it says, and how older ones are read.

The number grows where a name or a meaning changes, so that an older fedmpi would misread the file; new columns and
attributes do not change it. Whatever schema a file has, its columns say by themselves what they hold.
"""

FILETYPE, SCHEMA = "fedmpi-run", 2
RENAMED = {"rounds/publish_s": "encode_s"}                 # by schema 2; read under the new name

TEXT = """\
A run file is HDF5; h5py, h5dump, pandas and fedmpi.open read it, also while the run goes on. Every data set has the \
attributes unit, description and machine (true where a value depends on the machine and is not compared between runs). \
Schema {number}. A file of a newer schema is refused, older ones are read: 2 calls encode_s what 1 called publish_s.\
"""
PLACES = {
    "/": "attributes, below; those that json_text names hold JSON",
    "/committed": "[rounds, client rows] that are valid: what lies beyond is room for the next rounds",
    "/rounds/NAME": "(T,) or (T, width), a row a round",
    "/ends": "(T,) rows of /clients that are committed after each round",
    "/clients/NAME": "(R,) a row for each client that was asked in a round",
    "/population/NAME": "(N, ...) a row a client, what is true of it for the whole run: samples, noise (rate of wrong "
                        "labels), features (level of skew), quality (1: good), duplicate_of, fault_0 ..., labels, "
                        "true_labels (by class)",
    "/partition": "client n has the training samples indices[offsets[n]:offsets[n + 1]]",
    "/sessions/NAME": "a row for each start or resume: time, ranks, launcher, hosts, git_commit, command, versions, "
                      "places; done, the rounds that were there already; rounds, those that it was to have at its "
                      "end, and rounds_before, those that were asked for before",
    "RUN.ckpt/NNNNNN.h5": "beside the file: the state after round NNNNNN, with a checksum; the newest two, see --keep",
}

ATTRIBUTES = {
    "filetype": "fedmpi-run", "schema": "this schema's number",
    "run_id": "drawn for each run, its checkpoints have it too",
    "status": "running, finished, stopped (by --until), interrupted or failed",
    "created": "UTC", "ended": "UTC, of the last session", "command": "of the first session",
    "options": "all options of train, as they were decided",
    "seed": "everything random follows from it",
    "weights": "trained parameters", "prunable": "those that can be pruned",
    "layers": "[name, shape, uses of a weight for one sample] of each prunable tensor",
    "inputs": "shape of a sample, classes, and mean and std a channel by which inputs are normalised",
    "estimators": "of contributions, the one that weighs first: spec, what it sees, whether its scores accumulate",
    "judged": "each estimator against the truth that was injected",
    "data_digest": "of data, partition, labels and faults", "devices_digest": "of the trace of devices",
    "layout_digest": "of the model's tensors, their shapes and order", "versions": "of libraries, the MPI and Python",
    "git_commit": "of the code, where it is a checkout",
    "hosts": "that ranks ran on", "ranks": "in all, the server included", "launcher": "what started the ranks",
    "json_text": "the attributes that hold JSON",
}
