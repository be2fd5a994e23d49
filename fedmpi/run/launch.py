"""One training run, on as many ranks as the launcher started."""

import contextlib
import datetime
import faulthandler
import gc
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
import warnings
from functools import partial
from importlib.metadata import version

from fedmpi import __version__
from fedmpi.core import paths
from fedmpi.transport import place
from fedmpi.core import stop as stopping
from fedmpi.core.errors import (BrokenOff, CheckpointError, DiskError, FedError, LostRank, Stopped,
                                UserError, WorkerError)
from fedmpi.run.guard import STARTING_MPI, Guard, NoGuard
from fedmpi.run.launcher import check, check_world, launcher, rank_and_size
from fedmpi.plugins.shadow import in_the_way
from fedmpi.transport import bell
from fedmpi.transport.watch import SILENCE_S, START, Limits
from fedmpi.core.wide import labelled, terminal_width, wrapped
from fedmpi.build.usual import with_usual_parts
from fedmpi.core.allocator import keep_freed_memory

# What a resumed run had decided.
AUTO = (("device", "auto"), ("server_device", "auto"), ("together", 0), ("client_test_every", 0))
MISTAKE = 2                            # exit code of a user's mistake
LIMITS = ("silence", "task_limit")     # options that say how long others are waited for
WIDEST = 100                           # columns of the picture at the end
FREE = {"data_dir", "out", "save_every", "keep", "until", "dataset"}  # changing them keeps the result, given equal data


def train(options, resume, say, tell, overwrite=False):
    """Play the run that ``options`` (or the run file ``resume`` and changed options) describe; returns the exit code.
    ``overwrite``: the run file ``out`` may replace one that has rounds.

    ``tell(line)`` shows progress, ``say(line)`` why the run does not go on; only rank 0 calls them. On other ranks this
    serves until rank 0 says stop.
    """
    limits = Limits(*(usual if options[name] is None else options[name] for name, usual in zip(LIMITS, Limits())))
    options = {key: value for key, value in options.items() if key not in LIMITS}  # no part of what is recorded
    rank, size = rank_and_size()
    if size == 1:
        for name, given, usual in zip(LIMITS, limits, Limits()):
            if given != usual:
                tell(f"warning: --{name.replace('_', '-')} {given:g} has no effect in one process: it is for other "
                    "ranks; start several, by mpirun, or leave it out")
    guard = Guard() if rank == 0 and size != 1 else NoGuard()
    if resume:
        guard.run(resume, True)
    see = partial(place.mine, gpus="cuda" in _wishes(options))
    return on_ranks(lambda connect: _serve_run(options, resume, tell, connect, guard, see, overwrite), worker, say,
                    limits, guard, see, tell)


def _wishes(options):
    """Devices that may be used: auto, or nothing yet, may become a GPU."""
    return {"cuda" if options[name] != "cpu" else "cpu" for name in ("device", "server_device")}


def on_ranks(play, make_worker, say, limits=Limits(), guard=NoGuard(), see=lambda local: {}, tell=None):
    """``play(connect)`` on rank 0, where ``connect()`` returns the transport to the workers that every other rank makes
    and serves with; in one process the transport to a worker of its own. A rank that others have waited for beyond
    ``limits`` ends the run. ``see(local)`` is what a rank tells of its place. Returns the exit code, which is play's
    where it gives one. ``tell`` takes the lines about the start, ``say`` where none is given."""
    tell = tell or say
    os.environ["OMP_NUM_THREADS"] = "1"                    # one thread a rank, set before torch starts its pool
    keep_freed_memory()
    check()
    rank, size = rank_and_size()
    if size != 1:
        bell.listen()
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_IGN)       # Ctrl-C is rank 0's to answer; it ends the others
        stopping.ignore()                                  # until this rank can pass it on
        _mpi(limits.silence_s)
        from fedmpi.transport.serve import serve
        return serve(__version__, make_worker, limits.silence_s, see)
    stop = stopping.Stop()
    with stopping.heeding(stop):
        if size == 1:
            return _as_server(play, lambda: _alone(make_worker, stop), say, None, guard, 0.0)
        guard.note(0, STARTING_MPI)
        try:
            mpi = _mpi(limits.silence_s)
        except UserError:
            guard.leave()
            raise
        if limits.silence_s and not mpi.threads():
            tell("warning: this MPI has no MPI_THREAD_MULTIPLE, so a rank that hangs will not be noticed")
        tell(f"starting {size or 'several'} ranks; each imports torch, which takes about 2 s of processor time a rank")
        patience_s = limits.silence_s or SILENCE_S
        code = _as_server(play, lambda: _connected(tell, stop, limits, guard), say, mpi, guard, patience_s)
    stopping.ignore()                                      # a signal that comes late must not spoil how MPI ends
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(limits.silence_s))                     # MPI_Finalize waits for every rank; 0: for ever
    return code


