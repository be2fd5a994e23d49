"""``fedmpi list``: what can be chosen, and one part in full. Nothing is imported for it, see ``fedmpi.catalog``."""

import click

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import choices, wanted
from fedmpi.core.wide import reflowed, terminal_width, wrapped
from fedmpi.commands.completion import names

OWN = "what the strategy, the pruner and the codec send, and nothing of its own"
WIRE = {                     # of the kinds whose parts send nothing of their own: who decides the bytes
    "weighting": f"{OWN}: weights stay on the server",
    "optimiser": f"{OWN}: its state stays on the client, and starts anew each round",
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
    if name:
        told = in_full(kind, name, entry(catalog.KINDS[kind], name))
        click.echo(reflowed(told, terminal_width()))
        return
    room = terminal_width()
    for this in [kind] if kind else catalog.KINDS:
        click.echo(f"--{this}")
        width = max(map(len, catalog.KINDS[this]))
        for each in catalog.KINDS[this]:
            found = entry(catalog.KINDS[this], each)
            options = ",".join(f"{p.name}={p.default}" for p in found.options.values())
            space = " " * (width + 3)
            click.echo("\n".join(wrapped(f"  {each:<{width}} {found.line}", room, space)))
            if options:
                click.echo("\n".join(space + line for line in options_lines(options, room - width - 3)))
    last = f"fedmpi list {kind or 'KIND'} NAME: what one does, its options, its paper, what it sends"
    click.echo("\n".join(["", *wrapped(last, room, "  ")]))


def in_full(kind, name, found):
    """All that is known of one part, of the user's own as well: it may say less."""
    told = {"paper": found.fields.get("Paper"), "from clients": found.fields.get("Up", WIRE.get(kind)),
            "to clients": found.fields.get("Down", WIRE.get(kind)), "example": example(kind, name, found)}
    if told["from clients"] == told["to clients"]:
        told["on the wire"] = told.pop("from clients")
        del told["to clients"]
    lines = [f"{label}:\n  {text}" for label, text in told.items() if text]
    head = [f"{name}: {found.line}"] + [found.text] * bool(found.text)
    return "\n\n".join([*head, "options:\n" + (options_text(found) or "  none"), *lines])


def options_lines(options, width):
    """``a=1,b=2`` in lines at most ``width`` wide, broken after commas."""
    spaced = wrapped(options.replace(",", ", "), width)
    return [line.replace(", ", ",") for line in spaced]


def example(kind, name, found):
    """A command line with this part: its own example, else it and its first option as it is anyway."""
    first = next((f":{p.name}={p.default}" for p in found.options.values() if p.default != ""), "")
    return found.fields.get("Example", f"fedmpi train --{kind} {name}{first}")


def options_text(found):
    """A line an option: name, default, and its type or its choices."""
    pairs = [(f"{each.name}={each.default}", _kind(each)) for each in found.options.values()]
    width = max((len(text) for text, _ in pairs), default=0)
    return "\n".join(f"  {text:<{width}}  {kind}".rstrip() for text, kind in pairs)


def _kind(parameter):
    """The choices of an option, or its type."""
    words = wanted(parameter)
    return words if choices(parameter) else words.removeprefix("a ")
