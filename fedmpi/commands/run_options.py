"""The options of a run on the command line, in a TOML file, or like those of another run."""

import os
import re
import time

import click

from fedmpi import catalog
from fedmpi.build import settings
from fedmpi.build.advice import check_keys, of_parts
from fedmpi.build.options import DEFAULTS, KIND_OF, PARTS, SEVERAL, completed
from fedmpi.commands import completion
from fedmpi.commands.runs import flag_of, present_name, toml
from fedmpi.core.errors import UserError


class Options(click.Command):
    """A command with options of a run. The error on an unknown option names the part with such an
    option, if any."""

    def parse_args(self, context, args):
        words = [_with_present_name(word) for word in args]
        try:
            return super().parse_args(context, list(words))
        except click.NoSuchOption as error:
            flags = _as_table(words)
            key = _key(error.option_name)
            kinds = [param.name for param in self.params if param.name in catalog.KINDS]
            advice = of_parts(key, flags, kinds, "--{kind} {spec}")
            if not advice:
                raise
            raise UserError(f"no such option: {error.option_name}; {advice}") from None


def _with_present_name(word):
    """The word of a command line, with the name of today if it is an option's flag."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--"):
        return word
    name = _key(flag)
    present = present_name(name)
    if present == name:
        return word
    return f"{flag_of(present)}{equals}{value}"


def _as_table(words):
    """``{option: value}`` of a command line, as a guess without knowing its options."""
    table = {}
    # The last word has no value behind it.
    for word, next_word in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if not equals:
            value = next_word
        if name.startswith("--") and value and not value.startswith("--"):
            table[_key(name)] = value
    return table


def _key(flag):
    """``local_epochs`` of ``--local-epochs``."""
    return flag.lstrip("-").replace("-", "_")


def part(kind, text, usual=None):
    """A click option for one of the catalogue's kinds; ``usual`` describes a default the table of
    parts cannot."""
    usual = usual or PARTS[kind] or "as the strategy is usually played"
    listed = KIND_OF.get(_key(kind), kind)
    return click.option(
        f"--{kind}",
        metavar="NAME[:OPTION=VALUE,...]",
        shell_complete=completion.parts(listed),
        help=f"{text}; see fedmpi list {listed}.  [default: {usual}]")


def separated(context, parameter, specs):
    """The specs of several parts. A comma begins the next part, unless another option=value of the
    last part follows.

    >>> separated(None, None, ["flip,crop:pad=4"]), separated(None, None, ["a:b=1,c=2"])
    (('flip', 'crop:pad=4'), ('a:b=1,c=2',))
    """
    parts = []
    for spec in specs:
        # A comma without option=value behind it, up to the next comma or colon.
        parts += re.split(r",(?![^:,]*=)", spec)
    return tuple(parts)


def several(name, text, callback=None):
    """A click option for several parts, each given by an option of its own."""
    kind = SEVERAL[_key(name)]
    return click.option(
        f"--{name}",
        multiple=True,
        callback=callback,
        metavar="NAME[:OPTION=VALUE,...]",
        shell_complete=completion.parts(kind),
        help=f"{text}; see fedmpi list {kind}. May be given several times.")


DATA_OPTIONS = (
    part("dataset", "The data set, or the path of your own HDF5 file"),
    click.option(
        "--data-dir",
        help="Where data sets lie; fedmpi fetch puts them there.  [default: data]"),
    click.option(
        "--train-samples", type=click.IntRange(0),
        help="Use that many training samples, drawn by the seed; 0: all.  [default: 0]"),
    click.option(
        "--validation", type=click.FloatRange(0, 0.5),
        help="Share of the training data that the server keeps for all that selects.  "
             "[default: 0.1]"),
    click.option(
        "--client-test", type=click.FloatRange(0, 0.9),
        help="Share of each client's samples that it never trains on and is tested on by itself.  "
             "[default: 0]"),
    click.option(
        "--server-data", metavar="SHARE|COUNT[:labels=L+L]",
        help="Training samples that the server works with itself, apart from validation: a share "
             "of all, or so many; of these labels alone. For strategies that ask for them.  "
             "[default: 0]"),
    click.option("--clients", type=click.IntRange(1), help="Clients in all.  [default: 32]"),
    part("partition", "Who holds which samples"),
    part("noise", "Which labels are wrong",
         f"none where --dataset is given; {PARTS['noise']} in the demonstration without"),
    part("features", "How inputs differ between clients"),
    several("fault", "Clients that duplicate, poison or do not train"),
    click.option(
        "--seed", type=click.IntRange(0),
        help="Everything random follows from it.  [default: 0]"),
)


def data_options(command):
    """The options about data and their holders, on ``command``."""
    # Click lists the option first that was added last.
    for option in reversed(DATA_OPTIONS):
        command = option(command)
    return command


def read_config(context, parameter, path):
    """``--config FILE.toml``: the file's keys become defaults; flags override them."""
    if not path:
        return
    where = f"--config {path}"
    options = toml(path, where)
    check_keys(options, DEFAULTS, where)
    _check_types(context, options, where)
    # A single part needs no list in the file.
    for key in SEVERAL:
        if isinstance(options.get(key), str):
            options[key] = [options[key]]
    # --like may still come, whose values these override.
    context.meta["config"] = options
    _set_defaults(context)


