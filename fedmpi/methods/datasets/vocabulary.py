"""A data set's tokens as texts, and back, by the names that run files and models keep of them.

Neither the text nor the tokenizer's file is needed. Names are of one of three kinds:

    characters    every name is one character; a text is their names in a row
    byte pairs    the first 256 names are GPT-2's signs of the bytes, all others are joined of these
    words         any other names; a space between two of them. Tokens without names are numbers
"""

import codecs
from typing import Callable, NamedTuple

from fedmpi.core.errors import UserError
from fedmpi.methods.datasets.text import BYTES, tokenizers

# Unknown words of a prompt that are named.
TOLD = 3


class Vocabulary(NamedTuple):
    """A way from texts to tokens and back."""

    # (text) -> list of ids; UserError for texts that tokens cannot spell.
    encode: Callable
    # (ids) -> iterator of texts, one for each id. Some are empty: a character of several tokens
    # comes with the last of them.
    spell: Callable
    # A token, in the plural.
    kind: str
    # The id of the end of a line; 0 if no token is one.
    newline: int


def vocabulary(names, size):
    """The ``Vocabulary`` of ``size`` tokens with these ``names``; with none, of numbers."""
    if not names:
        numbers = map(str, range(size))
        return _looked_up(tuple(numbers), str.split, " ", "token numbers")
    if tuple(names[:BYTES]) == tuple(_signs().values()):
        return _byte_pairs(names)
    if all(len(name) == 1 for name in names):
        return _looked_up(names, list, "", "characters")
    return _looked_up(names, str.split, " ", "words")


def _looked_up(names, pieces, gap, kind):
    """The ``Vocabulary`` of names that a text's ``pieces(text)`` are; a ``gap`` follows each."""
    ids = {name: number for number, name in enumerate(names)}

    def encode(text):
        own_pieces = pieces(text)
        # Each once, in their order.
        unknown = [piece for piece in dict.fromkeys(own_pieces) if piece not in ids]
        if unknown:
            listed = ", ".join(map(repr, unknown[:TOLD]))
            raise UserError(f"the model has {len(ids):,} {kind}, and none of them is {listed}; "
                            "leave that out")
        return [ids[piece] for piece in own_pieces]

    def spell(numbers):
        for number in numbers:
            yield names[number] + gap

    return Vocabulary(encode, spell, kind, ids.get("\n", 0))


def _byte_pairs(names):
    """The ``Vocabulary`` of byte pairs."""
    byte_of = {sign: byte for byte, sign in _signs().items()}
    contents = [bytes(byte_of[sign] for sign in name) for name in names]

    def encode(text):
        return _coder(names).encode(text).ids

    def spell(numbers):
        # Bytes of an unfinished character wait in it.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for number in numbers:
            yield decoder.decode(contents[number])

    return Vocabulary(encode, spell, "byte pairs", contents.index(b"\n"))


def _signs():
    """``{byte: sign}``, in the order of the signs: a printable character for each byte.

    Printable bytes of Latin-1 stand for themselves. All others have characters from 256 on.
    """
    signs = {}
    num_hidden = 0
    for byte in range(BYTES):
        # The soft hyphen, 173, is the one of these that is not seen.
        is_seen = 33 <= byte <= 126 or 161 <= byte <= 255 and byte != 173
        signs[byte] = chr(byte) if is_seen else chr(BYTES + num_hidden)
        num_hidden += not is_seen
    return dict(sorted(signs.items(), key=lambda item: item[1]))


def _coder(names):
    """The library's tokenizer of these byte pairs; ValueError if it is not installed."""
    library = tokenizers()
    ids = {name: number for number, name in enumerate(names)}
    coder = library.Tokenizer(library.models.BPE(ids, _merges(names, ids)))
    coder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return coder


def _merges(names, ids):
    """``[(left, right)]``: the pair that made each name but the signs, in the order of learning.

    The pair is what earlier merges leave of the name. A name that they leave in more pieces was not
    learnt, as a sign for the end of a text was not.
    """
    merges = []
    for number in range(BYTES, len(names)):
        pieces = _merged(list(names[number]), ids, number)
        if len(pieces) == 2:
            merges.append(tuple(pieces))
    return merges


def _merged(pieces, ids, limit):
    """``pieces`` after all merges that apply, the earliest first, but those from ``limit`` on."""
    while len(pieces) > 2:
        pairs = [left + right for left, right in zip(pieces, pieces[1:])]
        made_by = [ids.get(pair, limit) for pair in pairs]
        earliest = min(made_by)
        if earliest >= limit:
            break
        place = made_by.index(earliest)
        pieces = [*pieces[:place], pairs[place], *pieces[place + 2:]]
    return pieces
