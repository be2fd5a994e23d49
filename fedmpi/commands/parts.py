"""``fedmpi list``: the catalogue, and one part in full. Nothing is imported for it, see
``fedmpi.catalog``."""

import click

from fedmpi import catalog
from fedmpi.commands.completion import names
from fedmpi.core.wide import reflowed, single_quoted, terminal_width, wrapped
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, wanted

OWN = "what the strategy, the pruner and the codec send, and nothing of its own"
# For kinds without messages of their own: the parts that decide about the bytes.
WIRE = {
    "weighting": f"{OWN}: weights stay on the server",
    "optimiser": f"{OWN}: its state stays on the client, and starts anew each round unless the strategy keeps it",
    "schedule": f"{OWN}: the learning rate follows from the round and the step",
    "augment": f"{OWN}: inputs never travel",
    "dataset": "nothing: samples never travel; inputs and classes set the size of the model's ends",
    "partition": f"{OWN}: samples never travel",
    "noise": f"{OWN}: labels never travel",
    "features": f"{OWN}: inputs never travel",
    "fault": f"{OWN}: as many bytes as an honest client",
    "model": "4 bytes for every kept weight and every bias, each way, as float32; fedmpi train "
             "--dry-run weighs it",
    "adapters": f"{OWN}: only trained values travel; frozen ones are sent once, before round 1",
    "task": "nothing: losses and metrics are found where the samples are",
    "devices": f"{OWN}: they say how long it takes",
}


@click.command("list", short_help="What can be chosen: kinds, names, one name in full.")
@click.argument("kind", required=False, type=click.Choice(list(catalog.KINDS)), metavar="[KIND]")
@click.argument("name", required=False, shell_complete=names)
def list_parts(kind, name):
    """What can be chosen: all kinds, the names of one KIND, or one NAME in full."""
    width = terminal_width()
    if name:
        part = entry(catalog.KINDS[kind], name)
        text = in_full(kind, name, part)
        click.echo(reflowed(single_quoted(text), width))
        return
    lines = []
    kinds = [kind] if kind else catalog.KINDS
    for listed in kinds:
        lines.append(f"--{listed}")
        lines += _names_lines(catalog.KINDS[listed], width)
    lines.append("")
    placeholder = kind or "KIND"
    last = f"fedmpi list {placeholder} NAME: what one does, its options, its paper, what it sends"
    lines += wrapped(last, width, "  ")
    click.echo("\n".join(lines))


def _names_lines(table, width):
    """The names of a kind, each with its line and its options."""
    name_width = max(map(len, table))
    # Two columns before a name, one behind it.
    indent = " " * (name_width + 3)
    lines = []
    for name in table:
        part = entry(table, name)
        line = single_quoted(part.line)
        lines += wrapped(f"  {name:<{name_width}} {line}", width, indent)
        options = ",".join(_with_default(option) for option in part.options.values())
        if not options:
            continue
        for line in options_lines(options, width - len(indent)):
            lines.append(indent + line)
    return lines


def _with_default(option):
    """``entropy=false``: as it is typed."""
    default = option.default
    if isinstance(default, bool):
        default = str(default).lower()
    return f"{option.name}={default}"


def in_full(kind, name, part):
    """The text about one part, also a user's own: its docstring may lack some of it."""
    texts = [f"{name}: {part.line}"]
    if part.text:
        texts.append(part.text)
    options = options_text(part) or "  none"
    texts.append(f"options:\n{options}")
    for label, text in _sections(kind, name, part).items():
        if text:
            texts.append(f"{label}:\n  {text}")
    return "\n\n".join(texts)


def _sections(kind, name, part):
    """``{label: text or None}``: the paper, an example, and the bytes of a part."""
    paper = part.fields.get("Paper")
    up = part.fields.get("Up", WIRE.get(kind))
    down = part.fields.get("Down", WIRE.get(kind))
    command = example(kind, name, part)
    if up == down:
        return {"paper": paper, "example": command, "on the wire": up}
    return {"paper": paper, "from clients": up, "to clients": down, "example": command}


def options_lines(options, width):
    """``a=1,b=2`` in lines at most ``width`` wide, broken after commas."""
    # Lines break at blanks alone.
    spaced = options.replace(",", ", ")
    lines = wrapped(spaced, width)
    return [line.replace(", ", ",") for line in lines]


def example(kind, name, part):
    """A command line with this part: its own example, else one with its first option and
    default."""
    if "Example" in part.fields:
        return part.fields["Example"]
    command = f"fedmpi train --{kind} {name}"
    # An empty default has no text to show.
    for option in part.options.values():
        if option.default != "":
            return f"{command}:{_with_default(option)}"
    return command


def options_text(part):
    """A line an option: name, default, and its type or its choices."""
    texts = [_with_default(option) for option in part.options.values()]
    width = max(map(len, texts), default=0)
    lines = []
    for text, option in zip(texts, part.options.values()):
        line = f"  {text:<{width}}  {_kind(option)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _kind(parameter):
    """The choices of an option, or its type."""
    words = wanted(parameter)
    if choices(parameter):
        return words
    return words.removeprefix("a ")
