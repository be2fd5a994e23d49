"""A run that goes on: which options may change, what must not, and the state that it goes on from."""

from importlib.metadata import version

from fedmpi.core.errors import CheckpointError, UserError

# What a resumed run had decided.
AUTO = (("device", "auto"), ("server_device", "auto"), ("together", 0), ("client_test_every", 0))
# Changing these keeps the result, given equal data.
FREE = {"data_dir", "out", "save_every", "keep", "until", "dataset"}
CHANGEABLE = FREE | {"rounds"}


# ---------------------------------------------------------------- options


def recorded(options, resume, say):
    """The options of the run to resume, with those changed that do not change its result."""
    from fedmpi.store import read_run
    attrs = read_run(resume).attrs
    before = attrs["options"]
    _check_names(resume, before, options)
    named = {
        key: value for key, value in options.items()
        if value is not None and (key, value) not in AUTO
    }
    clashes = [f"--{key.replace('_', '-')} {value} (the run has {before[key]})"
               for key, value in named.items() if key not in CHANGEABLE and value != before[key]]
    if clashes:
        raise UserError(f"cannot resume {resume} with changed {', '.join(clashes)}: that would be another run")
    changed = {key: named[key] for key in CHANGEABLE - {"out"} if key in named}
    after = before | {"until": 0} | changed
    _refuse_other_parts(resume, attrs, after)
    _tell_versions(attrs, say)
    return after


def _check_names(resume, before, options):
    """UserError where the run has other options than this fedmpi knows."""
    lacking = sorted(options.keys() - before.keys())
    if lacking:
        raise UserError(f"{resume} was written by an older fedmpi, without {', '.join(lacking)}: it can be shown, not "
                        "resumed")
    unknown = sorted(before.keys() - options.keys())
    if unknown:
        raise UserError(f"{resume} was written by another fedmpi, whose {', '.join(unknown)} this one does not know: "
                        "resume it with that one")


def _refuse_other_parts(resume, attrs, options):
    """UserError where a part of the run has other options or another source now, though its spec is
    the same; files of before these were recorded tell nothing."""
    from fedmpi.build import settings
    changed = settings.changes(attrs.get("parts", []), settings.of(options))
    if changed:
        lines = "; ".join(map(settings.told, changed))
        raise UserError(f"cannot resume {resume} with changed parts: {lines}. Put back what was, or "
                        "start another run: --like takes the other options over")


def _tell_versions(attrs, say):
    """A warning where the libraries that decide the bits are others than they were."""
    other = []
    for name in ("torch", "numpy"):
        was, now = attrs["versions"].get(name), version(name)
        if was != now:
            other.append(f"{name} {now} (was {was})")
    if other:
        say(f"warning: resuming with {', '.join(other)}: the bits may differ from a run never stopped")


def common_round(resume, options, parts):
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
        return extend.common_round(extend.plans(options, parts), old, new, saved) or None
    except UserError as error:
        raise UserError(f"cannot resume {resume} with --rounds {new}: {error}") from None


# ---------------------------------------------------------------- state


def restored(store, setup, say, common=None):
    """``(state, rounds done)`` of the newest sound checkpoint, or that of round ``common``, of the beginning where
    there is none. Rounds beyond it will be played again, to the same bits where their number stays."""
    from fedmpi.server.loop import loaded_state, start
    fed, attrs = setup.fed, store.run().attrs
    _check_same(store, attrs, setup)
    fresh = start(fed, setup.network.first)
    try:
        state, done = store.load(warn=lambda text: say(f"warning: {text}"), round=common)
        state = loaded_state(state)
    except CheckpointError as error:
        if attrs["status"] == "finished":
            # The rows that it would begin with are all there is.
            raise UserError(f"{store.path} is finished: there is nothing to go on with ({error})") from error
        say(f"warning: {error}; starting again from round 1")
        state, done = fresh, 0
    lacking = _lacking(state, fresh)
    if lacking:
        raise UserError(f"the checkpoint of {store.path} was written by another fedmpi, without {', '.join(lacking)}: "
                        "resume it with that one, or start the run anew")
    if store.rounds < done:
        raise CheckpointError(f"{store.path} has {store.rounds} rounds, its checkpoint {done}: the run file is damaged")
    if common is not None and done < store.rounds:
        say(f"round {done + 1} is played again: with {fed.rounds} rounds it is another one")
    return state, done


def _check_same(store, attrs, setup):
    """UserError where the data, the devices or the model are not those of the run, or its file has other columns."""
    data, fed, path = setup.data, setup.fed, store.path
    if attrs["data_digest"] != data.digest:
        raise UserError(f"{path} was trained on other data than these (digest {attrs['data_digest'][:12]}, got "
                        f"{data.digest[:12]}); say where the same data lie with --data-dir or --dataset")
    _check_inputs(path, attrs.get("inputs"), data)
    if attrs["devices_digest"] != fed.devices.digest:
        raise UserError(f"{path} was trained with another trace of devices than the file that --devices names now")
    if attrs["layout_digest"] != fed.layout.digest:
        raise UserError(f"{path} holds a model of other shapes; was the model's code changed?")
    if attrs.get("fixed_digest", fed.fixed.digest) != fed.fixed.digest:
        raise UserError(f"{path} was trained with other frozen parameters or constants than those that the model has "
                        "here; was its code or the file that it reads changed?")
    _check_columns(store, fed)


def _check_columns(store, fed):
    from fedmpi.server import record
    for table, wanted in zip(("rounds", "clients"), record.columns(fed)):
        names = {column.name for column in wanted}
        differ = sorted(names ^ {column.name for column in store.columns[table]})
        if differ:
            raise UserError(f"{store.path} was written by another fedmpi, which differs in the columns "
                            f"{', '.join(differ)} of /{table}: it can be shown, not resumed")


def _check_inputs(path, before, data):
    """UserError where samples would reach the model in another way than they did before."""
    from fedmpi.methods.datasets.dataset import inputs_record
    now = inputs_record(data.dataset)
    # Older files do not record all of it.
    before = now | (before or {})
    changed = [name for name in ("dtype", "mean", "std") if now[name] != before[name]]
    if changed:
        texts = ", ".join(f"{name} {now[name]} (was {before[name]})" for name in changed)
        raise UserError(f"{path} was trained on inputs of another {texts}: leave the options of "
                        "--dataset as they were")


def _lacking(state, fresh):
    """What the parts of a run's state lack that they start with."""
    parts = ("strategy", "pruner", "weighting")
    return [f"{part}/{key}" for part in parts for key in fresh[part] if key not in state[part]]
