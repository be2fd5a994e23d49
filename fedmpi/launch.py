"""One training run, on as many ranks as the launcher started."""

import datetime
import os
import signal
import subprocess
import sys
import time
import traceback
from importlib.metadata import version

from fedmpi import __version__
from fedmpi.errors import CheckpointError, FedError, UserError, WorkerError

LAUNCHED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK")
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
FREE = {"data_dir", "out", "save_every", "keep", "until", "device"}   # options that do not change the result


def rank_and_size():
    """``(rank, size)`` as the launcher's environment tells, before MPI is touched; size 0 where it does not say."""
    rank = next((int(os.environ[name]) for name in LAUNCHED if name in os.environ), None)
    if rank is None:
        return 0, 1
    return rank, next((int(os.environ[name]) for name in SIZES if name in os.environ), 0)


def train(options, resume, say):
    """Play the run that ``options`` (or the run file ``resume`` and changed options) describe; returns the exit code.

    ``say(line)`` shows progress; only rank 0 calls it. On other ranks this serves until rank 0 says stop.
    """
    return on_ranks(lambda connect: _serve_run(options, resume, say, connect), lambda: worker(options["device"]), say)


def on_ranks(play, make_worker, say):
    """``play(connect)`` on rank 0, where ``connect()`` returns the transport to the workers that every other rank makes
    and serves with; in one process the transport to a worker of its own. Returns the exit code."""
    os.environ["OMP_NUM_THREADS"] = "1"                    # one thread a rank, set before torch starts its pool
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    rank, size = rank_and_size()
    if size == 1:
        return _as_server(play, lambda: _alone(make_worker), say, None)
    from fedmpi.transport import mpi
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_IGN)       # Ctrl-C is rank 0's to answer; it ends the others
        return mpi.serve(__version__, make_worker)
    say(f"starting {size or 'several'} ranks; each imports torch, which takes about 2 s of processor time a rank")
    return _as_server(play, lambda: mpi.Mpi(__version__, _arrivals(say)), say, mpi)


def _alone(make_worker):
    from fedmpi.transport.local import Local
    return Local(make_worker())


def worker(device):
    """This rank's ``Worker``, on one thread."""
    import torch

    from fedmpi.build import worker_parts
    from fedmpi.client import Worker
    torch.set_num_threads(1)
    return Worker(worker_parts, lambda local_rank: pick_device(device, local_rank))


def pick_device(name, local_rank):
    """The rank's device: ``auto`` is a GPU where there is one, node-local ranks dealt out over the visible ones."""
    import torch
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU on this rank; use --device cpu or check CUDA_VISIBLE_DEVICES")
    torch.use_deterministic_algorithms(True)
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _as_server(play, connect, say, mpi):
    """Rank 0's part: whatever fails ends all ranks, and is told once."""
    transport = []                                         # filled as soon as workers listen

    def connected():
        transport.append(connect())
        return transport[0]

    try:
        play(connected)
        for each in transport:
            each.close()
        return 0
    except KeyboardInterrupt:
        say("interrupted; --resume goes on after the last checkpoint")
        return _end(mpi, transport, 130, started=True)
    except (UserError, CheckpointError) as error:
        say(f"error: {error}")
        return _end(mpi, transport, 2, started=False)
    except WorkerError as error:
        say(f"error: {error.trace}" if error.user else f"error on rank {error.rank}:\n{error.trace}")
        return _end(mpi, transport, 2 if error.user else 1, started=True)
    except FedError as error:
        say(f"error: {error}")
        return _end(mpi, transport, 1, started=True)
    except Exception:
        say(traceback.format_exc())
        return _end(mpi, transport, 1, started=True)


def _end(mpi, transport, code, started):
    """Let waiting workers go with ``code``; abort where they may be at work or not listening yet."""
    if mpi is not None and (started or not transport):
        mpi.abort(code)
    for each in transport:
        each.close(code)
    return code


def _serve_run(options, resume, say, connect):
    begin = time.perf_counter()
    import torch

    from fedmpi import assemble, server
    torch.set_num_threads(1)
    options, store = _opened(options, resume)
    device = pick_device(options["device"], 0)
    data = assemble.federation(options)
    transport = connect()
    fed, x = assemble.server_parts(options, data, transport, device)
    assemble.check(options, data, fed)
    transport.share(assemble.shared_arrays(data))
    if store is None:
        store = _create(options, data, fed, transport)
        state, done = server.start(fed, x), 0
        store.save(state, 0)
    else:
        state, done = _restored(store, data, fed, say)
    store.add_session(_session(transport))
    store.update({"status": "running"})
    transport.publish(*assemble.setup_message(data, fed, options, state))
    say(_opening(options, fed, data, transport, time.perf_counter() - begin))
    _play(fed, state, store, done, options, say)


