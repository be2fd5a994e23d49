"""One training run, from its options to the picture at its end."""

import contextlib
import importlib
import math
import os
import time
from functools import partial

from fedmpi.build.ranks import check_ranks
from fedmpi.core import paths
from fedmpi.core.errors import DiskError, FedError, LostRank, Stopped, UserError, WorkerError
from fedmpi.core.wide import labelled, terminal_width, wrapped
from fedmpi.run import provenance, resume as resuming
from fedmpi.run.devices import on_device, pick_device, placed, wishes
from fedmpi.run.last_words import LastWords, NoLastWords
from fedmpi.run.launch import on_ranks, uncollected, worker
from fedmpi.run.launcher import launcher, rank_and_size
from fedmpi.transport import place
from fedmpi.transport.watch import Limits

# Options that limit how long a rank waits for others.
LIMITS = ("silence", "task_limit")
WIDEST = 100     # columns of the picture at the end
# Modules that rank 0 needs at its start, imported together.
SOON = ("fedmpi.build.check", "fedmpi.build.needs", "fedmpi.build.rehearsal", "fedmpi.store")


def train(options, resume, say, tell, overwrite=False):
    """Play the run of ``options``, or resume the run file ``resume`` with changed options. Returns
    the exit code.

    ``overwrite``: the run file ``out`` may replace one with rounds. ``tell(line)`` shows progress,
    and ``say(line)`` the error that ends the run; only rank 0 calls them. Other ranks serve until
    rank 0 says stop.
    """
    limits = _limits(options)
    # Limits are not recorded with the run.
    options = {key: value for key, value in options.items() if key not in LIMITS}
    rank, size = rank_and_size()
    # Limits are for other ranks.
    if size == 1:
        _tell_idle_limits(limits, tell)
    last_words = NoLastWords()
    # Before MPI and torch are loaded.
    if rank == 0 and size != 1:
        last_words = LastWords()
    if resume:
        last_words.run(resume, True)
    see = partial(place.mine, gpus="cuda" in wishes(options))

    def play(connect):
        _serve(options, resume, tell, connect, last_words, see, overwrite)

    return on_ranks(play, worker, say, limits, last_words, see, tell)


def _limits(options):
    """The ``Limits`` of the options; an option of None leaves the usual limit."""
    limits = []
    for name, usual in zip(LIMITS, Limits()):
        limit = options[name]
        if limit is None:
            limit = usual
        limits.append(limit)
    return Limits(*limits)


def _tell_idle_limits(limits, tell):
    """A line for each limit that the user gave: limits have no effect in one process."""
    for name, limit, usual in zip(LIMITS, limits, Limits()):
        if limit == usual:
            continue
        option = f"--{name.replace('_', '-')} {limit:g}"
        tell(f"warning: {option} has no effect in one process: it is for other ranks; "
             "start several, by mpirun, or leave it out")


def prepared(options, local, say):
    """The ``Setup`` of a run, checked. ``local`` is rank 0's number among its node's workers.

    UserError for every mistake that shows without the other ranks.
    """
    from fedmpi.build.check import check
    from fedmpi.build.choose import decided
    from fedmpi.build.kernels import kernels_decided
    from fedmpi.build.rehearsal import rehearse
    from fedmpi.build.setup import set_up
    setup = set_up(options, pick_device(options["server_device"], local))
    if not options["together"]:
        workers = max(1, rank_and_size()[1] - 1)
        setup = decided(setup, pick_device(options["device"], local), workers, say)
    setup = kernels_decided(setup, say)
    check(setup)
    rehearse(setup)
    return setup


def _serve(options, resume, say, connect, last_words, see, overwrite):
    """Rank 0's part, from the options to the end.

    It refuses mistakes before it waits for others.
    """
    begin = time.perf_counter()
    with uncollected():
        import torch

        from fedmpi.build.setup import message
        for module in SOON:
            importlib.import_module(module)
    torch.set_num_threads(1)
    _, size = rank_and_size()
    local = place.SERVER
    # Alone, rank 0 trains clients, and takes a worker's place.
    if size == 1:
        local = 0
    own = see(local)
    if resume:
        options = resuming.recorded(options, resume, say)
    else:
        options = on_device(options)
    # Some launchers do not tell their number of ranks; the transport does.
    if size:
        check_ranks(options, size)
    setup = prepared(options, local, say)
    path = resume or options["out"]
    store, state, done = _begun(setup, resume, say, overwrite)
    # A refusal is one line: nothing is told before the last check.
    _tell_setup(setup, say)
    last_words.run(path, bool(resume))
    transport = connect(partial(worker, setup.parts))
    _divide(setup.options, transport)
    places = placed(own, transport.places, setup.options)
    _tell_places(setup, places, say)
    setup = _connected(setup, transport, path, say)
    # Workers build while the file is made.
    transport.publish(*message(setup, state))
    # The state has its own first values: 4 bytes a weight.
    setup = setup._replace(network=setup.network._replace(first=None))
    if store is None:
        store = _created(setup, overwrite)
        last_words.run(path, True)
    first_state = [state]
    del state
    _play(setup, first_state, store, done, say, begin, places)


