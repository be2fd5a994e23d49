"""The schema of run files: its number, its description, and names in older schemas.

The number grows when a name or a meaning changes, so that an older fedmpi would misread the file; new columns and
attributes do not change it. In every schema, a file's columns describe themselves.
"""

FILETYPE, SCHEMA = "fedmpi-run", 3
# The first schema with dimensions and texts of digests; only its files are packed.
NETCDF = 3
# Columns renamed in schema 2, read under the new name.
RENAMED = {"rounds/publish_s": "encode_s"}

# These texts are printed by `fedmpi schema`.
TEXT = """\
A run file is HDF5; h5py, h5dump, pandas, xarray and fedmpi.open read it, also while the run goes on. Every data set \
has the attributes unit, description and machine (true where a value depends on the machine and is not compared \
between runs), and units and long_name, as netCDF calls the first two. Every axis has a label and a scale, its \
dimension: round, participation (a client in a round), client, layer, class ... What is not there reads as -1 or NaN. \
Schema {number}. A file of a newer schema is refused, older ones are read: 2 calls encode_s what 1 called publish_s; 3 \
has dimensions, names of outcomes, texts of digests, lists of texts that are no JSON, and packs a run that has ended.\
"""
PLACES = {
    "/": "attributes, below; those that json_text names hold JSON, lists of texts are arrays",
    "/committed": "[rounds, client rows] that are valid: what lies beyond is room for the next rounds, and reads as "
                  "-1, NaN or an empty text; a run that was finished or stopped has no room, is shuffled and "
                  "compressed",
    "/rounds/NAME": "(round) or (round, layer), a row a round; NAME_text is NAME in hexadecimal, since numbers of R "
                    "and Matlab end at 2^53",
    "/ends": "rows of /clients that are committed after each round",
    "/clients/NAME": "(participation) a row for each client that was asked in a round",
    "/own/NAME": "(own_test) with --client-test: a row for each client in each round that evaluates clients' models on "
                 "their own test parts; /own_ends: its rows after each round",
    "/population/NAME": "(client, ...) a row a client, what is true of it for the whole run: samples, noise (rate of "
                        "wrong labels), features (level of skew), quality (1: good), duplicate_of, fault_0 ..., "
                        "labels, true_labels (by class), name (of a natural client), test_samples",
    "/partition": "client n has the training samples indices[offsets[n]:offsets[n + 1]] and, with --client-test, the "
                  "test part test_indices[test_offsets[n]:test_offsets[n + 1]], of the same training data",
    "/sessions/NAME": "(time) a row for each start or resume: time, ranks, launcher, hosts, git_commit, command, "
                      "versions, places; process (which writes: number, start, machine); done, the rounds that were "
                      "there already; rounds, those that it was to have at its end, and rounds_before, those that were "
                      "asked for before",
    "/layer, /class": "names of the prunable tensors, and classes; /participation is a dimension without values",
    "RUN.ckpt/NNNNNN.h5": "beside the file: the state after round NNNNNN, with a checksum; the newest two, see --keep",
}

ATTRIBUTES = {
    "filetype": "fedmpi-run", "schema": "this schema's number",
    "run_id": "drawn for each run, its checkpoints have it too",
    "status": "running, finished, stopped (by --until), interrupted or failed",
    "error": "one line: why the last session ended as it did, empty unless an error or a signal ended it",
    "created": "UTC", "ended": "UTC, of the last session", "command": "of the first session",
    "options": "all options of train, as they were decided",
    "parts": "of each part its kind, its spec, all its options as resolved and, where it is the user's, "
             "a digest of the files that define its factory, not of what they import; older files lack it",
    "seed": "everything random follows from it",
    "weights": "trained parameters", "prunable": "those that can be pruned",
    "frozen": "parameters that are not trained",
    "fixed_digest": "of frozen parameters and constants, empty where the model has neither",
    "init_digest": "of the file of --init-from, empty without one",
    "flops_other": "FLOPs of one sample's forward pass that no mask thins out: dense (with dense parameters, and of "
                   "activations with each other) and frozen",
    "statistics": "the buffers that training moves, which are averaged",
    "layers": "[name, shape, uses of a weight for one sample] of each prunable tensor",
    "inputs": "shape of a sample, dtype in which models get it, classes and their names, mean and std a channel by "
              "which inputs are normalised, and how many test samples are of each class; classes is 0 where "
              "targets are none",
    "objective": "what models are compared and selected by: headline, a metric and its column; higher, whether more is "
                 "better; the unit of losses; all metrics. Older files have accuracy",
    "server_data": "the samples of --server-data: how many, how many of each label, and whether the strategy works "
                   "with labels",
    "kernels": "of --kernel auto: of each pruned linear layer its shape, the rows of its inputs in a step, the weights "
               "kept of the first mask, the milliseconds of its products by each kernel, and the kernel taken; older "
               "files lack it",
    "estimators": "of contributions, the one that weighs first: spec, what it sees, whether its scores accumulate",
    "judged": "each estimator against the truth that was injected",
    "data_digest": "of data, partition, labels and faults", "devices_digest": "of the trace of devices",
    "layout_digest": "of the model's tensors, their shapes and order", "versions": "of libraries, the MPI and Python",
    "git_commit": "of the code, where it is a checkout",
    "hosts": "that ranks ran on", "ranks": "in all, the server included", "launcher": "what started the ranks",
    "json_text": "the attributes that hold JSON",
}