def _opened(options, resume):
    """``(options, store)``: of a new run, or of the one to resume with the options recorded in it."""
    from fedmpi import assemble
    from fedmpi.store import RunFile, read_run
    if resume is None:
        return assemble.with_usual_parts(options), None
    recorded = read_run(resume).attrs["options"]
    named = {key: value for key, value in options.items() if value is not None}
    clashes = [f"--{key.replace('_', '-')} {value} (the run has {recorded[key]})" for key, value in named.items()
               if key not in FREE and value != recorded[key]]
    if clashes:
        raise UserError(f"cannot resume {resume} with changed {', '.join(clashes)}: that would be another run")
    return recorded | {"until": 0} | {key: named[key] for key in FREE if key in named}, RunFile(resume)


def _create(options, data, fed, transport):
    from fedmpi import assemble, record
    from fedmpi.store import RunFile
    layout = fed.layout
    attrs = {
        "options": options, "command": " ".join(sys.argv), "created": _now(), "status": "running",
        "seed": options["seed"], "data_digest": data.digest, "layout_digest": layout.digest,
        "weights": layout.num_parameters, "prunable": layout.num_weights,
        "layers": [[slot.name, list(slot.shape), use] for slot, use in zip(layout.weights, fed.uses)],
        "versions": {name: version(name) for name in ("torch", "numpy", "h5py")} | transport.versions
        | {"fedmpi": __version__, "python": sys.version.split()[0]},
        "git_commit": _git_commit(), "hosts": sorted(set(transport.hosts)), "ranks": transport.size,
    }
    if os.path.dirname(options["out"]) == "runs":
        os.makedirs("runs", exist_ok=True)
    return RunFile.create(options["out"], attrs, record.round_columns(fed.validate is not None, len(layout.weights)), record.CLIENT_COLUMNS,
                          assemble.population(data), (data.offsets, data.indices))


def _restored(store, data, fed, say):
    """``(state, rounds done)`` of the newest sound checkpoint; the run file forgets what lies beyond it."""
    attrs = store.run().attrs
    if attrs["data_digest"] != data.digest:
        raise UserError(f"{store.path} was trained on other data than this --data-dir holds (digest "
                        f"{attrs['data_digest'][:12]}, got {data.digest[:12]})")
    if attrs["layout_digest"] != fed.layout.digest:
        raise UserError(f"{store.path} holds a model of other shapes; was the model's code changed?")
    state, done = store.load(warn=lambda text: say(f"warning: {text}"))
    if store.rounds < done:
        raise CheckpointError(f"{store.path} has {store.rounds} rounds, its checkpoint {done}: the run file is damaged")
    store.truncate(done)
    return state, done


def _play(fed, state, store, done, options, say):
    from fedmpi import report, server
    last = min(options["until"] or fed.rounds, fed.rounds)
    begin, first = time.perf_counter(), done + 1

    def on_round(row):
        spent = time.perf_counter() - begin
        say(report.round_line(row, fed.rounds, spent / (row["round"] - done) * (last - row["round"])))

    try:
        server.simulate(fed, state, store, first, last, save_every=options["save_every"], keep=options["keep"],
                        on_round=on_round)
    except BaseException:
        store.update({"status": "failed", "ended": _now()})
        raise
    if last == fed.rounds:
        store.update({"status": "finished", "ended": _now()})
    run = store.run()
    say("\n" + report.summary(run) + "\n\n" + report.picture(run) + f"\n\nrun file: {os.path.relpath(store.path)}")


def _opening(options, fed, data, transport, seconds):
    workers = max(transport.size - 1, 1)
    dataset = data.dataset
    return (f"{transport.size} rank{'s' * (transport.size > 1)} ready after {seconds:.0f} s: {fed.cohort} of "
            f"{len(fed.sizes)} clients a round on {workers} worker{'s' * (workers > 1)}; {options['dataset']} "
            f"({len(data.indices)} training, {len(data.validation)} validation, {len(dataset.y_test)} test samples); "
            f"{options['model']} ({fed.layout.num_parameters:,} parameters); strategy {options['strategy']}, "
            f"pruner {options['pruner']}, contribution {options['contribution']}, codec {options['codec']}")


def _arrivals(say):
    """A callback that tells, every few seconds, how many ranks have arrived."""
    told = [time.perf_counter()]

    def arrived(ready, size):
        now = time.perf_counter()
        if now - told[0] > 5:
            told[0] = now
            say(f"{ready} of {size} ranks ready")

    return arrived


def _session(transport):
    return {"time": _now(), "ranks": transport.size, "hosts": ",".join(sorted(set(transport.hosts))),
            "git_commit": _git_commit(), "command": " ".join(sys.argv)}


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _git_commit():
    """The commit of the code that runs, empty outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False) \
        if os.path.isdir(os.path.join(os.path.dirname(here), ".git")) else None
    return found.stdout.strip() if found else ""
