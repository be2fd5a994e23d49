"""``fedmpi help``: the pages of the documentation, in the terminal."""

import pathlib
import shutil
import sys

import click

from fedmpi.commands.markdown import as_text
from fedmpi.commands.say import write_out
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import hint
from fedmpi.core.wide import USUAL, labelled, terminal_width, wrapped

DOCS = pathlib.Path(__file__).parents[1] / "docs"
# In the order in which a newcomer may want them. Each is a file of ``fedmpi/docs``.
TOPICS = (
    "tutorial",
    "methods",
    "contributions",
    "large-models",
    "time",
    "reading",
    "run-file",
    "studies",
    "cluster",
    "failures",
    "measuring",
    "own-methods",
    "contributing",
    "changelog",
)


def topics(context, parameter, typed):
    """Completes TOPIC."""
    from click.shell_completion import CompletionItem
    items = []
    for name in TOPICS:
        if name.startswith(typed):
            items.append(CompletionItem(name, help=summary(name)))
    return items


@click.command("help", short_help="Show a page of the documentation.")
@click.argument("topic", required=False, shell_complete=topics)
@click.pass_context
def help_pages(context, topic):
    """Show a page of the documentation; without a TOPIC, list the pages.

    \b
    fedmpi help                  # the topics, a line each
    fedmpi help tutorial         # fifteen minutes to a method of your own
    """
    width = terminal_width()
    if topic is None:
        write_out(contents(width))
        return
    check_topic(topic, context.parent.command.commands)
    show(as_text(page(topic), width))


def page(topic):
    """The Markdown of a topic's page."""
    file = DOCS / f"{topic}.md"
    return file.read_text(encoding="utf-8")


def summary(topic):
    """The subject of a page, in a sentence."""
    # It stands below the title and an empty line.
    lines = page(topic).splitlines()
    return lines[2]


def contents(width):
    """The list of all topics."""
    pairs = [(topic, summary(topic)) for topic in TOPICS]
    last = "fedmpi help TOPIC shows a page, fedmpi COMMAND --help the options of a command."
    lines = [*labelled(pairs, width), ""]
    lines += wrapped(last, width)
    return "\n".join(lines)


def check_topic(topic, commands):
    """UserError unless there is a page about it."""
    if topic in TOPICS:
        return
    listed = ", ".join(TOPICS)
    if topic in commands:
        raise UserError(
            f"{topic} is a command, not a topic: fedmpi {topic} --help. Topics: {listed}")
    perhaps = hint(topic, TOPICS) or "."
    raise UserError(f"unknown topic {topic!r}{perhaps} Topics: {listed}")


def show(text):
    """Write a text; through the reader's pager if it is longer than the terminal."""
    rows = shutil.get_terminal_size(USUAL).lines
    # The last row is the prompt's.
    is_long = len(text.splitlines()) >= rows
    if sys.stdout.isatty() and is_long:
        click.echo_via_pager(text + "\n")
    else:
        write_out(text)