def _connected(say, stop, limits, guard):
    """The transport, once every rank is ready."""
    from fedmpi.transport.mpi import Mpi

    def tell(line):
        guard.leave()
        say(line)

    transport = Mpi(__version__, _arrivals(say), stop, limits, guard.note, tell)
    guard.watch({rank: pid for rank, (host, pid) in enumerate(zip(transport.hosts, transport.pids))
                 if host == transport.hosts[0]})
    return transport


@contextlib.contextmanager
def _limited(seconds):
    """Where the block, in C, takes longer than that, the process ends with a line that says where; 0: no limit."""
    if seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()


def _mpi(silence_s):
    """MPI as ``transport.messages`` offers it; UserError where MPI is missing or is not the one whose launcher started
    us."""
    try:
        with _limited(START * silence_s), warnings.catch_warnings():         # MPI_Init waits for every rank
            warnings.filterwarnings("ignore", "suspicious MPI")              # mpi4py's; check_world says it in full
            from fedmpi.transport import messages as mpi
    except (ImportError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"started by an MPI launcher, but mpi4py cannot load MPI: {line}") from error
    check_world(*mpi.world())
    return mpi


def _alone(make_worker, stop):
    from fedmpi.transport.local import Local
    return Local(make_worker(), stop)


def worker():
    """This rank's ``Worker``, on one thread."""
    with _uncollected():
        import torch

        from fedmpi.build.named import worker_parts
        from fedmpi.client.worker import Worker
    torch.set_num_threads(1)
    return Worker(worker_parts, pick_device)


@contextlib.contextmanager
def _uncollected():
    """Imports without looking for garbage among what they make, nearly all of which stays: a sixth of the processor
    time of importing torch. Nobody looks there later, either, hence only where the process is a rank and nothing
    else."""
    alone = rank_and_size()[1] == 1
    if not alone:
        gc.disable()
    yield
    if not alone:
        gc.freeze()
        gc.enable()


