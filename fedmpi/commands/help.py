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
TOPICS = ("tutorial", "methods", "contributions", "large-models", "time", "reading", "run-file", "studies", "cluster",
          "failures", "measuring", "own-methods", "contributing", "changelog")


def topics(context, parameter, typed):
    """Completes TOPIC."""
    from click.shell_completion import CompletionItem
    return [CompletionItem(name, help=summary(name)) for name in TOPICS if name.startswith(typed)]


@click.command("help")
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
    return (DOCS / f"{topic}.md").read_text(encoding="utf-8")


def summary(topic):
    """The sentence that says what a page is about: it stands below the title."""
    return page(topic).splitlines()[2]


def contents(width):
    """The list of all topics."""
    pairs = [(topic, summary(topic)) for topic in TOPICS]
    last = "fedmpi help TOPIC shows a page, fedmpi COMMAND --help the options of a command."
    return "\n".join([*labelled(pairs, width), "", *wrapped(last, width)])


def check_topic(topic, commands):
    """UserError unless there is a page about it."""
    if topic in TOPICS:
        return
    if topic in commands:
        raise UserError(f"{topic} is a command, not a topic: fedmpi {topic} --help. Topics: {', '.join(TOPICS)}")
    perhaps = hint(topic, TOPICS) or "."
    raise UserError(f"unknown topic {topic!r}{perhaps} Topics: {', '.join(TOPICS)}")


def show(text):
    """Write a text; in a terminal that is too low for it, through the reader's pager."""
    rows = shutil.get_terminal_size(USUAL).lines
    if sys.stdout.isatty() and len(text.splitlines()) >= rows:
        click.echo_via_pager(text + "\n")
    else:
        write_out(text)
