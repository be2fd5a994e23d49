"""One training run, from its options to the picture at its end."""

import contextlib
import importlib
import math
import os
import time
from functools import partial

from fedmpi.core import paths
from fedmpi.core.errors import DiskError, LostRank, Stopped, UserError
from fedmpi.core.wide import labelled, terminal_width, wrapped
from fedmpi.run import provenance, resume as resuming
from fedmpi.run.devices import on_device, pick_device, placed, wishes
from fedmpi.run.guard import Guard, NoGuard
from fedmpi.run.launch import on_ranks, uncollected, worker
from fedmpi.run.launcher import launcher, rank_and_size
from fedmpi.transport import place
from fedmpi.transport.watch import Limits

# Options that say how long others are waited for.
LIMITS = ("silence", "task_limit")
WIDEST = 100     # columns of the picture at the end
# What rank 0 needs at its start, all of it imported at once.
SOON = ("fedmpi.build.check", "fedmpi.build.needs", "fedmpi.build.rehearsal", "fedmpi.store")


def train(options, resume, say, tell, overwrite=False):
    """Play the run that ``options`` (or the run file ``resume`` and changed options) describe; returns the exit code.
    ``overwrite``: the run file ``out`` may replace one that has rounds.

    ``tell(line)`` shows progress, ``say(line)`` why the run does not go on; only rank 0 calls them. On other ranks this
    serves until rank 0 says stop.
    """
    limits = _limits(options)
    # They are no part of what is recorded.
    options = {key: value for key, value in options.items() if key not in LIMITS}
    rank, size = rank_and_size()
    if size == 1:
        _tell_idle_limits(limits, tell)
    guard = Guard() if rank == 0 and size != 1 else NoGuard()
    if resume:
        guard.run(resume, True)
    see = partial(place.mine, gpus="cuda" in wishes(options))

    def play(connect):
        _serve(options, resume, tell, connect, guard, see, overwrite)

    return on_ranks(play, worker, say, limits, guard, see, tell)


def _limits(options):
    """The ``Limits`` that the options say, or their usual ones."""
    given = [options[name] for name in LIMITS]
    return Limits(*(usual if value is None else value for value, usual in zip(given, Limits())))


def _tell_idle_limits(limits, tell):
    """A line for each limit that somebody gave and that has no effect in one process."""
    for name, given, usual in zip(LIMITS, limits, Limits()):
        if given != usual:
            tell(f"warning: --{name.replace('_', '-')} {given:g} has no effect in one process: it is for other "
                 "ranks; start several, by mpirun, or leave it out")


def prepared(options, local, say):
    """The ``Setup`` of a run, checked; ``local`` is rank 0's place among its node's workers. UserError for all that can
    be refused before others are waited for."""
    from fedmpi.build.check import check
    from fedmpi.build.choose import decided
    from fedmpi.build.rehearsal import rehearse
    from fedmpi.build.setup import set_up
    setup = set_up(options, pick_device(options["server_device"], local))
    if not options["together"]:
        workers = max(1, rank_and_size()[1] - 1)
        setup = decided(setup, pick_device(options["device"], local), workers, say)
    check(setup)
    rehearse(setup)
    return setup


def _serve(options, resume, say, connect, guard, see, overwrite):
    """What can be refused is refused before the other ranks are waited for."""
    begin = time.perf_counter()
    with uncollected():
        import torch

        from fedmpi.build.federation import shared_arrays, without_pixels
        from fedmpi.build.setup import message
        for module in SOON:
            importlib.import_module(module)
    torch.set_num_threads(1)
    local = 0 if rank_and_size()[1] == 1 else place.SERVER
    own = see(local)
    options = resuming.recorded(options, resume, say) if resume else on_device(options)
    setup = prepared(options, local, say)
    path = resume or options["out"]
    store, state, done = _begun(setup, resume, say, overwrite)
    # A refusal is one line, so all that is told comes after the last thing that may be refused here.
    _tell_setup(setup, say)
    guard.run(path, bool(resume))
    transport = connect(partial(worker, setup.parts))
    places = placed(own, transport.places, setup.options)
    _tell_places(setup, places, say)
    goes_on = f"fedmpi train --resume {paths.typed(path)} goes on"
    transport.share({"kind": "data", "goes_on": goes_on}, shared_arrays(setup.data))
    setup = setup._replace(data=without_pixels(setup.data), fed=setup.fed._replace(transport=transport, tell=say))
    # Workers build while the file is made.
    transport.publish(*message(setup, state))
    if store is None:
        store = _created(setup, overwrite)
        guard.run(path, True)
    _play(setup, state, store, done, say, begin, places)


def _begun(setup, resume, say, overwrite):
    """``(run file, state, rounds done)``; no run file yet where the run is a new one."""
    from fedmpi.server.loop import start
    from fedmpi.store import RunFile, check_folder, check_target
    if resume:
        common = resuming.common_round(resume, setup.options, setup.parts)
        check_folder(resume)
        store = RunFile(resume)
        return store, *resuming.restored(store, setup, say, common)
    out = setup.options["out"]
    _make_runs(out)
    check_target(out, overwrite)
    return None, start(setup.fed, setup.network.first), 0