def pick_device(name, local_rank):
    """The device for ``cpu`` or ``cuda`` of rank number ``local_rank`` of its node's workers."""
    import torch
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device or --server-device cuda: torch sees no GPU on this rank; use cpu, or check "
                        "CUDA_VISIBLE_DEVICES")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")        # which the next line asks for
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False      # every value is written before it is read
    device = torch.device("cuda", place.gpu_index(local_rank, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def _as_server(play, connect, say, mpi, guard, patience_s):
    """Rank 0's part: whatever fails ends all ranks, and is told once, by the guard where this process could not."""
    transport = []                                         # filled as soon as workers listen

    def connected():
        transport.append(connect())
        return transport[0]

    try:
        code = play(connected) or 0
        for each in transport:
            each.close(code)
        guard.leave()
        return code
    except KeyboardInterrupt:
        line, code, started = "interrupted; --resume goes on after the last checkpoint", 130, True
    except Stopped as error:
        line, code = f"{error} (exit code {stopping.COME_BACK})", stopping.COME_BACK
        started = isinstance(error, BrokenOff)
    except (UserError, CheckpointError) as error:
        line, code, started = f"error: {error}{paths.perhaps_gone()}", 2, False
    except WorkerError as error:
        told = f"error on rank {error.rank}:" + (f"\n{error.trace}" if "\n" in error.trace else f" {error.trace}")
        line, code, started = f"error: {error.trace}" if error.user else told, 2 if error.user else 1, not error.user
    except FedError as error:
        line, code, started = f"error: {error}", 1, True
    except (ImportError, AttributeError) as error:
        why = in_the_way(error)
        line = f"error: {why}" if why else traceback.format_exc()
        code, started = 2 if why else 1, True
    except Exception:
        line, code, started = traceback.format_exc(), 1, True
    say(line)
    guard.leave()
    return _end(mpi, transport, code, started, patience_s)


def _end(mpi, transport, code, started, patience_s):
    """Let waiting workers go with ``code``; abort where they may be at work, or do not go within ``patience_s``. After
    a user's mistake nobody is aborted who can be let go: a launcher would add lines of its own to ours."""
    mistake = code == MISTAKE and not started
    if mpi is None:
        for each in transport:
            each.close(code)
        return code
    if started or not transport:
        if not mistake or not mpi.dismiss(code, patience_s):
            mpi.abort(code)
        return code
    try:
        transport[0].close(code, patience_s)
    except (BrokenOff, LostRank):                          # a client's task that takes too long
        mpi.abort(code)
    return code


def _serve_run(options, resume, say, connect, guard, see, overwrite):
    """What can be refused is refused before the other ranks are waited for."""
    begin = time.perf_counter()
    with _uncollected():
        import torch

        from fedmpi.build import assemble
        from fedmpi.build.rehearsal import rehearse
        from fedmpi.server.loop import start
        from fedmpi.store import RunFile, check_folder, check_target
    torch.set_num_threads(1)
    local = 0 if rank_and_size()[1] == 1 else place.SERVER
    own = see(local)
    options = _recorded(options, resume, say) if resume else with_usual_parts(on_device(options))
    common = _common_round(resume, options) if resume else None
    options, data = assemble.loaded(options)
    if not options["together"]:
        options["together"] = _chosen(options, data, local, say)
    fed, x = assemble.server_parts(options, data, pick_device(options["server_device"], local))
    if fed.own_tests is not None:
        options["client_test_every"] = fed.own_tests.every
    assemble.check(options, data, fed, x)
    rehearse(options, data, fed, x)
    if resume:
        check_folder(resume)
        store = RunFile(resume)
        state, done = _restored(store, data, fed, x, say, common)
    else:
        _make_runs(options["out"])
        check_target(options["out"], overwrite)
        state, done = start(fed, x), 0
    # A refusal is one line, so all that is told comes after the last thing that may be refused here.
    for line in assemble.data_lines(options, data):
        for part in wrapped(line, terminal_width(), "    "):
            say(part)
    for line in assemble.warnings(options, data, fed):
        say(f"warning: {line}")
    guard.run(resume or options["out"], bool(resume))
    transport = connect()
    goes_on = f"fedmpi train --resume {paths.typed(resume or options['out'])} goes on"
    places = placed(own, transport.places, options)
    for line in place.lines(places):
        for part in wrapped(line, terminal_width(), "    "):
            say(part)
    for line in [*place.warnings(places), *assemble.fits(options, data, fed, places)]:
        say(f"warning: {line}")
    transport.share({"kind": "data", "goes_on": goes_on}, assemble.shared_arrays(data))
    data = assemble.without_pixels(data)
    transport.publish(*assemble.setup_message(data, fed, options, state))        # workers build, while the file is made
    if not resume:
        store = _create(options, data, fed, transport, overwrite)
        guard.run(options["out"], True)
    _play(fed._replace(transport=transport, tell=say), data, state, store, done, options, say, begin, places)


def _make_runs(out):
    """The folder ``runs``, where run files lie that nobody named."""
    if os.path.dirname(out) == "runs":
        try:
            os.makedirs("runs", exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder runs: {error.strerror}; say by --out where the run is to lie") \
                from error


def _chosen(options, data, local, say):
    """How many clients a worker trains at once, timed on the device of this rank."""
    from fedmpi.build import choose
    return choose.together(options, data, pick_device(options["device"], local), max(1, rank_and_size()[1] - 1), say)


def on_device(options):
    """The options with ``--device auto`` decided, a GPU where rank 0 sees one, and with it the server's."""
    import torch
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if options["device"] == "auto" else options["device"]
    return options | {"device": device, "server_device": device if options["server_device"] == "auto" else
                      options["server_device"]}


def placed(own, others, options):
    """``{rank: place}`` of rank 0, at ``own``, and the others, without the GPUs that these options leave alone."""
    def used(found, wanted):
        return found | {"gpu": found["gpu"] if "cuda" in wanted else None}

    alone = {options["device"]} if not others else set()
    return {0: used(own | {"node": 0}, {options["server_device"]} | alone)} | {
        rank: used(found, {options["device"]}) for rank, found in others.items()}


def _recorded(options, resume, say):
    """The options of the run to resume, with those changed that do not change its result."""
    from fedmpi.store import read_run
    attrs = read_run(resume).attrs
    recorded = attrs["options"]
    lacking = sorted(options.keys() - recorded.keys())
    if lacking:
        raise UserError(f"{resume} was written by an older fedmpi, without {', '.join(lacking)}: it can be shown, not "
                        "resumed")
    unknown = sorted(recorded.keys() - options.keys())
    if unknown:
        raise UserError(f"{resume} was written by another fedmpi, whose {', '.join(unknown)} this one does not know: "
                        "resume it with that one")
    named = {key: value for key, value in options.items() if value is not None and (key, value) not in AUTO}
    clashes = [f"--{key.replace('_', '-')} {value} (the run has {recorded[key]})" for key, value in named.items()
               if key not in FREE | {"rounds"} and value != recorded[key]]
    if clashes:
        raise UserError(f"cannot resume {resume} with changed {', '.join(clashes)}: that would be another run")
    decided = recorded | {"until": 0} | {key: named[key] for key in (FREE | {"rounds"}) - {"out"} if key in named}
    _refuse_other_parts(resume, attrs, decided)
    other = [f"{name} {version(name)} (was {attrs['versions'][name]})" for name in ("torch", "numpy")
             if version(name) != attrs["versions"].get(name)]
    if other:
        say(f"warning: resuming with {', '.join(other)}: the bits may differ from a run never stopped")
    return decided


def _common_round(resume, options):
    """The checkpoint that the run file ``resume`` goes on from, where ``options`` have another number of rounds than
    it was asked for; None: the newest. UserError where that would be another run."""
    from fedmpi.build import extend
    from fedmpi.store import checkpoint_folder, checkpoints, read_run
    run = read_run(resume, {})
    old, new, played = run.attrs["options"]["rounds"], options["rounds"], len(run.ends)
    if new == old:
        return None
    if new < played:
        raise UserError(f"--rounds {new}: {resume} has {played} rounds, and none is taken back; --until N stops a run "
                        "after round N")
    saved = [t for t, _ in checkpoints(checkpoint_folder(resume)) if t <= played]
    try:
        return extend.common_round(extend.plans(options), old, new, saved) or None
    except UserError as error:
        raise UserError(f"cannot resume {resume} with --rounds {new}: {error}") from None


def _refuse_other_parts(resume, attrs, options):
    """UserError where a part of the run has other options or another source now, though its spec is
    the same; files of before these were recorded tell nothing."""
    from fedmpi.build import settings
    changed = settings.changes(attrs.get("parts", []), settings.of(options))
    if changed:
        lines = "; ".join(map(settings.told, changed))
        raise UserError(f"cannot resume {resume} with changed parts: {lines}. Put back what was, or "
                        "start another run: --like takes the other options over")


def _create(options, data, fed, transport, overwrite):
    import numpy as np

    from fedmpi.build import assemble, server_data, settings
    from fedmpi.server import record
    from fedmpi.methods.datasets.dataset import inputs_record
    from fedmpi.store import RunFile
    layout = fed.layout
    attrs = {
        "options": options, "command": shlex.join(sys.argv), "created": _now(), "status": "running",
        "seed": options["seed"], "parts": settings.of(options),
        "data_digest": data.digest, "devices_digest": fed.devices.digest,
        "layout_digest": layout.digest, "weights": layout.num_parameters, "prunable": layout.num_weights,
        "frozen": layout.num_frozen, "fixed_digest": fed.fixed.digest,
        "layers": [[slot.name, list(slot.shape), use] for slot, use in zip(layout.weights, fed.costs.uses)],
        "flops_other": {"dense": fed.costs.dense, "frozen": fed.costs.frozen},
        "statistics": [slot.name for slot in layout.buffers],
        "inputs": inputs_record(data.dataset) | {
            "test_labels": np.bincount(data.dataset.y_test, minlength=data.dataset.classes)},
        "server_data": server_data.recorded(fed.strategy, data.dataset, data.server),
        "versions": _versions(transport), "git_commit": _git_commit(), "hosts": sorted(set(transport.hosts)),
        "ranks": transport.size, "launcher": launcher(), "estimators": {
            name: {"spec": spec, "sees": part.sees, "cumulative": part.cumulative} for spec, (name, part) in
            zip([options["contribution"], *options["observe"]], fed.contributions.items())},
    }
    classes = list(data.dataset.names) or range(data.dataset.classes)
    coordinates = {"layer": [slot.name for slot in layout.weights], "class": classes}
    participations = fed.rounds * (options["cohort"] or options["clients"])
    partition, tested = (data.offsets, data.indices), 0
    if fed.own_tests is not None:
        partition += (data.held_out.offsets, data.held_out.indices)
        tested = len(fed.own_tests.clients) * math.ceil(fed.rounds / fed.own_tests.every)
    return RunFile.create(options["out"], attrs, *record.columns(fed), assemble.population(data, options), partition,
                          record.own_columns(fed), coordinates=coordinates,
                          expected=(fed.rounds, participations, tested), overwrite=overwrite)


def _restored(store, data, fed, x, say, common=None):
    """``(state, rounds done)`` of the newest sound checkpoint, or that of round ``common``, of the beginning where
    there is none. Rounds beyond it will be played again, to the same bits where their number stays."""
    from fedmpi.server import record
    from fedmpi.server.loop import loaded_state, start
    attrs = store.run().attrs
    if attrs["data_digest"] != data.digest:
        raise UserError(f"{store.path} was trained on other data than these (digest {attrs['data_digest'][:12]}, got "
                        f"{data.digest[:12]}); say where the same data lie with --data-dir or --dataset")
    _check_inputs(store.path, attrs.get("inputs"), data)
    if attrs["devices_digest"] != fed.devices.digest:
        raise UserError(f"{store.path} was trained with another trace of devices than the file that --devices names "
                        "now")
    if attrs["layout_digest"] != fed.layout.digest:
        raise UserError(f"{store.path} holds a model of other shapes; was the model's code changed?")
    if attrs.get("fixed_digest", fed.fixed.digest) != fed.fixed.digest:
        raise UserError(f"{store.path} was trained with other frozen parameters or constants than those that the model "
                        "has here; was its code or the file that it reads changed?")
    for table, wanted in zip(("rounds", "clients"), record.columns(fed)):
        if differ := sorted({column.name for column in wanted} ^ {column.name for column in store.columns[table]}):
            raise UserError(f"{store.path} was written by another fedmpi, which differs in the columns "
                            f"{', '.join(differ)} of /{table}: it can be shown, not resumed")
    try:
        state, done = store.load(warn=lambda text: say(f"warning: {text}"), round=common)
        state = loaded_state(state)
    except CheckpointError as error:
        if attrs["status"] == "finished":                  # the rows that it would begin with are all there is
            raise UserError(f"{store.path} is finished: there is nothing to go on with ({error})") from error
        say(f"warning: {error}; starting again from round 1")
        state, done = start(fed, x), 0
    if lacking := _lacking(state, start(fed, x)):
        raise UserError(f"the checkpoint of {store.path} was written by another fedmpi, without {', '.join(lacking)}: "
                        "resume it with that one, or start the run anew")
    if store.rounds < done:
        raise CheckpointError(f"{store.path} has {store.rounds} rounds, its checkpoint {done}: the run file is damaged")
    if common is not None and done < store.rounds:
        say(f"round {done + 1} is played again: with {fed.rounds} rounds it is another one")
    return state, done


def _check_inputs(path, recorded, data):
    """UserError where samples would reach the model in another way than they did before."""
    from fedmpi.methods.datasets.dataset import inputs_record
    now = inputs_record(data.dataset)
    before = now | (recorded or {})                        # of older files it is not known
    changed = [name for name in ("dtype", "mean", "std") if now[name] != before[name]]
    if changed:
        texts = ", ".join(f"{name} {now[name]} (was {before[name]})" for name in changed)
        raise UserError(f"{path} was trained on inputs of another {texts}: leave the options of "
                        "--dataset as they were")


def _lacking(state, fresh):
    """What the parts of a run's state lack that they start with."""
    return [f"{part}/{key}" for part in ("strategy", "pruner", "weighting")
            for key in fresh[part] if key not in state[part]]


def _play(fed, data, state, store, done, options, say, begin, places):
    """The rounds that remain, and what is told of them; whatever happens, the run file says how it ended."""
    from fedmpi.read import report
    from fedmpi.server import loop
    from fedmpi.store import this_process
    last = min(options["until"] or fed.rounds, fed.rounds)
    session = {"time": _now(), "ranks": fed.transport.size, "launcher": launcher(),
               "hosts": ",".join(sorted(set(fed.transport.hosts))), "git_commit": _git_commit(),
               "command": shlex.join(sys.argv), "versions": json.dumps(_versions(fed.transport)),
               "places": place.recorded(places), "process": this_process(), "done": done}
    recorded = store.run().attrs["options"]
    session |= {"rounds": fed.rounds, "rounds_before": recorded["rounds"]}
    status = "failed"
    try:
        store.add_session(session)
        # A run that is killed between these has lost nothing, or goes on from a round that is the same by
        # either number of rounds.
        store.update({"status": "running"})
        store.truncate(done)
        store.update({"options": recorded | {"rounds": fed.rounds}})
        now = time.perf_counter()
        width = terminal_width()
        for line in _opening(options, fed, data, now - begin, width):
            say(line)

        def on_round(row):
            each = (time.perf_counter() - now) / (row["round"] - done)
            say(report.round_line(row, fed.rounds, each * (last - row["round"]), width))

        loop.simulate(fed, state, store, done + 1, last, save_every=options["save_every"], keep=options["keep"],
                        on_round=on_round)
        status = "finished" if store.rounds == fed.rounds else "stopped"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except (Stopped, LostRank, DiskError) as error:
        status = "interrupted" if isinstance(error, Stopped) else status
        raise type(error)(f"{error} after round {store.rounds} of {fed.rounds}; fedmpi train --resume "
                          f"{paths.typed(store.path)} goes on") from None
    finally:
        with fed.transport.stop.unbroken(), (             # a run file that is not closed would look as if it ran
                contextlib.suppress(DiskError) if status == "failed" else contextlib.nullcontext()):
            store.update({"status": status, "ended": _now()})
    run = store.run()
    store.update({"judged": report.plain(report.judged(run))})
    try:
        store.pack()
    except DiskError as error:                             # it is whole all the same
        say(f"warning: the run file stays as large as it was while it grew: {error}")
    drawn = report.picture(run, min(width, WIDEST))
    say(f"\n{report.summary(run, width)}\n\n{drawn}\n\nrun file: {paths.near(store.path)}")


def _opening(options, fed, data, seconds, width):
    """Lines, at most ``width`` wide, on what is about to be played."""
    from fedmpi.build import assemble
    from fedmpi.core.layout import described
    workers = max(fed.transport.size - 1, 1)
    dataset, library = data.dataset, fed.transport.versions.get("mpi")
    by = f" (started by {launcher()}; {_short(library)})" if library else ""
    parts = ("strategy", "pruner", "contribution", "weighting", "codec")
    ready = f"{_count(fed.transport.size, 'rank')} ready after {seconds:.0f} s{by}"
    own = f"{len(data.server)} of the server's own, " if len(data.server) else ""
    samples = (f"{len(data.indices)} training, {len(data.validation)} validation, {own}{len(dataset.y_test)} test "
               "samples")
    if fed.own_tests is not None:
        every = "every round" if fed.own_tests.every == 1 else f"every {fed.own_tests.every} rounds"
        samples += f"; {len(data.held_out.indices)} in clients' own test parts, evaluated {every}"
    rows = [("clients", f"{fed.cohort} of {len(fed.sizes)} a round on {_count(workers, 'worker')}"),
            ("data", f"{options['dataset']}: {samples}"),
            ("dealt out", assemble.dealt(options, data)),
            ("model", f"{options['model']}, {described(fed.layout)}"),
            ("method", ", ".join(f"{name} {options[name]}" for name in parts))]
    return [*wrapped(ready, width, "    "), *labelled(rows, width)]


def _count(number, noun):
    return f"{number} {noun}" + "s" * (number != 1)


def _short(library):
    """An MPI library's name and version, of the first line of what it says of itself."""
    return " ".join(library.partition(",")[0].replace("Version:", "").split())


def _arrivals(say):
    """A callback that tells, every few seconds, how many ranks have arrived, and who is missing."""
    told = [time.perf_counter()]

    def arrived(missing, size):
        now = time.perf_counter()
        if now - told[0] > 5:
            told[0] = now
            who = ", ".join(map(str, sorted(missing)))
            say(f"{size - len(missing)} of {size} ranks ready" + f"; not yet: rank {who}" * (len(missing) < 10))

    return arrived


def _versions(transport):
    """What the bits and the file depend on, by name."""
    return {name: version(name) for name in ("torch", "numpy", "h5py")} | transport.versions | {
        "fedmpi": __version__, "python": sys.version.split()[0]}


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _git_commit():
    """The commit of the code that runs, empty outside a checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False) \
        if os.path.isdir(os.path.join(os.path.dirname(here), ".git")) else None
    return found.stdout.strip() if found else ""
