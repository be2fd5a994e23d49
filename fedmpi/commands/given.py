"""The options of a run on the command line, in a TOML file, or like those of another run."""

import os
import re
import time

import click

from fedmpi import catalog
from fedmpi.build import settings
from fedmpi.build.advice import check_keys, of_parts
from fedmpi.commands import completion
from fedmpi.commands.runs import toml
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS, KIND_OF, PARTS, SEVERAL, completed


class Options(click.Command):
    """A command with options of a run. One that it does not know, but a part does, is told with that part."""

    def parse_args(self, context, args):
        words = list(args)
        try:
            return super().parse_args(context, args)
        except click.NoSuchOption as error:
            flags = _as_table(words)
            key = _key(error.option_name)
            kinds = [param.name for param in self.params if param.name in catalog.KINDS]
            found = of_parts(key, flags, kinds, "--{kind} {spec}")
            if not found:
                raise
            raise UserError(f"no such option: {error.option_name}; {found}") from None


def _as_table(words):
    """``{option: value}`` of a command line as far as it can be told without knowing its options."""
    table = {}
    for word, after in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        value = value if equals else after
        if name.startswith("--") and value and not value.startswith("--"):
            table[_key(name)] = value
    return table


def _key(flag):
    """``local_epochs`` of ``--local-epochs``."""
    return flag.lstrip("-").replace("-", "_")


def part(kind, text, usual=None):
    """A click option for one of the catalogue's kinds; ``usual`` says what its default is where that is not simple."""
    usual = usual or PARTS[kind] or "as the strategy is usually played"
    listed = KIND_OF.get(_key(kind), kind)
    return click.option(f"--{kind}", metavar="NAME[:OPTION=VALUE,...]", shell_complete=completion.parts(listed),
                        help=f"{text}; see fedmpi list {listed}.  [default: {usual}]")


def separated(context, parameter, specs):
    """``("flip", "crop:pad=4")`` of ``("flip,crop:pad=4",)``: a comma begins the next part where no option=value of the
    last one follows."""
    return tuple(part for spec in specs for part in re.split(r",(?![^:,]*=)", spec))


def several(name, text, callback=None):
    """A click option that may be given several times, each a part of the kind."""
    kind = SEVERAL[_key(name)]
    return click.option(f"--{name}", multiple=True, callback=callback, metavar="NAME[:OPTION=VALUE,...]",
                        shell_complete=completion.parts(kind),
                        help=f"{text}; see fedmpi list {kind}. May be given several times.")


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
            click.option("--client-test", type=click.FloatRange(0, 0.9),
                         help="Share of each client's samples that it never trains on and is tested on by itself.  "
                         "[default: 0]"),
            click.option("--server-data", metavar="SHARE|COUNT[:labels=L+L]", help="Training samples that the server "
                         "works with itself, apart from validation: a share of all, or so many; of these labels "
                         "alone. For strategies that ask for them.  [default: 0]"),
            click.option("--clients", type=click.IntRange(1), help="Clients in all.  [default: 32]"),
            part("partition", "Who holds which samples"),
            part("noise", "Which labels are wrong",
                 f"none where --dataset is given; {PARTS['noise']} in the demonstration without"),
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
        check_keys(found, DEFAULTS, where)
        _check_types(context, found, where)
        context.meta["config"] = found | {key: [found[key]] for key in SEVERAL if isinstance(found.get(key), str)}
        _set_defaults(context)


def read_like(context, parameter, path):
    """``--like RUN.h5``: the options of that run become defaults, which those of --config and flags override."""
    if path:
        from fedmpi.store import read_run
        attrs = read_run(path).attrs
        recorded = attrs["options"]
        where = f"--like {path}"
        if unknown := sorted(set(recorded) - set(DEFAULTS)):
            raise UserError(f"{where}: it was written by another version of fedmpi, whose {', '.join(unknown)} this "
                            "one does not know")
        found = {key: value for key, value in recorded.items() if value is not None and key not in ("out", "until")}
        _check_types(context, found, where)
        context.meta["like"] = path, found
        context.meta["parts"] = attrs.get("parts", [])
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


def tell_changes(context, given, tell):
    """One line, to ``tell``, on what --like changes; a run of the same options would be the same run."""
    path, recorded = context.meta["like"]

    def text(value):
        return (", ".join(value) or "none") if isinstance(value, (list, tuple)) else value

    options = completed(given)
    changed = [f"{key.replace('_', '-')} {text(options[key])} (was {text(value)})" for key, value in recorded.items()
               if text(options[key]) != text(value)]
    changed += map(settings.told, settings.changes(context.meta["parts"], settings.of(options)))
    tell(f"like {path}" + (f", but {'; '.join(changed)}" if changed else ", in all options: the same run again"))


def run_file(seed):
    """The name of a run file that nobody named; another process that starts in the same second takes another one."""
    return os.path.join("runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}-{os.getpid()}.h5")