def _divide(options, transport):
    """Have groups of workers train one client each, if the options say so."""
    from fedmpi.compute.divided import BACKENDS
    check_ranks(options, transport.size)
    if options["ranks_per_client"] > 1:
        transport.divide(options["ranks_per_client"], BACKENDS[options["device"]])


def _connected(setup, transport, path, say):
    """The ``Setup`` with its transport, after every node has the data."""
    from fedmpi.build.federation import without_pixels
    from fedmpi.build.setup import shared_arrays
    data = {"kind": "data", "goes_on": _goes_on(path)}
    transport.share(data, shared_arrays(setup))
    return setup._replace(
        data=without_pixels(setup.data),
        run=setup.run._replace(transport=transport, tell=say))


def _goes_on(path):
    """The command that resumes the run file."""
    return f"fedmpi train --resume {paths.typed(path)} goes on"


def _begun(setup, resume, say, overwrite):
    """``(run file, state, rounds done)``; the file of a new run is None, it is made later."""
    from fedmpi.server.run_state import initial_state
    from fedmpi.store import RunFile, check_folder, check_target
    if resume:
        common = resuming.common_round(resume, setup.options, setup.parts)
        check_folder(resume)
        store = RunFile(resume)
        state, done = resuming.restored(store, setup, say, common)
        return store, state, done
    out = setup.options["out"]
    _make_runs(out)
    check_target(out, overwrite)
    return None, initial_state(setup.run, setup.network.first), 0


def _make_runs(out):
    """Make the folder ``runs``, the usual place of run files."""
    if os.path.dirname(out) != "runs":
        return
    try:
        os.makedirs("runs", exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder runs: {error.strerror}; "
                        "say by --out where the run is to lie") from error


def _created(setup, overwrite):
    """The run file of a new run."""
    from fedmpi.build.population import population
    from fedmpi.server import record
    from fedmpi.store import RunFile
    options, data, run = setup.options, setup.data, setup.run
    partition = data.offsets, data.indices
    if run.own_tests is not None:
        partition += (data.held_out.offsets, data.held_out.indices)
    return RunFile.create(
        options["out"],
        provenance.attrs(setup, run.transport),
        *record.columns(run),
        population(options, data),
        partition,
        record.own_columns(run),
        coordinates=_coordinates(data.dataset, run.layout),
        expected=_expected_rows(options, run),
        overwrite=overwrite)


def _coordinates(dataset, layout):
    """``{axis: names}`` of the run file's arrays: layers and classes."""
    coordinates = {"layer": [slot.name for slot in layout.weights]}
    if dataset.classes:
        coordinates["class"] = list(dataset.names) or range(dataset.classes)
    return coordinates


def _expected_rows(options, run):
    """``(rounds, clients' answers, clients' own tests)``: the rows of the run file's tables."""
    cohort = options["cohort"] or options["clients"]
    tested = 0
    if run.own_tests is not None:
        evaluations = math.ceil(run.rounds / run.own_tests.test_every)
        tested = len(run.own_tests.clients) * evaluations
    return run.rounds, run.rounds * cohort, tested


# ---------------------------------------------------------------- lines before the first round


def _tell_setup(setup, say):
    """Lines about a data set of the user's own, then about options without effect."""
    from fedmpi.build.notes import warnings
    from fedmpi.build.population import data_lines
    for line in data_lines(setup.options, setup.data):
        _say_wrapped(line, say)
    for line in warnings(setup):
        say(f"warning: {line}")


def _tell_places(setup, places, say):
    """Lines about nodes and their memory."""
    from fedmpi.build.needs import fits
    for line in place.lines(places):
        _say_wrapped(line, say)
    warnings = [*place.warnings(places), *fits(setup, places)]
    for line in warnings:
        say(f"warning: {line}")


def _say_wrapped(line, say):
    for part in wrapped(line, terminal_width(), "    "):
        say(part)


