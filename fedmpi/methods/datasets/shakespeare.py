"""Tiny Shakespeare with its speakers: natural clients of a language model.

The file is a play of blocks, a blank line between two; a block's first line is ``NAME:``, its
speaker, and the rest is spoken text. A speaker's blocks are joined to one text in their order. The
last tenth of each speaker's text tests, if that is a window.

Karpathy's file has 299 speakers and 65 characters; with windows of 64 tokens 262 speakers have one.
"""

import os
from collections import defaultdict

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.stream import TEST_SHARE
from fedmpi.methods.datasets.text import Kind, coder_of, of_clients, read_text

FILE = os.path.join("tinyshakespeare", "input.txt")


def shakespeare(data_dir, tokens: Kind = "char", vocab: int = 0, context: int = 64,
                test: float = TEST_SHARE):
    """The plays in ``tinyshakespeare/input.txt`` of ``data_dir``; clients are their speakers.

    ``vocab`` is the number of byte pairs, 0 for 1024 (of characters it follows from the text);
    ``context`` the tokens of a window; ``test`` the share of each speaker's text that tests.
    Speakers without a window are left out. Nothing is downloaded.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629, for speakers as clients; the file is Karpathy's.
    Example: fedmpi train --task lm --dataset shakespeare --model gpt --local-steps 20
    """
    if not 0 < test < 1:
        raise ValueError(f"test must be in (0, 1), got {test}")
    path = os.path.join(data_dir, FILE)
    if not os.path.isfile(path):
        raise DataError(f"there is no {path}; put Karpathy's tinyshakespeare there, the file "
                        "input.txt of his char-rnn, or any text of its form: NAME: and lines, "
                        "then a blank line")
    content = read_text(path)
    spoken = speeches(content)
    if not spoken:
        raise DataError(f"{path}: no block begins with a line NAME:, so that there are no speakers; "
                        "take --dataset text for a text without them")
    speakers = sorted(spoken)
    parts = [_split(spoken[name], test) for name in speakers]
    texts, test_texts = zip(*parts)
    coder = coder_of(tokens, vocab, content, "\n".join(texts))
    return of_clients(coder, speakers, texts, test_texts, context, whose=path)


def speeches(content):
    """``{speaker: text}`` of a play, each speaker's blocks joined in their order."""
    spoken = defaultdict(list)
    speaker = None
    for block in content.replace("\r\n", "\n").split("\n\n"):
        first, newline, rest = block.strip("\n").partition("\n")
        if newline and first.endswith(":"):
            speaker = first[:-1]
            spoken[speaker].append(rest)
        elif speaker and block.strip("\n"):
            # A block without a name goes on with the last speaker's.
            spoken[speaker].append(block.strip("\n"))
    return {name: "\n".join(blocks) + "\n" for name, blocks in spoken.items()}


def _split(spoken, test):
    """``(training, test)`` text of one speaker."""
    border = round(len(spoken) * (1 - test))
    return spoken[:border], spoken[border:]
