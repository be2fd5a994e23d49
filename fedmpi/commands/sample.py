"""``fedmpi sample``: text from the language model of a run."""

import itertools
import sys

import click

from fedmpi.commands.model import ROUND, summary, trained_model
from fedmpi.commands.reading import run_argument
from fedmpi.commands.say import say
from fedmpi.commands.streams import write
from fedmpi.core.errors import DiskError


@click.command(short_help="Text from a run's language model.")
@run_argument("place", "RUN.h5|MODEL.safetensors")
@click.option(
    "--prompt", metavar="TEXT",
    help="The text that the model goes on with; numbers where tokens have no names.  [default: the "
         "end of a line]")
@click.option("--tokens", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
    help="The lower the surer; 0 always takes the likeliest token.")
@click.option(
    "--top-k", type=click.IntRange(0), default=200, show_default=True,
    help="Draw among so many of the likeliest tokens; 0: among all.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@ROUND
def sample(place, prompt, tokens, temperature, top_k, seed, round):
    """Text from the language model of a run, or of a file that export-model wrote, as it is drawn.

    The same seed makes the same text. A line about the model goes to standard error, the prompt and
    the text to standard output. Tokens without names, such as those of a file of tokens, are
    printed as their numbers.

    \b
    fedmpi sample a.h5 --prompt "ROMEO:" --tokens 300
    fedmpi sample a.h5 --temperature 0        # always the likeliest token
    """
    import torch

    from fedmpi.read.generate import generated, writer
    # As in a run: small models are no faster on more, and their text would depend on the number.
    torch.set_num_threads(1)
    model = trained_model(place, round)
    author = writer(model, place)
    words = author.vocabulary
    first = words.encode(prompt or "")
    say(f"{place}: {summary(model)}; {_vocabulary_text(model, words)}")
    # Without a prompt the text begins after the end of a line, which is not shown.
    start = first or [words.newline]
    following = generated(author, start, tokens, temperature, top_k, seed)
    ids = itertools.chain(first, following)
    _write_all(words.spell(ids))


def _vocabulary_text(model, words):
    num_tokens = model.about["inputs"]["outputs"]
    if words.kind == "token numbers":
        return f"its {num_tokens:,} tokens have no names, so that their numbers follow"
    return f"{num_tokens:,} {words.kind}"


def _write_all(texts):
    """Write each text as it comes; DiskError if that cannot be done."""
    try:
        for text in texts:
            # Nobody reads any more.
            if not write(sys.stdout, text):
                return
        write(sys.stdout, "\n")
    except OSError as error:
        raise DiskError(f"cannot write what comes out: {error.strerror}") from error