def _opening(setup, seconds, width):
    """Lines, at most ``width`` wide, about the run that begins."""
    from fedmpi.build.population import dealt
    from fedmpi.core.words import plural
    from fedmpi.core.layout import described
    options, data, run = setup.options, setup.data, setup.run
    transport = run.transport
    # A process alone is its own worker.
    workers = plural(max(transport.size - 1, 1), "worker")
    if options["ranks_per_client"] > 1:
        workers += f", {options['ranks_per_client']} for each"
    kinds = ("strategy", "pruner", "contribution", "weighting", "codec")
    method = ", ".join(f"{kind} {options[kind]}" for kind in kinds)
    rows = [
        ("clients", f"{run.cohort} of {len(run.sizes)} a round on {workers}"),
        ("data", f"{options['dataset']}: {_samples_text(data, run)}"),
        ("dealt out", dealt(options, data)),
        ("model", f"{options['model']}, {described(run.layout)}"),
        ("method", method),
    ]
    ranks = plural(transport.size, "rank")
    ready = f"{ranks} ready after {seconds:.0f} s{_started_by(transport)}"
    return [*wrapped(ready, width, "    "), *labelled(rows, width)]


def _samples_text(data, run):
    """How many samples each part of the data set has."""
    from fedmpi.build.federation import samples_text
    text = samples_text(data)
    if run.own_tests is None:
        return text
    every = run.own_tests.test_every
    period = "every round"
    if every > 1:
        period = f"every {every} rounds"
    held_out = len(data.held_out.indices)
    return f"{text}; {held_out} in clients' own test parts, evaluated {period}"


def _started_by(transport):
    """`` (started by mpirun; Open MPI v4.1.4)``; empty in one process."""
    library = transport.versions.get("mpi")
    if not library:
        return ""
    first = library.partition(",")[0].replace("Version:", "")
    name_and_version = " ".join(first.split())
    return f" (started by {launcher()}; {name_and_version})"


# ---------------------------------------------------------------- the rounds


def _play(setup, first_state, store, done, say, begin, places):
    """Play the remaining rounds, and tell about them.

    ``first_state`` is a list of one state. It is taken out, so that no caller holds its vectors.
    The run file records the end of the run, even after an error.
    """
    run = setup.run
    status, reason = "failed", ""
    try:
        _go_on(setup, store, done, places)
        seconds = time.perf_counter() - begin
        for line in _opening(setup, seconds, terminal_width()):
            say(line)
        _rounds(setup, first_state, store, done, say)
        status = "stopped"
        if store.rounds == run.rounds:
            status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except (Stopped, LostRank, DiskError) as error:
        if isinstance(error, Stopped):
            status = "interrupted"
        reason = reason_of(error)
        line = f"{error} after round {store.rounds} of {run.rounds}; {_goes_on(store.path)}"
        raise type(error)(line) from None
    except Exception as error:
        reason = reason_of(error)
        raise
    finally:
        ignored = contextlib.nullcontext()
        if status == "failed":
            # An error of the disk must not hide the first error.
            ignored = contextlib.suppress(DiskError)
        # Without its status, the run file would look as if the run went on.
        with run.transport.stop.unbroken(), ignored:
            store.update({"status": status, "error": reason, "ended": provenance.now()})
    _tell_end(store, say)


def reason_of(error):
    """One line: the reason of an error that ended a run, with the type if it is not of our own."""
    if isinstance(error, WorkerError):
        # A traceback of another rank ends in the error's type and message.
        return error.trace.strip().splitlines()[-1]
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, FedError):
        return message
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def _go_on(setup, store, done, places):
    """Record in the run file that the run goes on after round ``done``."""
    from fedmpi.store import read_run
    recorded = read_run(store.path, only=()).attrs["options"]
    session = provenance.session(setup, places, recorded["rounds"], done)
    store.add_session(session)
    # A run killed between these lines loses nothing: round ``done`` is the same under both numbers
    # of rounds.
    store.update({"status": "running", "error": ""})
    store.truncate(done)
    store.update({"options": recorded | {"rounds": setup.run.rounds}})


def _rounds(setup, first_state, store, done, say):
    """Play the rounds after round ``done``, with a line for each."""
    from fedmpi.read import report
    from fedmpi.server import loop
    options, run = setup.options, setup.run
    last = min(options["until"] or run.rounds, run.rounds)
    width = terminal_width()
    headline = run.objective.headline
    begin = time.perf_counter()

    def on_round(row):
        t = row["round"]
        played = t - done
        played_s = time.perf_counter() - begin
        # Earlier sessions may have run on other machines.
        round_s = played_s / played
        left_s = round_s * (last - t)
        line = report.round_line(row, run.rounds, left_s, width, headline)
        say(line)

    loop.simulate(
        run, first_state.pop(), store, done + 1, last,
        save_every=options["save_every"],
        keep=options["keep"],
        on_round=on_round)


def _tell_end(store, say):
    """Print the summary and the picture of a finished run."""
    from fedmpi.read import report
    run, width = store.run(), terminal_width()
    judged = report.judged(run)
    store.update({"judged": report.plain(judged)})
    summary = report.summary(run, width)
    picture = report.picture(run, min(width, WIDEST))
    say(f"\n{summary}\n\n{picture}\n\nrun file: {paths.near(store.path)}")