def read_like(context, parameter, path):
    """``--like RUN.h5``: the options of this run become defaults; --config and flags override
    them."""
    if not path:
        return
    from fedmpi.store import read_run
    attrs = read_run(path).attrs
    recorded = attrs["options"]
    where = f"--like {path}"
    unknown = sorted(set(recorded) - set(DEFAULTS))
    if unknown:
        listed = ", ".join(unknown)
        raise UserError(
            f"{where}: it was written by another version of fedmpi, whose {listed} this one does "
            "not know")
    options = {}
    for key, value in recorded.items():
        # Without the run's own file and its last round.
        if value is not None and key not in ("out", "until"):
            options[key] = value
    _check_types(context, options, where)
    context.meta["like"] = path, options
    context.meta["parts"] = attrs.get("parts", [])
    _set_defaults(context)


def _set_defaults(context):
    """Set the defaults of --like, overridden by those of --config, in whatever order the two
    came."""
    _, like = context.meta.get("like", (None, {}))
    config = context.meta.get("config", {})
    context.default_map = like | config


def _check_types(context, options, where):
    """UserError for values impossible for a flag: by type (TOML tells 2 from 2.0 and "2"), then by
    the flag's own check."""
    params = {param.name: param for param in context.command.params}
    for key, value in options.items():
        items = [value]
        if key in SEVERAL and isinstance(value, list):
            items = value
        _check_type(key, value, items, where)
        # Click wants a list of an option that may be given several times.
        cast = items if key in SEVERAL else value
        try:
            params[key].type_cast_value(context, cast)
        except click.BadParameter as error:
            raise UserError(f"{where}: {key}: {error.message}") from None


def _check_type(key, value, items, where):
    # The type of the default is the option's.
    kind = type(DEFAULTS[key])
    types = (str,)
    name = "text"
    if kind is int:
        types = (int,)
        name = "a whole number"
    elif kind is float:
        types = (int, float)
        name = "a number"
    elif key in SEVERAL:
        name = "text or a list of texts"
    for item in items:
        # A bool is an int for Python.
        if isinstance(item, bool) or not isinstance(item, types):
            raise UserError(f"{where}: {key} must be {name}, got {value!r}")


def tell_changes(context, flags, tell):
    """One line, to ``tell``, on the options changed against --like; with the same options it is the
    same run."""
    path, recorded = context.meta["like"]
    options = completed(flags)
    changes = []
    for key, value in recorded.items():
        before = _shown(value)
        now = _shown(options[key])
        if now != before:
            option = key.replace("_", "-")
            changes.append(f"{option} {now} (was {before})")
    part_changes = settings.changes(context.meta["parts"], settings.of(options))
    changes += map(settings.change_text, part_changes)
    if not changes:
        tell(f"like {path}, in all options: the same run again")
        return
    listed = "; ".join(changes)
    tell(f"like {path}, but {listed}")


def _shown(value):
    """The value of an option, a list as a text."""
    if not isinstance(value, (list, tuple)):
        return value
    return ", ".join(value) or "none"


def run_file(seed):
    """The default name of a run file. It holds the process: two may start in the same second."""
    now = time.strftime("%Y%m%d-%H%M%S")
    process = os.getpid()
    return os.path.join("runs", f"{now}-{seed}-{process}.h5")
