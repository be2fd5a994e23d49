"""The options of a run on the command line, in a TOML file, or like those of another run; what commands share of it."""

import math
import os
import sys
import time

import click

from fedmpi import catalog
from fedmpi.commands import completion
from fedmpi.commands.say import say
from fedmpi.errors import UserError
from fedmpi.options import DEFAULTS, PARTS, SEVERAL


def part(kind, text):
    """A click option for one of the catalogue's kinds."""
    return click.option(f"--{kind}", metavar="NAME[:OPTION=VALUE,...]", shell_complete=completion.parts(kind),
                        help=f"{text}; see fedmpi list {kind}.  "
                        f"[default: {PARTS[kind] or 'as the strategy is usually played'}]")


def several(name, text):
    """A click option that may be given several times, each a part of the kind."""
    return click.option(f"--{name}", multiple=True, metavar="NAME[:OPTION=VALUE,...]",
                        shell_complete=completion.parts(SEVERAL[name]),
                        help=f"{text}; see fedmpi list {SEVERAL[name]}. May be given several times.")


def data_options(command):
    """The options that say which data there are and who holds them, on ``command``."""
    for option in reversed((
            part("dataset", "The data set, or the path of your own HDF5 file"),
            click.option("--data-dir", help="Where data sets lie; fedmpi fetch puts them there.  [default: data]"),
            click.option("--train-samples", type=click.IntRange(0), help="Use that many training samples, drawn by the "
                         "seed; 0: all.  [default: 0]"),
            click.option("--validation", type=click.FloatRange(0, 0.5),
                         help="Share of the training data that the server "
                         "keeps for all that selects.  [default: 0.1]"),
            click.option("--clients", type=click.IntRange(1), help="Clients in all.  [default: 32]"),
            part("partition", "Who holds which samples"),
            part("noise", "Which labels are wrong"),
            part("features", "How inputs differ between clients"),
            several("fault", "Clients that duplicate, poison or do not train"),
            click.option("--seed", type=click.IntRange(0), help="Everything random follows from it.  [default: 0]"))):
        command = option(command)
    return command


def read_config(context, parameter, path):
    """``--config FILE.toml``: the file's keys become defaults, which flags override."""
    if path:
        where = f"--config {path}"
        found = toml(path, where)
        check_names(found, DEFAULTS, where)
        _check_types(context, found, where)
        context.meta["config"] = found | {key: [found[key]] for key in SEVERAL if isinstance(found.get(key), str)}
        _set_defaults(context)


def read_like(context, parameter, path):
    """``--like RUN.h5``: the options of that run become defaults, which those of --config and flags override."""
    if path:
        from fedmpi.store import read_run
        recorded = read_run(path).attrs["options"]
        where = f"--like {path}"
        if unknown := sorted(set(recorded) - set(DEFAULTS)):
            raise UserError(f"{where}: it was written by another version of fedmpi, whose {', '.join(unknown)} this "
                            "one does not know")
        found = {key: value for key, value in recorded.items() if value is not None and key not in ("out", "until")}
        _check_types(context, found, where)
        context.meta["like"] = path, found
        _set_defaults(context)


def _set_defaults(context):
    """Defaults of --like and, before them, of --config, whichever came first."""
    context.default_map = context.meta.get("like", (None, {}))[1] | context.meta.get("config", {})


def _check_types(context, found, where):
    """UserError for values that no flag could have, by type (TOML tells 2 from 2.0 and "2"), then as a flag would."""
    params = {param.name: param for param in context.command.params}
    for key, value in found.items():
        usual, items = DEFAULTS[key], value if key in SEVERAL and isinstance(value, list) else [value]
        kinds = {int: (int,), float: (int, float)}.get(type(usual), (str,))
        name = {int: "a whole number", float: "a number"}.get(
            type(usual), "text" + " or a list of texts" * (key in SEVERAL))
        if any(isinstance(item, bool) or not isinstance(item, kinds) for item in items):
            raise UserError(f"{where}: {key} must be {name}, got {value!r}")
        try:
            params[key].type_cast_value(context, items if key in SEVERAL else value)
        except click.BadParameter as error:
            raise UserError(f"{where}: {key}: {error.message}") from None


def tell_changes(context, given):
    """One line on what --like changes; a run of the same options would be the same run."""
    path, recorded = context.meta["like"]

    def text(value):
        return (", ".join(value) or "none") if isinstance(value, (list, tuple)) else value

    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    changed = [f"{key.replace('_', '-')} {text(options[key])} (was {text(value)})" for key, value in recorded.items()
               if text(options[key]) != text(value)]
    say(f"like {path}" + (f", but {'; '.join(changed)}" if changed else ", in all options: the same run again"))


def toml(path, where):
    """What the TOML file says, its keys as the options are called in code."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return underscored(tomllib.load(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{where}: {error}") from error


def underscored(found):
    twice = sorted(key for key in found if "-" in key and key.replace("-", "_") in found)
    if twice:
        raise UserError(f"{', '.join(twice)} and {twice[0].replace('-', '_')} are the same option, given twice")
    return {key.replace("-", "_"): value for key, value in found.items()}


def check_names(found, known, where):
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}")


def run_file(seed):
    """The name of a run file that nobody named."""
    return os.path.join("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}.h5")


def check_parts(given):
    """Make of the options what the run file records, and refuse what the catalogue does not know, or is no number."""
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name.replace('_', '-')} must be a finite number, got {value}")
    if 0 < (given.get("silence") or 0) < 1:
        raise UserError(f"--silence must be 0 (never) or 1 second at least, got {given['silence']:g}")
    if given["dataset"] and given["dataset"].endswith((".h5", ".hdf5")) and not given["dataset"].startswith("hdf5:"):
        given["dataset"] = f"hdf5:file={os.path.abspath(given['dataset'])}"
    for kind in PARTS:
        if given.get(kind):
            catalog.parse(catalog.KINDS[kind], given[kind])
    for name in SEVERAL.keys() & given.keys():
        given[name] = list(given[name]) or None
        for spec in given[name] or ():
            catalog.parse(catalog.KINDS[SEVERAL[name]], spec)


def as_arguments(given):
    """The options that are ``given``, as the command line of train, without the run file."""
    pairs = [(key, value) for key, values in given.items() if key != "out" and values is not None
             for value in (values if isinstance(values, (tuple, list)) else [values])]
    return [text for key, value in pairs for text in (f"--{key.replace('_', '-')}", str(value))]
