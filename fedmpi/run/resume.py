"""A resumed run: its options, its state, and checks against any change of the run."""

from importlib.metadata import version

from fedmpi.core.errors import CheckpointError, UserError
from fedmpi.core.words import plural

# Options that the first session of the run has decided: these values do not change them.
AUTO = (("device", "auto"), ("server_device", "auto"), ("together", 0), ("client_test_every", 0),
        ("kernel", "auto"))
# Options that may change: all but the number of rounds keep the result, given equal data.
FREE = {"data_dir", "out", "save_every", "keep", "until", "dataset", "init_from"}
CHANGEABLE = FREE | {"rounds"}


# ---------------------------------------------------------------- options


def recorded(options, resume, say):
    """The options of the run file ``resume``, with the user's changes. UserError if they would make
    another run."""
    from fedmpi.store import read_run
    attrs = read_run(resume).attrs
    before = attrs["options"]
    _check_names(resume, before, options)
    named = {
        key: value for key, value in options.items()
        if value is not None and (key, value) not in AUTO
    }
    _refuse_changes(resume, before, named)
    changed = {key: named[key] for key in CHANGEABLE - {"out"} if key in named}
    after = before | {"until": 0} | changed
    _refuse_other_parts(resume, attrs, after)
    _tell_versions(attrs, say)
    return after


def _refuse_changes(resume, before, named):
    """UserError if the user names another value of an option that must not change."""
    clashes = []
    for key, value in named.items():
        if key not in CHANGEABLE and value != before[key]:
            option = f"--{key.replace('_', '-')}"
            clashes.append(f"{option} {value} (the run has {before[key]})")
    if clashes:
        raise UserError(f"cannot resume {resume} with changed {', '.join(clashes)}: "
                        "that would be another run")


def _check_names(resume, before, options):
    """UserError if the run was recorded with other names of options than this fedmpi has."""
    lacking = ", ".join(sorted(options.keys() - before.keys()))
    if lacking:
        raise UserError(f"{resume} was written by an older fedmpi, without {lacking}: "
                        "it can be shown, not resumed")
    unknown = ", ".join(sorted(before.keys() - options.keys()))
    if unknown:
        raise UserError(f"{resume} was written by another fedmpi, whose {unknown} this one does "
                        "not know: resume it with that one")


def _refuse_other_parts(resume, attrs, options):
    """UserError if a part of the same spec now has other options, or another source.

    Older run files do not record these: there the parts count as unchanged.
    """
    from fedmpi.build import settings
    changed = settings.changes(attrs.get("parts", []), settings.of(options))
    if changed:
        lines = "; ".join(map(settings.change_text, changed))
        raise UserError(f"cannot resume {resume} with changed parts: {lines}. Put back what was, "
                        "or start another run: --like takes the other options over")


def _tell_versions(attrs, say):
    """A warning if torch or numpy have another version than before: they decide the bits."""
    other = []
    for name in ("torch", "numpy"):
        was, now = attrs["versions"].get(name), version(name)
        if was != now:
            other.append(f"{name} {now} (was {was})")
    if other:
        say(f"warning: resuming with {', '.join(other)}: "
            "the bits may differ from a run never stopped")


def common_round(resume, options, parts):
    """The round of the checkpoint from which ``resume`` goes on with a new number of rounds.

    None stands for the newest checkpoint. UserError if the run with the new number would have begun
    differently.
    """
    from fedmpi.build import extend
    from fedmpi.store import checkpoint_folder, checkpoints, read_run
    run = read_run(resume, {})
    old, new = run.attrs["options"]["rounds"], options["rounds"]
    played = len(run.ends)
    if new == old:
        return None
    if new < played:
        raise UserError(f"--rounds {new}: {resume} has {plural(played, 'round')}, and none is "
                        "taken back; --until N stops a run after round N")
    saved = [t for t, _ in checkpoints(checkpoint_folder(resume)) if t <= played]
    try:
        plans = extend.plans(options, parts)
        return extend.common_round(plans, old, new, saved) or None
    except UserError as error:
        raise UserError(f"cannot resume {resume} with --rounds {new}: {error}") from None