def _make_runs(out):
    """The folder ``runs``, where run files lie that nobody named."""
    if os.path.dirname(out) != "runs":
        return
    try:
        os.makedirs("runs", exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder runs: {error.strerror}; say by --out where the run is to lie") \
            from error


def _created(setup, overwrite):
    """The run file of a new run."""
    from fedmpi.build.population import population
    from fedmpi.server import record
    from fedmpi.store import RunFile
    options, data, fed = setup.options, setup.data, setup.fed
    attrs = provenance.attrs(setup, fed.transport)
    coordinates = {"layer": [slot.name for slot in fed.layout.weights]}
    if data.dataset.classes:
        coordinates["class"] = list(data.dataset.names) or range(data.dataset.classes)
    partition, tested = (data.offsets, data.indices), 0
    if fed.own_tests is not None:
        partition += (data.held_out.offsets, data.held_out.indices)
        tested = len(fed.own_tests.clients) * math.ceil(fed.rounds / fed.own_tests.every)
    participations = fed.rounds * (options["cohort"] or options["clients"])
    return RunFile.create(
        options["out"], attrs, *record.columns(fed), population(options, data), partition,
        record.own_columns(fed), coordinates=coordinates,
        expected=(fed.rounds, participations, tested), overwrite=overwrite)


# ---------------------------------------------------------------- what is told before


def _tell_setup(setup, say):
    """Lines about data of the user's own, then about what has no effect."""
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
    for line in [*place.warnings(places), *fits(setup, places)]:
        say(f"warning: {line}")


def _say_wrapped(line, say):
    for part in wrapped(line, terminal_width(), "    "):
        say(part)


def _opening(setup, seconds, width):
    """Lines, at most ``width`` wide, on what is about to be played."""
    from fedmpi.build.population import dealt
    from fedmpi.core.layout import described
    options, data, fed = setup.options, setup.data, setup.fed
    transport = fed.transport
    workers = _count(max(transport.size - 1, 1), "worker")
    own = f"{len(data.server)} of the server's own, " if len(data.server) else ""
    samples = (f"{len(data.indices)} training, {len(data.validation)} validation, {own}"
               f"{len(data.dataset.y_test)} test samples")
    if fed.own_tests is not None:
        every = "every round" if fed.own_tests.every == 1 else f"every {fed.own_tests.every} rounds"
        samples += f"; {len(data.held_out.indices)} in clients' own test parts, evaluated {every}"
    parts = ("strategy", "pruner", "contribution", "weighting", "codec")
    rows = [("clients", f"{fed.cohort} of {len(fed.sizes)} a round on {workers}"),
            ("data", f"{options['dataset']}: {samples}"),
            ("dealt out", dealt(options, data)),
            ("model", f"{options['model']}, {described(fed.layout)}"),
            ("method", ", ".join(f"{name} {options[name]}" for name in parts))]
    ready = f"{_count(transport.size, 'rank')} ready after {seconds:.0f} s{_started_by(transport)}"
    return [*wrapped(ready, width, "    "), *labelled(rows, width)]


def _started_by(transport):
    """`` (started by mpirun; Open MPI v4.1.4)``; empty in one process."""
    library = transport.versions.get("mpi")
    if not library:
        return ""
    first = library.partition(",")[0].replace("Version:", "")
    return f" (started by {launcher()}; {' '.join(first.split())})"


def _count(number, noun):
    return f"{number} {noun}" + "s" * (number != 1)


# ---------------------------------------------------------------- the rounds


def _play(setup, state, store, done, say, begin, places):
    """The rounds that remain, and what is told of them; whatever happens, the run file says how it ended."""
    fed = setup.fed
    status = "failed"
    try:
        _go_on(setup, store, done, places)
        seconds = time.perf_counter() - begin
        for line in _opening(setup, seconds, terminal_width()):
            say(line)
        _rounds(setup, state, store, done, say)
        status = "finished" if store.rounds == fed.rounds else "stopped"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except (Stopped, LostRank, DiskError) as error:
        status = "interrupted" if isinstance(error, Stopped) else status
        raise type(error)(f"{error} after round {store.rounds} of {fed.rounds}; fedmpi train --resume "
                          f"{paths.typed(store.path)} goes on") from None
    finally:
        ignored = contextlib.suppress(DiskError) if status == "failed" else contextlib.nullcontext()
        # A run file that is not closed would look as if it ran.
        with fed.transport.stop.unbroken(), ignored:
            store.update({"status": status, "ended": provenance.now()})
    _tell_end(store, say)


def _go_on(setup, store, done, places):
    """Write into the run file that it goes on after round ``done``."""
    recorded = store.run().attrs["options"]
    store.add_session(provenance.session(setup, places, recorded["rounds"], done))
    # A run that is killed between these has lost nothing, or goes on from a round that is the same by
    # either number of rounds.
    store.update({"status": "running"})
    store.truncate(done)
    store.update({"options": recorded | {"rounds": setup.fed.rounds}})


def _rounds(setup, state, store, done, say):
    from fedmpi.read import report
    from fedmpi.server import loop
    options, fed = setup.options, setup.fed
    last = min(options["until"] or fed.rounds, fed.rounds)
    begin, width = time.perf_counter(), terminal_width()

    def on_round(row):
        each = (time.perf_counter() - begin) / (row["round"] - done)
        left = each * (last - row["round"])
        say(report.round_line(row, fed.rounds, left, width, fed.objective.headline))

    loop.simulate(fed, state, store, done + 1, last, save_every=options["save_every"],
                  keep=options["keep"], on_round=on_round)


def _tell_end(store, say):
    """The summary and the picture of a run that has ended well."""
    from fedmpi.read import report
    run, width = store.run(), terminal_width()
    store.update({"judged": report.plain(report.judged(run))})
    try:
        store.pack()
    except DiskError as error:
        # It is whole all the same.
        say(f"warning: the run file stays as large as it was while it grew: {error}")
    drawn = report.picture(run, min(width, WIDEST))
    say(f"\n{report.summary(run, width)}\n\n{drawn}\n\nrun file: {paths.near(store.path)}")
