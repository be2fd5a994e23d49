"""Text as tokens: characters, or byte pairs learnt from the training part.

The first part of a text trains, the last tests, as nanoGPT splits. Characters are all those of the
text, in the order of Unicode. Byte pairs (the ``tokenizers`` library) are learnt from the training
part alone, over bytes, so that they spell any text; the same text makes the same tokens.
"""

import os
from typing import Callable, Literal, NamedTuple

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.stream import TEST_SHARE, dataset_of

Kind = Literal["char", "bpe"]
# Byte pairs begin with a token for each byte.
BYTES = 256
# Byte pairs, where their number is not named.
PAIRS = 1024


def text(data_dir, file: str = "text.txt", tokens: Kind = "char", vocab: int = 0,
         context: int = 64, test: float = TEST_SHARE):
    """The UTF-8 text in ``file``, relative to ``data_dir`` or absolute, as windows of tokens.

    ``vocab`` is the number of byte pairs, 0 for 1024 (of characters it follows from the text);
    ``context`` the tokens of a window; ``test`` the share of the text at its end that tests.

    Paper: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units",
        arXiv 1508.07909, for byte pairs.
    Example: fedmpi train --task lm --dataset text:file=book.txt,context=128 --model gpt
    """
    if not 0 < test < 1:
        raise ValueError(f"test must be in (0, 1), got {test}")
    path = os.path.join(data_dir, file)
    content = read_text(path)
    border = round(len(content) * (1 - test))
    parts = content[:border], content[border:]
    coder = coder_of(tokens, vocab, content, parts[0])
    train, held = [coder.encode(part) for part in parts]
    return dataset_of(
        train, held, context, len(coder.names),
        names=coder.names,
        token_bytes=tuple(map(bytes_per_token, parts, (train, held))),
        remarks=(tokens_line(coder, len(train), len(held)),),
        whose=path)


def read_text(path):
    """The text of a file; DataError in one line."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"cannot read the text {path} ({error.strerror}); name another file, or "
                        "say by --data-dir where it lies") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); convert "
                        "it with iconv -t UTF-8") from error
    if len(content) < 2:
        raise DataError(f"{path}: the text has {len(content)} characters; add some")
    return content


class Coder(NamedTuple):
    """A way from texts to tokens and back."""

    # A text a token: ``names[token]``.
    names: tuple
    # (text) -> (n,) uint16 or int32.
    encode: Callable
    # (tokens) -> text.
    decode: Callable
    # What a token is, in the plural.
    kind: str


def coder_of(tokens, vocab, content, training):
    """A ``Coder`` of the ``content``, of the kind ``tokens``.

    Byte pairs are learnt from the text ``training``.
    """
    if tokens == "char":
        if vocab:
            raise ValueError("vocab has no effect with tokens=char, whose number follows from the "
                             "text; leave it out")
        return characters(content)
    vocab = vocab or PAIRS
    if vocab <= BYTES:
        raise ValueError(f"vocab must be above {BYTES}, a token for each byte, got {vocab}")
    return byte_pairs(training, vocab)


def characters(content):
    """A ``Coder`` of all characters of a text, in the order of Unicode."""
    names = tuple(sorted(set(content)))
    points = code_points("".join(names))

    def encode(some_text):
        places = np.searchsorted(points, code_points(some_text))
        return smallest(places, len(names))

    def decode(ids):
        return "".join(names[number] for number in ids)

    return Coder(names, encode, decode, "characters")


def code_points(some_text):
    """(n,) uint32: a text's characters as Unicode counts them."""
    encoded = some_text.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(encoded, np.uint32)


def byte_pairs(training, vocab):
    """A ``Coder`` of at most ``vocab`` byte pairs, learnt from a text.

    A pair never crosses the end of a line, so that lines are coded one by one.
    """
    library = tokenizers()
    by_bytes = library.pre_tokenizers.ByteLevel
    coder = library.Tokenizer(library.models.BPE())
    coder.pre_tokenizer = by_bytes(add_prefix_space=False)
    coder.decoder = library.decoders.ByteLevel()
    # In one order, as a set has none: the same text makes the same tokens.
    alphabet = sorted(by_bytes.alphabet())
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    coder.train_from_iterator(_lines(training), trainer)
    size = coder.get_vocab_size()

    def encode(some_text):
        ids = []
        for line in coder.encode_batch(_lines(some_text)):
            ids += line.ids
        return smallest(ids, size)

    def decode(ids):
        return coder.decode(list(ids))

    names = tuple(coder.id_to_token(number) for number in range(size))
    return Coder(names, encode, decode, "byte pairs")


def _lines(some_text):
    return some_text.splitlines(keepends=True)


def tokenizers():
    """The library of that name; ValueError in one line if it is not installed."""
    # Threads of the library would outnumber the ranks' cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers as library
    except ImportError as error:
        raise ValueError("tokens=bpe needs the library tokenizers: pip install 'fedmpi[text]', or "
                         "take tokens=char") from error
    return library


def of_clients(coder, names, train, test, context, whose):
    """The ``Dataset`` of the clients ``names``, whose texts are ``train``, one each.

    ``test`` are the texts of the test part. Windows have ``context`` tokens; ``whose`` names the
    data in errors.
    """
    x_train, offsets = joined(coder, train)
    x_test, test_offsets = joined(coder, test)
    token_bytes = (
        bytes_per_token("".join(train), x_train),
        bytes_per_token("".join(test), x_test),
    )
    return dataset_of(
        x_train, x_test, context, len(coder.names),
        offsets=offsets,
        test_offsets=test_offsets,
        client_names=names,
        names=coder.names,
        token_bytes=token_bytes,
        remarks=(tokens_line(coder, len(x_train), len(x_test)),),
        whose=whose)


def joined(coder, texts):
    """``(tokens (n,), offsets)`` of texts, one after the other."""
    coded = [coder.encode(text) for text in texts]
    ends = np.cumsum([len(part) for part in coded])
    offsets = np.concatenate([[0], ends])
    return np.concatenate(coded), offsets


def smallest(ids, vocab):
    """(n,): the ids as uint16, or as int32 of a larger vocabulary."""
    dtype = np.int32
    if vocab <= 1 << 16:
        dtype = np.uint16
    return np.asarray(ids, dtype)


def bytes_per_token(content, ids):
    """Bytes of UTF-8 text for a token; NaN without tokens."""
    if not len(ids):
        return np.nan
    return len(content.encode()) / len(ids)


def tokens_line(coder, num_train, num_test):
    """A line for the user about the tokens."""
    return (f"tokens: {num_train:,} training and {num_test:,} test tokens, of {len(coder.names):,} "
            f"{coder.kind}")
