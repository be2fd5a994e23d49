"""``fedmpi list``: the catalogue, and one part in full. Nothing is imported for it, see ``fedmpi.catalog``."""

import click

from fedmpi import catalog
from fedmpi.commands.completion import names
from fedmpi.core.wide import reflowed, terminal_width, wrapped
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, wanted

OWN = "what the strategy, the pruner and the codec send, and nothing of its own"
# For kinds without messages of their own: the parts deciding the bytes.
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
    "model": "4 bytes for every kept weight and every bias, each way, as float32; fedmpi train --dry-run weighs it",
    "task": "nothing: losses and metrics are found where the samples are",
    "devices": f"{OWN}: they say how long it takes",
}


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(list(catalog.KINDS)), metavar="[KIND]")
@click.argument("name", required=False, shell_complete=names)
def list_parts(kind, name):
    """What can be chosen: all kinds, the names of one KIND, or one NAME in full."""
    width = terminal_width()
    if name:
        text = in_full(kind, name, entry(catalog.KINDS[kind], name))
        click.echo(reflowed(text, width))
        return
    kinds = [kind] if kind else catalog.KINDS
    for listed in kinds:
        click.echo("\n".join([f"--{listed}", *_names_lines(catalog.KINDS[listed], width)]))
    last = f"fedmpi list {kind or 'KIND'} NAME: what one does, its options, its paper, what it sends"
    click.echo("\n".join(["", *wrapped(last, width, "  ")]))


def _names_lines(table, width):
    """The names of a kind, each with its line and its options."""
    name_width = max(map(len, table))
    indent = " " * (name_width + 3)
    lines = []
    for name in table:
        part = entry(table, name)
        lines += wrapped(f"  {name:<{name_width}} {part.line}", width, indent)
        options = ",".join(f"{option.name}={option.default}" for option in part.options.values())
        if options:
            lines += [indent + line for line in options_lines(options, width - len(indent))]
    return lines


def in_full(kind, name, part):
    """The text about one part, also a user's own: its docstring may lack some of it."""
    up = part.fields.get("Up", WIRE.get(kind))
    down = part.fields.get("Down", WIRE.get(kind))
    sections = {"paper": part.fields.get("Paper")}
    if up == down:
        sections |= {"example": example(kind, name, part), "on the wire": up}
    else:
        sections |= {"from clients": up, "to clients": down, "example": example(kind, name, part)}
    texts = [f"{name}: {part.line}"]
    if part.text:
        texts.append(part.text)
    texts.append("options:\n" + (options_text(part) or "  none"))
    texts += [f"{label}:\n  {text}" for label, text in sections.items() if text]
    return "\n\n".join(texts)


def options_lines(options, width):
    """``a=1,b=2`` in lines at most ``width`` wide, broken after commas."""
    spaced = wrapped(options.replace(",", ", "), width)
    return [line.replace(", ", ",") for line in spaced]


def example(kind, name, part):
    """A command line with this part: its own example, else one with its first option and default."""
    if "Example" in part.fields:
        return part.fields["Example"]
    command = f"fedmpi train --{kind} {name}"
    for option in part.options.values():
        if option.default != "":
            return f"{command}:{option.name}={option.default}"
    return command


def options_text(part):
    """A line an option: name, default, and its type or its choices."""
    pairs = [(f"{option.name}={option.default}", _kind(option)) for option in part.options.values()]
    width = max((len(text) for text, _ in pairs), default=0)
    return "\n".join(f"  {text:<{width}}  {kind}".rstrip() for text, kind in pairs)


def _kind(parameter):
    """The choices of an option, or its type."""
    words = wanted(parameter)
    if choices(parameter):
        return words
    return words.removeprefix("a ")