# ---------------------------------------------------------------- state


def restored(store, setup, say, common=None):
    """``(state, rounds done)`` of the newest sound checkpoint, or of the one of round ``common``.

    Without a checkpoint the run begins again. Rounds after the checkpoint are played again: to the
    same bits, unless the number of rounds has changed.
    """
    from fedmpi.server.run_state import initial_state, loaded_state
    run, attrs = setup.run, store.run().attrs
    _check_same(store, attrs, setup)
    fresh = initial_state(run, setup.network.first)
    try:
        state, done = store.load(warn=lambda text: say(f"warning: {text}"), round=common)
        state = loaded_state(state)
    except CheckpointError as error:
        if attrs["status"] == "finished":
            # To begin again would remove the only copy of the results.
            raise UserError(f"{store.path} is finished: there is nothing to go on with "
                            f"({error})") from error
        say(f"warning: {error}; starting again from round 1")
        state, done = fresh, 0
    lacking = ", ".join(_lacking(state, fresh))
    if lacking:
        raise UserError(f"the checkpoint of {store.path} was written by another fedmpi, without "
                        f"{lacking}: resume it with that one, or start the run anew")
    if store.rounds < done:
        raise CheckpointError(f"{store.path} has {plural(store.rounds, 'round')}, its checkpoint "
                              f"{done}: the run file is damaged")
    if common is not None and done < store.rounds:
        rounds = plural(run.rounds, "round")
        say(f"round {done + 1} is played again: with {rounds} it is another one")
    return state, done


def _check_same(store, attrs, setup):
    """UserError if data, devices, model or the file's columns are not those of the run."""
    data, run, path = setup.data, setup.run, store.path
    _check_data(path, attrs["data_digest"], data.digest)
    _check_inputs(path, attrs.get("inputs"), data)
    if attrs["devices_digest"] != run.devices.digest:
        raise UserError(f"{path} was trained with another trace of devices than the file that "
                        "--devices names now")
    if attrs.get("init_digest", "") != setup.network.init_digest:
        raise UserError(f"{path} began from another file than {setup.options['init_from']} is now; "
                        "say by --init-from where the same one lies")
    if attrs["layout_digest"] != run.layout.digest:
        raise UserError(f"{path} holds a model of other shapes; was the model's code changed?")
    if attrs.get("fixed_digest", run.fixed.digest) != run.fixed.digest:
        raise UserError(f"{path} was trained with other frozen parameters or constants than those "
                        "that the model has here; was its code or the file that it reads changed?")
    _check_columns(store, run)


def _check_data(path, before, now):
    """UserError if the digest of the data has changed."""
    if before != now:
        raise UserError(f"{path} was trained on other data than these (digest {before[:12]}, got "
                        f"{now[:12]}); say where the same data lie with --data-dir or --dataset")


def _check_columns(store, run):
    """UserError if this fedmpi records other columns than the run file has."""
    from fedmpi.server import record
    for table, columns in zip(("rounds", "clients"), record.columns(run)):
        wanted = {column.name for column in columns}
        present = {column.name for column in store.columns[table]}
        differ = ", ".join(sorted(wanted ^ present))
        if differ:
            raise UserError(f"{store.path} was written by another fedmpi, which differs in the "
                            f"columns {differ} of /{table}: it can be shown, not resumed")


def _check_inputs(path, before, data):
    """UserError if samples would reach the model in another way than before."""
    from fedmpi.methods.datasets.dataset import inputs_record
    now = inputs_record(data.dataset)
    # Older files record only some of these.
    before = now | (before or {})
    changed = [name for name in ("dtype", "mean", "std") if now[name] != before[name]]
    if changed:
        differences = [f"{name} {now[name]} (was {before[name]})" for name in changed]
        raise UserError(f"{path} was trained on inputs of another {', '.join(differences)}: "
                        "leave the options of --dataset as they were")


def _lacking(state, fresh):
    """Names of the entries of a ``fresh`` state that the loaded ``state`` lacks."""
    names = []
    for part in ("strategy", "pruner", "weighting"):
        names += [f"{part}/{key}" for key in fresh[part] if key not in state[part]]
    return names
